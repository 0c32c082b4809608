"""What every registered mixer and network is held to, alone and in the combinations of `members.py`."""

import math
from typing import Any

import pytest
import torch
from tests.model.members import MEMBERS, config, farthest, frozen, kinds
from tests.model.peers import assert_ragged_rows_decode, assert_truncates, feed
from tests.model.shapes import VOCAB, packed, tiny_model
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from inlay.model import Transformer, build
from inlay.model.masks import document_mask
from inlay.model.mixer import mixers
from inlay.model.mlp import mlps
from inlay.model.table import count

DOCUMENTS = ((5, 1, 9, 3), (12, 6))
LENGTH = 200
ROLLBACK = 9

QUICK = ("mixattention", "windows-and-softcap", "lfm2", "mla")
"""Members that are compiled in every run of the tests; tracing all takes half a minute."""

members = pytest.mark.parametrize("name", MEMBERS)


def test_every_kind_has_a_member() -> None:
    assert set(kinds("mixer")) == set(mixers.members())
    assert set(kinds("mlp")) == set(mlps.members())


# ---- what a position sees --------------------------------------------------------------------------------------------


def influence(model: Transformer, tokens: Tensor, positions: Tensor, row: int, slot: int) -> Tensor:
    """[B, T]: by how much each input embedding moves the hidden state at (row, slot)."""
    seen: list[Tensor] = []
    hook = model.embedding.register_forward_hook(lambda _module, _inputs, output: seen.append(output) or None)
    hidden = model(tokens, positions)
    hook.remove()
    (gradient,) = torch.autograd.grad(hidden[row, slot].square().sum(), seen[0])
    return gradient.abs().sum(-1)


@members
def test_a_position_sees_its_document_as_far_as_its_layers_reach(name: str) -> None:
    """By gradient, exactly: no key too few, none of the future, of another document or of another row."""
    model = tiny_model(config(name))
    tokens, positions = packed(*DOCUMENTS)
    reach = farthest(model)
    for row, slot in ((0, 0), (0, 4), (0, 5), (0, 14), (0, 16), (1, 0), (1, 8), (1, 11), (1, 17)):
        moved = influence(model, tokens, positions, row, slot)
        start = slot - int(positions[row, slot])
        expected = torch.zeros_like(moved, dtype=torch.bool)
        expected[row, start if reach is None else max(start, slot - reach) : slot + 1] = True
        assert torch.equal(moved > 0, expected), (row, slot)


@members
def test_a_changed_token_changes_nothing_before_it(name: str) -> None:
    model = frozen(name)
    tokens, positions = packed((24,), (13, 11))
    before = model(tokens, positions)
    tokens[:, 9] = (tokens[:, 9] + 1) % VOCAB
    after = model(tokens, positions)
    assert torch.equal(before[:, :9], after[:, :9])
    assert not torch.equal(before[0, 9], after[0, 9])
    assert torch.equal(before[1, 13:], after[1, 13:])


def gradients(model: Transformer, rows: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Hidden states, and gradients of the summed loss over rows (tokens, positions, weights), one forward each."""
    model.zero_grad()
    hidden = []
    for tokens, positions, weights in rows:
        output = model(tokens, positions)
        targets = (tokens * 7 + 3) % VOCAB
        losses = functional.cross_entropy(model.logits(output).flatten(0, 1), targets.flatten(), reduction="none")
        (losses * weights.flatten()).sum().backward()
        hidden.append(output.detach())
    return hidden, {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@members
def test_a_packed_row_equals_its_documents_alone(name: str) -> None:
    """Forward and gradients: a leak can leave the loss unchanged."""
    model = tiny_model(config(name))
    tokens, positions = packed(*DOCUMENTS)
    together, summed = gradients(model, [(tokens, positions, torch.ones_like(tokens))])
    alone = []
    for row, lengths in enumerate(DOCUMENTS):
        for part, place in zip(tokens[row].split(lengths), positions[row].split(lengths), strict=True):
            alone.append((part[None], place[None], torch.ones_like(part)[None]))
    apart, added = gradients(model, alone)
    torch.testing.assert_close(together[0].flatten(0, 1), torch.cat(apart, 1)[0], atol=2e-5, rtol=1e-5)
    for parameter, gradient in summed.items():
        assert gradient.abs().max() > 0, parameter
        torch.testing.assert_close(gradient, added[parameter], atol=2e-4, rtol=2e-4, msg=parameter)


@members
def test_padding_does_not_leak(name: str) -> None:
    """Padding is a document of its own with weight 0: its tokens change no hidden state or gradient, bit for bit."""
    model = tiny_model(config(name))
    tokens, positions = packed((10, 8))
    weights = (torch.arange(18) < 10).long()[None]
    results = []
    for fill in (0, 5):
        row = torch.where(weights == 1, tokens, fill)
        hidden, gradient = gradients(model, [(row, positions, weights)])
        results.append((hidden[0][:, :10], gradient))
    assert torch.equal(results[0][0], results[1][0])
    for parameter, gradient in results[0][1].items():
        assert torch.equal(gradient, results[1][1][parameter]), parameter


@members
def test_rows_do_not_see_each_other(name: str) -> None:
    model = frozen(name)
    tokens, positions = packed(*DOCUMENTS)
    whole = model(tokens, positions)
    for row in range(2):
        alone = model(tokens[row : row + 1], positions[row : row + 1])[0]
        torch.testing.assert_close(whole[row], alone, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["attention", "mixattention", "lfm2", "mla"])
def test_without_document_masks_a_row_is_one_document(name: str) -> None:
    model = tiny_model(config(name, document_masks=False)).requires_grad_(False)
    tokens, positions = packed(*DOCUMENTS)
    whole = torch.arange(18).expand(2, 18)
    assert torch.equal(model(tokens, positions), frozen(name)(tokens, whole))


# ---- cached decode ---------------------------------------------------------------------------------------------------


@members
def test_decode_equals_forward(name: str) -> None:
    """200 tokens in chunks, across the edges of windows, with rings that forget and without."""
    model = frozen(name)
    tokens, positions = packed((LENGTH,))
    expected = model(tokens, positions)
    for chunk, rollback in ((1, ROLLBACK), (7, ROLLBACK), (64, ROLLBACK), (LENGTH, 256)):
        cache = model.new_cache(1, LENGTH, rollback=rollback)
        torch.testing.assert_close(feed(model, cache, tokens, 0, chunk), expected, atol=1e-4, rtol=1e-4)
        assert cache.lengths.tolist() == [LENGTH]


@members
def test_rows_of_different_lengths_with_padding(name: str) -> None:
    assert_ragged_rows_decode(frozen(name), VOCAB)


@members
def test_going_back_and_on(name: str) -> None:
    """As far as a ring can; a cache without rings goes back anywhere."""
    tokens, _ = packed((100,))
    model = frozen(name)
    assert_truncates(model, tokens, 70 - ROLLBACK, 70, ROLLBACK)
    cache = model.new_cache(1, 100, rollback=ROLLBACK)
    feed(model, cache, tokens[:, :70], 0, 7)
    assert cache.truncate(torch.tensor([69 - ROLLBACK])).tolist() == [0 if cache.has_rings else 69 - ROLLBACK]
    start = int(cache.lengths[0])
    found = feed(model, cache, tokens[:, start:], start, 10)
    expected = model(tokens, torch.arange(100)[None])[:, start:]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@members
def test_select_reorders_and_repeats_rows(name: str) -> None:
    model = frozen(name)
    tokens, positions = packed((20,), (20,))
    cache = model.new_cache(2, 40, rollback=3)
    model.decode(tokens, positions, cache)
    chosen = cache.select(torch.tensor([1, 0, 1]))
    following = torch.tensor([[3], [4], [5]])
    found = model.decode(following, torch.full((3, 1), 20), chosen)
    for index, source in enumerate((1, 0, 1)):
        text = torch.cat([tokens[source], following[index]])[None]
        torch.testing.assert_close(found[index], model(text, torch.arange(21)[None])[0, 20:], atol=1e-4, rtol=1e-4)
    assert cache.lengths.tolist() == [20, 20]  # the original is untouched
    assert model.decode(torch.tensor([[1], [2]]), torch.full((2, 1), 20), cache).shape == (2, 1, 32)


# ---- training --------------------------------------------------------------------------------------------------------


@members
def test_checkpointing_changes_no_gradient(name: str) -> None:
    model = tiny_model(config(name))
    rows = [(*packed(*DOCUMENTS), torch.ones(2, 18))]
    plain = gradients(model, rows)[1]
    model.activation_checkpointing = True
    again = gradients(model, rows)[1]
    for parameter, gradient in plain.items():
        assert torch.equal(gradient, again[parameter]), parameter


@members
def test_first_loss(name: str) -> None:
    """ln V + d std^2 / 2: logits of a normalised hidden state of norm sqrt(d) against rows of variance std^2."""
    vocabulary, std = 4096, 0.05
    made = config(name, init_std=0.02, embedding_std=std)
    model = build(made, vocabulary, seed=0).requires_grad_(False)
    tokens, targets = torch.randint(vocabulary, (2, 4, 64), generator=torch.Generator().manual_seed(3))
    logits = model.logits(model(tokens, torch.arange(64).expand(4, 64)))
    expected = math.log(vocabulary) + made.width * std**2 / 2
    found = float(functional.cross_entropy(logits.flatten(0, 1), targets.flatten()))
    assert found == pytest.approx(expected, abs=0.3)


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in MEMBERS]
)
def test_blocks_compile_once(name: str) -> None:
    """Ten batches whose documents lie differently: one graph for each sort of block, all from the first batch."""
    model = tiny_model(config(name))
    graphs = 0

    def backend(graph: Any, inputs: Any) -> Any:
        nonlocal graphs
        graphs += 1
        return graph.forward

    torch._dynamo.reset()
    blocks = [torch.compile(block, dynamic=False, backend=backend) for block in model.blocks]
    made = []
    for index in range(10):
        tokens, positions = packed((140 + index, 10 - index), seed=index)
        hidden = model(tokens, positions, blocks)
        hidden.square().mean().backward()
        made.append(graphs)
        if index == 0:
            with torch.no_grad():
                torch.testing.assert_close(hidden, model(tokens, positions))
    torch._dynamo.reset()
    sorts = {(spec.name, spec.kv_from is None) for spec in model.layout}
    assert made == [len(sorts)] * 10


# ---- counts ----------------------------------------------------------------------------------------------------------


@members
def test_counts(name: str) -> None:
    """Parameters from the model, cache bytes from what is allocated, FLOPs from torch's counter."""
    made = config(name)
    model, length = tiny_model(made), 24
    counted = count(made, VOCAB, length)
    assert counted.parameters == sum(parameter.numel() for parameter in model.parameters())

    cache = model.new_cache(3, 400, rollback=ROLLBACK)
    allocated = [0 if layer is None else sum(t.nbytes for t in layer.tensors) for layer in cache.layers]
    sizes = [cache.sizes[spec.block.mixer.memory] for spec in model.layout]
    per_slot = [block.mixer.cache_bytes(4) for block in model.layers]
    # One slot more takes what padding writes.
    assert allocated == [3 * (size + 1) * each for size, each in zip(sizes, per_slot, strict=True)]
    held = [min(spec.block.mixer.memory or 512, 512) for spec in model.layout]
    bytes_at_512 = sum(each / 2 * most for each, most in zip(per_slot, held, strict=True))  # fp32 to bf16
    assert 512 * count(made, VOCAB, 512).cache_bytes == pytest.approx(bytes_at_512)

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.logits(model(torch.zeros(1, length, dtype=torch.int64), torch.arange(length)[None]))
    scores = 0.0
    for spec, block in zip(model.layout, model.layers, strict=True):
        mixer = spec.block.mixer
        mask = document_mask(torch.arange(length)[None], mixer.reach, torch.float32)
        visible = float(torch.isfinite(mask).sum()) / length
        # The counter sees whole T x T products, and of what is no product nothing.
        scores += block.mixer.score_flops(visible) - block.mixer.score_flops(length if mixer.masked else 0)
    assert length * (counted.flops - scores) == pytest.approx(counter.get_total_flops(), rel=1e-9)
