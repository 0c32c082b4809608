import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.tiny_run import SENTENCES, tiny_opened, tiny_tokenizer, write_run

from inlay.config import BadInput, ConfigError, validate
from inlay.infer.best_of import best_of
from inlay.infer.complete import CompleteConfig, Completer, complete
from inlay.infer.engine import Engine
from inlay.infer.healing import NO_START, take_back
from inlay.infer.open import Opened
from inlay.infer.samples import infill_samples
from inlay.text.tokenizer import Tokenizer


def test_one_call_from_a_run_directory(tmp_path: Path, tokenizer: Tokenizer) -> None:
    run = write_run(tmp_path / "run", tokenizer)
    completion = complete(run, SENTENCES[0], SENTENCES[1], max_tokens=8)
    assert completion.order == "spm"
    assert completion.tokens <= 8
    assert completion.seconds > 0
    assert json.loads(json.dumps(completion.to_dict()))["text"] == completion.text
    other = complete(run, SENTENCES[0], SENTENCES[1], CompleteConfig(order="psm"), max_tokens=8)
    assert other.order == "psm"


def test_the_prompt_is_what_training_renders(opened: Opened) -> None:
    completer = Completer(opened)
    found = completer.complete("x = ", "\n", CompleteConfig(max_tokens=6))
    encode = opened.tokenizer.encode
    prompt = opened.fim_format.prompt(encode("x = "), encode("\n"), "spm")
    assert found.prompt_tokens == len(prompt)
    assert not found.trimmed
    assert found.text == Engine(opened).generate([prompt], max_tokens=6)[0].text


def test_a_long_file_is_trimmed_to_the_trained_context(opened: Opened) -> None:
    found = Completer(opened).complete("a = 1\n" * 900, "b = 2\n" * 900, CompleteConfig(max_tokens=32))
    assert found.trimmed
    assert found.prompt_tokens + 32 + 1 <= opened.sequence_length
    assert found.prompt_tokens + 32 + 1 > opened.sequence_length - 6


def test_the_second_completion_reuses_the_first(opened: Opened) -> None:
    completer = Completer(opened)
    config = CompleteConfig(max_tokens=4)
    first = completer.complete("value = ", " + 1\n", config)
    second = completer.complete("value = tot", " + 1\n", config)
    assert first.reused_tokens == 0
    assert second.reused_tokens > second.prompt_tokens / 2


def test_empty_sides_complete(opened: Opened) -> None:
    assert Completer(opened).complete("", "", CompleteConfig(max_tokens=3)).prompt_tokens == 3


def test_bad_options_are_refused(tmp_path: Path, tokenizer: Tokenizer, opened: Opened) -> None:
    run = write_run(tmp_path / "run", tokenizer)
    with pytest.raises(BadInput, match="max_tokens"):
        complete(run, "a", "b", max_tokens=0)
    with pytest.raises(BadInput, match="did you mean 'max_tokens'"):
        complete(run, "a", "b", max_token=3)
    with pytest.raises(BadInput, match="order"):
        complete(run, "a", "b", order="mps")
    with pytest.raises(BadInput, match="no room"):
        Completer(opened).complete("a", "b", CompleteConfig(max_tokens=126))


class Gap:
    origin = ("id", "a.py")
    category = "line"
    prefix = "x" * 1000
    middle = "y = 1"
    suffix = "\n" + "z" * 1000


def test_samples_hold_what_the_report_needs(opened: Opened) -> None:
    (sample,) = infill_samples(Engine(opened), [Gap()], max_tokens=5)  # type: ignore[list-item]
    assert json.loads(json.dumps(sample)) == sample
    assert set(sample) == {
        "step", "doc", "path", "category", "order", "prefix", "suffix", "gold", "middle", "stopped", "exact",
    }  # fmt: skip
    assert sample["step"] == 7
    assert sample["doc"] == "id"
    assert sample["path"] == "a.py"
    assert sample["order"] == "spm"
    assert len(sample["prefix"]) == 400
    assert len(sample["suffix"]) == 300
    assert sample["gold"] == "y = 1"
    assert sample["exact"] is (sample["middle"] == "y = 1")


def test_healing_and_the_infill_sampler_are_the_engines_and_keep_the_cache(opened: Opened) -> None:
    completer, engine = Completer(opened), Engine(opened)
    encode, taken = opened.tokenizer.encode, 0
    for prefix in ("def add(fir", "def add(firs", "import o", "if a:\n", ""):
        for heal in (True, False):
            for rule in (False, True):
                config = CompleteConfig(max_tokens=6, heal=heal, infill_sampler=rule)
                found = completer.complete(prefix, " + 1\n", config)
                left, start = take_back(encode(prefix), opened.tokenizer) if heal else (encode(prefix), NO_START)
                prompt = opened.fim_format.prompt(left, encode(" + 1\n"), "spm")
                (fresh,) = engine.generate([prompt], max_tokens=6, starts=[start], infill_sampler=rule)
                assert (found.text, found.stopped, found.tokens) == (fresh.text, fresh.stopped, fresh.tokens)
                assert found.logprob == pytest.approx(fresh.logprob, abs=1e-4)
                assert found.prompt_tokens == len(prompt)
                taken += start.tokens
    assert taken


@pytest.mark.parametrize("length", [32, 33, 64])
def test_samples_fit_the_shortest_rows(length: int) -> None:
    """A row of 64 slots has no room for 64 new tokens: the run would end at its first samples."""
    opened = tiny_opened(tiny_tokenizer(), length)
    gap = SimpleNamespace(
        origin=("id", "a.py"), category="word", prefix="x = 1\n" * 40, middle="y", suffix=" = 2\n" * 40
    )
    (sample,) = infill_samples(Engine(opened), [gap])
    assert sample["stopped"] in ("eot", "sentinel", "limit")


def test_best_of_n_is_the_rule_of_the_evaluation_over_samples_that_differ(opened: Opened) -> None:
    config = CompleteConfig(max_tokens=6, temperature=1.5, best_of=6, seed=3)
    found = Completer(opened).candidates(*SENTENCES[:2], config)
    assert len({one.text for one in found}) > 1
    best = Completer(opened).complete(*SENTENCES[:2], config)
    assert best.text == found[best_of(found)].text
    # The same seed gives the same samples, and the first is that of a single one.
    again = Completer(opened).candidates(*SENTENCES[:2], config)
    assert [one.text for one in again] == [one.text for one in found]
    single = Completer(opened).complete(*SENTENCES[:2], config.model_copy(update={"best_of": 1}))
    assert single.text == found[0].text
    places = found[0].tokens + (found[0].stopped == "eot")
    assert found[0].to_dict()["mean_logprob"] == pytest.approx(found[0].logprob / places)


def test_best_of_n_without_a_temperature_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"best_of 4 with temperature 0 .*such as temperature=0\.8"):
        validate(CompleteConfig, {"best_of": 4})
