"""Runs a task on a model: gold first, then every order the model was trained in, and writes what came out.

Before any score of a model there is the score of the gold answers through the same path: prompt building, ids, the way
back to text, and the metrics. Anything under 100 % there says that the harness, not the model, is wrong, and stands at
the top of the result with the ids of the examples. It refuses an order the format does not have and a task without
examples.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inlay import __version__
from inlay.config import BadInput
from inlay.config.files import write_atomic
from inlay.config.run_dir import RunDir
from inlay.evaluate.corpus import held_out, open_path
from inlay.evaluate.metrics import Judge, Scored
from inlay.evaluate.summary import slices, summarise
from inlay.evaluate.task import Corpus, Example, TaskConfig, tasks
from inlay.fim.family import Order
from inlay.infer.detokenise import detokenise
from inlay.infer.engine import BATCH_ROWS, Engine, Generation
from inlay.infer.open import DtypeName, Opened, open_model
from inlay.infer.prompt import Context, fit, prompt_of
from inlay.infer.samples import sample_of
from inlay.text.progress import NoProgress, Progress
from inlay.text.store import TokenStore

SAMPLES = 24
"""Examples at the head of the fixed list that the result shows in full."""


@dataclass(frozen=True)
class Prepared:
    """An example ready for the model: its fitted surroundings and its gold ids."""

    example: Example
    context: Context
    gold: list[int]


def evaluate(
    target: str | Path,
    task: str | None = None,
    data: str | Path | None = None,
    order: Order | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
    *,
    config: TaskConfig | None = None,
    device: str | None = None,
    dtype: DtypeName = "auto",
    family: str | None = None,
    save: bool = True,
) -> dict[str, Any]:
    """Evaluates what `open_model` opens and returns `{task, n, gold, metrics, slices, settings, samples}`.

    `task`: a task's name with its default options ("held_out"), or give its options as `config`. `data`: a folder or
    file to cut gaps from; None takes the held-out split of the store that the run was trained from. `order`: one of
    psm, spm, spm_v2; None takes every order the model was trained in. `limit`: the first so many examples. `save`:
    write the result to `RUN/evaluations/TASK.json` and each example to `TASK.items.jsonl` beside it; nothing is written
    into a Hugging Face folder. `family`: the FIM format of such a folder, where it does not tell. Raises BadInput
    for a wrong target, task, data, order or limit.
    """
    if limit is not None and limit < 1:
        raise BadInput(f"limit = {limit}: evaluate at least one example")
    options = _options(task, config)
    opened = open_model(target, device=device, dtype=dtype, rows=BATCH_ROWS, family=family)
    corpus = open_path(data) if data is not None else held_out(run_store(opened))
    result, scored = evaluate_opened(opened, options, corpus, order=order, limit=limit, progress=progress)
    if save and opened.run is not None:
        _write(RunDir.open(opened.run), options.kind, result, scored)
    return result


def evaluate_opened(
    opened: Opened,
    config: TaskConfig,
    corpus: Corpus,
    *,
    order: Order | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
) -> tuple[dict[str, Any], dict[Order, list[Scored]]]:
    """As `evaluate`, for a model that is open and a corpus at hand: the result, and every scored example by order."""
    started = time.monotonic()
    progress = progress or NoProgress()
    orders: tuple[Order, ...] = opened.orders if order is None else (order,)
    _check_orders(orders, opened)
    examples = config.examples(corpus, opened.tokenizer, limit)
    prepared = prepare_examples(opened, examples, config.max_tokens)
    judge = Judge(frozenset(opened.tokenizer.special.values()))
    gold = score_gold(opened, prepared, orders, judge)
    scored: dict[Order, list[Scored]] = {}
    engine = Engine(opened)
    for one in orders:
        with progress.phase(f"evaluate {one}", len(prepared), "gaps") as phase:
            generations = engine.generate(
                [prompt_of(item.context, one, opened.fim_format) for item in prepared],
                max_tokens=config.max_tokens,
                references=[item.gold for item in prepared],
                progress=phase.advance,
            )
            pairs = zip(prepared, generations, strict=True)
            scored[one] = [judge.score(item.example, generation) for item, generation in pairs]
    result = {
        "task": config.kind,
        "n": len(examples),
        "gold": gold,
        "metrics": {one: summarise(items) for one, items in scored.items()},
        "slices": {one: slices(items) for one, items in scored.items()},
        "settings": {
            **opened.identity,
            "orders": list(orders),
            "max_tokens": config.max_tokens,
            "decoding": "greedy",
            "limit": limit,
            "task": config.to_dict(),
            "corpus": {"source": corpus.source, "hash": corpus.hash, "documents": len(corpus.ids)},
            "documents_used": len({example.document.id for example in examples}),
            "interval": "95 %, bootstrap over documents",
            "version": __version__,
            "seconds": round(time.monotonic() - started, 2),
        },
        "samples": [
            sample_of(item.example, item.generation, one, opened.step)
            for one, items in scored.items()
            for item in items[:SAMPLES]
        ],
    }
    return result, scored


def prepare_examples(opened: Opened, examples: Sequence[Example], max_tokens: int) -> list[Prepared]:
    """Fits each example into the model's context. The room is the same for all: it depends on the budget, not on the
    gold."""
    room = opened.sequence_length - max_tokens - opened.fim_format.OVERHEAD
    return [
        Prepared(
            example,
            fit(example.prefix, example.suffix, room, opened.tokenizer),
            opened.tokenizer.encode(example.middle),
        )
        for example in examples
    ]


def score_gold(opened: Opened, prepared: Sequence[Prepared], orders: Sequence[Order], judge: Judge) -> dict[str, Any]:
    """The gold answers through the whole path: shares that come back exact and valid, and what failed, by id and
    reason."""
    failures: list[dict[str, str]] = []
    exact = valid = measured = 0
    for item in prepared:
        text = detokenise(item.gold, opened.tokenizer)
        answer = Generation(tuple(item.gold), text.text, "eot", (), 0.0, text.dropped_bytes, text.invalid_bytes)
        scored = judge.score(item.example, answer)
        broken = [f"{order} prompt" for order in orders if not _restores(opened, item, order)]
        broken += [] if scored.exact else ["text"]
        syntax = scored.measures["syntax_valid"]
        if syntax is not None:
            measured += 1
            valid += int(syntax[0])
            broken += [] if syntax[0] else ["syntax"]
        exact += not [reason for reason in broken if reason != "syntax"]
        failures += [{"id": item.example.id, "reason": ", ".join(broken)}] if broken else []
    return {
        "exact": exact / len(prepared),
        "syntax_valid": valid / measured if measured else None,
        "n": len(prepared),
        "syntax_measured": measured,
        "failures": failures,
    }


def run_store(opened: Opened) -> TokenStore:
    """The token store that a run was trained from. Raises BadInput when the run does not say, or the store is gone or
    changed its tokenizer."""
    path = (opened.config.get("data") or {}).get("path")
    if not isinstance(path, str):
        raise BadInput(
            "the model does not say what store it was trained from; say what to evaluate on with --data PATH"
        )
    try:
        store = TokenStore.open(path)
    except BadInput as error:
        raise BadInput(f"the store that the run was trained from does not open ({error}); use --data PATH") from None
    if store.tokenizer.hash != opened.tokenizer.hash:
        raise BadInput(f"the store at {path} was written again with another tokenizer; use --data PATH")
    return store


def _options(task: str | None, config: TaskConfig | None) -> TaskConfig:
    if config is not None:
        if task is not None and task != config.kind:
            raise BadInput(f"task '{task}' and options of task '{config.kind}' do not go together")
        return config
    return tasks.get(task or "held_out")()  # type: ignore[return-value]


def _check_orders(orders: Sequence[Order], opened: Opened) -> None:
    allowed = opened.fim_format.family.orders
    for order in orders:
        if order not in allowed:
            raise BadInput(f"the run's format '{opened.fim_format.name}' has no order '{order}': {', '.join(allowed)}")


def _restores(opened: Opened, item: Prepared, order: Order) -> bool:
    """Whether the rendered example reads back as the very piece of the document it was made from."""
    row = opened.fim_format.render(item.context.prefix, item.gold, item.context.suffix, order)
    prompt = prompt_of(item.context, order, opened.fim_format)
    middle = item.example.middle.encode("utf-8")
    before, after = item.example.prefix.encode("utf-8"), item.example.suffix.encode("utf-8")
    piece = opened.fim_format.restore(row)
    kept_before = len(opened.tokenizer.decode_bytes(item.context.prefix))
    kept_after = len(opened.tokenizer.decode_bytes(item.context.suffix))
    expected = before[len(before) - kept_before :] + middle + after[:kept_after]
    # In a joint order the sub-token at the cut is the middle's, so the prompt need not be the row's beginning.
    begins = opened.fim_format.joins(order) or [*prompt, *item.gold] == row.tokens[:-1].tolist()
    return piece == expected and begins


def _write(run: RunDir, task: str, result: dict[str, Any], scored: dict[Order, list[Scored]]) -> None:
    lines = [
        json.dumps(
            {
                "id": item.example.id,
                "order": order,
                "doc": item.example.document.id,
                "path": item.example.document.path,
                "category": item.example.category,
                "gold_tokens": item.example.tokens,
                "gold": item.example.middle,
                "middle": item.generation.text,
                "stopped": item.generation.stopped,
                "tokens": len(item.generation.ids),
                "measures": {name: None if m is None else m[0] for name, m in item.measures.items()},
            },
            ensure_ascii=False,
        )
        for order, items in scored.items()
        for item in items
    ]
    write_atomic(run.evaluations / f"{task}.items.jsonl", "".join(f"{line}\n" for line in lines))
    write_atomic(run.evaluations / f"{task}.json", json.dumps(result, ensure_ascii=False, indent=1) + "\n")
