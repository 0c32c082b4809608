"""Writes the tables of docs/scale.md from counts of the models and the assumptions named here.

    python docs/generate_scale.py            writes the page anew
    python docs/generate_scale.py --check    only says whether the page is up to date

Units: bytes, seconds, FLOPs; GB are 10^9 bytes.
"""

import math
import re
import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch

from inlay.config import validate
from inlay.config.compose import compose_choice
from inlay.model import ModelConfig, Transformer
from inlay.model.table import count
from inlay.train.loss import CHUNK_ON_GPU

PAGE = Path(__file__).parent / "scale.md"
VOCABULARY = 1 << 17

# ---- what the hardware does ------------------------------------------------------------------------------------------

PEAK = 989e12
"""bf16 FLOPs a second of an H100 SXM, dense (its data sheet)."""
MEMORY_RATE = 0.8 * 3.35e12
"""Bytes a second that a fused elementwise kernel gets of its 3.35 TB/s."""
MATMUL_SHARE, ATTENTION_SHARE = 0.70, 0.35
"""Of the peak: large bf16 products under the power limit, and FlexAttention forward and backward together."""
INSIDE, ACROSS = 360e9, 320e9
"""Bus bandwidth of a collective: 0.8 of NVLink's 450 GB/s inside a node, 0.8 of eight 400 Gb/s cards across nodes."""
PLANNED_SHARE = 0.8
"""Of the computed rate, what a plan should count on: launches, ranks that wait, rows that are not full."""
TO_HOST = 25e9
"""Bytes a second from a GPU to the memory of its host."""
TO_DISK = 2e9
"""Bytes a second of one process on a shared file system."""
GPU_HOURS_A_FAULT = 54 * 24 * 16384 / 419
"""419 unexpected interruptions in 54 days on 16,384 H100s (2407.21783, section 3.3.4)."""


@dataclass(frozen=True)
class Plan:
    """A run on paper."""

    name: str
    model: ModelConfig
    strategy: str
    gpus: int
    rows: int
    """Of a micro-batch on one GPU."""
    length: int
    accumulation: int
    reduce: str
    tokens: float
    """Of the whole run."""

    @property
    def micro_tokens(self) -> int:
        return self.rows * self.length

    @property
    def tokens_per_step(self) -> int:
        return self.micro_tokens * self.gpus * self.accumulation


@dataclass(frozen=True)
class Size:
    """What a model is made of."""

    all: int
    matrices: int
    """In blocks: what Muon takes."""
    blocks: int
    largest_block: int
    shapes: tuple[tuple[int, int], ...]
    """Of the matrices in blocks, the smaller side first."""
    saved: int
    """Numbers that a token's forward pass leaves for the backward pass in one layer (see the page)."""
    matmul_flops: float
    """Of training, per token."""
    attention_flops: float

    @property
    def root(self) -> int:
        """The tables and the last norm: FSDP's last unit."""
        return self.all - self.blocks

    @property
    def flops(self) -> float:
        return self.matmul_flops + self.attention_flops


def seven_billion() -> ModelConfig:
    """base-1b's design at 7.1B: a preset on paper."""
    data = compose_choice("model", "base-1b")
    data |= {"width": 4096, "layers": 32}
    data["blocks"]["attention"]["mixer"] |= {"heads": 32, "kv_heads": 8, "head_size": 128}
    data["blocks"]["attention"]["mlp"]["inner"] = 13312
    return validate(ModelConfig, data, where="7B")


def one_billion() -> ModelConfig:
    """The preset base-1b."""
    return validate(ModelConfig, compose_choice("model", "base-1b"), where="base-1b")


PLANS = (
    Plan("1B on 8", one_billion(), "ddp", 8, 8, 2048, 4, "last", 20e9),
    Plan("7B on 64", seven_billion(), "fsdp", 64, 2, 4096, 4, "each", 140e9),
)


def size(plan: Plan) -> Size:
    """What a plan's model is made of."""
    return _size(plan.name)


@cache
def _size(name: str) -> Size:
    plan = next(plan for plan in PLANS if plan.name == name)
    with torch.device("meta"):
        model = Transformer(plan.model, VOCABULARY)
    counted = count(plan.model, VOCABULARY, plan.length)
    blocks = [sum(parameter.numel() for parameter in block.parameters()) for block in model.layers]
    shapes = tuple(
        (min(parameter.shape), max(parameter.shape)) for parameter in model.blocks.parameters() if parameter.ndim == 2
    )
    matrices = sum(m * n for m, n in shapes)
    mixer, mlp = (getattr(plan.model.blocks["attention"], part) for part in ("mixer", "mlp"))
    kv = mixer.kv_heads * mixer.head_size
    matmul = 6.0 * (matrices + model.head_weight.numel())
    return Size(
        all=counted.parameters,
        matrices=matrices,
        shapes=shapes,
        blocks=sum(blocks),
        largest_block=max(blocks),
        saved=7 * plan.model.width + 3 * kv + 3 * mlp.inner,
        matmul_flops=matmul,
        attention_flops=3.0 * counted.flops - matmul,
    )


# ---- memory ----------------------------------------------------------------------------------------------------------


def state(part: Size, optimizer: str) -> dict[str, float]:
    """Bytes of fp32 weights, gradients and optimizer state of a whole model."""
    rest = part.all - part.matrices
    moments = 8.0 * part.all if optimizer == "adamw" else 4.0 * part.matrices + 8.0 * rest
    return {"weights": 4.0 * part.all, "gradients": 4.0 * part.all, "moments": moments}


def memory(plan: Plan, optimizer: str, recompute: bool) -> dict[str, float]:
    """Bytes on one GPU at the top of a step."""
    part = size(plan)
    whole = sum(state(part, optimizer).values())
    layers, width = plan.model.layers, plan.model.width
    kept = 2.0 * plan.micro_tokens * (layers * width + part.saved if recompute else layers * part.saved)
    chunk = min(CHUNK_ON_GPU, plan.micro_tokens)
    # bf16 logits and their gradient, and two fp32 gradients of the head.
    logits = 4.0 * chunk * VOCABULARY + 8.0 * VOCABULARY * width
    if plan.strategy == "ddp":
        return {"state": whole, "gathered": 0.0, "activations": kept, "logits": logits}
    # Tables whole in fp32 with their gradient; two blocks in bf16, and one block's gradient in bf16 and fp32.
    gathered = 8.0 * part.root + (2 * 2.0 + 2.0 + 4.0) * part.largest_block
    if plan.accumulation > 1 and plan.reduce == "last":
        gathered += 4.0 * part.blocks  # the whole gradient stays between micro-batches
    return {"state": whole / plan.gpus, "gathered": gathered, "activations": kept, "logits": logits}


def memory_table() -> str:
    """Gigabytes a GPU."""
    lines = ["| plan | optimizer | reduce | recompute | state | gathered | activations | logits, head | sum |"]
    lines.append("|---|---|---|---|---:|---:|---:|---:|---:|")
    for plan in PLANS:
        cases = [("adamw", plan.reduce, False), ("muon", plan.reduce, False), ("muon", plan.reduce, True)]
        if plan.strategy == "fsdp":
            cases.insert(2, ("muon", "last", False))
        for optimizer, reduce, recompute in cases:
            parts = memory(replace(plan, reduce=reduce), optimizer, recompute)
            cells = [f"{value / 1e9:.1f}" for value in (*parts.values(), sum(parts.values()))]
            head = (f"{plan.name} ({plan.strategy})", optimizer, reduce, "yes" if recompute else "no")
            lines.append(f"| {' | '.join([*head, *cells])} |")
    return "\n".join(lines)


# ---- communication ---------------------------------------------------------------------------------------------------


def traffic(plan: Plan, strategy: str) -> dict[str, float]:
    """Seconds of each kind of traffic in a step."""
    part, ranks = size(plan), plan.gpus
    nodes = max(1, ranks // 8)
    fabric = INSIDE if nodes == 1 else ACROSS
    others = (ranks - 1) / ranks
    muon = 2.0 * part.matrices * (others if strategy == "ddp" else 2 / ranks) / fabric
    if strategy == "ddp":
        return {"gather": 0.0, "reduce": 2 * others * 4.0 * part.all / fabric, "muon": muon}
    weights, times = 2.0 * part.blocks, plan.accumulation if plan.reduce == "each" else 1
    if strategy == "hsdp":  # shards inside a node, replicas across nodes
        gather = plan.accumulation * 2 * 7 / 8 * weights / INSIDE + 7 / 8 * 4.0 * part.root / INSIDE
        reduce = times * 7 / 8 * 4.0 * part.all / INSIDE + 2 * (nodes - 1) / nodes * (4.0 * part.all / 8) / (ACROSS / 8)
        return {"gather": gather, "reduce": reduce, "muon": 2.0 * part.matrices * 2 / 8 / INSIDE}
    gather = plan.accumulation * (2 * others * weights + others * 4.0 * part.root) / fabric
    return {"gather": gather, "reduce": times * others * 4.0 * part.all / fabric, "muon": muon}


def traffic_table() -> str:
    """Milliseconds a step, beside the computing of that step."""
    lines = [
        "| plan | strategy | gathering weights | reducing gradients | Muon | all, if nothing overlapped | computing |"
    ]
    lines.append("|---|---|---:|---:|---:|---:|---:|")
    for plan in PLANS:
        for strategy in ("ddp", "fsdp", *(["hsdp"] if plan.gpus > 8 else [])):
            parts = traffic(plan, strategy)
            cells = [f"{1e3 * value:,.0f} ms" for value in (*parts.values(), sum(parts.values()), computing(plan))]
            lines.append(f"| {plan.name} | {strategy} | {' | '.join(cells)} |")
    return "\n".join(lines)


# ---- speed -----------------------------------------------------------------------------------------------------------


def per_token(plan: Plan) -> dict[str, float]:
    """Seconds of each kind of work for one token on one GPU."""
    part = size(plan)
    layers, width = plan.model.layers, plan.model.width
    # Each saved number is written and read forward, read and its gradient written and read backward: six bf16 passes.
    elementwise = layers * part.saved * 6 * 2.0
    # Logits: five bf16 passes; the head's fp32 gradient is written once and added once a chunk (three more passes).
    chunk = min(CHUNK_ON_GPU, plan.micro_tokens)
    head = 5 * 2.0 * VOCABULARY + 4 * 4.0 * VOCABULARY * width / chunk
    return {
        "products": part.matmul_flops / (MATMUL_SHARE * PEAK),
        "attention": part.attention_flops / (ATTENTION_SHARE * PEAK),
        "elementwise": elementwise / MEMORY_RATE,
        "logits": head / MEMORY_RATE,
    }


def newton_schulz(plan: Plan) -> float:
    """FLOPs of one Muon step: five iterations on every matrix of m <= n, each 4 m^2 n + 2 m^3."""
    return sum(5 * (4.0 * m * m * n + 2.0 * m**3) for m, n in size(plan).shapes)


def optimizer_seconds(plan: Plan) -> float:
    """A Muon step on each GPU: its share of the products, and reading and writing what it holds of the state."""
    share = plan.gpus if plan.strategy == "fsdp" else 1
    return newton_schulz(plan) / plan.gpus / (0.5 * PEAK) + 24.0 * size(plan).all / share / MEMORY_RATE


def computing(plan: Plan) -> float:
    """Seconds of a step on each GPU, without traffic."""
    return plan.accumulation * plan.micro_tokens * sum(per_token(plan).values()) + optimizer_seconds(plan)


def mfu(plan: Plan) -> float:
    """Model FLOPs over peak FLOPs, with all traffic hidden but Muon's."""
    step = computing(plan) + traffic(plan, plan.strategy)["muon"]
    return plan.accumulation * plan.micro_tokens * size(plan).flops / step / PEAK


def speed_table() -> str:
    """What a token costs, what a step costs, how long the run is."""
    rows: dict[str, list[str]] = {}

    def add(name: str, value: str) -> None:
        rows.setdefault(name, []).append(value)

    for plan in PLANS:
        part, planned = size(plan), PLANNED_SHARE * mfu(plan)
        add("parameters", f"{part.all:,}")
        add("FLOPs a token", f"{part.flops / 1e9:.2f}e9 ({100 * part.attention_flops / part.flops:.0f} % attention)")
        for name, seconds in per_token(plan).items():
            add(f"{name}, µs a token", f"{1e6 * seconds:.2f}")
        add("tokens a step", f"{plan.tokens_per_step:,}")
        add("optimizer step", f"{1e3 * optimizer_seconds(plan):.0f} ms")
        add("step, computed", f"{computing(plan):.2f} s")
        add("MFU, computed", f"{100 * mfu(plan):.0f} %")
        add("MFU, to plan with", f"{100 * planned:.0f} %")
        add("tokens/s, to plan with", f"{planned * PEAK * plan.gpus / part.flops:,.0f}")
        add("tokens of the run", f"{plan.tokens / 1e9:.0f}e9")
        add("hours of the run", f"{plan.tokens * part.flops / (planned * PEAK * plan.gpus) / 3600:.0f}")
    lines = [f"| | {' | '.join(plan.name for plan in PLANS)} |", "|---|---:|---:|"]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(values)} |" for name, values in rows.items())])


# ---- faults ----------------------------------------------------------------------------------------------------------


def faults_table() -> str:
    """Checkpoints and what faults cost."""
    lines = [f"| | {' | '.join(plan.name for plan in PLANS)} |", "|---|---:|---:|"]
    rows: dict[str, list[str]] = {}

    def add(name: str, value: str) -> None:
        rows.setdefault(name, []).append(value)

    for plan in PLANS:
        parts = state(size(plan), "muon")
        share = plan.gpus if plan.strategy == "fsdp" else 1
        # Rank 0 takes all weights; of the optimizer's state it has a share under FSDP, and all of it under DDP.
        stall = (parts["weights"] + parts["moments"] / share) / TO_HOST
        write = (parts["weights"] + parts["moments"] / plan.gpus) / TO_DISK
        between = GPU_HOURS_A_FAULT * 3600 / plan.gpus
        interval = math.sqrt(2 * stall * between)
        lost = stall / interval + interval / (2 * between)
        add("checkpoint", f"{(parts['weights'] + parts['moments']) / 1e9:.1f} GB")
        add("of which weights", f"{parts['weights'] / 1e9:.1f} GB")
        add("training stands still", f"{stall:.1f} s")
        add("written in", f"{write:.0f} s")
        add("time between faults", f"{between / 86400:.0f} days")
        add("best interval", f"{interval / 60:.0f} min")
        add("lost to checkpoints and repeated steps", f"{100 * lost:.2f} %")
        add("the same, with ten times the faults", f"{100 * math.sqrt(10) * lost:.2f} %")
    return "\n".join([*lines, *(f"| {name} | {' | '.join(values)} |" for name, values in rows.items())])


BLOCKS = {"memory": memory_table, "traffic": traffic_table, "speed": speed_table, "faults": faults_table}


def render(page: str) -> str:
    """The page with every generated block made anew."""

    def block(match: re.Match[str]) -> str:
        return f"<!-- generated: {match[1]} -->\n\n{BLOCKS[match[1]]().strip()}\n\n<!-- end -->"

    return re.sub(r"<!-- generated: (\w+) -->\n.*?<!-- end -->", block, page, flags=re.DOTALL)


def main(arguments: list[str]) -> int:
    """Writes or checks the page; 1 when a check finds it out of date."""
    page = PAGE.read_text(encoding="utf-8")
    made = render(page)
    if "--check" in arguments:
        if made != page:
            print("docs/scale.md is not what the code makes: run 'python docs/generate_scale.py'", file=sys.stderr)
        return int(made != page)
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
