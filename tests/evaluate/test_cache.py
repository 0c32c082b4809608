"""The cache under kills, torn lines, two writers and changed questions; subjects whose answers are known."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.evaluate.stub_subjects import StubSubject

import inlay
from inlay.config import InlayError
from inlay.evaluate.answer import Answer, Losses
from inlay.evaluate.cache import Entries, cached_answers, cached_losses, cached_outcomes
from inlay.evaluate.sandbox.program import Case, Outcome, Program
from inlay.evaluate.subject import GREEDY, Decoding
from inlay.evaluate.task import ContextFile, Example

EXAMPLES = [Example(f"e{at}", "g", "c", f"before {at}\ud800", f"m{at}", "after") for at in range(40)]


def reply(example: Example, sample: int) -> Answer:
    return Answer(
        f"{example.id}/{sample} größe 🙂\u2028", "eot", tokens=3, logprob=-1 / 3, eot_logprob=-0.1, leaked=False
    )


def stub(key: str | None = "weights") -> StubSubject:
    return StubSubject(reply, key=key)


def ask(subject: StubSubject, folder: Path | None, examples: Sequence[Example] = EXAMPLES) -> list[list[Answer]]:
    return cached_answers(subject, examples, "psm", 16, GREEDY, folder)


def test_a_second_run_asks_nothing_and_says_the_same(tmp_path: Path) -> None:
    done: list[int] = []
    first = cached_answers(stub(), EXAMPLES, "psm", 16, GREEDY, tmp_path / "new" / "folder", done.append)
    assert first == [[reply(example, 0)] for example in EXAMPLES]
    assert done == [1] * 40
    subject = stub()
    again = cached_answers(subject, EXAMPLES, "psm", 16, GREEDY, tmp_path / "new" / "folder", done.append)
    assert again == first
    assert subject.asked == []
    assert done[40:] == [40]
    # More of the list, in another order: only what is new is asked.
    more = [*EXAMPLES[::-1], replace(EXAMPLES[0], id="new")]
    assert ask(subject, tmp_path / "new" / "folder", more)[:40] == first[::-1]
    assert subject.asked == ["new"]


def test_nothing_is_kept_without_folder_or_key(tmp_path: Path) -> None:
    for subject, folder in ((stub(), None), (stub(None), tmp_path / "none")):
        ask(subject, folder)
        ask(subject, folder)
        assert len(subject.asked) == 80
    assert list(tmp_path.iterdir()) == []


ONE = EXAMPLES[0]
CHANGED = [
    replace(ONE, id="other"),
    replace(ONE, prefix="before"),
    replace(ONE, suffix="behind"),
    replace(ONE, path="a.py"),
    replace(ONE, repo="r"),
    replace(ONE, context=(ContextFile("b.py", "text"),)),
]


@pytest.mark.parametrize("changed", CHANGED)
def test_another_example_is_not_found(tmp_path: Path, changed: Example) -> None:
    subject = stub()
    ask(subject, tmp_path, [ONE])
    ask(subject, tmp_path, [changed])
    assert len(subject.asked) == 2


def test_what_the_model_never_sees_changes_nothing(tmp_path: Path) -> None:
    subject = stub()
    ask(subject, tmp_path, [ONE])
    ask(subject, tmp_path, [replace(ONE, category="d", group="h", middle="another gold", details={"test": 1})])
    assert len(subject.asked) == 1


def test_another_question_is_not_found(tmp_path: Path) -> None:
    ask(stub(), tmp_path)
    sampled = Decoding(samples=2, temperature=0.2)
    questions = [
        ("other weights", "psm", 16, GREEDY),
        ("weights", "spm", 16, GREEDY),
        ("weights", "psm", 17, GREEDY),
        ("weights", "psm", 16, Decoding(heal=True)),
        ("weights", "psm", 16, Decoding(infill_sampler=True)),
        ("weights", "psm", 16, Decoding(seed=1)),
        ("weights", "psm", 16, sampled),
        ("weights", "psm", 16, sampled.model_copy(update={"samples": 3})),
    ]
    for key, order, budget, decoding in questions:
        subject = stub(key)
        found = cached_answers(subject, EXAMPLES, order, budget, decoding, tmp_path)
        assert len(subject.asked) == 40
        assert found == [[reply(one, sample) for sample in range(decoding.samples)] for one in EXAMPLES]
        assert cached_answers(stub(key), EXAMPLES, order, budget, decoding, tmp_path) == found


def test_losses_depend_on_the_gold(tmp_path: Path) -> None:
    class Counting(StubSubject):
        def losses(self, examples: Sequence[Example], order: str, max_tokens: int) -> Iterator[tuple[int, Losses]]:
            self.asked += [example.id for example in examples]
            for at, example in enumerate(examples):
                if example.id != "e3":
                    yield at, Losses(1 / 3, 2, float(len(example.middle)), None, 5.0, 7)

    subject = Counting(reply, key="k")
    first = cached_losses(subject, EXAMPLES, "psm", 16, tmp_path)
    assert [at for at, found in enumerate(first) if found is None] == [3]
    assert cached_losses(subject, EXAMPLES, "psm", 16, tmp_path) == first
    assert subject.asked[40:] == ["e3"], "what cannot be known is asked again, and nothing else"
    cached_losses(subject, [replace(ONE, middle="longer")], "psm", 16, tmp_path)
    assert subject.asked[41:] == ["e0"]
    assert first[0] == Losses(1 / 3, 2, 2.0, None, 5.0, 7)


class Box:
    name = "box"

    def __init__(self, cause: str = "passed") -> None:
        self.cause = cause
        self.ran: list[Program] = []

    def run_many(self, programs: Sequence[Program]) -> Iterator[tuple[int, Outcome]]:
        self.ran += programs
        for at in reversed(range(len(programs))):
            verdict = self.cause if self.cause in ("passed", "unavailable") else "failed"
            yield at, Outcome(verdict, self.cause, True, 0.25, programs[at].source)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cause", "kept"),
    [
        ("passed", True),
        ("wrong", True),
        ("compile", True),
        ("timeout", False),
        ("crash", False),
        ("unavailable", False),
    ],
)
def test_outcomes_are_kept_but_not_what_may_be_the_machines_fault(tmp_path: Path, cause: str, kept: bool) -> None:
    programs = [Program("python", f"print({at})") for at in range(4)]
    given: list[Program | None] = [None, *programs[:2], None, *programs[2:]]
    box, done = Box(cause), []
    first = cached_outcomes(box, given, tmp_path, done.append)
    assert [found is None for found in first] == [True, False, False, True, False, False]
    assert [found.detail for found in first if found] == [program.source for program in programs]
    assert sum(done) == 6
    assert cached_outcomes(box, given, tmp_path) == first
    assert len(box.ran) == (4 if kept else 8)


def test_an_outcome_is_of_one_program_sandbox_and_version(tmp_path: Path) -> None:
    box, program = Box(), Program("python", "x")
    cached_outcomes(box, [program], tmp_path, toolchains={"python": "3.11"})
    others = [replace(program, source="y"), replace(program, cases=(Case("1", "2"),)), replace(program, language="c")]
    for other in others:
        cached_outcomes(box, [other], tmp_path, toolchains={"python": "3.11"})
    cached_outcomes(box, [program], tmp_path, toolchains={"python": "3.12"})
    box.name = "another"
    cached_outcomes(box, [program], tmp_path, toolchains={"python": "3.11"})
    assert len(box.ran) == 6
    cached_outcomes(box, [program], tmp_path, toolchains={"python": "3.11", "c": "13"})
    assert len(box.ran) == 6


def test_a_partial_result_is_refused(tmp_path: Path) -> None:
    class Lazy(StubSubject):
        def answers(self, examples, order, max_tokens, decoding):  # type: ignore[no-untyped-def]
            yield from ((at, [self.reply(one, 0)]) for at, one in enumerate(examples) if one.id not in ("e2", "e5"))

    with pytest.raises(InlayError, match=r"2 of 40 examples have no answer: e2, e5"):
        ask(Lazy(reply, key="k"), tmp_path)
    with pytest.raises(InlayError, match=r"'e0' has 1 answers where 2 were asked"):
        cached_answers(Lazy(reply, key="k"), EXAMPLES, "psm", 16, Decoding(samples=2, temperature=1.0), tmp_path)

    class Losing(Box):
        def run_many(self, programs: Sequence[Program]) -> Iterator[tuple[int, Outcome]]:
            return iter(())

    with pytest.raises(InlayError, match="left 1 of 2 programs"):
        cached_outcomes(Losing(), [None, Program("python", "")], tmp_path)


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_damage_costs_the_damaged_entries_alone(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("cache")
    expected = ask(stub(), folder, EXAMPLES[:6])
    (file,) = folder.iterdir()
    content = bytearray(file.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    else:
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(content)
    subject = stub()
    assert ask(subject, folder, EXAMPLES[:6]) == expected
    again = stub()
    assert ask(again, folder, EXAMPLES[:6]) == expected
    assert again.asked == [], "what was asked for the damage is written behind it, whole"


def test_a_disk_that_refuses_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InlayError, match=r"cannot write .*file exists"):
        ask(stub(), tmp_path / "file")
    monkeypatch.setattr(os, "write", lambda descriptor, data: len(data) - 1)
    with pytest.raises(InlayError, match="the disk is full"):
        ask(stub(), tmp_path)


CHILD = """
    import sys, time
    sys.path[:0] = [{source!r}, {root!r}]
    from pathlib import Path
    from tests.evaluate.test_cache import EXAMPLES, ask, reply, stub
    subject = stub()
    subject.reply = lambda example, sample: time.sleep({pause}) or reply(example, sample)
    print("ready", flush=True)
    ask(subject, Path({folder!r}))
"""


def child(folder: Path, pause: float) -> subprocess.Popen[str]:
    names = {
        "source": str(Path(inlay.__path__[0]).parent),
        "root": str(Path(__file__).parents[2]),
        "folder": str(folder),
        "pause": pause,
    }
    code = textwrap.dedent(CHILD).format(**names)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_after_a_kill_only_what_is_missing_is_asked(tmp_path: Path) -> None:
    process = child(tmp_path, 0.2)
    while not (files := list(tmp_path.iterdir())) or files[0].read_bytes().count(b"}") < 8:
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    held = len(Entries(files[0]))
    assert 3 <= held < 40
    subject = stub()
    assert ask(subject, tmp_path) == ask(stub(), None)
    assert subject.asked == [example.id for example in EXAMPLES[held:]]
    assert ask(stub(None), tmp_path) == ask(stub(), None)


def test_two_writers_at_once_spoil_nothing(tmp_path: Path) -> None:
    process = child(tmp_path, 0.001)
    subject = stub()
    subject.reply = lambda example, sample: time.sleep(0.001) or reply(example, sample)  # type: ignore[func-returns-value]
    ask(subject, tmp_path, EXAMPLES[::-1])
    assert process.wait() == 0
    (file,) = tmp_path.iterdir()
    lines = [json.loads(line) for line in file.read_text().splitlines() if line]
    assert {line["key"] for line in lines} == set(Entries(file)._values)
    last = stub()
    assert ask(last, tmp_path) == ask(stub(), None)
    assert last.asked == []
