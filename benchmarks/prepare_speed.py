"""`inlay prepare` against the bare tokenizer and the bare parser on the same files, with the same number of processes.

The bare side reads each file that ends up in the store, encodes it with the store's own tokenizer and parses it with
its grammar, in processes that are started and warm before the clock runs; it keeps nothing. Ours is the whole of
`prepare` with a finished tokenizer: finding files, filters, copies, near copies, split, starting workers, the walk over
each tree, packing, writing and syncing. Contenders take turns; the ratio is taken inside a round, on the clock and in
processor seconds of all processes, which a busy machine disturbs less. Parts are timed on one core.

    python -m benchmarks.prepare_speed --processes 2 --rounds 7 --json prepare_speed.json

Without `--data FOLDER` the files are the Python that is beside every installation.
"""

import argparse
import contextlib
import gc
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import CORPUS, interleave, machine, quoted_override, ratios, run_main, say, spread, write_json

from inlay.config import validate
from inlay.config.compose import compose
from inlay.text.prepare import PrepareConfig, prepare
from inlay.text.source import Drops
from inlay.text.sources.python import PythonSource
from inlay.text.store import TokenStore
from inlay.text.syntax import judged, nodes_of
from inlay.text.syntax_code import pack_nodes
from inlay.text.syntax_grammars import GRAMMARS, has_grammar
from inlay.text.syntax_walk import Walker
from inlay.text.tokenizer import Tokenizer

GOAL = 0.8
File = tuple[str, str, bool]
"""Path, language, and whether a grammar is for it."""

_TOKENIZER: list[Tokenizer] = []
_WALKERS: dict[str, Walker] = {}


def main(arguments: Sequence[str] | None) -> None:
    parser = argparse.ArgumentParser(prog="prepare_speed", description=__doc__.partition("\n")[0])
    parser.add_argument("--data", help="folder of source files (default: Python of this installation)")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--json", help="write the result to this file too")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="prepare_speed") as name:
        folder = Path(name)
        data = Path(options.data).resolve() if options.data else write_files(folder / "data")
        result = measure(data, folder, options.processes, options.rounds, options.vocab)
    write_json(options.json, result)
    for line in lines(result):
        print(line)


def write_files(folder: Path) -> Path:
    """The documents of the installed packages as files."""
    for document in PythonSource(packages=CORPUS).documents(Drops()):
        file = folder / document.repo.replace("/", "_") / document.path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(document.text.encode())
    return folder


def measure(data: Path, folder: Path, processes: int, rounds: int, vocabulary: int) -> dict[str, Any]:
    """All numbers, as plain JSON types."""
    say("training the tokenizer")
    place = [quoted_override("source.path", str(data)), f"threads={processes}", "source=folder"]
    first = ours(folder / "first", [*place, f"tokenizer.vocab_size={vocabulary}"])()
    files = [
        (str(data / info.path), info.language, has_grammar(info.language, info.path))
        for split in (first.split(name) for name in first.splits)
        for info in map(split.document, range(len(split)))
    ]
    size = sum(first.split(name).byte_count for name in first.splits)
    finished = [*place, "tokenizer=file", quoted_override("tokenizer.path", str(folder / "first" / "tokenizer"))]
    spent: dict[str, list[float]] = {"bare": [], "prepare": []}
    whole = ours(folder / "store", [*finished, "overwrite=true"])

    def counted() -> None:
        before = sum(os.times()[:4])
        whole()
        spent["prepare"].append(sum(os.times()[:4]) - before)

    with bare(files, processes, folder / "first" / "tokenizer") as step:
        turns = interleave(
            {
                "bare": lambda: spent["bare"].append(step()),
                "prepare": counted,
                "prepare without syntax": ours(folder / "plain", [*finished, "overwrite=true", "syntax.enabled=false"]),
            },
            rounds,
            per_turn=1,
        )
    # A round's ratio: how fast `prepare` is, counted in the speed of the bare side.
    shares = ratios(turns["bare"], turns["prepare"])
    work = [before / after for before, after in zip(spent["bare"], spent["prepare"], strict=True)]
    return {
        "machine": machine(),
        "files": len(files),
        "megabytes": size / 1e6,
        "processes": processes,
        "megabytes_per_second": {
            name: spread([size / 1e6 / turn.seconds for turn in taken]).to_dict() for name, taken in turns.items()
        },
        "share_of_bare": spread(shares).to_dict(),
        "share_of_bare_in_processor_seconds": spread(work).to_dict(),
        "goal": GOAL,
        "one_core": parts(files, first.tokenizer),
        "store_bytes_per_text_byte": stored(TokenStore.open(folder / "store", verify=False)),
    }


def ours(out: Path, overrides: Sequence[str]) -> Callable[[], TokenStore]:
    config = validate(
        PrepareConfig, compose("prepare", [quoted_override("out", str(out)), *overrides]), where="benchmark"
    )
    return lambda: prepare(config)


# ---- the bare side ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def bare(files: Sequence[File], processes: int, tokenizer: Path) -> Iterator[Callable[[], float]]:
    """One step over all files in `processes` processes that are up and have met every language; it gives their
    processor seconds."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, _warm, (str(tokenizer), sorted({entry[1] for entry in files if entry[2]}))) as pool:

        def step() -> float:
            return sum(pool.imap_unordered(_bare, files, chunksize=16))

        step()
        yield step


def _warm(tokenizer: str, languages: Sequence[str]) -> None:
    _TOKENIZER.append(Tokenizer.load(tokenizer))
    for language in languages:
        _WALKERS[language] = Walker(GRAMMARS[language])


def _bare(file: File) -> float:
    began = time.process_time()
    path, language, parsed = file
    data = Path(path).read_bytes()
    _TOKENIZER[0].encode_array(data.decode())
    if parsed:
        _WALKERS[language].parse(data)
    return time.process_time() - began


# ---- parts -----------------------------------------------------------------------------------------------------------


def parts(files: Sequence[File], tokenizer: Tokenizer) -> dict[str, float]:
    """Megabytes a second of each part alone, on one core, by processor time."""
    texts = [(Path(path).read_bytes(), language, parsed) for path, language, parsed in files]
    walkers = {language: Walker(GRAMMARS[language]) for _, language, parsed in texts if parsed}
    code = [(data, language) for data, language, parsed in texts if parsed]
    size = {"all": sum(len(data) for data, _, _ in texts) / 1e6, "code": sum(len(data) for data, _ in code) / 1e6}

    def rate(what: str, work: Callable[[], object]) -> float:
        gc.collect()
        gc.disable()  # as in the worker processes
        began = time.process_time()
        work()
        taken = time.process_time() - began
        gc.enable()
        return size[what] / taken

    def keep(data: bytes, language: str) -> bytes:
        kept = judged(nodes_of(walked[data]), walkers[language].names, len(data))
        return pack_nodes(kept.nodes) if kept else b""

    tokenized = rate("all", lambda: [tokenizer.encode_array(data.decode()) for data, _, _ in texts])
    parsed = rate("code", lambda: [walkers[language].parse(data) and None for data, language in code])
    walked: dict[bytes, Any] = {}
    both = rate("code", lambda: walked.update((data, walkers[language].nodes(data)) for data, language in code))
    packed = rate("code", lambda: [keep(data, language) for data, language in code])
    return {"tokenizer": tokenized, "parser": parsed, "walk": 1 / (1 / both - 1 / parsed), "judge and pack": packed}


def stored(store: TokenStore) -> dict[str, float]:
    """Size of the tokens and of the syntax in the store, for a byte of text."""
    size = sum(store.split(name).byte_count for name in store.splits)
    sums = {"tokens": 0, "spans": 0}
    for name, entry in store.manifest["files"].items():
        for kind in sums:
            sums[kind] += entry["bytes"] if f"/{kind}" in name else 0
    return {kind: total / size for kind, total in sums.items()}


def lines(result: dict[str, Any]) -> list[str]:
    """The result as a reader wants it."""
    share = result["share_of_bare"]
    reached = "reached" if share["median"] >= GOAL else "not reached"
    told = [
        f"{result['files']:,} files, {result['megabytes']:.1f} MB, {result['processes']} processes",
        *(
            f"{name:24} {rate['median']:6.2f} MB/s ({rate['low']:.2f} to {rate['high']:.2f})"
            for name, rate in result["megabytes_per_second"].items()
        ),
        f"prepare / bare           {share['median']:6.2f} ({share['low']:.2f} to {share['high']:.2f}); "
        f"goal {GOAL}: {reached}",
        "the same in processor seconds {median:.2f} ({low:.2f} to {high:.2f})".format(
            **result["share_of_bare_in_processor_seconds"]
        ),
        "one core, MB/s: " + ", ".join(f"{name} {rate:.1f}" for name, rate in result["one_core"].items()),
        "store, bytes a byte of text: "
        + ", ".join(f"{name} {size:.2f}" for name, size in result["store_bytes_per_text_byte"].items()),
    ]
    return [*told, f"on {result['machine']['processor']}, load {result['machine']['load_average']}"]


if __name__ == "__main__":
    run_main(main)
