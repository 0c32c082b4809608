"""The Modelfile: the prompt of its template, filled in as Ollama does, is the format's own prompt."""

import re
from pathlib import Path

import pytest
from tests.export.models import SHAPES, opened

from inlay.config import BadInput
from inlay.export.modelfile import modelfile, modelfile_path, stop_strings, template
from inlay.fim.family import Order, load_family
from inlay.infer.open import Opened
from inlay.text.tokenizer import Tokenizer

PREFIX, SUFFIX = "def add(a, ", "    return a"


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Opened:
    return opened(SHAPES["qwen3"][1], tokenizer)


def filled(text: str, prefix: str, suffix: str) -> str:
    """What Go's template engine makes of it."""
    match = re.fullmatch(r"\{\{ if \.Suffix \}\}(.*)\{\{ else \}\}(.*)\{\{ end \}\}", text, re.DOTALL)
    assert match is not None
    chosen = match[1] if suffix else match[2]
    chosen = chosen.replace("{{ .Prompt }}", prefix).replace("{{ .Suffix }}", suffix)
    assert "{{" not in chosen
    return chosen


@pytest.mark.parametrize("order", ["spm", "psm", "spm_v2"])
@pytest.mark.parametrize("suffix", [SUFFIX, ""])
def test_the_template_is_the_prompt(order: Order, suffix: str, model: Opened, tokenizer: Tokenizer) -> None:
    encoded = [tokenizer.encode(text) for text in (PREFIX, suffix)]
    wanted = tokenizer.decode(model.fim_format.prompt(*encoded, order))
    assert filled(template(model.fim_format.family, order), PREFIX, suffix) == wanted


@pytest.mark.parametrize("family", ["codestral", "codellama", "deepseek-coder", "starcoder2", "seed-coder"])
def test_other_families(family: str) -> None:
    found = load_family(family)
    text = filled(template(found, found.order), PREFIX, SUFFIX)
    strings = found.strings()
    assert text.startswith(found.bos or "")
    assert text.count(strings["prefix"]) == text.count(strings["suffix"]) == 1
    assert text.index(PREFIX) > text.index(strings["prefix"])
    assert text.index(SUFFIX) > text.index(strings["suffix"])


def test_the_file(model: Opened) -> None:
    lines = modelfile(model, "small.gguf").splitlines()
    assert lines[0] == "FROM ./small.gguf"
    # In the first order that the model was trained in, SPM.
    assert lines[1].startswith(
        'TEMPLATE """{{ if .Suffix }}<|fim_suffix|>{{ .Suffix }}<|fim_prefix|>{{ .Prompt }}<|fim'
    )
    assert lines[1].endswith('{{ end }}"""')
    assert "PARAMETER num_ctx 128" in lines
    stops = [
        line.removeprefix('PARAMETER stop "').removesuffix('"') for line in lines if line.startswith("PARAMETER stop")
    ]
    assert stops == stop_strings(model)
    assert {model.tokenizer.special[name] for name in stops} == model.fim_format.stop_ids
    assert modelfile_path(Path("a/small.gguf")) == Path("a/small.gguf.Modelfile")


def test_what_a_modelfile_cannot_hold() -> None:
    family = load_family("inlay").model_copy(update={"prefix": '"""'})
    with pytest.raises(BadInput, match="which a Modelfile cannot hold"):
        template(family, "psm")
