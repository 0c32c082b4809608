"""Results and items as an evaluation leaves them, made by hand: known answers, known shares.

Every answer is written down as (category, language, gold, what the model wrote, why it ended), and every number of the
result is the plain mean over them, so that a test can count with its own eyes. Intervals are the mean give or take a
tenth; nothing here uses the code that makes real results.
"""

from collections.abc import Sequence
from typing import Any

TITLES: dict[str, tuple[str, str | None, bool]] = {
    "exact": ("exact", "high", True),
    "exact_post": ("exact, post", "high", True),
    "exact_bigcode": ("bigcode", "high", True),
    "exact_qwen": ("qwen", "high", True),
    "edit_similarity": ("edit sim.", "high", True),
    "edit_similarity_post": ("edit, post", "high", True),
    "first_line": ("first line", "high", True),
    "syntax_valid": ("valid", "high", True),
    "compiles": ("compiles", "high", True),
    "passed": ("passed", "high", True),
    "passed_post": ("passed, post", "high", True),
    "pass@10": ("pass@10", "high", True),
    "stopped": ("stops", "high", True),
    "overrun_tokens": ("overrun", "low", False),
    "underrun_tokens": ("underrun", "low", False),
    "continued": ("runs on", "low", True),
    "underrun": ("too short", "low", True),
    "empty": ("empty", "low", True),
    "empty_right": ("empty right", "high", True),
    "indentation": ("indentation", "high", True),
    "suffix_copied": ("copies suffix", "low", True),
    "looped": ("loops", "low", True),
    "leaked": ("leaks", "low", True),
    "middle_nats": ("nats/token", "low", False),
    "middle_bpb": ("bits/byte", "low", False),
    "terminator_nats": ("end nats", "low", False),
    "l2r_bpb": ("L2R bits/B", "low", False),
    "document_bpb": ("doc. bits/B", "low", False),
    "matched": ("API match", "high", True),
}

Written = tuple[str, str | None, str, str, str]

ANSWERS: tuple[Written, ...] = (
    ("line", "python", "    return total + 1\n", "    return total + 1\n", "eot"),
    ("line", "python", "    return total + 1\n", "    return sum(values)\n", "eot"),
    ("line", "python", "    return total + 1\n", "    return total + 1\n    return total + 1\n", "limit"),
    ("line", "javascript", "  return a.length;\n", "  return a.size();\n", "eot"),
    ("word", "python", "total", "totals", "eot"),
    ("word", "python", "total", "tot", "eot"),
    ("word", "javascript", "length", "", "eot"),
    ("word", "javascript", "length", "length", "eot"),
    ("block", "python", "if a:\n\tb()\nelse:\n\tc()\n", "if a:\n\tb(", "sentinel"),
    ("block", None, "", "", "eot"),
)
CAUSES = ("passed", "wrong", "timeout", "error", "passed", "compile")


def item(number: int, written: Written, row: str = "spm", *, tested: bool = True, **more: Any) -> dict[str, Any]:
    """One answer; its measures follow from the texts alone."""
    category, language, gold, middle, stopped = written
    exact = gold == middle
    goes_on = bool(gold) and middle.startswith(gold) and not exact
    cause = "passed" if exact else CAUSES[number % len(CAUSES)]
    ran = {"verdict": "passed" if cause == "passed" else "failed", "cause": cause, "compiled": cause != "compile"}
    outcome = {**ran, "seconds": 0.01, "detail": "" if cause == "passed" else f"AssertionError: {number}"}
    valid = None if language is None else float(exact or number % 3 == 1)
    measures: dict[str, float | None] = {
        "exact": float(exact),
        "exact_post": float(exact or goes_on),
        "edit_similarity": 1.0 if exact else 0.5,
        "edit_similarity_post": 1.0 if exact else 0.55,
        "first_line": float(exact or gold.split("\n")[0] == middle.split("\n")[0]),
        "syntax_valid": valid,
        "passed": float(cause == "passed") if tested else None,
        "passed_post": float(cause == "passed" or goes_on) if tested else None,
        "stopped": float(stopped == "eot"),
        "overrun_tokens": float(max(0, len(middle) - len(gold))),
        "continued": float(goes_on),
        "underrun": float(gold.startswith(middle) and not exact and stopped == "eot"),
        "empty": float(not middle) if gold else None,
        "empty_right": float(not middle) if not gold else None,
        "indentation": None if category == "word" else float(number % 4 != 3),
        "suffix_copied": float(number % 9 == 5),
        "looped": float(stopped == "limit"),
        "leaked": float(stopped == "sentinel"),
        "middle_bpb": 0.5 + number % 5 / 4 if gold else None,
        "terminator_nats": 0.1,
    }
    found = {
        "id": f"{category}:{number}", "order": row.split(" ")[0], "row": row, "sample": 0, "chosen": None,
        "doc": f"d{number % 4}", "path": f"src/file_{number % 4}.py", "language": language, "category": category,
        "length": len(gold.encode()), "gold": gold, "middle": middle,
        "post": gold if goes_on else None, "stopped": stopped, "tokens": len(middle) // 3,
        "outcome": outcome if tested else None,
        "post_outcome": {**outcome, "verdict": "passed", "cause": "passed"} if tested and goes_on else None,
        "prefix": f'"""Module {number}."""\n\nimport os\n\n\ndef compute(values, total):\n    for value in values:\n'
        "        total += value\n", "suffix": "\n\ndef other():\n    return None\n", "measures": measures,
    }  # fmt: skip
    return found | more


def items_of(count: int = 20, rows: Sequence[str] = ("psm", "spm"), **options: Any) -> list[dict[str, Any]]:
    """`count` answers to each row, the texts of ANSWERS over and over."""
    return [item(at, ANSWERS[at % len(ANSWERS)], row, **options) for row in rows for at in range(count)]


def score(values: Sequence[float | None], share: bool = True) -> dict[str, Any]:
    """The plain mean, give or take a tenth."""
    known = [value for value in values if value is not None]
    if not known:
        return {"value": None, "low": None, "high": None, "n": 0}
    mean = sum(known) / len(known)
    low, high = mean - 0.1, mean + 0.1
    return {"value": mean, "low": max(0.0, low), "high": min(1.0, high) if share else high, "n": len(known)}


def scores(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Every metric over `items`."""
    return {name: score([one["measures"].get(name) for one in items], TITLES[name][2]) for name in TITLES}


def bucket(length: int) -> str:
    """The bucket of a gold of `length` bytes."""
    return next((name for most, name in ((0, "0"), (10, "1-10"), (40, "11-40"), (100, "41-100")) if length <= most), "")


def samples_of(items: Sequence[dict[str, Any]], count: int = 6) -> list[dict[str, Any]]:
    """The first answers of each row, as a result shows them in full."""
    rows = list(dict.fromkeys(one["row"] for one in items))
    names = ("doc", "path", "category", "order", "prefix", "suffix", "gold", "middle", "stopped")
    return [
        {"step": 1200, **{name: one[name] for name in names}, "exact": one["gold"] == one["middle"]}
        for row in rows
        for one in [one for one in items if one["row"] == row][:count]
    ]


def older_result(result: dict[str, Any], samples: list[dict[str, Any]]) -> dict[str, Any]:
    """`result` as it was written before there were rows, several tasks and pages of their own."""
    kept = ("exact", "edit_similarity", "first_line", "syntax_valid", "stopped", "overrun_tokens", "middle_bpb")

    def few(scores: dict[str, Any]) -> dict[str, Any]:
        return {name: scores[name] for name in kept}

    return {
        "task": "held_out", "n": result["n"],
        "gold": {"exact": 1.0, "syntax_valid": 1.0, "n": result["n"], "syntax_measured": 9, "failures": []},
        "metrics": {row: few(scores) for row, scores in result["metrics"].items()},
        "slices": {
            row: {"category": {label: few(scores) for label, scores in kinds["category"].items()},
                  "length": {"1-4": few(result["metrics"][row])}, "cut": {"left": few(result["metrics"][row])}}
            for row, kinds in result["slices"].items()
        },
        "settings": {
            "run": "runs/demo", "step": 1200, "weights_hash": "3f2a", "dtype": "float32", "orders": ["psm", "spm"],
            "max_tokens": 64, "decoding": "greedy", "limit": None, "task": {"kind": "held_out"},
            "corpus": {"source": "validation split", "hash": "77", "documents": 99}, "documents_used": 4,
            "interval": "95 %, bootstrap over documents", "version": "0.1", "seconds": 3.0,
        },
        "samples": samples,
    }  # fmt: skip


def older_items(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """`items` as they were written then."""
    names = ("id", "order", "doc", "path", "category", "gold", "middle", "stopped", "tokens", "measures")
    return [{**{name: one[name] for name in names}, "gold_tokens": 3} for one in items]


def result_of(items: Sequence[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """The result of `items`, a row for each of theirs."""
    rows = list(dict.fromkeys(one["row"] for one in items))
    own = {row: [one for one in items if one["row"] == row] for row in rows}

    def cut(some: Sequence[dict[str, Any]], rule: Any) -> dict[str, Any]:
        labels = list(dict.fromkeys(rule(one) for one in some))
        return {label: scores([one for one in some if rule(one) == label]) for label in labels if label is not None}

    ids = dict.fromkeys(one["id"] for one in items)
    found = {
        "task": "humaneval_infilling", "n": len(ids), "of": len(ids), "sample": False,
        "gold": {
            "exact": 1.0, "n": len(ids), "syntax_valid": 1.0, "passed": 1.0, "failures": [], "unavailable": {},
        },
        "metrics": {row: scores(some) for row, some in own.items()},
        "slices": {
            row: {
                "category": cut(some, lambda one: one["category"]),
                "language": cut(some, lambda one: one["language"]),
                "length": cut(some, lambda one: bucket(one["length"])),
                "cut": cut(some, lambda one: "neither" if one["gold"].endswith("\n") else "left"),
            }
            for row, some in own.items()
        },
        "rows": {row: {"order": row.split(" ")[0], "samples": 1, "best_of": None} for row in rows},
        "definitions": [
            {"name": name, "title": title, "meaning": f"what {title} means", "better": better, "share": share}
            for name, (title, better, share) in TITLES.items()
        ],
        "settings": {
            "name": "demo", "kind": "run", "step": 1200, "weights_hash": "3f2a9c51d07e4b66", "format": "inlay",
            "tokenizer_hash": "9b1c77aa02f4", "dtype": "float32", "orders": ["psm", "spm"], "max_tokens": 128,
            "decoding": "greedy", "decoding_options": {"temperature": 0.0, "samples": 1, "seed": 0},
            "task": {"kind": "humaneval_infilling", "max_tokens": 128, "split": "single-line"},
            "corpus": {"source": "HumanEval-SingleLineInfilling.jsonl.gz", "hash": "77aa41b2c9", "of": len(ids),
                       "sample": False},
            "documents_used": 4, "post": "cut at the first line end that closes the gap (made up here)",
            "sandbox": "bubblewrap 0.8", "versions": {"inlay": "0.1", "python": "3.11.9", "torch": "2.11.0"},
            "seconds": 73.4, "interval": "95 %, bootstrap over problems",
            "command": "inlay evaluate runs/demo --task humaneval_infilling --data HumanEval.jsonl.gz",
        },
        "samples": [],
    }  # fmt: skip
    return found | more
