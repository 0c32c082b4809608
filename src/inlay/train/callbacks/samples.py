"""Infills of fixed held-out gaps while training: what the numbers look like as text, and how often they are exact.

The gaps are the first of a fixed list, never picked by how they came out.
"""

import json
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from inlay.config.files import disk_errors
from inlay.evaluate.corpus import held_out
from inlay.evaluate.tasks.held_out import HeldOutConfig
from inlay.infer.engine import Engine
from inlay.infer.open import in_memory
from inlay.infer.samples import infill_samples
from inlay.text.store import TokenStore
from inlay.train.callback import Callback, CallbackConfig, callbacks, drop_lines_behind

if TYPE_CHECKING:
    from inlay.train.trainer import Trainer


@callbacks.register
class SamplesConfig(CallbackConfig):
    """Writes samples.jsonl and logs the share of exact and of stopped infills."""

    kind: Literal["samples"] = "samples"
    times: int = Field(4, ge=1)
    """How often, evenly over the run, its end included."""
    gaps: int = Field(24, ge=1)

    def build(self) -> "Samples":
        return Samples(self)


class Samples(Callback):
    """The callback of SamplesConfig."""

    def __init__(self, config: SamplesConfig) -> None:
        self._config = config

    def start(self, trainer: "Trainer") -> None:
        drop_lines_behind(trainer.run.samples_file, trainer.step)
        corpus = held_out(TokenStore.open(trainer.config.data.path, verify=False))
        self._gaps = HeldOutConfig().examples(corpus, trainer.tokenizer, limit=self._config.gaps)

    def step(self, trainer: "Trainer") -> None:
        total, times = trainer.total_steps, self._config.times
        if total is None or trainer.step * times // total == (trainer.step - 1) * times // total:
            return
        trainer.phase("samples")
        with trainer.whole_model() as model:
            opened = in_memory(model, trainer.tokenizer, trainer.config.to_dict(), trainer.step)
            samples = infill_samples(Engine(opened), self._gaps)
        with disk_errors(trainer.run.samples_file), trainer.run.samples_file.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(sample) + "\n" for sample in samples)
        count = len(samples)
        trainer.log(
            {
                "samples/exact": sum(sample["exact"] for sample in samples) / count,
                "samples/stopped": sum(sample["stopped"] == "eot" for sample in samples) / count,
            }
        )
