"""A table of what every parameter of a model gets from an optimizer: by name, with layers folded into one row.

It is read off the same routing, treatments and blocks that the optimizer is built from, on the meta device.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import nn

from inlay.config import validate
from inlay.config.compose import compose
from inlay.model.config import ModelConfig
from inlay.model.transformer import Transformer
from inlay.train.optimizer import BlockRow, OptimizerConfig, ParameterClass, optimizers, route


@dataclass(frozen=True)
class Route:
    """Parameters of one name (but for the layer) and shape."""

    name: str
    """With `*` for the number of the layer."""
    count: int
    """How many there are."""
    shape: tuple[int, ...]
    kind: ParameterClass
    optimizer: str
    blocks: tuple[BlockRow, ...]
    """Of each of them, when the optimizer looks at matrices."""
    lr: float
    """Peak rate, before the factor of a block."""
    decay: float

    @property
    def parameters(self) -> int:
        """Elements of all of them."""
        return self.count * torch.Size(self.shape).numel()

    @property
    def like_adamw(self) -> tuple[float, ...]:
        """The AdamW rate whose updates are as large, by block: an AdamW update has a root mean square of about 0.2
        times its rate (2502.16982, section 2.2), an orthogonalised one of 1 / sqrt(max(rows, columns))."""
        return tuple(self.lr * block.factor / (0.2 * max(block.rows, block.columns) ** 0.5) for block in self.blocks)


def routing_table(model: nn.Module, config: OptimizerConfig) -> list[Route]:
    """What every trainable parameter of `model` gets, by class, then in the model's order; `model` may be on the meta
    device. Raises InlayError as building the optimizer would."""
    routed = route(model)
    treatments = config.treatments()
    blocks = config.blocks(model, routed["matrix"])
    rows: dict[tuple[str, tuple[int, ...]], Route] = {}
    for kind, parameters in routed.items():
        for name, parameter in parameters.items():
            folded, shape = re.sub(r"(^|\.)\d+\.", r"\1*.", name), tuple(parameter.shape)
            before = rows.get((folded, shape))
            count = 1 if before is None else before.count + 1
            treatment = treatments[kind]
            given = (kind, treatment.optimizer, blocks.get(name, ()), treatment.lr, treatment.decay)
            rows[folded, shape] = Route(folded, count, shape, *given)
    return list(rows.values())


def print_routing(preset: str, overrides: Sequence[str], vocab_size: int = 8192, as_json: bool = False) -> None:
    """Prints the table for a model preset and training options as key=value (`optim=adamw`, `optim.per_head=true`);
    with `as_json` one JSON object a line. Raises ConfigError for a preset or an option that is none."""
    data = compose("train", [f"model={preset}", "data.path=none", "train.steps=1", *overrides])
    model_config = validate(ModelConfig, data["model"], where=f"model={preset}")
    config = validate(optimizers.get(data["optim"]["kind"]), data["optim"], where="optim")
    assert isinstance(config, OptimizerConfig)
    with torch.device("meta"):
        model = Transformer(model_config, vocab_size)
    rows = routing_table(model, config)
    if as_json:
        for row in rows:
            blocks = [block._asdict() for block in row.blocks]
            print(json.dumps({**asdict(row), "blocks": blocks, "like_adamw": row.like_adamw}))
        return
    _print(preset, rows, config)


def _print(preset: str, rows: Sequence[Route], config: OptimizerConfig) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    title = f"{preset} · {config.kind}"
    table = Table(title=title, title_justify="left", box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("parameters", overflow="fold")
    table.add_column("shape", no_wrap=True)
    table.add_column("by")
    for column in ("matrices", "rate", "x factor", "like\nAdamW", "decay"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        name = row.name.removeprefix("blocks.*.").removesuffix(".weight")
        table.add_row(
            f"{row.count} x {name}" if row.count > 1 else name,
            _sizes(row.shape),
            row.optimizer,
            "\n".join(f"{block.count} of {_sizes(block[1:3])}" for block in row.blocks),
            f"{row.lr:g}",
            "\n".join(f"{block.factor:.3g}" for block in row.blocks),
            "\n".join(f"{rate:.2g}" for rate in row.like_adamw),
            f"{row.decay:g}",
        )
    console = Console(highlight=False)
    console.print(table)
    for optimizer in dict.fromkeys(row.optimizer for row in rows):
        count = sum(row.parameters for row in rows if row.optimizer == optimizer)
        console.print(f"{count:,} parameters by {optimizer}")
    for line in config.notices():
        console.print(line)


def _sizes(shape: Sequence[int]) -> str:
    return "x".join(str(int(size)) for size in shape)
