"""A small corpus that the tests of this folder share: made-up code, several repositories, some of it not ASCII."""

from functools import cache
from pathlib import Path

from inlay.text.source import Drops
from inlay.text.sources.python import PythonSource


@cache
def library_texts() -> tuple[str, ...]:
    """Real code of every machine: a few modules of the standard library."""
    packages = ("stdlib/json", "stdlib/argparse", "stdlib/textwrap", "stdlib/heapq", "stdlib/string", "stdlib/ast")
    return tuple(item.text for item in PythonSource(packages=packages).documents(Drops()))


def write_corpus(root: Path, repos: int = 6, files: int = 5) -> Path:
    """`repos` folders with `files` Python files each, all different."""
    for repo in range(repos):
        for number in range(files):
            file = root / f"repo{repo}" / f"module{number}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            lines = [f'"""Module {number} of repository {repo}: naïve café ☕."""', ""]
            for index in range(3 + (repo * files + number) % 4):
                lines += [
                    f"def function_{repo}_{number}_{index}(value):",
                    f"    return value + {repo * 100 + number * 10 + index}",
                    "",
                ]
            file.write_text("\n".join(lines), encoding="utf-8")
    return root
