"""The command that makes a result again: the target, the task, and every option that is not the default.

It says only what the result knows: a target is named as the result names it, and `--data` stands there when the result
says what was given.
"""

import shlex
from collections.abc import Mapping
from typing import Any

import yaml

from inlay.config import BadInput
from inlay.evaluate.subject import GREEDY
from inlay.evaluate.task import tasks


def command_of(result: Mapping[str, Any]) -> str:
    """The command line, quoted for a shell; `settings.command` where the result has it."""
    settings = result["settings"]
    if settings.get("command"):
        return str(settings["command"])
    kind = str(result["task"])
    target = settings.get("target") or settings.get("run") or settings.get("name") or "RUN"
    parts = ["inlay", "evaluate", str(target), "--task", kind]
    for flag, value in (("--data", settings.get("data")), ("--limit", settings.get("limit"))):
        parts += [] if value is None else [flag, str(value)]
    parts += _changed(settings.get("task") or {}, _defaults(kind))
    decoding = {**GREEDY.to_dict(), **(settings.get("decoding_options") or {})}
    parts += _changed(decoding, GREEDY.to_dict(), "decoding.")
    return shlex.join(parts)


def _defaults(kind: str) -> Mapping[str, Any]:
    try:
        return tasks.get(kind)().to_dict()
    except BadInput:
        return {}  # a task of another version: then every option is said


def _changed(values: Mapping[str, Any], defaults: Mapping[str, Any], before: str = "") -> list[str]:
    """Overrides that lead from `defaults` to `values`, in the words of the command line."""
    found: list[str] = []
    for key, value in values.items():
        default = defaults.get(key, ...)
        if (key == "kind" and not before) or value == default:
            continue
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            found += [f"~{before}{key}.{inner}" for inner in default if inner not in value]
            found += _changed(value, default, f"{before}{key}.")
        else:
            found.append(f"{'+' if default is ... and defaults else ''}{before}{key}={_text(value)}")
    return found


def _text(value: Any) -> str:
    """As the command line reads it: YAML in one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...").strip()
