"""The contract of an optimizer and the routing of parameters. One file a kind in `inlay.train.optimizers`.

Every parameter belongs to exactly one class, by what it is: `matrix` (projections inside blocks), `embedding` (input
table, tied or not, and head), `vector` (gains, biases, scalars). Routing asserts that it covers the model exactly once
and that tables are among the embeddings: an embedding sent to Muon raises no error by itself anywhere else.
"""

from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from inlay.config import Config, InlayError, Registry

optimizers = Registry("optimizer", "inlay.train.optimizers")

ParameterClass = Literal["matrix", "embedding", "vector"]


class OptimizerConfig(Config):
    """Options of an optimizer; `build` makes it for a model."""

    kind: str

    @abstractmethod
    def build(self, model: nn.Module) -> "Optimizer":
        """The optimizer over all trainable parameters of `model`."""


class Optimizer:
    """Updates parameters by name."""

    @abstractmethod
    def step(self, multiplier: float, step: int) -> None:
        """One update from the gradients in place, at `multiplier` times the peak rates."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Its state as tensors keyed by parameter name and quantity, `NAME|QUANTITY`."""

    @abstractmethod
    def load_state(self, state: dict[str, Tensor]) -> None:
        """Takes back what `state` gave."""


def route(model: nn.Module) -> dict[ParameterClass, dict[str, nn.Parameter]]:
    """All trainable parameters of a model by class and name.

    Raises InlayError unless each is routed exactly once (one that two modules share must be of one class by both its
    names) and every embedding table is routed as one.
    """
    routed: dict[ParameterClass, dict[str, nn.Parameter]] = {"matrix": {}, "embedding": {}, "vector": {}}
    seen: dict[Tensor, tuple[str, ParameterClass]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if not parameter.requires_grad:
            continue
        chosen = _class_of(name, parameter)
        first, before = seen.setdefault(parameter, (name, chosen))
        if before != chosen:
            raise InlayError(f"one parameter is routed twice: as {before} by '{first}' and as {chosen} by '{name}'")
        if first == name:
            routed[chosen][name] = parameter
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and seen.get(module.weight, (name, "embedding"))[1] != "embedding":
            raise InlayError(f"the embedding table '{name}' is routed as {seen[module.weight][1]}")
    count = sum(len(group) for group in routed.values())
    expected = sum(1 for parameter in model.parameters() if parameter.requires_grad)
    if count != expected:
        raise InlayError(f"parameter routing covers {count} of {expected} parameters")
    return routed


def _class_of(name: str, parameter: nn.Parameter) -> ParameterClass:
    if name.startswith(("embedding.", "head.")):
        return "embedding"
    # A matrix with a side of one (a head to one number) has no spectrum to flatten.
    return "matrix" if parameter.ndim == 2 and min(parameter.shape) > 1 else "vector"


class AdamWGroups:
    """Fused AdamW over named groups with a peak learning rate and weight decay each."""

    def __init__(
        self,
        groups: list[tuple[dict[str, nn.Parameter], float, float]],
        betas: tuple[float, float],
        eps: float,
    ) -> None:
        """`groups`: (parameters, peak learning rate, weight decay)."""
        groups = [group for group in groups if group[0]]
        self._names = [name for parameters, _, _ in groups for name in parameters]
        self._peaks = [peak for _, peak, _ in groups]
        self._optimizer = torch.optim.AdamW(
            [
                {"params": list(parameters.values()), "lr": rate, "weight_decay": decay}
                for parameters, rate, decay in groups
            ],
            betas=betas,
            eps=eps,
            fused=True,
        )

    def step(self, multiplier: float) -> None:
        """One update at `multiplier` times the peak rates."""
        for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * multiplier
        self._optimizer.step()

    def state(self) -> dict[str, Tensor]:
        """Moments and step counts, keyed NAME|QUANTITY."""
        by_index = self._optimizer.state_dict()["state"]
        return {
            f"{name}|{key}": value
            for index, name in enumerate(self._names)
            for key, value in by_index.get(index, {}).items()
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Takes back what `state` gave."""
        merged = self._optimizer.state_dict()
        merged["state"] = {
            index: {key: state[f"{name}|{key}"] for key in ("step", "exp_avg", "exp_avg_sq")}
            for index, name in enumerate(self._names)
            if f"{name}|step" in state
        }
        self._optimizer.load_state_dict(merged)
