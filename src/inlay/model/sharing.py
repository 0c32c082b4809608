"""Which layer's K/V each layer reads (K/V sharing between layers, 2405.12981; the layouts of MixAttention, 2409.15012).

`owners` is the resolved truth: for each layer the index of the layer whose K/V it reads, None when it has its own. The
kinds only produce it. What is shared is K after norm and RoPE, plus V; a reading layer has no key or value projection.
"""

import json
from abc import abstractmethod
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from inlay.config import Config

if TYPE_CHECKING:
    from inlay.model.config import BlockConfig


class KVShare(Config):
    """Options of a sharing rule."""

    kind: str

    @abstractmethod
    def owners(self, names: Sequence[str]) -> list[int | None]:
        """The owner of each layer, given the block name of each. Raises ValueError for a rule that does not fit."""


class NoSharing(KVShare):
    """Every layer has its own K/V."""

    kind: Literal["none"] = "none"

    def owners(self, names: Sequence[str]) -> list[int | None]:
        return [None] * len(names)


class PairSharing(KVShare):
    """In each run of adjacent layers of one block, the second of every two reads from the first.

    Layers of a block whose runs are all single pair up along the depth. For L L L G four times that is the layout of
    MixAttention (MA-Pairs of 2409.15012).
    """

    kind: Literal["pairs"] = "pairs"

    def owners(self, names: Sequence[str]) -> list[int | None]:
        runs: dict[str, list[list[int]]] = {}
        for name, group in groupby(range(len(names)), key=lambda index: names[index]):
            runs.setdefault(name, []).append(list(group))
        found: list[int | None] = [None] * len(names)
        for layers_of_block in runs.values():
            of_block = layers_of_block
            # A block that never stands twice in a row has one run: its layers along the depth.
            if all(len(run) == 1 for run in of_block):
                of_block = [[index for run in of_block for index in run]]
            for run in of_block:
                for first, second in zip(run[::2], run[1::2], strict=False):
                    found[second] = first
        return found


class TailSharing(KVShare):
    """The last `layers` layers read from the last layer of their own block before them (Gemma 3n)."""

    kind: Literal["tail"] = "tail"
    layers: int = Field(ge=1, le=4096)

    def owners(self, names: Sequence[str]) -> list[int | None]:
        first = len(names) - self.layers
        if first < 1:
            raise ValueError(
                f"kv_share.layers: a tail of {self.layers} leaves none of {len(names)} layers to own K/V:"
                f" {_longest_tail(names)}"
            )
        last = {name: index for index, name in enumerate(names[:first])}
        for index in range(first, len(names)):
            if names[index] not in last:
                raise ValueError(
                    f"kv_share.layers: layer {index} ({names[index]}) has no layer of its block before layer {first} to"
                    f" read from: {_longest_tail(names)}"
                )
        return [None if index < first else last[name] for index, name in enumerate(names)]


class ExplicitSharing(KVShare):
    """Owners as given, layer by layer."""

    kind: Literal["explicit"] = "explicit"
    owner: tuple[int | None, ...] = Field(min_length=1)
    """One entry a layer: the layer that it reads from, null for its own."""

    @model_validator(mode="after")
    def _true_owners(self) -> "ExplicitSharing":
        for index, owner in enumerate(self.owner):
            if owner is None:
                continue
            if not 0 <= owner < index:
                wanted = "an earlier layer, or null" if index else "null"
                raise ValueError(f"owner: layer {index} cannot read from layer {owner}: give {wanted}")
            if self.owner[owner] is not None:
                raise ValueError(
                    f"owner: layer {index} reads from layer {owner}, which itself reads from layer {self.owner[owner]}:"
                    " name that one"
                )
        return self

    def owners(self, names: Sequence[str]) -> list[int | None]:
        if len(self.owner) != len(names):
            raise ValueError(
                f"kv_share.owner has {len(self.owner)} entries for {len(names)} layers: give one for each, null where"
                " a layer has its own"
            )
        return list(self.owner)


AnyKVShare = Annotated[NoSharing | PairSharing | TailSharing | ExplicitSharing, Field(discriminator="kind")]


def check(owners: Sequence[int | None], names: Sequence[str], blocks: "dict[str, BlockConfig]") -> None:
    """Raises ValueError, which names the layers, where K/V do not fit the layer that would read them."""
    for index, owner in enumerate(owners):
        if owner is None:
            continue
        reader, source = blocks[names[index]].mixer, blocks[names[owner]].mixer
        for layer, mixer in ((index, reader), (owner, source)):
            if mixer.kv_signature is None:
                raise ValueError(
                    f"kv_share: layer {layer} ({names[layer]}) is {mixer.kind}, which has no K/V to share: leave it out"
                    " with kind explicit, or share nothing"
                )
        wanted, offered = reader.kv_signature or {}, source.kv_signature or {}
        for key in wanted:
            if wanted[key] != offered.get(key):
                raise ValueError(
                    f"kv_share: layer {index} ({names[index]}) cannot read the K/V of layer {owner} ({names[owner]}):"
                    f" their {key} differs, {_written(wanted[key])} and {_written(offered.get(key))}: make it equal, or"
                    f" give layer {index} its own with kind explicit"
                )


def _written(value: object) -> str:
    """A value as YAML has it."""
    return json.dumps(value.to_dict() if isinstance(value, Config) else value)


def _longest_tail(names: Sequence[str]) -> str:
    """What to give instead: every block of a tail needs a layer before it."""
    most = next((size for size in range(len(names) - 1, 0, -1) if set(names[-size:]) <= set(names[:-size])), 0)
    return f"give at most {most}" if most else "the last layer is the first of its block, so none can share"
