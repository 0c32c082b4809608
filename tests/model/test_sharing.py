"""K/V sharing between layers: who reads from whom, what it saves, and the numbers against a slow dense reference."""

from typing import Any

import pytest
import torch
from tests.model import dense_reference
from tests.model.members import FULL, LOCAL, attention, config, model
from tests.model.shapes import VOCAB, packed, tiny_model
from torch.nn import functional

from inlay.config import validate
from inlay.model import ModelConfig, Transformer
from inlay.model.layout import resolve
from inlay.model.table import count

# The seed's diagram: L L L G four times; layers 1, 5, 9 and 13 read the local layer before them, 7 and 15 the global
# layers 3 and 11.
MIXATTENTION = [None, 0, None, None, None, 4, None, 3, None, 8, None, None, None, 12, None, 11]


def owners(made: ModelConfig) -> list[int | None]:
    return [layer.kv_from for layer in resolve(made)]


def sharing(pattern: str, kv_share: dict[str, Any], layers: int | None = None) -> ModelConfig:
    """Layers by a letter: l, m local (windows 5 and 7), g global."""
    mixers = {"l": LOCAL, "m": attention(7), "g": FULL}
    data = model(*(mixers[letter] for letter in pattern), repeat=1, kv_share=kv_share)
    return validate(ModelConfig, {**data, "layers": layers or len(pattern)})


def test_pairs_give_the_layout_of_the_seed() -> None:
    assert owners(sharing("lllg", {"kind": "pairs"}, 16)) == MIXATTENTION


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("gggg", [None, 0, None, 2]),
        ("ggg", [None, 0, None]),
        ("llg", [None, 0, None]),
        ("lgllg", [None, None, None, 2, 1]),
        ("lmlm", [None, None, 0, 1]),
        ("lllll", [None, 0, None, 2, None]),
    ],
)
def test_pairs(pattern: str, expected: list[int | None]) -> None:
    assert owners(sharing(pattern, {"kind": "pairs"})) == expected


@pytest.mark.parametrize(
    ("pattern", "tail", "expected"),
    [
        ("lglglg", 2, [None] * 4 + [2, 3]),
        ("lglglg", 4, [None] * 2 + [0, 1, 0, 1]),
        ("lllglllg", 3, [None] * 5 + [4, 4, 3]),
        ("gggg", 3, [None, 0, 0, 0]),
    ],
)
def test_tail(pattern: str, tail: int, expected: list[int | None]) -> None:
    assert owners(sharing(pattern, {"kind": "tail", "layers": tail})) == expected


@pytest.mark.parametrize("architecture", ["Gemma3nTextConfig", "Gemma4TextConfig"])
@pytest.mark.parametrize(("pattern", "tail"), [("llllgllllg", 4), ("lglglglg", 3), ("lllglllglllg", 8)])
def test_tail_owners_are_gemmas(architecture: str, pattern: str, tail: int) -> None:
    """A layer of theirs that reuses K/V reads those that the one layer of its type has stored."""
    transformers = pytest.importorskip("transformers")
    kinds = {"l": "sliding_attention", "g": "full_attention"}
    theirs = getattr(transformers, architecture)(
        num_hidden_layers=len(pattern),
        layer_types=[kinds[letter] for letter in pattern],
        num_kv_shared_layers=tail,
    )
    modes = list(zip(theirs.kv_sharing_modes, theirs.layer_types, strict=True))
    stores = {kind: index for index, (mode, kind) in enumerate(modes) if mode == "store"}
    expected = [stores[kind] if mode == "reuse" else None for mode, kind in modes]
    assert owners(sharing(pattern, {"kind": "tail", "layers": tail})) == expected


def reference(made: Transformer, tokens: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, dict[str, Any]]:
    """The slow reference's logits on weights of its own, which collect its gradients."""
    weights = {name: tensor.detach().clone().requires_grad_() for name, tensor in made.named_parameters()}
    layers = [
        dense_reference.Layer(
            spec.block.mixer.window, spec.index if spec.kv_from is None else spec.kv_from, spec.block.mixer.softcap
        )
        for spec in made.layout
    ]
    return dense_reference.logits(weights, layers, tokens, positions, head_size=8), weights


def assert_reference(made: Transformer, *rows: tuple[int, ...]) -> None:
    """Logits and gradients of packed rows equal the slow reference's."""
    tokens, positions = packed(*rows)
    found = made.logits(made(tokens, positions))
    expected, weights = reference(made, tokens, positions)
    assert found.std() > 0.5
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)
    targets = torch.roll(tokens, -1, dims=1).flatten()
    for table in (found, expected):
        functional.cross_entropy(table.flatten(0, 1), targets).backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad.abs().max() > 0, name
        torch.testing.assert_close(parameter.grad, weights[name].grad, atol=2e-5, rtol=1e-3, msg=name)


@pytest.mark.parametrize("rows", [((22,),), ((7, 1, 14),)], ids=["whole", "packed"])
def test_mixattention_equals_the_slow_reference(rows: tuple[tuple[int, ...], ...]) -> None:
    made = sharing("lllg", {"kind": "pairs"}, 16)
    assert owners(made) == MIXATTENTION
    assert_reference(tiny_model(made), *rows)


@pytest.mark.parametrize(
    "made",
    [
        sharing("lglg", {"kind": "tail", "layers": 2}),
        sharing("lmgl", {"kind": "explicit", "owner": [None, None, None, 0]}),
        sharing("ggg", {"kind": "explicit", "owner": [None, 0, 0]}),
        config("windows-and-softcap", blocks=model(attention(3, softcap=1.5), attention(9, softcap=0.7))["blocks"]),
    ],
    ids=["tail", "explicit", "one owner", "softcap"],
)
def test_other_layouts_equal_the_slow_reference(made: ModelConfig) -> None:
    assert_reference(tiny_model(made), (9, 13))


def test_the_reference_would_see_another_owner() -> None:
    made = tiny_model(sharing("ggg", {"kind": "explicit", "owner": [None, None, 0]}))
    tokens, positions = packed((12,))
    weights = dict(made.named_parameters())
    layers = [dense_reference.Layer(None, owner) for owner in (0, 1, 1)]
    other = dense_reference.logits(weights, layers, tokens, positions, head_size=8)
    assert (made.logits(made(tokens, positions)) - other).abs().max() > 0.1


@pytest.mark.parametrize("checkpointing", [False, True])
def test_an_owner_gets_its_readers_gradients(checkpointing: bool) -> None:
    """Of the key and value projections: what they get through their own layer alone is another gradient."""
    made = tiny_model(sharing("gg", {"kind": "pairs"}))
    made.activation_checkpointing = checkpointing
    tokens, positions = packed((12,))
    run = made.run_block
    found = []
    for through_readers in (True, False):

        def detached(block: Any, x: Any, context: Any, shared: Any, keep: bool = through_readers) -> Any:
            if shared is not None and not keep:
                shared = tuple(tensor.detach() for tensor in shared)
            return run(block, x, context, shared)

        made.run_block = detached  # type: ignore[method-assign]
        made.zero_grad()
        made.logits(made(tokens, positions)).square().mean().backward()
        found.append({name: parameter.grad.clone() for name, parameter in made.named_parameters()})
    expected, weights = reference(made, tokens, positions)
    expected.square().mean().backward()
    for part in ("key", "value"):
        name = f"blocks.0.mixer.{part}.weight"
        torch.testing.assert_close(found[0][name], weights[name].grad, atol=1e-4, rtol=1e-3)
        assert (found[1][name] - found[0][name]).norm() > 0.05 * found[0][name].norm()


# ---- the shape of the seed -------------------------------------------------------------------------------------------


def seed_shape(pattern: list[str], blocks: dict[str, dict[str, Any]], **options: Any) -> ModelConfig:
    """16 layers of the 1B model."""
    mlp = {"kind": "swiglu", "inner": 8192}
    made = {name: {"mixer": mixer, "mlp": mlp} for name, mixer in blocks.items()}
    return validate(ModelConfig, {"width": 2048, "layers": 16, "blocks": made, "pattern": pattern, **options})


def seed_attention(window: int | None = None) -> dict[str, Any]:
    return attention(window, heads=32, kv_heads=8, head_size=64, rope_theta=500_000.0)


def seed_mla(rank: int, rope: int) -> dict[str, Any]:
    sizes = {"heads": 32, "q_rank": None, "kv_rank": rank, "nope_size": 64, "rope_size": rope, "value_size": 64}
    return {"kind": "mla", **sizes}


BOTH = {"l": seed_attention(512), "g": seed_attention()}
LFM2 = ["conv" if index not in (2, 5, 8, 10, 12, 14) else "g" for index in range(16)]
LAYOUTS = {
    "full": seed_shape(["g"], {"g": seed_attention()}),
    "no sharing": seed_shape(list("lllg"), BOTH),
    "seed": seed_shape(list("lllg"), BOTH, kv_share={"kind": "pairs"}),
    "tail": seed_shape(list("lllg"), BOTH, kv_share={"kind": "tail", "layers": 8}),
    "lfm2": seed_shape(LFM2, {"conv": {"kind": "short_conv", "kernel": 3}, "g": seed_attention()}),
    "mla 512": seed_shape(["m"], {"m": seed_mla(512, 64)}),
    "mla 256": seed_shape(["m"], {"m": seed_mla(256, 32)}),
}


def test_sharing_drops_the_projections_of_readers() -> None:
    assert count(LAYOUTS["full"], 1 << 17, 512).parameters == 1_241_583_616
    assert count(LAYOUTS["seed"], 1 << 17, 512).parameters == 1_229_000_320


@pytest.mark.parametrize(
    ("layout", "shares", "mebibytes"),
    [
        ("full", (100.0, 100.0, 100.0), 256),
        ("no sharing", (43.8, 29.7, 26.2), 76),
        ("seed", (25.0, 15.6, 13.3), 40),
        ("tail", (21.9, 14.8, 13.1), 38),
        ("lfm2", (37.5, 37.5, 37.5), 96),
        ("mla 512", (56.3, 56.3, 56.3), 144),
        ("mla 256", (28.1, 28.1, 28.1), 72),
    ],
)
def test_cache_of_each_layout(layout: str, shares: tuple[float, ...], mebibytes: int) -> None:
    """Percent of full attention at 2k, 8k and 32k, and the whole at 8k in bf16."""
    for context, share in zip((2048, 8192, 32768), shares, strict=True):
        full = count(LAYOUTS["full"], 1 << 17, context).cache_bytes
        found = count(LAYOUTS[layout], 1 << 17, context).cache_bytes
        # A convolution keeps three positions in ten layers: 0.18 % of what 2k positions take.
        assert 100.0 * found / full == pytest.approx(share, abs=0.2 if layout == "lfm2" else 0.051)
        if context == 8192:
            assert found * context / 2**20 == pytest.approx(mebibytes, abs=0.2)


def test_a_shared_cache_is_allocated_once() -> None:
    """What `new_cache` makes: one cache an owner, rings for windows."""
    made = tiny_model(sharing("lllg", {"kind": "pairs"}, 16))
    cache = made.new_cache(1, 100, rollback=8)
    assert [index for index, layer in enumerate(cache.layers) if layer is None] == [1, 5, 7, 9, 13, 15]
    assert [0 if layer is None else layer.tensors[0].shape[2] - 1 for layer in cache.layers[:4]] == [13, 0, 13, 100]
    assert made.logits(made.decode(torch.zeros(1, 3, dtype=torch.int64), torch.arange(3)[None], cache)).shape[-1] == (
        VOCAB
    )
