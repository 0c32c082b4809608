"""Where a run's first weights come from, when not from the seed: a run of ours, one of its checkpoints, or a Hugging
Face folder.

The model's configuration and the size of the vocabulary come along and replace those of the run, because weights fit
nothing else. It refuses a start whose tokenizer is not the store's: equal ids would mean other text.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inlay.config import BadInput, validate
from inlay.infer.hf_folder import HFFolder, is_hf_folder
from inlay.infer.open import candidate_checkpoints, read_checkpoint
from inlay.model import ModelConfig, Transformer, checkpoint
from inlay.text.definition import read_definition
from inlay.text.store import TokenStore
from inlay.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Start:
    """Weights to start from. `fill` copies them into a model of this configuration and vocabulary."""

    model: ModelConfig
    vocab_size: int
    tokenizer: Tokenizer
    tokenizer_path: Path
    fill: Callable[[Transformer], None]


def read_start(path: str | Path) -> Start:
    """What `path` (a run, a checkpoint, a Hugging Face folder) offers; the weights are read by `fill`.

    Raises BadInput for what is none of these, InlayError for damaged files.
    """
    path = Path(path)
    if is_hf_folder(path):
        source = HFFolder.read(path)
        return Start(source.config, source.vocab_size, source.tokenizer, path, source.fill)
    run, candidates = candidate_checkpoints(path)
    folder, record, _ = checkpoint.newest_good(candidates, checkpoint.WEIGHTS)
    config = validate(ModelConfig, record["model"], where=str(folder))

    def fill(model: Transformer) -> None:
        model.load_state_dict(read_checkpoint(folder, record).state_dict())

    return Start(config, int(record["vocab_size"]), Tokenizer.load(run.tokenizer), run.tokenizer, fill)


def check_tokenizer(start: Start, store: TokenStore) -> None:
    """Raises BadInput, which says how to prepare the store, unless its ids mean what they mean at the start."""
    ours, theirs = store.tokenizer, start.tokenizer
    if ours.hash == theirs.hash or _meaning(ours) == _meaning(theirs):
        return
    raise BadInput(
        f"start_from: the tokenizer of the store {store.path} is not that of {start.tokenizer_path}, so ids would mean"
        f" other text: prepare the store again with tokenizer=file tokenizer.path={start.tokenizer_path}"
    )


def check_model(start: Start, asked: ModelConfig, path: str) -> None:
    """Raises BadInput, which names the keys, when a model was asked for that is not that of the start at `path`."""
    ours, theirs = asked.to_dict(), start.model.to_dict()
    keys = [f"model.{key}" for key in ours if ours[key] != theirs.get(key)]
    if keys:
        differing = ", ".join(keys)
        raise BadInput(
            f"start_from={path} brings its own model; what is asked for differs in {differing}: leave it out"
        )


def _meaning(tokenizer: Tokenizer) -> tuple[Any, ...]:
    """What decides ids; names of the end and padding tokens do not."""
    parsed = read_definition(tokenizer.definition)
    return parsed.tokens, parsed.special, parsed.pattern, parsed.merges
