"""Hugging Face folders as people have them: random models that transformers made and saved, opened by us."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.model.hf_shapes import BASE, THEIRS

from inlay.config import BadInput, InlayError
from inlay.infer.complete import complete
from inlay.infer.engine import Engine
from inlay.infer.open import open_model
from inlay.text.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")


def make(name: str, tokenizer: Tokenizer, **options: Any) -> Any:
    """transformers' model of a shape, gains and biases drawn too, so that a forgotten one shows."""
    family, own = THEIRS[name]
    size = tokenizer.vocab_size + 16
    config = getattr(transformers, f"{family}Config")(**{**BASE, **own, "vocab_size": size, **options})
    config._attn_implementation = "eager"
    torch.manual_seed(1)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data.uniform_(0.5, 1.5, generator=generator)
    return model


def save(model: Any, tokenizer: Tokenizer, folder: Path, **options: Any) -> Path:
    model.save_pretrained(folder, **options)
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="module")
def saved(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(make("qwen3", tokenizer), tokenizer, tmp_path_factory.mktemp("saved") / "qwen3")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def change(folder: Path, **keys: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **keys}))


@pytest.mark.parametrize("shards", [None, "20KB"], ids=["whole", "sharded"])
@pytest.mark.parametrize("name", THEIRS)
def test_logits_are_theirs(name: str, shards: str | None, tokenizer: Tokenizer, tmp_path: Path) -> None:
    peer = make(name, tokenizer)
    folder = save(peer, tokenizer, tmp_path / "model", **({"max_shard_size": shards} if shards else {}))
    assert (folder / "model.safetensors").is_file() == (shards is None)
    opened = open_model(folder, device="cpu")
    tokens = torch.randint(tokenizer.vocab_size, (2, 40), generator=torch.Generator().manual_seed(3))
    positions = torch.arange(40).expand_as(tokens)
    with torch.inference_mode():
        expected = peer(input_ids=tokens, use_cache=False).logits
        logits = opened.model.logits(opened.model(tokens, positions))
        cache = opened.model.new_cache(2, 40)
        decoded = opened.model.logits(opened.model.decode(tokens, positions, cache))
    assert expected.std() > 0.3  # else equality would say little
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(decoded, expected, atol=1e-4, rtol=1e-4)


def test_an_opened_folder_completes_and_says_what_it_is(saved: Path, tokenizer: Tokenizer) -> None:
    opened = open_model(saved, device="cpu")
    assert opened.fim_format.name == "inlay"  # its hint tokens are there
    assert opened.orders == ("spm", "psm", "spm_v2", "spm_joint")
    assert (opened.sequence_length, opened.run, opened.checkpoint) == (256, None, saved)
    assert opened.identity["run"] == "qwen3"
    assert len(opened.weights_hash) == 32
    assert open_model(saved, sequence_length=128).sequence_length == 128
    completion = complete(saved, "def f(", "):\n", max_tokens=8)
    assert completion.tokens <= 8
    with pytest.raises(BadInput, match="max_position_embeddings = 256"):
        open_model(saved, sequence_length=257)


def test_the_context_of_an_imported_model_is_bounded(folder: Path) -> None:
    change(folder, max_position_embeddings=131_072)
    assert open_model(folder).sequence_length == 4096
    assert open_model(folder, sequence_length=8192).sequence_length == 8192


def test_stop_ids_are_those_of_the_format_and_of_the_folder(folder: Path, tokenizer: Tokenizer) -> None:
    other = tokenizer.special["<|im_start|>"]
    assert other not in open_model(folder).stop_ids
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [other, tokenizer.eot]}))
    opened = open_model(folder)
    assert opened.stop_ids == opened.fim_format.stop_ids | {other}
    assert Engine(opened).stop_ids == opened.stop_ids
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": "x"}))
    with pytest.raises(BadInput, match=r"generation_config.json: eos_token_id = 'x'"):
        open_model(folder)


def test_bf16_weights_open_without_a_second_copy(saved: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    save(make("qwen3", tokenizer).bfloat16(), tokenizer, tmp_path / "half")
    half = open_model(tmp_path / "half", device="cpu", dtype="bfloat16")
    assert {value.dtype for value in half.model.blocks.parameters()} == {torch.bfloat16}
    assert half.model.embedding.weight.dtype == half.model.final_norm.weight.dtype == torch.float32
    assert half.model.compute_dtype == torch.bfloat16
    full = open_model(tmp_path / "half", device="cpu")
    for name, value in full.model.named_parameters():
        assert value.dtype == torch.float32
        assert not value.requires_grad
        assert torch.equal(value, dict(half.model.named_parameters())[name].float())


def test_a_change_of_the_file_does_not_reach_an_opened_model(folder: Path) -> None:
    opened = open_model(folder, device="cpu")
    weight = opened.model.get_parameter("blocks.0.mlp.up.weight")
    before = weight.clone()
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (1 << 16))
    assert torch.equal(weight, before)


def rewrite(folder: Path, edit: Any) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


UP = "model.layers.1.mlp.up_proj.weight"
DAMAGE: list[tuple[Any, str]] = [
    (lambda tensors: tensors.pop(UP), rf"the tensor {UP} is missing; is the download"),
    (
        lambda tensors: tensors.update({"model.layers.9.extra": torch.ones(2)}),
        r"model.layers.9.extra is unknown to Qwen3",
    ),
    (lambda tensors: tensors.update({UP: torch.ones(40, 33)}), rf"{UP} has shape \[40, 33\], and .* wants \[40, 32\]"),
    (
        lambda tensors: tensors.update({UP: torch.ones(40, 32, dtype=torch.int8)}),
        rf"{UP} is I8, so the weights are quant",
    ),
    (lambda tensors: tensors.update({"lm_head.weight": torch.ones(1, 1)}), r"lm_head.weight is not the embedding"),
]


@pytest.mark.parametrize(("edit", "message"), DAMAGE)
def test_tensors_that_do_not_fit_are_named(edit: Any, message: str, folder: Path) -> None:
    rewrite(folder, edit)
    with pytest.raises(BadInput, match=message) as error:
        open_model(folder)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_what_follows_from_the_rest_may_be_there_too(folder: Path) -> None:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)

    rewrite(folder, edit)
    open_model(folder)


def test_folders_that_cannot_be_opened_say_why(folder: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    change(folder, vocab_size=tokenizer.vocab_size - 1)
    with pytest.raises(BadInput, match=rf"embed_tokens.weight has shape .*{tokenizer.vocab_size - 1}"):
        open_model(folder)
    rewrite(
        folder,
        lambda tensors: tensors.update(
            {"model.embed_tokens.weight": tensors["model.embed_tokens.weight"][: tokenizer.vocab_size - 1].clone()}
        ),
    )
    with pytest.raises(BadInput, match=r"tokenizer.json has ids up to \d+, and the embedding only"):
        open_model(folder)
    change(folder, quantization_config={"bits": 4})
    with pytest.raises(BadInput, match="quantization_config says"):
        open_model(folder)
    change(folder, model_type="gemma2")
    (folder / "config.json").write_text("{")
    with pytest.raises(BadInput, match=r"damaged .*config.json"):
        open_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(BadInput, match=r"has weights but no config.json"):
        open_model(folder)


def test_an_unknown_architecture_is_named(folder: Path) -> None:
    change(folder, model_type="gemma2", architectures=["Gemma2ForCausalLM"])
    with pytest.raises(BadInput, match=r"config.json: model_type = 'gemma2'; inlay opens arcee"):
        open_model(folder)


def test_missing_and_damaged_files(folder: Path, saved: Path) -> None:
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[: len(data) // 2])
    with pytest.raises(InlayError, match=r"cannot read .*model.safetensors"):
        open_model(folder)
    weights.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(BadInput, match=r"neither model.safetensors nor .*convert them"):
        open_model(folder)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {UP: "../model-1.safetensors"}}))
    with pytest.raises(BadInput, match=r"index.json names the file \.\./model-1.safetensors, which is not there"):
        open_model(folder)
    shutil.copyfile(saved / "model.safetensors", folder / "one.safetensors")
    with safe_open(folder / "one.safetensors", framework="pt") as opened:
        places = dict.fromkeys(opened.keys(), "one.safetensors")
    index.write_text(json.dumps({"weight_map": places}))
    open_model(folder)
    rewrite_into = load_file(folder / "one.safetensors")
    rewrite_into.pop(UP)
    save_file(rewrite_into, folder / "one.safetensors")
    with pytest.raises(BadInput, match=rf"one.safetensors: the tensor {UP} is missing, which"):
        open_model(folder)
    shutil.copyfile(saved / "model.safetensors", folder / "one.safetensors")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(BadInput, match=r"cannot read tokenizer .*tokenizer.json"):
        open_model(folder)


def renamed(folder: Path, names: dict[str, str]) -> None:
    """Gives special tokens other strings."""
    file = folder / "tokenizer.json"
    data = json.loads(file.read_text())
    for token in data["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    file.write_text(json.dumps(data))
    (folder / "tokenizer_config.json").unlink()


STAR = {
    "<|fim_prefix|>": "<fim_prefix>",
    "<|fim_middle|>": "<fim_middle>",
    "<|fim_suffix|>": "<fim_suffix>",
    "<|fim_pad|>": "<fim_pad>",
}


def test_the_family_is_found_by_the_documented_rule(
    folder: Path, saved: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    assert open_model(saved, family="qwen2.5-coder").orders == ("psm",)
    # Without the line hints the strings are Qwen2.5-Coder's.
    renamed(folder, {"<|fim_line_start|>": "<a>", "<|fim_line_end|>": "<b>"})
    assert open_model(folder).fim_format.name == "qwen2.5-coder"
    renamed_star = Path(shutil.copytree(saved, tmp_path / "star"))
    renamed(renamed_star, STAR)
    with pytest.raises(BadInput, match=r"several format families: .* family=NAME, one of granite, starcoder$"):
        open_model(renamed_star)
    assert open_model(renamed_star, family="starcoder").orders == ("psm", "spm_v2")
    with pytest.raises(BadInput, match=r"format family 'inlay': '<\|fim_prefix\|>' is not one special token"):
        open_model(renamed_star, family="inlay")
    two = save(make("starcoder2", tokenizer), tokenizer, tmp_path / "two")
    renamed(two, {**STAR, "<|repo_name|>": "<repo_name>", "<|file_sep|>": "<file_sep>"})
    assert open_model(two).fim_format.name == "starcoder2"  # the architecture's name decides
    none = Path(shutil.copytree(saved, tmp_path / "none"))
    renamed(none, {name: f"<x{number}>" for number, name in enumerate(STAR)})
    with pytest.raises(BadInput, match="the infilling tokens of no format family"):
        open_model(none)


def test_a_run_keeps_its_own_format(tmp_path: Path, tokenizer: Tokenizer) -> None:
    from tests.tiny_run import write_run

    run = write_run(tmp_path / "run", tokenizer)
    assert open_model(run, family="inlay", sequence_length=128).step == 20
    with pytest.raises(BadInput, match=r"family = starcoder: .* was trained with inlay"):
        open_model(run, family="starcoder")
    with pytest.raises(BadInput, match=r"sequence_length = 64: .* was trained with 128"):
        open_model(run, sequence_length=64)


def test_no_code_of_the_folder_is_run(folder: Path) -> None:
    (folder / "modeling_evil.py").write_text("raise SystemExit('run')\n")
    change(folder, auto_map={"AutoModelForCausalLM": "modeling_evil.Evil"})
    open_model(folder)
    assert "modeling_evil" not in sys.modules


def test_the_verbs_take_a_folder(
    saved: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from inlay.cli.complete import complete as verb
    from inlay.cli.judge import evaluate as judge
    from inlay.evaluate.run import evaluate

    monkeypatch.chdir(tmp_path)  # results of what is no run go below the current folder
    (tmp_path / "a.py").write_text("def add(first, second):\n    return first + second\n" * 3)
    verb(str(saved), "max_tokens=4", "family=inlay", file=tmp_path / "a.py", at="2:5", as_json=True)
    assert json.loads(capfdbinary.readouterr().out)["tokens"] <= 4
    result = evaluate(saved, data=tmp_path, order="psm", limit=2, family="inlay")
    assert result["gold"]["exact"] == 1.0
    assert not (saved / "evaluations").exists()
    judge(str(saved), "family=qwen2.5-coder", data=str(tmp_path), limit=2, as_json=True)
    assert list(json.loads(capfdbinary.readouterr().out)["metrics"]) == ["psm"]
    with pytest.raises(BadInput, match="--data PATH"):
        evaluate(saved)
