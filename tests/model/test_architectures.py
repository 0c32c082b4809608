"""Hugging Face architectures, both ways. The witnesses are transformers' own classes: their parameter names, and their
reading of the config.json that we write."""

import json
from typing import Any

import pytest
import torch
from tests.model.hf_shapes import ATTENTION, CONFIGS, MLA, PLAIN, SWIGLU, VOCAB, model_config, two_blocks
from torch import nn

from inlay.config import BadInput
from inlay.model import ModelConfig, build
from inlay.model.architecture import all_architectures, architecture_of, choose, refusal
from inlay.model.hf_keys import HFKeys
from inlay.model.layout import resolve
from inlay.model.mlps.gelu import GELUConfig


def peer(data: dict[str, Any]) -> Any:
    """The model that transformers builds from a config.json, without memory."""
    transformers = pytest.importorskip("transformers")
    cls = getattr(transformers, data["architectures"][0])
    with torch.device("meta"):
        return cls(cls.config_class.from_dict(data))


@pytest.mark.parametrize("name", CONFIGS)
def test_names_and_shapes_are_those_of_transformers(name: str) -> None:
    config = CONFIGS[name]
    architecture = choose(config)
    assert architecture.kind == name.split()[0]
    theirs = {key: value.shape for key, value in peer(architecture.hf_config(config, VOCAB, 64)).named_parameters()}
    ours = dict(build(config, VOCAB).named_parameters())
    assert {key: ours[name].shape for name, key in architecture.names(config).items()} == theirs


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_written_reads_back(name: str) -> None:
    config = CONFIGS[name]
    architecture = choose(config)
    data = json.loads(json.dumps(architecture.hf_config(config, VOCAB, 64)))
    assert architecture_of(data, "x") == architecture
    # As we wrote it, and as transformers would save it.
    for written in (data, peer(data).config.to_dict(), peer(data).config.to_diff_dict()):
        read = architecture.read({**written, "model_type": architecture.kind}, "x")
        assert [spec.block for spec in resolve(read)] == [spec.block for spec in resolve(config)]
        for key in ("width", "layers", "norm", "norm_eps", "tie_embeddings", "init_std", "head_softcap", "kv_share"):
            assert getattr(read, key) == getattr(config, key), key


def test_each_model_has_one_architecture() -> None:
    """Else the order of trying would decide."""
    for name, config in CONFIGS.items():
        fitting = [kind for kind, member in all_architectures().items() if member.refusal(config) is None]
        assert fitting == [name.split()[0]]


def test_parts_that_only_training_uses_have_no_name() -> None:
    config = model_config(mtp={"weight": 0.1}, horizon={"weight": 0.1})
    named = set(choose(config).names(config))
    left = {name for name, _ in build(config, VOCAB).named_parameters()} - named
    assert named == {name for name, _ in build(model_config(), VOCAB).named_parameters()}
    assert {name.split(".")[0] for name in left} == {"mtp", "horizon"}


REFUSED: list[tuple[ModelConfig, str]] = [
    (model_config(head_softcap=30.0), r"qwen3: head_softcap = 30: Gemma 2 alone"),
    (model_config({**ATTENTION, "softcap": 50.0}), r"qwen3: layer 0 \(full\): mixer.softcap = 50"),
    (model_config(kv_share={"kind": "pairs"}), r"qwen3: kv_share.kind = pairs: layer 1 \(full\) reads .* layer 0"),
    (model_config(mlp={"kind": "relu2", "inner": 8}), r"arcee: layer 0 \(full\): mixer.qk_norm = true"),
    (model_config({**PLAIN, "window": 4}), r"qwen3: layer 0 \(full\): mixer.qk_norm = false"),
    (model_config({**PLAIN, "heads": 6}), r"llama: layer 0 \(full\): mixer.heads = 6, which does not divide width"),
    (model_config({**PLAIN, "bias": "qkv", "head_size": 12}), r"qwen2: .*head_size = 12, where .* 32 / 4"),
    (model_config(norm="layer"), r"qwen3: norm = layer, where it has rms"),
    (two_blocks({**ATTENTION, "window": 4, "rope_theta": 5e5}, "local"), r"qwen3: layer 1 \(full\): mixer.rope_theta"),
    (two_blocks(MLA, "latent"), r"layer \d \(\w+\): mixer.kind = (mla|attention)"),
    (
        model_config({**PLAIN, "bias": "all"}, {"kind": "gelu", "inner": 8}, norm="layer"),
        r"starcoder2: .*mlp.bias = false beside mixer.bias = all",
    ),
]


@pytest.mark.parametrize(("config", "reason"), REFUSED)
def test_a_model_without_a_class_is_refused_with_the_nearest_reason(config: ModelConfig, reason: str) -> None:
    with pytest.raises(BadInput, match=reason) as error:
        choose(config)
    assert "\n" not in str(error.value)
    assert refusal(config) == str(error.value)


def test_windows_of_two_sizes_are_refused() -> None:
    blocks = {name: {"mixer": {**ATTENTION, "window": window}, "mlp": SWIGLU} for name, window in (("a", 3), ("b", 4))}
    assert "layer 1 (b): mixer.window = 4, where layer 0 (a) has 3" in str(
        refusal(model_config(blocks=blocks, pattern=["a", "b"]))
    )


BAD: list[tuple[dict[str, Any], str]] = [
    ({"model_type": "gpt2"}, r"config.json: model_type = 'gpt2'; inlay opens arcee, .* starcoder2"),
    ({"model_type": "qwen_3"}, r"did you mean 'qwen3'"),
    ({"architectures": ["Qwen3ForSequenceClassification"]}, r"architectures = .* is \['Qwen3ForCausalLM'\]"),
    ({"hidden_size": None}, r"config.json: the key hidden_size is missing"),
    ({"hidden_size": "32"}, r"hidden_size = '32', where a whole number belongs"),
    ({"num_key_value_heads": 3}, r"heads 4 is not a multiple of kv_heads 3"),
    ({"hidden_act": "gelu"}, r"hidden_act = 'gelu', and inlay has only 'silu'"),
    ({"attention_bias": 1}, r"attention_bias = 1, where true or false belongs"),
    ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, r"rope_scaling.rope_type = 'yarn'"),
    ({"rope_scaling": {"type": "linear"}}, r"the key factor is missing"),
    ({"rope_parameters": {"full_attention": {"rope_type": "default"}}, "rope_scaling": None}, r"one set of numbers"),
    ({"partial_rotary_factor": 0.5}, r"partial_rotary_factor"),
    ({"layer_types": ["full_attention"]}, r"layer_types = .* a list of 4 names"),
    ({"layer_types": ["chunked_attention"] * 4}, r"layer_types .* where full_attention belongs"),
    ({"layer_types": ["sliding_attention"] * 4}, r"use_sliding_window"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_a_bad_config_names_file_and_key(change: dict[str, Any], message: str) -> None:
    good = choose(model_config()).hf_config(model_config(), VOCAB, 64)
    architecture_of(good, "config.json").read(good, "config.json")
    data = {**good, **change}
    with pytest.raises(BadInput, match=message) as error:
        architecture_of(data, "config.json").read(data, "config.json")
    assert "config.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_older_forms_of_rope_and_lfm2_keys() -> None:
    old = HFKeys({"rope_theta": 1e6, "rope_scaling": {"type": "linear", "factor": 4.0}}, "x")
    theta, scaling = old.rope()
    assert theta == 1e6
    assert scaling is not None
    assert (scaling.kind, scaling.factor) == ("linear", 4.0)
    assert HFKeys({}, "x", {"rope_theta": 7.0}).rope() == (7.0, None)
    lfm2 = all_architectures()["lfm2"]
    data = lfm2.hf_config(CONFIGS["lfm2"], VOCAB, 64)
    kinds = data.pop("layer_types")
    data |= {"full_attn_idxs": [1, 3], "tie_embedding": False, "block_ff_dim": 60, "block_auto_adjust_ff_dim": True}
    data["block_multiple_of"] = 16
    read = lfm2.read(data, "x")
    assert kinds == ["conv", "full_attention"] * 2
    assert read.names == ("conv", "full") * 2
    assert not read.tie_embeddings
    assert resolve(read)[0].block.mlp.inner == 48  # two thirds of 60, rounded up to a multiple of 16


@pytest.mark.parametrize("first", [0, 2, 4])
def test_layers_that_slide_without_a_list_are_those_of_transformers(first: int) -> None:
    transformers = pytest.importorskip("transformers")
    data = choose(CONFIGS["qwen3"]).hf_config(CONFIGS["qwen3"], VOCAB, 64)
    data |= {"layer_types": None, "use_sliding_window": True, "sliding_window": 7, "max_window_layers": first}
    kinds = transformers.Qwen3Config.from_dict(data).layer_types
    read = all_architectures()["qwen3"].read(data, "x")
    found = [spec.block.mixer.window for spec in resolve(read)]
    assert found == [7 if kind == "sliding_attention" else None for kind in kinds]
    assert found.count(7) == 4 - first
    # Null says that none slides, whatever the flag.
    none = all_architectures()["qwen3"].read({**data, "sliding_window": None}, "x")
    assert {spec.block.mixer.window for spec in resolve(none)} == {None}


def test_gelu_is_torchs() -> None:
    module = GELUConfig(inner=24, bias=True).build(8)
    assert module.HF == {"up": "mlp.c_fc", "down": "mlp.c_proj"}
    module.initialise(0.5, 0.5, torch.Generator().manual_seed(0))
    assert module.up.bias is not None
    assert module.up.bias.abs().max() == 0.0
    module.up.bias.data.normal_(generator=torch.Generator().manual_seed(1))
    reference = nn.Sequential(nn.Linear(8, 24), nn.GELU(approximate="tanh"), nn.Linear(24, 8))
    reference[0].load_state_dict(module.up.state_dict())
    reference[2].load_state_dict(module.down.state_dict())
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(module(x), reference(x))
