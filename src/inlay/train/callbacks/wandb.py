"""Weights & Biases: what is logged, as one run of a project there. Offline unless asked: no network, no login.

An offline run lies under RUN/wandb and is sent with `wandb sync RUN/wandb/offline-run-*`. A resumed run goes on under
its id, which RUN/wandb/inlay.json keeps. A kill loses what wandb had not written yet, so a resumed run first hands over
again what metrics.jsonl holds, from where wandb's own record ends; offline that is the beginning, and the new folder
replaces the one before: every step is there once.
"""

import json
import secrets
import shutil
from collections.abc import Iterator, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from inlay.config import BadInput, InlayError
from inlay.config.files import disk_errors, json_lines, parse_json, read_bounded_text, write_atomic
from inlay.train.callback import Callback, CallbackConfig, callbacks

if TYPE_CHECKING:
    from inlay.train.trainer import Trainer

FOLDER = "wandb"
STATE = "inlay.json"
SAMPLE_COLUMNS = ("step", "category", "path", "prefix", "middle", "suffix", "gold", "exact", "stopped")


@callbacks.register
class WandbConfig(CallbackConfig):
    """Hands every logged number to wandb, against the step, and samples as a table.

    Needs the package: pip install 'inlay[track]'.
    """

    kind: Literal["wandb"] = "wandb"
    mode: Literal["offline", "online"] = "offline"
    """`online` sends while training and needs a login (`wandb login`, or WANDB_API_KEY)."""
    project: str = "inlay"
    name: str | None = None
    """Of the run; null for the name of its directory."""
    group: str | None = None
    tags: tuple[str, ...] = ()

    def build(self) -> "Wandb":
        return Wandb(self)


class Wandb(Callback):
    """The callback of WandbConfig."""

    def __init__(self, config: WandbConfig) -> None:
        self._config = config
        self._run: Any = None
        self._early: list[dict[str, Any]] | None = []
        """What callbacks that start before this one logged; None once it has started."""
        self._samples: dict[int, list[dict[str, Any]]] = {}
        """Samples by step, whose scores are not logged yet."""

    def start(self, trainer: "Trainer") -> None:
        try:
            import wandb
        except ImportError:
            raise BadInput(
                "the callback 'wandb' needs the package wandb: pip install 'inlay[track]', or take the callback away"
            ) from None
        early, self._early = self._early or [], None
        if not trainer.parallel.main:
            return
        config, run = self._config, trainer.run
        folder = run.path / FOLDER
        name = _known_id(folder / STATE)
        resumed = name is not None
        if name is None:
            name = secrets.token_hex(4)
            write_atomic(folder / STATE, json.dumps({"id": name}) + "\n")
        try:
            # What wandb would collect about the machine, the code and the terminal is nobody's business by default.
            self._run = wandb.init(
                project=config.project,
                name=config.name or run.path.resolve().name,
                group=config.group,
                tags=list(config.tags) or None,
                id=name,
                resume="allow",
                mode=config.mode,
                dir=str(run.path),
                config=trainer.config.to_dict(),
                save_code=False,
                settings=wandb.Settings(
                    silent=True,
                    console="off",
                    disable_git=True,
                    disable_code=True,
                    x_disable_stats=True,
                    x_disable_machine_info=True,
                    x_save_requirements=False,
                ),
            )
        except (wandb.Error, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InlayError(f"wandb did not start: {reason}; callbacks.wandb.mode=offline needs no login") from None
        again = _logged(run.metrics_file, trainer.step) if resumed else ()
        if resumed:
            for sample in _logged(run.samples_file, trainer.step):
                self._samples.setdefault(sample["step"], []).append(sample)
        for values in (*again, *early):
            self._hand_over(values)
        if resumed and config.mode == "offline":
            current = Path(self._run.dir).resolve().parent
            with disk_errors(folder):
                for old in folder.glob(f"offline-run-*-{name}"):
                    if old.resolve() != current:
                        shutil.rmtree(old)

    def record(self, trainer: "Trainer", values: dict[str, Any]) -> None:
        if self._early is not None:
            self._early.append(values)
        if self._run is not None:
            self._hand_over(values)

    def samples(self, trainer: "Trainer", samples: Sequence[dict[str, Any]]) -> None:
        if self._run is not None:
            self._samples[trainer.step] = list(samples)

    def finish(self, trainer: "Trainer", completed: bool) -> None:
        if self._run is not None:
            run, self._run = self._run, None
            run.finish(exit_code=0 if completed else 1)

    def _hand_over(self, values: dict[str, Any]) -> None:
        step = values["step"]
        if step < self._run.step:  # online, a resumed run stands where the server's record ends
            return
        if "warning" in values:
            self._run.summary[f"warning/{values['warning']['rule']}"] = values["warning"]["text"]
        numbers = {name: float(value) for name, value in values.items() if isinstance(value, Real) and name != "step"}
        # A table goes with the scores of its samples: wandb takes one row of values a step.
        made = self._samples.pop(step, None) if any(name.startswith("samples/") for name in numbers) else None
        if made is not None:
            import wandb

            rows = [[sample.get(name) for name in SAMPLE_COLUMNS] for sample in made]
            self._run.log({**numbers, "samples": wandb.Table(columns=list(SAMPLE_COLUMNS), data=rows)}, step=step)
            return
        self._run.log(numbers, step=step)


def _known_id(path: Path) -> str | None:
    """The id under which the run is known to wandb; None for a new run, or a file that is no longer readable."""
    try:
        return str(parse_json(read_bounded_text(path))["id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _logged(metrics: Path, step: int) -> Iterator[dict[str, Any]]:
    """The lines of metrics.jsonl up to `step`, where the run goes on; none of a run that begins again."""
    if step == 0:
        return
    for values in json_lines(metrics):
        if isinstance(values.get("step"), int) and 0 <= values["step"] <= step:
            yield values
