"""What `inlay inspect rows` and `stats` say of a store is what training reads from it."""

import json
from typing import Any

import pytest
from tests.data.stores import rows_of

from inlay.config import BadInput, ConfigError
from inlay.data.inspect import open_rows, print_rows, print_stats, stats
from inlay.text.store import TokenStore

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
        assert item["span_kind"] in (None, "sized", "random")
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


def test_coloured_rows(store: TokenStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    print_rows(str(store.path), 40, False, OVERRIDES)
    shown = capsys.readouterr().out
    # Paths with brackets are no markup, and sentinels show as their strings.
    assert "[page2]/file.py" in shown
    assert "<|fim_middle|>" in shown
    assert "row 39" in shown


def test_stats(store: TokenStore, capsys: pytest.CaptureFixture[str]) -> None:
    found = stats(str(store.path), OVERRIDES)
    split = store.split("train")
    assert found["splits"]["train"] == {
        "documents": split.document_count,
        "tokens": split.token_count,
        "bytes": split.byte_count,
    }
    assert sum(found["kinds"].values()) == pytest.approx(1.0)
    assert sum(found["strategies"].values()) == pytest.approx(1.0)
    assert found["effective_fim_rate"] == pytest.approx(1.0 - found["kinds"]["l2r"])
    assert found["effective_fim_rate"] == pytest.approx(0.7, abs=0.12)
    assert 0.7 < found["fill"] <= 1.0
    assert 0.0 <= found["trimmed_tokens_share"] < 0.05
    items = objects(store, capsys, found["rows_looked_at"])
    middles = [item for item in items if item["span_kind"]]
    assert sum(found["middle_tokens"].values()) == len(middles)
    print_stats(str(store.path), True)
    assert set(json.loads(capsys.readouterr().out)) == set(found)
    print_stats(str(store.path), False)
    assert "effective FIM rate" in capsys.readouterr().out


def test_stats_without_fim(store: TokenStore, capsys: pytest.CaptureFixture[str]) -> None:
    found = stats(str(store.path), ["train.sequence_length=96", "fim.rate=0"])
    assert found["effective_fim_rate"] == 0.0
    assert found["kinds"] == {"l2r": 1.0}
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
