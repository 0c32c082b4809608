"""Activation checkpointing gives the same gradients in less memory, with K/V that layers share and with MTP."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train.tiny_training import MODEL, assert_same, config, iter_batches, start, weights
from torch import Tensor, nn

from inlay.config import validate
from inlay.data.loader import Batch
from inlay.model import ModelConfig, Transformer, build
from inlay.model.transformer import BlockCall
from inlay.train.compiler import why_not_compiled
from inlay.train.objectives import Objectives

VOCAB = 400
SHARED: dict[str, Any] = {"layers": 4, "kv_share": {"kind": "pairs"}, "mtp": {"weight": 0.3}}
"""Layers 1 and 3 read the K/V of 0 and 2."""


@pytest.fixture(scope="module")
def batch(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Batch:
    return next(iter_batches(start(config(store), tmp_path_factory.mktemp("batch") / "run")))


def gradients(batch: Batch, *, compiled: bool, **options: Any) -> list[dict[str, Tensor]]:
    """Of one batch, without checkpointing and with it."""
    found = []
    for checkpointing in (False, True):
        model = build(validate(ModelConfig, {**MODEL, "init_std": 0.2, **options}), VOCAB, seed=0)
        model.activation_checkpointing = checkpointing
        objectives = Objectives(model)
        if compiled:
            torch._dynamo.reset()
            objectives.compile()
        objectives.backward(batch, 2)
        found.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
        assert found[-1].keys() == dict(model.named_parameters()).keys()
    return found


@pytest.mark.parametrize("options", [{}, SHARED], ids=["plain", "shared"])
def test_gradients_are_the_same_bits(batch: Batch, options: dict[str, Any]) -> None:
    without, having = gradients(batch, compiled=False, **options)
    assert_same(having, without)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_compiled_gradients_are_the_same(batch: Batch) -> None:
    reason = why_not_compiled(torch.device("cpu"))
    if reason is not None:
        pytest.skip(reason)
    without, having = gradients(batch, compiled=True, **SHARED)
    for name, gradient in without.items():
        torch.testing.assert_close(having[name], gradient, atol=1e-6, rtol=1e-5, msg=name)


def test_the_owner_of_shared_keys_learns_from_its_reader(batch: Batch) -> None:
    """Layer 1 reads what layer 0 owns: detached from it, the owner's gradient is another, with checkpointing too."""
    plain, having = gradients(batch, compiled=False, **SHARED)
    model = build(validate(ModelConfig, {**MODEL, "init_std": 0.2, **SHARED}), VOCAB, seed=0)
    run = model.run_block

    def detached(block: BlockCall, x: Tensor, context: Any, shared: Any) -> Any:
        return run(block, x, context, None if shared is None else tuple(part.detach() for part in shared))

    model.run_block = detached  # type: ignore[method-assign]
    Objectives(model).backward(batch, 2)
    for name in ("blocks.0.mixer.key.weight", "blocks.0.mixer.value.weight"):
        cut = model.get_parameter(name).grad
        assert cut is not None
        assert (cut - having[name]).norm() > 0.05 * having[name].norm()
        assert torch.equal(plain[name], having[name])


def test_a_run_is_the_same_bits(store: Path, tmp_path: Path) -> None:
    runs = []
    for name in (False, True):
        run = config(store, model=SHARED, train={"steps": 5, "accumulation": 2, "activation_checkpointing": name})
        trainer = start(run, tmp_path / str(name))
        assert trainer.model.activation_checkpointing is name
        trainer.run_to_end()
        runs.append(weights(tmp_path / str(name), 5))
    assert_same(runs[1], runs[0])


def kept_bytes(model: Transformer, batch: Batch) -> int:
    """Bytes that the forward pass keeps for the backward pass: saved by autograd, or entering a checkpointed block."""
    held: dict[int, int] = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    def entering(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        x, _, shared = arguments
        for tensor in (x, *(shared or ())):
            keep(tensor)

    for block in model.blocks:
        block.register_forward_pre_hook(entering)
    tokens, positions = (torch.from_numpy(array).long() for array in (batch.tokens, batch.positions))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = model(tokens, positions)
    # All is still alive here, so no address was used twice.
    assert hidden.requires_grad
    return sum(held.values())


@pytest.mark.parametrize("options", [{"layers": 6}, {**SHARED, "layers": 6}], ids=["plain", "shared"])
def test_less_is_kept(batch: Batch, options: dict[str, Any]) -> None:
    found = []
    for checkpointing in (False, True):
        model = build(validate(ModelConfig, {**MODEL, **options}), VOCAB, seed=0)
        model.activation_checkpointing = checkpointing
        found.append(kept_bytes(model, batch))
    assert found[1] < 0.25 * found[0]
