"""Whether another program's architecture is exactly our model: every reason against it, by layer and key.

Hugging Face classes (`inlay.model.architecture`) and llama.cpp's graphs (`inlay.export.llama_cpp`) say in class
attributes what they have; what these do not allow is a reason to refuse. No reason means that they are exact.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

from inlay.config import Config
from inlay.model.config import ModelConfig
from inlay.model.layout import LayerSpec, resolve
from inlay.model.mixers.attention import AttentionConfig

_DISTANCE = {"mixer.kind": 4, "norm": 2, "mlp.kind": 2}
"""How far some keys are from what an architecture has, in ordinary ones."""


class Reason(NamedTuple):
    """Why an architecture cannot express a model: the key that stands in the way, and the sentence."""

    key: str
    text: str


class Expressible(Config):
    """An architecture of another program."""

    kind: str

    MIXERS: ClassVar[frozenset[str]] = frozenset({"attention"})
    MLP: ClassVar[str] = "swiglu"
    NORM: ClassVar[str] = "rms"
    QK_NORM: ClassVar[bool] = False
    BIASES: ClassVar[frozenset[str]] = frozenset({"none"})
    NO_SOFTCAP: ClassVar[str]
    """The end of the sentence that refuses a softcap."""
    NO_SHARING: ClassVar[str] = ""
    """The end of the sentence that refuses shared K/V."""

    def reasons(self, config: ModelConfig, context: int | None = None) -> list[Reason]:
        """Why it is not this model, used at `context` positions (None: at any); empty when it is. One reason a key, the
        first layer's."""
        found = [*self.model_reasons(config)]
        for spec in resolve(config):
            found += self.layer_reasons(spec, config.width, context)
        found += self.uneven_reasons(config)
        return list({reason.key: reason for reason in reversed(found)}.values())[::-1]

    def refusal(self, config: ModelConfig, context: int | None = None) -> str | None:
        """One line that says why it is not this model; None when it is."""
        reasons = self.reasons(config, context)
        return f"{self.kind}: {'; '.join(reason.text for reason in reasons)}" if reasons else None

    def model_reasons(self, config: ModelConfig) -> Iterator[Reason]:
        """Those that are of no layer."""
        if config.norm != self.NORM:
            yield Reason("norm", f"norm = {config.norm}, where it has {self.NORM}")
        if config.head_softcap is not None:
            yield Reason("head_softcap", f"head_softcap = {config.head_softcap:g}{self.NO_SOFTCAP}")
        for index, owner in enumerate(config.kv_share.owners(config.names)):
            if owner is not None:
                reading = f"layer {index} ({config.names[index]}) reads the K/V of layer {owner}"
                yield Reason("kv_share", f"kv_share.kind = {config.kv_share.kind}: {reading}{self.NO_SHARING}")
                break

    def layer_reasons(self, spec: LayerSpec, width: int, context: int | None) -> Iterator[Reason]:
        """Those of one layer."""
        where = f"layer {spec.index} ({spec.name})"
        mixer, mlp = spec.block.mixer, spec.block.mlp
        if mixer.kind not in self.MIXERS:
            having = " and ".join(sorted(self.MIXERS))
            yield Reason("mixer.kind", f"{where}: mixer.kind = {mixer.kind}, where it has {having}")
        elif isinstance(mixer, AttentionConfig):
            yield from self.attention_reasons(mixer, where, width, context)
        if mlp.kind != self.MLP:
            yield Reason("mlp.kind", f"{where}: mlp.kind = {mlp.kind}, where it has {self.MLP}")

    def attention_reasons(
        self, mixer: AttentionConfig, where: str, width: int, context: int | None
    ) -> Iterator[Reason]:
        """Those of the attention of layer `where`."""
        if mixer.qk_norm != self.QK_NORM:
            having = "a gain on every query and key head" if self.QK_NORM else "no norm on queries and keys"
            value = str(mixer.qk_norm).lower()
            yield Reason("mixer.qk_norm", f"{where}: mixer.qk_norm = {value}, where it has {having}")
        if mixer.bias not in self.BIASES:
            having = " or ".join(sorted(self.BIASES))
            yield Reason("mixer.bias", f"{where}: mixer.bias = {mixer.bias}, where it has {having}")
        if mixer.softcap is not None:
            yield Reason("mixer.softcap", f"{where}: mixer.softcap = {mixer.softcap:g}{self.NO_SOFTCAP}")

    def uneven_reasons(self, config: ModelConfig) -> Iterator[Reason]:
        """Options that differ between layers of one kind, where it has one value for all; windows are not looked at."""
        first: dict[str, tuple[LayerSpec, dict[str, Any]]] = {}
        for spec in resolve(config):
            for name, part in (("mixer", spec.block.mixer), ("mlp", spec.block.mlp)):
                values = {key: value for key, value in part.to_dict().items() if key != "window"}
                other, expected = first.setdefault(f"{name} {part.kind}", (spec, values))
                for key, value in values.items():
                    if value != expected[key]:
                        yield differing(spec, other, f"{name}.{key}", value, expected[key])


def differing(spec: LayerSpec, other: LayerSpec, key: str, value: object, expected: object) -> Reason:
    """The reason that two layers differ in an option."""
    text = f"layer {spec.index} ({spec.name}): {key} = {value}, where layer {other.index} ({other.name}) has {expected}"
    return Reason(f"{key} differs", f"{text}, and it has one for all")


def refusal_by_nearest(members: Mapping[str, Expressible], config: ModelConfig, context: int | None) -> str | None:
    """Why none of an other program's architectures is this model, by those that come nearest; None when one is."""
    distances = {
        kind: sum(_DISTANCE.get(reason.key, 1) for reason in member.reasons(config, context))
        for kind, member in members.items()
    }
    least = min(distances.values())
    if least == 0:
        return None
    return " | ".join(str(members[kind].refusal(config, context)) for kind in members if distances[kind] == least)
