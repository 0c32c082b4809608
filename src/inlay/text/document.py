"""The unit of text that everything upstream of the token store speaks of, and the language of a file from its name.

A document is text with its origin. Its `id` is a hash of the content, so the same text has the same id wherever it was
found. Languages are decided by file name alone: reading a file to guess what it is costs time and errs silently.
"""

from dataclasses import dataclass
from pathlib import PurePath

import xxhash

_SUFFIXES = {
    "bash": ".sh .bash .zsh .ksh",
    "c": ".c .h",
    "clojure": ".clj .cljs .cljc .edn",
    "cmake": ".cmake",
    "cpp": ".cc .cpp .cxx .c++ .hh .hpp .hxx .h++ .ipp .tpp .cu .cuh",
    "csharp": ".cs",
    "css": ".css .scss .sass .less",
    "dart": ".dart",
    "elixir": ".ex .exs",
    "erlang": ".erl .hrl",
    "fortran": ".f .f90 .f95 .f03 .f08 .for",
    "go": ".go",
    "graphql": ".graphql .gql",
    "haskell": ".hs .lhs",
    "html": ".html .htm .xhtml .vue .svelte",
    "ini": ".ini .cfg .conf .properties",
    "java": ".java",
    "javascript": ".js .mjs .cjs .jsx",
    "json": ".json .json5 .jsonc",
    "julia": ".jl",
    "kotlin": ".kt .kts",
    "lua": ".lua",
    "markdown": ".md .markdown .mdx",
    "nix": ".nix",
    "objectivec": ".m .mm",
    "ocaml": ".ml .mli",
    "perl": ".pl .pm",
    "php": ".php .phtml",
    "powershell": ".ps1 .psm1 .psd1",
    "proto": ".proto",
    "python": ".py .pyi .pyw .pyx .pxd",
    "r": ".r",
    "rst": ".rst",
    "ruby": ".rb .rake .gemspec",
    "rust": ".rs",
    "scala": ".scala .sc .sbt",
    "sql": ".sql .ddl .dml .psql .hql",
    "swift": ".swift",
    "terraform": ".tf .tfvars .hcl",
    "text": ".txt .text",
    "toml": ".toml",
    "tsx": ".tsx",
    "typescript": ".ts .mts .cts",
    "verilog": ".v .sv .vh .svh",
    "vhdl": ".vhd .vhdl",
    "xml": ".xml .xsd .xsl .xslt .svg",
    "yaml": ".yaml .yml",
    "zig": ".zig",
}
_NAMES = {
    "makefile": "makefile",
    "gnumakefile": "makefile",
    "dockerfile": "dockerfile",
    "containerfile": "dockerfile",
    "cmakelists.txt": "cmake",
    "rakefile": "ruby",
    "gemfile": "ruby",
    "vagrantfile": "ruby",
    "podfile": "ruby",
    "jenkinsfile": "groovy",
    "build.gradle": "groovy",
    "sconstruct": "python",
    "sconscript": "python",
    "wscript": "python",
    "build.bazel": "python",
    "workspace.bazel": "python",
    ".bashrc": "bash",
    ".bash_profile": "bash",
    ".profile": "bash",
    ".zshrc": "bash",
    ".editorconfig": "ini",
    ".gitconfig": "ini",
    "go.mod": "go",
}
_BY_SUFFIX = {suffix: language for language, suffixes in _SUFFIXES.items() for suffix in suffixes.split()}
DATA_AND_PROSE = frozenset({"json", "markdown", "rst", "text", "xml"})
"""Languages whose files are mostly not written to be run: beside code they are kept to a share."""
LANGUAGES = tuple(sorted({*_BY_SUFFIX.values(), *_NAMES.values()}))
"""Every name that `language_of` can return."""


@dataclass(frozen=True, slots=True)
class Document:
    """A text and where it came from.

    `path` is relative to its source and uses forward slashes; `repo` is the unit that is never split between training
    and validation; `licence` is an SPDX expression where one is known; `source` is the kind of the source.
    """

    id: str
    text: str
    language: str
    path: str
    repo: str
    licence: str | None
    source: str


def document(text: str, *, language: str, path: str, repo: str, licence: str | None, source: str) -> Document:
    """A document with its content hash as id. Raises UnicodeEncodeError when the text holds lone surrogates."""
    return Document(content_id(text), text, language, path, repo, licence, source)


def content_id(text: str) -> str:
    """xxh3_128 of the UTF-8 text, 32 hexadecimal digits."""
    return xxhash.xxh3_128_hexdigest(text.encode())


def language_of(path: str) -> str | None:
    """The language of a file, from its name alone; None when the name says nothing."""
    name = PurePath(path).name.lower()
    known = _NAMES.get(name)
    if known is not None:
        return known
    if name.startswith(("dockerfile.", "makefile.")):
        return name.partition(".")[0]
    return _BY_SUFFIX.get(PurePath(name).suffix)
