"""`inlay export`: a run, a checkpoint or a folder to another format, and the comparison that proves the copy.

It decides which peers a comparison has: transformers on the folder that was written (for a GGUF file: on a temporary
one in fp32), and llama.cpp on the file that was written (for a folder: on a temporary one in fp32). A peer that is not
installed, or that cannot express the model, is named in a note.
"""

import contextlib
import copy
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from inlay.config import BadInput
from inlay.config.files import write_atomic
from inlay.export import check
from inlay.export.gguf import GGUFType, export_gguf, rounded
from inlay.export.llama_cpp import refusal
from inlay.export.llama_server import LlamaServer, is_installed
from inlay.export.modelfile import modelfile, modelfile_path
from inlay.export.peers import LlamaPeer, TransformersPeer
from inlay.infer.open import Opened, open_model
from inlay.text.progress import NoProgress, Progress

Target = Literal["hf", "gguf"]
HF_TYPES: dict[str, Literal["float32", "bfloat16"]] = {"f32": "float32", "bf16": "bfloat16"}
INFILL_PROMPTS = 3


@dataclass
class Exported:
    """What an export left behind."""

    written: list[Path]
    notices: list[str]
    checked: check.Checked | None = None


@dataclass
class _Peers:
    """The peers that could be had, and why the others could not."""

    found: list[check.Peer] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    server: LlamaServer | None = None


def export(
    target: str | Path,
    to: Target,
    out: str | Path,
    number_format: str | None = None,
    *,
    prove: bool = False,
    progress: Progress | None = None,
) -> Exported:
    """Exports the run, checkpoint or folder `target` to `out`; with `prove`, compares the copy with its peers.

    `number_format`: for gguf f32, f16 (the default), bf16, q8_0, q4_0; for hf f32 (the default), bf16. Raises BadInput
    for what the target cannot express, an `out` that exists and a missing package.
    """
    progress = progress or NoProgress()
    place = Path(out)
    kind = _check_format(to, number_format)
    if place.exists():
        raise BadInput(f"'{place}' exists: choose another --out, or remove it")
    opened = open_model(target, device="cpu", dtype="float32")
    if to == "hf":
        return _to_hf(opened, place, kind, prove, progress)
    return _to_gguf(opened, place, kind, prove, progress)


def _to_gguf(opened: Opened, place: Path, kind: GGUFType, prove: bool, progress: Progress) -> Exported:
    beside = modelfile_path(place)
    if beside.exists():
        raise BadInput(f"'{beside}' exists: choose another --out, or remove it")
    text = modelfile(opened, place.name)
    made = export_gguf(opened, place, kind, progress)
    write_atomic(beside, text)
    result = Exported([place, beside], list(made.notices))
    if prove:
        reference = check.with_weights(opened, rounded(opened, kind))
        with _temporary(place) as folder, _peers(reference, folder, gguf=place, label=kind) as peers:
            result.checked = _compare(
                reference, peers, check.tie_of(opened.model.config, kind), None if kind == "f32" else opened, progress
            )
    return result


def _to_hf(opened: Opened, place: Path, kind: GGUFType, prove: bool, progress: Progress) -> Exported:
    from inlay.export.hf import export_hf

    with progress.phase("export to hf", None, "bytes") as phase:
        made = export_hf(opened, place, HF_TYPES[kind])
        phase.advance(made.bytes)
    result = Exported([place], list(made.notices))
    if prove:
        reference = opened
        if kind != "f32":
            model = copy.deepcopy(opened.model).to(getattr(torch, HF_TYPES[kind])).float()
            reference = check.with_weights(opened, model)
        with _temporary(place) as folder, _peers(reference, folder, hf=place, label="f32") as peers:
            result.checked = _compare(
                reference, peers, check.tie_of(opened.model.config, "f32"), None if kind == "f32" else opened, progress
            )
    return result


def _compare(
    reference: Opened, peers: _Peers, tie: float, original: Opened | None, progress: Progress
) -> check.Checked:
    prompts, source, reason = check.infilling_prompts(reference)
    with progress.phase("check", None, "prompts") as phase:
        checked = check.compare(reference, peers.found, tie, prompts, source, original=original)
        phase.advance(len(prompts))
    checked.notes += [*([reason] if reason else []), *peers.notes]
    padding = reference.model.vocab_size - reference.tokenizer.vocab_size
    if padding:
        checked.notes.append(f"{padding:,} rows of the head have no token: left out on both sides")
    if peers.server is not None:
        checked.infill, note = _infill(reference, peers.server, prompts)
        checked.notes.append(note)
    return checked


@contextlib.contextmanager
def _peers(
    opened: Opened, folder: Path, *, label: str, gguf: Path | None = None, hf: Path | None = None
) -> Iterator[_Peers]:
    """The peers of a copy. What has to be written for one goes to `folder`."""
    peers = _Peers()
    with contextlib.ExitStack() as stack:
        _add_transformers(peers, opened, folder, hf)
        if not is_installed():
            peers.notes.append("llama.cpp is missing: pip install xllamacpp")
        else:
            with contextlib.suppress(BadInput):
                gguf = gguf or export_gguf(opened, folder / "peer.gguf", "f32").path
            if gguf is None:
                reason = refusal(opened.model.config, opened.sequence_length) or "it cannot take this tokenizer"
                peers.notes.append(f"llama.cpp is no peer here: {reason}")
            else:
                peers.server = stack.enter_context(LlamaServer(gguf, opened.sequence_length, _batch(opened)))
                peers.found.append(LlamaPeer(peers.server, f"llama.cpp, {label}"))
        yield peers


def _add_transformers(peers: _Peers, opened: Opened, folder: Path, hf: Path | None) -> None:
    if not TransformersPeer.is_installed():
        peers.notes.append("transformers is missing: pip install transformers")
        return
    from inlay.export.hf import export_hf

    if hf is None:
        hf = folder / "peer"
        try:
            export_hf(opened, hf, "float32")
        except BadInput as error:
            peers.notes.append(f"transformers is no peer here: {error}")
            return
    peers.found.append(TransformersPeer(hf, opened.tokenizer.vocab_size))


def _infill(opened: Opened, server: LlamaServer, prompts: Sequence[check.Prompt]) -> tuple[bool | None, str]:
    """Whether llama.cpp's own infilling prompts are the format's, and the line that says so."""
    fim_format = opened.fim_format
    if "psm" not in fim_format.family.orders:
        return None, f"llama.cpp's /infill sends PSM, which format '{fim_format.name}' does not have"
    encode = fim_format.tokenizer.encode
    header = None
    if fim_format.repo is not None and fim_format.file is not None:
        header = fim_format.repository("myproject", [], "filename")
    rewinds = all(spec.block.mixer.kind != "short_conv" for spec in opened.model.layout)
    room = _batch(opened) // 4 - 2
    equal = 0
    for prompt in prompts[:INFILL_PROMPTS]:
        # llama.cpp keeps three quarters of a batch of the prefix and one of the suffix.
        prefix, suffix = _last_part(prompt.prefix, 3 * room, encode), _first_part(prompt.suffix, room, encode)
        ids = fim_format.prompt(encode(prefix), encode(suffix), "psm", header)
        equal += server.builds(ids, prefix, suffix, rewinds)
    tried = len(prompts[:INFILL_PROMPTS])
    how = "id by id" if rewinds else "by length and text"
    return equal == tried, f"llama.cpp's /infill builds our prompt, {how}: {equal} of {tried}"


def _batch(opened: Opened) -> int:
    """llama.cpp's batch. It puts repository and file before an infilling prompt only where they fit beside a batch."""
    return max(32, opened.sequence_length // 2)


def _last_part(text: str, room: int, encode: Any) -> str:
    while len(encode(text)) > room:
        text = text[len(text) // 4 + 1 :]
    return text


def _first_part(text: str, room: int, encode: Any) -> str:
    while len(encode(text)) > room:
        text = text[: -len(text) // 4 - 1]
    return text


@contextlib.contextmanager
def _temporary(place: Path) -> Iterator[Path]:
    """A folder beside the export, because the copies in it are as large: it may be the only disk with room."""
    with tempfile.TemporaryDirectory(prefix=".inlay-check-", dir=place.resolve().parent) as folder:
        yield Path(folder)


def _check_format(to: Target, number_format: str | None) -> GGUFType:
    if to == "gguf":
        allowed: tuple[str, ...] = get_args(GGUFType)
    else:
        allowed = tuple(HF_TYPES)
    kind = number_format or ("f16" if to == "gguf" else "f32")
    if kind not in allowed:
        raise BadInput(f"--type {kind}: --to {to} writes {', '.join(allowed)}")
    return kind  # pyrefly: ignore (one of them)
