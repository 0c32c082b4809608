"""The implementations that a copy is compared with: transformers on an exported folder, llama.cpp on a GGUF file."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from inlay.export.check import TOP, Answer
from inlay.export.llama_server import LlamaServer


class LlamaPeer:
    """llama.cpp, on a server that runs."""

    def __init__(self, server: LlamaServer, name: str) -> None:
        self.server = server
        self.name = name

    def answer(self, prompt: Sequence[int], tokens: int) -> Answer:
        return Answer(*self.server.complete(prompt, tokens, TOP))

    def encode(self, text: str) -> list[int]:
        return self.server.encode(text)


class TransformersPeer:
    """transformers, on an exported folder, in fp32, without remote code and without a network."""

    def __init__(self, folder: Path, ids: int, name: str = "transformers") -> None:
        """`ids`: of the tokenizer. A head padded beyond them has rows that mean nothing: our engine leaves them out,
        and a GGUF file does not have them, so they are neither chosen nor normalised over here either."""
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        self.name = name
        self._ids = ids
        logging.disable_progress_bar()  # of loading weights; this package shows its own
        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, **options)
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options).eval()

    @staticmethod
    def is_installed() -> bool:
        """Whether transformers is there."""
        return importlib.util.find_spec("transformers") is not None

    def answer(self, prompt: Sequence[int], tokens: int) -> Answer:
        ids = torch.tensor([list(prompt)])
        rows = int(self._model.get_output_embeddings().weight.shape[0])
        with torch.inference_mode():
            made = self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=tokens,
                do_sample=False,
                suppress_tokens=list(range(self._ids, rows)) or None,
                output_logits=True,
                return_dict_in_generate=True,
            )
        tables = []
        for logits in made.logits:
            scores = torch.log_softmax(logits[0, : self._ids].float(), dim=-1)
            values, best = scores.topk(min(TOP, len(scores)))
            tables.append(dict(zip(best.tolist(), values.tolist(), strict=True)))
        return Answer(made.sequences[0, len(prompt) :].tolist(), tables)

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
