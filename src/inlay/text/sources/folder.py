"""Any tree of files as a source: by language from the file name, as a version-control system would see the tree.

It honours `.gitignore` files at every level (and those between the repository's root and the folder), never enters
version-control data, installed packages, virtual environments, caches and build outputs, and never follows a symbolic
link, so nothing outside the tree is read. Token stores, runs and checkpoints inside the tree are left out too. It
refuses a path that does not exist, and a folder that is one of these, or a model, itself.
"""

import errno
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pathspec
from pydantic import Field, field_validator

from inlay.config import BadInput, nearest
from inlay.config.files import open_regular
from inlay.text.document import LANGUAGES, Document, document, language_of
from inlay.text.not_code import not_code
from inlay.text.source import Drops, Skipped, Source, read_text, sources

_NEVER = frozenset(
    [
        ".git",
        ".hg",
        ".svn",
        ".bzr",
        "node_modules",
        "bower_components",
        "jspm_packages",
        "__pycache__",
        ".venv",
        "venv",
        ".tox",
        ".nox",
        ".eggs",
        ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache",
        ".hypothesis",
        ".ipynb_checkpoints",
        "site-packages",
        ".gradle",
        ".idea",
        ".vs",
        ".next",
        ".nuxt",
        ".svelte-kit",
        ".terraform",
        ".cache",
    ]
)
_BUILD_OUTPUTS = frozenset(["build", "dist", "target", "out", "bin", "obj", "_build", "htmlcov", "coverage"])
_PROJECT_FILES = frozenset(
    [
        "pyproject.toml",
        "setup.py",
        "setup.cfg",
        "package.json",
        "Cargo.toml",
        "pom.xml",
        "build.gradle",
        "build.gradle.kts",
        "settings.gradle",
        "go.mod",
        "CMakeLists.txt",
        "Makefile",
        "meson.build",
        "composer.json",
        "mix.exs",
        ".git",
    ]
)
_RULES_BYTES = 1 << 20
"""Of a `.gitignore`, so much is read."""
_Rules = tuple[tuple[str, pathspec.GitIgnoreSpec], ...]


@sources.register
class FolderSource(Source):
    """A folder of source code: one project, or many side by side."""

    kind: Literal["folder"] = "folder"
    path: str = "."
    """The folder; a single file is taken too."""
    languages: tuple[str, ...] | None = None
    """Languages to take, such as `[python, sql]`; None takes every language that is known by file name."""
    max_bytes: int = Field(1_000_000, ge=1, le=1 << 30)
    """Larger files are skipped."""

    @field_validator("languages")
    @classmethod
    def _known(cls, languages: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for language in languages or ():
            if language not in LANGUAGES:
                raise ValueError(f"unknown language '{language}'{nearest(language, LANGUAGES)}")
        return languages

    def _documents(self, dropped: Drops) -> Iterator[Document]:
        root = Path(os.path.abspath(os.path.expanduser(self.path)))
        try:
            if root.is_file():
                files: Iterator[tuple[str, str]] = iter([(root.name, root.parent.name or "root")])
                root = root.parent
            else:
                found = not_code(root, set(os.listdir(root)))
                if found is not None:
                    raise BadInput(found.line(root))
                files = _walk(root, dropped)
        except FileNotFoundError:
            raise BadInput(f"'source.path': no such folder: {root}") from None
        except OSError as error:
            raise BadInput(f"'source.path': cannot read {root}: {error.strerror}") from None
        for name, repo_name in files:
            path, repo = _shown(name), _shown(repo_name)
            language = language_of(path)
            if language is None or (self.languages is not None and language not in self.languages):
                dropped.add("unknown language" if language is None else "other language", path)
                continue
            try:
                text = read_text(root / name, self.max_bytes)
            except Skipped as reason:
                dropped.add(str(reason), path)
                continue
            yield document(text, language=language, path=path, repo=repo, licence=None, source=self.kind)


def _walk(root: Path, dropped: Drops) -> Iterator[tuple[str, str]]:
    """(path relative to root, repo) of every file that counts, sorted by path, depth first."""
    above, rules = _enclosing(root)
    repo = root.name or "root" if (root / ".git").exists() else above
    # A stack of its own: trees are deeper than Python's.
    open_folders = [_entries(root, "", repo, rules, dropped)]
    while open_folders:
        found = next(open_folders[-1], None)
        if found is None:
            open_folders.pop()
        elif isinstance(found, _Folder):
            open_folders.append(_entries(root, found.path, found.repo, found.rules, dropped))
        else:
            yield found


class _Folder(NamedTuple):
    """A folder that is to be entered, with the repository and the ignore rules around it."""

    path: str
    repo: str | None
    rules: _Rules


def _entries(
    root: Path, folder: str, repo: str | None, rules: _Rules, dropped: Drops
) -> Iterator[tuple[str, str] | _Folder]:
    """The files of one folder that count, and its folders in their place among them."""
    here = root / folder
    try:
        entries = sorted(os.scandir(here), key=lambda entry: entry.name)
    except OSError as error:
        # The system's limit on a path is about 4,000 bytes; folders may lie deeper.
        dropped.add("path too long" if error.errno == errno.ENAMETOOLONG else "unreadable folder", f"{folder}/")
        return
    names = {entry.name for entry in entries}
    other = not_code(here, names) if folder else None
    if other is not None and other.made_here:
        dropped.add(other.what.removeprefix("a "), f"{folder}/")
        return
    if ".git" in names and folder:
        # A repository inside the tree is ignored or taken as a whole by the outer rules; inside it only its own apply.
        repo, rules = folder, ()
    if ".gitignore" in names:
        rules = (*rules, (str(here), _read_rules(here)))
    is_project = not names.isdisjoint(_PROJECT_FILES)
    for entry in entries:
        path = f"{folder}/{entry.name}" if folder else entry.name
        try:
            is_folder, is_file, is_link = (
                entry.is_dir(follow_symlinks=False),
                entry.is_file(follow_symlinks=False),
                entry.is_symlink(),
            )
        except OSError:
            dropped.add("unreadable", path)
            continue
        if is_link:
            dropped.add("symbolic link", path)
        elif is_folder:
            reason = _folder_reason(entry, is_project)
            if reason is None and _is_ignored(rules, entry.path + "/"):
                reason = "ignored by .gitignore"
            if reason is None:
                yield _Folder(path, repo or (None if folder else entry.name), rules)
            elif entry.name != ".git":
                dropped.add(reason, f"{path}/")
        elif _is_ignored(rules, entry.path):
            dropped.add("ignored by .gitignore", path)
        elif not is_file:
            dropped.add("not a regular file", path)
        elif entry.name != ".git":
            yield path, repo or root.name or "root"


def _folder_reason(entry: os.DirEntry[str], beside_project_file: bool) -> str | None:
    if (
        entry.name in _NEVER
        or entry.name.endswith(".egg-info")
        or os.path.exists(os.path.join(entry.path, "pyvenv.cfg"))
    ):
        return "installed or cached"
    # Such a name alone proves nothing (`pip/operations/build/` is source); beside a project file it is an output.
    return "build output" if entry.name in _BUILD_OUTPUTS and beside_project_file else None


def _enclosing(root: Path) -> tuple[str | None, _Rules]:
    """The name of the repository around `root`, if any, and the ignore rules between its top and `root` (exclusive).

    A folder that its repository ignores is no part of it: who names it as a source wants what is inside.
    """
    if (root / ".git").exists():
        return None, ()
    for top in root.parents:
        if (top / ".git").exists():
            between = [folder for folder in reversed(root.parents) if folder.is_relative_to(top)]
            rules = tuple((str(folder), _read_rules(folder)) for folder in between if (folder / ".gitignore").is_file())
            return (None, ()) if _is_ignored(rules, f"{root}/") else (top.name or "root", rules)
    return None, ()


def _read_rules(folder: Path) -> pathspec.GitIgnoreSpec:
    """The rules of a folder's `.gitignore`; as for git, a line that is no pattern matches nothing."""
    try:
        # A pipe of that name would wait for a writer, and a device never end.
        with open_regular(folder / ".gitignore") as file:
            data = file.read(_RULES_BYTES)
    except OSError:
        data = b""
    # Names and patterns are bytes to git: what is no UTF-8 is read as Python reads such names.
    lines = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape").split("\n")
    return pathspec.GitIgnoreSpec([pattern for line in lines for pattern in _patterns(line.removesuffix("\r"))])


def _patterns(line: str) -> list[Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of regular expressions that pathspec makes of odd lines
            return list(pathspec.GitIgnoreSpec.from_lines([line]).patterns)
    except (ValueError, re.error, OverflowError, RecursionError):
        return []


def _is_ignored(rules: _Rules, path: str) -> bool:
    """The deepest `.gitignore` that says anything about a path decides; a folder's path ends in a slash."""
    for base, spec in reversed(rules):
        verdict = spec.check_file(path[len(base) + 1 :] if base != "/" else path[1:]).include
        if verdict is not None:
            return verdict
    return False


def _shown(name: str) -> str:
    """A name as text: of one that is no UTF-8, the bytes that are none as `\\xe9`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
