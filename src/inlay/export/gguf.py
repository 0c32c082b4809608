"""Writes a model as one GGUF file: metadata, vocabulary and tensors, streamed one at a time.

It decides the number format of each tensor: matrices in the format asked for; norms, biases and convolution kernels in
fp32; the up-projection of a latent, and rows that do not divide into blocks of 32, in f16; and under q4_0 the embedding
and the head in q8_0, which they are more sensitive to than any other matrix. Parameters that only training uses
(multi-token prediction, horizon) are left out. A file appears whole or not at all, and never over another.
"""

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from inlay.config import BadInput, InlayError
from inlay.config.files import disk_errors, sync_folder
from inlay.export.llama_cpp import Architecture, Value, architecture_of, refusal
from inlay.export.nearest import suggestion
from inlay.export.vocabulary import Vocabulary, vocabulary
from inlay.infer.open import Opened
from inlay.model import Transformer
from inlay.text.progress import NoProgress, Progress

GGUFType = Literal["f32", "f16", "bf16", "q8_0", "q4_0"]
BLOCK = 32
"""Elements that share a scale in q8_0 and q4_0."""
LARGEST_HALF = 65504.0
_FILE_TYPES: dict[GGUFType, int] = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 7, "bf16": 32}
"""llama.cpp's numbers for `general.file_type`."""
_FULL = ("shortconv.conv.weight", "rope_freqs.weight")
"""Tensors that llama.cpp takes in fp32 only."""
_HALVES = ("attn_kv_b.weight", "attn_k_b.weight", "attn_v_b.weight")
"""The up-projection of a latent: its key half is stored transposed, so blocks would run across channels."""
_TABLES = ("token_embd.weight", "output.weight")


@dataclass(frozen=True)
class ExportedGGUF:
    """A finished file, and what was done otherwise than asked."""

    path: Path
    architecture: str
    number_format: GGUFType
    tensors: int
    bytes: int
    notices: tuple[str, ...] = ()


@dataclass
class _Plan:
    """What each tensor of the file will be."""

    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    types: dict[str, GGUFType] = field(default_factory=dict)
    odd: list[str] = field(default_factory=list)
    """Tensors whose rows do not divide into blocks."""


def export_gguf(
    opened: Opened, out: str | Path, number_format: GGUFType = "f16", progress: Progress | None = None
) -> ExportedGGUF:
    """Writes `opened` to the file `out`.

    Raises BadInput when llama.cpp cannot express the model or encode its text, when `out` exists or cannot be written,
    and when the package `gguf` is missing; InlayError on a full disk and for a weight that f16 cannot hold.
    """
    package = load_package()
    target = Path(out)
    if target.exists():
        raise BadInput(f"'{target}' exists: choose another --out, or remove it")
    config, context = opened.model.config, opened.sequence_length
    reason = refusal(config, context)
    if reason is not None:
        raise BadInput(reason + suggestion(config, lambda other: refusal(other, context) is None))
    architecture = architecture_of(config, context)
    words = vocabulary(opened.tokenizer, opened.fim_format)
    plan = _planned(architecture, opened, number_format)
    with _appearing(target) as temporary:
        writer = package.GGUFWriter(temporary, architecture.kind)
        _add_metadata(writer, architecture, opened, number_format)
        _add_vocabulary(writer, words)
        numbers = {kind: package.GGMLQuantizationType[kind.upper()] for kind in _FILE_TYPES}
        for name, shape in plan.shapes.items():
            kind = numbers[plan.types[name]]
            stored = package.quants.quant_shape_to_byte_shape(shape, kind) if plan.types[name] != "f32" else shape
            of = np.dtype(np.float32 if plan.types[name] == "f32" else np.uint8)
            writer.add_tensor_info(name, stored, of, int(np.prod(stored)) * of.itemsize, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        with (progress or NoProgress()).phase(f"export to {number_format}", _bytes(plan, package), "bytes") as phase:
            for name, tensor in _tensors(architecture, opened):
                data = _stored(name, tensor, plan.types[name], package)
                writer.write_tensor_data(data)
                phase.advance(data.nbytes)
        writer.close()
        size = temporary.stat().st_size
    return ExportedGGUF(
        target,
        architecture.kind,
        number_format,
        len(plan.shapes),
        size,
        (*architecture.notices(config), *_notices(plan, opened, number_format)),
    )


def load_package() -> Any:
    """The package `gguf`. Raises BadInput that says how to install it."""
    try:
        import gguf
    except ImportError:
        raise BadInput("GGUF export needs the package gguf: pip install gguf") from None
    return gguf


def stored_type(name: str, shape: tuple[int, ...], number_format: GGUFType) -> GGUFType:
    """The format in which a tensor is stored in a file of `number_format`."""
    if len(shape) == 1 or name.endswith(_FULL):
        return "f32"
    if number_format in ("q8_0", "q4_0") and (shape[-1] % BLOCK or name.endswith(_HALVES)):
        return "f16"
    return "q8_0" if number_format == "q4_0" and name in _TABLES else number_format


def rounded(opened: Opened, number_format: GGUFType) -> Transformer:
    """A copy of the model with the weights that a file of `number_format` holds."""
    package = load_package()
    model = copy.deepcopy(opened.model).float()
    architecture = architecture_of(model.config, opened.sequence_length)
    for name, tensor, _ in architecture.sources(model):
        kind = stored_type(name, tuple(tensor.shape), number_format)
        if kind != "f32":
            number = package.GGMLQuantizationType[kind.upper()]
            values = package.quants.quantize(tensor.detach().cpu().numpy(), number)
            tensor.data.copy_(torch.from_numpy(package.quants.dequantize(values, number)))
    return model


def _tensors(architecture: Architecture, opened: Opened) -> Iterator[tuple[str, Tensor]]:
    """The tensors of the file, without the rows beyond the vocabulary, which pad ours for speed and mean nothing."""
    for name, tensor in architecture.tensors(opened.model):
        yield name, tensor[: opened.tokenizer.vocab_size] if name in _TABLES else tensor


def _planned(architecture: Architecture, opened: Opened, number_format: GGUFType) -> _Plan:
    plan = _Plan()
    for name, tensor in _tensors(architecture, opened):
        plan.shapes[name] = tuple(tensor.shape)
        plan.types[name] = stored_type(name, plan.shapes[name], number_format)
        if plan.types[name] == "f16" != number_format and not name.endswith(_HALVES):
            plan.odd.append(name)
    return plan


def _stored(name: str, tensor: Tensor, number_format: GGUFType, package: Any) -> np.ndarray:
    """The bytes of a tensor: fp32 [...] for f32, else uint8."""
    values = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
    if number_format == "f32":
        return values
    if number_format == "f16" and values.size and float(np.abs(values).max()) > LARGEST_HALF:
        raise InlayError(f"tensor {name} holds {float(np.abs(values).max()):g}, more than f16 can: take --type bf16")
    data = package.quants.quantize(values, package.GGMLQuantizationType[number_format.upper()])
    return np.ascontiguousarray(data).view(np.uint8)


def _add_metadata(writer: Any, architecture: Architecture, opened: Opened, number_format: GGUFType) -> None:
    writer.add_name(opened.run.resolve().name if opened.run is not None else f"inlay step {opened.step}")
    writer.add_string("inlay.format", opened.fim_format.name)
    writer.add_string("inlay.weights_hash", opened.weights_hash)
    writer.add_uint32("inlay.step", opened.step)
    writer.add_file_type(_FILE_TYPES[number_format])
    writer.add_quantization_version(2)
    config = opened.model.config
    values = architecture.metadata(config, opened.sequence_length) | {"vocab_size": opened.tokenizer.vocab_size}
    for key, value in values.items():
        _add(writer, f"{architecture.kind}.{key}", value)


def _add_vocabulary(writer: Any, words: Vocabulary) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(words.pre)
    writer.add_token_list(words.tokens)
    writer.add_token_types(words.types)
    writer.add_token_merges(words.merges)
    for key, number in words.ids.items():
        writer.add_uint32(f"tokenizer.ggml.{key}", number)
    writer.add_add_bos_token(words.add_bos)
    writer.add_add_eos_token(False)


def _add(writer: Any, key: str, value: Value) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def _bytes(plan: _Plan, package: Any) -> int:
    total = 0
    for name, shape in plan.shapes.items():
        block, size = package.GGML_QUANT_SIZES[package.GGMLQuantizationType[plan.types[name].upper()]]
        total += int(np.prod(shape)) // block * size
    return total


def _notices(plan: _Plan, opened: Opened, number_format: GGUFType) -> tuple[str, ...]:
    found = []
    if plan.odd:
        more = f" and {len(plan.odd) - 1} more" if len(plan.odd) > 1 else ""
        row = plan.shapes[plan.odd[0]][-1]
        found.append(
            f"{plan.odd[0]}{more} kept in f16: rows of {row} do not divide into blocks of {BLOCK} ({number_format})"
        )
    if number_format == "q4_0":
        found.append("embedding and head kept in q8_0, as the most sensitive matrices")
    config = opened.model.config
    dropped = [name for name in ("mtp", "horizon") if getattr(config, name) is not None]
    if dropped:
        found.append(f"left out what only training uses: {', '.join(dropped)}")
    return tuple(found)


@contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """A temporary path beside `target` that becomes it when the block ends well, and is removed when it does not."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(target.parent)
