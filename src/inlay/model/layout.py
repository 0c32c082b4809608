"""The layout: a pattern of named blocks resolved to one specification per layer, with the owner of its K/V."""

from dataclasses import dataclass

from inlay.model.config import BlockConfig, ModelConfig


@dataclass(frozen=True)
class LayerSpec:
    """One layer. `kv_from` names the layer that owns the K/V it reads; None when it owns its own."""

    index: int
    name: str
    block: BlockConfig
    kv_from: int | None


def resolve(config: ModelConfig) -> tuple[LayerSpec, ...]:
    """The layers of a model in order."""
    owners = config.kv_share.owners(config.names)
    return tuple(
        LayerSpec(index, name, config.blocks[name], owner)
        for index, (name, owner) in enumerate(zip(config.names, owners, strict=True))
    )
