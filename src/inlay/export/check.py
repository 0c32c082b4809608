"""Proves that a copy of a model computes the same: greedy infillings of one list of prompts by ours and by its peers.

Two claims, judged apart. Tokens: the greedy ids of a peer equal ours, its end token included. Where they part, the
place is a tie when our own log-probabilities of the two tokens lie closer than `TIES` allows for the number format of
the file: arithmetic in another order or format decides such a place, and no model is better for it. Numbers: the
largest difference between log-probabilities, over the likeliest tokens of every place up to the first that parts; it
may be a few ties.

Ours is compared with the weights that the file holds (rounded as they are there), so that what differs is the copy and
its arithmetic; what rounding costs is a row of its own, which cannot fail. A peer that is not there is said, never
passed over. All log-probabilities are over the tokenizer's ids, on both sides: a head may be padded beyond them.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

import inlay
from inlay.config import BadInput
from inlay.config.files import read_bounded_text
from inlay.evaluate.corpus import held_out, of_documents
from inlay.evaluate.run import run_store
from inlay.evaluate.task import Corpus, SourceDocument
from inlay.evaluate.tasks.held_out import HeldOutConfig
from inlay.export.gguf import GGUFType
from inlay.infer.engine import Engine
from inlay.infer.open import Opened
from inlay.infer.prompt import fit, prompt_of
from inlay.model import ModelConfig
from inlay.text.document import content_id

PROMPTS = 20
TOKENS = 24
TOP = 10
"""Likeliest tokens of a place whose log-probabilities are compared."""
LONGEST_PROMPT = 512

TIES: dict[GGUFType, float] = {"f32": 0.0005, "f16": 0.005, "bf16": 0.03, "q8_0": 0.05, "q4_0": 0.05}
"""Nats between two tokens that llama.cpp's arithmetic may exchange. It multiplies matrices with activations rounded to
the format of the weights: fp32, f16, bf16, and eight bits for both quantised formats. Measured differences of a trained
small model: 2e-6, 2e-4, 2e-3, 5e-3, 5e-3."""
FURTHEST = 10
"""Ties by which log-probabilities of likely tokens may differ at all before the copy counts as another model."""

Verdict = Literal["equal", "tie", "differs"]


def tie_of(config: ModelConfig, number_format: GGUFType) -> float:
    """The tie for a model in a number format. ggml reads GELU from a table in f16, whatever the weights are in."""
    gelu = any(block.mlp.kind == "gelu" for block in config.blocks.values())
    return max(TIES[number_format], TIES["f16"]) if gelu else TIES[number_format]


class Prompt(NamedTuple):
    """An infilling prompt: its ids, and the texts that they come from."""

    ids: list[int]
    prefix: str
    suffix: str


class Answer(NamedTuple):
    """Greedy ids, an end token included, and for each place log-probabilities by id (possibly none)."""

    ids: list[int]
    tables: list[dict[int, float]]


class Peer(Protocol):
    """Another implementation with the same model."""

    @property
    def name(self) -> str: ...

    def answer(self, prompt: Sequence[int], tokens: int) -> Answer:
        """Greedy, at most `tokens` ids, an end token included."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of a text without control tokens."""
        ...


@dataclass
class Row:
    """What the comparison with one peer came to."""

    name: str
    verdicts: list[Verdict] = field(default_factory=list)
    difference: float = 0.0
    """Largest, in nats."""
    gaps: list[float] = field(default_factory=list)
    """Nats between the two tokens where answers part."""
    texts: int = 0
    """Texts that the peer encodes to the same ids."""
    judged: bool = True
    """False for a row that informs and cannot fail."""

    def passed(self, tie: float) -> bool:
        """Whether every answer is equal or parts at a tie, every text encodes alike, and the numbers are near."""
        alike = "differs" not in self.verdicts and self.texts == len(self.verdicts)
        return alike and self.difference <= FURTHEST * tie


@dataclass
class Checked:
    """A finished comparison."""

    rows: list[Row]
    source: str
    """Where the prompts come from."""
    tie: float
    notes: list[str] = field(default_factory=list)
    """Peers that are missing, and why."""
    infill: bool | None = None
    """Whether llama.cpp builds our infilling prompts; None where that was not tried."""

    @property
    def passed(self) -> bool:
        """Whether every judged peer agrees; with no peer at all nothing is proven."""
        judged = [row for row in self.rows if row.judged]
        return bool(judged) and all(row.passed(self.tie) for row in judged) and self.infill is not False


class Ours:
    """Our engine's answers, and our own log-probabilities of every token along them."""

    def __init__(self, opened: Opened, tokens: int) -> None:
        self.opened = opened
        self.tokens = tokens

    def answers(self, prompts: Sequence[Prompt]) -> list[tuple[list[int], Tensor]]:
        """For each prompt the greedy ids [n] (an end token included, at most `tokens`) and log-probabilities [n, V]."""
        made = Engine(self.opened).generate([prompt.ids for prompt in prompts], max_tokens=self.tokens)
        found = []
        for prompt, generation in zip(prompts, made, strict=True):
            scores = self._scores([*prompt.ids, *generation.ids], len(generation.ids) + 1)
            ids = list(generation.ids)
            if generation.stopped in ("eot", "sentinel"):
                ids.append(int(scores[-1].argmax()))
            ids = ids[: self.tokens]
            found.append((ids, scores[: len(ids)]))
        return found

    def _scores(self, ids: list[int], count: int) -> Tensor:
        """Log-probabilities [count, V] after each of the last `count` tokens, in one pass without a cache."""
        model = self.opened.model
        tokens = torch.tensor([ids], device=self.opened.device)
        positions = torch.arange(len(ids), device=self.opened.device)[None]
        with torch.inference_mode():
            hidden = model(tokens, positions)[0, -count:]
            logits = model.logits(hidden.float())[:, : self.opened.tokenizer.vocab_size]
        return torch.log_softmax(logits, dim=-1).cpu()


def compare(
    opened: Opened,
    peers: Sequence[Peer],
    tie: float,
    prompts: Sequence[Prompt],
    source: str,
    tokens: int = TOKENS,
    original: Opened | None = None,
) -> Checked:
    """Compares `opened` (with the weights of the file) with every peer.

    `tie`: nats, see above; `original`: the model before rounding, for the row that says what rounding costs.
    """
    rows = [Row(peer.name) for peer in peers]
    ours = Ours(opened, tokens).answers(prompts)
    for prompt, (ids, scores) in zip(prompts, ours, strict=True):
        for peer, row in zip(peers, rows, strict=True):
            _enter(row, ids, scores, peer.answer(prompt.ids, tokens), tie)
            text = prompt.prefix + prompt.suffix
            row.texts += peer.encode(text) == opened.tokenizer.encode(text)
    if original is not None:
        row = Row("ours before rounding", judged=False, texts=len(prompts))
        for (ids, scores), (other, theirs) in zip(ours, Ours(original, tokens).answers(prompts), strict=True):
            _enter(row, ids, scores, Answer(other, [_top(place) for place in theirs]), tie)
        rows.append(row)
    return Checked(rows, source, tie)


def infilling_prompts(
    opened: Opened, count: int = PROMPTS, tokens: int = TOKENS
) -> tuple[list[Prompt], str, str | None]:
    """Prompts in every order the model was trained in, where they come from, and why not from the run's own store.

    The gaps are cut from the run's held-out documents; where those are out of reach, from this package's own code.
    """
    reason = None
    try:
        main = run_store(opened)
        corpus = held_out(main.store, main.title)
    except BadInput as error:
        corpus, reason = _own_code(), f"prompts from inlay's own code: {error}"
    examples = HeldOutConfig().gaps(corpus, opened.tokenizer, count)
    room = min(opened.sequence_length, LONGEST_PROMPT) - tokens - opened.fim_format.OVERHEAD
    prompts = []
    for number, example in enumerate(examples):
        context = fit(example.prefix, example.suffix, room, opened.tokenizer)
        order = opened.orders[number % len(opened.orders)]
        # The texts as they were fitted; a trimmed edge may fall inside a pre-token.
        texts = (opened.tokenizer.decode(context.prefix), opened.tokenizer.decode(context.suffix))
        prompts.append(Prompt(prompt_of(context, order, opened.fim_format), *texts))
    return prompts, corpus.source, reason


def with_weights(opened: Opened, model: torch.nn.Module) -> Opened:
    """The same run with another model of its shape."""
    return dataclasses.replace(opened, model=model)  # pyrefly: ignore (a Transformer)


def print_checked(checked: Checked) -> None:
    """Prints the table and a line for everything it does not say."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    count = len(checked.rows[0].verdicts) if checked.rows else 0
    table = Table(box=SIMPLE)
    table.add_column("peer", no_wrap=True)
    for column in ("equal", "tie", "differ", "texts\nalike", "max logprob\ndifference"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in checked.rows:
        counts = [str(row.verdicts.count(verdict)) for verdict in ("equal", "tie", "differs")]
        table.add_row(row.name, *counts, str(row.texts) if row.judged else "", f"{row.difference:.2g}")
    console = Console()
    title = f"greedy infillings of {count} prompts ({checked.source}), ours against"
    console.print(title, highlight=False, markup=False, soft_wrap=True)
    console.print(table)
    lines = [f"tie: our own log-probabilities of the two tokens lie within {checked.tie:g} nats", *checked.notes]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _enter(row: Row, ids: Sequence[int], scores: Tensor, answer: Answer, tie: float) -> None:
    parted = next(
        (place for place, (one, other) in enumerate(zip(ids, answer.ids, strict=False)) if one != other), None
    )
    for place in range(min(len(ids), len(answer.ids)) if parted is None else parted + 1):
        for token, value in answer.tables[place].items():
            if token < scores.shape[1]:
                row.difference = max(row.difference, abs(value - float(scores[place, token])))
    if parted is None:
        # llama.cpp ends at fewer control tokens than our format; what it writes behind our end is cut by a stop string.
        row.verdicts.append("equal" if len(ids) <= len(answer.ids) else "differs")
        return
    other = answer.ids[parted]
    gap = float(scores[parted, ids[parted]] - scores[parted, other]) if other < scores.shape[1] else float("inf")
    row.gaps.append(gap)
    row.verdicts.append("tie" if gap <= tie else "differs")


def _top(scores: Tensor) -> dict[int, float]:
    values, ids = scores.topk(min(TOP, scores.shape[0]))
    return dict(zip(ids.tolist(), values.tolist(), strict=True))


def _own_code() -> Corpus:
    root = Path(inlay.__file__).parent
    documents = []
    for path in sorted(root.rglob("*.py")):
        text = read_bounded_text(path)
        documents.append(SourceDocument(content_id(text), path.relative_to(root).as_posix(), "python", text))
    return of_documents(documents, "inlay's own code")
