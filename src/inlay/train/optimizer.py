"""The contract of an optimizer, the routing of parameters and the rules of weight decay. One file a kind in
`inlay.train.optimizers`.

Every parameter belongs to exactly one class, by what it is: `matrix` (projections inside blocks), `embedding` (the
input table, tied or not), `head` (an untied output matrix), `vector` (gains, biases, scalars, convolution kernels, a
head to one number). Routing asserts that it covers the model exactly once and that tables are among the embeddings: an
embedding sent to Muon raises no error by itself anywhere else. What a class gets (rate, decay) is data:
`OptimizerConfig.treatments`.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from inlay.config import BadInput, Config, InlayError, Registry
from inlay.train.shards import take

optimizers = Registry("optimizer", "inlay.train.optimizers")

ParameterClass = Literal["matrix", "embedding", "head", "vector"]


@dataclass(frozen=True)
class Treatment:
    """What a class of parameters gets."""

    optimizer: Literal["adamw", "muon"]
    lr: float
    """Peak learning rate."""
    decay: float
    """Decoupled weight decay: a step takes off rate x decay x weight."""


class BlockRow(NamedTuple):
    """Matrices of one shape inside a weight, and the factor of their rate."""

    count: int
    rows: int
    columns: int
    factor: float


class OptimizerConfig(Config):
    """Options of an optimizer; `build` makes it for a model. Weight decay is decoupled (1711.05101) and for matrices:
    gains, biases and tables have none unless they are given one of their own."""

    kind: str
    weight_decay: float = Field(0.0, ge=0.0, le=1000.0)
    """Of matrices."""
    embedding_decay: float = Field(0.0, ge=0.0, le=1000.0)
    """Of the embedding and the head."""
    vector_decay: float = Field(0.0, ge=0.0, le=1000.0)
    """Of gains, biases, scalars and convolution kernels."""
    decay_schedule: Literal["constant", "linear"] = "constant"
    """`linear` lets every decay fall to zero over the run, beside what the learning rate does to it."""

    @abstractmethod
    def build(self, model: nn.Module) -> "Optimizer":
        """The optimizer over all trainable parameters of `model`, on the device where they are, sharded or not.

        Raises InlayError for a parameter that cannot be routed, BadInput for an option that the model has no use for.
        """

    @abstractmethod
    def treatments(self) -> dict[ParameterClass, Treatment]:
        """What each class gets."""

    def blocks(self, model: nn.Module, matrices: dict[str, nn.Parameter]) -> dict[str, tuple[BlockRow, ...]]:
        """The matrices that each of `matrices` (by name in `model`) is updated as; nothing for an optimizer that goes
        element by element."""
        return {}

    def notices(self) -> list[str]:
        """Lines the user should read before a run: what is allowed but looks like a mistake."""
        return []

    def decay_share(self, remaining: float) -> float:
        """Share of the peak decay when this share of the run is still to come."""
        return remaining if self.decay_schedule == "linear" else 1.0


class Optimizer:
    """Updates parameters by name."""

    @abstractmethod
    def step(self, multiplier: float, step: int, remaining: float = 1.0) -> None:
        """One update from the gradients in place, at `multiplier` times the peak rates. It uses the gradients up: what
        they hold afterwards means nothing.

        `step` counts from 0; `remaining` is the share of the run that was still to come before it, in 0 to 1. With
        several processes every rank calls it together.
        """

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Its whole state as tensors keyed by parameter name and quantity, `NAME|QUANTITY`, also before the first step;
        a DTensor where the parameter is one. They are the ones in use: copy what is to last."""

    @abstractmethod
    def load_state(self, state: dict[str, Tensor]) -> None:
        """Takes what `state` gave here, or whole plain tensors, of which a sharded parameter takes its own rows.

        Raises InlayError for a quantity that is missing or of another shape.
        """


def route(model: nn.Module) -> dict[ParameterClass, dict[str, nn.Parameter]]:
    """All trainable parameters of a model by class and name.

    Raises InlayError unless each is routed exactly once (one that two modules share must be of one class by both its
    names) and every embedding table is routed as one.
    """
    routed: dict[ParameterClass, dict[str, nn.Parameter]] = {"matrix": {}, "embedding": {}, "head": {}, "vector": {}}
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
    covered = {id(parameter) for group in routed.values() for parameter in group.values()}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and id(parameter) not in covered:
            raise InlayError(f"the parameter '{name}' is routed to no optimizer")
    return routed


def _class_of(name: str, parameter: nn.Parameter) -> ParameterClass:
    if name.startswith("embedding."):
        return "embedding"
    if name.startswith("head."):
        return "head"
    # A matrix with a side of one (a head to one number) has no spectrum to flatten.
    return "matrix" if parameter.ndim == 2 and min(parameter.shape) > 1 else "vector"


def refuse_head_rate(head_lr: float | None, routed: dict[ParameterClass, dict[str, nn.Parameter]]) -> None:
    """Raises BadInput when a rate is given for a head that is the embedding: one table has one rate."""
    if head_lr is not None and routed["embedding"] and not routed["head"]:
        raise BadInput(
            f"optim.head_lr={head_lr:g}: the head of this model is its embedding; give optim.embedding_lr alone, or"
            " model.tie_embeddings=false"
        )


class AdamWGroups:
    """Fused AdamW over named groups with a peak learning rate and weight decay each; plain parameters or DTensors."""

    def __init__(
        self,
        groups: list[tuple[dict[str, nn.Parameter], Treatment]],
        betas: tuple[float, float],
        eps: float,
    ) -> None:
        """`groups`: (parameters, what they get); those without parameters are left out."""
        groups = [group for group in groups if group[0]]
        self._treatments = [treatment for _, treatment in groups]
        self._parameters = {name: parameter for parameters, _ in groups for name, parameter in parameters.items()}
        self._optimizer: torch.optim.AdamW | None = None
        if not groups:
            return
        self._optimizer = torch.optim.AdamW(
            [
                {"params": list(parameters.values()), "lr": treatment.lr, "weight_decay": treatment.decay}
                for parameters, treatment in groups
            ],
            betas=betas,
            eps=eps,
            fused=True,
        )
        for parameter in self._parameters.values():
            # What torch makes in its first step, there from the start: a state to save or to load into has one form.
            self._optimizer.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter, requires_grad=False),
                "exp_avg_sq": torch.zeros_like(parameter, requires_grad=False),
            }

    def step(self, multiplier: float, decay_share: float = 1.0) -> None:
        """One update at `multiplier` times the peak rates and `decay_share` times the peak decays."""
        if self._optimizer is None:
            return
        for group, treatment in zip(self._optimizer.param_groups, self._treatments, strict=True):
            group["lr"] = treatment.lr * multiplier
            group["weight_decay"] = treatment.decay * decay_share
        self._optimizer.step()

    def state(self) -> dict[str, Tensor]:
        """Moments and step counts, keyed NAME|QUANTITY."""
        if self._optimizer is None:
            return {}
        return {
            f"{name}|{quantity}": value
            for name, parameter in self._parameters.items()
            for quantity, value in self._optimizer.state[parameter].items()
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Takes what `state` gave, or whole plain tensors."""
        held = self.state()
        if not any(key in state for key in held):
            # Saved before the first step by a version that had no moments yet then.
            for value in held.values():
                value.zero_()
            return
        for key, value in held.items():
            take(key, value, state)
