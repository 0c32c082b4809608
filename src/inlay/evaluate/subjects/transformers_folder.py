"""Any causal language model that transformers can load from a local folder, for architectures that inlay has not.

It decides how the folder is read (safetensors only, no code of its own, no network, every tensor there) and hands the
model to the same machinery as our own: our tokenizer on its `tokenizer.json`, our format, our fitting of the context,
our draws, our losses. transformers computes the logits, in its `generate`, with the left-padded batches that it takes;
whether padding changes what this model says is tried when it is opened, and if so only prompts of one length run
together. It refuses a family whose sentinels the tokenizer lacks, weights that are not all there, and a tokenizer with
more ids than the embedding has rows.

Shapes: B rows, T tokens, V the tokenizer's vocabulary.
"""

import hashlib
import importlib.util
import inspect
import json
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import torch

from inlay import __version__
from inlay.config import BadInput, InlayError
from inlay.evaluate.subjects.local import LocalSubject
from inlay.fim.family import Order, load_family
from inlay.fim.format import FimFormat
from inlay.infer import export_record, hf_folder
from inlay.infer.engine import BATCH_ROWS, SCORED_TOKENS, Engine, Generation, Row, Stopped
from inlay.infer.healing import NO_START, Start, vocabulary_of
from inlay.infer.infill_sampler import InfillSampler
from inlay.infer.open import DtypeName, Opened
from inlay.infer.sampling import SamplingConfig, choose
from inlay.model import checkpoint
from inlay.text.tokenizer import Tokenizer

GREEDY = SamplingConfig()
LOGIT_BYTES = 512 << 20
"""Of the fp32 logits that scoring holds at once."""
PADDING_MAY_CHANGE = 0.02
"""Nats by which left padding may move a log-probability in fp32 (0.3 in bf16) before rows of different length are kept
apart. Attention that minds its mask moves it by 1e-5; a recurrent state that runs over the padding, by whole nats."""
_SHOWN = 200


class TransformersSubject(LocalSubject):
    """A folder that transformers opens. Answers, losses and gold checks are those of `LocalSubject`."""

    def __init__(
        self,
        path: str | Path,
        family: str | None = None,
        *,
        sequence_length: int | None = None,
        device: str | None = None,
        dtype: DtypeName = "auto",
        rows: int = BATCH_ROWS,
    ) -> None:
        """`family`: the FIM format; None finds it by the rule of `inlay.infer.hf_folder`. `sequence_length`: context;
        None takes the folder's own, at most 4096. `dtype`: auto is bfloat16 on a GPU and float32 elsewhere. `rows`:
        prompts run together. Raises BadInput when the folder or the family cannot be used, InlayError when its files
        are damaged."""
        opened, self._class = _open(Path(path), family, sequence_length, device, dtype)
        super().__init__(opened, rows, engine=_Engine(opened, rows))

    @property
    def identity(self) -> dict[str, Any]:
        import transformers

        return {
            **self.opened.identity,
            "name": cast(Path, self.opened.checkpoint).resolve().name,
            "kind": "transformers",
            "step": None,
            "class": self._class,
            "transformers": transformers.__version__,
            "padded_batches": cast(_Engine, self._engine).pads,
            "other_files": self._other_files(),
        }

    @property
    def key(self) -> str | None:
        import transformers

        opened = self.opened
        parts = {
            "subject": "transformers",
            "weights": opened.weights_hash,
            "model": opened.config["model"],
            "tokenizer": opened.tokenizer.hash,
            "format": opened.fim_format.family.to_dict(),
            "stop_ids": sorted(opened.stop_ids),
            "sequence_length": opened.sequence_length,
            "dtype": str(opened.dtype),
            "device": opened.device.type,
            "versions": [__version__, torch.__version__, transformers.__version__],
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class _Engine(Engine):
    """Our engine with transformers' `generate` in the place of our decoding."""

    def __init__(self, opened: Opened, batch_rows: int) -> None:
        # Not the parent's: it prepares our own model.
        self.opened = opened
        self.batch_rows = batch_rows
        self.stop_ids = opened.stop_ids
        self._model: Any = opened.model
        self._vocabulary = opened.tokenizer.vocab_size
        self._keeps = _keeps_logits(self._model)
        self.pads = self._padding_is_harmless()

    def stream(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_tokens: int = 64,
        sampling: SamplingConfig = GREEDY,
        references: Sequence[Sequence[int]] | None = None,
        deadline: float | None = None,
        keys: Sequence[int | str] | None = None,
        starts: Sequence[Start] | None = None,
        infill_sampler: bool = False,
    ) -> Iterator[tuple[int, Generation]]:
        """As the parent's; references are scored in a pass of their own."""
        begun = starts if starts is not None else [NO_START] * len(prompts)
        self.check(prompts, max_tokens, begun)
        order = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), index))
        lots = [order] if self.pads else [list(lot) for _, lot in groupby(order, key=lambda index: len(prompts[index]))]
        for lot in lots:
            for first in range(0, len(lot), self.batch_rows):
                indices = lot[first : first + self.batch_rows]
                rows = [Row(index, index if keys is None else keys[index], begun[index]) for index in indices]
                batch = [prompts[index] for index in indices]
                if references is not None:
                    self._score_references(rows, batch, [references[index] for index in indices])
                chooser = _Chooser(self, rows, max_tokens, sampling, deadline, infill_sampler)
                self._generate(batch, max_tokens + max(row.start.tokens for row in rows) + 1, chooser)
                yield from chooser.made

    def score(self, rows: Sequence[Sequence[int]], firsts: Sequence[int]) -> Iterator[tuple[int, tuple[float, ...]]]:
        """As the parent's."""
        self.check_scored(rows, firsts)
        # Rows of like need together: how many places want logits decides what a batch holds.
        order = sorted(range(len(rows)), key=lambda index: (len(rows[index]) - firsts[index], len(rows[index]), index))
        while order:
            indices = [order.pop()]
            while order and self._fits([*indices, order[-1]], rows, firsts):
                indices.append(order.pop())
            found = self._logprobs_of([rows[index] for index in indices], [firsts[index] for index in indices])
            yield from zip(indices, found, strict=True)

    def _score_references(self, rows: list[Row], prompts: list[Sequence[int]], goals: list[Sequence[int]]) -> None:
        eot = self.opened.fim_format.eot
        pairs = [(tuple(prompt), tuple(goal)) for prompt, goal in zip(prompts, goals, strict=True)]
        different = list(dict.fromkeys(pairs))
        # A goal beyond the context has no score; the caller asks for none that is longer than its budget.
        whole = [[*prompt, *goal, eot] for prompt, goal in different]
        found = {
            different[at]: logprobs for at, logprobs in self.score(whole, [len(prompt) for prompt, _ in different])
        }
        for row, pair in zip(rows, pairs, strict=True):
            row.reference_logprobs = found[pair]

    def _fits(self, indices: list[int], rows: Sequence[Sequence[int]], firsts: Sequence[int]) -> bool:
        longest = max(len(rows[index]) for index in indices)
        kept = longest - min(firsts[index] for index in indices) + 1 if self._keeps else longest
        size = 4 * len(indices) * kept * int(self._model.get_output_embeddings().weight.shape[0])
        many = len(indices) > self.batch_rows or len(indices) * longest > SCORED_TOKENS
        return size <= LOGIT_BYTES and not many

    def _logprobs_of(self, rows: list[Sequence[int]], firsts: list[int]) -> list[tuple[float, ...]]:
        """Log-probabilities of each row's ids from its first on. Padding stands behind, where nothing looks at it."""
        longest = max(map(len, rows))
        ids = torch.full((len(rows), longest), self.opened.fim_format.pad, dtype=torch.int64)
        for at, row in enumerate(rows):
            ids[at, : len(row)] = torch.as_tensor(list(row), dtype=torch.int64)
        kept = longest - min(firsts) + 1
        options: dict[str, Any] = {"logits_to_keep": kept} if self._keeps else {}
        with torch.inference_mode():
            logits = self._model(input_ids=ids.to(self.opened.device), use_cache=False, **options).logits
            found = []
            for at, (row, first) in enumerate(zip(rows, firsts, strict=True)):
                behind = longest - logits.shape[1]  # places at the beginning that have no logits
                part = logits[at, first - 1 - behind : len(row) - 1 - behind, : self._vocabulary].float()
                wanted = torch.tensor([int(token) for token in row[first:]], device=part.device)
                found.append(tuple(part.log_softmax(dim=-1).gather(1, wanted[:, None])[:, 0].tolist()))
        return found

    def _generate(self, prompts: Sequence[Sequence[int]], new_tokens: int, chooser: Any) -> None:
        from transformers import GenerationConfig, LogitsProcessorList

        longest = max(map(len, prompts))
        ids = torch.full((len(prompts), longest), self.opened.fim_format.pad, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for at, prompt in enumerate(prompts):
            ids[at, longest - len(prompt) :] = torch.as_tensor(list(prompt), dtype=torch.int64)
            mask[at, longest - len(prompt) :] = 1
        options = GenerationConfig(
            max_new_tokens=new_tokens,
            do_sample=False,
            eos_token_id=self.opened.fim_format.eot,
            pad_token_id=self.opened.fim_format.pad,
        )
        device = self.opened.device
        with torch.inference_mode():
            self._model.generate(
                ids.to(device),
                attention_mask=mask.to(device),
                generation_config=options,
                logits_processor=LogitsProcessorList([chooser]),
            )

    def _padding_is_harmless(self) -> bool:
        """Whether a prompt says the same alone and padded to the length of another."""
        text = "def first(second, third):\n    return second + third\n"
        short = self.opened.tokenizer.encode(text)[: self.opened.sequence_length // 2]
        alone, beside = _Look(), _Look()
        self._generate([short], 1, alone)
        self._generate([short, [*short, *short[:7]]], 1, beside)
        kept = slice(None, self._vocabulary)
        one, other = (look.logits[0, kept].float().log_softmax(dim=-1) for look in (alone, beside))
        likely = one > -10.0
        allowed = PADDING_MAY_CHANGE if self.opened.dtype == torch.float32 else 15 * PADDING_MAY_CHANGE
        return bool((one - other)[likely].abs().max() <= allowed)


class _Look:
    """A logits processor that remembers the first logits."""

    def __init__(self) -> None:
        self.logits = torch.empty(0)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if not self.logits.numel():
            self.logits = scores.clone()
        return scores


class _Chooser:
    """A logits processor that chooses each row's next token as our engine does, and leaves `generate` no other."""

    def __init__(
        self,
        engine: _Engine,
        rows: list[Row],
        max_tokens: int,
        sampling: SamplingConfig,
        deadline: float | None,
        infill_sampler: bool,
    ) -> None:
        tokenizer = engine.opened.tokenizer
        self.made: list[tuple[int, Generation]] = []
        self._engine, self._rows, self._max_tokens, self._deadline = engine, rows, max_tokens, deadline
        self._sampling, self._step = sampling, 0
        self._eot = engine.opened.fim_format.eot
        self._rule = InfillSampler(tokenizer, engine.stop_ids, self._eot) if infill_sampler else None
        self._drawn = SamplingConfig(temperature=sampling.temperature, seed=sampling.seed) if self._rule else sampling
        self._words = vocabulary_of(tokenizer) if any(row.left for row in rows) else None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`scores` [B, rows of the head] to the same with all but one choice of each row forbidden."""
        tokenizer = self._engine.opened.tokenizer
        logits = allowed = scores[:, : tokenizer.vocab_size].float()
        if self._words is not None:
            allowed = self._words.narrow(allowed, [b"" if row.done else row.left for row in self._rows])
        if self._rule is not None:
            allowed = self._rule.narrow(allowed, self._sampling)
        tokens = choose(allowed, self._drawn, [row.key for row in self._rows], self._step)
        self._step += 1
        logprobs = logits.log_softmax(dim=-1)
        chosen, ends = logprobs.gather(1, tokens[:, None])[:, 0].tolist(), logprobs[:, self._eot].tolist()
        late = self._deadline is not None and time.monotonic() >= self._deadline
        picked: list[int] = tokens.tolist()
        for at, row in enumerate(self._rows):
            stopped: Stopped | None = None
            if row.done:
                picked[at] = self._eot
                continue
            if picked[at] in self._engine.stop_ids:
                stopped = "eot" if picked[at] == self._eot else "sentinel"
            elif row.is_full(self._max_tokens):
                stopped = "limit"
            elif late:
                stopped = "deadline"
            if stopped is None:
                size = int(tokenizer.token_lengths[picked[at]]) if row.left else 0
                row.append(picked[at], chosen[at], size)
                continue
            row.done = True
            # For `generate` a row is over when it has its terminator.
            picked[at] = self._eot
            self.made.append((row.index, self._engine.finish(row, stopped, ends[at])))
        forced = torch.full_like(scores, -torch.inf)
        forced[torch.arange(len(picked)), torch.tensor(picked)] = 0.0
        return forced


def _keeps_logits(model: Any) -> bool:
    """Whether a model's forward takes `logits_to_keep`, so that a long prompt's logits need not be made."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters


def _open(
    path: Path, family: str | None, sequence_length: int | None, device: str | None, dtype: DtypeName
) -> tuple[Opened, str]:
    """The folder as an opened model, and the name of its class."""
    if importlib.util.find_spec("transformers") is None:
        raise BadInput(
            f"'{path}' is of an architecture that only transformers opens, which is not installed:"
            " pip install 'inlay[check]'"
        )
    record = export_record.read(path)
    files = hf_folder.tensor_files(path)
    hashes = {file.name: checkpoint.file_hash(file) for file in sorted(set(files.values()))}
    export_record.check_weights(path, record, hashes)
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    number = torch.bfloat16 if dtype == "bfloat16" or (dtype == "auto" and place.type == "cuda") else torch.float32
    tokenizer = Tokenizer.load(path)
    model = _load(path, number)
    config = model.config.get_text_config()
    size = int(model.get_input_embeddings().weight.shape[0])
    if tokenizer.vocab_size > size:
        raise BadInput(
            f"{path / 'tokenizer.json'} has ids up to {tokenizer.vocab_size - 1}, and the embedding only {size} rows:"
            " they are not of one model"
        )
    name, orders = _family(path, record, tokenizer, str(config.model_type), family)
    longest = getattr(config, "max_position_embeddings", None) or hf_folder.LONGEST_CONTEXT
    if sequence_length is not None and not 1 <= sequence_length <= longest:
        raise BadInput(f"sequence_length = {sequence_length}: '{path}' has max_position_embeddings = {longest}")
    stops = _stop_ids(model, size)
    model.generation_config = type(model.generation_config)()  # its penalties and samplers are not asked for
    model.compute_dtype = number
    opened = Opened(
        model=model.to(place).eval(),
        tokenizer=tokenizer,
        fim_format=FimFormat.load(name, tokenizer),
        config={"model": json.loads(model.config.to_json_string(use_diff=False)), "fim": {"family": name}},
        weights_hash=export_record.joint_hash(hashes),
        step=0,
        sequence_length=sequence_length or min(longest, hf_folder.LONGEST_CONTEXT),
        orders=orders,
        checkpoint=path,
        more_stop_ids=stops,
    )
    return opened, type(model).__name__


def _load(path: Path, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except Exception as error:  # its models raise whatever their own code meets in a strange folder
        line = " ".join(str(error).split()) or type(error).__name__
        raise InlayError(f"transformers cannot open '{path}': {line[:_SHOWN]}") from error
    # A tensor that is not in the files would be drawn at random, and the model evaluated all the same.
    missing = sorted(map(str, info["missing_keys"])) + sorted(str(one[0]) for one in info["mismatched_keys"])
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise BadInput(f"'{path}': the tensor {missing[0]} is missing or of another shape{more}; is it complete?")
    if not hasattr(model, "generate") or model.get_output_embeddings() is None:
        raise BadInput(f"'{path}': {type(model).__name__} does not generate text")
    return model


def _family(
    path: Path, record: dict[str, Any] | None, tokenizer: Tokenizer, model_type: str, asked: str | None
) -> tuple[str, tuple[Order, ...]]:
    if record is not None and asked in (None, record.get("family")):
        return str(record["family"]), tuple(record["orders"])
    name = asked or hf_folder.detect_family(tokenizer, model_type, path)
    return name, load_family(name).orders


def _stop_ids(model: Any, size: int) -> frozenset[int]:
    """Every end-of-sequence id that the folder names."""
    found: set[int] = set()
    for config in (model.generation_config, model.config):
        value = getattr(config, "eos_token_id", None)
        found.update([] if value is None else value if isinstance(value, list) else [value])
    return frozenset(token for token in found if 0 <= token < size)
