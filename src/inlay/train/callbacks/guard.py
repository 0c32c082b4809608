"""Early warnings while a run trains: applies the rules of `inlay.train.guards`, logs what they find, and stops the run.

Every rank collects what it sees, all ranks put it together at a few steps, and so find the same and stop together. A
finding is logged as `warning: {rule, text, stops}`; one that stops ends the run with that line.
"""

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from inlay.text.store import TokenStore
from inlay.train.callback import Callback, CallbackConfig, callbacks
from inlay.train.guards import (
    COUNTS,
    SMOOTHED,
    Finding,
    GuardStop,
    RowWatch,
    Text,
    count_leaks,
    hash_rows,
    impossible_loss,
    leaking_targets,
    memorising,
    nonfinite,
    repeating_rows,
)
from inlay.train.leaks import find_leaks, leaking_validation
from inlay.train.probes import Probe, causality, loss_precision, probe_loss
from inlay.train.text_floor import measure

if TYPE_CHECKING:
    from inlay.data.loader import Batch
    from inlay.train.trainer import Trainer

Action = Literal["stop", "warn", "off"]

EAGER_STEPS = 8
"""First steps after which rows are looked at each time; later at every CHECK_EVERY-th."""
CHECK_EVERY = 10
COUNTED_STEPS = 64
"""Steps whose rows are searched for their targets: what is wrong with them is wrong from the start."""
SPOILED = frozenset({"nonfinite", "loss_precision", "leaking_targets"})
"""Rules after which the newest weights are not worth a checkpoint."""


@callbacks.register
class GuardConfig(CallbackConfig):
    """What each rule does when it finds something that stops a run: `stop`, only `warn`, or `off`.

    Costs: at the start a second of reading the store and a forward pass of four rows; that pass and the head's loss of
    one micro-batch at each validation; a hash of each row.
    """

    kind: Literal["guard"] = "guard"
    nonfinite: Action = "stop"
    """A logged loss is not a number. (A gradient that is none: `train.nonfinite`.)"""
    impossible_loss: Action = "stop"
    """The training loss is lower than the text allows: in the first pass over the data under a tenth of a bit a byte
    (less where text repeats itself) and half of the validation loss, or in the first steps under a quarter of the
    unigram's."""
    loss_precision: Action = "stop"
    """The loss of training is not the float64 cross-entropy of its logits."""
    leaking_targets: Action = "stop"
    """Rows or attention show the model what it is asked for."""
    repeating_rows: Action = "stop"
    """Rows come again within an epoch."""
    leaking_validation: Action = "stop"
    """Held-out documents are in the training text."""
    memorising: Literal["warn", "off"] = "warn"
    """Later the validation loss rises while the training loss falls. Never stops a run."""
    validation_documents: int = Field(64, ge=1, le=10**6)
    """Held-out documents of each store that are looked for in the training text."""

    def build(self) -> "Guard":
        return Guard(self)


class Guard(Callback):
    """The callback of GuardConfig."""

    def __init__(self, config: GuardConfig) -> None:
        self._config = config
        self._probe: Probe | None = None
        self._training: list[dict[str, Any]] = []
        self._validation: dict[str, Any] = {}
        self._best: dict[str, float] = {}
        self._logged: list[dict[str, Any]] = []
        self._validated = False
        self._counts = np.zeros(len(COUNTS), dtype=np.int64)
        self._waiting: list[tuple[dict[int, int], list[tuple[int, int]]]] = []
        self._watches: dict[int, RowWatch] = {}
        self._said: set[tuple[str, bool]] = set()
        self._text = Text(1.0)
        self._counted = 0

    def start(self, trainer: "Trainer") -> None:
        config = trainer.config
        split = TokenStore.open(config.data.main, verify=False).split("train")
        if self._config.impossible_loss != "off":
            self._text = measure(split)
        if self._config.leaking_validation != "off":
            self._search(trainer)
        if self._config.leaking_targets != "off" or self._config.loss_precision != "off":
            self._probe = Probe.of(trainer.held_out_row, trainer.vocab_size, trainer.device)
            self._look(trainer)
        for values in self._logged:  # validation may have measured the beginning already
            self._read(trainer, values)
        self._logged, self._validated = [], False

    def update(self, trainer: "Trainer", batch: "Batch") -> None:
        if self._config.leaking_targets != "off" and self._counted < COUNTED_STEPS:
            self._counts += count_leaks(batch)
            self._counted += 1
        if self._config.repeating_rows != "off":
            epochs = dict(enumerate(place.epoch for place in batch.after.sources.values())) or {0: batch.after.epoch}
            self._waiting.append((epochs, list(zip(batch.sources.tolist(), hash_rows(batch), strict=True))))

    def record(self, trainer: "Trainer", values: dict[str, Any]) -> None:
        self._logged.append(values)

    def step(self, trainer: "Trainer") -> None:
        logged, self._logged = self._logged, []
        for values in logged:
            self._read(trainer, values)
        if trainer.step <= EAGER_STEPS or not trainer.step % CHECK_EVERY or trainer.step == trainer.total_steps:
            self._check_rows(trainer)
        if self._validated:
            self._validated = False
            self._act(trainer, self._loss_rule(trainer))
            if self._seen_again(trainer):
                self._act(trainer, memorising(self._training, self._validation, self._best))
            for name, value in self._validation.items():
                if name.endswith("/loss"):
                    self._best[name] = min(float(value), self._best.get(name, math.inf))
            if self._probe is not None:
                self._look(trainer)

    # ---- the rules ---------------------------------------------------------------------------------------------------

    def _read(self, trainer: "Trainer", values: dict[str, Any]) -> None:
        self._act(trainer, nonfinite(values, trainer.step))
        if "train/loss" in values:
            self._training = [*self._training, {"step": trainer.step, **values}][-SMOOTHED:]
        if any(name.startswith("validation/") for name in values):
            self._validation, self._validated = values, True
        elif "train/loss" in values and not self._validation:
            self._act(trainer, self._loss_rule(trainer))

    def _loss_rule(self, trainer: "Trainer") -> Finding | None:
        run = trainer.config
        fim = trainer.stage.fim
        alike = (
            run.start_from is None
            and fim.level == "context"
            and trainer.stage.sequence_length == run.train.sequence_length
            and min(fim.loss.to_dict().values()) > 0.0
        )
        return impossible_loss(
            self._training,
            self._validation,
            first_pass=not self._seen_again(trainer),
            text=self._text,
            like_validation=alike,
        )

    @staticmethod
    def _seen_again(trainer: "Trainer") -> bool:
        """Whether a source is beyond its first pass."""
        state = trainer.loader_state
        return max([place.epoch for place in state.sources.values()] or [state.epoch]) > 0

    def _search(self, trainer: "Trainer") -> None:
        """One process reads the stores; what it finds is everybody's."""
        found = None
        paths = trainer.config.data.paths
        if trainer.parallel.main:
            stores = [TokenStore.open(path, verify=False) for path in paths]
            training = [store.split("train") for store in stores]
            held_out = [(path, store.split("validation")) for path, store in zip(paths, stores, strict=True)]
            findings = [
                leaking_validation(find_leaks(split, training, self._config.validation_documents), path)
                for path, split in held_out
            ]
            found = max(filter(None, findings), key=lambda finding: finding.stops, default=None)
        self._act(trainer, trainer.parallel.gather(found)[0])

    def _look(self, trainer: "Trainer") -> None:
        probe = self._probe
        if probe is None:
            return
        stage = trainer.stage
        slots = stage.rows // stage.accumulation // trainer.parallel.world * stage.sequence_length
        with trainer.whole_model() as model:
            hidden = probe.hidden(model)
            leak = causality(probe, hidden, model.config.document_masks)
            gaps = probe_loss(probe, hidden, model, trainer.objectives, slots)
        trainer.log({"probe/loss_gap": gaps.mean, "probe/token_loss_gap": gaps.token})
        # Whole models are equal on all ranks, kernels need not be: rank 0 decides.
        for finding in trainer.parallel.gather((leak, loss_precision(gaps)))[0]:
            self._act(trainer, finding)

    def _check_rows(self, trainer: "Trainer") -> None:
        waiting, self._waiting = self._waiting, []
        parts = trainer.parallel.gather((self._counts, waiting))
        if self._config.leaking_targets != "off":
            self._act(trainer, leaking_targets(np.sum([counts for counts, _ in parts], axis=0)))
        for batches in zip(*(rows for _, rows in parts), strict=True):
            by_source: dict[int, list[int]] = {}
            for _, rows in batches:
                for source, value in rows:
                    by_source.setdefault(source, []).append(value)
            for source, values in by_source.items():
                self._watches.setdefault(source, RowWatch()).add(values, batches[0][0][source])
        repeats = sum(watch.repeats for watch in self._watches.values())
        self._act(trainer, repeating_rows(repeats, sum(watch.seen for watch in self._watches.values())))

    def _act(self, trainer: "Trainer", finding: Finding | None) -> None:
        """Logs a finding, once for each rule and outcome, and stops when that is what it asks for."""
        action = "off" if finding is None else getattr(self._config, finding.rule)
        if finding is None or action == "off":
            return
        stops = finding.stops and action == "stop"
        if (finding.rule, finding.stops) in self._said:
            return
        self._said.add((finding.rule, finding.stops))
        trainer.log({"warning": {"rule": finding.rule, "text": finding.text, "stops": stops}})
        if stops:
            if finding.rule in SPOILED:
                trainer.savable = False
            raise GuardStop(
                finding.rule,
                f"stopped at step {trainer.step} by the rule '{finding.rule}': {finding.text};"
                f" callbacks.guard.{finding.rule}=warn goes on all the same",
            )
