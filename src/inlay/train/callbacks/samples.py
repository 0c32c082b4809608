"""Infills of fixed held-out gaps while training: what the numbers look like as text, and how often they are exact.

The gaps are the first of a fixed list, never picked by how they came out. Beside the gaps of the `held_out` task there
are some where nothing is missing and some where three tokens are: a model that does not stop in time shows it there
first.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from inlay.config.files import disk_errors
from inlay.evaluate.corpus import held_out
from inlay.evaluate.task import Corpus
from inlay.evaluate.tasks.held_out import EMPTY, HeldOutConfig
from inlay.evaluate.tasks.held_out import THREE_TOKENS as SHORT
from inlay.infer.engine import Engine
from inlay.infer.open import in_memory
from inlay.infer.samples import Gap, infill_samples
from inlay.text.store import TokenStore
from inlay.text.tokenizer import Tokenizer
from inlay.train.callback import Callback, CallbackConfig, callbacks, drop_lines_behind, due

if TYPE_CHECKING:
    from inlay.train.trainer import Trainer


MAX_TOKENS = 64
"""Of a sample."""


@callbacks.register
class SamplesConfig(CallbackConfig):
    """Writes samples.jsonl and logs the share of exact and of stopped infills, `samples/exact` over the gaps of the
    task, and `samples/CATEGORY/exact`, `/stopped` and `/count`."""

    kind: Literal["samples"] = "samples"
    times: int = Field(4, ge=1, le=10**6)
    """How often, evenly over the run, its end included."""
    every_steps: int | None = Field(None, ge=1, le=10**12)
    """In place of `times`: behind every so many steps, and the last."""
    gaps: int = Field(24, ge=1, le=10**5)
    probes: int = Field(4, ge=0, le=10**5)
    """Gaps more where nothing is missing, and as many where three tokens are."""

    def build(self) -> "Samples":
        return Samples(self)


class Samples(Callback):
    """The callback of SamplesConfig."""

    def __init__(self, config: SamplesConfig) -> None:
        self._config = config
        self._gaps: list[Gap] = []

    def start(self, trainer: "Trainer") -> None:
        if trainer.parallel.main:
            drop_lines_behind(trainer.run.samples_file, trainer.step)
        corpus = held_out(TokenStore.open(trainer.config.data.main, verify=False))
        listed = HeldOutConfig().gaps(corpus, trainer.tokenizer, limit=self._config.gaps)
        self._gaps = [*listed, *probe_gaps(corpus, trainer.tokenizer, self._config.probes)]
        if (most := self._max_tokens(trainer)) < MAX_TOKENS:
            length = trainer.config.train.sequence_length
            trainer.notice(f"samples are of at most {most} tokens, half a row of {length}, not of {MAX_TOKENS}")

    def step(self, trainer: "Trainer") -> None:
        if not due(trainer.step, trainer.total_steps, self._config.times, self._config.every_steps):
            return
        trainer.phase("samples")
        with trainer.whole_model() as model:
            opened = in_memory(model, trainer.tokenizer, trainer.config.to_dict(), trainer.step)
            samples = infill_samples(Engine(opened), self._gaps, max_tokens=self._max_tokens(trainer))
        if trainer.parallel.main:
            with disk_errors(trainer.run.samples_file), trainer.run.samples_file.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(sample) + "\n" for sample in samples)
            trainer.show_samples(samples)
        trainer.log(scores(samples))

    def _max_tokens(self, trainer: "Trainer") -> int:
        """The other half of a short row is the prompt's."""
        return min(MAX_TOKENS, trainer.config.train.sequence_length // 2)


def scores(samples: Sequence[dict[str, Any]]) -> dict[str, float]:
    """What SamplesConfig logs of lines of samples.jsonl."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for sample in samples:
        groups[sample["category"]].append(sample)
    task = [sample for sample in samples if sample["category"] not in (EMPTY, SHORT)]
    values = {f"samples/{name}": value for name, value in _shares(task).items()}
    for category, members in groups.items():
        values |= {f"samples/{category}/{name}": value for name, value in _shares(members).items()}
        values[f"samples/{category}/count"] = len(members)
    return values


def _shares(samples: Sequence[dict[str, Any]]) -> dict[str, float]:
    if not samples:
        return {}
    return {
        "exact": sum(sample["exact"] for sample in samples) / len(samples),
        "stopped": sum(sample["stopped"] == "eot" for sample in samples) / len(samples),
    }


def probe_gaps(corpus: Corpus, tokenizer: Tokenizer, count: int) -> list[Gap]:
    """`count` places where nothing is missing and up to `count` gaps of three tokens, one a document in a keyed order
    before any gets a second."""
    task = HeldOutConfig()
    return [gap for probe in (EMPTY, SHORT) for gap in task.probes(corpus, tokenizer, probe, count)]
