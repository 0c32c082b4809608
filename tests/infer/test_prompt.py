import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny_run import SENTENCES, tiny_tokenizer

from inlay.config import BadInput
from inlay.fim.format import FimFormat
from inlay.infer.prompt import fit, fit_with_files, trim_head, trim_tail
from inlay.text.tokenizer import Tokenizer

TOKENIZER = tiny_tokenizer()
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=200) | st.sampled_from(SENTENCES)


@pytest.fixture
def tokenizer() -> Tokenizer:
    return TOKENIZER


@settings(deadline=None)
@given(prefix=TEXT, suffix=TEXT, room=st.integers(0, 120))
def test_what_stays_is_next_to_the_cursor_and_whole_characters(prefix: str, suffix: str, room: int) -> None:
    context = fit(prefix, suffix, room, TOKENIZER)
    assert len(context.prefix) + len(context.suffix) <= room
    # Decoding strictly fails when a character was cut.
    before = TOKENIZER.decode_bytes(context.prefix).decode("utf-8")
    after = TOKENIZER.decode_bytes(context.suffix).decode("utf-8")
    assert prefix.endswith(before)
    assert suffix.startswith(after)
    fits = len(TOKENIZER.encode(prefix)) + len(TOKENIZER.encode(suffix)) <= room
    assert context.trimmed != fits
    if fits:
        assert (before, after) == (prefix, suffix)


@settings(deadline=None)
@given(text=TEXT, room=st.integers(0, 60))
def test_trimming_drops_no_more_than_the_broken_character(text: str, room: int) -> None:
    ids = TOKENIZER.encode(text)
    for kept in (trim_head(ids, room, TOKENIZER), trim_tail(ids, room, TOKENIZER)):
        assert min(room, len(ids)) - 3 <= len(kept) <= room or len(kept) == len(ids) <= room
        TOKENIZER.decode_bytes(kept).decode("utf-8")


def test_the_side_that_needs_less_leaves_its_room_to_the_other(tokenizer: Tokenizer) -> None:
    long, short = "value = 1\n" * 400, "x"
    assert len(fit(long, short, 90, tokenizer).prefix) == 89
    assert len(fit(short, long, 90, tokenizer).suffix) == 89
    both = fit(long, long, 90, tokenizer)
    assert (len(both.prefix), len(both.suffix)) == (60, 30)


def test_a_long_file_is_encoded_only_where_it_is_needed(tokenizer: Tokenizer) -> None:
    class Counting:
        def __init__(self) -> None:
            self.characters = 0

        def encode(self, text: str) -> list[int]:
            self.characters += len(text)
            return tokenizer.encode(text)

        def decode_bytes(self, ids: list[int]) -> bytes:
            return tokenizer.decode_bytes(ids)

    text = "".join(SENTENCES) * 2000
    counting = Counting()
    found = fit(text, text, 90, counting)  # type: ignore[arg-type]
    assert counting.characters < 10_000
    whole = tokenizer.encode(text)
    assert (found.prefix, found.suffix) == (trim_head(whole, 60, tokenizer), trim_tail(whole, 30, tokenizer))


def test_a_budget_without_room_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(BadInput, match="max_tokens"):
        fit("a", "b", -1, tokenizer)


FORMAT = FimFormat.load("inlay", TOKENIZER)
FILES = st.lists(st.tuples(st.sampled_from(["a.py", "b/c.py", "", "line\nend"]), TEXT), max_size=4)


@settings(deadline=None)
@given(prefix=TEXT, suffix=TEXT, room=st.integers(0, 160), files=FILES)
def test_other_files_never_take_more_than_their_share(
    prefix: str, suffix: str, room: int, files: list[tuple[str, str]]
) -> None:
    alone = fit(prefix, suffix, room, TOKENIZER)
    found = fit_with_files(prefix, suffix, room, FORMAT, files, "owner/name", "x.py")
    header = 0 if found.header is None else len(found.header.tokens)
    assert header + len(found.prefix) + len(found.suffix) <= room
    assert header <= max(room // 2, room - len(alone.prefix) - len(alone.suffix))
    if found.header is None:
        assert found == alone
        return
    row = FORMAT.render(found.prefix, [], found.suffix, "psm", found.header)
    told = FORMAT.restore_repository(row)
    assert (told.name, told.path) == ("owner/name", "x.py")
    assert len(told.files) <= len(files)
    # The most useful is the nearest, and each shows the end of its text.
    for (path, text), (name, data) in zip(files, reversed(told.files), strict=False):
        assert name == (path if path and "\n" not in path else "filename")
        assert text.encode().endswith(data)
    for (_, text), (_, data) in list(zip(files, reversed(told.files), strict=False))[:-1]:
        assert data == text.encode()


def test_a_family_without_a_form_and_a_room_without_a_place_leave_files_out(tokenizer: Tokenizer) -> None:
    text = "value = 1\n" * 400
    assert fit_with_files("a", "b", 200, FORMAT, [("f.py", text)]).header is not None
    assert fit_with_files("a", "b", 30, FORMAT, [("f.py", text)]).header is None
    assert fit_with_files("a", "b", 200, FORMAT, []).header is None
    both = fit_with_files(text, text, 200, FORMAT, [("f.py", text)])
    assert both.header is not None
    assert 90 <= len(both.header.tokens) <= 100
    assert len(both.prefix) + len(both.suffix) == 200 - len(both.header.tokens)
