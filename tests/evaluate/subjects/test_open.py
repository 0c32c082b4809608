"""What may be evaluated, by what was given."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.evaluate.subjects.http_server import MODELS, openai, serving
from tests.tiny_run import tiny_tokenizer, write_run

from inlay.config import BadInput, InlayError
from inlay.evaluate.subjects.completions import CompletionsSubject
from inlay.evaluate.subjects.local import LocalSubject
from inlay.evaluate.subjects.open import open_subject
from inlay.evaluate.subjects.server import ServerSubject


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "run", tiny_tokenizer())


@pytest.fixture
def completions(tmp_path: Path) -> Path:
    path = tmp_path / "made.jsonl"
    path.write_text('{"task_id": "a", "completion": "x"}\n')
    return path


def test_runs_and_checkpoints_are_ours(run: Path) -> None:
    for target in (run, str(run), run / "checkpoints" / "step-10"):
        subject = open_subject(target, device="cpu", dtype="float32")
        assert isinstance(subject, LocalSubject)
        assert subject.identity["step"] == (10 if target == run / "checkpoints" / "step-10" else 20)


def test_completions_are_a_file(completions: Path) -> None:
    subject = open_subject(None, completions=completions)
    assert isinstance(subject, CompletionsSubject)
    assert subject.samples == 1


def test_an_address_is_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serving(openai(lambda body: "x")) as fake:
        subject = open_subject(fake.url.replace("http", "HTTP"), api="completions", model=MODELS["data"][0]["id"])
        assert isinstance(subject, ServerSubject)
        subject.close()


def test_a_folder_of_an_unknown_architecture_goes_to_transformers(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import inlay.evaluate.subjects.transformers_folder as module

    asked: list[Any] = []

    def remember(*positional: Any, **named: Any) -> str:
        asked.append((positional, named))
        return "theirs"

    monkeypatch.setattr(module, "TransformersSubject", remember)
    folder = tmp_path / "model"
    shutil.copytree(run / "tokenizer", folder)

    def config(**data: Any) -> None:
        (folder / "config.json").write_text(json.dumps(data))

    config(model_type="gpt_neox", architectures=["GPTNeoXForCausalLM"])
    found = open_subject(folder, family="inlay", sequence_length=64, device="cpu", dtype="bfloat16", rows=5)
    assert found == "theirs"
    assert asked == [((folder, "inlay"), {"sequence_length": 64, "device": "cpu", "dtype": "bfloat16", "rows": 5})]
    # An architecture that inlay has, with an option that it does not compute.
    config(model_type="qwen2", architectures=["Qwen2ForSequenceClassification"])
    assert open_subject(folder) == "theirs"
    # What is damaged or quantised is refused where it is best explained.
    for text, message in (
        ("{", "damaged .*config.json"),
        ("[]", "damaged .*config.json: it is no object"),
        ("{}", "model_type is missing"),
        ('{"model_type": "gpt_neox", "quantization_config": {}}', "quantization_config says"),
    ):
        (folder / "config.json").write_text(text)
        with pytest.raises(BadInput, match=message):
            open_subject(folder)
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        (None, {}, r"evaluate a model \(RUN, FOLDER or http://...\) or --completions FILE: neither is given"),
        ("RUN", {"completions": "FILE"}, r"or --completions FILE: both are given"),
        ("http://127.0.0.1:9", {"completions": "FILE"}, r"both are given"),
        ("RUN", {"api": "infill"}, r"api = infill is for a server's address: leave it out"),
        ("RUN", {"model": "m"}, r"model = m is for a server's address: leave it out"),
        (None, {"completions": "FILE", "model": "m"}, r"model = m is for a server's address"),
        (None, {"completions": "FILE", "family": "inlay"}, r"family = inlay is for a model, not for completions"),
        (None, {"completions": "FILE", "sequence_length": 9}, r"sequence_length = 9 is for a model"),
        ("http://127.0.0.1:9", {"sequence_length": 9}, r"sequence_length = 9 is the server's own choice"),
        ("nowhere", {}, r"nowhere"),
        (None, {"completions": "nowhere.jsonl"}, r"the completions file 'nowhere.jsonl' is not there"),
    ],
)
def test_what_does_not_go_together_is_said_in_one_line(
    target: str | None, options: dict[str, Any], message: str, run: Path, completions: Path
) -> None:
    places = {"RUN": str(run), "FILE": str(completions)}
    options = {name: places.get(value, value) for name, value in options.items()}
    with pytest.raises(InlayError, match=message) as error:
        open_subject(places.get(target or "", target), **options)
    assert isinstance(error.value, BadInput)
    assert "\n" not in str(error.value)
