"""A search through Optuna's ask and tell, its journal in the sweep's folder (`optuna-dashboard` reads it).

Sampling is made a function of what has ended, so that a killed search goes on exactly: for trial N, Optuna's sampler is
made anew with a key of (seed, N), looks at a copy of the study in memory, and what it draws is appended to the journal
as a running trial in one line. A search that is killed at any moment has either that line or none. A trial in flight is
found there again and its run resumed.

`median` pruning (Golovin et al. 2017, section 3.3) stops a run whose best value so far is worse than the median of the
complete runs at as many tokens. Learning rates that never cooled down compare badly, so the default is none.
"""

import contextlib
import itertools
import os
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import xxhash
from pydantic import Field, model_validator

from inlay.config import BadInput, Config
from inlay.config.files import disk_errors, read_bounded
from inlay.train.search import Curve, Outcome, Outcomes, Scalar, Search, Trial, Values, rounded, searches

if TYPE_CHECKING:
    import optuna

JOURNAL = "optuna.journal"
STUDY = "sweep"
KEPT_DIGITS = 6


class Range(Config):
    """Numbers from `low` to `high`."""

    low: float = Field(ge=-1e300, le=1e300)
    high: float = Field(ge=-1e300, le=1e300)
    log: bool = False
    """Evenly in the logarithm."""
    integer: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> "Range":
        if not self.low < self.high or (self.log and self.low <= 0.0):
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}, and above 0 with log: true")
        if self.integer and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError(f"low {self.low:g} and high {self.high:g} must be whole numbers with integer: true")
        return self

    @property
    def ends(self) -> tuple[Scalar, Scalar]:
        return (int(self.low), int(self.high)) if self.integer else (self.low, self.high)


@searches.register
class OptunaSearch(Search):
    """`trials` points of a space, chosen by one of Optuna's samplers."""

    kind: Literal["optuna"] = "optuna"
    trials: int = Field(20, ge=1, le=10**6)
    space: dict[str, Range | tuple[Scalar, ...]] = Field(
        {"optim.lr": Range(low=0.005, high=0.08, log=True)}, min_length=1
    )
    """By option: `{low, high, log, integer}`, or a list of values to choose from."""
    sampler: Literal["tpe", "random", "qmc"] = "tpe"
    """Tree-structured Parzen estimator; uniform; a scrambled Sobol sequence, which covers the space evenly."""
    seed: int = Field(0, ge=0, le=(1 << 63) - 1)
    """Of the sampler."""
    pruning: Literal["none", "median"] = "none"
    pruning_startup: int = Field(4, ge=1, le=10**6)
    """Complete trials before one is pruned."""

    @model_validator(mode="after")
    def _has_values(self) -> "OptunaSearch":
        for key, values in self.space.items():
            if isinstance(values, tuple) and len(set(map(repr, values))) != max(1, len(values)):
                raise ValueError(f"space.{key} needs values, each of them once")
        return self

    @property
    def parameters(self) -> tuple[str, ...]:
        return tuple(self.space)

    def corners(self) -> list[Values]:
        ends = [values.ends if isinstance(values, Range) else values for values in self.space.values()]
        if len(ends) <= 4 and sum(map(len, ends)) <= 24:
            return [dict(zip(self.space, point, strict=True)) for point in itertools.product(*ends)]
        first = [values[0] for values in ends]
        changed = [
            (*first[:place], value, *first[place + 1 :]) for place, values in enumerate(ends) for value in values
        ]
        points = [*changed, tuple(values[-1] for values in ends)]
        return [dict(zip(self.space, point, strict=True)) for point in points]

    def first(self, seeds: Sequence[int]) -> list[Trial]:
        return []

    def most(self, seeds: Sequence[int]) -> int:
        return self.trials * len(seeds)

    def outline(self, seeds: Sequence[int]) -> list[str]:
        lines = [f"{self.trials} points by {self.sampler}, pruning {self.pruning}"]
        for key, values in self.space.items():
            if isinstance(values, Range):
                low, high = values.ends
                kind = " in whole numbers" if values.integer else ""
                lines.append(f"{key} from {low} to {high}{kind}{', logarithmic' if values.log else ''}")
            else:
                lines.append(f"{key} one of {', '.join(map(str, values))}")
        return lines

    def wanted(self, seeds: Sequence[int], outcomes: Outcomes, slots: int, folder: Path) -> list[Trial]:
        if not slots and not (folder / JOURNAL).is_file():
            return []
        with _study(folder) as (study, storage):
            running = 0
            for frozen in study.get_trials(deepcopy=False):
                if frozen.state.is_finished():
                    continue
                ended = [outcomes.get((_name(frozen.number), seed)) for seed in seeds]
                if None in ended:
                    running += len(seeds)
                elif slots:
                    self._tell(study, storage, frozen.number, [outcome for outcome in ended if outcome is not None])
            found = study.get_trials(deepcopy=False)
            while running < slots and len(found) < self.trials:
                study.add_trial(self._ask(found))
                running += len(seeds)
                found = study.get_trials(deepcopy=False)
            return [
                Trial(_name(frozen.number), dict(frozen.params), seed)
                for frozen in found[: self.trials]
                for seed in seeds
            ]

    def hopeless(self, curve: Curve, others: Sequence[Curve]) -> bool:
        if self.pruning == "none" or len(others) < self.pruning_startup or len(curve) < 2:
            return False
        tokens = curve[-1][0]  # the curve's first point is from before training
        there = [value for other in others for at, value in other if at == tokens]
        if len(there) < self.pruning_startup:
            return False
        return min(value for _, value in curve) > statistics.median(there)

    def _tell(self, study: "optuna.Study", storage: Any, number: int, ended: list[Outcome]) -> None:
        from optuna.trial import TrialState

        if any(outcome.state == "failed" for outcome in ended):
            return  # tried again when the sweep goes on
        if any(outcome.state == "pruned" for outcome in ended):
            identity = storage.get_trial_id_from_study_id_trial_number(storage.get_study_id_from_name(STUDY), number)
            for tokens, value in next(outcome.curve for outcome in ended if outcome.state == "pruned"):
                storage.set_trial_intermediate_value(identity, int(tokens), value)
            study.tell(number, state=TrialState.PRUNED)
            return
        study.tell(number, sum(outcome.value for outcome in ended) / len(ended))

    def _ask(self, found: "list[optuna.trial.FrozenTrial]") -> "optuna.trial.FrozenTrial":
        """The next trial after `found`, as one that is running."""
        import optuna

        distributions = {key: _distribution(values) for key, values in self.space.items()}
        number = len(found)
        if self.sampler == "qmc":
            params = self._sobol(number)
        else:
            key = xxhash.xxh32_intdigest(f"{self.seed}/{number}".encode())
            sampler = (
                optuna.samplers.TPESampler(seed=key, constant_liar=True)
                if self.sampler == "tpe"
                else optuna.samplers.RandomSampler(seed=key)
            )
            copy = optuna.create_study(sampler=sampler)
            copy.add_trials(found)
            params = copy.ask(distributions).params
        params = {key: _readable(self.space[key], value) for key, value in params.items()}
        return optuna.create_trial(state=optuna.trial.TrialState.RUNNING, params=params, distributions=distributions)

    def _sobol(self, number: int) -> dict[str, Any]:
        """The point `number` of the scrambled Sobol sequence of the space."""
        from torch.quasirandom import SobolEngine

        engine = SobolEngine(len(self.space), scramble=True, seed=self.seed)
        places = engine.draw(number + 1)[-1].double().tolist()
        return {key: _at(values, place) for (key, values), place in zip(self.space.items(), places, strict=True)}


def _distribution(values: Range | tuple[Scalar, ...]) -> "optuna.distributions.BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not isinstance(values, Range):
        return CategoricalDistribution(values)
    if values.integer:
        return IntDistribution(int(values.low), int(values.high), log=values.log)
    return FloatDistribution(values.low, values.high, log=values.log)


def _at(values: Range | tuple[Scalar, ...], place: float) -> Scalar:
    """The value at `place` in [0, 1) of an axis."""
    if not isinstance(values, Range):
        return values[int(place * len(values))]
    # Whole numbers have equal shares of the axis, the ends included.
    low, high = (values.low - 0.5, values.high + 0.5) if values.integer else (values.low, values.high)
    value = low * (high / low) ** place if values.log else low + (high - low) * place
    if values.integer:
        return min(int(values.high), max(int(values.low), round(value)))
    return min(values.high, max(values.low, value))


def _readable(values: Range | tuple[Scalar, ...], value: Any) -> Any:
    """A drawn number without digits that nobody could mean, inside its range."""
    if not isinstance(values, Range) or values.integer:
        return value
    return min(values.high, max(values.low, rounded(value, KEPT_DIGITS)))


def _name(number: int) -> str:
    return f"trial-{number:03d}"


@contextlib.contextmanager
def _study(folder: Path) -> "Iterator[tuple[optuna.Study, Any]]":
    """The study in `folder` and its storage. Only one process works on a sweep, so that a lock or half a line in it
    was left by one that was killed."""
    try:
        import optuna
        from optuna.storages.journal import JournalFileBackend
    except ImportError:
        raise BadInput("search.kind=optuna needs a package: pip install 'inlay[search]'") from None
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal = folder / JOURNAL
    with disk_errors(journal):
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"{JOURNAL}.lock*"):
            left.unlink(missing_ok=True)
        _cut_half_line(journal)
        try:
            storage = optuna.storages.JournalStorage(JournalFileBackend(str(journal)))
            study = optuna.create_study(
                study_name=STUDY,
                storage=storage,
                direction="minimize",
                load_if_exists=True,
                sampler=optuna.samplers.RandomSampler(0),
                pruner=optuna.pruners.NopPruner(),
            )
            yield study, storage
        finally:
            optuna.logging.set_verbosity(before)


def _cut_half_line(journal: Path) -> None:
    """Takes away what a killed process has left behind the last whole line."""
    if not journal.is_file():
        return
    data = read_bounded(journal)
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(journal, whole)
