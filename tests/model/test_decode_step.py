"""The short way of one row against `Transformer.decode`, for every kind of layer and both ways of multiplying."""

from typing import Any

import pytest
import torch
from tests.model.shapes import VOCAB, packed, tiny_model
from torch import Tensor

from inlay.config import validate
from inlay.model import ModelConfig, Transformer, row_parts
from inlay.model.cache import Cache
from inlay.model.decode_step import DecodeStep
from inlay.model.parts import RMSNorm

LENGTH, PROMPT = 90, 20
ATTENTION: dict[str, Any] = {"kind": "attention", "heads": 4, "kv_heads": 2, "head_size": 16}
SWIGLU = {"kind": "swiglu", "inner": 40}
SHORT: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "no groups": {"mixer": {"kv_heads": 4}},
    "llama": {"mixer": {"qk_norm": False}},
    "scaled rope": {"mixer": {"rope_scaling": {"kind": "llama3", "factor": 8.0, "original_context": 32}}},
    "qwen2": {"mixer": {"qk_norm": False, "bias": "qkv"}},
    "all biases": {"mixer": {"bias": "all"}},
    "softcap": {"mixer": {"softcap": 2.0}},
    "window": {"mixer": {"window": 24}},
    "softcap in a window": {"mixer": {"window": 24, "softcap": 2.0}},
    "window of one": {"mixer": {"window": 1}},
    "pairs": {"kv_share": {"kind": "pairs"}},
    "tail in a window": {"mixer": {"window": 24}, "kv_share": {"kind": "tail", "layers": 2}},
    "layer norm": {"norm": "layer"},
    "untied": {"tie_embeddings": False},
    "head softcap": {"head_softcap": 3.0},
}
PLAIN: dict[str, dict[str, Any]] = {
    "mla": {"kind": "mla", "heads": 2, "q_rank": None, "kv_rank": 16, "nope_size": 8, "rope_size": 8, "value_size": 8},
    "short_conv": {"kind": "short_conv", "kernel": 3},
}


def config(
    mixer: dict[str, Any] | None = None, mlp: dict[str, Any] | None = None, blocks: Any = None, **options: Any
) -> ModelConfig:
    full = {"mixer": {**ATTENTION, **(mixer or {})}, "mlp": mlp or SWIGLU}
    data = {
        "width": 32,
        "layers": 4,
        "blocks": {"full": full, **(blocks or {})},
        "pattern": ["full"],
        "init_std": 0.2,
        "embedding_std": 1.0,
    }
    return validate(ModelConfig, {**data, **options})


def frozen(shape: ModelConfig) -> Transformer:
    model = tiny_model(shape).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.normal_(generator=generator)
    return model


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every matrix is multiplied in pieces, however few threads and small matrices there are."""
    monkeypatch.setattr(row_parts, "PIECE_BYTES", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)


def plain(model: Transformer, tokens: Tensor, cache: Cache, start: int, end: int) -> Tensor:
    """Hidden states [end - start, d] by `Transformer.decode`, a token at a time."""
    parts = [model.decode(tokens[:, at : at + 1], torch.tensor([[at]]), cache)[:, 0] for at in range(start, end)]
    return torch.cat(parts)


def short(step: DecodeStep, tokens: Tensor, cache: Cache, start: int, end: int) -> Tensor:
    return torch.cat([step(tokens[:, at], cache) for at in range(start, end)])


def check(model: Transformer, rollback: int = 40) -> DecodeStep:
    """Both ways over a prompt, 70 tokens (across the edge of windows and rings), a keystroke, and more tokens."""
    tokens, positions = packed((LENGTH,))
    expected_cache, cache = (model.new_cache(1, LENGTH, rollback) for _ in range(2))
    for each in (expected_cache, cache):
        model.decode(tokens[:, :PROMPT], positions[:, :PROMPT], each)
    expected = plain(model, tokens, expected_cache, PROMPT, LENGTH)
    before = model.logits(expected)
    step = DecodeStep(model)
    found = short(step, tokens, cache, PROMPT, LENGTH)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    logits = torch.cat([step.logits(hidden[None]) for hidden in found])
    torch.testing.assert_close(logits, before, atol=2e-5, rtol=1e-5)
    assert torch.equal(logits.argmax(-1), before.argmax(-1))
    assert (cache.seen, cache.lengths.tolist(), cache.written.tolist()) == (LENGTH, [LENGTH], [LENGTH])

    kept = cache.truncate(torch.tensor([LENGTH - 30]))
    assert torch.equal(kept, expected_cache.truncate(torch.tensor([LENGTH - 30])))
    start = int(kept)
    assert start > 0
    other = (tokens + 1) % VOCAB
    # The two ways take turns on one cache: what one writes the other reads.
    mixed = [short(step, other, cache, start, start + 5), plain(model, other, cache, start + 5, start + 10)]
    mixed += [short(step, other, cache, start + 10, start + 30)]
    expected = plain(model, other, expected_cache, start, start + 30)
    torch.testing.assert_close(torch.cat(mixed), expected, atol=1e-5, rtol=1e-5)
    return step


@pytest.mark.parametrize("name", SHORT)
def test_equals_decode(name: str) -> None:
    model = frozen(config(**SHORT[name]))
    assert check(model).short_layers == model.config.layers


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("name", ["qwen3", "all biases", "untied"])
def test_equals_decode_in_pieces(name: str) -> None:
    step = check(frozen(config(**SHORT[name])))
    # 53 rows of the vocabulary do not divide in two; all else does.
    assert [product.pieces for product in step.products] == [2] * 16 + [1]


def test_a_window_in_a_cache_without_rings() -> None:
    model = frozen(config(mixer={"window": 24}))
    assert not model.new_cache(1, LENGTH, LENGTH).has_rings
    check(model, rollback=LENGTH)


@pytest.mark.parametrize("kind", PLAIN)
def test_other_mixers_decode_for_themselves(kind: str) -> None:
    blocks = {"other": {"mixer": PLAIN[kind], "mlp": {"kind": "relu2", "inner": 40}}}
    model = frozen(config(blocks=blocks, pattern=["full", "other"]))
    assert check(model).short_layers == 2


def test_bfloat16_is_as_close_as_decode() -> None:
    tokens, positions = packed((LENGTH,))
    exact = frozen(config())(tokens, positions)[0]
    model = frozen(config())
    model.compute_dtype = torch.bfloat16
    model.blocks.to(torch.bfloat16)
    step, errors = DecodeStep(model), []
    for way in ("short", "plain"):
        cache = model.new_cache(1, LENGTH)
        found = short(step, tokens, cache, 0, LENGTH) if way == "short" else plain(model, tokens, cache, 0, LENGTH)
        assert found.dtype == torch.bfloat16
        errors.append((found.float() - exact).pow(2).mean().sqrt())
    assert errors[0] < 1.2 * errors[1]
    assert errors[1] > 1e-4


def test_norms_of_small_rows_are_rms_norms() -> None:
    """Rows so small that eps decides."""
    norm = RMSNorm(16, 1e-6)
    norm.weight.data.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(0))
    x = 1e-3 * torch.randn(5, 16, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(row_parts.norm_of(norm, torch.float32)(x), norm(x), atol=1e-6, rtol=1e-5)
    assert (norm(x).square().mean().sqrt() - norm.weight.square().mean().sqrt()).abs() > 0.1


def test_weights_are_shared_and_stay_what_they_were() -> None:
    model = frozen(config())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    steps = [DecodeStep(model), DecodeStep(model)]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    matrices = [[product.weight.data_ptr() for product in step.products] for step in steps]
    assert matrices[0] == matrices[1], "a second step must not join the matrices again"
    owned = {block.mixer.query.weight.data_ptr() for block in model.layers}
    assert owned <= set(matrices[0])
    model.layers[0].mixer.value.weight.zero_()
    assert steps[0].products[0].weight[-32:].abs().max() == 0


def test_products_are_all_matrices_of_the_model() -> None:
    model = frozen(config(kv_share={"kind": "pairs"}, tie_embeddings=False))
    matrices = sum(linear.weight.numel() for linear in model.modules() if isinstance(linear, torch.nn.Linear))
    products = DecodeStep(model).products
    assert sum(product.weight.numel() for product in products) == matrices
    for product in products:
        assert product(torch.ones(1, product.inputs)).shape == (1, len(product.weight))


def test_a_model_in_training_is_refused() -> None:
    model = frozen(config())
    model.layers[1].mlp.up.weight.requires_grad_(True)
    assert not DecodeStep.supports(model)
    with pytest.raises(ValueError, match="require gradients"):
        DecodeStep(model)


def test_a_full_cache_is_an_error() -> None:
    model = frozen(config())
    step, cache = DecodeStep(model), model.new_cache(1, 3)
    for token in range(3):
        step(torch.tensor([token]), cache)
    with pytest.raises(ValueError, match="position 3 does not fit a cache of 3"):
        step(torch.tensor([0]), cache)
    assert (cache.seen, cache.lengths.tolist()) == (3, [3])


def test_a_row_taken_from_a_batch_goes_on_from_its_own_length() -> None:
    model = frozen(config())
    tokens = packed((9,), (9,))[0]
    cache = model.new_cache(2, 20)
    positions = torch.stack([torch.arange(9), torch.where(torch.arange(9) < 4, torch.arange(9), -1)])
    model.decode(tokens, positions, cache)
    row = cache.select(torch.tensor([1]))
    found = DecodeStep(model)(tokens[1, 4:5], row)
    expected = model(tokens[1:, :5], torch.arange(5)[None])[0, 4:]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
