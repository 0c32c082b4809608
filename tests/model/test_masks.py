"""The three forms of a mask against their definition, pair by pair."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask

from inlay.model.masks import BLOCK, STRIPS, Strips, block_mask, cache_mask, document_mask, fuses, row_mask, strips

documents = st.lists(st.integers(1, 7), min_size=1, max_size=5)


def positions_of(lengths: list[int]) -> torch.Tensor:
    return torch.cat([torch.arange(length) for length in lengths])[None]


@given(documents, st.none() | st.integers(1, 8))
def test_document_mask_is_its_definition(lengths: list[int], window: int | None) -> None:
    owner = [index for index, length in enumerate(lengths) for _ in range(length)]
    mask = document_mask(positions_of(lengths), window, torch.float32)
    assert mask.shape == (1, 1, len(owner), len(owner))
    assert mask.dtype == torch.float32
    for query in range(len(owner)):
        for key in range(len(owner)):
            visible = owner[key] == owner[query] and key <= query and (window is None or query - key < window)
            assert mask[0, 0, query, key].item() == (0.0 if visible else -math.inf)


def test_a_window_counts_its_own_key() -> None:
    row = document_mask(torch.arange(11)[None], 4, torch.float32)[0, 0, 10]
    assert torch.isfinite(row).nonzero().flatten().tolist() == [7, 8, 9, 10]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=4), st.none() | st.integers(1, 5))
def test_cache_mask_is_its_definition(starts: list[int], window: int | None) -> None:
    positions = torch.tensor(starts)[:, None] + torch.arange(3)
    seen = int(positions.max()) + 1
    mask = cache_mask(positions, positions[:, -1] + 1, 40, seen, window, torch.bfloat16)
    assert mask.shape == (len(starts), 1, 3, seen)
    assert mask.dtype == torch.bfloat16
    for row, start in enumerate(starts):
        for query in range(3):
            for slot in range(seen):
                distance = start + query - slot
                visible = distance >= 0 and (window is None or distance < window)
                assert mask[row, 0, query, slot].item() == (0.0 if visible else -math.inf)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=4), st.integers(1, 5), st.integers(3, 9))
def test_cache_mask_of_a_ring_is_its_definition(starts: list[int], window: int, rollback: int) -> None:
    """A ring of window + rollback slots, written position by position: each slot holds what was written to it last."""
    positions = torch.tensor(starts)[:, None] + torch.arange(3)
    slots = window + rollback
    seen = min(slots, int(positions.max()) + 1)
    mask = cache_mask(positions, positions[:, -1] + 1, slots, seen, window, torch.float32)
    for row, start in enumerate(starts):
        content = {position % slots: position for position in range(start + 3)}
        for query in range(3):
            for slot in range(seen):
                distance = start + query - content[slot] if slot in content else -1
                visible = 0 <= distance < window
                assert mask[row, 0, query, slot].item() == (0.0 if visible else -math.inf)


rows = st.lists(st.integers(1, 200), min_size=1, max_size=6)


def dense(mask: Strips) -> Tensor:
    """Strips put together again: what is left out is masked."""
    whole = torch.full(mask.shape, -math.inf)
    for part in mask.parts:
        whole[:, :, part.first : part.end, part.oldest : part.end] = part.mask
    return whole


@given(rows, st.none() | st.integers(1, 300))
def test_strips_are_the_document_mask(lengths: list[int], window: int | None) -> None:
    positions = positions_of(lengths)
    mask = strips(positions, window, torch.float32)
    expected = document_mask(positions, window, torch.float32)
    assert mask.shape == expected.shape
    assert torch.equal(dense(mask), expected)
    assert [part.first for part in mask.parts] == [0, *(part.end for part in mask.parts[:-1])]


@pytest.mark.parametrize(("length", "count"), [(129, 2), (512, 4), (1024, 8), (1025, 5), (2048, 8), (8192, 8)])
def test_strips_are_few_and_skip_what_a_window_cannot_reach(length: int, count: int) -> None:
    positions = torch.arange(length)[None]
    parts = strips(positions, None, torch.float32).parts
    assert len(parts) == count <= STRIPS
    assert all((part.end - part.first) % BLOCK == 0 for part in parts[:-1])
    for part in strips(positions, 64, torch.float32).parts:
        assert part.first - part.oldest <= 64 + 16


def test_the_shapes_of_strips_do_not_depend_on_documents() -> None:
    """Else each batch would be compiled anew."""
    made = [strips(positions_of(lengths), 70, torch.float32) for lengths in ([300], [1, 2, 297], [150, 150])]
    shapes = [[(part.first, part.end, part.oldest, part.mask.shape) for part in mask.parts] for mask in made]
    assert shapes[0] == shapes[1] == shapes[2]


@given(rows, rows, st.none() | st.integers(1, 300))
def test_block_masks_are_those_that_torch_builds_from_the_definition(
    first: list[int], second: list[int], window: int | None
) -> None:
    """Which blocks are skipped, whole and cut, and the rule inside a cut block."""
    length = min(sum(first), sum(second))
    positions = torch.cat([positions_of(lengths)[:, :length] for lengths in (first, second)])
    mask = block_mask(positions, window)
    expected = create_block_mask(mask.mask_mod, 2, 1, length, length, device="cpu")
    assert mask.shape == expected.shape == (2, 1, length, length)
    assert torch.equal(mask.to_dense(), expected.to_dense())
    for name in ("kv_num_blocks", "full_kv_num_blocks", "q_num_blocks", "full_q_num_blocks"):
        assert torch.equal(getattr(mask, name), getattr(expected, name)), name
    for count, indices in (("kv_num_blocks", "kv_indices"), ("full_kv_num_blocks", "full_kv_indices")):
        for number, ours, theirs in zip(
            getattr(mask, count).flatten(),
            getattr(mask, indices).flatten(0, -2),
            getattr(expected, indices).flatten(0, -2),
            strict=True,
        ):
            assert ours[:number].tolist() == theirs[:number].tolist()
    slots = torch.arange(length)
    visible = mask.mask_mod(torch.arange(2)[:, None, None], 0, slots[None, :, None], slots[None, None])
    assert torch.equal(visible, torch.isfinite(document_mask(positions, window, torch.float32))[:, 0])


def test_the_form_goes_by_device_and_length() -> None:
    short, long = (row_mask(torch.arange(length)[None], 5, torch.bfloat16) for length in (BLOCK, BLOCK + 1))
    assert isinstance(short, Tensor)
    assert isinstance(long, Strips)
    assert short.dtype == long.parts[0].mask.dtype == torch.bfloat16
    assert not fuses(torch.device("cpu"))
    # Elsewhere nothing is cut: scaled_dot_product_attention takes a whole mask.
    assert row_mask(torch.arange(300, device="meta")[None], 5, torch.float32).shape == (1, 1, 300, 300)
