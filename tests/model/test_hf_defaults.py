"""A key that config.json does not have means what it means to transformers: its class's default, and no other.

Files without such keys come from converters, older versions and people's hands. Every optional key that we read is
held to the class in transformers, by its value and by the logits of a folder that says nothing but its sizes.
"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from inlay.infer.hf_folder import HFFolder
from inlay.model.architecture import Architecture, all_architectures

SIZES = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    # As many as the most heads of keys that a class has by default.
    "num_attention_heads": 32,
}
TOGETHER = {"use_sliding_window": True}
"""Without it Qwen's class forgets the window it has."""
# The ranks of DeepSeek's class are of a model of 671B; these defaults are compared by value alone.
LARGE = {"q_lora_rank": 12, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8}
KINDS = sorted(all_architectures())


class Recorded(dict[str, Any]):
    """A config.json that remembers which keys were asked for."""

    def __init__(self, data: dict[str, Any]) -> None:
        super().__init__(data)
        self.asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)

    def __contains__(self, key: object) -> bool:
        self.asked.add(str(key))
        return super().__contains__(key)


def their_class(architecture: Architecture) -> Any:
    transformers = pytest.importorskip("transformers")
    return getattr(transformers, architecture.CLASS)


def sizes_of(kind: str) -> dict[str, Any]:
    return {**SIZES, **(LARGE if kind == "deepseek_v3" else {})}


@pytest.mark.parametrize("kind", KINDS)
def test_every_default_is_that_of_the_class(kind: str) -> None:
    architecture = all_architectures()[kind]
    make = their_class(architecture).config_class
    theirs = make(**(TOGETHER if "use_sliding_window" in architecture.DEFAULTS else {}))
    for key, ours in architecture.DEFAULTS.items():
        if key == "rope_theta":
            # transformers 5 keeps it among the parameters of the embedding, 4 beside them.
            found = getattr(theirs, "rope_theta", None) or theirs.rope_parameters["rope_theta"]
        elif key in TOGETHER:
            found = getattr(make(), key)
        elif ours is None:
            continue  # what follows from it is compared below, by logits
        else:
            found = getattr(theirs, key)
        assert (key, ours) == (key, found)


@pytest.mark.parametrize("kind", KINDS)
def test_no_optional_key_is_read_without_a_default(kind: str) -> None:
    architecture = all_architectures()[kind]
    for scaling in ({}, {"rope_scaling": {"rope_type": "llama3", "factor": 2.0, "low_freq_factor": 1.0,
                                          "high_freq_factor": 4.0}}):  # fmt: skip
        data = Recorded({**sizes_of(kind), **(scaling if kind != "deepseek_v3" else {})})
        read = architecture.read(data, "x")
    known = {*architecture.DEFAULTS, *SIZES}
    # Older spellings of other keys, and the two forms of one embedding, of which either may be absent.
    known |= {"rope_scaling", "rope_parameters", "partial_rotary_factor", "tie_embedding", "block_ff_dim"}
    assert data.asked <= known
    assert read.norm_eps == architecture.DEFAULTS[architecture.NORM_EPS]


@pytest.mark.parametrize("form", ["nothing", "null", "theta", "parameters"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_that_says_only_its_sizes_has_the_logits_of_transformers(kind: str, form: str, tmp_path: Path) -> None:
    """In fp32. The weights are such that eps, theta and every other number shows."""
    architecture = all_architectures()[kind]
    if form == "null" and kind not in ("llama", "arcee", "qwen2", "qwen3"):
        pytest.skip("null is nothing that this class takes")
    cls = their_class(architecture)
    data: dict[str, Any] = {"model_type": kind, "architectures": [architecture.CLASS], **sizes_of(kind)}
    data |= {
        "nothing": {},
        "null": {"num_key_value_heads": None, "layer_types": None, "rope_scaling": None},
        "theta": {"rope_theta": 300.0},
        "parameters": {"rope_parameters": {"rope_type": "default", "rope_theta": 300.0}},
    }[form]
    torch.manual_seed(0)
    model = cls(cls.config_class.from_dict(dict(data))).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            # A small embedding, next to which eps counts; queries and keys that make places matter.
            value.normal_(0.0, 0.004 if "embed_tokens" in name else 0.3)
    model.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(data), encoding="utf-8")
    tokens = torch.randint(0, 96, (2, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        theirs = model(input_ids=tokens, use_cache=False).logits
        folder = HFFolder.read(tmp_path)
        ours = folder.load(torch.device("cpu"), torch.float32)
        logits = ours.logits(ours(tokens, torch.arange(12).expand(2, -1)))
    # Relative to their size: a tied head makes them small.
    torch.testing.assert_close(logits / theirs.std(), theirs / theirs.std(), atol=2e-5, rtol=0.0)
    assert folder.context == cls.config_class.from_dict(dict(data)).max_position_embeddings


def test_a_null_factor_of_lfm2_rounds_nothing() -> None:
    """As its class: the size of the network is rounded to a multiple only together with the factor."""
    transformers = pytest.importorskip("transformers")
    data = {**SIZES, "intermediate_size": 300, "block_ffn_dim_multiplier": None}
    config = SimpleNamespace(**{**transformers.Lfm2Config().to_dict(), **data})  # its version 5 takes no null itself
    module = pytest.importorskip("transformers.models.lfm2.modeling_lfm2").Lfm2MLP(config)
    read = all_architectures()["lfm2"].read(data, "x")
    assert next(iter(read.blocks.values())).mlp.inner == module.w1.out_features == 200
