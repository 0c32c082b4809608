"""A configuration that makes no model: one line that names the layer or the key, and what to give instead."""

import re
from typing import Any

import pytest
from tests.model.members import FULL, LLAMA3, LOCAL, MLA, attention, model

from inlay.config import ConfigError, validate
from inlay.model import ModelConfig

CONV = {"kind": "short_conv", "kernel": 3}


def refusal(data: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        validate(ModelConfig, data, where="model=mine")
    line = str(caught.value)
    assert "\n" not in line
    assert "(model=mine)" in line
    return line


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (model(LOCAL, FULL, layers=3), "layers 3 is not a multiple of the pattern's 2 blocks: give 2 or 4"),
        (model(LOCAL, FULL, LOCAL, layers=2), "layers 2 is not a multiple of the pattern's 3 blocks: give 3"),
        (model(FULL, pattern=["blok0"]), "pattern names block 'blok0', which is not in blocks; did you mean 'block0'?"),
        (model(FULL, pattern=[]), "'pattern' .* at least 1 item"),
        (model(FULL, layers=0), "'layers' = 0 .* greater than or equal to 1"),
        (model(FULL, width=0), "'width' = 0 "),
        (model(FULL, blocks={"block0": {"mixer": FULL}}), r"missing key 'blocks\.block0\.mlp'"),
        (model({"kind": "atention"}), r"'atention' at 'blocks\.block0\.mixer\.kind'.*did you mean 'attention'"),
        (model(FULL, mlp={"kind": "relu", "inner": 4}), r"'relu' at 'blocks\.block0\.mlp\.kind'.*did you mean 'relu2'"),
        (model(FULL, mlp={"kind": "swiglu", "inner": 0}), r"'blocks\.block0\.mlp\.inner' = 0 "),
    ],
)
def test_layers_and_blocks(data: dict[str, Any], expected: str) -> None:
    assert re.search(expected, refusal(data))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"window": 0}, r"'blocks\.block0\.mixer\.window' = 0 .* greater than or equal to 1"),
        ({"window": -3}, r"'blocks\.block0\.mixer\.window' = -3 "),
        ({"window": 2.5}, r"'blocks\.block0\.mixer\.window' = 2\.5 .* integer"),
        ({"heads": 6, "kv_heads": 4}, r"'blocks\.block0\.mixer' .*heads 6 is not a multiple of kv_heads 4"),
        ({"heads": 0}, r"'blocks\.block0\.mixer\.heads' = 0 "),
        ({"head_size": 7}, r"'blocks\.block0\.mixer\.head_size' = 7 .* multiple of 2"),
        ({"softcap": 0.0}, r"'blocks\.block0\.mixer\.softcap' = 0\.0 .* greater than 0"),
        ({"rope_theta": 0.0}, r"'blocks\.block0\.mixer\.rope_theta' = 0\.0 "),
        ({"bias": "some"}, r"'blocks\.block0\.mixer\.bias' = 'some' .*'none', 'qkv' or 'all'"),
        ({"rope_scaling": {**LLAMA3, "factor": 0.5}}, r"mixer\.rope_scaling\.factor' = 0\.5 "),
        ({"wndow": 3}, r"unknown key 'blocks\.block0\.mixer\.wndow' .*did you mean 'window'"),
    ],
)
def test_attention(options: dict[str, Any], expected: str) -> None:
    assert re.search(expected, refusal(model(attention(**options))))


@pytest.mark.parametrize(
    ("mixers", "kv_share", "expected"),
    [
        ("l", {"kind": "pair"}, "unknown kind 'pair' at 'kv_share.kind'.*did you mean 'pairs'"),
        ("l", "pairs", "'kv_share' = 'pairs' .*object"),
        ("l", {"kind": "none", "layers": 2}, "unknown key 'kv_share.layers'"),
        ("ll", {"kind": "tail"}, "missing key 'kv_share.layers'"),
        ("ll", {"kind": "tail", "layers": 0}, "'kv_share.layers' = 0 "),
        ("lll", {"kind": "tail", "layers": 3}, "a tail of 3 leaves none of 3 layers to own K/V: give at most 2"),
        ("gllg", {"kind": "tail", "layers": 9}, "a tail of 9 leaves none of 4 layers to own K/V: give at most 2"),
        ("gllg", {"kind": "tail", "layers": 3}, r"layer 1 \(block1\) has no layer .* before layer 1 .* at most 2"),
        ("lllg", {"kind": "tail", "layers": 1}, r"layer 3 \(block1\) has no layer of its block .*none can share"),
        ("gg", {"kind": "explicit", "owner": [None]}, "kv_share.owner has 1 entries for 2 layers: give one for each"),
        ("gg", {"kind": "explicit", "owner": [0, None]}, "'kv_share' .*layer 0 cannot read from layer 0: give null"),
        ("gg", {"kind": "explicit", "owner": [None, 5]}, "layer 1 cannot read from layer 5: give an earlier layer"),
        ("gg", {"kind": "explicit", "owner": [None, -1]}, "layer 1 cannot read from layer -1: give an earlier layer"),
        ("ggg", {"kind": "explicit", "owner": [None, 0, 1]}, "layer 2 reads from layer 1, which itself .* layer 0"),
        ("gg", {"kind": "explicit", "owner": ["a", None]}, r"'kv_share\.owner\.0' = 'a' "),
    ],
)
def test_owners(mixers: str, kv_share: Any, expected: str) -> None:
    layers = ({"l": LOCAL, "g": FULL}[letter] for letter in mixers)
    assert re.search(expected, refusal(model(*layers, repeat=1, kv_share=kv_share)))


@pytest.mark.parametrize(
    ("owner", "reader", "expected"),
    [
        (LOCAL, attention(7), "their window differs, 7 and 5: make it equal, or give layer 1 its own"),
        (LOCAL, FULL, "their window differs, null and 5"),
        (attention(rope_theta=5.0), FULL, "their rope_theta differs, 10000.0 and 5.0"),
        (attention(rope_scaling=LLAMA3), FULL, 'their rope_scaling differs, null and {"kind": "llama3", "factor": 4.0'),
        (attention(kv_heads=4), FULL, "their kv_heads differs, 2 and 4"),
        (attention(head_size=16), FULL, "their head_size differs, 8 and 16"),
        (attention(qk_norm=False), FULL, "their qk_norm differs, true and false"),
        (attention(bias="qkv"), FULL, 'their bias differs, "none" and "qkv"'),
        (MLA, FULL, r"layer 0 \(block0\) is mla, which has no K/V to share"),
        (FULL, MLA, r"layer 1 \(block1\) is mla, which has no K/V to share"),
        (CONV, FULL, r"layer 0 \(block0\) is short_conv, which has no K/V to share: leave it out with kind explicit"),
    ],
)
def test_keys_and_values_that_do_not_fit(owner: dict[str, Any], reader: dict[str, Any], expected: str) -> None:
    line = refusal(model(owner, reader, repeat=1, kv_share={"kind": "explicit", "owner": [None, 0]}))
    assert re.search(expected, line)
    assert line.count("layer") >= 1
    assert "kv_share" in line


@pytest.mark.parametrize("option", [{"heads": 8}, {"softcap": 3.0}])
def test_readers_may_differ_in_what_is_not_shared(option: dict[str, Any]) -> None:
    share = {"kind": "explicit", "owner": [None, 0]}
    assert validate(ModelConfig, model(FULL, attention(**option), repeat=1, kv_share=share)).layers == 2
