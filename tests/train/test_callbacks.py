"""Callbacks that measure and those that hand over: real files read back, numbers against slow computations."""

import builtins
import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.train.tiny_training import CALLBACKS, MODEL, At, assert_same, config, lines, start, weights
from torch.utils.flop_counter import FlopCounterMode

from inlay.config import BadInput, validate
from inlay.config.compose import compose_choice
from inlay.config.run_dir import RunDir
from inlay.data.loader import Batch, LoaderState
from inlay.model import ModelConfig, build
from inlay.model.masks import document_mask
from inlay.model.mixers import attention, mla
from inlay.train import flops
from inlay.train.callback import due
from inlay.train.callbacks.attention_logits import largest_logits
from inlay.train.callbacks.norms import qk_gains
from inlay.train.callbacks.samples import EMPTY, SHORT, scores
from inlay.train.callbacks.system import peak_memory
from inlay.train.config import TrainRun
from inlay.train.norms import group_norms, groups_of, squares
from inlay.train.objectives import Objectives
from inlay.train.trainer import Trainer


def run_with(store: Path, callbacks: dict[str, Any], steps: int = 20, **changes: Any) -> TrainRun:
    base = {name: CALLBACKS[name] for name in ("metrics", "validation", "checkpoints")}
    data = config(store, train={"steps": steps}, **changes).to_dict()
    return validate(TrainRun, {**data, "callbacks": {**base, **callbacks}})


def model_of(width: int = 32, seed: int = 3, vocab_size: int = 50, **changes: Any) -> Any:
    return build(validate(ModelConfig, {**MODEL, "width": width, **changes}), vocab_size, seed=seed)


class Killed(Exception):
    pass


def kill(trainer: Trainer) -> None:
    trainer.savable = False  # nothing is saved on the way out, as after SIGKILL
    raise Killed


def killed_and_resumed(run: TrainRun, out: Path, step: int = 13) -> None:
    trainer = start(run, out)
    trainer.callbacks.append(At(step, kill))
    with pytest.raises(Killed):
        trainer.run_to_end()
    resumed = Trainer(run, RunDir.open(out))
    resumed.load()
    assert 0 < resumed.step < step
    resumed.run_to_end()


# ---- TensorBoard, W&B ------------------------------------------------------------------------------------------------


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def logged(out: Path, name: str) -> list[tuple[int, float]]:
    return [(line["step"], line[name]) for line in lines(out) if name in line]


def test_tensorboard_has_what_was_logged_once(store: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    out = tmp_path / "run"
    killed_and_resumed(run_with(store, {"tensorboard": {"kind": "tensorboard"}}), out)
    found = scalars(out / "tensorboard")
    for name in ("train/loss", "validation/l2r/loss", "lr_multiplier"):
        steps = [step for step, _ in found[name]]
        assert steps == sorted(set(steps)), name
        assert steps == [step for step, _ in logged(out, name)]
        assert [value for _, value in found[name]] == pytest.approx([value for _, value in logged(out, name)], rel=1e-6)
    assert found["validation/l2r/loss"][0][0] == 0  # logged by a callback that starts before this one
    assert "step" not in found


def test_tensorboard_of_a_run_that_begins_again(store: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    out = tmp_path / "run"
    run = run_with(store, {"tensorboard": {"kind": "tensorboard"}, "checkpoints": None}, 12)
    trainer = start(run, out)
    trainer.callbacks.append(At(11, kill))
    with pytest.raises(Killed):
        trainer.run_to_end()
    again = Trainer(run, RunDir.open(out))
    again.load()
    again.run_to_end()
    assert [step for step, _ in scalars(out / "tensorboard")["train/loss"]] == [10, 12]


def wandb_history(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(run id, values) of each history record in the offline files: records in blocks of 32 kB, as in LevelDB's log."""
    from wandb.proto import wandb_internal_pb2

    for file in sorted(folder.glob("offline-run-*/*.wandb")):
        data, at, part, run = file.read_bytes(), 7, b"", ""
        while at + 7 <= len(data):
            left = 32768 - at % 32768
            if left < 7:
                at += left
                continue
            _, size, kind = struct.unpack("<IHB", data[at : at + 7])
            if kind == 0:
                break
            part += data[at + 7 : at + 7 + size]
            at += 7 + size
            if kind not in (1, 4):  # whole, or the last part
                continue
            record, part = wandb_internal_pb2.Record.FromString(part), b""
            if record.WhichOneof("record_type") == "run":
                run = record.run.run_id
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                yield run, {(i.nested_key[0] if i.nested_key else i.key): json.loads(i.value_json) for i in items}


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR", "WANDB_PROJECT", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.mark.usefixtures("offline")
def test_wandb_offline_goes_on_as_one_run(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    killed_and_resumed(run_with(store, {"wandb": {"kind": "wandb"}}), out)
    (folder,) = (out / "wandb").glob("offline-run-*")  # what the first process left is replaced
    history = list(wandb_history(out / "wandb"))
    name = json.loads((out / "wandb" / "inlay.json").read_text())["id"]
    assert {run for run, _ in history} == {name}
    assert folder.name.endswith(name)
    for key in ("train/loss", "validation/l2r/loss"):
        found = [(int(values["_step"]), values[key]) for _, values in history if key in values]
        assert found == logged(out, key)
    kept = {path.name for path in (folder / "files").rglob("*") if path.is_file()}
    assert kept.isdisjoint({"wandb-metadata.json", "requirements.txt"})  # nothing about the machine


SAMPLED = {"kind": "samples", "every_steps": 4, "gaps": 2, "probes": 0}


@pytest.mark.slow  # wandb's own process; beside all other tests its file once had no table yet when it was read
@pytest.mark.usefixtures("offline")
def test_wandb_gets_the_texts_of_samples_once(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    killed_and_resumed(run_with(store, {"samples": SAMPLED, "wandb": {"kind": "wandb"}}), out)
    written = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    tables = [int(values["_step"]) for _, values in wandb_history(out / "wandb") if "samples" in values]
    assert tables == sorted({line["step"] for line in written})
    (folder,) = (out / "wandb").glob("offline-run-*")
    rows = [row for file in folder.rglob("*.table.json") for row in json.loads(file.read_text())["data"]]
    expected = sorted((line["step"], line["prefix"], line["middle"]) for line in written)
    assert sorted((row[0], row[3], row[4]) for row in rows) == expected


def test_tensorboard_gets_the_texts_of_samples(store: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "run"
    start(run_with(store, {"samples": SAMPLED, "tensorboard": {"kind": "tensorboard"}}, 8), out).run_to_end()
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    texts = events.Tensors("sample 0/text_summary")
    assert [text.step for text in texts] == [4, 8]
    written = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert written[0]["path"] in texts[0].tensor_proto.string_val[0].decode()


@pytest.mark.parametrize(
    ("step", "total", "times", "every", "expected"),
    [
        (4, 16, 4, None, True), (5, 16, 4, None, False), (16, 16, 3, None, True), (3, None, 4, None, False),
        (6, 16, 4, 3, True), (4, 16, 4, 3, False), (16, 16, 4, 3, True), (3, None, 4, 3, True),
    ],
)  # fmt: skip
def test_what_is_due_by_count_or_by_steps(
    step: int, total: int | None, times: int, every: int | None, expected: bool
) -> None:
    assert due(step, total, times, every) is expected


def test_every_steps_takes_the_place_of_counts(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    members = {
        "progress": {"kind": "progress", "every_steps": 10},
        "validation": {"kind": "validation", "every_steps": 6, "rows": 2},
        "samples": SAMPLED,
    }
    start(run_with(store, members, 20), out).run_to_end()
    assert [step for step, _ in logged(out, "validation/l2r/loss")] == [0, 6, 12, 18, 20]
    assert [step for step, _ in logged(out, "samples/exact")] == [4, 8, 12, 16, 20]
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("train: step")]
    assert [line.split()[2] for line in said] == ["10/20", "20/20"]


def test_a_missing_package_is_one_line(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name in ("wandb", "torch.utils.tensorboard"):
            raise ImportError(name)
        return honest(name, *arguments, **options)

    for kind in ("wandb", "tensorboard"):
        trainer = start(run_with(store, {kind: {"kind": kind}}), tmp_path / kind)
        monkeypatch.setattr(builtins, "__import__", without)
        with pytest.raises(BadInput, match=r"pip install 'inlay\[track\]'"):
            trainer.run_to_end()
        monkeypatch.undo()


# ---- norms -----------------------------------------------------------------------------------------------------------


def test_norms_against_numpy(store: Path, tmp_path: Path) -> None:
    before: dict[str, np.ndarray] = {}
    gradients: dict[str, np.ndarray] = {}

    def note(trainer: Trainer) -> None:
        step = trainer.optimizer.step

        def watched(multiplier: float, number: int, *others: Any) -> None:
            if number == 5:
                for name, parameter in trainer.model.named_parameters():
                    before[name] = parameter.detach().double().numpy().copy()
                    gradients[name] = parameter.grad.double().numpy().copy()  # type: ignore[union-attr]
            step(multiplier, number, *others)

        trainer.optimizer.step = watched  # type: ignore[method-assign]

    trainer = start(run_with(store, {"norms": {"kind": "norms", "every_steps": 4}}, 6), tmp_path / "run")
    note(trainer)
    trainer.run_to_end()
    records = [line for line in lines(tmp_path / "run") if "norms/parameter/embedding" in line]
    assert [line["step"] for line in records] == [4, 6]  # the last step too
    after = {name: value.detach().double().numpy() for name, value in trainer.model.named_parameters()}
    block = [name for name in after if name.startswith("blocks.1.") and after[name].ndim == 2]

    def norm(values: dict[str, np.ndarray], names: list[str]) -> float:
        return math.sqrt(sum(float((values[name] ** 2).sum()) for name in names))

    for part, names in {"embedding": ["embedding.weight"], "block_last": block}.items():
        change = norm({name: after[name] - before[name] for name in names}, names)
        assert records[-1][f"norms/parameter/{part}"] == pytest.approx(norm(after, names), rel=1e-4)
        assert records[-1][f"norms/update/{part}"] == pytest.approx(change / norm(after, names), rel=1e-3)
        assert records[-1][f"norms/gradient/{part}"] == pytest.approx(norm(gradients, names), rel=1e-4)
    gains = [after[f"blocks.1.mixer.{which}_norm.weight"] for which in ("query", "key")]
    assert records[-1]["norms/qk_gain/1"] == pytest.approx(max(float(np.abs(gain).max()) for gain in gains))


def test_groups_cover_the_model() -> None:
    model = model_of(layers=5, tie_embeddings=False)
    groups = groups_of(model)
    assert set(groups) == {"embedding", "head", "block_first", "block_middle", "block_last", "matrices", "vectors"}
    named = {name for part in ("embedding", "head", "matrices", "vectors") for name in groups[part]}
    assert named == set(dict(model.named_parameters()))
    assert all(name.startswith("blocks.2.") for name in groups["block_middle"])
    assert group_norms(squares([]), groups) == {}
    assert qk_gains(model_of(blocks={"full": _plain()})) == {}


def _plain() -> dict[str, Any]:
    mixer = {**MODEL["blocks"]["full"]["mixer"], "qk_norm": False}
    return {**MODEL["blocks"]["full"], "mixer": mixer}


# ---- logits ----------------------------------------------------------------------------------------------------------

MLA = {"kind": "mla", "heads": 2, "kv_rank": 8, "nope_size": 8, "rope_size": 4, "value_size": 8}
MIXERS: dict[str, dict[str, Any]] = {
    "grouped": {"kind": "attention", "heads": 4, "kv_heads": 2, "head_size": 8},
    "window": {"kind": "attention", "heads": 2, "kv_heads": 1, "head_size": 8, "window": 5},
    "softcap": {"kind": "attention", "heads": 2, "kv_heads": 2, "head_size": 8, "softcap": 0.5, "qk_norm": False},
    "mla": MLA,
    "conv": {"kind": "short_conv"},
}


@pytest.mark.parametrize("kind", MIXERS)
def test_the_largest_logits_against_brute_force(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mlp = MODEL["blocks"]["full"]["mlp"]
    blocks = {"a": {"mixer": MIXERS[kind], "mlp": mlp}, "b": {"mixer": MIXERS["grouped"], "mlp": mlp}}
    model = model_of(blocks=blocks, pattern=["a", "b"], layers=4, head_softcap=2.0)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    length = 150  # more than one strip
    tokens = torch.randint(0, 50, (1, length), generator=generator)
    positions = torch.cat([torch.arange(90), torch.arange(60)])[None]
    values = largest_logits(model, tokens, positions)

    found: list[float] = []

    def slow(query: Any, key: Any, value: Any, mask: Any, *, scale: float | None = None, softcap: Any = None) -> Any:
        window = 5 if kind == "window" and len(found) % 2 == 0 else None
        dense = document_mask(positions, window, torch.float64)[0, 0]
        group = query.shape[1] // key.shape[1]
        size = query.shape[-1] ** -0.5 if scale is None else scale
        outputs, largest = [], -math.inf
        for head in range(query.shape[1]):
            scores = query[0, head].double() @ key[0, head // group].double().T * size
            largest = max(largest, float(scores[dense == 0].max()))
            capped = scores if softcap is None else softcap * torch.tanh(scores / softcap)
            outputs.append(torch.softmax(capped + dense, -1) @ value[0, head // group].double())
        found.append(largest)
        return torch.stack(outputs)[None].to(query.dtype)

    monkeypatch.setattr(attention, "attend", slow)
    monkeypatch.setattr(mla, "attend", slow)
    with torch.no_grad():
        hidden = model(tokens, positions)[0]
    layers = [index for index in range(4) if kind != "conv" or index % 2]
    assert {name for name in values if name.startswith("attention_logits/")} == {
        "attention_logits/max",
        *(f"attention_logits/{layer}" for layer in layers),
    }
    for layer, largest in zip(layers, found, strict=True):
        assert values[f"attention_logits/{layer}"] == pytest.approx(largest, rel=1e-4)
    assert values["attention_logits/max"] == pytest.approx(max(found), rel=1e-4)
    logits = hidden @ model.head_weight.T
    assert values["head_logits/max"] == pytest.approx(float(logits.detach().max()), rel=1e-4)
    capped = 2.0 * torch.tanh(logits / 2.0)
    assert values["head_logits/log_normaliser"] == pytest.approx(float(torch.logsumexp(capped, -1).mean()), rel=1e-4)


def test_logits_are_logged_at_their_steps(store: Path, tmp_path: Path) -> None:
    callbacks = {"attention_logits": {"kind": "attention_logits", "every_steps": 4}}
    start(run_with(store, callbacks, 6), tmp_path / "run").run_to_end()
    assert [step for step, _ in logged(tmp_path / "run", "attention_logits/max")] == [4, 6]


# ---- FLOPs, memory ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"mtp": {"weight": 0.3}}, {"tie_embeddings": False}], ids=str)
def test_training_flops_against_a_counter(changes: dict[str, Any]) -> None:
    """torch's own counter sees every product of forward and backward; it counts whole squares of scores, so that all
    queries are said to see all keys here."""
    length, vocab_size = 64, 50
    model = model_of(**changes)
    batch = _batch(length, vocab_size)
    counter = FlopCounterMode(display=False)
    with counter:
        Objectives(model).backward(batch, 1)
    counted = flops.TrainingFlops(model.config, vocab_size).per_token(np.full((1, length), length - 1))
    # Rotary angles and norms are no products; the embedding has no gradient to its input.
    assert counted * length == pytest.approx(counter.get_total_flops(), rel=1e-3)


def _batch(length: int, vocab_size: int) -> Any:
    generator = np.random.default_rng(0)
    tokens = generator.integers(0, vocab_size, (1, length)).astype(np.int32)
    zeros = np.zeros((1, length), dtype=np.uint8)
    return Batch(
        tokens=tokens,
        targets=np.roll(tokens, -1),
        positions=np.arange(length, dtype=np.int32)[None],
        weights=np.ones((1, length), dtype=np.float32),
        kinds=zeros,
        regions=zeros,
        remaining=np.full((1, length), -1, dtype=np.int32),
        after=LoaderState(),
        sources=np.zeros(1, dtype=np.uint8),
    )


def test_flops_follow_windows_and_documents() -> None:
    mixer = {**MODEL["blocks"]["full"]["mixer"], "window": 4}
    blocks = {"near": {**MODEL["blocks"]["full"], "mixer": mixer}, "far": MODEL["blocks"]["full"]}
    config = validate(ModelConfig, {**MODEL, "blocks": blocks, "pattern": ["near", "far"]})
    positions = np.array([[0, 1, 2, 3, 4, 5, 0, 1]])
    far, near = np.mean([1, 2, 3, 4, 5, 6, 1, 2]), np.mean([1, 2, 3, 4, 4, 4, 1, 2])
    scores = 3 * 4 * 2 * 16 * (far + near)  # three passes, q k' and p v, two heads of 16
    nothing = flops.TrainingFlops(config, 50).per_token(np.full((1, 1), -1))
    assert flops.TrainingFlops(config, 50).per_token(positions) - nothing == pytest.approx(scores)
    across = validate(ModelConfig, {**config.to_dict(), "document_masks": False})
    scores = 3 * 4 * 2 * 16 * (np.mean(range(1, 9)) + np.mean([1, 2, 3, 4, 4, 4, 4, 4]))
    assert flops.TrainingFlops(across, 50).per_token(positions) - nothing == pytest.approx(scores)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA A10G", 70e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("NVIDIA B200", 2.25e15),
    ],
)
def test_peaks_by_name(name: str, peak: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert flops.peak_flops(torch.device("cuda"), torch.bfloat16) == (peak, False)


def test_system_lines(store: Path, tmp_path: Path) -> None:
    start(run_with(store, {"system": {"kind": "system"}}), tmp_path / "run").run_to_end()
    first = next(line for line in lines(tmp_path / "run") if "system/peak_is_measured" in line)
    assert first["system/peak_is_measured"] == 1
    assert first["system/peak_flops_per_second"] > 1e8
    found = [line for line in lines(tmp_path / "run") if "system/mfu" in line]
    trained = [line for line in lines(tmp_path / "run") if "train/loss" in line]
    assert [line["step"] for line in found] == [10, 20]
    for line, training in zip(found, trained, strict=True):
        assert line["system/tokens_per_second"] == training["tokens_per_second"]
        done = line["system/tokens_per_second"] * line["system/flops_per_token"]
        assert line["system/mfu"] == pytest.approx(done / first["system/peak_flops_per_second"])
        assert line["system/loader_ms"] > 0.0
        assert line["system/peak_memory_bytes"] > 5e7
    memory = peak_memory(torch.device("cpu"))
    assert memory is not None
    status = Path("/proc/self/status")
    if status.exists():
        high = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        assert memory == pytest.approx(int(high.split()[1]) * 1024, rel=0.05)


# ---- samples ---------------------------------------------------------------------------------------------------------


def test_samples_by_category(store: Path, tmp_path: Path) -> None:
    callbacks = {"samples": {"kind": "samples", "times": 2, "gaps": 8, "probes": 3}}
    trainer = start(run_with(store, callbacks, 6), tmp_path / "run")
    trainer.run_to_end()
    samples = [json.loads(line) for line in trainer.run.samples_file.read_text().splitlines()]
    assert {sample["step"] for sample in samples} == {3, 6}
    last = [sample for sample in samples if sample["step"] == 6]
    probes = {name: [sample for sample in last if sample["category"] == name] for name in (EMPTY, SHORT)}
    assert [len(found) for found in probes.values()] == [3, 3]
    assert all(sample["gold"] == "" for sample in probes[EMPTY])
    assert all(len(trainer.tokenizer.encode(sample["gold"])) == 3 for sample in probes[SHORT])
    assert [sample["gold"] for sample in last] == [sample["gold"] for sample in samples if sample["step"] == 3]
    assert [sample["category"] for sample in last[:8]].count(EMPTY) == 0  # the task's gaps come first
    record = next(line for line in lines(tmp_path / "run") if line["step"] == 6 and "samples/exact" in line)
    assert record["samples/empty/count"] == record["samples/three_tokens/count"] == 3
    assert record["samples/empty/stopped"] == np.mean([sample["stopped"] == "eot" for sample in probes[EMPTY]])
    counted = sum(value for name, value in record.items() if name.endswith("/count"))
    assert counted == len(last)


def test_scores_of_samples() -> None:
    def sample(category: str, exact: bool, stopped: str) -> dict[str, Any]:
        return {"category": category, "exact": exact, "stopped": stopped}

    found = scores(
        [
            sample("word", True, "eot"),
            sample("word", False, "length"),
            sample("line", False, "eot"),
            sample(EMPTY, True, "eot"),
        ]
    )
    assert found["samples/exact"] == pytest.approx(1 / 3)  # probes are not among them
    assert found["samples/stopped"] == pytest.approx(2 / 3)
    assert (found["samples/word/exact"], found["samples/word/count"]) == (0.5, 2)
    assert (found["samples/empty/exact"], found["samples/line/stopped"]) == (1.0, 1.0)


def test_all_default_callbacks_together_change_no_weight(straight: Any, tmp_path: Path) -> None:
    run, expected = straight
    shipped = {**compose_choice("callbacks", "default"), "checkpoints": CALLBACKS["checkpoints"]}
    shipped["norms"]["every_steps"] = shipped["attention_logits"]["every_steps"] = 7
    trainer = start(validate(TrainRun, {**run.to_dict(), "callbacks": shipped}), tmp_path / "run")
    trainer.run_to_end()
    assert_same(weights(tmp_path / "run", 20), weights(expected, 20))
    assert not [line for line in lines(tmp_path / "run") if "warning" in line]


def _norms_of_shards(rank: int, folder: str) -> None:
    """One of two processes: norms of a sharded model are those of the whole."""
    from torch import distributed
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    model = model_of(width=33)  # rows that two ranks cannot share evenly
    expected = group_norms(squares(model.named_parameters()), groups_of(model))
    gains = qk_gains(model)
    for block in model.blocks:
        fully_shard(block)
    fully_shard(model)
    found = group_norms(squares(model.named_parameters()), groups_of(model))
    Path(folder, f"{rank}.json").write_text(json.dumps([expected, found, gains == qk_gains(model)]))
    distributed.destroy_process_group()


@pytest.mark.slow
def test_norms_of_a_sharded_model(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_norms_of_shards, (str(tmp_path),), nprocs=2)
    for rank in range(2):
        expected, found, same_gains = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found == pytest.approx(expected, rel=1e-5)
        assert same_gains
