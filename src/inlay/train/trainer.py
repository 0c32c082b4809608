"""The loop. Its state: weights, optimizer state, step, tokens, loader counters, the planned number of steps, seconds.

Nothing else decides a step, so a run that was killed and resumed has the same weights, bit for bit on a CPU, as one
that never stopped. Callbacks watch; the loop alone changes weights. A time budget is turned into a number of steps
once, after a few timed steps inside the warmup (whose rates do not depend on the total), and recorded.

On many processes each runs this same loop on its share of the rows. They do everything in the same order, and agree on
whatever only one of them can know: that the run is to stop, and what the clock says.
"""

import contextlib
import functools
import math
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, Literal

import numpy as np
import torch

from inlay.config import InlayError
from inlay.config.run_dir import RunDir
from inlay.data.loader import Batch, Loader, LoaderState, Rows, usable_workers
from inlay.data.mixture import MixedRows
from inlay.data.rows import Row
from inlay.model import Transformer, build
from inlay.train.compiler import why_not_compiled
from inlay.train.config import TrainRun
from inlay.train.distribute import gathered, whole
from inlay.train.guards import GuardStop
from inlay.train.meters import Meters
from inlay.train.nonfinite import NonFiniteSteps
from inlay.train.objectives import Measured, Objectives
from inlay.train.parallel import LOST, Parallel
from inlay.train.plan import TIMED_STEPS, Plan, Stage
from inlay.train.plan_table import plan_notice
from inlay.train.saving import Saver

LOG_EVERY = 10
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Signals that ask a run to save itself and stop. torchrun passes on the first two; the third is for schedulers: what
starts processes may ignore it, so that it reaches only those that train."""


class Interrupted(InlayError):
    """The run was asked to stop by a signal and has saved itself."""

    def __init__(self, message: str, number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.exit_status = 128 + number


class Trainer:
    """One run, in this process of it. Use `run_to_end`."""

    def __init__(
        self,
        config: TrainRun,
        run: RunDir,
        vocab_size: int | None = None,
        parallel: Parallel | None = None,
        fill: Callable[[Transformer], None] | None = None,
    ) -> None:
        """`vocab_size`: rows of the embedding, where they are more than the tokenizer's ids; `fill` replaces the
        weights that are drawn from the seed. Raises BadInput for rows that cannot be had, or not be shared."""
        self.config = config
        self.run = run
        self.parallel = parallel or Parallel.join(config.parallel)
        self.device = self.parallel.device
        self.plan = Plan(config)
        self.stage = self.plan.stages[0]
        with self.parallel.together():
            for stage in self.plan.stages:
                self.parallel.check_rows(stage.rows, stage.accumulation)
            # Those of later stages too: what is wrong with them shows now, not at their border.
            opened = [self._open_rows(stage) for stage in self.plan.stages]
            self.rows = opened[0]
        self.tokenizer = self.rows.tokenizer
        self.vocab_size = vocab_size or self.tokenizer.vocab_size
        # Whole and on the CPU first, so that weights are the same under every sharding.
        self.model = build(self.stage.model, self.vocab_size, seed=config.seed)
        if fill is not None:
            fill(self.model)
        if self.parallel.strategy != "fsdp":
            self.model.to(self.device)
        self.model.compute_dtype = getattr(torch, config.train.precision)
        self.model.activation_checkpointing = config.train.activation_checkpointing
        self.objectives = Objectives(self.model, config.train.z_loss, self.parallel)
        self.optimizer = config.optim.build(self.model)
        self.step = 0
        self.tokens = 0
        self.seconds = 0.0
        self.loader_state = LoaderState(store=self.rows.store_hash)
        self.savable = True
        """Whether weights, optimizer state and counters are all of one step, and finite as far as was seen."""
        self.meters = Meters()
        self.nonfinite = NonFiniteSteps(config.train.nonfinite, config.train.nonfinite_in_a_row)
        self.saver = Saver()
        self.callbacks = [callback.build() for callback in config.callbacks.values() if callback is not None]
        for callback, name in zip(self.callbacks, (name for name, c in config.callbacks.items() if c), strict=True):
            callback.name = name
        self.notices: list[str] = config.optim.notices()
        self._compiled: Literal["off", "untried", "works"] = "off"
        self._asked_to_stop: int | None = None
        """The signal that this process got."""
        self._stopped_by: int | None = None
        self._workers_told = False
        """The signal that any process of the run got, once all know."""

    @property
    def total_steps(self) -> int | None:
        """Steps of the whole run; None for a time budget that has not been turned into steps."""
        return self.plan.total_steps

    @functools.cached_property
    def held_out_row(self) -> Row:
        """The first validation row, made as training makes them: what probes look at."""
        config = self.config
        return config.data.open("validation", config.fim, config.train.sequence_length, 0).row(0, 0)

    # ---- the run -----------------------------------------------------------------------------------------------------

    def run_to_end(self) -> None:
        """Trains to the planned step.

        Raises Interrupted after one of STOPPING reached any of its processes, with a checkpoint saved;
        KeyboardInterrupt when SIGINT comes again before that; InlayError in one line when the gradient is not finite,
        the disk is full, or another process of the run is gone.
        """
        try:
            self._run_to_end()
        except RuntimeError as error:
            if not self.parallel.lost(error):
                raise
            raise InlayError(self._stopped_at(LOST)) from None

    def _run_to_end(self) -> None:
        completed = False
        with self._signals():
            try:
                self.saver.start(self)
                self.notices.append(self._plan_notice())
                self.objectives.join()
                for callback in self.callbacks:
                    callback.start(self)
                self._compile()
                self._loop()
                completed = self.total_steps is not None and self.step >= self.total_steps
            except BaseException as error:
                if self.parallel.world > 1:
                    self.savable = False  # saving takes all ranks, and others may be elsewhere
                if isinstance(error, KeyboardInterrupt):
                    raise KeyboardInterrupt(self._stopped_at("interrupted")) from None
                raise
            finally:
                # Every callback ends, also when one of them fails: the last one saves the checkpoint.
                with contextlib.ExitStack() as stack:
                    stack.callback(self.saver.finish)
                    for callback in reversed(self.callbacks):
                        stack.callback(callback.finish, self, completed)
        if not completed:
            number = signal.Signals(self._stopped_by or signal.SIGTERM)
            raise Interrupted(self._stopped_at(number.name), number)

    def _stopped_at(self, reason: str) -> str:
        return f"{reason} at step {self.step}; go on with: inlay train resume={self.run.path}"

    def _loop(self) -> None:
        while not self._ended and self._stopped_by is None:
            self._enter(self.plan.stage(self.step))
            self._run_stage()

    def _run_stage(self) -> None:
        """Trains to the end of the current stage, or until the run is asked to stop."""
        timed: list[float] = []
        parallel, workers = self.parallel, usable_workers(self.config.data.workers)
        if workers < self.config.data.workers and parallel.main and not self._workers_told:
            self._workers_told = True
            asked = self.config.data.workers
            print(f"data.workers={asked}: {workers} are started, two for each processor here", file=sys.stderr)
        with Loader(
            self.rows, self.stage.rows, self.loader_state, parallel.rank, parallel.world, workers=workers
        ) as loader:
            began = time.monotonic()
            before = self.seconds
            while self.plan.stage(self.step) is self.stage and not self._ended and not self._stops():
                started = time.monotonic()
                batch = next(loader)
                waited = time.monotonic() - started
                self._train_step(batch)
                self.step += 1
                self.tokens += self.stage.tokens_per_step
                self.loader_state = batch.after
                self.savable = True
                took = time.monotonic() - started
                if self.total_steps is None:
                    timed.append(took)
                    if len(timed) > TIMED_STEPS:
                        self._plan_from(timed[1:])
                        self.stage = self.plan.stage(self.step - 1)
                self.seconds = before + time.monotonic() - began
                self.meters.note("time", took)
                self.meters.note("wait", waited)
                if self.step % LOG_EVERY == 0 or self._ended:
                    self._log_training()
                for callback in self.callbacks:
                    callback.step(self)

    @property
    def _ended(self) -> bool:
        return self.total_steps is not None and self.step >= self.total_steps

    def _stops(self) -> bool:
        """Whether any process was asked to stop: all find the same, and so end behind the same step."""
        asked = [float(self._asked_to_stop == number) for number in STOPPING]
        found = self.parallel.sum(np.array(asked))
        self._stopped_by = next((number for number, count in zip(STOPPING, found, strict=True) if count), None)
        return self._stopped_by is not None

    def _train_step(self, batch: Batch) -> None:
        try:
            measured = self._gradients(batch)
        except RuntimeError as error:
            if self._compiled != "untried" or self.parallel.world > 1:
                raise  # other ranks are in the middle of a step with this one
            # A compiler that is there but cannot compile (no OpenMP, no Python headers) shows only now.
            self._without_compiling(f"it failed ({str(error).strip().splitlines()[0][:100]})")
            measured = self._gradients(batch)
        if self._compiled == "untried":
            self._compiled = "works"
        norm = self._clip()
        if self._skips(norm):
            return
        for callback in self.callbacks:
            callback.update(self, batch)
        self.savable = False
        self.optimizer.step(self.plan.multiplier(self.step), self.step, self.plan.remaining(self.step))
        self._drop_gradients()
        self.meters.note_batch(torch.cat(measured.losses).cpu().numpy(), batch, self.rows.source_names)
        self.meters.note("gradient_norm", norm)
        for name, (value, weight) in measured.sums.items():
            if weight > 0.0:
                self.meters.note(name, float(value), weight)

    def _gradients(self, batch: Batch) -> Measured:
        return self.objectives.backward(batch, self.stage.rows // self.stage.accumulation // self.parallel.world)

    def _drop_gradients(self) -> None:
        for parameter in self.model.parameters():
            parameter.grad = None

    def _clip(self) -> float:
        parameters = list(self.model.parameters())
        limit = self.config.train.clip
        norm = float(
            whole(torch.nn.utils.clip_grad_norm_(parameters, limit if limit is not None else math.inf, foreach=True))
        )
        if limit is not None and math.isfinite(norm):
            self.meters.note("clipped", float(norm > limit))
        return norm

    def _skips(self, norm: float) -> bool:
        """Whether the step is dropped because its gradient is not finite. Raises GuardStop when that ends the run."""
        bad = not math.isfinite(norm)
        self.meters.note("nonfinite", float(bad))
        if not bad:
            self.nonfinite.in_a_row = 0
            return False
        self.savable = False  # diverged weights must not become the newest checkpoint
        found = self.nonfinite.finding(norm, self.step, self.run.path)
        self.log({"warning": {"rule": found.rule, "text": found.text, "stops": found.stops}})
        if found.stops:
            raise GuardStop(found.rule, found.text)
        self._drop_gradients()
        return True

    # ---- plan, state -------------------------------------------------------------------------------------------------

    def _plan_from(self, timed: list[float]) -> None:
        minutes, per_step = self.config.train.minutes, statistics.median(timed)
        if minutes is None:
            raise AssertionError("only a time budget is planned from timed steps")
        # Every rank has a clock of its own, and all need one plan.
        spent, per_step = self.parallel.first(sum(timed)), self.parallel.first(per_step)
        left = max(0.0, minutes * 60.0 - spent)
        tokens = self.tokens + left / per_step * self.stage.tokens_per_step
        self.plan = self.plan.planned(self.plan.steps_of(tokens), self.step)
        self.log({"plan/total_steps": self.total_steps, "plan/seconds_per_step": per_step})
        self.notice(self._plan_notice())

    def _plan_notice(self) -> str:
        """The plan as a table, for the user. Raises BadInput for a mixture that the stores do not give."""
        with self.parallel.together():
            return plan_notice(self.config, self.plan, self.rows)

    def save(self) -> None:
        """Writes the checkpoint of the current step; every rank calls it together."""
        self.saver.save(self)

    def load(self) -> None:
        """Takes the newest undamaged checkpoint of the run; see `Saver.load`."""
        self.saver.load(self)

    def restore(self, record: dict[str, Any]) -> None:
        """Takes the counters of a checkpoint's record."""
        self.step, self.tokens, self.seconds = record["step"], record["tokens"], record["seconds"]
        if self.total_steps is None and record["total_steps"] is not None:
            self.plan = self.plan.planned(record["total_steps"])
        self.loader_state = LoaderState(**record["loader"])
        self.meters.sums = dict(record["sums"]) if self.parallel.main else {}

    @contextlib.contextmanager
    def whole_model(self) -> Iterator[Transformer]:
        """The model with all its weights on this rank, in evaluation mode, for as long as the context lasts. Every rank
        enters and leaves it together."""
        if self.parallel.strategy == "fsdp":
            yield gathered(self.model).eval()
            return
        training = self.model.training
        self.model.eval()
        try:
            yield self.model
        finally:
            self.model.train(training)

    def _enter(self, stage: Stage) -> None:
        """Makes rows and model those of a stage; at its first step the stream of rows goes over into its own."""
        before = self.stage
        self.stage = stage
        if not stage.same_rows(before):
            self.rows = self._open_rows(stage)
        if stage.model != self.model.config:
            self.model.adopt(stage.model)
        if stage.index != before.index and self.step == stage.start:
            # Not `before`: a run that resumes right here enters this stage from the first one.
            if stage.order != self.plan.stages[stage.index - 1].order:
                self.loader_state = self.rows.begin_stage(self.loader_state)
            self.phase(f"stage {stage.name}")

    def _open_rows(self, stage: Stage) -> Rows | MixedRows:
        return self.config.data.open("train", stage.fim, stage.sequence_length, self.config.seed, stage.shares)

    # ---- compile, signals, logs --------------------------------------------------------------------------------------

    def _compile(self) -> None:
        if not self.config.train.compile:
            return
        # All ranks compile or none does: rounding differs, and copies must not.
        reasons = [reason for reason in self.parallel.gather(why_not_compiled(self.device)) if reason is not None]
        if reasons:
            self._without_compiling(reasons[0])
            return
        self.phase("compiling")
        self.objectives.compile()  # validation, whose shapes differ, stays eager
        self._compiled = "untried"

    def _without_compiling(self, reason: str) -> None:
        self.objectives.eager()
        self._compiled = "off"
        self._drop_gradients()
        self.notice(f"training without torch.compile, about a third slower: {reason}")

    def phase(self, name: str) -> None:
        """Tells callbacks that something that takes a while begins."""
        for callback in self.callbacks:
            callback.phase(self, name)

    def notice(self, line: str) -> None:
        """A line the user should read, once."""
        self.notices.append(line)
        self.phase(line)

    def show_samples(self, samples: Sequence[dict[str, Any]]) -> None:
        """Hands infilled samples to every callback, before their scores are logged."""
        for callback in self.callbacks:
            callback.samples(self, samples)

    def log(self, values: dict[str, Any]) -> None:
        """Hands `values` with step, tokens and seconds to every callback."""
        record = {"step": self.step, "tokens": self.tokens, "seconds": round(self.seconds, 3), **values}
        for callback in self.callbacks:
            callback.record(self, record)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def ask(number: int, frame: FrameType | None) -> None:
            if self._asked_to_stop is not None and number == signal.SIGINT:
                raise KeyboardInterrupt  # asked twice: the user does not want to wait for the step
            self._asked_to_stop = number

        try:
            before = {number: signal.signal(number, ask) for number in STOPPING}
        except ValueError:  # not in the main thread: the caller handles signals
            before = {}
        try:
            yield
        except BaseException:
            if self.parallel.world > 1:
                before = {}  # torchrun ends all processes when one has failed: there must be time to say why
            raise
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _log_training(self) -> None:
        means = self.meters.take(self.parallel)
        seconds, wait = means.pop("time"), means.pop("wait")
        values = {name if "/" in name else f"train/{name}": value for name, value in means.items()}
        values["lr_multiplier"] = self.plan.multiplier(self.step - 1)
        values["tokens_per_second"] = self.stage.tokens_per_step / seconds
        values["loader_share"] = wait / seconds
        self.log(values)
