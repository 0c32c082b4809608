"""Reads a local Hugging Face folder: config.json, safetensors whole or in shards, tokenizer, stop ids, FIM family.

It decides what may be opened before any weight is read: an architecture that inlay has, every tensor there with its
shape, none that is unknown or quantised. Tensors are read one by one and converted as they come, so that a checkpoint
is never in memory twice. A folder that inlay has exported carries `inlay.json`; it names format, context and hashes.
Nothing is downloaded and no code from the folder is run.

Which FIM family an imported checkpoint has, in this order: the one that is asked for; that of `inlay.json`; the only
one whose tokens the tokenizer has, where inlay's own counts if its line hints are among them and not otherwise (its
other strings are Qwen2.5-Coder's); the one that is called like the architecture. Else the choice is the user's.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from inlay.config import BadInput, InlayError
from inlay.config.files import read_json
from inlay.fim.family import Family, Order, all_families, load_family
from inlay.infer import export_record
from inlay.model import ModelConfig, Transformer, checkpoint
from inlay.model.architecture import Architecture, architecture_of
from inlay.model.hf_keys import HFKeys
from inlay.text.tokenizer import Tokenizer

CONFIG = "config.json"
GENERATION = "generation_config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
LONGEST_CONTEXT = 4096
"""Context of an imported model unless asked for more: some claim 128k tokens, which no infill needs and no laptop
holds."""

_DTYPES = frozenset({"F32", "F16", "BF16"})
_HEAD = "lm_head.weight"


@dataclass(frozen=True)
class HFFolder:
    """An openable checkpoint, checked down to the shape of every tensor. Make one with `read`."""

    path: Path
    architecture: Architecture
    config: ModelConfig
    vocab_size: int
    """Rows of the embedding; often more than the tokenizer has ids."""
    context: int
    """Positions that it was made for."""
    data: dict[str, Any]
    """Its config.json."""
    record: dict[str, Any] | None
    """Its inlay.json, where inlay wrote it."""
    files: dict[str, Path]
    """The file that holds each tensor, by its name there."""

    @classmethod
    def read(cls, path: str | Path) -> "HFFolder":
        """Reads and checks all but the weights themselves. Raises BadInput that names file, layer and key."""
        path = Path(path)
        where = str(path / CONFIG)
        record = export_record.read(path)
        data = read_json(path / CONFIG)
        if "quantization_config" in data:
            raise BadInput(
                f"{where}: quantization_config says that the weights are quantised; take the checkpoint in bf16,"
                " fp16 or fp32"
            )
        architecture = architecture_of(data, where)
        keys = HFKeys(data, where, architecture.DEFAULTS)
        config = architecture.read(data, where)
        context = keys.integer("max_position_embeddings")
        folder = cls(path, architecture, config, keys.integer("vocab_size"), context, data, record, tensor_files(path))
        folder._check_tensors()
        return folder

    @cached_property
    def names(self) -> dict[str, str]:
        """The name of each weight in the files by ours."""
        return self.architecture.names(self.config)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Its tokenizer. Raises BadInput when it has more ids than the embedding has rows."""
        tokenizer = Tokenizer.load(self.path)
        if tokenizer.vocab_size > self.vocab_size:
            raise BadInput(
                f"{self.path / 'tokenizer.json'} has ids up to {tokenizer.vocab_size - 1}, and the embedding only"
                f" {self.vocab_size} rows (vocab_size in {CONFIG}): they are not of one model"
            )
        return tokenizer

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Every end-of-sequence id that generation_config.json and config.json name."""
        found: set[int] = set()
        generation = read_json(self.path / GENERATION) if (self.path / GENERATION).is_file() else {}
        for name, data in ((GENERATION, generation), (CONFIG, self.data)):
            value = data.get("eos_token_id")
            ids = [] if value is None else value if isinstance(value, list) else [value]
            if any(not isinstance(token, int) or isinstance(token, bool) for token in ids):
                raise BadInput(f"{self.path / name}: eos_token_id = {value!r}, where one or more ids belong")
            found.update(token for token in ids if 0 <= token < self.vocab_size)
        return frozenset(found)

    @cached_property
    def weights_hash(self) -> str:
        """xxh3_128 of the weights file; of the hashes of all, where they are several.

        Raises InlayError when they are not those that inlay.json has recorded.
        """
        hashes = {file.name: checkpoint.file_hash(file) for file in sorted(set(self.files.values()))}
        export_record.check_weights(self.path, self.record, hashes)
        return export_record.joint_hash(hashes)

    def family(self, asked: str | None = None) -> tuple[str, tuple[Order, ...]]:
        """The FIM family and the orders of its prompts, the default one first. Raises BadInput when it cannot tell."""
        if self.record is not None and asked in (None, self.record.get("family")):
            return str(self.record["family"]), tuple(self.record["orders"])
        name = asked or detect_family(self.tokenizer, self.architecture.kind, self.path)
        return name, load_family(name).orders

    def sequence_length(self, asked: int | None = None) -> int:
        """Tokens of context to use. Raises BadInput for more than the model was made for."""
        longest = self.context if self.record is None else int(self.record["sequence_length"])
        if asked is not None and not 1 <= asked <= self.context:
            raise BadInput(
                f"sequence_length = {asked}: {self.path / CONFIG} has max_position_embeddings = {self.context}"
            )
        return asked or (longest if self.record is not None else min(longest, LONGEST_CONTEXT))

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Our name and the value of each weight as stored, one at a time. Raises InlayError for a damaged file."""
        ours = {theirs: name for name, theirs in self.names.items()}
        for file in sorted(set(self.files.values())):
            with _open(file) as opened:
                for theirs in sorted(name for name, place in self.files.items() if place == file and name in ours):
                    try:
                        stored = opened.get_tensor(theirs)
                    except SafetensorError as error:
                        raise InlayError(f"cannot read {theirs} in {file}: {error}") from None
                    name = ours[theirs]
                    yield name, self.architecture.from_file(name, stored, self.config, self.data)

    def load(self, device: torch.device, dtype: torch.dtype) -> Transformer:
        """The model on `device`: blocks in `dtype`, embedding, head and final norm in fp32."""
        with torch.device("meta"):
            model = Transformer(self.config, self.vocab_size)
        state = {}
        for name, tensor in self.tensors():
            kept = dtype if name.startswith("blocks.") else torch.float32
            # A copy always: the tensor of a mapped file would change with the file.
            state[name] = tensor.to(device=device, dtype=kept, copy=True)
        model.load_state_dict(state, assign=True)
        self._check_head(model)
        return model

    def fill(self, model: Transformer) -> None:
        """Copies the weights into a model of the same configuration, in its own dtype; parts that only training uses
        stay as they are. Raises InlayError for weights that are not those of the record."""
        _ = self.weights_hash  # compares them
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for name, tensor in self.tensors():
                parameters[name].copy_(tensor)
        self._check_head(model)

    def _check_tensors(self) -> None:
        with torch.device("meta"):
            model = Transformer(self.config, self.vocab_size)
        shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
        expected = {theirs: shapes[ours] for ours, theirs in self.names.items()}
        missing = [name for name in expected if name not in self.files]
        if missing:
            raise BadInput(
                f"{self.path}: the tensor {missing[0]} is missing{_more(missing)}; is the download complete?"
            )
        extra = [name for name in self.files if name not in expected and not self._is_harmless(name)]
        if extra:
            raise BadInput(
                f"{self.path}: the tensor {extra[0]} is unknown to {self.architecture.CLASS}{_more(extra)}; the weights"
                f" are not those of its {CONFIG}"
            )
        with ExitStack() as stack:
            opened = {file: stack.enter_context(_open(file)) for file in set(self.files.values())}
            held = {file: set(reader.keys()) for file, reader in opened.items()}
            for name, shape in expected.items():
                file = self.files[name]
                if name not in held[file]:
                    raise BadInput(f"{file}: the tensor {name} is missing, which {INDEX} places there")
                stored = opened[file].get_slice(name)
                if tuple(stored.get_shape()) != shape:
                    raise BadInput(
                        f"{file}: {name} has shape {stored.get_shape()}, and {CONFIG} wants {list(shape)}: they are"
                        " not of one model"
                    )
                if stored.get_dtype() not in _DTYPES:
                    raise BadInput(
                        f"{file}: {name} is {stored.get_dtype()}, so the weights are quantised; take the checkpoint in"
                        " bf16, fp16 or fp32"
                    )

    def _is_harmless(self, name: str) -> bool:
        # Old checkpoints hold the rotary frequencies, which follow from config.json.
        return name.endswith("rotary_emb.inv_freq") or (name == _HEAD and self.config.tie_embeddings)

    def _check_head(self, model: Transformer) -> None:
        """A tied model may hold its head as well, if it is the embedding."""
        if model.head is not None or _HEAD not in self.files:
            return
        with _open(self.files[_HEAD]) as opened:
            head = opened.get_tensor(_HEAD)
        if not torch.equal(head.to(model.embedding.weight), model.embedding.weight):
            raise BadInput(
                f"{self.path / CONFIG}: tie_word_embeddings = true, but {_HEAD} is not the embedding: set it to"
                " false there"
            )


def is_hf_folder(path: str | Path) -> bool:
    """Whether `path` looks like a Hugging Face checkpoint."""
    return (Path(path) / CONFIG).is_file()


def detect_family(tokenizer: Tokenizer, model_type: str, path: Path) -> str:
    """The FIM family of a tokenizer, by the rule that opens this file. Raises BadInput when it has none or several."""
    special = set(tokenizer.special)
    suiting = [name for name, family in all_families().items() if _needs(family) <= special]
    if len(suiting) > 1 and "inlay" in suiting:
        ours = load_family("inlay")
        has_hints = {ours.hint_start, ours.hint_end} <= special
        suiting = ["inlay"] if has_hints else [name for name in suiting if name != "inlay"]
    if len(suiting) > 1 and model_type in suiting:
        suiting = [model_type]
    if not suiting:
        raise BadInput(
            f"{path / 'tokenizer.json'} has the infilling tokens of no format family: this model cannot fill in the"
            " middle (train it from there with start_from), or name its family with family=NAME"
        )
    if len(suiting) > 1:
        raise BadInput(
            f"{path / 'tokenizer.json'} has the tokens of several format families: say which with family=NAME, one of"
            f" {', '.join(suiting)}"
        )
    return suiting[0]


def _needs(family: Family) -> set[str]:
    return set(family.strings().values())


def tensor_files(path: Path) -> dict[str, Path]:
    """The file of each tensor, by the index where there are shards."""
    if (path / WEIGHTS).is_file():
        with _open(path / WEIGHTS) as opened:
            return dict.fromkeys(opened.keys(), path / WEIGHTS)
    if not (path / INDEX).is_file():
        pickled = any(path.glob("*.bin"))
        hint = "; *.bin files can run code and are not read: convert them to safetensors" if pickled else ""
        raise BadInput(f"'{path}' has neither {WEIGHTS} nor {INDEX}{hint}")
    places = read_json(path / INDEX).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise BadInput(f"{path / INDEX}: weight_map is missing, which says where each tensor is")
    for file in sorted(set(places.values())):
        if Path(file).name != file or not (path / file).is_file():
            raise BadInput(f"{path / INDEX} names the file {file}, which is not there; is the download complete?")
    return {name: path / file for name, file in places.items()}


def _open(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except (OSError, SafetensorError) as error:
        raise InlayError(f"cannot read {file}: {' '.join(str(error).split())}; is the download complete?") from None


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
