"""Rows of a benchmark's data files, whatever they are stored as, with one-line errors that name file, line and field.

It decides what is read (one file, a folder of them, a Hugging Face dataset's files, or the shipped sample) and that
every row is a JSON object. It refuses what another reader would repair in silence: broken or cut off files, encodings
other than UTF-8, NaN, numbers beyond 64 bits, half characters, duplicated ids. Code of a dataset is never run.
"""

import contextlib
import fnmatch
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import zip_longest
from pathlib import Path
from typing import Any, NoReturn

import xxhash

from inlay.config import BadInput
from inlay.config.files import GZIP_ERRORS, bounded_lines, open_regular, read_bounded, unpacked_bounded
from inlay.evaluate.rows_hub import HUB, hub_files
from inlay.evaluate.task import Example, Place

ENDINGS = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".parquet")
"""Of the files that can be read; `.json` is one array of objects, or one object."""

_BOOKKEEPING = {"dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json"}
"""Files that dataset libraries put beside the data."""
_LARGEST = 1 << 63
_SHOWN = 40


@dataclass(frozen=True)
class Row:
    """One object of a data file. Every getter raises BadInput that names `where` and the field."""

    data: dict[str, Any]
    where: str
    """For people: "file.jsonl.gz, line 12"."""

    def text(self, key: str) -> str:
        """A string; empty is allowed."""
        value = self.value(key)
        if not isinstance(value, str):
            self.refuse(key, f"is {_named(value)}, not a text")
        return self._whole(key, value)

    def filled(self, key: str) -> str:
        """A string that is not blank: an id, a name."""
        value = self.text(key)
        if not value.strip():
            self.refuse(key, "is empty")
        return value

    def text_or(self, key: str, default: str) -> str:
        """A string, or `default` where the field is missing or null."""
        return default if self.data.get(key) is None else self.text(key)

    def number(self, key: str) -> float:
        """A finite number, whole or not."""
        value = self.value(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.refuse(key, f"is {_named(value)}, not a number")
        if not abs(value) < _LARGEST or not math.isfinite(value):
            self.refuse(key, "is a number too large to use")
        return float(value)

    def integer(self, key: str) -> int:
        """A whole number of at most 64 bits."""
        value = self.value(key)
        if isinstance(value, bool) or not isinstance(value, int):
            self.refuse(key, f"is {_named(value)}, not a whole number")
        if not abs(value) < _LARGEST:
            self.refuse(key, "is a number too large to use")
        return value

    def texts(self, key: str) -> list[str]:
        """An array of strings."""
        found: list[str] = []
        for place, value in enumerate(self._items(key)):
            if not isinstance(value, str):
                self.refuse(f"{key}[{place}]", f"is {_named(value)}, not a text")
            found.append(self._whole(f"{key}[{place}]", value))
        return found

    def mapping(self, key: str) -> dict[str, Any]:
        """An object."""
        value = self.value(key)
        if not isinstance(value, dict):
            self.refuse(key, f"is {_named(value)}, not an object")
        return value

    def row(self, key: str) -> "Row":
        """An object as a row of its own, for its getters."""
        return Row(self.mapping(key), f"{self.where}, '{key}'")

    def rows(self, key: str) -> list["Row"]:
        """An array of objects as rows of their own."""
        found: list[Row] = []
        for place, value in enumerate(self._items(key)):
            if not isinstance(value, dict):
                self.refuse(f"{key}[{place}]", f"is {_named(value)}, not an object")
            found.append(Row(value, f"{self.where}, '{key}[{place}]'"))
        return found

    def unpacked(self, key: str) -> "Row":
        """This row with `key` decoded, where the file holds JSON inside a text."""
        value = self.value(key)
        if not isinstance(value, str):
            return self
        try:
            return Row(self.data | {key: _decode(value)}, self.where)
        except (ValueError, RecursionError) as error:
            self.refuse(key, f"holds broken JSON ({_reason(error)})")

    def value(self, key: str) -> Any:
        """Whatever stands there. Raises BadInput where the field is missing or null."""
        found = self.data.get(key)
        if found is None:
            self.refuse(key, "is null" if key in self.data else f"is missing (the row has {self._names()})")
        return found

    def refuse(self, key: str, problem: str) -> NoReturn:
        """Raises BadInput: `problem` follows the field's name."""
        raise BadInput(f"{self.where}: field '{key}' {' '.join(problem.split())}")

    def _names(self) -> str:
        return _short(", ".join(map(str, self.data))) or "no fields"

    def _whole(self, key: str, value: str) -> str:
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            self.refuse(key, f"has half a character (a lone surrogate) at character {error.start}; write it whole")
        return value

    def _items(self, key: str) -> list[Any]:
        value = self.value(key)
        if not isinstance(value, list):
            self.refuse(key, f"is {_named(value)}, not a list")
        return value

    # Last, because it hides the type's name in the rest of the class.
    def list(self, key: str) -> list[Any]:
        """An array of anything."""
        return self._items(key)


@dataclass(frozen=True)
class Rows:
    """The rows of a list, in file and line order."""

    rows: list[Row]
    source: str
    """Where they come from, for people."""
    hash: str
    """xxh3_128 of the rows' content, hexadecimal: the same data has one hash as lines, compressed or as parquet."""
    sample: bool
    """Whether this is the shipped sample."""


def read_rows(place: Place, sample: str, pattern: str | None = None) -> Rows:
    """All rows of `place.data`, or of the shipped `samples/<sample>.jsonl` where that is None.

    `place.data` is a file (see ENDINGS), a folder, or `hf:OWNER/NAME[/FILE-GLOB]`. `pattern` (a glob of file names)
    chooses among the files of a folder or dataset; they are read in the order of their names. Raises BadInput when
    nothing is there, or when any row cannot be read.
    """
    if place.data is None:
        with resources.as_file(resources.files("inlay.evaluate.samples") / f"{sample}.jsonl") as path:
            return _rows([(path, path.name)], "shipped sample", sample=True)
    if place.data.startswith(HUB):
        files, source = hub_files(place.data, ENDINGS, pattern)
        return _rows(_chosen(files, pattern if place.data.count("/") == 1 else None, source), source, sample=False)
    path = Path(place.data).expanduser()
    try:
        if path.is_dir():
            return _rows(_chosen(_listed(path), pattern, f"'{path}'"), str(path), sample=False)
        found = path.exists()
    except OSError as error:
        raise BadInput(f"cannot read '{path}': {(error.strerror or str(error)).lower()}") from error
    if not found:
        raise BadInput(
            f"there is no file or folder '{path}': give the benchmark's data, or leave it out for the sample"
        )
    if not path.name.endswith(ENDINGS):
        raise BadInput(f"'{path}' is none of the kinds that can be read: {', '.join(ENDINGS)}")
    return _rows([(path, path.name)], str(path), sample=False)


def unique(ids: Iterable[tuple[str, Row]]) -> None:
    """Raises BadInput, naming both rows, where an id comes twice."""
    seen: dict[str, Row] = {}
    for name, row in ids:
        first = seen.setdefault(name, row)
        if first is not row:
            raise BadInput(f"the id '{_short(name)}' comes twice: {first.where} and {row.where}; keep one of them")


def mixed(examples: Sequence[Example]) -> list[Example]:
    """The same examples in an order whose beginning is as mixed as the whole, for `limit`.

    Kinds (category and language) take turns, and inside a kind no group comes a second time before all have come once.
    """
    seen: Counter[tuple[str, str | None, str]] = Counter()
    columns: dict[tuple[str, str | None], list[tuple[int, Example]]] = {}
    for example in examples:
        kind = example.category, example.language
        columns.setdefault(kind, []).append((seen[*kind, example.group], example))
        seen[*kind, example.group] += 1
    ranked = [[one for _, one in sorted(column, key=lambda one: one[0])] for column in columns.values()]
    return [one for turn in zip_longest(*ranked) for one in turn if one is not None]


def _listed(folder: Path) -> list[tuple[Path, str]]:
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    return [(path, path.relative_to(folder).as_posix()) for path in found]


def _chosen(files: list[tuple[Path, str]], pattern: str | None, source: str) -> list[tuple[Path, str]]:
    """The data files that match, by name. Raises BadInput when there is none."""
    readable = [(path, name) for path, name in files if name.endswith(ENDINGS) and path.name not in _BOOKKEEPING]
    chosen = [
        (path, name)
        for path, name in readable
        if pattern is None or fnmatch.fnmatch(path.name, pattern) or fnmatch.fnmatch(name, pattern)
    ]
    if not chosen:
        wanted = "" if pattern is None or not readable else f" with a name like '{pattern}'"
        raise BadInput(f"{source} has no data file{wanted}: looked for {', '.join(ENDINGS)}")
    return sorted(chosen, key=lambda one: one[1])


def _rows(files: list[tuple[Path, str]], source: str, *, sample: bool) -> Rows:
    rows: list[Row] = []
    digest = xxhash.xxh3_128()
    for path, name in files:
        for row in _read(path, name):
            rows.append(row)
            plain = json.dumps(row.data, sort_keys=True, separators=(",", ":"), default=str)
            digest.update(plain.encode("utf-8") + b"\n")
    if not rows:
        names = ", ".join(name for _, name in files[:3]) + (" ..." if len(files) > 3 else "")
        raise BadInput(f"{names}: no rows, the data is empty")
    return Rows(rows, source, digest.hexdigest(), sample)


def _read(path: Path, name: str) -> Iterator[Row]:
    if name.endswith(".parquet"):
        yield from _parquet(path, name)
        return
    with _file_errors(path, name):
        if name.removesuffix(".gz").endswith(".json"):
            content = unpacked_bounded(path) if name.endswith(".gz") else read_bounded(path)
            yield from _whole_json(_plain(content, name), name)
            return
        lines = bounded_lines(path, packed=name.endswith(".gz"))
        for line in lines:
            where = f"{name}, line {line.number}"
            try:
                content = _plain(line.content, name) if line.number == 1 else line.content
                # Only the last line of a file that was cut off has no line end.
                row = _row(_parse(content, where, cut=not line.whole), where)
            except BadInput:
                for _ in lines:  # a packed file that is damaged says so at its end, and that is the reason then
                    continue
                raise
            yield row


def _plain(content: bytes, name: str) -> bytes:
    """The beginning of a file without its byte-order mark. Raises BadInput for UTF-16 and UTF-32."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in content[:4]:
        raise BadInput(f"{name}, line 1: the text is UTF-16 or UTF-32, not UTF-8; save it as UTF-8")
    return content.removeprefix(b"\xef\xbb\xbf")


@contextlib.contextmanager
def _file_errors(path: Path, name: str) -> Iterator[None]:
    try:
        yield
    except EOFError:
        raise BadInput(f"{name}: the gzip file is cut off; fetch it again") from None
    except GZIP_ERRORS as error:
        raise BadInput(f"{name}: not a whole gzip file ({_reason(error)}); fetch it again") from None
    except OSError as error:
        raise BadInput(f"cannot read '{path}': {(error.strerror or str(error)).lower()}") from error
    except MemoryError:
        raise BadInput(f"{name}: too large to read into memory") from None


def _whole_json(content: bytes, name: str) -> Iterator[Row]:
    if not content.strip():
        return
    value = _parse(content, f"{name}, line 1", cut=True)
    if isinstance(value, dict):
        yield Row(value, name)
        return
    if not isinstance(value, list):
        raise BadInput(f"{name}: holds {_named(value)}, not a list of objects")
    for number, one in enumerate(value, start=1):
        yield _row(one, f"{name}, row {number}")


def _parse(content: bytes, where: str, *, cut: bool) -> Any:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        end = " (or the file is cut off there)" if cut and error.end >= len(content) else ""
        line = _line(where, content.count(b"\n", 0, error.start))
        raise BadInput(
            f"{line}: byte 0x{content[error.start]:02x} is not UTF-8{end}; the text may be latin-1 or another"
            " encoding: save it as UTF-8"
        ) from None
    try:
        return _decode(text)
    except json.JSONDecodeError as error:
        line = _line(where, error.lineno - 1)
        if cut and (error.pos >= len(text.rstrip()) - 1 or error.msg.startswith("Unterminated string")):
            raise BadInput(f"{line}: the JSON ends too early, the file seems cut off; fetch it again") from None
        hint = "; a file of one object a line is called .jsonl" if error.msg == "Extra data" and "\n" in text else ""
        raise BadInput(f"{line}, column {error.colno}: not JSON ({error.msg.lower()}){hint}") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where}: not JSON that can be read ({_reason(error)})") from None


def _line(where: str, further: int) -> str:
    """`where` ends with a line number; `further` lines below it."""
    start, _, number = where.rpartition(" ")
    return f"{start} {int(number) + further}"


def _decode(text: str) -> Any:
    """Raises ValueError for broken JSON, and for NaN and infinities, which are not JSON."""
    return json.loads(text, parse_constant=_constant)


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _parquet(path: Path, name: str) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Opened here: pyarrow would wait for the writer of a pipe, deaf to every signal.
        with open_regular(path) as opened, pq.ParquetFile(opened) as file:
            number = 0
            for batch in file.iter_batches(batch_size=1024):
                for data in batch.to_pylist():
                    number += 1
                    yield _row(data, f"{name}, row {number}")
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{name}: not a parquet file that can be read ({_reason(error)})") from error


def _row(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        raise BadInput(f"{where}: {_named(value)}, not an object with fields")
    return Row(value, where)


def _named(value: Any) -> str:
    """A value for an error line."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    names = {dict: "an object", list: "a list", str: "a text", int: "a number", float: "a number"}
    return names.get(type(value), f"a {type(value).__name__}")


def _reason(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, ValueError) and "integer string conversion" in str(error):
        return "a number with thousands of digits"
    return _short(str(error).splitlines()[0] if str(error) else type(error).__name__, 120)


def _short(text: str, limit: int = 2 * _SHOWN) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= limit else f"{plain[: limit - 3]}..."
