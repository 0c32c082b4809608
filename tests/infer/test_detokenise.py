from hypothesis import given
from hypothesis import strategies as st

from inlay.infer.detokenise import decode_utf8


@given(text=st.text(st.characters(exclude_categories=["Cs"])), cut=st.integers(0, 3))
def test_an_unfinished_tail_is_held_back_and_counted(text: str, cut: int) -> None:
    whole = text.encode("utf-8")
    data = whole[: len(whole) - cut] if cut else whole
    found = decode_utf8(data)
    # Python's incremental decoder is the witness: it, too, keeps what a character still lacks.
    import codecs

    decoder = codecs.getincrementaldecoder("utf-8")()
    expected = decoder.decode(data)
    assert found.text == expected
    assert found.dropped_bytes == len(decoder.getstate()[0])
    assert found.invalid_bytes == 0


@given(data=st.binary(max_size=40))
def test_any_bytes_give_text_and_nothing_is_lost_uncounted(data: bytes) -> None:
    found = decode_utf8(data)
    valid = len(data.decode("utf-8", errors="ignore").encode("utf-8"))
    assert valid + found.dropped_bytes + found.invalid_bytes == len(data)
    assert ("\ufffd" in found.text) >= (found.invalid_bytes > 0)
