"""Technical English that every user already has: the pages that installed packages carry about themselves.

That is each package's README (its metadata holds it as the long description) and the Markdown, reStructuredText and
plain-text files that it lists as its own, and with `path` those of a folder. Docstrings are left to the sources of
code: in both, they could be held out in one store and trained in the other. Licences are left out, which are the same
few pages over and over.
"""

import importlib.metadata
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import Field

from inlay.config import BadInput
from inlay.text.document import Document, document, language_of
from inlay.text.source import Drops, Skipped, Source, read_text, sources
from inlay.text.sources.folder import FolderSource
from inlay.text.sources.python import distributions, licence_of

LANGUAGES = ("markdown", "rst", "text")
"""Prose by file name."""
README = "README"
_FORMATS = {"text/markdown": ".md", "text/plain": ".txt", "text/x-rst": ".rst"}
_LEGAL = re.compile(r"licen[cs]e|copying|copyright|notice|authors|contributors|third.?party", re.IGNORECASE)
# Lists for programs, not for readers.
_LISTS = re.compile(
    r"^(?:requirements|constraints|entry_points|top_level|dependency_links|requires|sources|cmakelists)"
)


@sources.register
class EnglishSource(Source):
    """READMEs and documentation of the installed packages, and of a folder."""

    kind: Literal["english"] = "english"
    packages: bool = True
    """Whether to take what installed packages say about themselves."""
    path: str | None = None
    """A folder whose Markdown, reStructuredText and plain text is taken too."""
    min_bytes: int = Field(400, ge=0, le=1 << 30)
    """Shorter texts are skipped: a line that says what something is called teaches little."""
    max_bytes: int = Field(1_000_000, ge=1, le=1 << 30)
    """Larger files are skipped."""

    def _documents(self, dropped: Drops) -> Iterator[Document]:
        if not self.packages and self.path is None:
            raise BadInput("'source.packages' is false and 'source.path' is null: give one of them")
        for item in self._all(dropped):
            if len(item.text.encode()) < self.min_bytes:
                dropped.add("too short", item.path)
            else:
                yield item

    def _all(self, dropped: Drops) -> Iterator[Document]:
        if self.packages:
            for name, distribution in distributions():
                yield from self._of_package(name, distribution, dropped)
        if self.path is not None:
            folder = FolderSource(path=self.path, languages=LANGUAGES, max_bytes=self.max_bytes)
            for item in folder.documents(dropped):
                if _LEGAL.search(PurePosixPath(item.path).name):
                    dropped.add("licence", item.path)
                else:
                    yield document(
                        item.text,
                        language=item.language,
                        path=item.path,
                        repo=item.repo,
                        licence=None,
                        source=self.kind,
                    )

    def _of_package(
        self, name: str, distribution: importlib.metadata.Distribution, dropped: Drops
    ) -> Iterator[Document]:
        licence = licence_of(distribution.metadata)
        readme = description(distribution)
        if readme is not None:
            text, suffix = readme
            path = f"{name}/{README}{suffix}"
            yield document(
                text, language=language_of(path) or "text", path=path, repo=name, licence=licence, source=self.kind
            )
        for path in sorted(entry.as_posix() for entry in distribution.files or ()):
            language = language_of(path)
            if language not in LANGUAGES or path.startswith(".."):
                continue
            reason = _unwanted(path)
            if reason is not None:
                dropped.add(reason, path)
                continue
            try:
                text = read_text(Path(str(distribution.locate_file(path))), self.max_bytes)
            except Skipped as skipped:
                dropped.add(str(skipped), path)
                continue
            yield document(text, language=language, path=path, repo=name, licence=licence, source=self.kind)


def description(distribution: importlib.metadata.Distribution) -> tuple[str, str] | None:
    """The README that a package's metadata holds, and the end of its file name; None when there is none."""
    # Long ago it was a header with indented lines; `json` undoes that (PEP 566).
    text = distribution.metadata.json.get("description")
    if not isinstance(text, str) or not text.strip():
        return None
    content_type = (distribution.metadata.get_all("Description-Content-Type") or ["text/x-rst"])[0]
    return text, _FORMATS.get(content_type.partition(";")[0].strip().lower(), ".txt")


def _unwanted(path: str) -> str | None:
    """Why a page is not read, or None."""
    parts = path.split("/")
    if any(part.endswith((".dist-info", ".egg-info")) for part in parts) and "licenses" not in parts:
        return "list for programs"
    if _LEGAL.search(parts[-1]) or "licenses" in parts:
        return "licence"
    return "list for programs" if _LISTS.search(parts[-1].lower()) else None
