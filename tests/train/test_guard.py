"""Each rule of the guard: caught by its name when its suspect is planted in a real run, silent where one overfits."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.train.tiny_training import (
    CALLBACKS,
    At,
    assert_same,
    config,
    iter_batches,
    lines,
    module,
    start,
    weights,
    write_store,
)

from inlay.config import InlayError, validate
from inlay.data.loader import Batch, Loader
from inlay.fim.format import Region
from inlay.model.masks import document_mask
from inlay.text.document import document
from inlay.text.store import TokenStore
from inlay.text.tokenizer import Tokenizer
from inlay.text.writer import StoreWriter
from inlay.train import guards, leaks, loss, objectives, probes, text_floor
from inlay.train.callbacks.guard import GuardConfig
from inlay.train.config import TrainRun
from inlay.train.guards import RULES, GuardStop, RowWatch, count_leaks, hash_rows
from inlay.train.trainer import Trainer

GUARD: dict[str, Any] = {"kind": "guard"}


def guarded(store: Path, out: Path, steps: int = 20, guard: dict[str, Any] | None = None, **changes: Any) -> Trainer:
    """A run with the guard before checkpoints, as in the shipped order; `changes` are of `train`, or whole groups."""
    groups = {name: changes.pop(name) for name in ("fim", "data", "model") if name in changes}
    run = config(store, train={"steps": steps, **changes}, **groups).to_dict()
    others = {name: value for name, value in CALLBACKS.items() if name != "checkpoints"}
    callbacks = {**others, "guard": {**GUARD, **(guard or {})}, "checkpoints": CALLBACKS["checkpoints"]}
    return start(validate(TrainRun, {**run, "callbacks": callbacks}), out)


def stopped(trainer: Trainer) -> GuardStop:
    with pytest.raises(GuardStop) as caught:
        trainer.run_to_end()
    assert "\n" not in str(caught.value)
    assert f"'{caught.value.rule}'" in str(caught.value)
    logged = [line["warning"] for line in lines(trainer.run.path) if "warning" in line]
    assert logged[-1]["rule"] == caught.value.rule
    assert logged[-1]["stops"]
    assert logged[-1]["text"] in str(caught.value)
    return caught.value


def warnings(out: Path) -> list[dict[str, Any]]:
    return [line["warning"] for line in lines(out) if "warning" in line]


def change_batches(monkeypatch: pytest.MonkeyPatch, change: Callable[[Batch, int], Batch]) -> None:
    """Every batch of every loader goes through `change`, with its number."""
    honest, count = Loader.__next__, iter(range(1 << 30))
    monkeypatch.setattr(Loader, "__next__", lambda loader: change(honest(loader), next(count)))


# ---- silence ---------------------------------------------------------------------------------------------------------


def test_silent_while_twenty_documents_are_overfitted(store: Path, tmp_path: Path) -> None:
    """Hundreds of epochs of twenty documents: memorising is a warning at most."""
    callbacks = {"metrics": {"kind": "metrics"}, "validation": CALLBACKS["validation"], "guard": GUARD}
    run = config(store, train={"steps": 240, "sequence_length": 64, "rows": 2})
    trainer = start(validate(TrainRun, {**run.to_dict(), "callbacks": callbacks}), tmp_path / "run")
    trainer.run_to_end()
    assert trainer.loader_state.epoch > 2
    assert {warning["rule"] for warning in warnings(tmp_path / "run")} <= {"memorising"}
    assert not any(warning["stops"] for warning in warnings(tmp_path / "run"))
    gaps = [line for line in lines(tmp_path / "run") if "probe/loss_gap" in line]
    assert [line["step"] for line in gaps] == [0, 120, 240]
    assert all(line["probe/loss_gap"] < 1e-5 and line["probe/token_loss_gap"] < 1e-5 for line in gaps)


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bfloat16", "z_loss": 1e-4},
        {"fim": {"rate": 0.0}, "data": {"shortest_piece": None}},
        {"fim": {"level": "document"}},
        {"model": {"head_softcap": 20.0, "mtp": {"weight": 0.3}}, "accumulation": 2},
    ],
    ids=["bf16", "left to right", "documents", "softcap and mtp"],
)
def test_silent_in_other_runs(store: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    guarded(store, tmp_path / "run", 12, **changes).run_to_end()
    assert warnings(tmp_path / "run") == []


def test_guarding_changes_no_weight(straight: Any, tmp_path: Path) -> None:
    run, expected = straight
    data = {**run.to_dict(), "callbacks": {**run.to_dict()["callbacks"], "guard": GUARD}}
    start(validate(TrainRun, data), tmp_path / "run").run_to_end()
    assert_same(weights(tmp_path / "run", 20), weights(expected, 20))


# ---- the suspects of the incident ------------------------------------------------------------------------------------


def rounded_step(hidden: Any, weight: Any, targets: Any, weights: Any, *options: Any) -> Any:
    """`chunk_step` without widening: logits, log-normaliser and losses stay bf16."""
    logits = (hidden @ weight.t()).bfloat16()
    normaliser = torch.logsumexp(logits, dim=-1)
    losses = normaliser - logits.gather(1, targets[:, None]).squeeze(1)
    gradient = (torch.exp(logits - normaliser[:, None]).float() - torch.eye(logits.shape[1])[targets]) * weights[
        :, None
    ]
    gradient = gradient.to(hidden.dtype)
    return losses.float(), gradient @ weight, (gradient.t() @ hidden).float()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_loss_on_bf16_logits(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    monkeypatch.setattr(objectives, "step_with", lambda softcap, z_loss=0.0: rounded_step)
    trainer = guarded(store, tmp_path / "run", precision=precision)
    error = stopped(trainer)
    assert error.rule == "loss_precision"
    assert "rounded logits" in str(error)
    assert trainer.step == 0
    assert trainer.run.steps() == []  # what was trained so would not be worth a checkpoint


def test_a_loss_that_becomes_rounded_later(store: Path, tmp_path: Path) -> None:
    """Such as under a compiler: the next evaluation sees it, and nothing newer is saved."""
    trainer = guarded(store, tmp_path / "run")

    trainer.callbacks.insert(0, At(7, lambda trainer: setattr(trainer.objectives._loss, "step", rounded_step)))
    assert stopped(trainer).rule == "loss_precision"
    assert trainer.step == 10
    assert trainer.run.steps() == [5]


@pytest.mark.parametrize("size", [3.0, 30.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounding_is_told_from_what_products_lose(dtype: torch.dtype, size: float) -> None:
    """The honest loss is a hundredth of the limit, the rounded one several times it, whatever the size of logits."""
    generator = torch.Generator().manual_seed(0)
    head = torch.randn(500, 64, generator=generator)
    hidden = (torch.randn(300, 64, generator=generator) * size / 8).to(dtype)
    targets = (hidden.float() @ head.t() + 2 * torch.randn(300, 500, generator=generator)).argmax(-1)
    weights = torch.ones(300)
    honest = loss.chunk_step(hidden, head.to(dtype), targets, weights)[0]
    gaps = probes.loss_gaps(hidden, head, targets, honest, None)
    assert probes.loss_precision(gaps) is None
    assert gaps.token < 0.05 * gaps.token_allowed
    assert gaps.same < 0.05 * gaps.same_allowed
    exact = torch.nn.functional.cross_entropy(hidden.double() @ head.to(dtype).double().t(), targets).item()
    assert gaps.exact == pytest.approx(exact, rel=1e-9)
    found = rounded_step(hidden, head.to(dtype), targets, weights)[0]
    gaps = probes.loss_gaps(hidden, head, targets, found, None)
    assert max(gaps.token / gaps.token_allowed, gaps.same / gaps.same_allowed) > 3
    finding = probes.loss_precision(gaps)
    assert finding is not None
    assert "rounded logits" in finding.text
    shifted = probes.loss_gaps(hidden, head, targets, honest * 1.2, None)
    assert probes.loss_precision(shifted) is not None
    torn = honest.clone()
    torn[::100] += 3.0  # a few tokens, very wrong
    gaps = probes.loss_gaps(hidden, head, targets, torn, None)
    assert gaps.token <= gaps.token_allowed
    assert probes.loss_precision(gaps) is not None
    nan = probes.loss_gaps(hidden, head, targets, honest * math.nan, None)
    assert probes.loss_precision(nan) is not None


def test_rounding_shows_where_nearly_all_is_known() -> None:
    """The loss of the incident, 0.04: most tokens cost nothing however they are computed."""
    generator = torch.Generator().manual_seed(0)
    head = torch.randn(500, 64, generator=generator)
    hidden = torch.randn(400, 64, generator=generator).bfloat16()
    targets = (hidden.float() @ head.t()).argmax(-1)
    sharp = hidden * 8
    sharp[::20] /= 8  # one token in twenty is still open
    weights = torch.ones(400)
    honest = loss.chunk_step(sharp, head.bfloat16(), targets, weights)[0]
    assert 0.01 < honest.mean() < 0.1
    assert probes.loss_precision(probes.loss_gaps(sharp, head, targets, honest, None)) is None
    rounded = rounded_step(sharp, head.bfloat16(), targets, weights)[0]
    assert probes.loss_precision(probes.loss_gaps(sharp, head, targets, rounded, None)) is not None


def test_a_loader_that_gives_each_batch_twice(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last: list[Batch] = []

    def twice(batch: Batch, number: int) -> Batch:
        if number % 2:
            return replace(last[-1], after=batch.after)
        last.append(batch)
        return batch

    change_batches(monkeypatch, twice)
    trainer = guarded(store, tmp_path / "run", sequence_length=64)
    error = stopped(trainer)
    assert error.rule == "repeating_rows"
    assert trainer.step <= 4
    assert trainer.run.steps() == [trainer.step]  # these weights are only worse, not spoiled


def test_a_loader_that_starts_its_shard_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Batch] = []

    def again(batch: Batch, number: int) -> Batch:
        kept.append(batch)
        return replace(kept[number % 12], after=batch.after) if number >= 12 else batch

    big = write_store(tmp_path / "store", modules=120)
    change_batches(monkeypatch, again)
    trainer = guarded(big, tmp_path / "run", 40, sequence_length=64, rows=2)
    error = stopped(trainer)
    assert error.rule == "repeating_rows"
    assert trainer.loader_state.epoch == 0
    assert 12 < trainer.step <= 20


def test_targets_that_are_not_shifted(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change_batches(monkeypatch, lambda batch, _: replace(batch, targets=batch.tokens))
    trainer = guarded(store, tmp_path / "run")
    error = stopped(trainer)
    assert error.rule == "leaking_targets"
    assert "not shifted" in str(error)
    assert (trainer.step, trainer.run.steps()) == (1, [])


def test_targets_of_another_slot(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change_batches(monkeypatch, lambda batch, _: replace(batch, targets=np.roll(batch.targets, -1, axis=1)))
    error = stopped(guarded(store, tmp_path / "run"))
    assert error.rule == "leaking_targets"
    assert "not the token that follows" in str(error)


def show_middles(batch: Batch, _: int) -> Batch:
    """Puts each middle into the first slots of its own example, as a transform would that forgot to take it out."""
    tokens, targets = batch.tokens.copy(), batch.targets.copy()
    for row in range(len(tokens)):
        for stop in np.flatnonzero(np.diff(batch.regions[row] == Region.MIDDLE, prepend=False, append=False))[1::2]:
            run = np.flatnonzero(batch.regions[row][:stop] == Region.MIDDLE)
            first = int(run[np.flatnonzero(np.diff(run) != 1)[-1] + 1]) if (np.diff(run) != 1).any() else int(run[0])
            begin = first - int(batch.positions[row][first])
            size = min(stop - first, first - begin)
            tokens[row, begin : begin + size] = batch.targets[row, first : first + size]
            targets[row, begin : begin + size - 1] = tokens[row, begin + 1 : begin + size]
    return replace(batch, tokens=tokens, targets=targets)


def test_middles_that_were_not_taken_out(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change_batches(monkeypatch, show_middles)
    # Rows long enough that most contexts hold their whole middle.
    trainer = guarded(store, tmp_path / "run", 40, rows=8, sequence_length=256)
    error = stopped(trainer)
    assert error.rule == "leaking_targets"
    assert "word for word" in str(error)
    assert trainer.step <= 30


def test_a_mask_that_shows_the_future(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "inlay.model.transformer.row_mask", lambda positions, window, dtype: torch.zeros(len(positions), 1, 1, 1)
    )
    trainer = guarded(store, tmp_path / "run")
    error = stopped(trainer)
    assert error.rule == "leaking_targets"
    assert "behind slot" in str(error)
    assert trainer.step == 0


def test_a_mask_that_shows_other_documents(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def causal_only(positions: torch.Tensor, window: int | None, dtype: torch.dtype) -> torch.Tensor:
        slots = torch.arange(positions.shape[1]).expand_as(positions)
        return document_mask(slots, window, dtype)

    monkeypatch.setattr("inlay.model.transformer.row_mask", causal_only)
    error = stopped(guarded(store, tmp_path / "run"))
    assert error.rule == "leaking_targets"
    assert "documents before slot" in str(error)


# ---- losses ----------------------------------------------------------------------------------------------------------


def records(loss_of: float, count: int = 5, kind: str = "psm") -> list[dict[str, float]]:
    return [{"train/loss": loss_of, f"train/loss_{kind}": loss_of} for _ in range(count)]


TEXT = guards.Text(bytes_per_token=3.0)


def judge(training: Any, validation: Any, **changes: Any) -> guards.Finding | None:
    return guards.impossible_loss(training, validation, **{"first_pass": True, "text": TEXT, **changes})


def test_the_loss_that_its_kind_allows() -> None:
    held_out = {"validation/psm/loss": 3.0, "validation/l2r/loss": 0.03}
    assert judge(records(0.04, count=2), held_out) is None  # too few lines to say
    early = judge(records(0.04), held_out)
    assert early is not None
    assert early.stops
    assert "psm" in early.text
    assert judge(records(0.04), held_out, first_pass=False) is None  # learnt by heart
    other = judge(records(0.04), held_out, like_validation=False)
    assert other is not None
    assert not other.stops
    # The last five lines count, not one dip.
    assert judge([*records(2.9, 4), *records(0.01, 1)], held_out) is None


def test_held_out_text_that_is_only_different_is_no_alarm() -> None:
    """Four packages, one of which is held out whole; data files on one side."""
    for low, held_out in ((2.0, 3.0), (1.0, 3.0), (0.4, 5.0)):
        assert judge(records(low), {"validation/psm/loss": held_out}) is None
    # Boilerplate is low on both sides, and lower than any code where a compressor finds the same.
    assert judge(records(0.04), {"validation/psm/loss": 0.06}) is None
    repeating = guards.Text(bytes_per_token=3.0, compressed=0.03)
    assert judge(records(0.04), {"validation/psm/loss": 3.0}, text=repeating) is None
    assert judge(records(0.02), {"validation/psm/loss": 3.0}, text=repeating) is not None


def test_a_run_that_begins_under_the_unigram() -> None:
    text = guards.Text(bytes_per_token=3.0, unigram=6.0)
    lines = [{"step": 10 * (number + 1), **line} for number, line in enumerate(records(1.0))]
    found = judge(lines, {"validation/psm/loss": 3.0}, text=text)
    assert found is not None
    assert found.stops
    assert "6.000" in found.text
    for changes in ({"text": TEXT}, {"first_pass": False}, {"like_validation": False}):
        assert judge(lines, {"validation/psm/loss": 3.0}, **{"text": text, **changes}) is None
    later = [{**line, "step": line["step"] + 20} for line in lines]
    assert judge(later, {"validation/psm/loss": 3.0}, text=text) is None, "so far a run may have come"


def test_what_the_text_says(tmp_path: Path) -> None:
    """The unigram loss by its definition; text of one template is found to repeat itself."""
    split = TokenStore.open(write_store(tmp_path / "store", modules=60)).split("train")
    found = text_floor.measure(split)
    tokens = np.concatenate([split.tokens(index) for index in range(split.document_count)])
    counts = np.unique(tokens, return_counts=True)[1]
    assert found.unigram == pytest.approx(float(np.log(len(tokens)) - (counts * np.log(counts)).sum() / len(tokens)))
    assert 0.02 < found.compressed < 1.0
    part = text_floor.measure(split, sample_tokens=len(tokens) // 4)
    assert part.unigram == pytest.approx(found.unigram, rel=0.05)
    assert part.bytes_per_token == found.bytes_per_token


def test_memorising_is_said_by_its_name() -> None:
    held_out, best = {"validation/psm/loss": 3.0}, {"validation/psm/loss": 2.5}
    found = guards.memorising(records(0.5), held_out, best)
    assert found is not None
    assert not found.stops
    assert "more data or fewer epochs" in found.text
    assert guards.memorising(records(0.5), held_out, {"validation/psm/loss": 2.99}) is None
    assert guards.memorising(records(2.8), held_out, best) is None
    assert guards.memorising(records(0.5), held_out, {}) is None


def test_the_loss_without_anything_held_out() -> None:
    floor = guards.FLOOR_BITS_PER_BYTE * 3.0 * math.log(2.0)
    found = judge(records(0.9 * floor), {})
    assert found is not None
    assert found.stops
    assert judge(records(1.1 * floor), {}) is None
    assert judge(records(0.9 * floor), {}, first_pass=False) is None


def test_text_that_repeats_itself_is_no_leak() -> None:
    """Long middles stand in their context, but so does everything else."""
    repeating = np.array([1000, 0, 0, 0, 40, 30, 28])
    assert guards.leaking_targets(repeating) is None
    assert guards.leaking_targets(np.array([1000, 0, 0, 0, 40, 30, 2])) is not None


def test_an_impossible_loss_stops_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of the incident, reported by a meter that lies: 0.04 in the first pass."""
    big = write_store(tmp_path / "store", modules=200)
    trainer = guarded(big, tmp_path / "run", 60, sequence_length=64, rows=2)
    honest = trainer.meters.take

    def lying(*arguments: Any) -> dict[str, float]:
        return {name: 0.04 if name.startswith("loss") else value for name, value in honest(*arguments).items()}

    trainer.meters.take = lying  # type: ignore[method-assign]
    error = stopped(trainer)
    assert error.rule == "impossible_loss"
    assert trainer.step == 30


def test_a_loss_that_is_no_number(store: Path, tmp_path: Path) -> None:
    trainer = guarded(store, tmp_path / "run")

    def spoil(trainer: Trainer) -> None:
        trainer.log({"train/loss_psm": math.nan})

    trainer.callbacks.insert(0, At(7, spoil))
    assert stopped(trainer).rule == "nonfinite"
    assert trainer.run.steps() == [5]
    assert guards.nonfinite({"train/loss": 1.0, "note": math.inf}, 1) is None
    assert guards.nonfinite({"validation/l2r/loss": math.inf}, 1) is not None


# ---- held-out text in training ---------------------------------------------------------------------------------------


def leaking_store(folder: Path, copies: int, change: Callable[[str], str] = lambda text: text) -> Path:
    """Twenty training documents and eight for validation, the first `copies` of which are of training, changed."""
    long = [module(number) + module(500 + number) for number in range(28)]
    tokenizer = Tokenizer.train(long, vocab_size=400)
    with StoreWriter(folder, tokenizer) as writer:
        for number, text in enumerate(long):
            split = "train" if number < 20 else "validation"
            if split == "validation" and number - 20 < copies:
                text = change(long[number - 20])
            item = document(text, language="python", path=f"m{number}.py", repo="r", licence=None, source="test")
            ids, starts = tokenizer.encode_with_starts([text])[0]
            writer.add(split, item, np.asarray(ids), starts)
        writer.commit({})
    return folder


def find(path: Path, **options: Any) -> leaks.Leaks:
    opened = TokenStore.open(path)
    return leaks.find_leaks(opened.split("validation"), [opened.split("train")], **options)


def test_validation_that_is_in_training(tmp_path: Path) -> None:
    trainer = guarded(leaking_store(tmp_path / "store", 3), tmp_path / "run")
    error = stopped(trainer)
    assert error.rule == "leaking_validation"
    assert "m20.py (as m0.py)" in str(error)
    assert str(tmp_path / "store") in str(error)
    assert trainer.step == 0


@pytest.mark.parametrize(
    "change",
    [lambda text: text, lambda text: f"# a line before all the others\nimport sys\n{text}"],
    ids=["equal", "behind other lines"],
)
def test_copies_are_found(tmp_path: Path, change: Callable[[str], str]) -> None:
    found = find(leaking_store(tmp_path / "store", 2, change))
    assert found.documents == 8
    assert found.share == pytest.approx(2 / 8, abs=0.05)
    assert found.copies == (("m20.py", "m0.py"), ("m21.py", "m1.py"))
    assert found.coverage == 1.0


def test_equal_documents_are_found_where_nothing_is_scanned(tmp_path: Path) -> None:
    found = find(leaking_store(tmp_path / "store", 2), scanned=0)
    assert len(found.copies) == 2
    assert found.coverage < 0.2


def test_documents_of_one_template_are_no_copies(tmp_path: Path, store: Path) -> None:
    assert find(leaking_store(tmp_path / "store", 0)).copies == ()
    assert find(store).copies == ()


def test_one_copy_among_many_is_a_warning() -> None:
    found = leaks.Leaks(64, 0.02, 1.0, (("a.py", "a.py"),))
    finding = leaks.leaking_validation(found, "STORE")
    assert finding is not None
    assert not finding.stops
    partly = leaks.leaking_validation(leaks.Leaks(64, 0.02, 0.1, (("a.py", "b.py"),)), "STORE")
    assert partly is not None
    assert partly.stops  # a tenth of the text was searched
    assert leaks.leaking_validation(leaks.Leaks(64, 0.0, 1.0, ()), "STORE") is None


# ---- rules one by one ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["warn", "off"])
def test_what_a_rule_does_is_a_choice(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    change_batches(monkeypatch, lambda batch, _: replace(batch, targets=batch.tokens))
    guarded(store, tmp_path / "run", 12, guard={"leaking_targets": action}).run_to_end()
    found = [warning for warning in warnings(tmp_path / "run") if warning["rule"] == "leaking_targets"]
    assert [warning["stops"] for warning in found] == ([False] if action == "warn" else [])


def test_a_warning_is_printed(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    change_batches(monkeypatch, lambda batch, _: replace(batch, targets=batch.tokens))
    guarded(store, tmp_path / "run", 3, guard={"leaking_targets": "warn"}).run_to_end()
    assert "warning (leaking_targets): " in capsys.readouterr().err


def test_every_rule_can_be_set() -> None:
    assert set(RULES) <= set(GuardConfig.model_fields)


def test_honest_rows_show_nothing(store: Path, tmp_path: Path) -> None:
    trainer = start(config(store), tmp_path / "run")
    batches = iter_batches(trainer)
    counts = sum(count_leaks(next(batches)) for _ in range(30))
    named = dict(zip(guards.COUNTS, counts.tolist(), strict=True))
    assert named["misplaced"] == 0
    assert named["own"] == named["repeated"]
    assert named["long_middles"] >= guards.FEWEST_MIDDLES
    assert named["readable"] < 0.1 * named["long_middles"]
    assert guards.leaking_targets(counts) is None


def test_rows_of_an_epoch_come_once(store: Path, tmp_path: Path) -> None:
    trainer = start(config(store), tmp_path / "run")
    watch, batches = RowWatch(), iter_batches(trainer)
    batch = next(batches)
    watch.add(hash_rows(batch), batch.after.epoch)
    while (following := next(batches)).after.epoch == 0:
        batch = following
        watch.add(hash_rows(batch), batch.after.epoch)
    assert watch.seen > 8
    assert watch.repeats == 0
    hashes = hash_rows(batch)
    assert all(0 <= value < 1 << guards.HASH_BITS for value in hashes)
    watch.add(hashes, batch.after.epoch)
    assert watch.repeats == len(hashes)
    watch.add(hashes, batch.after.epoch + 1)  # another epoch begins
    assert (watch.repeats, watch.seen) == (0, 0)
    watch.add(hashes, batch.after.epoch + 1)  # what the epoch before had may come once more
    assert (watch.repeats, watch.seen) == (0, len(hashes))


def test_the_memory_of_rows_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "REMEMBERED", 10)
    watch = RowWatch()
    watch.add(range(25), 0)
    assert len(watch._known) == len(watch._order) == 10
    watch.add([24, 15, 14], 0)
    assert watch.repeats == 2  # 14 is forgotten


def test_few_repeats_are_a_warning() -> None:
    assert guards.repeating_rows(0, 10) is None
    few = guards.repeating_rows(3, 30)
    many = guards.repeating_rows(8, 100)
    assert few is not None
    assert many is not None
    assert (few.stops, many.stops) == (False, True)


def test_a_stop_is_one_failure_with_status_one() -> None:
    error = GuardStop("nonfinite", "text")
    assert isinstance(error, InlayError)
    assert error.exit_status == 1
