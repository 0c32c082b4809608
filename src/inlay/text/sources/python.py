"""The standard library and the installed packages of the running interpreter: real code that every user already has.

A document's repo is its distribution (`numpy`), or for the standard library the top-level module (`stdlib/asyncio`);
its licence is what the package's metadata says. Vendored copies of other packages are left out, because they would put
one project on both sides of the split. Only files that a distribution lists as its own are read. It refuses names of
packages that are not there.
"""

import fnmatch
import importlib.metadata
import os
import re
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from inlay.config import BadInput, nearest
from inlay.text.document import Document, document
from inlay.text.source import Drops, Skipped, Source, read_text, sources

_STDLIB = "stdlib"
_STDLIB_LICENCE = "PSF-2.0"
_VENDORED = frozenset(
    {"_vendor", "_vendored", "vendor", "vendored", "_vendored_packages", "_bundled", "thirdparty", "third_party"}
)
# Files that are wrong on purpose, as food for parsers.
_BAD_SYNTAX = re.compile(r"(?:^|/)(?:bad|badsyntax)_[^/]*\.py$|(?:^|/)lib2to3/tests/data/|(?:^|/)test_lib2to3/data/")
_LICENCES = {
    "MIT": "mit|mit license|mit licence|the mit license|the mit license (mit)|expat",
    "Apache-2.0": "apache-2.0|apache 2.0|apache 2|apache 2.0 license|apache license 2.0|apache license, version 2.0"
    "|apache license|apache-2|apache software license|apache software license 2.0",
    "BSD-3-Clause": "bsd-3-clause|bsd 3-clause|bsd 3-clause license|3-clause bsd|new bsd|new bsd license|modified bsd"
    "|modified bsd license",
    "BSD-2-Clause": "bsd-2-clause|bsd 2-clause license|simplified bsd|bsd 2-clause",
    "BSD": "bsd|bsd license|bsd licence",
    "ISC": "isc|isc license|isc license (iscl)",
    "MPL-2.0": "mpl-2.0|mpl 2.0|mozilla public license 2.0 (mpl 2.0)|mozilla public license 2.0",
    "PSF-2.0": "psf-2.0|psf|psfl|psf license|python software foundation license"
    "|python software foundation license version 2",
    "Unlicense": "unlicense|the unlicense|the unlicense (unlicense)",
    "GPL-2.0-only": "gnu general public license v2 (gplv2)",
    "GPL-2.0-or-later": "gnu general public license v2 or later (gplv2+)",
    "GPL-3.0-only": "gnu general public license v3 (gplv3)",
    "GPL-3.0-or-later": "gnu general public license v3 or later (gplv3+)",
    "LGPL-2.1-or-later": "gnu lesser general public license v2 or later (lgplv2+)",
    "LGPL-3.0-only": "gnu lesser general public license v3 (lgplv3)",
    "LGPL-3.0-or-later": "gnu lesser general public license v3 or later (lgplv3+)",
    "ZPL-2.1": "zpl 2.1|zpl-2.1|zope public license",
    "CC0-1.0": "cc0|cc0 1.0 universal (cc0 1.0) public domain dedication",
    "HPND": "hpnd|historical permission notice and disclaimer (hpnd)",
}
_LICENCE_NAMES = {name: spdx for spdx, names in _LICENCES.items() for name in names.split("|")}
_Candidate = tuple[str, str, Path, str | None]


@sources.register
class PythonSource(Source):
    """The Python code of the running interpreter."""

    kind: Literal["python"] = "python"
    packages: tuple[str, ...] | None = None
    """Distributions or repositories to take, with wildcards; `stdlib` is the whole standard library. None takes all."""
    exclude: tuple[str, ...] = ()
    """Distributions or repositories to leave out, such as `[torch, stdlib/test]`, with wildcards."""
    suffixes: tuple[str, ...] = (".py",)
    """Ends of the file names to take."""
    max_bytes: int = Field(1_000_000, ge=1, le=1 << 30)
    """Larger files are skipped."""

    def _documents(self, dropped: Drops) -> Iterator[Document]:
        candidates = sorted(self._candidates(), key=lambda candidate: candidate[:2])
        for name in self.packages or ():
            if not any(_matches(repo, (name,)) for repo, *_ in candidates):
                known = {repo for repo, *_ in candidates} | {_STDLIB}
                raise BadInput(f"'source.packages': this interpreter has no package '{name}'{_suggest(name, known)}")
        for repo, path, file, licence in candidates:
            if not self._is_wanted(repo):
                continue
            if not _VENDORED.isdisjoint(path.split("/")[:-1]):
                dropped.add("vendored copy", path)
                continue
            if _BAD_SYNTAX.search(path):
                dropped.add("wrong on purpose", path)
                continue
            try:
                text = read_text(file, self.max_bytes)
            except Skipped as reason:
                dropped.add(str(reason), path)
                continue
            yield document(text, language="python", path=path, repo=repo, licence=licence, source=self.kind)

    def _is_wanted(self, repo: str) -> bool:
        return (self.packages is None or _matches(repo, self.packages)) and not _matches(repo, self.exclude)

    def _candidates(self) -> Iterator[_Candidate]:
        yield from _standard_library(self.suffixes)
        # Reading what all distributions list takes half a second; the standard library alone does not need it.
        if self.packages is None or not all(name.split("/")[0] == _STDLIB for name in self.packages):
            yield from _installed(self.suffixes)


def _standard_library(suffixes: tuple[str, ...]) -> Iterator[_Candidate]:
    root = Path(sysconfig.get_paths()["stdlib"])
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in ("site-packages", "dist-packages", "__pycache__")]
        for name in files:
            if name.endswith(suffixes):
                file = Path(folder, name)
                path = file.relative_to(root).as_posix()
                top = path.partition("/")[0].removesuffix(".py")
                yield f"{_STDLIB}/{top}", f"{_STDLIB}/{path}", file, _STDLIB_LICENCE


def distributions() -> Iterator[tuple[str, importlib.metadata.Distribution]]:
    """The installed packages by name, each once, with the name as package indexes compare it."""
    seen: set[str] = set()
    for distribution in sorted(
        importlib.metadata.distributions(path=_package_folders()), key=lambda item: item.name or ""
    ):
        name = _normal(distribution.name or "")
        if name and name not in seen:
            seen.add(name)
            yield name, distribution


def _installed(suffixes: tuple[str, ...]) -> Iterator[_Candidate]:
    seen_files: set[str] = set()
    for name, distribution in distributions():
        found: str | None = None
        asked = False
        for entry in distribution.files or ():
            path = entry.as_posix()
            # Scripts and data outside the package folder are listed with leading dots.
            if not path.endswith(suffixes) or path.startswith("..") or "__pycache__" in path:
                continue
            file = Path(str(distribution.locate_file(entry)))
            if str(file) in seen_files:
                continue
            seen_files.add(str(file))
            if not asked:
                found, asked = licence_of(distribution.metadata), True
            yield name, path, file, found


def _package_folders() -> list[str]:
    paths = sysconfig.get_paths()
    elsewhere = [entry for entry in sys.path if os.path.basename(entry) in ("site-packages", "dist-packages")]
    return list(dict.fromkeys(os.path.realpath(entry) for entry in (paths["purelib"], paths["platlib"], *elsewhere)))


def licence_of(metadata: importlib.metadata.PackageMetadata) -> str | None:
    """The licence that a package declares: License-Expression, else License, else its classifiers; SPDX where the name
    is known.

    Free text of several lines counts by its first line when that is a known name. None when nothing is declared.
    """
    expression = _first(metadata, "License-Expression")
    if expression:
        return expression
    free = _first(metadata, "License").strip()
    first = free.split("\n", 1)[0].strip()
    known = _LICENCE_NAMES.get(first.lower())
    declared = [
        classifier.rpartition(" :: ")[2].strip()
        for classifier in metadata.get_all("Classifier") or []
        if classifier.startswith("License :: ") and classifier != "License :: OSI Approved"
    ]
    classified = sorted({_LICENCE_NAMES.get(name.lower(), name) for name in declared if name != "DFSG approved"})
    # A bare "BSD" names a family; a classifier cannot be more precise, an exact name can.
    if known:
        return known
    if classified:
        return " OR ".join(classified)
    if free and "\n" not in free and len(free) <= 60 and free.upper() != "UNKNOWN":
        return free
    return None


def _first(metadata: importlib.metadata.PackageMetadata, field: str) -> str:
    return (metadata.get_all(field) or [""])[0]


def _matches(repo: str, patterns: tuple[str, ...]) -> bool:
    for pattern in patterns:
        name = pattern if pattern.startswith(f"{_STDLIB}/") else _normal(pattern)
        if fnmatch.fnmatchcase(repo, name) or (name == _STDLIB and repo.startswith(f"{_STDLIB}/")):
            return True
    return False


def _normal(name: str) -> str:
    """Distribution names as package indexes compare them."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _suggest(name: str, known: set[str]) -> str:
    hint = nearest(name, known)
    return (
        hint
        if hint.startswith("; did")
        else f"; {len(known)} packages are installed, such as {', '.join(sorted(known)[:3])}"
    )
