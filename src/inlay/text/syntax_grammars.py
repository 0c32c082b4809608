"""Which grammar parses a document: one table. Adding a language is a line here and its wheel in requirements.in.

A language without a line, or a file whose suffix is a dialect that the language's grammar does not know, is not parsed
at all; that is no failure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath


@dataclass(frozen=True, slots=True)
class Grammar:
    """Where a grammar comes from: `function` of `module` returns the language's pointer for `tree_sitter.Language`."""

    module: str
    function: str = "language"


GRAMMARS = {
    "bash": Grammar("tree_sitter_bash"),
    "c": Grammar("tree_sitter_c"),
    "cpp": Grammar("tree_sitter_cpp"),
    "csharp": Grammar("tree_sitter_c_sharp"),
    "css": Grammar("tree_sitter_css"),
    "go": Grammar("tree_sitter_go"),
    "html": Grammar("tree_sitter_html"),
    "java": Grammar("tree_sitter_java"),
    "javascript": Grammar("tree_sitter_javascript"),
    "json": Grammar("tree_sitter_json"),
    "php": Grammar("tree_sitter_php", "language_php"),
    "python": Grammar("tree_sitter_python"),
    "ruby": Grammar("tree_sitter_ruby"),
    "rust": Grammar("tree_sitter_rust"),
    "sql": Grammar("tree_sitter_sql"),
    "tsx": Grammar("tree_sitter_typescript", "language_tsx"),
    "typescript": Grammar("tree_sitter_typescript", "language_typescript"),
    "yaml": Grammar("tree_sitter_yaml"),
}
"""By the names of `inlay.text.document.language_of`."""

DIALECTS = frozenset([".scss", ".sass", ".less", ".vue", ".svelte", ".pyx", ".pxd"])
"""Suffixes of files that carry a language's name but are written in more than its grammar knows."""


def has_grammar(language: str, path: str = "", grammars: Mapping[str, Grammar] = GRAMMARS) -> bool:
    """Whether documents of `language` are parsed; `path` tells dialects apart."""
    return language in grammars and PurePath(path).suffix.lower() not in DIALECTS
