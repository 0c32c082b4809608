"""The live transform against the common way: decode the chunk, cut characters, encode the three parts again.

One core, the `python` source, context 2,048, rate 0.75. All contenders make the very same examples: where to cut is
drawn by ours beforehand and handed to the others for nothing, fitting and rendering are the same code, and every
example is compared before anything is timed. What differs is how ids are got. `hf` is the `tokenizers` library, as
nearly every training code has it; `tiktoken` the same merges in the faster encoder.

Two corpora of rows: `chunks`, one example a row as other codes have it, and `pieces`, several examples of log-uniform
length a row, which is our default. `rows` is the loader's whole work for a row: the transform, and arrays with targets,
positions, weights and kinds.

    python -m benchmarks.fim_throughput --rows 200 --rounds 9 --json fim_throughput.json
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.common import Turn, interleave, machine, open_store, ratios, run_main, say, spread, write_json

from inlay.config import InlayError, validate
from inlay.config.compose import compose
from inlay.data.level import pieces_of
from inlay.data.loader import Rows
from inlay.data.plan import Plan
from inlay.fim.draws import Draws
from inlay.fim.family import Order
from inlay.fim.format import FimTokens, Kind
from inlay.fim.span import Syntax
from inlay.fim.transform import Example, FimConfig, Transform, fit

GOAL_HF, GOAL_TIKTOKEN = 10.0, 3.0
ORDER_OF: dict[Kind, Order] = {Kind.PSM: "psm", Kind.SPM: "spm", Kind.SPM_V2: "spm_v2"}


@dataclass(frozen=True)
class Job:
    """One piece: what ours is called with, and what it made of it."""

    call: Callable[[], Example]
    tokens: np.ndarray
    capacity: int
    example: Example
    cut: tuple[int, int]
    """Character offsets of the middle."""


class Common:
    """Decode, cut characters, encode thrice; `decode` and `encode` are the tokenizer's."""

    def __init__(self, rows: Rows, decode: Callable[[list[int]], str], encode: Callable[[str], Sequence[int]]) -> None:
        self._transform = rows.maker.transform
        self._decode, self._encode = decode, encode

    def __call__(self, job: Job) -> FimTokens:
        """The example that ours made, made their way. Raises InlayError for a middle that does not fit."""
        form, made = self._transform.format, job.example
        if made.span is None:
            return form.plain(job.tokens[: len(job.tokens) - made.trimmed])
        text = self._decode(job.tokens.tolist())
        first, last = job.cut
        prefix, middle, suffix = (
            np.array(self._encode(part), dtype=np.int32) for part in (text[:first], text[first:last], text[last:])
        )
        fitted = fit(prefix, suffix, job.capacity - 4 - len(middle), form.starts_character)
        if fitted is None:
            raise InlayError("a middle does not fit its row")
        return form.render(fitted[0], middle, fitted[1], ORDER_OF[made.row.kind])


def jobs_of(rows: Rows, plan: Plan, count: int) -> list[list[Job]]:
    """The jobs of the first `count` rows of epoch 0."""
    transform, form = rows.maker.transform, rows.maker.transform.format
    listed = []
    for number in range(min(count, plan.row_count)):
        row = []
        for piece in pieces_of(plan, number):
            tokens = rows.split.tokens(piece.document, piece.start, piece.stop)
            syntax = rows.maker.level.syntax(piece.document, piece.byte_start, piece.byte_stop)
            capacity = rows.maker.length + 1
            call = partial(made_of, transform, tokens, capacity, (7, piece.document, piece.start), syntax, piece.whole)
            made, cut = call(), (0, 0)
            if made.span is not None:
                data = form.tokenizer.decode_bytes(tokens.tolist())
                first = len(data[: made.span[0]].decode())
                cut = (first, first + len(data[slice(*made.span)].decode()))
            row.append(Job(call, tokens, capacity, made, cut))
        listed.append(row)
    return listed


def made_of(
    transform: Transform,
    tokens: np.ndarray,
    capacity: int,
    key: tuple[int, ...],
    syntax: Callable[[], Syntax | None],
    whole: bool,
) -> Example:
    """Our example of one piece, as the loader asks for it."""
    return transform(tokens, capacity, Draws(*key), syntax=syntax, whole=whole)


def verify(jobs: Sequence[Job], contenders: dict[str, Common]) -> None:
    """Raises InlayError when a contender's example differs from ours."""
    for name, contender in contenders.items():
        for job in jobs:
            theirs, ours = contender(job), job.example.row
            if not (np.array_equal(theirs.tokens, ours.tokens) and np.array_equal(theirs.regions, ours.regions)):
                raise InlayError(f"the examples of '{name}' differ from ours; nothing was timed")


def contenders_of(rows: Rows) -> dict[str, Common]:
    """The common way with both encoders. Raises InlayError when the store's tokenizer has but one."""
    tokenizer = rows.maker.transform.format.tokenizer
    hf, fast = tokenizer._reference, tokenizer._fast
    if fast is None:
        raise InlayError("this tokenizer has no tiktoken encoder to compare with; give another store")
    return {
        "hf": Common(rows, hf.decode, lambda text: hf.encode(text, add_special_tokens=False).ids),
        "tiktoken": Common(rows, fast.decode, lambda text: fast.encode(text, disallowed_special=())),
    }


def measure(rows: Rows, count: int, rounds: int) -> dict[str, Any]:
    """Times all contenders on `count` rows. Returns rates and ratios as plain JSON types."""
    plan = rows.plan(0)
    per_row = jobs_of(rows, plan, count)
    jobs = [job for row in per_row for job in row]
    contenders = contenders_of(rows)
    verify(jobs, contenders)
    steps: dict[str, Callable[[], object]] = {
        name: lambda contender=contender: [contender(job) for job in jobs] for name, contender in contenders.items()
    }
    steps["ours"] = lambda: [job.call() for job in jobs]
    steps["rows"] = lambda: [rows.maker.row(plan, 0, number) for number in range(len(per_row))]
    turns = interleave(steps, rounds, 1)
    tokens = sum(len(job.tokens) for job in jobs)
    infilled = sum(job.example.span is not None for job in jobs)
    return {
        "rows": len(per_row),
        "examples": len(jobs),
        "fim_share": infilled / len(jobs),
        "tokens": tokens,
        "rows_per_second": {name: _rate(turns[name], len(per_row)) for name in steps},
        "tokens_per_second": {name: _rate(turns[name], tokens) for name in steps},
        "times_faster": {
            f"{ours} than {theirs}": spread(ratios(turns[theirs], turns[ours])).to_dict()
            for ours in ("ours", "rows")
            for theirs in ("hf", "tiktoken")
        },
    }


def _rate(turns: Sequence[Turn], amount: int) -> dict[str, float]:
    return spread([amount / turn.seconds for turn in turns]).to_dict()


def options(overrides: Sequence[str]) -> FimConfig:
    """FIM options under the preset `characters` (AST spans need a store with syntax; `--fim default` takes them)."""
    data = compose("train", ["data.path=unused", "train.steps=1", *overrides])
    return validate(FimConfig, data["fim"], where="benchmark")


def show(name: str, found: dict[str, Any]) -> None:
    """Prints one corpus."""
    print(
        f"{name}: {found['rows']} rows, {found['examples']} examples, {found['tokens']:,} tokens,"
        f" {found['fim_share']:.0%} infilled"
    )
    for contender, rate in found["tokens_per_second"].items():
        rows = found["rows_per_second"][contender]
        print(
            f"  {contender:>8}: {rows['median']:>9,.0f} rows/s  {rate['median'] / 1e6:>7.2f}M tokens/s"
            f" ({rate['low'] / 1e6:.2f} to {rate['high'] / 1e6:.2f})"
        )
    for pair, ratio in found["times_faster"].items():
        goal = GOAL_HF if pair.endswith("hf") else GOAL_TIKTOKEN
        wanted = f", goal {goal:g}" if pair.startswith("ours") else ""
        print(f"  {pair}: {ratio['median']:.1f} times ({ratio['low']:.1f} to {ratio['high']:.1f}{wanted})")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--store", help="a token store; by default one is made of installed Python code")
    parser.add_argument("--fim", default="characters", help="preset of fim/")
    parser.add_argument("--rate", type=float, default=0.75)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", help="write the result there")
    given = parser.parse_args(arguments)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(given.store, None, Path(folder))
        fim = options([f"fim={given.fim}", f"fim.rate={given.rate}"])
        result: dict[str, Any] = {"machine": machine(), "length": given.length, "fim": given.fim}
        for name, shortest in (("chunks", None), ("pieces", 24)):
            say(name)
            rows = Rows(store, "train", fim, given.length, 0, shortest)
            result[name] = measure(rows, given.rows, given.rounds)
            show(name, result[name])
    write_json(given.json, result)


if __name__ == "__main__":
    run_main(main)
