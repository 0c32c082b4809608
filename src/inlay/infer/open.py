"""Opens a model with its tokenizer and its FIM format, ready to generate: what a run left behind, or a folder in the
form of Hugging Face, exported by inlay or made elsewhere.

It decides which checkpoint of a run counts: the newest one that is complete and whose weights match their recorded
hash. A damaged one is skipped with a line on standard error and the one before it is taken. It refuses a folder that is
none of these, and a run without any readable checkpoint; `inlay.infer.hf_folder` says what it refuses.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from inlay.config import BadInput, InlayError, validate
from inlay.config.run_dir import RunDir
from inlay.fim.family import Order
from inlay.fim.format import FimFormat
from inlay.infer.hf_folder import HFFolder, is_hf_folder
from inlay.model import ModelConfig, Transformer, build, checkpoint
from inlay.model.precision import has_bfloat16_units
from inlay.text.tokenizer import Tokenizer

DtypeName = Literal["auto", "float32", "bfloat16"]
"""What the blocks compute in; embedding, head and logits stay fp32. `auto` is bfloat16 where it was measured to be
faster: on a GPU, and on a CPU with bf16 units for 10M parameters or more, or for a batch."""

BFLOAT16_PAYS_FROM = 10_000_000
"""Non-embedding parameters from which one-row decoding in bf16 beats fp32 on a CPU (267 against 208 tokens/s at 10M,
but 575 against 630 at 3M)."""
BATCH_PAYS_FROM = 8
"""Rows from which a model of any size gains from bf16 on such a CPU: at 3M and 64 rows it halves the time of the
prefill."""


@dataclass(frozen=True)
class Opened:
    """A model that can generate, and all that identifies it."""

    model: Transformer
    tokenizer: Tokenizer
    fim_format: FimFormat
    config: dict[str, Any]
    """The run's resolved configuration (plain JSON types)."""
    weights_hash: str
    """xxh3_128 of the weights file, hexadecimal."""
    step: int
    sequence_length: int
    """Tokens of context that the model was trained on: prompt and completion together must fit in it."""
    orders: tuple[Order, ...]
    """The orders it was trained in, SPM version 1 first where it is among them."""
    run: Path | None = None
    """The run directory; None for a model in memory or from a Hugging Face folder."""
    checkpoint: Path | None = None
    """The folder that holds the weights; None for a model in memory."""
    more_stop_ids: frozenset[int] = frozenset()
    """Ids beside the format's that end a completion, as an imported checkpoint names them."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the blocks compute in."""
        return self.model.compute_dtype

    @property
    def stop_ids(self) -> frozenset[int]:
        """Every id that ends a completion."""
        return self.fim_format.stop_ids | self.more_stop_ids

    @property
    def identity(self) -> dict[str, Any]:
        """What a report needs to say which model this is, as plain JSON types."""
        place = self.run or self.checkpoint
        return {
            "run": None if place is None else place.resolve().name,
            "step": self.step,
            "weights_hash": self.weights_hash,
            "tokenizer_hash": self.tokenizer.hash,
            "format": self.fim_format.name,
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "sequence_length": self.sequence_length,
            "dtype": str(self.dtype).removeprefix("torch."),
        }


def open_model(
    target: str | Path,
    device: str | None = None,
    dtype: DtypeName = "float32",
    *,
    rows: int = 1,
    family: str | None = None,
    sequence_length: int | None = None,
) -> Opened:
    """Opens a run directory (its newest good checkpoint), one checkpoint folder `RUN/checkpoints/step-N`, or a Hugging
    Face folder.

    `device`: a torch device; None takes the GPU when there is one. `dtype`: see `DtypeName`, `rows`: how many
    prompts will run together, for `auto`. `family` and `sequence_length` say the FIM format and the context of a folder
    that does not tell itself; a run knows both. Raises BadInput when `target` is none of these or of an architecture
    that inlay has not (exit status 2), InlayError when its files are damaged (exit status 1).
    """
    path = Path(target)
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if is_hf_folder(path):
        return _open_folder(HFFolder.read(path), place, dtype, rows, family, sequence_length)
    run, candidates = candidate_checkpoints(path)
    config = run.load_config()
    own_family, orders, own_length = _context(config, str(run.config_file))
    tokenizer = Tokenizer.load(run.tokenizer)
    folder, record, skipped = checkpoint.newest_good(candidates, checkpoint.WEIGHTS)
    # A run with stages was trained on rows of another length by then, with the rotary embedding that is in `model`.
    own_length = int(record.get("sequence_length", own_length))
    for name, asked, own in (("family", family, own_family), ("sequence_length", sequence_length, own_length)):
        if asked not in (None, own):
            raise BadInput(f"{name} = {asked}: '{target}' was trained with {own}; leave {name} out")
    for line in skipped:
        print(f"inlay: {line}", file=sys.stderr)
    model = read_checkpoint(folder, record)
    model.drop_auxiliary()
    model = model.to(place).eval().requires_grad_(False)
    model.compute_dtype = _dtype(dtype, place, model, rows)
    # Cast once, rather than at every step of a decode.
    model.blocks.to(model.compute_dtype)
    return Opened(
        model=model,
        tokenizer=tokenizer,
        fim_format=FimFormat.load(own_family, tokenizer),
        config=config,
        weights_hash=record["hashes"][checkpoint.WEIGHTS],
        step=int(record["step"]),
        sequence_length=own_length,
        orders=orders,
        run=run.path,
        checkpoint=folder,
    )


def read_checkpoint(folder: Path, record: dict[str, Any]) -> Transformer:
    """The model of a checkpoint folder, on the CPU in fp32. Raises InlayError when its weights do not fit it."""
    weights = checkpoint.read_tensors(folder, checkpoint.WEIGHTS)
    model = build(validate(ModelConfig, record["model"], where=str(folder)), int(record["vocab_size"]))
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InlayError(f"the weights in {folder} do not fit the model they record: {reason[:200]}") from None
    return model


def _open_folder(
    folder: HFFolder, device: torch.device, dtype: DtypeName, rows: int, family: str | None, length: int | None
) -> Opened:
    name, orders = folder.family(family)
    fim_format = FimFormat.load(name, folder.tokenizer)
    sequence_length = folder.sequence_length(length)
    weights_hash = folder.weights_hash
    with torch.device("meta"):
        computed = _dtype(dtype, device, Transformer(folder.config, folder.vocab_size), rows)
    model = folder.load(device, computed).eval().requires_grad_(False)
    model.compute_dtype = computed
    return Opened(
        model=model,
        tokenizer=folder.tokenizer,
        fim_format=fim_format,
        config={
            "model": folder.config.to_dict(),
            "fim": {"family": name, "orders": dict.fromkeys(orders, 1.0 / len(orders))},
            "train": {"sequence_length": sequence_length},
        },
        weights_hash=weights_hash,
        step=0 if folder.record is None else int(folder.record["step"]),
        sequence_length=sequence_length,
        orders=orders,
        checkpoint=folder.path,
        more_stop_ids=folder.stop_ids,
    )


def in_memory(
    model: Transformer, tokenizer: Tokenizer, config: dict[str, Any], step: int, weights_hash: str = ""
) -> Opened:
    """A model that is already there (in training, say) as `open_model` would give it; it is used as it is.

    `config` is the run's resolved configuration. Raises BadInput when that is no training run's.
    """
    family, orders, sequence_length = _context(config, "the run's configuration")
    fim_format = FimFormat.load(family, tokenizer)
    return Opened(model, tokenizer, fim_format, config, weights_hash, step, sequence_length, orders)


def candidate_checkpoints(path: Path) -> tuple[RunDir, list[Path]]:
    """The run that `path` names or belongs to, and its candidate checkpoints, newest first."""
    if (path / checkpoint.RECORD).is_file():
        # A checkpoint knows its weights; the tokenizer and the format belong to its run, two folders up.
        return RunDir.open(path.resolve().parent.parent), [path]
    if path.is_dir() and not (path / "config.yaml").is_file() and any(path.glob("*.safetensors")):
        raise BadInput(f"'{path}' has weights but no config.json, without which nothing says what they are")
    run = RunDir.open(path)
    found = checkpoint.folders(path)
    if not found:
        raise BadInput(f"'{path}' has no checkpoint yet: go on training it with `inlay train resume={path}`")
    return run, found


def _context(config: dict[str, Any], where: str) -> tuple[str, tuple[Order, ...], int]:
    """The format family's name, the orders and the context length that a run was trained with."""
    try:
        fim = config["fim"]
        shares: dict[Order, float] = fim["orders"]
        orders = sorted((order for order, share in shares.items() if share > 0), key=lambda order: order != "spm")
        return str(fim["family"]), tuple(orders), int(config["train"]["sequence_length"])
    except (KeyError, TypeError, ValueError, AttributeError):
        raise BadInput(
            f"{where} is not that of a training run: it needs fim.family, fim.orders and train.sequence_length"
        ) from None


def _dtype(name: DtypeName, device: torch.device, model: Transformer, rows: int) -> torch.dtype:
    if name not in get_args(DtypeName):
        raise BadInput(f"unknown dtype '{name}'; allowed: {', '.join(get_args(DtypeName))}")
    if name != "auto":
        return torch.float32 if name == "float32" else torch.bfloat16
    count = sum(parameter.numel() for parameter in model.blocks.parameters())
    pays = count >= BFLOAT16_PAYS_FROM or rows >= BATCH_PAYS_FROM
    return torch.bfloat16 if device.type != "cpu" or (pays and has_bfloat16_units()) else torch.float32
