"""What one position may see: nothing of the future, of another document, of another row or of padding."""

import pytest
import torch
from tests.model.shapes import VOCAB, packed, tiny, tiny_model
from torch import Tensor
from torch.nn import functional

from inlay.model import Transformer

DOCUMENTS = ((5, 1, 9, 3), (12, 6))


def influence(model: Transformer, tokens: Tensor, positions: Tensor, row: int, slot: int) -> Tensor:
    """[B, T]: by how much each input embedding moves the hidden state at (row, slot)."""
    seen: list[Tensor] = []
    hook = model.embedding.register_forward_hook(lambda _module, _inputs, output: seen.append(output) or None)
    hidden = model(tokens, positions)
    hook.remove()
    (gradient,) = torch.autograd.grad(hidden[row, slot].square().sum(), seen[0])
    return gradient.abs().sum(-1)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_causal_and_isolated_by_gradient(kv_heads: int) -> None:
    model = tiny_model(tiny(4, kv_heads))
    tokens, positions = packed(*DOCUMENTS)
    for row in range(2):
        for slot in range(18):
            moved = influence(model, tokens, positions, row, slot)
            start = slot - int(positions[row, slot])
            expected = torch.zeros_like(moved, dtype=torch.bool)
            expected[row, start : slot + 1] = True
            assert torch.equal(moved > 0, expected), (row, slot)


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


def test_a_packed_row_equals_its_documents_alone() -> None:
    """Forward and gradients: asked of every mixer, since a leak can leave the loss unchanged."""
    model = tiny_model()
    tokens, positions = packed(*DOCUMENTS)
    together, summed = gradients(model, [(tokens, positions, torch.ones_like(tokens))])
    alone = []
    for row, lengths in enumerate(DOCUMENTS):
        for part, place in zip(tokens[row].split(lengths), positions[row].split(lengths), strict=True):
            alone.append((part[None], place[None], torch.ones_like(part)[None]))
    apart, added = gradients(model, alone)
    torch.testing.assert_close(together[0].flatten(0, 1), torch.cat(apart, 1)[0], atol=1e-5, rtol=1e-5)
    for name, gradient in summed.items():
        torch.testing.assert_close(gradient, added[name], atol=1e-4, rtol=1e-4, msg=name)


def test_padding_does_not_leak() -> None:
    """Padding is a document of its own with weight 0: its tokens change no hidden state or gradient, bit for bit."""
    model = tiny_model()
    tokens, positions = packed((10, 8))
    weights = (torch.arange(18) < 10).long()[None]
    results = []
    for fill in (0, 5):
        row = torch.where(weights == 1, tokens, fill)
        hidden, gradient = gradients(model, [(row, positions, weights)])
        results.append((hidden[0][:, :10], gradient))
    assert torch.equal(results[0][0], results[1][0])
    for name, gradient in results[0][1].items():
        assert torch.equal(gradient, results[1][1][name]), name


def test_rows_do_not_see_each_other() -> None:
    model = tiny_model()
    tokens, positions = packed(*DOCUMENTS)
    with torch.no_grad():
        whole = model(tokens, positions)
        for row in range(2):
            torch.testing.assert_close(whole[row], model(tokens[row : row + 1], positions[row : row + 1])[0])
