"""Writes a model as a Hugging Face folder that loads with AutoModelForCausalLM and AutoTokenizer, without remote code.

    OUT/model.safetensors       under the names of its class; a tied head is left out
        config.json, generation_config.json (with every stop id of the format)
        tokenizer.json, tokenizer_config.json
        inlay.json              format, context, hashes and facts: our own tools open the folder as they open a run
        README.md               the model card

It decides the architecture: the one whose class is exactly this model; where there is none it refuses, with the reason.
What only training uses (multi-token prediction, horizon head) is left out. The folder is there whole or not at all, and
an existing one is never touched. In fp32 the weights are the model's, bit for bit; in bf16 each is rounded to 8 bits of
mantissa, half the file, and logits differ by about a hundredth of their spread.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

import inlay
from inlay.config import BadInput, InlayError
from inlay.config.files import disk_errors, parse_json, read_bounded_text, sync_folder
from inlay.export.card import card, facts, stop_list, write_card
from inlay.export.nearest import suggestion
from inlay.infer import export_record
from inlay.infer.hf_folder import CONFIG, GENERATION, WEIGHTS
from inlay.infer.open import Opened
from inlay.model import checkpoint
from inlay.model.architecture import Architecture, choose, refusal
from inlay.text.tokenizer import Tokenizer

HFDtype = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class ExportedHF:
    """A folder that was written."""

    path: Path
    architecture: str
    """Its class in transformers."""
    dtype: str
    parameters: int
    bytes: int
    """Of the weights file."""
    notices: tuple[str, ...]
    """What a reader should know, a line each."""


def export_hf(opened: Opened, out: str | Path, dtype: HFDtype = "float32") -> ExportedHF:
    """Writes `opened` to the new folder `out`.

    Raises BadInput when `out` exists, when no class of transformers is this model, or when the model was opened in
    bfloat16 and fp32 is asked for; InlayError in one line when the disk is full.
    """
    target = Path(out)
    if dtype not in get_args(HFDtype):
        raise BadInput(f"unknown dtype '{dtype}'; a Hugging Face folder is {' or '.join(get_args(HFDtype))}")
    if target.exists():
        raise BadInput(f"'{target}' exists: choose another place with --out, or remove it")
    if dtype == "float32" and opened.dtype != torch.float32:
        raise BadInput("the model was opened in bfloat16, so its fp32 weights are gone: open it in float32")
    config = opened.model.config
    if reason := refusal(config):
        raise BadInput(reason + suggestion(config, lambda preset: refusal(preset) is None))
    architecture = choose(config)
    notices = _notices(opened, dtype)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with disk_errors(target):
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            _write_weights(temporary / WEIGHTS, opened, architecture, dtype)
            _write_json(temporary / CONFIG, _config(opened, architecture, dtype))
            _write_json(temporary / GENERATION, _generation(opened))
            _write_tokenizer(temporary, opened)
            known = facts(opened)
            export_record.write(temporary, _record(opened, known), WEIGHTS)
            write_card(temporary, card(target.name, opened, known, architecture.CLASS, dtype, notices))
            size = (temporary / WEIGHTS).stat().st_size
            for file in temporary.iterdir():
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())
            sync_folder(temporary)
            if target.exists():
                raise BadInput(f"'{target}' has appeared meanwhile: choose another place with --out")
            temporary.rename(target)
            sync_folder(target.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    parameters = sum(parameter.numel() for parameter in opened.model.parameters())
    return ExportedHF(target, architecture.CLASS, dtype, parameters, size, tuple(notices))


def _write_weights(file: Path, opened: Opened, architecture: Architecture, dtype: HFDtype) -> None:
    parameters = dict(opened.model.named_parameters())
    config = opened.model.config
    tensors = {
        theirs: architecture.to_file(
            ours, parameters[ours].detach().to("cpu", getattr(torch, dtype)), config
        ).contiguous()
        for ours, theirs in architecture.names(config).items()
    }
    try:
        save_file(tensors, file, metadata={"format": "pt"})
    except SafetensorError as error:
        raise checkpoint.system_error(error) or InlayError(f"cannot write {file}: {error}") from None


def _config(opened: Opened, architecture: Architecture, dtype: HFDtype) -> dict[str, Any]:
    model, fim = opened.model, opened.fim_format
    return {
        **architecture.hf_config(model.config, model.vocab_size, opened.sequence_length),
        # The older name beside the newer one: transformers before 4.56, vLLM and converters read that.
        "dtype": dtype,
        "torch_dtype": dtype,
        "bos_token_id": fim.bos,
        "eos_token_id": fim.eot,
        "pad_token_id": fim.pad,
    }


def _generation(opened: Opened) -> dict[str, Any]:
    fim = opened.fim_format
    return {
        "do_sample": False,
        "bos_token_id": fim.bos,
        "eos_token_id": stop_list(opened),
        "pad_token_id": fim.pad,
    }


def _write_tokenizer(folder: Path, opened: Opened) -> None:
    tokenizer, fim = opened.tokenizer, opened.fim_format
    names = {token: text for text, token in tokenizer.special.items()}
    end = names[fim.eot if tokenizer.eot is None else tokenizer.eot]
    padding = names[fim.pad if tokenizer.pad is None else tokenizer.pad]
    Tokenizer(_plain_definition(tokenizer), end, padding).save(folder)
    file = folder / "tokenizer_config.json"
    settings = parse_json(read_bounded_text(file))
    settings |= {"add_bos_token": False, "add_eos_token": False, "model_max_length": opened.sequence_length}
    if fim.bos is not None:
        settings["bos_token"] = names[fim.bos]
    _write_json(file, settings)


def _plain_definition(tokenizer: Tokenizer) -> str:
    """The definition with which transformers gives our ids: no token is put around text, and byte-level text is not
    normalised."""
    parsed = parse_json(tokenizer.definition)
    parsed["post_processor"] = _without_template(parsed.get("post_processor"))
    if tokenizer.style == "byte-level":
        parsed["normalizer"] = None
    return json.dumps(parsed, ensure_ascii=False)


def _without_template(step: dict[str, Any] | None) -> dict[str, Any] | None:
    if step is None or step.get("type") == "TemplateProcessing":
        return None
    if step.get("type") == "Sequence":
        kept = [inner for inner in map(_without_template, step["processors"]) if inner is not None]
        return {**step, "processors": kept} if kept else None
    return step


def _record(opened: Opened, known: dict[str, Any]) -> dict[str, Any]:
    return {
        "inlay": inlay.__version__,
        "family": opened.fim_format.name,
        "orders": list(opened.orders),
        "sequence_length": opened.sequence_length,
        "step": opened.step,
        "facts": known,
    }


def _notices(opened: Opened, dtype: HFDtype) -> list[str]:
    config = opened.config.get("model") or {}
    left = [name for name in ("mtp", "horizon") if config.get(name) is not None]
    notices = [f"The parts that only training used are left out: {' and '.join(left)}."] if left else []
    if not opened.model.config.document_masks:
        notices.append(
            "It was trained on rows whose documents see each other (document_masks: false); here it reads one document."
        )
    if dtype == "bfloat16":
        notices.append(
            "The weights are rounded to bfloat16, so logits differ a little from those of the fp32 checkpoint, and"
            " greedy tokens where two were nearly equal."
        )
    return notices


def _write_json(file: Path, data: dict[str, Any]) -> None:
    file.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
