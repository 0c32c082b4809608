"""The contract of a Hugging Face architecture, both ways: our model as its config.json and weight names, and back.

One file each in `inlay.model.architectures`. An architecture lists every reason why its class would compute something
else than our model does; none means that the class is exact. Parts that only training uses (multi-token prediction,
horizon head) have no place in a file and are left out. What an architecture does not allow in a class attribute is a
reason to refuse.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from inlay.config import BadInput, Registry, nearest, validate
from inlay.model.config import ModelConfig
from inlay.model.expressible import Expressible, Reason, differing, refusal_by_nearest
from inlay.model.hf_keys import HFKeys, rope_keys
from inlay.model.layout import resolve
from inlay.model.mixers.attention import AttentionConfig
from inlay.model.transformer import Transformer

architectures = Registry("architecture", "inlay.model.architectures")

_OUTER = {"embedding": "model.embed_tokens", "final_norm": "model.norm", "head": "lm_head"}
_NORMS = {"mixer_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}


class Architecture(Expressible):
    """One architecture of transformers; its kind is the `model_type` of config.json."""

    NO_SOFTCAP: ClassVar[str] = ": Gemma 2 alone has it, with norms after mixer and network that this model has not"
    NO_SHARING: ClassVar[str] = (
        "; Gemma 3n alone shares K/V, with norms after mixer and network that this model has not"
    )
    CLASS: ClassVar[str]
    """Name of the class in transformers."""
    NORM_EPS: ClassVar[str] = "rms_norm_eps"
    WINDOWS: ClassVar[Literal["none", "uniform", "layers"]] = "none"
    """No windows; one for all layers; one size in the layers that a list names."""
    HEAD_DIM: ClassVar[bool] = True
    """Whether its config has the size of a head apart from width / heads."""
    HEADS_DIVIDE_WIDTH: ClassVar[bool] = False
    """Whether its config insists on that even so."""
    ACTIVATION: ClassVar[str] = "silu"
    BIAS_KEY: ClassVar[bool] = False
    """Whether `attention_bias` says that attention has biases, on all its maps."""
    DEFAULTS: ClassVar[Mapping[str, Any]]
    """What its config class has where config.json has no such key, for every key that is read but the sizes, without
    which nothing is opened. None: null, or what follows from other keys."""
    RENAMED: ClassVar[dict[str, str]] = {}
    """Its own names for weights that the mixers and networks call otherwise."""

    def hf_config(self, config: ModelConfig, vocab_size: int, context: int) -> dict[str, Any]:
        """The config.json of a model of `vocab_size` tokens at `context` positions, without dtype and token ids."""
        return {
            "architectures": [self.CLASS],
            "model_type": self.kind,
            "vocab_size": vocab_size,
            "hidden_size": config.width,
            "num_hidden_layers": config.layers,
            "max_position_embeddings": context,
            self.NORM_EPS: config.norm_eps,
            "tie_word_embeddings": config.tie_embeddings,
            "initializer_range": config.init_std,
            "use_cache": True,
            **self.layer_keys(config),
        }

    def names(self, config: ModelConfig) -> dict[str, str]:
        """Its name of each weight by ours, in our order. What only training uses is not among them."""
        with torch.device("meta"):
            model = Transformer(config.model_copy(update={"mtp": None, "horizon": None}), 1)
        return {name: self._name(model, name) for name, _ in model.named_parameters()}

    def to_file(self, name: str, tensor: Tensor, config: ModelConfig) -> Tensor:
        """The weight that we call `name` as its class has it."""
        return tensor

    def from_file(self, name: str, tensor: Tensor, config: ModelConfig, data: dict[str, Any]) -> Tensor:
        """The way back; `data` is the file's config.json."""
        return tensor

    def read(self, data: dict[str, Any], where: str) -> ModelConfig:
        """The model that a config.json describes. Raises BadInput that names the file `where` and the key."""
        keys = HFKeys(data, where, self.DEFAULTS)
        width, layers = keys.integer("hidden_size"), keys.integer("num_hidden_layers")
        blocks = self.read_blocks(keys, width, layers)
        names = [name for name, _ in blocks]
        std = keys.number("initializer_range")
        fields = {
            "width": width,
            "layers": layers,
            "blocks": dict(blocks),
            "pattern": _period(names),
            "norm": self.NORM,
            "norm_eps": keys.number(self.NORM_EPS),
            "tie_embeddings": keys.flag("tie_word_embeddings"),
            "init_std": std,
            "embedding_std": std,
        }
        return validate(ModelConfig, fields, where=where)

    def layer_keys(self, config: ModelConfig) -> dict[str, Any]:
        """The keys of config.json about mixers and networks, for a model that has no reasons against it."""
        mixer = first_attention(config)
        biased = {"attention_bias": mixer.bias == "all"} if self.BIAS_KEY else {}
        return {**attention_keys(mixer, head_dim=self.HEAD_DIM), **biased, **self.mlp_keys(config)}

    def mlp_keys(self, config: ModelConfig) -> dict[str, Any]:
        """Those about the network."""
        return {"intermediate_size": resolve(config)[0].block.mlp.inner, "hidden_act": self.ACTIVATION}

    def read_mlp(self, keys: HFKeys) -> dict[str, Any]:
        """The options of the network."""
        keys.only("hidden_act", self.ACTIVATION)
        return {"kind": self.MLP, "inner": keys.integer("intermediate_size")}

    @abstractmethod
    def read_blocks(self, keys: HFKeys, width: int, layers: int) -> list[tuple[str, dict[str, Any]]]:
        """The name and the options of the block of each layer."""

    def attention_reasons(
        self, mixer: AttentionConfig, where: str, width: int, context: int | None
    ) -> Iterator[Reason]:
        yield from super().attention_reasons(mixer, where, width, context)
        if mixer.window is not None and self.WINDOWS == "none":
            yield Reason("mixer.window", f"{where}: mixer.window = {mixer.window}, and it has no windows")
        size, heads = mixer.head_size, mixer.heads
        if not self.HEAD_DIM and size * heads != width:
            yield Reason(
                "mixer.head_size",
                f"{where}: mixer.head_size = {size}, where it has width / heads = {width} / {heads}",
            )
        elif self.HEADS_DIVIDE_WIDTH and width % heads:
            yield Reason("mixer.heads", f"{where}: mixer.heads = {heads}, which does not divide width = {width}")

    def uneven_reasons(self, config: ModelConfig) -> Iterator[Reason]:
        yield from super().uneven_reasons(config)
        # One window, in all layers or in those of a list.
        specs = [spec for spec in resolve(config) if isinstance(spec.block.mixer, AttentionConfig)]
        sizes = [(spec, spec.block.mixer.window) for spec in specs]
        if self.WINDOWS == "layers":
            sizes = [(spec, size) for spec, size in sizes if size is not None]
        if self.WINDOWS != "none":
            for spec, size in sizes[1:]:
                if size != sizes[0][1]:
                    yield differing(spec, sizes[0][0], "mixer.window", size, sizes[0][1])

    def _name(self, model: Transformer, path: str) -> str:
        outer, _, leaf = path.rpartition(".")
        if outer in _OUTER:
            return f"{self._renamed(_OUTER[outer])}.{leaf}"
        _, index, part, *rest = path.split(".")
        if part in _NORMS:
            inner = _NORMS[part]
        else:
            block = model.layers[int(index)]
            module = block.mixer if part == "mixer" else block.mlp
            # A parameter of its own, without a module around it, is the weight of its name.
            name, leaf = (".".join(rest[:-1]), leaf) if len(rest) > 1 else (rest[0], "weight")
            inner = module.HF[name]
        return f"model.layers.{index}.{self._renamed(inner)}.{leaf}"

    def _renamed(self, name: str) -> str:
        return self.RENAMED.get(name, name)


def all_architectures() -> dict[str, Architecture]:
    """Every architecture by its `model_type`."""
    found = {}
    for kind in architectures.members():
        member = architectures.get(kind)()
        assert isinstance(member, Architecture)
        found[kind] = member
    return found


def refusal(config: ModelConfig) -> str | None:
    """One line that says why no architecture of transformers is this model, by those that come nearest; None when one
    is."""
    reason = refusal_by_nearest(all_architectures(), config, None)
    return None if reason is None else f"transformers has no class for this model ({reason})"


def choose(config: ModelConfig) -> Architecture:
    """The architecture whose class is exactly this model. Raises BadInput that says why none is."""
    for member in all_architectures().values():
        if not member.reasons(config):
            return member
    raise BadInput(str(refusal(config)))


def architecture_of(data: dict[str, Any], where: str) -> Architecture:
    """The architecture that a config.json names. Raises BadInput for one that inlay does not have."""
    known = all_architectures()
    kind = data.get("model_type")
    if kind not in known:
        shown = f"model_type = {kind!r}" if kind is not None else "the key model_type is missing"
        advice = nearest(str(kind), known) if kind is not None else ""
        raise BadInput(f"{where}: {shown}; inlay opens {', '.join(known)}{advice if 'mean' in advice else ''}")
    member = known[kind]
    named = data.get("architectures") or [member.CLASS]
    if named != [member.CLASS]:
        raise BadInput(f"{where}: architectures = {named}, where a language model of {kind} is [{member.CLASS!r}]")
    return member


def attention_keys(mixer: AttentionConfig, *, head_dim: bool = True) -> dict[str, Any]:
    """The keys of grouped-query attention that all architectures have in common."""
    return {
        "num_attention_heads": mixer.heads,
        "num_key_value_heads": mixer.kv_heads,
        **({"head_dim": mixer.head_size} if head_dim else {}),
        **rope_keys(mixer.rope_theta, mixer.rope_scaling),
        "attention_dropout": 0.0,
    }


def read_attention(keys: HFKeys, width: int, **options: Any) -> dict[str, Any]:
    """The options of attention from those keys; `options` are the others."""
    heads = keys.integer("num_attention_heads")
    whole = width // heads if heads and width % heads == 0 else None
    size = keys.integer("head_dim", keys.defaults.get("head_dim") or whole)
    theta, scaling = keys.rope()
    return {
        "kind": "attention",
        "heads": heads,
        "kv_heads": _kv_heads(keys, heads),
        "head_size": size,
        "rope_theta": theta,
        "rope_scaling": None if scaling is None else scaling.to_dict(),
        "qk_norm": False,
        **options,
    }


def _kv_heads(keys: HFKeys, heads: int) -> int:
    """Null says as many as queries have; a key that is not there says what its class has."""
    absent = keys.defaults.get("num_key_value_heads") if "num_key_value_heads" not in keys.data else None
    return keys.integer("num_key_value_heads", heads if absent is None else absent)


def first_attention(config: ModelConfig) -> AttentionConfig:
    """The first attention layer's options; those of all, but for the window, where no reason stands against it."""
    mixers = (spec.block.mixer for spec in resolve(config))
    return next(mixer for mixer in mixers if isinstance(mixer, AttentionConfig))


def windows(config: ModelConfig) -> list[int | None]:
    """The window of each layer; None for layers without one and for other mixers."""
    return [getattr(spec.block.mixer, "window", None) for spec in resolve(config)]


def window_keys(config: ModelConfig) -> dict[str, Any]:
    """Qwen's keys of windows: one size, and the kind of each layer."""
    found = windows(config)
    sizes = sorted({size for size in found if size is not None})
    kinds = ["full_attention" if size is None else "sliding_attention" for size in found]
    return {
        "use_sliding_window": bool(sizes),
        "sliding_window": sizes[0] if sizes else None,
        "max_window_layers": config.layers,
        "layer_types": kinds,
    }


def read_windows(keys: HFKeys, layers: int) -> list[int | None]:
    """The window of each layer from Qwen's keys. The layers from `max_window_layers` on slide where no list says."""
    null = "sliding_window" in keys.data and keys.data["sliding_window"] is None
    size = keys.integer("sliding_window") if keys.flag("use_sliding_window") and not null else None
    kinds = keys.names("layer_types", layers)
    if kinds is None:
        first = keys.integer("max_window_layers")
        return [size if index >= first else None for index in range(layers)]
    for kind in kinds:
        if kind not in ("full_attention", "sliding_attention") or (size is None and kind == "sliding_attention"):
            raise keys.error(
                "layer_types", "where full_attention belongs, or sliding_attention under use_sliding_window"
            )
    return [size if kind == "sliding_attention" else None for kind in kinds]


def windowed_blocks(
    mixer: dict[str, Any], mlp: dict[str, Any], found: Sequence[int | None]
) -> list[tuple[str, dict[str, Any]]]:
    """The blocks of layers that differ in their windows alone: `full` and `local`."""
    return [
        ("full" if window is None else "local", {"mixer": {**mixer, "window": window}, "mlp": mlp}) for window in found
    ]


def _period(names: Sequence[str]) -> list[str]:
    """The shortest pattern that repeats to `names`."""
    for length in range(1, len(names) + 1):
        if len(names) % length == 0 and list(names) == list(names[:length]) * (len(names) // length):
            return list(names[:length])
    return list(names)
