"""Folders that hold no source code though their files have names of code: a token store, a run, a checkpoint, a model.

Also one whose own description is missing or damaged is told by what lies around it: its `tokenizer.json` is no code.
"""

from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

from inlay.config import InlayError
from inlay.config.files import parse_json, read_bounded
from inlay.config.yaml_file import load_yaml

_WEIGHTS = (".safetensors", ".gguf")


@dataclass(frozen=True)
class NotCode:
    """What a folder is in place of code, such as `a token store`, and the file that says what is in it."""

    what: str
    file: str
    made_here: bool = True
    """Whether only inlay makes such folders: foreign models may have code beside them."""

    def line(self, path: Path) -> str:
        """Why the folder at `path` is not read, in one line."""
        file = path / self.file
        if not file.is_file():
            return f"'{path}' looks like {self.what} without its {self.file}, not like source code: name one of code"
        if not _readable(file):
            return f"'{path}' looks like {self.what}, but {file} cannot be read: mend it, or name a folder of code"
        return f"'{path}' is {self.what}, as {file} says, and no source code: name a folder of code"


_STORE = NotCode("a token store", "manifest.json")
_RUN = NotCode("a run", "config.yaml")
_CHECKPOINT = NotCode("a checkpoint", "checkpoint.json")
_MODEL = NotCode("a model", "config.json", made_here=False)


def not_code(path: Path, names: Set[str]) -> NotCode | None:
    """What the folder at `path`, with these names in it, is in place of source code; None for any other."""
    has_tokenizer = "tokenizer" in names and (path / "tokenizer" / "tokenizer.json").is_file()
    if has_tokenizer and ("manifest.json" in names or (path / "train" / "documents.parquet").is_file()):
        return _STORE
    if has_tokenizer and not names.isdisjoint(("checkpoints", "metrics.jsonl", "stores.json")):
        return _RUN
    if "weights.safetensors" in names and not names.isdisjoint(("checkpoint.json", "optimizer.safetensors")):
        return _CHECKPOINT
    if "checkpoint.json" in names and path.parent.name == "checkpoints":
        return _CHECKPOINT
    has_weights = any(name.endswith(_WEIGHTS) for name in names)
    described = names & {"config.json", "tokenizer.json", "tokenizer_config.json"}
    return _MODEL if (has_weights and described) or len(described) == 3 else None


def _readable(file: Path) -> bool:
    try:
        if file.suffix == ".yaml":
            return isinstance(load_yaml(file), dict)
        return isinstance(parse_json(read_bounded(file)), dict)
    except (OSError, ValueError, RecursionError, InlayError):
        return False
