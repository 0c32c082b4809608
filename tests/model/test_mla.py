"""Latent attention: transformers' DeepSeek-V3, all layers dense, as its witness; absorbed decode against expansion."""

from typing import Any

import pytest
import torch
from tests.model.peers import assert_ragged_rows_decode, assert_same, assert_truncates, copy_into, feed, their_names
from tests.model.shapes import VOCAB, packed, tiny, tiny_model
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from inlay.config import ConfigError
from inlay.model import ModelConfig, Transformer
from inlay.model.masks import cache_mask
from inlay.model.mixer import Context
from inlay.model.mixers.mla import MLA
from inlay.model.table import count

LENGTH = 200
DOCUMENTS = [((24,), (24,)), ((7, 1, 16), (11, 13))]
SIZES = {"heads": 4, "q_rank": None, "kv_rank": 12, "nope_size": 8, "rope_size": 4, "value_size": 6}


def latent(rope_theta: float = 10_000.0, options: dict[str, Any] | None = None, **sizes: Any) -> ModelConfig:
    mixer = {"kind": "mla", **SIZES, "rope_theta": rope_theta, **sizes}
    return tiny(blocks={"full": {"mixer": mixer, "mlp": {"kind": "swiglu", "inner": 40}}}, **(options or {}))


@pytest.fixture(scope="module")
def model() -> Transformer:
    return tiny_model(latent(rope_theta=500_000.0)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def row(model: Transformer) -> tuple[Tensor, Tensor]:
    tokens, positions = packed((LENGTH,))
    return tokens, model(tokens, positions)


def theirs(model: Transformer) -> Any:
    transformers = pytest.importorskip("transformers")
    mixer = model.config.blocks["full"].mixer
    config = transformers.DeepseekV3Config(
        vocab_size=VOCAB,
        hidden_size=model.config.width,
        intermediate_size=40,
        num_hidden_layers=model.config.layers,
        first_k_dense_replace=model.config.layers,
        num_nextn_predict_layers=0,
        num_attention_heads=mixer.heads,
        num_key_value_heads=mixer.heads,
        q_lora_rank=mixer.q_rank,
        kv_lora_rank=mixer.kv_rank,
        qk_nope_head_dim=mixer.nope_size,
        qk_rope_head_dim=mixer.rope_size,
        v_head_dim=mixer.value_size,
        rope_interleave=False,
        rms_norm_eps=model.config.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": mixer.rope_theta},
        tie_word_embeddings=model.config.tie_embeddings,
        attn_implementation="eager",
    )
    return transformers.DeepseekV3ForCausalLM(config).eval()


@pytest.mark.parametrize("q_rank", [None, 10])
@pytest.mark.parametrize(("tied", "rest"), [(True, {}), (False, {"heads": 3, "value_size": 11, "rope_size": 6})])
@pytest.mark.parametrize("documents", DOCUMENTS, ids=["whole", "packed"])
def test_deepseek(documents: tuple[tuple[int, ...], ...], tied: bool, rest: dict[str, int], q_rank: int | None) -> None:
    """The model's eps is another than that of the norms on latents, which both must leave at 1e-6."""
    config = latent(500_000.0, {"tied": tied, "norm_eps": 1e-3}, q_rank=q_rank, **rest)
    model = tiny_model(config)
    # Small latents, so that their eps counts.
    for layer in model.layers:
        layer.mixer.kv_down.weight.data *= 1e-2
        layer.mixer.kv_up.weight.data *= 2.0
    names = their_names(model)
    peer = theirs(model)
    copy_into(peer, model, names)
    assert_same(model, peer, names, *packed(*documents))


@pytest.mark.parametrize("chunk", [1, 7, 64, LENGTH])
def test_decode_equals_forward(model: Transformer, row: tuple[Tensor, Tensor], chunk: int) -> None:
    tokens, expected = row
    cache = model.new_cache(1, LENGTH)
    torch.testing.assert_close(feed(model, cache, tokens, 0, chunk), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("q_rank", [None, 10])
@pytest.mark.parametrize("absorbs", [True, False])
def test_both_forms_of_decode_are_equal(monkeypatch: pytest.MonkeyPatch, absorbs: bool, q_rank: int | None) -> None:
    """Whatever the shapes would choose; several rows, so that the products with the up-projection see a batch."""
    model = tiny_model(latent(q_rank=q_rank)).eval().requires_grad_(False)
    monkeypatch.setattr(MLA, "_absorbs", lambda *_: absorbs)
    used = []
    for form in ("_absorbed", "_expanded"):
        original = getattr(MLA, form)
        monkeypatch.setattr(MLA, form, lambda *a, form=form, original=original: (used.append(form), original(*a))[1])
    tokens, positions = packed((60,), (60,), (60,))
    cache = model.new_cache(3, 60)
    found = [
        model.decode(tokens[:, start : start + 15], positions[:, start : start + 15], cache)
        for start in range(0, 60, 15)
    ]
    assert set(used) == {"_absorbed" if absorbs else "_expanded"}
    torch.testing.assert_close(torch.cat(found, 1), model(tokens, positions), atol=1e-4, rtol=1e-4)


def test_the_cheaper_form_is_taken() -> None:
    """By torch's own counter of operations, for steps, prompts and what lies between."""
    model = tiny_model(latent()).eval().requires_grad_(False)
    mixer = model.layers[0].mixer
    chosen = set()
    for new, seen in ((1, 2), (1, 200), (4, 40), (8, 200), (30, 60), (64, 64), (200, 200)):
        positions = torch.arange(seen - new, seen)[None]
        mask = cache_mask(positions, torch.tensor([seen]), seen, seen, None, torch.float32)
        context = Context(positions, {None: mask}, {})
        query, held = torch.zeros(1, 4, new, 12), torch.zeros(1, seen, 16)
        flops = []
        for run in (
            lambda query=query, held=held, context=context: mixer._absorbed(query, held, context),
            lambda query=query, held=held, context=context: mixer._expanded(
                query, held[..., :12], held[..., 12:], context
            ),
        ):
            with FlopCounterMode(display=False) as counter:
                run()
            flops.append(counter.get_total_flops())
        assert mixer._absorbs(new, seen) == (flops[0] <= flops[1]), (new, seen)
        chosen.add(mixer._absorbs(new, seen))
    assert chosen == {True, False}


def test_rows_of_different_lengths_with_padding(model: Transformer) -> None:
    assert_ragged_rows_decode(model, VOCAB)


def test_truncate_and_go_on(model: Transformer, row: tuple[Tensor, Tensor]) -> None:
    assert_truncates(model, row[0], at=120, held=LENGTH, rollback=64)


def test_decode_in_bfloat16_is_close(row: tuple[Tensor, Tensor]) -> None:
    tokens, expected = row
    narrow = tiny_model(latent(rope_theta=500_000.0)).eval().requires_grad_(False)
    narrow.compute_dtype = torch.bfloat16
    for chunk in (1, 64):
        cache = narrow.new_cache(1, LENGTH)
        found = feed(narrow, cache, tokens, 0, chunk).float()
        assert (found - expected).pow(2).mean().sqrt() < 0.03 * expected.pow(2).mean().sqrt()
    assert cache.layers[0].tensors[0].dtype == torch.bfloat16


@pytest.mark.parametrize("q_rank", [None, 10])
def test_flops_equal_torchs_counter(q_rank: int | None) -> None:
    config = latent(q_rank=q_rank)
    model, length = tiny_model(config), 24
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.logits(model(torch.zeros(1, length, dtype=torch.int64), torch.arange(length)[None]))
    # The counter sees whole T x T products; a context of 2 T - 1 makes the causal average T.
    assert counter.get_total_flops() == length * count(config, VOCAB, 2 * length - 1).flops


def test_the_cache_holds_the_latent_and_one_key(model: Transformer) -> None:
    cache = model.new_cache(3, 10)
    allocated = sum(tensor.nbytes for layer in cache.layers for tensor in layer.tensors)
    assert allocated == 2 * 3 * (10 + 1) * (12 + 4) * 4
    assert sum(block.mixer.cache_bytes(4) for block in model.layers) == 2 * (12 + 4) * 4
    assert count(model.config, VOCAB, 512).cache_bytes == 2 * (12 + 4) * 2


def test_standard_deviations() -> None:
    options = {"width": 128, "layers": 8, "init_std": 0.1}
    model = tiny_model(
        latent(options=options, heads=8, q_rank=96, kv_rank=64, nope_size=32, rope_size=32, value_size=32)
    )
    for name, parameter in model.named_parameters():
        if ".mixer." in name and not name.endswith("norm.weight"):
            expected = 0.1 / 4 if name.endswith("output.weight") else 0.1
            assert float(parameter.detach().std()) == pytest.approx(expected, rel=0.05), name


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"kv_rank": 57}, r"blocks\.full\.mixer.*kv_rank 57 is more than heads x \(nope_size \+ value_size\) = 56"),
        ({"q_rank": 49}, r"blocks\.full\.mixer.*q_rank 49 is more than heads x \(nope_size \+ rope_size\) = 48"),
        ({"rope_size": 5}, "rope_size"),
        ({"rope_size": 0}, "rope_size"),
        ({"nope_size": 0}, "nope_size"),
        ({"value_size": 0}, "value_size"),
        ({"kv_rank": 0}, "kv_rank"),
        ({"q_rank": 0}, "q_rank"),
        ({"heads": 0}, "heads"),
        ({"rope_theta": 0.0}, "rope_theta"),
        ({"window": 4}, r"unknown key .*window"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        latent(**sizes)
    assert "\n" not in str(caught.value)


def test_it_shares_no_keys_and_values() -> None:
    with pytest.raises(ConfigError, match=r"kv_share: layer 1 \(full\) is mla, which has no K/V to share"):
        latent(options={"kv_share": {"kind": "pairs"}})
