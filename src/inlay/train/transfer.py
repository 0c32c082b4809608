"""From the best learning rate of a small model to that of a large one: rules by width, depth, batch and tokens.

Each rule is a pure function with its source, and its factor is shown separately, so that a reader may replace one. They
hold for rates and weight decay only: finer settings (betas, warmup) have not transferred where it was tried (nanochat,
about 320 runs). d is the width, B the tokens of an optimizer step, D the tokens of the run.

A prediction is where to look, not what to take: two or three short runs of the target around it decide.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import Field

from inlay.config import BadInput, Config
from inlay.train.optimizer import OptimizerConfig, ParameterClass
from inlay.train.search import rounded

BATCH_POWER = 0.383
FAR_WIDTH, FAR_DEPTH, FAR_BATCH, FAR_TOKENS = 8.0, 2.0, 8.0, 2.0
"""Ratios beyond which a transfer is an extrapolation. `FAR_TOKENS`: of tokens per parameter, which should be equal."""
CHECK_FACTORS = (0.7, 1.0, 1.4)
COOLED = 0.15
"""Share of the peak rate at the end of a run up to which its loss is that of a cooled model."""


class TargetConfig(Config):
    """What a learning rate is wanted for."""

    model: str
    """A preset, as `model=NAME` takes it."""
    tokens: int | None = Field(None, ge=1, le=10**18)
    """Of its run; null for as many per parameter as the proxy had."""
    batch: int | None = Field(None, ge=1, le=10**15)
    """Tokens of an optimizer step; null for what the rule says."""
    sequence_length: int | None = Field(None, ge=32, le=1 << 24)
    """null for the proxy's."""
    arm: str | None = None
    """The arm of the sweep whose curve is transferred, where it has several."""


@dataclass(frozen=True)
class Setup:
    """A model and its run, as far as the rules look at them."""

    name: str
    width: int
    layers: int
    parameters: int
    """Beside the embedding and the head."""
    tokens_per_step: int
    tokens: int = Field(le=10**18)


@dataclass(frozen=True)
class Factor:
    """One rule applied: `value` is what the quantity is multiplied by."""

    cause: str
    ratio: float
    """Target over proxy."""
    rule: str
    value: float
    source: str


@dataclass(frozen=True)
class Quantity:
    """A rate or decay of the target. `option` is the override that sets it."""

    option: str
    what: str
    proxy: float
    factors: tuple[Factor, ...]

    @property
    def target(self) -> float:
        value = self.proxy
        for factor in self.factors:
            value *= factor.value
        return value


@dataclass(frozen=True)
class Transfer:
    """The prediction for a target, with what led to it."""

    proxy: Setup
    target: Setup
    batch_rule: int
    """Tokens of a step by the rule, whatever the target was given."""
    quantities: tuple[Quantity, ...]
    warnings: tuple[str, ...]


def tokens_per_step(batch: int, tokens: int, target_tokens: int) -> float:
    """B ∝ D^0.383: tokens of a step for `target_tokens`, from those that suited `tokens` (2505.13738, as nanochat uses
    it)."""
    return batch * (target_tokens / tokens) ** BATCH_POWER


def batch_factor(ratio: float) -> Factor:
    """Rates ∝ √B (2205.10287 for Adam; nanochat uses it for Muon too, where it is an assumption)."""
    return Factor("batch", ratio, "∝ √B", ratio**0.5, "2205.10287; nanochat; an assumption for Muon")


def depth_factor(ratio: float) -> Factor:
    """No rule: unchanged. Standard parametrisations do not hold their best rate across depth (2505.01618)."""
    return Factor("depth", ratio, "unchanged", 1.0, "no rule for this parametrisation (2505.01618)")


def width_factor(optimizer: str, part: ParameterClass, convention: str | None, ratio: float) -> Factor:
    """How the rate of a class of parameters goes with the width.

    `convention`: Muon's `adjust`. A rate in `match_rms_adamw` means 0.2 √max(rows, columns) times that in `original`,
    so that what is unchanged in one falls as the root of the width in the other.
    """
    if optimizer == "muon":
        if convention == "match_rms_adamw":
            source = "unchanged in the convention `original` (not verified), whose update is √d smaller"
            return Factor("width", ratio, "∝ d^-½", ratio**-0.5, source)
        return Factor("width", ratio, "unchanged", 1.0, "spectral norm, 2310.17813; not verified here")
    if part in ("embedding", "head"):
        return Factor("width", ratio, "∝ d^-½", ratio**-0.5, "nanochat")
    if part == "matrix":
        return Factor("width", ratio, "∝ 1/d", 1.0 / ratio, "2203.03466, table 3; Llama 3's rates")
    return Factor("width", ratio, "unchanged", 1.0, "2203.03466, table 3 (vector-like parameters)")


def decay_factors(batch: float, tokens: float, width: Factor) -> tuple[Factor, ...]:
    """Decay ∝ √B / D with a rate ∝ √B keeps rate x decay x steps, the memory of the weights in epochs (2405.13698);
    where the width changes the rate, the decay goes the other way for the same reason."""
    found = [
        Factor("batch", batch, "∝ √B", batch**0.5, "2405.13698; nanochat"),
        Factor("tokens", tokens, "∝ 1/D", 1.0 / tokens, "2405.13698; nanochat"),
    ]
    if width.value != 1.0:
        found.append(Factor("width", width.ratio, "1 / rate's", 1.0 / width.value, "2405.13698"))
    return tuple(found)


def transfer(
    proxy: Setup, target: Setup, optimizer: OptimizerConfig, chosen: Mapping[str, float], batch_rule: int | None = None
) -> Transfer:
    """The rates and decays of `target`, from those of `optimizer` with `chosen` (by option, `optim.lr`) in their place.

    Raises BadInput for an option that is no rate of the optimizer.
    """
    config = optimizer.model_dump()
    for option in chosen:
        if not option.startswith("optim.") or option.removeprefix("optim.") not in config:
            raise BadInput(f"'{option}' is no rate of optim={optimizer.kind}: no rule transfers it")
    optimizer = optimizer.model_copy(update={key.removeprefix("optim."): value for key, value in chosen.items()})
    width, depth = target.width / proxy.width, target.layers / proxy.layers
    batch, tokens = target.tokens_per_step / proxy.tokens_per_step, target.tokens / proxy.tokens
    convention = config.get("adjust")
    warnings, quantities = _far(proxy, target), []
    for part, option, decay, what in _PARTS:
        treatment = optimizer.treatments()[part]
        by_width = width_factor(treatment.optimizer, part, convention, width)
        if option in config and not (part == "head" and config[option] is None):
            factors = (by_width, depth_factor(depth), batch_factor(batch))
            quantities.append(Quantity(f"optim.{option}", what, treatment.lr, factors))
        elif part == "vector" and by_width.value != _width_of_lr(quantities):
            warnings.append("gains and biases share optim.lr, and take its factors though their own rule is another")
        if decay in config and treatment.decay and part != "head":
            quantities.append(
                Quantity(f"optim.{decay}", f"decay of {what}", treatment.decay, decay_factors(batch, tokens, by_width))
            )
    rule = round(tokens_per_step(proxy.tokens_per_step, proxy.tokens, target.tokens))
    return Transfer(proxy, target, batch_rule or rule, tuple(quantities), tuple(warnings))


_PARTS: tuple[tuple[ParameterClass, str, str, str], ...] = (
    ("matrix", "lr", "weight_decay", "matrices"),
    ("embedding", "embedding_lr", "embedding_decay", "the embedding"),
    ("head", "head_lr", "embedding_decay", "the head"),
    ("vector", "vector_lr", "vector_decay", "gains and biases"),
)
"""Class of parameters, the options of its rate and its decay, and its name for people."""


def overrides(found: Transfer) -> list[str]:
    """The rates and decays as overrides, each once, with three digits."""
    by_option = {quantity.option: rounded(quantity.target) for quantity in found.quantities}
    return [f"{option}={value:g}" for option, value in by_option.items()]


def _width_of_lr(quantities: list[Quantity]) -> float:
    return next(
        (factor.value for quantity in quantities if quantity.option == "optim.lr" for factor in quantity.factors), 1.0
    )


def _far(proxy: Setup, target: Setup) -> list[str]:
    """What makes this transfer an extrapolation."""
    found = []
    for what, ratio, limit in (
        ("width", target.width / proxy.width, FAR_WIDTH),
        ("depth", target.layers / proxy.layers, FAR_DEPTH),
        ("tokens per step", target.tokens_per_step / proxy.tokens_per_step, FAR_BATCH),
    ):
        if max(ratio, 1.0 / ratio) > limit * (1.0 + 1e-9):
            found.append(f"{what} x{ratio:.3g} is more than x{limit:g}: an extrapolation; put a proxy in between")
    proxy_share, target_share = proxy.tokens / proxy.parameters, target.tokens / target.parameters
    ratio = target_share / proxy_share
    if max(ratio, 1.0 / ratio) > FAR_TOKENS:
        found.append(
            f"the target has {target_share:.3g} tokens per parameter and the proxy {proxy_share:.3g}: no rule here says"
            " how the best rate goes with that; give the proxy as many"
        )
    return found
