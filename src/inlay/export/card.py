"""What an exported model says about itself: facts gathered from its run, and the model card (README.md) made of them.

Facts are where they can be proven: tokens from the checkpoint's record, data and licences from the manifest of the
store, scores from evaluations of exactly these weights. What cannot be reached is said to be unknown, never guessed. A
folder that inlay exported carries its facts along, so that exporting it again loses none. No path of this machine is
written down.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xxhash

import inlay
from inlay.config.files import parse_json, read_bounded_text
from inlay.evaluate.result_names import read_result
from inlay.evaluate.table import COLUMNS, format_score
from inlay.infer.export_record import RECORD
from inlay.infer.open import Opened
from inlay.infer.run_stores import main_manifest, manifests
from inlay.model import checkpoint

MOST_REPOS = 20
"""Repositories that the card names; the rest are counted."""


def facts(opened: Opened) -> dict[str, Any]:
    """Run, step, tokens trained, hashes, data and scores of a model, as plain JSON types; None where unknown."""
    record = opened.checkpoint / RECORD if opened.checkpoint is not None else None
    if record is not None and record.is_file():
        return parse_json(read_bounded_text(record))["facts"]
    config = json.dumps(opened.config, sort_keys=True).encode()
    return {
        "run": None if opened.run is None else opened.run.resolve().name,
        "step": opened.step,
        "tokens": _tokens(opened),
        "weights_hash": opened.weights_hash or None,
        "config_hash": xxhash.xxh3_128_hexdigest(config),
        "data": _data(opened),
        "scores": _scores(opened),
    }


def card(name: str, opened: Opened, known: dict[str, Any], architecture: str, dtype: str, notices: list[str]) -> str:
    """The text of README.md. `known`: what `facts` gave; `dtype`: of the exported weights."""
    blocks = [
        _front_matter(known),
        f"# {name}",
        f"A code model that fills in the middle, exported by inlay {inlay.__version__}. Before publishing it, choose a"
        " licence that suits its training data (below), and name it at the head of this file.",
        "## Model",
        _table(("", ""), _model_rows(opened, known, architecture, dtype)),
        *notices,
        "## Infilling",
        _format_text(opened),
        f"```python\n{snippet(opened)}```",
        "The same folder opens in inlay: `inlay complete FOLDER --file F --at LINE:COL`.",
        "## Training data",
        *_data_text(known["data"]),
        "## Scores",
        *_score_text(known["scores"]),
    ]
    return "\n\n".join(blocks) + "\n"


def snippet(opened: Opened) -> str:
    """Python that fills in a middle with transformers; `MODEL` is the folder."""
    family = opened.fim_format.family
    order = opened.orders[0]
    strings = family.strings()
    pieces = [repr(family.bos)] if family.bos is not None else []
    for part in family.layout(order):
        if part in ("p", "s"):
            pieces.append({"p": "prefix", "s": "suffix"}[part])
        elif part in strings:
            pieces.append(repr(strings[part]))
    return (
        "import torch\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'MODEL = "."  # this folder\n'
        "tokenizer = AutoTokenizer.from_pretrained(MODEL)\n"
        "model = AutoModelForCausalLM.from_pretrained(MODEL)\n\n"
        'prefix = "def add(first, second):\\n    return "\n'
        'suffix = "\\n\\n\\nprint(add(1, 2))\\n"\n'
        f"prompt = {' + '.join(pieces)}\n"
        'inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)\n'
        "with torch.inference_mode():\n"
        "    output = model.generate(**inputs, max_new_tokens=64, do_sample=False)\n"
        'new = output[0, inputs["input_ids"].shape[1] :]\n'
        "middle = tokenizer.decode(new, skip_special_tokens=True, clean_up_tokenization_spaces=False)\n"
        "print(prefix + middle + suffix)\n"
    )


def _front_matter(known: dict[str, Any]) -> str:
    languages = sorted((known["data"] or {}).get("languages", {}))
    lines = ["library_name: transformers", "pipeline_tag: text-generation", "tags:"]
    lines += [f"- {tag}" for tag in ("code", "fill-in-the-middle", "inlay", *languages)]
    return "\n".join(["---", *lines, "---"])


def _model_rows(opened: Opened, known: dict[str, Any], architecture: str, dtype: str) -> Iterator[tuple[str, str]]:
    model = opened.model
    total = sum(parameter.numel() for parameter in model.parameters())
    inner = total - model.embedding.weight.numel() - (0 if model.head is None else model.head.weight.numel())
    yield "class in transformers", f"`{architecture}`"
    yield "parameters", f"{total:,}, of which {inner:,} beside embedding and head"
    yield "layers, width", f"{model.config.layers}, {model.config.width}"
    yield "vocabulary", f"{opened.tokenizer.vocab_size:,} tokens in {model.vocab_size:,} rows"
    yield "context", f"{opened.sequence_length:,} tokens, prompt and completion together"
    yield "weights", dtype
    yield "run, step", f"{known['run'] or 'unknown'}, {known['step']:,}"
    yield "tokens trained", "unknown" if known["tokens"] is None else f"{known['tokens']:,}"
    yield "hash of the configuration", f"`{known['config_hash']}`"
    yield "hash of the run's weights", f"`{known['weights_hash'] or 'unknown'}`"


def _format_text(opened: Opened) -> str:
    fim = opened.fim_format
    names = {token: text for text, token in opened.tokenizer.special.items()}
    stops = ", ".join(f"`{names.get(token, token)}` ({token})" for token in stop_list(opened))
    orders = " and ".join(f"`{order}`" for order in opened.orders)
    return (
        f"Format family `{fim.name}`, prompts in the orders {orders}. A completion ends at one of these tokens, which"
        f" `generation_config.json` names: {stops}. Give prefix and suffix as they are, without stripping blanks."
    )


def stop_list(opened: Opened) -> list[int]:
    """Every stop id, the terminator first."""
    return [opened.fim_format.eot, *sorted(opened.stop_ids - {opened.fim_format.eot})]


def _tokens(opened: Opened) -> int | None:
    if opened.run is None or opened.checkpoint is None:
        return None
    tokens = checkpoint.read_record(opened.checkpoint).get("tokens")
    return None if tokens is None else int(tokens)


def _data(opened: Opened) -> dict[str, Any] | None:
    manifest = main_manifest(opened.run, opened.config)
    if manifest is None:
        return None
    found, mixture = _facts_of(manifest), manifests(opened.run, opened.config)
    return found | {"mixture": {name: _facts_of(one) for name, one in mixture.items()}} if mixture else found


def _facts_of(manifest: dict[str, Any]) -> dict[str, Any]:
    return {
        "hash": manifest["content_hash"],
        "source": ((manifest.get("config") or {}).get("source") or {}).get("kind"),
        "splits": {
            name: {key: split[key] for key in ("documents", "tokens", "bytes")}
            for name, split in manifest["splits"].items()
        },
        **{key: manifest["splits"].get("train", {}).get(key, {}) for key in ("languages", "licences", "repos")},
    }


def _scores(opened: Opened) -> list[dict[str, Any]]:
    """The evaluations of these weights that lie in the run."""
    if opened.run is None:
        return []
    found = []
    for file in sorted((opened.run / "evaluations").glob("*.json")):
        result = read_result(file)
        if result is None or result.get("sample"):
            continue  # some other file, or one cut short; a few shipped examples are no score
        if result["settings"].get("weights_hash") == opened.weights_hash:
            decoding = result["settings"].get("decoding", "greedy")
            kept = {key: result[key] for key in ("task", "n", "gold", "metrics")}
            found.append({**kept, "name": file.stem, "decoding": decoding})
    return found


def _data_text(data: dict[str, Any] | None) -> Iterator[str]:
    if data is None:
        yield "Unknown: nothing says what token store the model was trained from, or it was not at hand any more."
        return
    if data.get("mixture"):
        yield f"A mixture of {len(data['mixture'])} token stores."
        for name, one in data["mixture"].items():
            yield f"### {name}"
            yield from _store_text(one)
    else:
        yield from _store_text(data)


def _store_text(data: dict[str, Any]) -> Iterator[str]:
    yield f"Source `{data['source'] or 'unknown'}`; content hash of the store `{data['hash']}`."
    yield _table(
        ("split", "documents", "tokens", "bytes"),
        (
            (name, *(f"{part[key]:,}" for key in ("documents", "tokens", "bytes")))
            for name, part in data["splits"].items()
        ),
    )
    licences = sorted(data["licences"].items(), key=lambda item: (-item[1], item[0]))
    yield _table(("licence of the training split", "documents"), ((name, f"{count:,}") for name, count in licences))
    repos = sorted(data["repos"].items(), key=lambda item: (-item[1]["tokens"], item[0]))
    rows = [(name, f"{totals['documents']:,}", f"{totals['tokens']:,}") for name, totals in repos[:MOST_REPOS]]
    if len(repos) > MOST_REPOS:
        rest = [totals for _, totals in repos[MOST_REPOS:]]
        documents, tokens = (f"{sum(totals[key] for totals in rest):,}" for key in ("documents", "tokens"))
        rows.append((f"{len(rest):,} more", documents, tokens))
    yield _table(("source of the training split", "documents", "tokens"), rows)


def _score_text(scores: list[dict[str, Any]]) -> Iterator[str]:
    if not scores:
        yield "None: these weights were not evaluated before the export (`inlay evaluate`)."
        return
    for result in scores:
        exact = result["gold"]["exact"]
        yield (
            f"Task `{result.get('name') or result['task']}`, {result['n']:,} gaps, {result['decoding']}. The gold"
            f" answers themselves score {exact:.1%} exact through the same path."
        )
        yield _table(
            ("order", *(title for _, title in COLUMNS)),
            (
                (order, *(format_score(key, metrics[key]) if key in metrics else "" for key, _ in COLUMNS))
                for order, metrics in result["metrics"].items()
            ),
        )


def _table(head: tuple[str, ...], rows: Any) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def write_card(folder: Path, text: str) -> None:
    """Writes README.md."""
    (folder / "README.md").write_text(text, encoding="utf-8")
