"""Our training step against transformers' Qwen3ForCausalLM with AdamW, at equal shape and batch, in one process.

Contenders take turns. Ours is the trainer's own step (batch to tensors, forward, loss, backward, clip, optimizer) on
batches held in memory, with AdamW and with Muon. The peer runs in its usual setting (fp32 masters, autocast to bf16,
SDPA, eager) and in its best, which is chosen among all its settings in rounds of their own before; the best that keeps
fp32 masters, as ours does, is told beside it, because weights that live in bf16 are faster and learn less. Both keep
fused AdamW, clip, and run in the same process environment. The peer attends plainly causally over its rows, which costs
it less than masking documents does; ours masks documents. The bf16 matmul ceiling is measured in the same rounds: this
model's own products, forward and backward, into memory that is already there.

    python -m benchmarks.train_step --preset nano --rows 8 --length 512 --vocab 8192 --rounds 9 --json train_step.json

Compiling cold takes a minute or more for all settings of the peer; `--peers` names those to try.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.common import (
    Ours,
    Turn,
    interleave,
    machine,
    open_store,
    quoted_override,
    ratios,
    run_main,
    say,
    spread,
    write_json,
)
from benchmarks.peer import SETTINGS, USUAL, Peer
from torch import Tensor

from inlay.config import BadInput
from inlay.model import Transformer
from inlay.train.loss import CHUNK

GOAL_BEST, GOAL_USUAL, GOAL_CEILING = 1.6, 2.0, 0.70
WARM_STEPS = 3
PEERS = ("peer-best", "peer-masters", "peer-usual")


class Ceiling:
    """Every product of a training step with a weight matrix, in bf16, with operands and results allocated
    beforehand."""

    def __init__(self, model: Transformer, tokens: int) -> None:
        shapes = [(tokens, *module.weight.shape) for module in model.modules() if isinstance(module, torch.nn.Linear)]
        full, rest = divmod(tokens, CHUNK)
        head = model.head_weight.shape
        if model.head is not None:
            shapes.remove((tokens, *head))
        shapes += [(CHUNK, *head)] * full + [(rest, *head)] * bool(rest)
        self.flops = sum(6.0 * rows * outputs * inputs for rows, outputs, inputs in shapes)
        made = {shape: self._operands(*shape) for shape in set(shapes)}
        self._work = [made[shape] for shape in shapes]

    @staticmethod
    def _operands(rows: int, outputs: int, inputs: int) -> tuple[Tensor, ...]:
        sizes = ((rows, inputs), (outputs, inputs), (rows, outputs), (rows, inputs), (outputs, inputs))
        x, weight, y, x_gradient, weight_gradient = (torch.randn(size).bfloat16() for size in sizes)
        return x, weight, y, x_gradient, weight_gradient

    def step(self) -> None:
        """All products once: y = x w', x gradient = y w, w gradient = y' x."""
        for x, weight, y, x_gradient, weight_gradient in self._work:
            torch.mm(x, weight.t(), out=y)
            torch.mm(y, weight, out=x_gradient)
            torch.mm(y.t(), x, out=weight_gradient)


def model_flops(model: Transformer, tokens: int, visible: float) -> float:
    """FLOPs of one training step on `tokens` tokens that see `visible` keys each on average: three times the
    forward."""
    matrices = sum(module.weight.numel() for module in model.modules() if isinstance(module, torch.nn.Linear))
    if model.head is None:
        matrices += model.head_weight.numel()
    scores = sum(spec.block.mixer.build(model.config.width, 1e-6).score_flops(visible) for spec in model.layout)
    return 3.0 * tokens * (2.0 * matrices + scores)


def main(arguments: Sequence[str] | None) -> None:
    """Measures, prints, and writes JSON when asked."""
    options = _parser().parse_args(arguments)
    unknown = [name for name in options.peers if name not in SETTINGS]
    if unknown:
        raise BadInput(f"unknown setting of the peer '{unknown[0]}'; allowed: {', '.join(SETTINGS)}")
    with tempfile.TemporaryDirectory() as folder:
        result = measure(options, Path(folder))
    _print(result)
    write_json(options.json, result)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All rounds, as plain JSON types."""
    store = open_store(options.store, options.vocab, folder)
    ours: dict[str, Ours] = {}
    for optimizer in ("adamw", "muon"):
        overrides = [quoted_override("data.path", store), f"model={options.preset}", f"optim={optimizer}", "fim=short"]
        overrides += [f"train.rows={options.rows}", f"train.sequence_length={options.length}", *options.overrides]
        ours[f"ours-{optimizer}"] = Ours(overrides, folder / optimizer)
    first = ours["ours-adamw"]
    model, tokens = first.trainer.model, options.rows * options.length
    for name, contender in ours.items():
        say(f"compiling {name}")
        contender.compile()
        _warm(contender.step)
    config, vocabulary = first.trainer.config.model, first.trainer.vocab_size

    def peer(name: str) -> Callable[[], object]:
        say(f"warming the peer: {name}")
        made = Peer(config, vocabulary, options.length, SETTINGS[name], documents=options.peer_documents)
        turn = iter(range(1 << 62))
        step = lambda: made.step(first.batches[next(turn) % len(first.batches)])  # noqa: E731
        _warm(step)
        return step

    peers = {name: peer(name) for name in dict.fromkeys([USUAL, *options.peers])}
    searched = interleave(peers, options.search_rounds, options.turn)
    speeds = {name: spread([tokens / turn.seconds for turn in turns]) for name, turns in searched.items()}
    by_speed = sorted(speeds, key=lambda name: speeds[name].median, reverse=True)
    best = by_speed[0]
    masters = next(name for name in by_speed if SETTINGS[name].numbers == "autocast")
    ceiling = Ceiling(model, tokens)
    _warm(ceiling.step)
    steps: dict[str, Callable[[], object]] = {name: contender.step for name, contender in ours.items()}
    roles = {"peer-usual": USUAL, "peer-masters": masters, "peer-best": best}
    steps |= {name: peers[name] for name in dict.fromkeys(roles.values())} | {"ceiling": ceiling.step}
    turns = interleave(steps, options.rounds, options.turn)
    # One setting may play two roles; it has its turn once.
    turns = {name: turns[roles.get(name, name)] for name in (*ours, *roles, "ceiling")}
    visible = float(np.mean([batch.positions.mean() + 1.0 for batch in first.batches]))
    return {
        "benchmark": "train_step",
        "preset": options.preset,
        "rows": options.rows,
        "length": options.length,
        "vocabulary": vocabulary,
        "rounds": options.rounds,
        "peer_masks_documents": options.peer_documents,
        "best_setting": best,
        "best_setting_with_masters": masters,
        "settings": {name: value.to_dict() for name, value in speeds.items()},
        **summary(turns, tokens, ceiling.flops, model_flops(model, tokens, visible)),
        "machine": machine(),
    }


def summary(turns: dict[str, list[Turn]], tokens: int, ceiling_flops: float, step_flops: float) -> dict[str, Any]:
    """Speeds, ratios and shares of the ceiling from the turns of each contender."""
    teraflops = [ceiling_flops / turn.seconds / 1e12 for turn in turns["ceiling"]]
    speeds = {name: spread([tokens / turn.seconds for turn in own]) for name, own in turns.items() if name != "ceiling"}
    compared = [(our, peer) for our in ("ours-adamw", "ours-muon") for peer in PEERS]
    by_clock = {f"{our} / {peer}": spread(ratios(turns[peer], turns[our])) for our, peer in compared}
    by_processor = {
        f"{our} / {peer}": spread(
            [
                slow.processor_seconds / fast.processor_seconds
                for slow, fast in zip(turns[peer], turns[our], strict=True)
            ]
        )
        for our, peer in compared
    }
    shares = {
        name: spread([step_flops / turn.seconds / 1e12 / top for turn, top in zip(turns[name], teraflops, strict=True)])
        for name in speeds
    }
    reached = {
        f"{GOAL_BEST} times the peer's best setting": by_clock["ours-adamw / peer-best"].median >= GOAL_BEST,
        f"{GOAL_USUAL} times the peer's usual setting": by_clock["ours-adamw / peer-usual"].median >= GOAL_USUAL,
        f"{GOAL_CEILING:.0%} of the matmul ceiling": shares["ours-adamw"].median >= GOAL_CEILING,
    }
    return {
        "tokens_per_second": {name: value.to_dict() for name, value in speeds.items()},
        "ratio": {name: value.to_dict() for name, value in by_clock.items()},
        "ratio_of_processor_time": {name: value.to_dict() for name, value in by_processor.items()},
        "ceiling_teraflops": spread(teraflops).to_dict(),
        "step_teraflop": step_flops / 1e12,
        "share_of_ceiling": {name: value.to_dict() for name, value in shares.items()},
        "goals": reached,
    }


def _warm(step: Callable[[], object]) -> None:
    for _ in range(WARM_STEPS):
        step()


def _print(result: dict[str, Any]) -> None:
    def told(value: dict[str, float], digits: int) -> str:
        return f"{value['median']:>9,.{digits}f}   ({value['low']:,.{digits}f} to {value['high']:,.{digits}f})"

    host = result["machine"]
    print(
        f"{result['preset']}, {result['rows']} rows of {result['length']}, vocabulary {result['vocabulary']:,}; "
        f"{host['processor']}, {host['threads']} threads, torch {host['torch']}, load {host['load_average']:.1f}"
    )
    mask = "masks documents" if result["peer_masks_documents"] else "is plainly causal over the row"
    settings = f"{result['best_setting']}, with fp32 masters {result['best_setting_with_masters']}"
    print(f"the peer {mask}; its best setting here: {settings}; {result['rounds']} rounds, median (range)")
    print("\ntokens/s, the peer's settings alone")
    for name, value in result["settings"].items():
        print(f"  {name:<28}{told(value, 0)}")
    print("\ntokens/s")
    for name, value in result["tokens_per_second"].items():
        print(f"  {name:<28}{told(value, 0)}")
    print("\ntimes faster on the clock, round by round")
    for name, value in result["ratio"].items():
        print(f"  {name:<28}{told(value, 2)}")
    print("\nthe same of processor time")
    for name, value in result["ratio_of_processor_time"].items():
        print(f"  {name:<28}{told(value, 2)}")
    print(f"\nmatmul ceiling, TFLOP/s       {told(result['ceiling_teraflops'], 3)}\nshare of it")
    for name, value in result["share_of_ceiling"].items():
        print(f"  {name:<28}{told({key: 100.0 * number for key, number in value.items()}, 1)} %")
    print()
    for name, reached in result["goals"].items():
        print(f"{'reached    ' if reached else 'not reached'}  {name} (AdamW)")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="train_step", description="Our training step against transformers' Qwen3.")
    parser.add_argument("--preset", default="nano", help="model preset of ours, whose shape the peer takes")
    parser.add_argument("--rows", type=int, default=8, help="rows of a step")
    parser.add_argument("--length", type=int, default=512, help="tokens of a row")
    parser.add_argument("--vocab", type=int, help="tokens of the vocabulary, 8192 unless a store says")
    parser.add_argument("--rounds", type=int, default=9, help="rounds in which all take turns")
    parser.add_argument("--search-rounds", type=int, default=3, help="rounds that choose the peer's best setting")
    parser.add_argument("--turn", type=int, default=3, help="steps of a turn; its median counts")
    parser.add_argument(
        "--peers", nargs="*", default=list(SETTINGS), help=f"settings of the peer: {', '.join(SETTINGS)}"
    )
    parser.add_argument("--peer-documents", action="store_true", help="let the peer mask documents from each other too")
    parser.add_argument("--store", help="a token store to read; by default one is made")
    parser.add_argument("--json", help="file for the result")
    parser.add_argument("overrides", nargs="*", help="more options of our run, as for `inlay train`")
    return parser


if __name__ == "__main__":
    run_main(main)
