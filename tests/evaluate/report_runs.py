"""Run directories made of nothing but the files that a report reads, with losses that are known beforehand."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from inlay.evaluate.report_sums import FILE, sums_by_document, validation_record

HOSTILE = "x = \"</script><script>alert(1)</script>\" # <b> & 'quote' {{ 7 * 7 }} \u2028"
KINDS = ("l2r", "spm", "spm_middle")
DOCUMENTS = 40
SLOTS = 4000


def slots(loss: float, asked: int = 0, length: int = SLOTS) -> dict[str, np.ndarray]:
    """Slots of a validation whose mean loss is about `loss`; the same `asked` asks for the same tokens."""
    draws = np.random.default_rng(asked)
    documents = np.sort(draws.integers(0, DOCUMENTS, length))
    hardness = draws.normal(0.0, 0.5, DOCUMENTS)[documents]
    noise = np.random.default_rng(int(loss * 1e6)).normal(0.0, 0.3, length)
    return {
        "documents": documents,
        "targets": draws.integers(0, 300, length),
        "nats": np.maximum(loss + hardness + noise, 0.01),
        "sizes": draws.integers(1, 6, length).astype(np.float64),
        "chosen": np.ones(length, dtype=bool),
        "text": draws.random(length) < 0.9,
    }


def write_run(
    folder: Path,
    loss: float = 2.0,
    *,
    seed: int = 0,
    steps: int = 200,
    planned: int | None = 200,
    asked: int = 0,
    store: str = "store-1",
    tokenizer: str = "one",
    sums: bool = True,
    config: dict[str, Any] | None = None,
    samples: bool = True,
    middle: str = "total",
) -> Path:
    """A run that ends near `loss` on plain rows; `sums=False` is one of before validation.json was written."""
    folder.mkdir(parents=True)
    whole = {
        "seed": seed,
        "data": {"path": "nowhere"},
        "fim": {"family": "inlay", "rate": 0.7},
        "optim": {"kind": "muon", "lr": 0.02},
        "train": {"steps": planned, "tokens": None, "minutes": None, "sequence_length": 128, "rows": 4},
        "callbacks": {"validation": {"kind": "validation", "rows": 24}},
        **(config or {}),
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(whole), encoding="utf-8")
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "tokenizer.json").write_text(tokenizer)
    checkpoint = folder / "checkpoints" / f"step-{steps}"
    checkpoint.mkdir(parents=True)
    record = {"step": steps, "total_steps": planned, "loader": {"store": store}, "vocab_size": 300}
    (checkpoint / "checkpoint.json").write_text(json.dumps(record))
    lines = []
    finals: dict[str, float] = {}
    entries = {}
    for number, kind in enumerate(KINDS):
        made = slots(loss + 0.1 * number, asked)
        entries[kind] = sums_by_document(**made)
        nats = sum(entries[kind]["nats"])
        finals[f"validation/{kind}/loss"] = nats / sum(entries[kind]["targets"])
        text = sum(entries[kind]["text_nats"])
        finals[f"validation/{kind}/bpb"] = text / (math.log(2.0) * sum(entries[kind]["bytes"]))
    for step in range(0, steps + 1, 10):
        seen = {"step": step, "tokens": step * 512, "seconds": step * 0.5}
        if step:
            lines.append({**seen, "train/loss": loss + 3 / step, "tokens_per_second": 1000.0, "loader_share": 0.01})
        if step % 50 == 0 or step == steps:
            lines.append({**seen, **{name: value * (1 + (steps - step) / steps) for name, value in finals.items()}})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    if sums:
        ids = [f"doc{number}" for number in range(DOCUMENTS)]
        content = validation_record(steps, steps * 512, store, 128, 24, ids, entries)
        (folder / FILE).write_text(json.dumps(content))
    if samples:
        write_samples(folder, steps, middle)
    return folder


def write_samples(folder: Path, steps: int, middle: str, count: int = 12) -> None:
    """Gaps numbered in the order of the fixed list; only the last gap is ever exact."""
    lines = []
    for step in (steps // 2, steps):
        for number in range(count):
            gap = {"prefix": f"{HOSTILE}\nvalue_{number} = ", "suffix": "\n<i>rest</i>", "gold": f"total_{number}"}
            filled = f"total_{number}" if number == count - 1 else f"{middle}@{step}"
            about = {"doc": f"d{number}", "path": f"<i>odd</i>{number}.py", "category": "word", "order": "spm"}
            about |= {"step": step, "stopped": "eot" if number % 2 else "limit"}
            lines.append({**about, **gap, "middle": filled, "exact": filled == gap["gold"]})
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def write_evaluation(folder: Path, exact: list[float], documents: list[str]) -> None:
    """An evaluation of one gap an entry of `exact`, in `documents`."""
    score = {"value": sum(exact) / len(exact), "low": 0.1, "high": 0.9, "n": len(exact)}
    names = ("exact", "edit_similarity", "first_line", "syntax_valid", "stopped", "overrun_tokens", "middle_bpb")
    scores = dict.fromkeys(names, score)
    result = {
        "task": "held_out",
        "n": len(exact),
        "gold": {"exact": 1.0, "syntax_valid": 1.0, "failures": []},
        "metrics": {"spm": scores},
        "slices": {"spm": {"category": {"word": scores}}},
        "settings": {"step": 200, "documents_used": 4, "max_tokens": 64, "corpus": {"hash": "h"}},
    }
    place = folder / "evaluations"
    place.mkdir()
    (place / "held_out.json").write_text(json.dumps(result))
    items = [
        {"id": f"word:{at}", "order": "spm", "doc": doc, "measures": {"exact": value, "syntax_valid": None}}
        for at, (value, doc) in enumerate(zip(exact, documents, strict=True))
    ]
    (place / "held_out.items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
