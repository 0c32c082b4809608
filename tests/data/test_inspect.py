"""What `inlay inspect rows` and `stats` say of a store is what training reads from it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.data.stores import rows_of, write_store

from inlay.config import BadInput, ConfigError
from inlay.data.inspect import STYLES, UNTRAINED, _styled, open_rows, parts_of, print_rows
from inlay.data.stats import print_stats, stats
from inlay.fim.format import FimTokens, Kind, Region
from inlay.text.store import TokenStore
from inlay.text.tokenizer import Tokenizer

KEYS = {"doc_id", "path", "language", "kind", "span_kind", "level", "prefix", "middle", "suffix", "tokens"}
OVERRIDES = ["train.sequence_length=96", "fim.rate=0.7"]


def objects(store: TokenStore, capsys: pytest.CaptureFixture[str], count: int, *more: str) -> list[dict[str, Any]]:
    print_rows(str(store.path), count, True, [*OVERRIDES, *more])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_json_objects(store: TokenStore, capsys: pytest.CaptureFixture[str]) -> None:
    found = objects(store, capsys, 60)
    split = store.split("train")
    texts = {split.document(index).id: split.text(index) for index in range(len(split))}
    paths = {split.document(index).path for index in range(len(split))}
    form = rows_of(store).maker.transform.format
    spans = open_rows(str(store.path), OVERRIDES).maker.transform.config.spans
    kinds = set()
    for item in found:
        assert set(item) >= KEYS
        text = item["prefix"] + item["middle"] + item["suffix"]
        assert text in texts[item["doc_id"]]
        assert form.restore(item["tokens"]).decode() == text
        assert item["path"] in paths
        assert item["language"] == "python"
        assert item["level"] == "context"
        assert (item["kind"] == "l2r") == (item["span_kind"] is None)
        assert item["span_kind"] in (None, *spans)
        kinds.add(item["kind"])
    assert kinds == {"l2r", "psm", "spm"}
    assert sorted({item["row"] for item in found}) == list(range(60))


def test_rows_are_those_that_training_reads(store: TokenStore, capsys: pytest.CaptureFixture[str]) -> None:
    rows = open_rows(str(store.path), [*OVERRIDES, "seed=3", "data.shortest_piece=10"])
    found = objects(store, capsys, 5, "seed=3", "data.shortest_piece=10")
    expected = [
        placed.example.row.tokens.tolist() for row in range(5) for placed in rows.maker.examples(rows.plan(0), 0, row)
    ]
    assert [item["tokens"] for item in found] == expected
    assert found != objects(store, capsys, 5)


def test_more_rows_than_there_are(store: TokenStore, capsys: pytest.CaptureFixture[str]) -> None:
    count = open_rows(str(store.path), OVERRIDES).plan(0).row_count
    assert max(item["row"] for item in objects(store, capsys, 10**6)) == count - 1


@pytest.mark.parametrize("level", ["document", "repository"])
def test_json_objects_of_other_levels(store: TokenStore, capsys: pytest.CaptureFixture[str], level: str) -> None:
    found = objects(store, capsys, 40, f"fim.level={level}", "fim.rate=1")
    split = store.split("train")
    texts = {split.document(index).id: split.text(index) for index in range(len(split))}
    for item in found:
        assert item["level"] == level
        whole = item["window"] == [0, 1]
        text = texts[item["doc_id"]]
        assert (item["prefix"] + item["middle"] + item["suffix"] in text) or not whole
        assert all(part in text for part in (item["prefix"], item["middle"], item["suffix"]))
        assert bool(item["header"]) == (level == "repository")
        assert bool(item["context"]) <= (level == "repository")
        if level == "repository":
            assert item["header"].startswith("<|repo_name|>")
            assert all(texts[other][:20] in item["header"] for other in item["context"])
    assert any(item["window"][1] > 1 for item in found) == (level == "document")
    assert any(item["context"] for item in found) == (level == "repository")


def test_a_token_across_the_cut_is_shared_out(store: TokenStore) -> None:
    # Prefix and middle encoded as one text: the token that the cut falls into is the middle's, the text is not.
    rows = rows_of(store, rate=1.0, orders={"psm": 1.0}, spans={"sized": {"kind": "sized"}})
    form, seen = rows.maker.transform.format, 0
    for number in range(40):
        for placed in rows.maker.examples(rows.plan(0), 0, number):
            prefix, middle, suffix = parts_of(placed, form)
            together = form.tokenizer.encode((prefix + middle).decode())
            ends = np.cumsum([len(form.tokenizer.decode_bytes([token])) for token in together])
            first = int(np.searchsorted(ends, len(prefix), side="right"))
            row = placed.example.row
            tokens = [form.prefix, form.suffix, *row.tokens[row.regions == Region.SUFFIX].tolist(), form.middle]
            regions = [Region.SENTINEL, Region.SENTINEL, *[Region.SUFFIX] * (len(tokens) - 3), Region.SENTINEL]
            tokens += [*together, form.eot]
            regions += [Region.PREFIX] * first + [Region.MIDDLE] * (len(together) - first) + [Region.TERMINATOR]
            joined = FimTokens(np.array(tokens, np.int32), np.array(regions, np.uint8), Kind.SPM_JOINT)
            again = replace(placed, example=replace(placed.example, row=joined))
            assert parts_of(again, form) == (prefix, middle, suffix)
            straddles = first < len(together) and int(ends[first - 1] if first else 0) < len(prefix)
            seen += straddles
    assert seen > 5


def test_control_characters_are_shown_and_not_obeyed(
    tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = write_store(tmp_path / "store", tokenizer, ["a = '\x1b[31m'\r\n\tb\x07\x7f\n" * 3])
    print_rows(str(made.path), 1, False, ["fim.rate=0"])
    shown = capsys.readouterr().out
    assert "␛[31m" in shown
    assert not set(shown) & {"\x07", "\x7f", "\r"}
    assert "\x1b[31m" not in shown


def test_what_is_not_trained_is_marked(store: TokenStore) -> None:
    rows = rows_of(store, rate=1.0, loss={"prefix": 0.0}, orders={"psm": 1.0})
    form, weights = rows.maker.transform.format, rows.maker.transform.config.loss.table()
    for placed in rows.maker.examples(rows.plan(0), 0, 0):
        styled = list(_styled(placed, form.tokenizer, weights))
        assert "".join(text for text, _ in styled).encode() == form.tokenizer.decode_bytes(placed.example.row.tokens)
        assert styled[0] == ("<|fim_prefix|>", f"magenta {UNTRAINED}")
        assert all(UNTRAINED in style for _, style in styled if "cyan" in style)
        assert ("<|fim_suffix|>", STYLES[Region.SENTINEL]) in styled


def test_coloured_rows(store: TokenStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    print_rows(str(store.path), 40, False, OVERRIDES)
    shown = capsys.readouterr().out
    # Paths with brackets are no markup, and sentinels show as their strings.
    assert "[page2]/file.py" in shown
    assert "<|fim_middle|>" in shown
    assert "row 39" in shown


def test_stats(store: TokenStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    found = stats(str(store.path), OVERRIDES)
    split = store.split("train")
    assert found["splits"]["train"] == {
        "documents": split.document_count,
        "tokens": split.token_count,
        "bytes": split.byte_count,
    }
    assert sum(found["kinds"].values()) == pytest.approx(1.0)
    assert sum(found["strategies"].values()) == pytest.approx(1.0)
    assert found["nominal_fim_rate"] == 0.7
    assert found["effective_fim_rate"] == pytest.approx(0.7, abs=0.12)
    assert found["licences"] == {"MIT": 2 * split.document_count}
    assert found["languages"] == {"python": 1.0}
    assert set(found["orders"]) == {"psm", "spm"}
    assert 0.7 < found["fill"] <= 1.0
    assert 0.0 <= found["trimmed_tokens_share"] < 0.05
    items = objects(store, capsys, found["rows_looked_at"])
    middles = [item for item in items if item["span_kind"]]
    assert sum(found["middle_tokens"].values()) == len(middles)
    # Witness of the effective rate: from the texts alone.
    texts = {split.document(index).id: split.text(index) for index in range(len(split))}
    effective = 0
    for item in middles:
        text, whole = texts[item["doc_id"]], item["prefix"] + item["middle"] + item["suffix"]
        assert whole in text
        effective += item["trimmed"] == 0 or bool(item["prefix"] and item["suffix"])
    assert found["effective_fim_rate"] == pytest.approx(effective / len(items), abs=0.01)
    # A middle is never a whole piece, and what stands for a node is told with its reason.
    assert found["middles_without_context"] == 0.0
    assert set(found["nominal_strategies"]) >= set(found["strategies"])
    assert sum(found["nominal_strategies"].values()) == pytest.approx(1.0)
    for reason, share in found["fallbacks"].items():
        assert share == pytest.approx(sum(item["fallback"] == reason for item in middles) / len(middles))
    assert found["middle_quantiles"] == sorted(found["middle_quantiles"])
    print_stats(str(store.path), True)
    assert set(json.loads(capsys.readouterr().out)) == set(found)
    monkeypatch.setenv("COLUMNS", "80")
    print_stats(str(store.path), False)
    shown = capsys.readouterr().out
    assert "effective FIM rate" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_stats_without_fim(store: TokenStore, capsys: pytest.CaptureFixture[str]) -> None:
    found = stats(str(store.path), ["train.sequence_length=96", "fim.rate=0"])
    assert found["effective_fim_rate"] == 0.0
    assert found["kinds"] == {"l2r": 1.0}
    assert found["orders"] == {}
    assert found["strategies"] == {}
    assert not any(found["middle_tokens"].values())


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("fim.rate=2", "'fim.rate' = 2"),
        ("seed=x", "'seed'"),
        ("fim.rats=1", "fim.rat"),
        ("train.sequence_length=many", "train.sequence_length"),
        ("train.sequence_length=8", "at least 32"),
        ("data.shortest_piece=5000", "data.shortest_piece"),
        ("fim.family=qwern", "unknown format family 'qwern'"),
    ],
)
def test_bad_overrides(store: TokenStore, override: str, named: str) -> None:
    with pytest.raises(BadInput) as caught:
        print_rows(str(store.path), 1, True, [override])
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_store(tmp_path: Any) -> None:
    with pytest.raises(BadInput, match="not a token store"):
        print_rows(str(tmp_path), 1, True, [])
    assert issubclass(ConfigError, BadInput)


def test_stats_count_what_rows_show(store: TokenStore, capsys: pytest.CaptureFixture[str]) -> None:
    """Effective shares and lengths, against a count of the very rows; nominal ones are the configuration's."""
    spans = "fim.spans={sized: {kind: sized, weight: 3}, empty: {kind: empty, weight: 1}}"
    found = stats(str(store.path), [*OVERRIDES, spans])
    assert found["nominal_strategies"] == {"sized": 0.75, "empty": 0.25}
    items = objects(store, capsys, found["rows_looked_at"], spans)
    middles = [item for item in items if item["span_kind"]]
    for name, share in found["strategies"].items():
        assert share == pytest.approx(sum(item["span_kind"] == name for item in middles) / len(middles))
    form = rows_of(store).maker.transform.format
    counted = []
    for item in middles:
        tokens = item["tokens"]
        begin = tokens.index(form.middle) + 1
        counted.append(len(tokens) - 1 - begin)  # the terminator is the last
    assert found["middle_mean"] == pytest.approx(np.mean(counted))
    pieces = [len(form.tokenizer.encode(item["prefix"] + item["middle"] + item["suffix"])) for item in items]
    assert found["piece_median"] == pytest.approx(
        np.median(pieces), rel=0.1
    )  # of a chunk the ends may be cut otherwise
