import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny_run import SENTENCES, tiny_tokenizer

from inlay.config import BadInput
from inlay.infer.prompt import fit, trim_head, trim_tail
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
