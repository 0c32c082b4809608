"""The short convolution: transformers' LFM2 as its witness, torch's conv1d for its definition, and its ring."""

from typing import Any

import pytest
import torch
from tests.model.peers import assert_ragged_rows_decode, assert_same, assert_truncates, copy_into, feed, their_names
from tests.model.shapes import VOCAB, packed, tiny, tiny_model
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from inlay.config import ConfigError
from inlay.model import ModelConfig, Transformer
from inlay.model.mixers.short_conv import ShortConvConfig
from inlay.model.table import count

LENGTH = 200
LFM2 = {
    "mixer_norm": "operator_norm",
    "mlp_norm": "ffn_norm",
    "final_norm": "model.embedding_norm",
    "mixer.output": "self_attn.out_proj",
    "mixer.query_norm": "self_attn.q_layernorm",
    "mixer.key_norm": "self_attn.k_layernorm",
    "mlp.gate": "feed_forward.w1",
    "mlp.up": "feed_forward.w3",
    "mlp.down": "feed_forward.w2",
}
ATTENTION = {"kind": "attention", "heads": 4, "kv_heads": 2, "head_size": 8, "qk_norm": True, "rope_theta": 1e6}


def convolutional(kernel: Any = 3, pattern: str = "cac", **options: Any) -> ModelConfig:
    """c is a convolution, a an attention layer."""
    mlp = {"kind": "swiglu", "inner": 40}
    mixers = {"c": {"kind": "short_conv", "kernel": kernel}, "a": ATTENTION}
    blocks = {name: {"mixer": mixers[name], "mlp": mlp} for name in sorted(set(pattern))}
    return tiny(blocks=blocks, pattern=list(pattern), layers=len(pattern), **options)


def frozen(config: ModelConfig) -> Transformer:
    return tiny_model(config).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def model() -> Transformer:
    return frozen(convolutional())


@pytest.fixture(scope="module")
def row(model: Transformer) -> tuple[Tensor, Tensor]:
    tokens, positions = packed((LENGTH,))
    return tokens, model(tokens, positions)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("documents", [((24,), (24,)), ((7, 1, 16), (2, 22))], ids=["whole", "packed"])
def test_lfm2(documents: tuple[tuple[int, ...], ...], kernel: int) -> None:
    """Packed documents one by one there: LFM2 in transformers convolves across their edges."""
    transformers = pytest.importorskip("transformers")
    model = tiny_model(convolutional(kernel, norm_eps=1e-5))
    config = transformers.Lfm2Config(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=40,
        block_auto_adjust_ff_dim=False,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        layer_types=["conv", "full_attention", "conv"],
        conv_L_cache=kernel,
        norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        pad_token_id=None,
        attn_implementation="eager",
    )
    peer = transformers.Lfm2ForCausalLM(config).eval()
    names = {
        # Only attention layers call their last projection out_proj of self_attn.
        name: theirs.replace("self_attn", "conv") if "mixer.output" in name and ".1." not in name else theirs
        for name, theirs in their_names(model, LFM2).items()
    }
    copy_into(peer, model, names)
    assert_same(model, peer, names, *packed(*documents), apart=True)


@pytest.mark.parametrize("kernel", [2, 3, 4, 9])
@pytest.mark.parametrize("lengths", [(1, 2, 7, 3, 1, 1, 9), (2,)])
def test_it_is_conv1d_of_each_document(lengths: tuple[int, ...], kernel: int) -> None:
    """Forward and gradients, also where documents and the whole row are shorter than the kernel."""
    model = tiny_model(convolutional(kernel, "c"))
    mixer = model.layers[0].mixer
    context = model.context(torch.cat([torch.arange(length) for length in lengths])[None])
    x, weights = torch.randn(2, 1, sum(lengths), 32, generator=torch.Generator().manual_seed(2))

    def definition(x: Tensor) -> Tensor:
        before, after, value = mixer.input(x).split(32, dim=-1)
        parts = [
            functional.conv1d(functional.pad(part.mT, (kernel - 1, 0)), mixer.kernel, groups=32).mT
            for part in (before * value).split(lengths, dim=1)
        ]
        return mixer.output(after * torch.cat(parts, dim=1))

    results = []
    for function in (lambda x: mixer(x, context, None)[0], definition):
        mixer.zero_grad()
        source = x.clone().requires_grad_()
        output = function(source)
        (output * weights).sum().backward()
        results.append([output, source.grad, *(parameter.grad.clone() for parameter in mixer.parameters())])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        assert expected.abs().max() > 1e-3


def test_the_whole_row_is_one_document_without_document_masks() -> None:
    """The ablation of plainly causal rows has plainly causal convolutions too."""
    tokens, positions = packed((5, 7))
    joined = frozen(convolutional(document_masks=False))
    expected = frozen(convolutional())(tokens, torch.arange(12)[None])
    assert torch.equal(joined(tokens, positions), expected)
    assert not torch.allclose(frozen(convolutional())(tokens, positions), expected, atol=1e-2)


@pytest.mark.parametrize("chunk", [1, 7, 64, LENGTH])
def test_decode_equals_forward(model: Transformer, row: tuple[Tensor, Tensor], chunk: int) -> None:
    tokens, expected = row
    cache = model.new_cache(1, LENGTH)
    torch.testing.assert_close(feed(model, cache, tokens, 0, chunk), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("pattern", "kernel"), [("cac", 3), ("c", 2), ("c", 3), ("c", 6)])
@pytest.mark.parametrize("rollback", [1, 2, 5])
def test_decode_across_the_edge_of_its_ring(pattern: str, rollback: int, kernel: int) -> None:
    model = frozen(convolutional(kernel, pattern))
    tokens, positions = packed((60,), seed=rollback)
    expected = model(tokens, positions)
    for chunk in (1, 2, 4, 60):
        cache = model.new_cache(1, 300, rollback=rollback)
        assert cache.layers[0].tensors[0].shape == (1, kernel + rollback + 1, 32)
        torch.testing.assert_close(feed(model, cache, tokens, 0, chunk), expected, atol=1e-4, rtol=1e-4)


def test_rows_of_different_lengths_with_padding(model: Transformer) -> None:
    assert_ragged_rows_decode(model, VOCAB)


@pytest.mark.parametrize(("at", "held", "rollback"), [(120, LENGTH, 100), (61, 66, 5), (64, 66, 2)])
def test_truncate_and_go_on(model: Transformer, at: int, held: int, rollback: int) -> None:
    assert_truncates(model, packed((LENGTH,))[0], at, held, rollback)


def test_truncating_beyond_the_ring_empties_the_row(model: Transformer) -> None:
    tokens, positions = packed((60,))
    cache = model.new_cache(1, 300, rollback=5)
    feed(model, cache, tokens, 0, 6)
    assert cache.truncate(torch.tensor([54])).tolist() == [0]
    torch.testing.assert_close(feed(model, cache, tokens, 0, 6), model(tokens, positions), atol=1e-4, rtol=1e-4)


def test_select_reorders_and_repeats_rows(model: Transformer) -> None:
    tokens, positions = packed((20,), (20,))
    cache = model.new_cache(2, 40, rollback=5)
    model.decode(tokens, positions, cache)
    chosen = cache.select(torch.tensor([1, 0, 1]))
    following = torch.tensor([[3], [4], [5]])
    found = model.decode(following, torch.full((3, 1), 20), chosen)
    for index, source in enumerate((1, 0, 1)):
        text = torch.cat([tokens[source], following[index]])[None]
        torch.testing.assert_close(found[index], model(text, torch.arange(21)[None])[0, 20:], atol=1e-4, rtol=1e-4)


def test_decode_in_bfloat16_is_close(row: tuple[Tensor, Tensor]) -> None:
    tokens, expected = row
    narrow = frozen(convolutional())
    narrow.compute_dtype = torch.bfloat16
    cache = narrow.new_cache(1, LENGTH)
    assert {tensor.dtype for layer in cache.layers for tensor in layer.tensors} == {torch.bfloat16}
    found = feed(narrow, cache, tokens, 0, 64).float()
    assert (found - expected).pow(2).mean().sqrt() < 0.03 * expected.pow(2).mean().sqrt()


@pytest.mark.parametrize("kernel", [2, 3])
def test_flops_are_its_matrices_and_its_taps(kernel: int) -> None:
    """Against torch's counter: it sees the matrices, and of the taps as a grouped conv1d every one."""
    config = convolutional(kernel, "c")
    model, length = tiny_model(config), 24
    with FlopCounterMode(display=False) as matrices, torch.no_grad():
        model.logits(model(torch.zeros(1, length, dtype=torch.int64), torch.arange(length)[None]))
    mixer = model.layers[0].mixer
    with FlopCounterMode(display=False) as taps, torch.no_grad():
        functional.conv1d(torch.zeros(1, 32, length + kernel - 1), mixer.kernel, groups=32)
    assert taps.get_total_flops() == length * mixer.score_flops(kernel)
    # The first positions of a document have fewer taps: those that a table does not count.
    missing = 2 * 32 * kernel * (kernel - 1) // 2
    counted = length * count(config, VOCAB, length).flops
    assert counted == pytest.approx(matrices.get_total_flops() + taps.get_total_flops() - missing, abs=1e-3)


def test_the_cache_holds_the_taps_of_u() -> None:
    config = convolutional(pattern="c")
    model = tiny_model(config)
    cache = model.new_cache(3, 300, rollback=5)
    allocated = sum(tensor.nbytes for layer in cache.layers for tensor in layer.tensors)
    assert allocated == 3 * (3 + 5 + 1) * model.layers[0].mixer.cache_bytes(4)
    assert count(config, VOCAB, 512).cache_bytes == pytest.approx(3 * 32 * 2 / 512)


def test_the_kernel_keeps_the_variance_of_what_it_sees() -> None:
    config = convolutional(pattern="ccc", width=256, init_std=0.05)
    model = tiny_model(config)
    u = torch.randn(1, 50, 256, generator=torch.Generator().manual_seed(0))
    for layer in model.layers:
        mixer = layer.mixer
        mixed = functional.conv1d(u.mT, mixer.kernel, groups=256)
        assert float(mixed.detach().std()) == pytest.approx(1.0, rel=0.1)
        assert float(mixer.input.weight.detach().std()) == pytest.approx(0.05, rel=0.05)
        assert float(mixer.output.weight.detach().std()) == pytest.approx(0.05 / 6**0.5, rel=0.05)


@pytest.mark.parametrize("kernel", [0, 1, -3, "long"])
def test_a_bad_kernel_is_refused(kernel: Any) -> None:
    with pytest.raises(ConfigError, match=r"blocks\.c\.mixer.*kernel"):
        convolutional(kernel)


def test_it_shares_no_keys_and_values() -> None:
    with pytest.raises(ConfigError, match=r"kv_share: layer 1 \(c\) is short_conv, which has no K/V to share"):
        convolutional(pattern="cc", kv_share={"kind": "pairs"})
    with pytest.raises(ValueError, match="short_conv has no K/V"):
        ShortConvConfig(kernel=3).build(32, 1e-6, owns_kv=False)
