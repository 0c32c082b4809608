"""Exported folders, read by transformers (the witness) and by ourselves."""

import contextlib
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tests.model.hf_shapes import CONFIGS, model_config
from tests.tiny_run import SENTENCES, tiny_config, tiny_tokenizer, write_run
from tests.train.tiny_training import write_store

from inlay.config import BadInput, InlayError
from inlay.evaluate.run import evaluate
from inlay.export.hf import export_hf
from inlay.infer.engine import Engine
from inlay.infer.open import Opened, in_memory, open_model
from inlay.model import ModelConfig, build
from inlay.text.tokenizer import Tokenizer
from inlay.train.start import read_start

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return tiny_tokenizer()


def opened_with(config: ModelConfig, tokenizer: Tokenizer) -> Opened:
    """A random model in memory, every parameter drawn, the vocabulary padded as real ones are."""
    model = build(config, tokenizer.vocab_size + 16, seed=3).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(4)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data.uniform_(0.5, 1.5, generator=generator)
    return in_memory(model, tokenizer, {**tiny_config(), "model": config.to_dict()}, step=7)


def theirs(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()


@pytest.fixture(scope="module")
def opened(tokenizer: Tokenizer) -> Opened:
    return opened_with(CONFIGS["qwen3"], tokenizer)


@pytest.fixture(scope="module")
def exported(opened: Opened, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_hf(opened, tmp_path_factory.mktemp("exported") / "model").path


@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_gives_our_logits_and_we_read_our_weights_back(
    name: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    ours = opened_with(CONFIGS[name], tokenizer)
    result = export_hf(ours, tmp_path / "out")
    peer = theirs(result.path)
    assert type(peer).__name__ == result.architecture
    assert peer.dtype == torch.float32
    tokens = torch.randint(tokenizer.vocab_size, (2, 40), generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        logits = ours.model.logits(ours.model(tokens, torch.arange(40).expand_as(tokens)))
        expected = peer(input_ids=tokens, use_cache=False).logits
    assert logits.std() > 0.3
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)

    again = open_model(result.path, device="cpu")
    assert (again.step, again.sequence_length, again.orders) == (7, 128, ours.orders)
    assert again.fim_format.name == "inlay"
    assert again.tokenizer.hash == tokenizer.hash
    assert again.stop_ids == ours.stop_ids
    parameters = dict(ours.model.named_parameters())
    assert parameters.keys() == dict(again.model.named_parameters()).keys()
    for key, value in again.model.named_parameters():
        assert torch.equal(value, parameters[key]), key


def test_the_weights_file_has_no_tied_head(exported: Path) -> None:
    with safe_open(exported / "model.safetensors", framework="pt") as file:
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118 (not a mapping)
        assert file.metadata() == {"format": "pt"}


def test_their_tokenizer_gives_our_ids(exported: Path, opened: Opened) -> None:
    tokenizer, fim = opened.tokenizer, opened.fim_format
    loaded = transformers.AutoTokenizer.from_pretrained(exported)
    for text in [*SENTENCES, " x\r\n\t  y", "e\u0301 \u00e9", ""]:
        assert loaded(text)["input_ids"] == tokenizer.encode(text)
        assert loaded.decode(tokenizer.encode(text), clean_up_tokenization_spaces=False) == text
    prefix, suffix = tokenizer.encode("def f(\n  "), tokenizer.encode("\n\nx")
    prompt = f"{fim.family.suffix}\n\nx{fim.family.prefix}def f(\n  {fim.family.middle}"
    assert loaded(prompt)["input_ids"] == fim.prompt(prefix, suffix, "spm")
    assert {text: loaded.convert_tokens_to_ids(text) for text in tokenizer.special} == tokenizer.special
    assert (loaded.eos_token_id, loaded.pad_token_id, loaded.bos_token_id) == (fim.eot, fim.pad, None)
    assert set(loaded.all_special_ids) == set(tokenizer.special.values())


def test_nothing_is_put_around_text_and_text_is_not_normalised(opened: Opened, tmp_path: Path) -> None:
    """A foreign tokenizer with a template and NFC: its exported copy gives the ids that we trained on."""
    definition = json.loads(opened.tokenizer.definition)
    bos = opened.tokenizer.special["<|im_start|>"]
    template = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [bos], "tokens": ["<|im_start|>"]}},
    }
    levels = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    definition |= {
        "normalizer": {"type": "NFC"},
        "post_processor": {"type": "Sequence", "processors": [levels, template]},
    }
    foreign = Tokenizer(json.dumps(definition))
    assert foreign.hash == opened.tokenizer.hash
    out = export_hf(replace(opened, tokenizer=foreign), tmp_path / "out").path
    loaded = transformers.AutoTokenizer.from_pretrained(out)
    assert loaded("e\u0301 = 1")["input_ids"] == opened.tokenizer.encode("e\u0301 = 1")


def test_greedy_generation_is_ours_and_stops_at_every_stop_id(exported: Path, opened: Opened) -> None:
    fim, tokenizer = opened.fim_format, opened.tokenizer
    peer = theirs(exported)
    assert set(peer.generation_config.eos_token_id) == opened.stop_ids
    assert peer.generation_config.eos_token_id[0] == fim.eot
    engine = Engine(opened)
    for text in ("def add(first", "for index, value", "import os\n"):
        prompt = fim.prompt(tokenizer.encode(text), tokenizer.encode("\n"), "spm")
        expected = engine.generate([prompt], max_tokens=24)[0]
        new = peer.generate(torch.tensor([prompt]), max_new_tokens=24)[0, len(prompt) :].tolist()
        stopped = expected.stopped != "limit"
        assert new[: len(expected.ids)] == list(expected.ids)
        assert len(new) == len(expected.ids) + stopped
    # Now each stop id in turn is by far the likeliest token: nothing else is generated.
    for stop in opened.stop_ids:
        with torch.no_grad():
            head = torch.nn.Linear(32, tokenizer.vocab_size + 16)
            head.weight.zero_()
            head.bias.zero_()
            head.bias[stop] = 1.0
        peer.lm_head = head
        new = peer.generate(torch.tensor([[5, 6]]), max_new_tokens=5)[0, 2:].tolist()
        assert new == [stop]


def test_bf16_is_the_rounded_model(opened: Opened, tmp_path: Path) -> None:
    result = export_hf(opened, tmp_path / "half", "bfloat16")
    assert any("bfloat16" in line for line in result.notices)
    half = transformers.AutoModelForCausalLM.from_pretrained(result.path)
    assert half.dtype == torch.bfloat16
    again = open_model(result.path, device="cpu")
    for name, value in opened.model.named_parameters():
        assert torch.equal(dict(again.model.named_parameters())[name], value.bfloat16().float())
    tokens = torch.arange(40)[None]
    with torch.inference_mode():
        full, rounded = (model.logits(model(tokens, tokens)) for model in (opened.model, again.model))
    difference = (full - rounded).std() / full.std()
    assert 1e-4 < difference < 3e-2
    with pytest.raises(BadInput, match="opened in bfloat16"):
        export_hf(open_model(result.path, device="cpu", dtype="bfloat16"), tmp_path / "no")


def test_config_json_suits_older_readers_too(exported: Path) -> None:
    data = json.loads((exported / "config.json").read_text())
    assert data["torch_dtype"] == data["dtype"] == "float32"
    assert data["rope_theta"] == data["rope_parameters"]["rope_theta"]
    assert "auto_map" not in data
    assert data["max_position_embeddings"] == 128


def test_parts_that_only_training_uses_stay_behind(tokenizer: Tokenizer, tmp_path: Path) -> None:
    config = model_config(mtp={"weight": 0.1}, horizon={"weight": 0.1}, document_masks=False)
    ours = opened_with(config, tokenizer)
    result = export_hf(ours, tmp_path / "out")
    assert any("mtp and horizon" in line for line in result.notices)
    assert any("document_masks" in line for line in result.notices)
    with safe_open(result.path / "model.safetensors", framework="pt") as file:
        assert not [name for name in file.keys() if "mtp" in name or "horizon" in name]  # noqa: SIM118
    tokens = torch.arange(30)[None]
    with torch.inference_mode():
        logits = ours.model.logits(ours.model(tokens, tokens))
        torch.testing.assert_close(theirs(result.path)(input_ids=tokens).logits, logits, atol=1e-4, rtol=1e-4)


def test_refusals_leave_nothing_behind(
    opened: Opened, tokenizer: Tokenizer, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadInput, match="exists"):
        export_hf(opened, exported)
    with pytest.raises(BadInput, match="float16"):
        export_hf(opened, tmp_path / "out", "float16")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="head_softcap = 30"):
        export_hf(opened_with(model_config(head_softcap=30.0), tokenizer), tmp_path / "out")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("inlay.export.hf.write_card", full)
    with pytest.raises(InlayError, match="the disk is full"):
        export_hf(opened, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_changed_export_is_noticed(opened: Opened, tmp_path: Path) -> None:
    out = export_hf(opened, tmp_path / "out").path
    data = bytearray((out / "model.safetensors").read_bytes())
    data[-5] ^= 1
    (out / "model.safetensors").write_bytes(bytes(data))
    with pytest.raises(InlayError, match=r"model.safetensors was changed after the export: export again; if"):
        open_model(out)
    (out / "inlay.json").unlink()
    assert open_model(out).step == 0


def test_every_changed_file_of_an_export_is_named(exported: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    names = sorted(file.name for file in exported.iterdir() if file.name != "README.md")
    assert {"config.json", "generation_config.json", "inlay.json", "tokenizer.json"} <= set(names)
    for name in names:
        for change in range(4):
            shutil.copytree(exported, out)
            data = bytearray((out / name).read_bytes())
            if change == 3:
                del data[len(data) // 2 :]
            else:
                data[len(data) * (change + 1) // 4] ^= 1
            (out / name).write_bytes(bytes(data))
            for read in (open_model, read_and_fill):
                with pytest.raises(InlayError, match=re.escape(str(out / name))):
                    read(out)
            shutil.rmtree(out)
    shutil.copytree(exported, out)
    (out / "generation_config.json").unlink()
    with pytest.raises(InlayError, match=r"generation_config.json is missing: "):
        open_model(out)


def read_and_fill(path: Path) -> None:
    start = read_start(path)
    start.fill(build(start.model, start.vocab_size))


def test_a_deliberate_edit_is_accepted_as_the_message_says(exported: Path, tmp_path: Path) -> None:
    out = shutil.copytree(exported, tmp_path / "out")
    (out / "README.md").write_text("mine")
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
    with pytest.raises(InlayError, match=r'config.json was .*: export again; .*"files" in inlay.json .*"record_hash"'):
        open_model(out)
    record = json.loads((out / "inlay.json").read_text())
    del record["files"]["config.json"], record["record_hash"]
    (out / "inlay.json").write_text(json.dumps(record))
    assert open_model(out).model.config.norm_eps == 0.5


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a store, evaluated; beside it scores of weights that are not these."""
    place = tmp_path_factory.mktemp("run")
    store = write_store(place / "store")
    run = write_run(place / "run", Tokenizer.load(store / "tokenizer"), store=str(store))
    result = evaluate(run, limit=3, order="psm")
    file = run / "evaluations" / "other.json"
    other = {**result, "task": "other", "settings": {**result["settings"], "weights_hash": "0"}}
    file.write_text(json.dumps(other))
    return run


def test_the_card_says_what_can_be_proven_and_no_path(run: Path, tmp_path: Path) -> None:
    ours = open_model(run, device="cpu")
    out = export_hf(ours, tmp_path / "mine").path
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert "# mine" in card
    assert f"{ours.identity['parameters']:,}" in card
    assert ours.weights_hash in card
    assert "| MIT | 20 |" in card
    assert "| train | 20 |" in card
    assert "Task `held_out-psm-first-3`, 3 gaps" in card
    assert "Task `other`" not in card
    for stop in ours.stop_ids:
        assert f"({stop})" in card
    assert str(run.parent) not in "".join(file.read_text() for file in out.glob("*.json")) + card
    # Exported once more from the export, it knows as much.
    again = export_hf(open_model(out, device="cpu"), tmp_path / "again").path
    assert (again / "README.md").read_text().replace("# again", "# mine") == card


def test_the_snippet_of_the_card_runs(run: Path, tmp_path: Path) -> None:
    ours = open_model(run, device="cpu")
    out = export_hf(ours, tmp_path / "mine").path
    (code,) = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
    assert 'MODEL = "."' in code
    printed = io.StringIO()
    values: dict[str, Any] = {}
    with contextlib.redirect_stdout(printed):
        exec(code.replace('MODEL = "."', f"MODEL = {str(out)!r}"), values)
    fim, encode = ours.fim_format, ours.tokenizer.encode
    prompt = fim.prompt(encode(values["prefix"]), encode(values["suffix"]), ours.orders[0])
    assert values["inputs"]["input_ids"][0].tolist() == prompt
    expected = Engine(ours).generate([prompt], max_tokens=64)[0]
    if not expected.dropped_bytes and not expected.invalid_bytes:
        assert printed.getvalue() == values["prefix"] + expected.text + values["suffix"] + "\n"


def test_a_model_without_a_run_says_that_it_knows_nothing(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    assert "Unknown: nothing says what token store" in card
    assert "| tokens trained | unknown |" in card
    assert "None: these weights were not evaluated" in card
