"""Files of completions: what is read from them, and that nothing partial passes for a whole."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inlay.config import BadInput
from inlay.evaluate.answer import Answer
from inlay.evaluate.subject import GREEDY, Decoding
from inlay.evaluate.subjects.completions import CompletionsSubject
from inlay.evaluate.task import Example, Examples


def example(name: str) -> Example:
    return Example(name, "g", "line", "before\n", "gold\n", "after\n")


def listed(names: Sequence[str], of: int | None = None) -> Examples:
    return Examples([example(name) for name in names], of or len(names), "here", "0")


def write(path: Path, lines: Sequence[Any]) -> Path:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return path


def official(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"task_id": name, "completion": text} for name, text in pairs]


def texts(subject: CompletionsSubject, names: Sequence[str], order: str = "given") -> list[list[str]]:
    found = dict(subject.answers([example(name) for name in names], order, 64, GREEDY))
    return [[answer.text for answer in found[index]] for index in range(len(names))]


def refused(path: Path, message: str, examples: Examples | None = None) -> None:
    def read() -> None:
        subject = CompletionsSubject(path)
        if examples is not None:
            subject.match(examples)

    with pytest.raises(BadInput, match=message) as error:
        read()
    assert "\n" not in str(error.value)


def test_the_official_format_with_samples_in_file_order(tmp_path: Path) -> None:
    lines = official(("T/0", "a"), ("T/1", "b"), ("T/1", "c"), ("T/0", "  d\n"))
    file = write(tmp_path / "samples.jsonl", lines)
    subject = CompletionsSubject(file)
    subject.match(listed(["T/0", "T/1"]))
    assert (subject.orders, subject.samples, subject.key) == (("given",), 2, None)
    assert texts(subject, ["T/1", "T/0"]) == [["b", "c"], ["a", "  d\n"]]
    answer = dict(subject.answers([example("T/0")], "given", 64, GREEDY))[0][0]
    assert answer == Answer("a", "unknown")
    packed = tmp_path / "samples.jsonl.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    again = CompletionsSubject(packed)
    assert texts(again, ["T/0", "T/1"]) == [["a", "  d\n"], ["b", "c"]]
    assert again.identity["completions_hash"] == subject.identity["completions_hash"]
    assert {**subject.identity, "completions_hash": ""} == {
        "name": "samples.jsonl",
        "kind": "completions",
        "step": None,
        "weights_hash": None,
        "completions_hash": "",
        "lines": 4,
        "samples": 2,
    }


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.text(), min_size=2, max_size=2), min_size=1, max_size=4))
def test_every_text_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, found: list[list[str]]) -> None:
    names = [f"name {number}" for number in range(len(found))]
    file = tmp_path_factory.mktemp("made") / "any.jsonl"
    write(file, [{"id": name, "text": text} for sample in (0, 1) for name, (text) in
                 zip(names, (pair[sample] for pair in found), strict=True)])  # fmt: skip
    assert texts(CompletionsSubject(file), names) == found


def test_what_else_a_line_may_say(tmp_path: Path) -> None:
    line = {"id": "a", "middle": "x", "stopped": "eot", "tokens": 3, "logprob": -1.5, "passed": True, "note": None}
    subject = CompletionsSubject(write(tmp_path / "a.jsonl", [line]))
    (answer,) = dict(subject.answers([example("a")], "given", 64, GREEDY))[0]
    assert answer == Answer("x", "eot", tokens=3, logprob=-1.5)
    assert answer.mean_logprob == -1.5 / 4


def test_samples_may_be_numbered(tmp_path: Path) -> None:
    lines = [{"id": "a", "sample": number, "text": str(number)} for number in (2, 0, 1)]
    assert texts(CompletionsSubject(write(tmp_path / "a.jsonl", lines)), ["a"]) == [["0", "1", "2"]]
    refused(write(tmp_path / "b.jsonl", [*lines, lines[0]]), r"b.jsonl, line 4: field 'sample' is 2, which another")
    refused(write(tmp_path / "c.jsonl", lines[:2]), r"field 'sample' is 2, and its id has 2 lines")
    refused(write(tmp_path / "d.jsonl", [*lines, {"id": "a", "text": ""}]), r"line 4: field 'sample' is missing")


def test_our_own_items_read_back_by_order(tmp_path: Path) -> None:
    def item(name: str, order: str, sample: int, text: str, row: str | None = None) -> dict[str, Any]:
        return {
            "id": name, "order": order, "row": row or order, "sample": sample, "chosen": None, "doc": "d", "gold": "g",
            "middle": text, "post": None, "stopped": "eot", "tokens": 1, "measures": {"exact": 1.0},
        }  # fmt: skip

    lines = [item(name, order, sample, f"{name}{order}{sample}") for order in ("spm", "psm") for name in "ab"
             for sample in (0, 1)]  # fmt: skip
    lines += [item(name, "spm", 1, f"{name}spm1", "spm best of 2") for name in "ab"]
    subject = CompletionsSubject(write(tmp_path / "task.items.jsonl", lines))
    assert (subject.orders, subject.samples) == (("spm", "psm"), 2)
    assert texts(subject, ["b", "a"], "psm") == [["bpsm0", "bpsm1"], ["apsm0", "apsm1"]]
    with pytest.raises(BadInput, match="no answers in order 'given'; it has spm, psm"):
        texts(subject, ["a"])
    refused(write(tmp_path / "half.jsonl", lines[:7]), r"another number to 1: 1 to b \(order psm\)")
    missing = [line for line in lines if (line["id"], line["order"]) != ("b", "psm")]
    refused(write(tmp_path / "missing.jsonl", missing), r"\(order psm\) lacks answers to 1 of 2", listed("ab"))
    refused(write(tmp_path / "mixed.jsonl", [*lines, {"id": "a", "middle": ""}]), r"line 11: field 'order' is missing")
    refused(write(tmp_path / "best.jsonl", lines[-2:]), r"line 1: only lines of best-of-n")


def test_unknown_missing_and_uneven_ids_are_named_and_counted(tmp_path: Path) -> None:
    names = [f"T/{number}" for number in range(12)]
    whole = official(*((name, "x") for name in names))
    file = write(tmp_path / "a.jsonl", whole)
    CompletionsSubject(file).match(listed(names))
    refused(file, r"answers 5 ids that the task does not have \(T/7, T/8, T/9, ...\)$", listed(names[:7]))
    refused(file, r"12 ids that .* none is the task's, so this is another task's", listed(["H/1"]))
    # The task's list is longer than the file: nothing but a limit lets that pass.
    refused(
        write(tmp_path / "b.jsonl", whole[:10]),
        r"lacks answers to 2 of 12 examples: T/10, T/11; complete the file, or .* first 10 alone with --limit 10",
        listed(names),
    )
    refused(write(tmp_path / "c.jsonl", whole[1:]), r"lacks answers to 1 of 12 examples: T/0; complete the file$",
            listed(names))  # fmt: skip
    refused(write(tmp_path / "d.jsonl", [*whole, whole[3]]), r"has 1 answers to most .* number to 1: 2 to T/3;")
    refused(write(tmp_path / "e.jsonl", whole * 2 + whole[:2]), r"has 2 answers to most .* to 2: 3 to T/0, T/1;")


def test_with_a_limit_only_the_first_examples_are_needed(tmp_path: Path) -> None:
    names = [f"T/{number}" for number in range(12)]
    subject = CompletionsSubject(write(tmp_path / "a.jsonl", official(*((name, "x") for name in names[:4]))))
    subject.match(listed(names[:4], of=12))
    assert texts(subject, names[:4]) == [["x"]] * 4
    subject.match(listed(names[:2], of=12))
    assert texts(subject, names[:2]) == [["x"]] * 2
    with pytest.raises(BadInput, match=r"lacks answers to 1 of 5 examples \(the first of 12\): T/4"):
        subject.match(listed(names[:5], of=12))


def test_a_caller_that_forgets_to_match_is_refused_all_the_same(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", official(("a", ""), ("b", "")))
    with pytest.raises(BadInput, match=r"answers 1 ids that the task does not have \(b\)"):
        texts(CompletionsSubject(file), ["a"])
    with pytest.raises(BadInput, match=r"lacks answers to 1 of 3 examples: c"):
        texts(CompletionsSubject(file), ["a", "b", "c"])


def test_the_file_says_how_many_samples_there_are(tmp_path: Path) -> None:
    subject = CompletionsSubject(write(tmp_path / "a.jsonl", official(("a", "1"), ("a", "2"), ("a", "3"))))
    wanted = Decoding(samples=3, temperature=0.2)
    assert len(dict(subject.answers([example("a")], "given", 8, wanted))[0]) == 3
    given_decoding = subject.decoding(GREEDY, listed(["a"]))
    assert (given_decoding.samples, given_decoding.title) == (3, "as given, 3 samples")
    assert given_decoding.to_dict() == {"samples": 3}
    assert subject.decoding(wanted, listed(["a"])).samples == 3
    with pytest.raises(BadInput, match="lacks answers to 1 of 2"):
        subject.decoding(GREEDY, listed(["a", "b"]))
    with pytest.raises(BadInput, match=r"samples = 2: .* has 3 of each"):
        subject.answers([example("a")], "given", 8, Decoding(samples=2, temperature=0.2))


LINES: list[tuple[Any, str]] = [
    ({"completion": "x"}, r"a.jsonl, line 2: field 'task_id' is missing"),
    ({"task_id": "b"}, r"a.jsonl, line 2: field 'completion' is missing"),
    ({"task_id": "b", "completion": None}, r"line 2: field 'completion' is null"),
    ({"task_id": "b", "completion": 3}, r"line 2: field 'completion' is a number, not a text"),
    ({"task_id": "b", "completion": ["x"]}, r"line 2: field 'completion' is a list, not a text"),
    ({"task_id": 7, "completion": "x"}, r"line 2: field 'task_id' is a number, not a text"),
    ({"task_id": " ", "completion": "x"}, r"line 2: field 'task_id' is empty"),
    ({"id": "b", "task_id": "c", "text": "x"}, r"line 2: field 'id' and field 'task_id' differ"),
    ({"id": "b", "text": "x", "middle": "y"}, r"line 2: field 'middle' and field 'text' both stand there"),
    ({"id": "b", "text": "\ud800"}, r"line 2: field 'text' has half a character"),
    ({"id": "b", "text": "x", "stopped": "end"}, r"line 2: field 'stopped' is 'end', not one of eot, sentinel"),
    ({"id": "b", "text": "x", "tokens": 1.5}, r"line 2: field 'tokens' is a number, not a whole number"),
    ({"id": "b", "text": "x", "tokens": -1}, r"line 2: field 'tokens' is -1"),
    ({"id": "b", "text": "x", "logprob": 0.5}, r"line 2: field 'logprob' is 0.5, and no logarithm"),
    (["b", "x"], r"line 2: a list, not an object"),
]


@pytest.mark.parametrize(("line", "message"), LINES)
def test_lines_that_are_no_answer(line: Any, message: str, tmp_path: Path) -> None:
    refused(write(tmp_path / "a.jsonl", [*official(("a", "x")), line]), message)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    good = "".join(f"{json.dumps(line)}\n" for line in official(("a", "größer"), ("b", "y"))).encode()

    def file(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    refused(tmp_path / "none.jsonl", r"completions file '.*none.jsonl' is not there")
    refused(tmp_path, r"is a folder, not a file")
    refused(file("a.txt", good), r"is none of \.jsonl, \.jsonl\.gz")
    refused(file("empty.jsonl", b"\n\n"), r"no rows, the data is empty")
    refused(file("not.jsonl.gz", good), r"not.jsonl.gz: not a whole gzip file")
    refused(file("cut.jsonl.gz", gzip.compress(good)[:-20]), r"cut.jsonl.gz: .*gzip")
    refused(file("utf16.jsonl", good.decode().encode("utf-16")), r"utf16.jsonl, line 1: .*UTF-16")
    latin = '{"task_id": "a", "completion": "größer"}\n'.encode("latin-1")
    refused(file("latin.jsonl", latin), r"latin.jsonl, line 1: byte 0xf6 is not UTF-8")
    refused(file("cut.jsonl", good[:-9]), r"cut.jsonl, line 2: the JSON ends too early")
    refused(file("text.jsonl", b"return x\n"), r"text.jsonl, line 1, column 1: not JSON")
    bom = CompletionsSubject(file("bom.jsonl", b"\xef\xbb\xbf" + good))
    assert texts(bom, ["a", "b"]) == [["größer"], ["y"]]
