"""Writes the tables of docs/models.md: what stands between its markers is counted, or read from a study.

    python docs/generate_models.py                  writes the page anew
    python docs/generate_models.py --study SWEEP    takes the result of `inlay sweep experiment=architecture` first
    python docs/generate_models.py --check          only says whether the page is up to date

A study's numbers stay in docs/study-architecture.json, from which table and plot are made.
"""

import json
import re
import sys
from pathlib import Path

from inlay.config import validate
from inlay.config.compose import compose_choice
from inlay.export import llama_cpp
from inlay.model import ModelConfig, architecture
from inlay.model.table import count
from inlay.train.study import RESULT
from inlay.train.study_page import markdown, svg

HERE = Path(__file__).parent
PAGE = HERE / "models.md"
STUDY = HERE / "study-architecture.json"
PLOT = HERE / "study-architecture.svg"
FAMILIES = {
    "base": "QK-norm: exactly Qwen3",
    "llama": "no QK-norm: exactly Llama",
    "relu2": "ReLU² at equal parameters",
    "softcap": "attention capped at 50, head at 30, no QK-norm",
    "swa": "windows of 512 in three layers of four",
    "mixattention": "the same, and pairs of layers share K/V",
    "tail": "the same, and the upper half reads K/V",
    "mla": "a latent of 256, a rotated key of 32",
    "lfm2": "short convolutions, six attention layers",
    "mtp": "one more token, weight 0.1",
    "horizon": "horizon length, weight 0.1",
    "crossdoc": "no document masks",
}
CONTEXTS = (2048, 8192, 32768)
VOCABULARY = 1 << 17


def presets() -> str:
    """Sizes, K/V bytes and exports of the 1B shapes."""
    base = {context: count(_preset("base"), VOCABULARY, context).cache_bytes for context in CONTEXTS}
    lines = ["| family | what differs from the base | parameters | K/V at 2k | 8k | 32k | MiB at 8k | hf | gguf |"]
    lines.append("|---|---|---:|---:|---:|---:|---:|---|---|")
    for family, text in FAMILIES.items():
        config = _preset(family)
        counted = {context: count(config, VOCABULARY, context) for context in CONTEXTS}
        shares = [f"{100 * counted[context].cache_bytes / base[context]:.1f} %" for context in CONTEXTS]
        mebibytes = counted[8192].cache_bytes * 8192 / 2**20
        hf = "" if architecture.refusal(config) else architecture.choose(config).kind
        gguf = "" if llama_cpp.refusal(config, 8192) else llama_cpp.architecture_of(config, 8192).kind
        cells = (f"`{family}`", text, f"{counted[8192].parameters:,}", *shares, f"{mebibytes:.0f}", hf, gguf)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def study() -> str:
    """The table and the plot of the study, where one was made."""
    if not STUDY.is_file():
        return "No study has been taken into this page yet."
    result = json.loads(STUDY.read_text(encoding="utf-8"))
    return f"{markdown(result)}\n![Held-out loss against tokens, and its difference to the base]({PLOT.name})"


BLOCKS = {"presets": presets, "study": study}


def render(page: str) -> str:
    """The page with every generated block made anew."""

    def block(match: re.Match[str]) -> str:
        return f"<!-- generated: {match[1]} -->\n\n{BLOCKS[match[1]]().strip()}\n\n<!-- end -->"

    return re.sub(r"<!-- generated: (\w+) -->\n.*?<!-- end -->", block, page, flags=re.DOTALL)


def take(sweep: Path) -> None:
    """Takes the result of a sweep and draws its plot."""
    result = json.loads((sweep / RESULT).read_text(encoding="utf-8"))
    # Where the store was on that machine is nobody's business.
    result["base"] = [text for text in result["base"] if not text.startswith("data.path=")]
    picture = svg(result)
    if picture is None:
        raise SystemExit(f"{sweep / RESULT} has no curves of its first arm")
    STUDY.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    PLOT.write_text(picture, encoding="utf-8")


def _preset(family: str) -> ModelConfig:
    return validate(ModelConfig, compose_choice("model", f"{family}-1b"), where=family)


def main(arguments: list[str]) -> int:
    """Writes or checks the page; 1 when a check finds it out of date."""
    if "--study" in arguments:
        take(Path(arguments[arguments.index("--study") + 1]))
    page = PAGE.read_text(encoding="utf-8")
    made = render(page)
    if "--check" in arguments:
        if made != page:
            print("docs/models.md is not what the code makes: run 'python docs/generate_models.py'", file=sys.stderr)
        return int(made != page)
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
