"""The task `marked`: source files in which someone has marked one gap by hand, in folders that name what is asked.

The data is a folder (every file below it; the folder that a file lies in is its category) or one file. How a file is
written is said in `inlay.evaluate.marks`. Passed over are only hidden files and folders and READMEs; any other file
without marks is refused, because a forgotten mark would shrink the list unseen. By default the files that come with
the package are asked, made of its own code.
"""

from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import ClassVar, Literal

import xxhash

from inlay.config import BadInput
from inlay.config.files import open_regular
from inlay.evaluate.marks import decode, read_mark
from inlay.evaluate.task import Example, Examples, Place, TaskConfig, tasks
from inlay.text.document import content_id, language_of

SUFFIX = ".fim"
"""May follow a file's own name (`types/draws.py.fim`), so that tools do not take a marked file for code."""
SHIPPED = "the marked files that come with inlay"
LARGEST_BYTES = 1_000_000
"""Of a file: no source file that someone marks by hand is larger."""


@tasks.register
class MarkedConfig(TaskConfig):
    """Gaps marked by hand in source files, by category."""

    CITATION: ClassVar[str] = "omkaark.com, How to Train an LLM, part 4 (the evaluation by marked files)"

    kind: Literal["marked"] = "marked"

    def examples(self, place: Place, limit: int | None = None) -> Examples:
        """All files, sorted by path, categories taking turns. Raises BadInput for a path without a file, and for any
        file that is not marked as it should be."""
        if place.data is None:
            with resources.as_file(resources.files("inlay.evaluate.samples") / "marked") as folder:
                return self._read(folder, SHIPPED, limit)
        if place.data.startswith("hf:"):
            raise BadInput(f"marked files are a folder or a file, not '{place.data}': fetch them first")
        return self._read(Path(place.data).expanduser(), place.data, limit)

    def _read(self, path: Path, source: str, limit: int | None) -> Examples:
        found = []
        digest = xxhash.xxh3_128()
        for name, file in _files(path):
            data = _bytes(file)
            found.append(_example(name, category_of(name, path), decode(data, str(file)), str(file)))
            digest.update(f"{name}\0{len(data)}\0".encode() + data)
        if not found:
            raise BadInput(f"no file in '{path}': put marked files there, in folders that name what they ask")
        listed = _taking_turns(found)
        return Examples(listed[:limit], len(listed), source, digest.hexdigest())


def category_of(name: str, root: Path) -> str:
    """The folder that a file lies in, relative to `root`; a file directly in it takes the root's own name."""
    parent = Path(name).parent.as_posix()
    if parent != ".":
        return parent
    folder = root.resolve() if root.is_dir() else root.resolve().parent
    return folder.name or "marked"


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    if path.is_file():
        yield path.name, path
        return
    if not path.is_dir():
        raise BadInput(f"no such file or folder of marked files: {path}")
    for file in sorted(path.rglob("*"), key=lambda file: file.relative_to(path).as_posix()):
        parts = file.relative_to(path).parts
        skipped = any(part.startswith((".", "__pycache__")) for part in parts) or parts[-1].upper().startswith("README")
        # Packages of Python carry such a file; it is empty there.
        if file.is_file() and not skipped and not (parts[-1] == "__init__.py" and file.stat().st_size == 0):
            yield Path(*parts).as_posix(), file


def _bytes(file: Path) -> bytes:
    try:
        with open_regular(file) as opened:
            data = opened.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise BadInput(f"cannot read '{file}': {(error.strerror or str(error)).lower()}") from error
    if len(data) > LARGEST_BYTES:
        raise BadInput(f"'{file}' has more than {LARGEST_BYTES} bytes; cut it to what the gap needs")
    return data


def _example(name: str, category: str, text: str, where: str) -> Example:
    marked = read_mark(text, where)
    path = name.removesuffix(SUFFIX)
    return Example(
        id=name,
        # Several gaps may be marked in copies of one file; these are not independent of each other.
        group=content_id(marked.prefix + marked.middle + marked.suffix),
        category=category,
        prefix=marked.prefix,
        middle=marked.middle,
        suffix=marked.suffix,
        path=path,
        language=language_of(path),
    )


def _taking_turns(examples: list[Example]) -> list[Example]:
    columns: dict[str, list[Example]] = {}
    for example in examples:
        columns.setdefault(example.category, []).append(example)
    longest = max(map(len, columns.values()))
    return [column[row] for row in range(longest) for column in columns.values() if row < len(column)]
