"""Infilling evaluation: examples a second of ours against a plain transformers loop, with the same weights.

Both sides get the same prompts as ids, the same budget and the same stop ids, and answer greedily. `answers` is our
engine doing just that: batched, with a K/V cache, rows leaving as they end. `ours` is the subject that `inlay evaluate`
asks: it builds the prompts too, and takes the loss of the gold in the same prefill, which no peer here does. `loop` is
what evaluation scripts commonly are: `generate` on one prompt after the other, with its usual cache. `batched` is the
same with left padding, as the better scripts do. They take turns in one process; the texts they write are compared. The
left-to-right losses that `inlay evaluate` also takes are timed apart.

    python -m benchmarks.evaluate --run runs/demo --rounds 5 --json evaluate.json

Sandboxed tests a second: `python -m benchmarks.sandbox`.
"""

import argparse
import contextlib
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from benchmarks.common import interleave, machine, ratios, run_main, say, spread, write_json

from inlay.config import BadInput, InlayError
from inlay.evaluate.run import run_store
from inlay.evaluate.subject import GREEDY
from inlay.evaluate.subjects.local import LocalSubject
from inlay.evaluate.task import Example, Place
from inlay.evaluate.tasks.held_out import HeldOutConfig
from inlay.export.hf import export_hf
from inlay.infer.engine import Engine
from inlay.infer.open import Opened, open_model
from inlay.infer.prompt import fit, prompt_of

GOAL = 5.0


class Loop:
    """What evaluation scripts do: `generate`, one prompt or one padded batch at a time."""

    def __init__(self, folder: Path, opened: Opened, prompts: Sequence[list[int]], budget: int, rows: int) -> None:
        from transformers import AutoModelForCausalLM

        self.model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True
        ).eval()
        self.opened, self.prompts, self.budget, self.rows = opened, prompts, budget, rows

    def __call__(self) -> list[list[int]]:
        """The answers' ids, without what ended them."""
        stop, pad = self.opened.stop_ids, self.opened.fim_format.pad
        # One token more than the budget: a text of exactly the budget may still be terminated, as in ours.
        options: dict[str, Any] = {"do_sample": False, "max_new_tokens": self.budget + 1, "pad_token_id": pad}
        found: list[list[int]] = []
        for start in range(0, len(self.prompts), self.rows):
            batch = self.prompts[start : start + self.rows]
            longest = max(map(len, batch))
            ids = torch.tensor([[pad] * (longest - len(one)) + one for one in batch])
            mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in batch])
            with torch.inference_mode():
                made = self.model.generate(ids, attention_mask=mask, eos_token_id=sorted(stop), **options)
            for row in made[:, longest:].tolist():
                end = next((at for at, one in enumerate(row) if one in stop), self.budget)
                found.append(row[: min(end, self.budget)])
        return found


def measure(opened: Opened, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All rounds, as plain JSON types."""
    task = HeldOutConfig(max_tokens=options.tokens)
    place = Place(options.data, lambda: run_store(opened), opened.tokenizer)
    examples: Sequence[Example] = task.examples(place, options.gaps).items
    order = opened.orders[0]
    room = opened.sequence_length - options.tokens - opened.fim_format.OVERHEAD
    prompts = [
        prompt_of(fit(one.prefix, one.suffix, room, opened.tokenizer), order, opened.fim_format) for one in examples
    ]
    with contextlib.redirect_stdout(None):
        export_hf(opened, folder / "hf")
    subject = LocalSubject(opened)

    def ours() -> list[str]:
        found = dict(subject.answers(examples, order, options.tokens, GREEDY))
        return [found[at][0].text for at in range(len(examples))]

    loop = Loop(folder / "hf", opened, prompts, options.tokens, 1)
    batched = Loop(folder / "hf", opened, prompts, options.tokens, options.rows)
    engine = Engine(opened)

    def answers() -> list[str]:
        return [made.text for made in engine.generate(prompts, max_tokens=options.tokens)]

    contenders: dict[str, Callable[[], object]] = {"answers": answers, "ours": ours, "loop": loop, "batched": batched}
    texts_of_ours = ours()
    if answers() != texts_of_ours:
        raise InlayError("the engine and the subject answer differently")
    theirs = {
        name: [opened.tokenizer.decode(ids) for ids in peer()] for name, peer in (("loop", loop), ("batched", batched))
    }
    turns = interleave(contenders, options.rounds, 1)
    speeds = {name: spread([len(prompts) / turn.seconds for turn in own]) for name, own in turns.items()}
    faster = {
        f"{mine} / {name}": spread(ratios(turns[name], turns[mine])) for mine in ("answers", "ours") for name in theirs
    }
    began = time.perf_counter()
    count = sum(1 for _ in subject.losses(examples, order, options.tokens))
    return {
        "gaps": len(prompts),
        "prompt_tokens": sum(map(len, prompts)),
        "examples_per_second": {name: value.to_dict() for name, value in speeds.items()},
        "times_faster": {name: value.to_dict() for name, value in faster.items()},
        "same_text_as_ours": {
            name: sum(a == b for a, b in zip(texts_of_ours, texts, strict=True)) / len(texts)
            for name, texts in theirs.items()
        },
        "losses_per_second": count / (time.perf_counter() - began),
        "goal_reached": faster["answers / loop"].median >= GOAL,
    }


def main(arguments: Sequence[str] | None) -> None:
    """Measures, prints, and writes JSON when asked."""
    options = _parser().parse_args(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    opened = open_model(options.run, device="cpu")
    if opened.run is None:
        raise BadInput(f"'{options.run}' is no run; train one, or take the demo's")
    with tempfile.TemporaryDirectory() as folder:
        say("exporting, and one turn of each that is not counted")
        found = measure(opened, options, Path(folder))
    result = {"benchmark": "evaluate", "run": opened.identity, "budget": options.tokens, **found, "machine": machine()}
    each = found["prompt_tokens"] / found["gaps"]
    print(f"{found['gaps']} gaps, {each:.0f} prompt tokens each, answers of {options.tokens} at most")
    for name, speed in found["examples_per_second"].items():
        print(f"  {name:<10}{speed['median']:>8.1f} examples/s ({speed['low']:.1f} to {speed['high']:.1f})")
    for name, ratio in found["times_faster"].items():
        print(f"  {name:<18}{ratio['median']:>6.2f} times ({ratio['low']:.2f} to {ratio['high']:.2f})")
    print(
        f"  same text as ours: {found['same_text_as_ours']}; losses alone {found['losses_per_second']:.1f} examples/s"
    )
    print(f"  goal ({GOAL:g} times the loop): {'reached' if found['goal_reached'] else 'not reached'}")
    write_json(options.json, result)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Batched infilling evaluation against a plain transformers loop.")
    parser.add_argument("--run", required=True, help="a run directory")
    parser.add_argument("--data", default=None, help="a file, folder or store to cut gaps from (the run's own store)")
    parser.add_argument("--gaps", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=64, help="budget of every answer")
    parser.add_argument("--rows", type=int, default=16, help="rows of the peer's padded batch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--json", default=None)
    return parser


if __name__ == "__main__":
    run_main(main)
