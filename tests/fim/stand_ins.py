"""Small tokenizers that stand in for each family's own: byte-level for most, SentencePiece-style for three."""

import json
from functools import cache
from typing import Any

import tokenizers
from tests.text.corpus import library_texts
from tokenizers import models, pre_tokenizers, trainers

from inlay.fim.family import load_family
from inlay.fim.format import FimFormat
from inlay.text.tokenizer import Tokenizer

SENTENCEPIECE = {"codellama": "llama", "codestral": "mistral", "codegemma": "gemma"}
SPACE = "\u2581"
_SPACES = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
_AROUND: dict[str, dict[str, Any]] = {
    "llama": {
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, _SPACES]},
        "pre_tokenizer": None,
    },
    "mistral": {
        "normalizer": None,
        "pre_tokenizer": {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "first", "split": False},
    },
    "gemma": {
        "normalizer": _SPACES,
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
    },
}
GEMMA_TEXT = ("\n\n", "\t\t", "<table>", "</h1>")


@cache
def _model() -> dict[str, Any]:
    """A BPE with byte tokens, trained on words with U+2581 in the place of spaces."""
    made: Any = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="never", split=True)
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=["<unk>", "<s>", "</s>", *bytes_],
        initial_alphabet=[SPACE, "☺"],
        limit_alphabet=120,
        show_progress=False,
    )
    made.train_from_iterator(library_texts(), trainer)
    return json.loads(made.to_str())["model"]


def sentencepiece_definition(flavour: str, control: tuple[str, ...] = ()) -> str:
    """A `tokenizer.json` as the projects of that flavour write it, with these control tokens besides."""
    model = {**_model(), "vocab": dict(_model()["vocab"])}
    texts = GEMMA_TEXT if flavour == "gemma" else ()
    added = []
    for name in ("<unk>", "<s>", "</s>", *control, *texts):
        number = model["vocab"].setdefault(name, len(model["vocab"]))
        token = {"id": number, "content": name, "special": name not in texts, "normalized": False}
        if token not in added:
            added.append({**token, "single_word": False, "lstrip": False, "rstrip": False})
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            **_AROUND[flavour],
            "post_processor": None,
            "decoder": None,
            "model": model,
        }
    )


@cache
def _byte_level() -> str:
    made = Tokenizer.train(library_texts(), 512)
    return made.__reduce__()[1][0]


@cache
def stand_in(name: str) -> FimFormat:
    """The family on a small tokenizer of its kind that has its strings."""
    family = load_family(name)
    strings = tuple(dict.fromkeys(family.strings().values()))
    if name in SENTENCEPIECE:
        return FimFormat(family, Tokenizer(sentencepiece_definition(SENTENCEPIECE[name], strings)))
    extended: Any = tokenizers.Tokenizer.from_str(_byte_level())
    extended.add_special_tokens([tokenizers.AddedToken(text, special=True, normalized=False) for text in strings])
    return FimFormat(family, Tokenizer(extended.to_str()))
