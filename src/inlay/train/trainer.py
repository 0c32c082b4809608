"""The loop. Its state: weights, optimizer state, step, tokens, loader counters, the planned number of steps, seconds.

Nothing else decides a step, so a run that was killed and resumed has the same weights, bit for bit on a CPU, as one
that never stopped. Callbacks watch; the loop alone changes weights. A time budget is turned into a number of steps
once, after a few timed steps inside the warmup (whose rates do not depend on the total), and recorded.
"""

import contextlib
import math
import signal
import statistics
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, Literal

import numpy as np
import torch

from inlay.config import BadInput, InlayError, validate
from inlay.config.run_dir import RunDir
from inlay.data.loader import Batch, Loader, LoaderState, Rows
from inlay.fim.format import Kind, Region
from inlay.model import build, checkpoint
from inlay.train.compiler import why_not_compiled
from inlay.train.config import TrainRun
from inlay.train.objectives import Measured, Objectives

TIMED_STEPS = 8
"""Steps that are timed to turn minutes into steps; the first one after compiling is not among them."""
LOG_EVERY = 10


class Interrupted(InlayError):
    """The run was asked to stop and has saved itself."""

    exit_status = 130


class Trainer:
    """One run in one process. Use `run_to_end`."""

    def __init__(self, config: TrainRun, run: RunDir, vocab_size: int | None = None) -> None:
        """`vocab_size`: rows of the embedding, where they are more than the tokenizer's ids."""
        self.config = config
        self.run = run
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        data, length = config.data, config.train.sequence_length
        self.rows = Rows(data.path, "train", config.fim, length, config.seed, data.shortest_piece)
        self.tokenizer = self.rows.maker.transform.format.tokenizer
        self.vocab_size = vocab_size or self.tokenizer.vocab_size
        self.model = build(config.model, self.vocab_size, seed=config.seed).to(self.device)
        self.model.compute_dtype = getattr(torch, config.train.precision)
        self.model.activation_checkpointing = config.train.activation_checkpointing
        self.objectives = Objectives(self.model)
        self.optimizer = config.optim.build(self.model)
        self.step = 0
        self.tokens = 0
        self.seconds = 0.0
        self.loader_state = LoaderState(store=self.rows.store_hash)
        self.savable = True
        """Whether weights, optimizer state and counters are all of one step, and finite as far as was seen."""
        self.total_steps = self._planned_steps()
        self.callbacks = [callback.build() for callback in config.callbacks.values() if callback is not None]
        self.notices: list[str] = []
        self._compiled: Literal["off", "untried", "works"] = "off"
        self._asked_to_stop: int | None = None
        self._sums: dict[str, float] = {}

    # ---- the run -----------------------------------------------------------------------------------------------------

    def run_to_end(self) -> None:
        """Trains to the planned step.

        Raises Interrupted after SIGINT or SIGTERM, with a checkpoint saved; KeyboardInterrupt when SIGINT comes again
        before that; InlayError in one line when the gradient is not finite or the disk is full.
        """
        completed = False
        with self._signals():
            try:
                for callback in self.callbacks:
                    callback.start(self)
                self._compile()
                self._loop()
                completed = self.total_steps is not None and self.step >= self.total_steps
            except KeyboardInterrupt:
                raise KeyboardInterrupt(self._stopped_at("interrupted")) from None
            finally:
                # Every callback ends, also when one of them fails: the last one saves the checkpoint.
                with contextlib.ExitStack() as stack:
                    for callback in reversed(self.callbacks):
                        stack.callback(callback.finish, self, completed)
        if not completed:
            raise Interrupted(self._stopped_at(signal.Signals(self._asked_to_stop or signal.SIGTERM).name))

    def _stopped_at(self, reason: str) -> str:
        return f"{reason} at step {self.step}; go on with: inlay train resume={self.run.path}"

    def _loop(self) -> None:
        train = self.config.train
        timed: list[float] = []
        with Loader(self.rows, train.rows, self.loader_state, workers=self.config.data.workers) as loader:
            began = time.monotonic()
            before = self.seconds
            while self.total_steps is None or self.step < self.total_steps:
                if self._asked_to_stop is not None:
                    return
                started = time.monotonic()
                batch = next(loader)
                waited = time.monotonic() - started
                self._train_step(batch)
                self.step += 1
                self.tokens += train.tokens_per_step
                self.loader_state = batch.after
                self.savable = True
                took = time.monotonic() - started
                if self.total_steps is None:
                    timed.append(took)
                    if len(timed) > TIMED_STEPS:
                        self._plan_from(timed[1:])
                self.seconds = before + time.monotonic() - began
                self._note("time", took, 1.0)
                self._note("wait", waited, 1.0)
                if self.step % LOG_EVERY == 0 or self.step == self.total_steps:
                    self._log_training()
                for callback in self.callbacks:
                    callback.step(self)

    def _train_step(self, batch: Batch) -> None:
        try:
            measured = self._gradients(batch)
        except RuntimeError as error:
            if self._compiled != "untried":
                raise
            # A compiler that is there but cannot compile (no OpenMP, no Python headers) shows only now.
            self._without_compiling(f"it failed ({str(error).strip().splitlines()[0][:100]})")
            measured = self._gradients(batch)
        if self._compiled == "untried":
            self._compiled = "works"
        norm = self._clip()
        self.savable = False
        self.optimizer.step(self.config.schedule.multiplier(self.step, self.total_steps or 1 << 40), self.step)
        self._drop_gradients()
        self._account(torch.cat(measured.losses).cpu().numpy(), batch, norm)
        for name, (value, weight) in measured.sums.items():
            if weight > 0.0:
                self._note(name, float(value), weight)

    def _gradients(self, batch: Batch) -> Measured:
        train = self.config.train
        return self.objectives.backward(batch, train.rows // train.accumulation)

    def _drop_gradients(self) -> None:
        for parameter in self.model.parameters():
            parameter.grad = None

    def _clip(self) -> float:
        parameters = list(self.model.parameters())
        limit = self.config.train.clip
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, limit if limit is not None else math.inf, foreach=True))
        if not math.isfinite(norm):
            # Diverged weights must not become the newest checkpoint.
            self.savable = False
            raise InlayError(
                f"the gradient is not finite at step {self.step}: start a new run with a smaller learning rate"
                f" (optim.lr=...); the last checkpoint of {self.run.path} is from before"
            )
        return norm

    # ---- plan, state -------------------------------------------------------------------------------------------------

    def _planned_steps(self) -> int | None:
        train = self.config.train
        if train.steps is not None:
            return train.steps
        if train.tokens is not None:
            return math.ceil(train.tokens / train.tokens_per_step)
        return None

    def _plan_from(self, timed: list[float]) -> None:
        minutes = self.config.train.minutes
        if minutes is None:
            raise AssertionError("only a time budget is planned from timed steps")
        spent = sum(timed)
        left = max(0.0, minutes * 60.0 - spent)
        self.total_steps = self.step + math.ceil(left / statistics.median(timed))
        self.log({"plan/total_steps": self.total_steps, "plan/seconds_per_step": statistics.median(timed)})

    def save(self) -> None:
        """Writes the checkpoint of the current step."""
        folder = self.run.checkpoint(self.step)
        record = {
            "step": self.step,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "total_steps": self.total_steps,
            "sums": self._sums,
            "config": self.config.to_dict(),
            "loader": self.loader_state.to_dict(),
            "model": self.config.model.to_dict(),
            "vocab_size": self.vocab_size,
            "tokenizer": self.tokenizer.hash,
            "torch": torch.__version__,
        }
        weights = {name: parameter.data for name, parameter in self.model.named_parameters()}
        checkpoint.write(folder, {checkpoint.WEIGHTS: weights, checkpoint.OPTIMIZER: self.optimizer.state()}, record)

    def load(self) -> None:
        """Takes the newest undamaged checkpoint of the run; with none it starts from the beginning, with a notice.

        Raises BadInput when the store or the configuration is another than the checkpoint's, InlayError when every
        checkpoint is damaged.
        """
        checkpoint.clear_unfinished(self.run.path)
        candidates = checkpoint.folders(self.run.path)
        if not candidates:
            self.notices.append("the run has no checkpoint yet: it starts from the beginning")
            return
        folder, record, skipped = checkpoint.newest_good(candidates, checkpoint.WEIGHTS, checkpoint.OPTIMIZER)
        self.notices += skipped
        if record["loader"]["store"] != self.rows.store_hash:
            raise BadInput(f"the store {self.config.data.path} is not the one that {self.run.path} was trained on")
        # Validated first: a run from before an option existed has its default.
        recorded = validate(TrainRun, record["config"], where=str(folder)).to_dict()
        then, now = _deciding(recorded), _deciding(self.config.to_dict())
        changed = ", ".join(group for group in now if then.get(group) != now[group])
        if changed:
            file = self.run.config_file
            raise BadInput(
                f"{file} has changed in {changed} since {folder.name} was saved: put it back, or start a new run with:"
                f" inlay train --config {file} out=DIR"
            )
        self.model.load_state_dict(checkpoint.read_tensors(folder, checkpoint.WEIGHTS))
        self.optimizer.load_state(checkpoint.read_tensors(folder, checkpoint.OPTIMIZER))
        self.step, self.tokens = record["step"], record["tokens"]
        self.seconds, self.total_steps = record["seconds"], record["total_steps"]
        self.loader_state = LoaderState(**record["loader"])
        self._sums = dict(record["sums"])

    # ---- compile, signals, logs --------------------------------------------------------------------------------------

    def _compile(self) -> None:
        if not self.config.train.compile:
            return
        reason = why_not_compiled(self.device)
        if reason is not None:
            self._without_compiling(reason)
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
            before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not in the main thread: the caller handles signals
            before = {}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _account(self, losses: np.ndarray, batch: Batch, norm: float) -> None:
        regions, kinds, weights = (array.reshape(-1) for array in (batch.regions, batch.kinds, batch.weights))
        trained = weights > 0.0
        self._note("loss", float((losses * weights).sum()), float(weights.sum()))
        for kind in Kind:
            chosen = trained & (kinds == kind)  # padding is never trained
            if chosen.any():
                self._note(f"loss_{kind.name.lower()}", float(losses[chosen].sum()), float(chosen.sum()))
        middle = trained & (regions == Region.MIDDLE)
        if middle.any():
            self._note("loss_middle", float(losses[middle].sum()), float(middle.sum()))
        self._note("gradient_norm", norm, 1.0)
        self._note("fill", float((regions != Region.PADDING).sum()), float(len(regions)))

    def _note(self, name: str, value: float, weight: float) -> None:
        self._sums[name] = self._sums.get(name, 0.0) + value
        self._sums[f"{name}|weight"] = self._sums.get(f"{name}|weight", 0.0) + weight

    def _log_training(self) -> None:
        means = {
            name: value / self._sums[f"{name}|weight"]
            for name, value in self._sums.items()
            if not name.endswith("|weight")
        }
        seconds, wait = means.pop("time"), means.pop("wait")
        self._sums.clear()
        values = {f"train/{name}": value for name, value in means.items()}
        values["lr_multiplier"] = self.config.schedule.multiplier(self.step - 1, self.total_steps or 1 << 40)
        values["tokens_per_second"] = self.config.train.tokens_per_step / seconds
        values["loader_share"] = wait / seconds
        self.log(values)


def _deciding(config: dict[str, Any]) -> dict[str, Any]:
    """The parts of a configuration that decide the weights. The store is compared by content, so that it may move."""
    data = {key: value for key, value in config["data"].items() if key not in ("path", "workers")}
    return {**{group: value for group, value in config.items() if group != "callbacks"}, "data": data}
