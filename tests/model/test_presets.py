"""The presets of seed 001's studies: sizes, K/V bytes, and that twins differ from the base by what is studied alone."""

from typing import Any

import pytest
from tests.model.presets import PRESETS, preset

from inlay.model.layout import resolve
from inlay.model.table import count

ONE_CHANGE = ("llama", "softcap", "crossdoc", "mtp", "horizon")
FAMILIES = ("base", "relu2", "swa", "mixattention", "tail", "mla", "lfm2", *ONE_CHANGE)
SIZES = ("1b", "0.69b", "nano")
LOCAL_GLOBAL = [index for index in range(16) if index % 4 != 3], [3, 7, 11, 15]


def leaves(data: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(data, dict):
        return {path: data}
    return {key: value for name, inner in data.items() for key, value in leaves(inner, f"{path}.{name}").items()}


def test_every_family_has_every_size() -> None:
    assert {f"{family}-{size}" for family in FAMILIES for size in SIZES} <= set(PRESETS)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("llama-1b", 1_241_581_568),
        ("softcap-1b", 1_241_581_568),
        ("base-1b", 1_241_583_616),
        ("swa-1b", 1_241_583_616),
        ("crossdoc-1b", 1_241_583_616),
        ("relu2-1b", 1_241_583_616),
        ("mixattention-1b", 1_229_000_320),
        # Eight readers without key and value projections and key gains: 8 (2 x 2048 x 512 + 64) fewer.
        ("tail-1b", 1_241_583_616 - 8 * (2 * 2048 * 512 + 64)),
        # A convolution has 4 d² + 3 d where attention has 2 d² + 2 d d/4 + 2 gains of 64.
        ("lfm2-1b", 1_241_583_616 + 10 * (4 * 2048**2 + 3 * 2048 - 2 * 2048**2 - 2 * 2048 * 512 - 128)),
        # The larger one of seed 001: networks of 11,264 in place of 8,192, in all 16 layers.
        ("lfm2-1.6b", 1_304_558_336 + 16 * 3 * 2048 * (11_264 - 8_192)),
    ],
)
def test_exact_sizes_at_a_vocabulary_of_2_to_the_17(name: str, parameters: int) -> None:
    assert count(preset(name), 1 << 17, 512).parameters == parameters


def test_the_proxy_of_the_seed() -> None:
    assert preset("proxy-0.69b") == preset("base-0.69b")
    assert count(preset("base-0.69b"), 100_352, 512).parameters == pytest.approx(0.69e9, rel=0.005)


@pytest.mark.parametrize(
    ("name", "percentages"),
    [
        ("base-1b", (100.0, 100.0, 100.0)),
        ("swa-1b", (43.8, 29.7, 26.2)),
        ("mixattention-1b", (25.0, 15.6, 13.3)),
        ("tail-1b", (21.9, 14.8, 13.1)),
        ("lfm2-1b", (37.5, 37.5, 37.5)),
        ("mla-1b", (28.1, 28.1, 28.1)),
    ],
)
def test_share_of_the_base_in_kv_bytes(name: str, percentages: tuple[float, ...]) -> None:
    for context, expected in zip((2048, 8192, 32768), percentages, strict=True):
        held, full = (count(preset(one), 1 << 17, context).cache_bytes for one in (name, "base-1b"))
        # The states of short convolutions are not in the table of the seed's layouts.
        assert 100 * held / full == pytest.approx(expected, abs=0.25 if name == "lfm2-1b" else 0.06)
    assert count(preset("base-1b"), 1 << 17, 8192).cache_bytes * 8192 == 256 * 2**20


@pytest.mark.parametrize("size", ["1b", "nano"])
def test_mixattention_is_the_layout_of_the_seed(size: str) -> None:
    own = [spec.kv_from for spec in resolve(preset(f"mixattention-{size}"))]
    assert own == [None, 0, None, None, None, 4, None, 3, None, 8, None, None, None, 12, None, 11]
    for name in ("swa", "mixattention", "tail"):
        windows = [spec.block.mixer.reach for spec in resolve(preset(f"{name}-{size}"))]
        local, everywhere = LOCAL_GLOBAL
        assert {windows[index] for index in local} == {512 if size == "1b" else 64}
        assert {windows[index] for index in everywhere} == {None}


@pytest.mark.parametrize("size", SIZES)
def test_the_upper_half_of_tail_reads(size: str) -> None:
    specs = resolve(preset(f"tail-{size}"))
    half = len(specs) // 2
    # Gemma 3n: the owner is the last layer of one's kind below, one below for global ones and two for local ones.
    assert [spec.kv_from for spec in specs[:half]] == [None] * half
    assert [spec.kv_from for spec in specs[half:]] == [
        half - 1 if spec.block.mixer.reach is None else half - 2 for spec in specs[half:]
    ]


@pytest.mark.parametrize("size", ["1b", "nano"])
def test_lfm2_attends_in_six_layers_of_sixteen(size: str) -> None:
    kinds = [spec.block.mixer.kind for spec in resolve(preset(f"lfm2-{size}"))]
    assert [index for index, kind in enumerate(kinds) if kind == "attention"] == [2, 5, 8, 10, 12, 14]
    assert set(kinds) == {"attention", "short_conv"}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {".blocks.attention.mixer.qk_norm": False}),
        (
            "softcap",
            {
                ".blocks.attention.mixer.qk_norm": False,
                ".blocks.attention.mixer.softcap": 50.0,
                ".head_softcap": 30.0,
            },
        ),
        ("crossdoc", {".document_masks": False}),
        ("mtp", {".mtp.weight": 0.1, ".mtp": ...}),
        ("horizon", {".horizon.weight": 0.1, ".horizon": ...}),
    ],
)
def test_what_is_studied_is_all_that_differs(family: str, changes: dict[str, Any], size: str) -> None:
    base, found = leaves(preset(f"base-{size}").to_dict()), leaves(preset(f"{family}-{size}").to_dict())
    every = base.keys() | found.keys()
    assert {key: found.get(key, ...) for key in every if base.get(key, ...) != found.get(key, ...)} == changes


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("family", FAMILIES)
def test_twins_share_their_outer_shape(family: str, size: str) -> None:
    base, found = preset(f"base-{size}"), preset(f"{family}-{size}")
    for key in ("width", "layers", "norm", "norm_eps", "tie_embeddings", "init_std", "embedding_std"):
        assert getattr(found, key) == getattr(base, key), key
    sizes = count(found, 4096, 256).non_embedding / count(base, 4096, 256).non_embedding
    assert sizes == pytest.approx(1.0, abs=0.15)
    if family == "relu2":
        assert count(found, 4096, 256).parameters == count(base, 4096, 256).parameters
