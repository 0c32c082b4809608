"""What the files of a result are called: by what was evaluated, so that no evaluation takes another one's place.

A name is made of the task and of all that changes its list or its answers and is not as usual: the data that were
named, options of the task, the order, the decoding, a limit. The same evaluation of two runs so has one name in both,
by which they are compared. What a name does not say is the model: the plain name is that of the newest checkpoint, and
the results of older ones have their step behind it. Should anything else be different (marked files that were changed
in place, another model in a folder of the same name), the result that was there keeps its content under a name of its
own.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xxhash

from inlay.config.files import disk_errors, parse_json, read_bounded_text, write_atomic
from inlay.evaluate.subject import GREEDY, Decoding
from inlay.evaluate.task import Examples, TaskConfig

ENDINGS = ("items.jsonl", "html", "json")
"""Of the files of one result, in the order in which they are written."""
LONGEST = 120
"""Characters of a name; a longer one ends in its hash."""

_PLACES = frozenset({"target", "data", "page", "command", "run", "name"})
_RUNNING = frozenset({"seconds", "parsers_ended", "versions", "version", "transformers", "sandbox"})
_WORDS = frozenset({"limit", "post", "citation", "interval", "decoding", "corpus"})
"""Settings in which two results of one evaluation may differ: where things lie, what ran it, and what is said of other
keys."""
_ASKED = ("n", "of", "task", "sample")


def name_of(
    task: TaskConfig,
    examples: Examples,
    *,
    data: str | None = None,
    family: str | None = None,
    order: str | None = None,
    decoding: Decoding = GREEDY,
    tested: bool = True,
    harnesses: bool = False,
) -> str:
    """The name of a result, without ending; `task` with the options it was asked with, `data` as it was named.

    `order`, `family`: where one was asked for. `tested`: False where a task's tests were not to be run.
    """
    splits = {example.category for example in examples.items}
    split = splits.pop() if task.SPLITS and len(splits) == 1 else None
    parts = [task.kind, *([split] if split else []), *(["sample"] if examples.sample else [])]
    if data is not None:
        parts += [Path(data.rstrip("/")).name or "data", examples.hash[:8]]
    usual = type(task)().to_dict()  # pyrefly: ignore (each task knows its kind)
    parts += _changed(task.to_dict(), usual, {"kind"} | ({"split"} if split else set()))
    parts += [part for part in (family, order) if part is not None]
    parts += _changed(decoding.to_dict(), GREEDY.to_dict(), {"kind"})
    parts += [] if tested else ["untested"]
    parts += ["harnesses"] if harnesses else []
    parts += [f"first-{len(examples.items)}"] if len(examples.items) < examples.of else []
    name = "-".join(filter(None, (_plain(part) for part in parts)))
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 9]}-{_hash(name)}"


def settle(folder: Path, result: dict[str, Any]) -> str:
    """The name under which `result` may be written into `folder`: its own, unless another evaluation has that.

    Of two steps of one run the later one has the plain name; a result that has to give it up is renamed, with its page
    and its items. Raises InlayError in one line when the disk refuses that.
    """
    name = str(result["name"])
    old = read_result(folder / f"{name}.json")
    if old is None or _identity(old) == _identity(result):
        return name
    before, now = _step(old), _step(result)
    if before is not None and now is not None and before > now:
        return _free(folder, name, result)
    _move(folder, name, _free(folder, name, old), old)
    return name


def read_result(file: Path) -> dict[str, Any] | None:
    """The result in a file; None where there is none, or what is there is no result."""
    try:
        found = parse_json(read_bounded_text(file))
    except (OSError, ValueError, RecursionError):
        return None
    parts = {"task", "n", "gold", "metrics", "slices", "settings"}
    return found if isinstance(found, dict) and parts <= found.keys() else None


def _identity(result: Mapping[str, Any]) -> str:
    settings = result["settings"] if isinstance(result["settings"], Mapping) else {}
    kept = {key: value for key, value in settings.items() if key not in _PLACES | _RUNNING | _WORDS}
    kept |= {f"result.{key}": result.get(key) for key in _ASKED} | {"harnesses": "harnesses" in result}
    kept |= {"list": (settings.get("corpus") or {}).get("hash"), "tested": settings.get("sandbox") is not None}
    # As JSON reads it back: a result that was just made has tuples where a file has lists.
    return json.dumps(kept, sort_keys=True, default=str)


def _step(result: Mapping[str, Any]) -> int | None:
    settings = result["settings"]
    step = settings.get("step") if isinstance(settings, Mapping) else None
    return step if isinstance(step, int) and not isinstance(step, bool) else None


def _free(folder: Path, name: str, result: dict[str, Any]) -> str:
    """A name for `result` beside that of another evaluation, which no third one has."""
    digest = _hash(_identity(result))
    for suffix in ([f"step-{_step(result)}"] if _step(result) else []) + [digest]:
        there = read_result(folder / f"{name}-{suffix}.json")
        if there is None or _identity(there) == _identity(result):
            return f"{name}-{suffix}"
    return f"{name}-{digest}"


def _move(folder: Path, name: str, other: str, result: dict[str, Any]) -> None:
    """Gives the result `name` the name `other`. A kill half-way leaves the one, the other, or both."""
    settings = {**result["settings"], "page": str(folder / f"{other}.html")}
    moved = {**result, "name": other, "settings": settings}
    write_atomic(folder / f"{other}.json", json.dumps(moved, ensure_ascii=True, indent=1) + "\n")
    with disk_errors(folder / f"{other}.json"):
        for ending in ENDINGS[:-1]:
            if (folder / f"{name}.{ending}").is_file():
                os.replace(folder / f"{name}.{ending}", folder / f"{other}.{ending}")
        (folder / f"{name}.json").unlink(missing_ok=True)


def _changed(values: Mapping[str, Any], usual: Mapping[str, Any], but: set[str]) -> list[str]:
    found = []
    for key, value in values.items():
        if key in but or value == usual.get(key):
            continue
        short = isinstance(value, str | int | float | bool | None)
        found += [key, ("none" if value is None else str(value).lower()) if short else _hash(json.dumps(value))]
    return found


def _plain(text: str) -> str:
    return re.sub("[^A-Za-z0-9._-]+", "-", text).strip("-.")


def _hash(text: str) -> str:
    return xxhash.xxh3_64_hexdigest(text.encode("utf-8", "surrogatepass"))[:8]
