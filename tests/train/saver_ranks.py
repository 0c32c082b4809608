"""Processes of a made-up run, for tests of the saver alone: a small module, sharded or not, and how it is trained.

`python saver_ranks.py JOBS`: JOBS is a JSON list of jobs, each done by `world` forked processes, one job after the
other; torch is imported once. Every update is by elements and every gradient the same on all ranks, so the weights
must be the same bits on any number of ranks. Prints one JSON object a rank: what it raised, and what `do` says.
"""

import json
import os
import shutil
import sys
import time
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from inlay.config import InlayError, files, validate
from inlay.config.run_dir import RunDir
from inlay.model import checkpoint
from inlay.train.config import TrainRun
from inlay.train.meters import Meters
from inlay.train.optimizer import Optimizer
from inlay.train.parallel import Parallel
from inlay.train.saving import Saver


class Model(nn.Module):
    """Shapes that 2 and 4 ranks cannot share evenly: some ranks have nothing of some."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 6)
        self.inner = nn.ModuleList([nn.Linear(6, 5), nn.Linear(5, 3, bias=False)])
        self.gain = nn.Parameter(torch.ones(1))
        self.config = SimpleNamespace(to_dict=lambda: {"width": 6})

    def forward(self, step: int) -> Tensor:
        """The sum of all parameters times numbers that depend on names and the step."""
        total = torch.zeros(())
        for layer in self.inner:
            width = layer.weight.shape[1]
            total = total + (layer(torch.linspace(-1, 1, width).expand(2, width)) * (0.3 + step)).sum()
        return total + (self.table(torch.arange(7)) * torch.linspace(-step, 2, 6)).sum() + (self.gain * step).sum()


class Adam(Optimizer):
    """AdamW by name; a counter of its own shape besides, as optimizers have."""

    def __init__(self, model: nn.Module) -> None:
        self.names = [name for name, _ in model.named_parameters()]
        self.adamw = torch.optim.AdamW(model.parameters(), lr=0.1)
        self.seen = torch.zeros(3, dtype=torch.int64)

    def step(self, multiplier: float, step: int) -> None:
        self.adamw.step()
        self.seen += step

    def state(self) -> dict[str, Tensor]:
        state = self.adamw.state_dict()["state"]
        named = {f"{name}|{key}": value for i, name in enumerate(self.names) for key, value in state[i].items()}
        return {**named, "table.weight|seen": self.seen}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.seen = state["table.weight|seen"].clone()
        moments = {
            i: {key: state[f"{name}|{key}"] for key in ("step", "exp_avg", "exp_avg_sq")}
            for i, name in enumerate(self.names)
        }
        self.adamw.load_state_dict({**self.adamw.state_dict(), "state": moments})


class Trainer:
    """As much of a trainer as the saver asks for."""

    def __init__(self, path: Path, config: TrainRun, kind: str, rank: int, world: int) -> None:
        self.run, self.config = RunDir(path), config
        self.parallel = Parallel(torch.device("cpu"), rank, world)
        torch.manual_seed(3)
        self.model = Model()
        if kind == "fsdp":
            for inner in self.model.inner:
                fully_shard(inner)
            fully_shard(self.model)
        self.optimizer = Adam(self.model)
        self.meters, self.callbacks, self.notices = Meters(), [], []
        self.rows, self.tokenizer = SimpleNamespace(store_hash="s"), SimpleNamespace(hash="t")
        self.loader_state = SimpleNamespace(to_dict=lambda: {"epoch": 0, "row": self.step, "store": "s"})
        self.plan, self.stage = SimpleNamespace(context=lambda stage: 128), None
        self.step, self.tokens, self.seconds, self.total_steps, self.vocab_size = 0, 0, 0.0, 9, 7

    def train(self, steps: int) -> None:
        for _ in range(steps):
            self.step += 1
            self.tokens += 10
            self.model.zero_grad()
            self.model(self.step).backward()
            self.optimizer.step(1.0, self.step)
            self.meters.note("ranks", 1.0)

    def restore(self, record: dict[str, Any]) -> None:
        self.step, self.tokens = record["step"], record["tokens"]
        self.meters.sums = dict(record["sums"]) if self.parallel.main else {}

    def state(self) -> dict[str, list[float]]:
        """Weights and optimizer state, whole. Collective."""
        state = {**dict(self.model.named_parameters()), **self.optimizer.state()}
        whole = {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in state.items()}
        return {name: value.detach().double().flatten().tolist() for name, value in whole.items()}


def work(job: dict[str, Any], trainer: Trainer, rank: int) -> dict[str, Any]:
    """Loads where `load` says so, trains `steps` and saves, `saves` times over; `harm` does something to a rank."""
    saver = Saver()
    found: dict[str, Any] = {"errors": []}
    if job.get("load"):
        saver.load(trainer)  # type: ignore[arg-type]
    found["began"] = trainer.step
    put = files._put
    for number in range(job.get("saves", 1)):
        trainer.train(job["steps"])
        if number == job.get("harm_at", 0) and rank == job.get("harm_rank", 1):
            if job.get("harm") == "dies":
                files._put = lambda file, part: os._exit(9)  # type: ignore[assignment]
            if job.get("harm") == "full":
                files._put = full  # type: ignore[assignment]
        try:
            saver.save(trainer)  # type: ignore[arg-type]
            with torch.no_grad():  # what is being written must not see this
                torn = [parameter.detach().clone() for parameter in trainer.model.parameters()]
                for parameter in trainer.model.parameters():
                    parameter.fill_(777.0)
            saver.wait()
            with torch.no_grad():
                for parameter, value in zip(trainer.model.parameters(), torn, strict=True):
                    parameter.copy_(value)
        except InlayError as error:
            found["errors"].append(str(error))
            if job.get("harm") == "dies":
                return found
            with torch.no_grad():
                for parameter, value in zip(trainer.model.parameters(), torn, strict=True):
                    parameter.copy_(value)
        files._put = put
    saver.finish()
    return {**found, "step": trainer.step, "state": trainer.state(), "notices": trainer.notices}


def full(file: Any, part: memoryview) -> None:
    file.write(part[: len(part) // 2])
    raise OSError(28, "No space left on device")


def process(job: dict[str, Any], rank: int, store: Path, out: Path) -> None:
    world = job["world"]
    if job["kind"] != "plain":
        dist.init_process_group("gloo", store=dist.FileStore(str(store), world), rank=rank, world_size=world)
    config = validate(TrainRun, json.loads(Path(job["config"]).read_text()))
    trainer = Trainer(Path(job["run"]), config, job["kind"], rank, world)
    out.write_text(json.dumps(work(job, trainer, rank)))


def main() -> None:
    torch.set_num_threads(1)
    for number, job in enumerate(json.loads(sys.argv[1])):
        run = Path(job["run"])
        if "copy" in job:
            shutil.copytree(job["copy"], run, dirs_exist_ok=True)
        results = [run.parent / f"{run.name}-job{number}-rank{rank}.json" for rank in range(job["world"])]
        children = []
        for rank, out in enumerate(results):
            child = os.fork()
            if child == 0:
                try:
                    process(job, rank, run.parent / f"{run.name}-job{number}.store", out)
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
            children.append(child)
        began = time.monotonic()
        statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        ranks = [json.loads(out.read_text()) if out.exists() else None for out in results]
        there = [folder.name for folder in checkpoint.folders(run)]
        left = sorted(path.name for path in (run / "checkpoints").glob(".*"))
        took = time.monotonic() - began
        print(json.dumps({"status": statuses, "ranks": ranks, "there": there, "left": left, "seconds": took}))


if __name__ == "__main__":
    main()
