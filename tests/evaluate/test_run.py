import io
import json
from pathlib import Path

import pytest
import yaml
from rich.console import Console

import inlay.conf
from inlay.config import BadInput, validate
from inlay.evaluate.corpus import open_path
from inlay.evaluate.metrics import METRICS, Judge
from inlay.evaluate.run import evaluate, evaluate_opened, prepare_examples, score_gold
from inlay.evaluate.table import print_table
from inlay.evaluate.task import Corpus
from inlay.evaluate.tasks.held_out import HeldOutConfig
from inlay.infer import engine as engine_module
from inlay.infer.detokenise import Text
from inlay.infer.engine import Engine
from inlay.infer.open import Opened
from inlay.infer.prompt import prompt_of

SMALL = HeldOutConfig(categories={"word": 6, "tokens_5_8": 6, "line": 4}, max_tokens=24)


def test_a_run_is_evaluated_and_written(run: Path) -> None:
    result = evaluate(run, config=SMALL)
    assert result["task"] == "held_out"
    assert result["n"] == 16
    assert result["gold"]["exact"] == 1.0 == result["gold"]["syntax_valid"]
    assert result["gold"]["failures"] == []
    assert set(result["metrics"]) == set(result["slices"]) == {"spm", "psm"}
    assert set(result["metrics"]["spm"]) == {metric.name for metric in METRICS}
    assert result["slices"]["psm"]["category"]["word"]["exact"]["n"] == 6
    assert result["settings"]["step"] == 20
    assert result["settings"]["documents_used"] <= 4
    assert len(result["samples"]) == 32
    written = json.loads((run / "evaluations" / "held_out.json").read_text())
    assert written == json.loads(json.dumps(result))
    items = [json.loads(line) for line in (run / "evaluations" / "held_out.items.jsonl").read_text().splitlines()]
    assert len(items) == 32
    exact = sum(item["measures"]["exact"] for item in items if item["order"] == "spm") / 16
    assert exact == result["metrics"]["spm"]["exact"]["value"]
    assert "train" not in {Path(item["path"]).stem for item in items}
    assert {item["path"] for item in items} <= {"m2.py", "m3.py", "m4.py", "m5.py"}, "only held-out documents"


def test_two_runs_are_identical(opened: Opened, corpus: Corpus) -> None:
    results = [evaluate_opened(opened, SMALL, corpus)[0] for _ in range(2)]
    for result in results:
        result["settings"].pop("seconds")
    assert results[0] == results[1]


def test_gold_comes_first_and_a_broken_path_is_named(
    opened: Opened, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = SMALL.examples(corpus, opened.tokenizer)
    prepared = prepare_examples(opened, examples, SMALL.max_tokens)
    judge = Judge(frozenset())
    assert score_gold(opened, prepared, ("spm", "psm", "spm_v2"), judge)["exact"] == 1.0
    # A harness that strips, as several public ones do, must not pass its own gold.
    from inlay.evaluate import run as module

    honest = module.detokenise
    monkeypatch.setattr(module, "detokenise", lambda ids, t: Text(honest(ids, t).text.strip(), 0, 0))
    gold = score_gold(opened, prepared, ("spm",), judge)
    spaced = [item.example.id for item in prepared if item.example.middle != item.example.middle.strip()]
    assert spaced
    assert gold["exact"] < 1.0
    assert [failure["id"] for failure in gold["failures"]] == spaced


def test_no_prompt_shows_its_gold_or_depends_on_its_length(opened: Opened, corpus: Corpus) -> None:
    for item in prepare_examples(opened, SMALL.examples(corpus, opened.tokenizer), SMALL.max_tokens):
        shown = opened.tokenizer.decode_bytes([*item.context.prefix, *item.context.suffix]).decode()
        text, example = item.example.document.text, item.example
        assert shown in text[: example.start] + text[example.end :]
        prompt = prompt_of(item.context, "psm", opened.fim_format)
        assert len(prompt) <= opened.sequence_length - SMALL.max_tokens - 1


def test_a_model_that_answers_gold_scores_one(opened: Opened, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole run with the network replaced by an oracle: every score that can be perfect is."""
    examples = SMALL.examples(corpus, opened.tokenizer)
    golds = [opened.tokenizer.encode(example.middle) for example in examples]

    def oracle(self: Engine, prompts: list[list[int]], **options: object) -> list[engine_module.Generation]:
        assert options["max_tokens"] == SMALL.max_tokens
        return [
            engine_module.Generation(tuple(g), e.middle, "eot", (), 0.0, reference_logprobs=(0.0,) * (len(g) + 1))
            for g, e in zip(golds, examples, strict=True)
        ]

    monkeypatch.setattr(Engine, "generate", oracle)
    result, _ = evaluate_opened(opened, SMALL, corpus, order="psm")
    values = {name: score["value"] for name, score in result["metrics"]["psm"].items()}
    assert [values[name] for name in ("exact", "edit_similarity", "first_line", "syntax_valid", "stopped")] == [1.0] * 5
    assert all(values[metric.name] == 0.0 for metric in METRICS if metric.better == "low")


def test_the_table_prints_every_category_and_warns(opened: Opened, corpus: Corpus) -> None:
    result, _ = evaluate_opened(opened, SMALL, corpus)
    shown = io.StringIO()
    print_table(result, Console(file=shown, width=140))
    for word in ("one word", "whole line", "5–8 tokens", "order spm", "order psm", "all", "step 7"):
        assert word in shown.getvalue()
    assert "not to be trusted" not in shown.getvalue()
    result["gold"] = {
        "exact": 0.5,
        "syntax_valid": None,
        "n": 2,
        "syntax_measured": 0,
        "failures": [{"id": "x", "reason": "text"}],
    }
    shown = io.StringIO()
    print_table(result, Console(file=shown, width=140))
    assert "not to be trusted" in shown.getvalue()


def test_own_files_and_folders(run: Path, tmp_path: Path, tokenizer: object) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "a.py").write_text("value = compute(1, 2)\n" * 5)
    (folder / "b.sql").write_text("select name, age from people where age > 3;\n" * 5)
    result = evaluate(run, data=folder, config=SMALL, limit=6, save=False)
    assert result["n"] == 6
    assert result["settings"]["corpus"]["documents"] == 2
    assert not (run / "evaluations").exists()
    single = evaluate(run, data=folder / "b.sql", config=SMALL, order="spm", save=False)
    assert set(single["metrics"]) == {"spm"}
    assert single["metrics"]["spm"]["syntax_valid"] == {"value": None, "low": None, "high": None, "n": 0}
    assert single["gold"]["syntax_valid"] is None


def test_bad_input_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="did you mean 'held_out'"):
        evaluate(run, task="heldout")
    with pytest.raises(BadInput, match="no such file"):
        evaluate(run, data=tmp_path / "nothing")
    with pytest.raises(BadInput, match="limit = 0"):
        evaluate(run, limit=0)
    with pytest.raises(BadInput, match="no order 'mps'"):
        evaluate(run, order="mps", config=SMALL)  # type: ignore[arg-type]
    (tmp_path / "bad.py").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match=r"bad\.py"):
        open_path(tmp_path / "bad.py")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="empty"):
        open_path(tmp_path / "empty")
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"data": {"path": str(tmp_path / "gone")}}))
    with pytest.raises(BadInput, match="--data PATH"):
        evaluate(run)


def test_the_yaml_is_the_default() -> None:
    file = Path(inlay.conf.__path__[0]) / "evaluate" / "held_out.yaml"
    assert validate(HeldOutConfig, yaml.safe_load(file.read_text())) == HeldOutConfig()
