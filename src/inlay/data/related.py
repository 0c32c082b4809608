"""Which files of its repository a file imports: by regular expressions over its head, and by path.

It is a light reading that wants to be right for the common forms, not a resolver: it knows no build files, no search
paths and no aliases. What is read of each language family:

    python          import a.b, from a.b import c, from .a import b            a/b.py, a/b/__init__.py, a/b/c.py
    javascript, typescript   import, export ... from, require, import('./a')   relative paths alone, extensions, index
    c, cpp          #include "a/b.h"                                           beside the file, else by end of path
    go              import "x/y/z"                                             the files of a folder that ends so
    java (kotlin, scala)     import a.b.C                                      a/b/C.EXT
    rust            mod a; use crate::a::b, super::a, self::a                  a.rs, a/mod.rs, a/b.rs
    ruby            require_relative 'a', require 'a/b'                        a.rb, by end of path
    php             require 'a.php', use A\\B\\C                               a.php, B/C.php, C.php

Other languages import nothing here. A path that several files end in is that of the file nearest to the importing one.
"""

import posixpath
import re
from collections.abc import Callable, Iterator, Sequence

_PYTHON = re.compile(r"^[ \t]*(?:from[ \t]+([.\w]+)[ \t]+import[ \t]+(\([^)]*\)|[^\n#]+)|import[ \t]+([^\n#]+))", re.M)
_SCRIPT = re.compile(r"""(?:\bfrom\s*|\bimport\s*\(?\s*|\brequire\s*\(\s*)["'](\.{1,2}/?[^"'\n]*)["']""")
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"\n]+)"', re.M)
_GO = re.compile(r'^[ \t]*import[ \t]+(?:\(([^)]*)\)|[\w.]*[ \t]*("[^"\n]+"))', re.M)
_QUOTED = re.compile(r'"([^"\n]+)"')
_JAVA = re.compile(r"^[ \t]*import[ \t]+(?:static[ \t]+)?([\w.]+)", re.M)
_RUST = re.compile(
    r"^[ \t]*(?:pub(?:\([^)]*\))?[ \t]+)?(?:mod[ \t]+(\w+)[ \t]*;|use[ \t]+((?:crate|super|self)(?:::\w+)+))", re.M
)
_RUBY = re.compile(r"""^[ \t]*require(_relative)?[ \t(]+["']([^"'\n]+)["']""", re.M)
_PHP = re.compile(
    r"""(?:\b(?:require|include)(?:_once)?\b[^;"'\n]*["']([^"'\n]+)["'])"""
    r"""|^[ \t]*use[ \t]+(?:function[ \t]+)?\\?([\w\\]+)""",
    re.M,
)
_NAME = re.compile(r"\w+")
_SCRIPT_ENDS = ("", ".ts", ".tsx", ".js", ".jsx", ".mjs", ".cjs", ".json", "/index.ts", "/index.tsx", "/index.js")


class Paths:
    """The paths of one repository, found by how they end."""

    def __init__(self, paths: Sequence[str]) -> None:
        """`paths` with `/` between parts, as stored; a path that occurs twice stands for its first file."""
        self._at: dict[str, int] = {}
        self._ending: dict[str, list[int]] = {}
        self._folders: dict[str, list[int]] = {}
        self.paths = list(paths)
        for number, path in enumerate(self.paths):
            self._at.setdefault(path, number)
            self._ending.setdefault(posixpath.basename(path), []).append(number)
            self._folders.setdefault(posixpath.basename(posixpath.dirname(path)), []).append(number)

    def at(self, path: str) -> int | None:
        """The file with exactly this path, written with or without `.` and `..`."""
        return self._at.get(path, self._at.get(posixpath.normpath(path)))

    def ending(self, end: str, near: str) -> int | None:
        """The file whose path ends in `end`, at a border between parts: of several, the nearest to the path `near`."""
        tail = "/" + end
        found = [
            number
            for number in self._ending.get(posixpath.basename(end), ())
            if ("/" + self.paths[number]).endswith(tail)
        ]
        return max(found, key=lambda number: (_shared(self.paths[number], near), -number)) if found else None

    def folder(self, end: str) -> list[int]:
        """The files directly in a folder whose path ends in `end`."""
        tail = "/" + end
        found = self._folders.get(posixpath.basename(end), ())
        return [number for number in found if ("/" + posixpath.dirname(self.paths[number])).endswith(tail)]


def imported(head: str, language: str, path: str, paths: Paths) -> list[int]:
    """Numbers of the files in `paths` that a file imports: in the order of its lines, each once and never itself.

    `head` is the beginning of its text, `path` its own path, `language` as in the store.
    """
    find = _FINDERS.get(language)
    if find is None:
        return []
    own = paths.at(path)
    found = dict.fromkeys(number for number in find(head, path, paths) if number is not None and number != own)
    return list(found)


def _python(head: str, path: str, paths: Paths) -> Iterator[int | None]:
    def module(name: str) -> int | None:
        dots = len(name) - len(name.lstrip("."))
        way = name[dots:].replace(".", "/")
        if not dots:
            return _first(paths.ending(f"{way}.py", path), paths.ending(f"{way}/__init__.py", path)) if way else None
        base = posixpath.join(posixpath.dirname(path), *[".."] * (dots - 1), way)
        return _first(paths.at(f"{base}.py"), paths.at(f"{base}/__init__.py"))

    for match in _PYTHON.finditer(head):
        source, names, plain = match.groups()
        if plain is not None:
            yield from (module(part.split()[0]) for part in plain.split(",") if part.split())
            continue
        for name in (part.split()[0] for part in names.strip("()\\ \n").split(",") if part.split()):
            if _NAME.fullmatch(name):
                yield module(f"{source}{name}" if source.endswith(".") else f"{source}.{name}")
        yield module(source)


def _script(head: str, path: str, paths: Paths) -> Iterator[int | None]:
    for match in _SCRIPT.finditer(head):
        base = posixpath.normpath(posixpath.join(posixpath.dirname(path), match[1]))
        written = posixpath.splitext(base)  # TypeScript writes './a.js' for a.ts
        choices = [base + end for end in _SCRIPT_ENDS]
        choices += [written[0] + end for end in (".ts", ".tsx")] if written[1] in (".js", ".jsx", ".mjs") else []
        yield _first(*(paths.at(choice) for choice in choices))


def _include(head: str, path: str, paths: Paths) -> Iterator[int | None]:
    for match in _INCLUDE.finditer(head):
        beside = paths.at(posixpath.join(posixpath.dirname(path), match[1]))
        yield beside if beside is not None else paths.ending(match[1].lstrip("./"), path)


def _go(head: str, path: str, paths: Paths) -> Iterator[int | None]:
    for match in _GO.finditer(head):
        for name in _QUOTED.findall(match[1] or match[2]):
            parts = name.split("/")
            # The module's own prefix is in go.mod; the longest end of the import that is a folder here is taken. A bare
            # name such as "fmt" is the standard library's.
            for begin in range(1, len(parts)):
                files = paths.folder("/".join(parts[begin:]))
                if files:
                    yield from files
                    break


def _java(head: str, path: str, paths: Paths) -> Iterator[int | None]:
    extension = posixpath.splitext(path)[1]
    for match in _JAVA.finditer(head):
        way = match[1].strip(".").replace(".", "/")
        # A static import names a member of the class behind the last but one dot.
        yield _first(paths.ending(way + extension, path), paths.ending(posixpath.dirname(way) + extension, path))


def _rust(head: str, path: str, paths: Paths) -> Iterator[int | None]:
    folder, file = posixpath.split(path)
    # The children of a.rs live in a/, those of mod.rs, lib.rs and main.rs beside it.
    inner = folder if file in ("mod.rs", "lib.rs", "main.rs") else posixpath.join(folder, posixpath.splitext(file)[0])
    for match in _RUST.finditer(head):
        if match[1]:
            base = posixpath.join(inner, match[1])
            yield _first(paths.at(f"{base}.rs"), paths.at(f"{base}/mod.rs"))
            continue
        root, *parts = match[2].split("::")
        while parts:  # the last names may be items of a module
            way = "/".join(parts)
            if root == "crate":
                source = path[: path.rfind("src/") + 4] if "src/" in path else ""
                found = _first(*(paths.at(f"{source}{way}{end}") for end in (".rs", "/mod.rs")))
            else:
                base = posixpath.join(inner if root == "self" else posixpath.dirname(inner), way)
                found = _first(paths.at(f"{base}.rs"), paths.at(f"{base}/mod.rs"))
            if found is not None:
                yield found
                break
            parts.pop()


def _ruby(head: str, path: str, paths: Paths) -> Iterator[int | None]:
    for match in _RUBY.finditer(head):
        name = match[2] if match[2].endswith(".rb") else f"{match[2]}.rb"
        if match[1]:
            yield paths.at(posixpath.join(posixpath.dirname(path), name))
        else:
            yield paths.ending(name, path)


def _php(head: str, path: str, paths: Paths) -> Iterator[int | None]:
    for match in _PHP.finditer(head):
        if match[1]:
            name = match[1].lstrip("/")
            beside = paths.at(posixpath.join(posixpath.dirname(path), name))
            yield beside if beside is not None else paths.ending(name.lstrip("./"), path)
            continue
        parts = match[2].split("\\")
        # PSR-4 maps a namespace's first parts to a folder: the longest end of the name that is a file here is taken.
        yield _first(*(paths.ending("/".join(parts[begin:]) + ".php", path) for begin in range(len(parts))))


def _first(*found: int | None) -> int | None:
    return next((number for number in found if number is not None), None)


def _shared(one: str, other: str) -> int:
    """Leading folders that two paths share."""
    count = 0
    for left, right in zip(one.split("/")[:-1], other.split("/")[:-1], strict=False):
        if left != right:
            break
        count += 1
    return count


_FINDERS: dict[str, Callable[[str, str, Paths], Iterator[int | None]]] = {
    "python": _python,
    "javascript": _script,
    "typescript": _script,
    "tsx": _script,
    "c": _include,
    "cpp": _include,
    "go": _go,
    "java": _java,
    "kotlin": _java,
    "scala": _java,
    "rust": _rust,
    "ruby": _ruby,
    "php": _php,
}
