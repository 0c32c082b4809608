"""`restore(render(x)) == x` on 10,000 cuts for each family, over awkward texts; the same with headers and hints."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fim.stand_ins import stand_in
from tests.fim.witness import SNIPPETS, texts

from inlay.config import BadInput
from inlay.fim.draws import Draws
from inlay.fim.families.inlay import InlayFamily
from inlay.fim.family import Order, families, load_family
from inlay.fim.format import FimFormat, FimTokens, Header, Hints, Region
from inlay.text.tokenizer import Tokenizer

FAMILIES = sorted(families.members())
EXAMPLES, CUTS = 200, 50
SMALL = st.lists(st.sampled_from(SNIPPETS), max_size=3).map("".join)


def cuts_of(text: str, draws: Draws) -> tuple[str, str, str]:
    """Three parts, cut anywhere between characters; some parts are empty and some texts end there."""
    start, stop = sorted((draws.integer(0, len(text) + 1), draws.integer(0, len(text) + 1)))
    start = start if draws.uniform() < 0.9 else 0
    return text[:start], text[start:stop], text[stop:]


def is_ambiguous(form: FimFormat, order: Order, prefix: str) -> bool:
    """Whether bare ids cannot tell the leading space of a prefix from a real one."""
    open_prefix = bool({"spm_v2", "spm_joint"} & set(form.family.orders))
    return bool(form.dummy) and (order in ("spm_v2", "spm_joint", "spm_open") or (open_prefix and not prefix))


def check(
    form: FimFormat,
    order: Order,
    parts: tuple[str, str, str],
    header: Header | None = None,
    hints: Hints | None = None,
) -> FimTokens:
    prefix, middle, suffix = (form.tokenizer.encode(part) for part in parts)
    example = form.render(prefix, middle, suffix, order, header, hints)
    document = "".join(parts).encode()
    assert form.restore(example) == document, (order, parts)
    if is_ambiguous(form, order, parts[0]):
        if header is None:
            with pytest.raises(ValueError, match="FimTokens"):
                form.restore(example.tokens)
    else:
        assert form.restore(example.tokens) == document, (order, parts)
    prompt = form.prompt(prefix, suffix, order, header, hints)
    if form.joins(order):
        straddling(form, example, parts[0], prompt, header is None)
        return example
    assert example.tokens[: len(prompt)].tolist() == prompt
    assert len(example.tokens) == len(prompt) + len(middle) + 1
    room = len(prefix) + len(middle) + len(suffix) + form.overhead(order, hints is not None)
    room += (0 if header is None else len(header.tokens)) + sum(map(len, hints or ()))
    assert len(example.tokens) <= room
    return example


def straddling(form: FimFormat, example: FimTokens, prefix: str, prompt: list[int], alone: bool) -> None:
    """In the joint order the token that the cut falls into is the middle's; without one, the prompt opens the row."""
    size = len(prefix.encode()) + bool(form.dummy and prefix and alone)
    found = example.tokens[example.regions == Region.PREFIX]
    held = int(form.tokenizer.token_lengths[found].sum())
    middle = example.tokens[example.regions == Region.MIDDLE]
    assert held <= size
    assert held == size or held + int(form.tokenizer.token_lengths[middle[0]]) >= size
    if not prefix:
        assert example.tokens[: len(prompt)].tolist() == prompt


@pytest.mark.parametrize("name", FAMILIES)
def test_restore_inverts_render_ten_thousand_times(name: str) -> None:
    form, counted = stand_in(name), Counter[Order]()
    special = set(form.tokenizer.special.values())

    @settings(max_examples=EXAMPLES, database=None)
    @given(text=texts(6), key=st.integers(0, 2**32))
    def law(text: str, key: int) -> None:
        draws = Draws(key)
        # Text that reads as a sentinel of this very family is text as well.
        sentinels = list(form.family.strings().values())
        text += sentinels[draws.integer(0, len(sentinels))]
        assert not special & set(form.tokenizer.encode(text))
        for index in range(CUTS):
            order = form.family.orders[index % len(form.family.orders)]
            check(form, order, cuts_of(text, draws))
            counted[order] += 1

    law()
    assert counted.total() >= EXAMPLES * CUTS
    assert set(counted) == set(form.family.orders)


HAVING = [name for name in FAMILIES if load_family(name).repository]


@pytest.mark.parametrize("name", HAVING)
@settings(max_examples=40)
@given(text=texts(6), others=st.lists(SMALL, max_size=3), key=st.integers(0, 2**32))
def test_headers_come_back_whole_and_stay_out_of_the_document(
    name: str, text: str, others: list[str], key: int
) -> None:
    form, draws = stand_in(name), Draws(key)
    encode = form.tokenizer.encode
    files = [(f"src/größe {index}.py", other) for index, other in enumerate(others)]
    header = form.repository("my/repo", [(path, encode(other)) for path, other in files], "main é.py")
    assert header.tokens.dtype == np.int32
    assert set(header.regions) <= {Region.HEADER, Region.TEXT}
    for order in form.family.orders:
        example = check(form, order, cuts_of(text, draws), header)
        found = form.restore_repository(example)
        assert found.name == ("my/repo" if form.repo is not None else None)
        assert [(path, data.decode()) for path, data in found.files] == files
        assert (found.path, found.data.decode()) == ("main é.py", text)
    plain = form.plain(encode(text), header)
    assert form.restore(plain) == text.encode()
    assert form.restore_repository(plain).data == text.encode()
    if form.file is not None and (header.tokens == form.file).any():
        assert form.restore(plain.tokens) == text.encode()


REPOSITORY = {
    "inlay": (
        "<|repo_name|>R\n<|file_sep|>a\nA<|file_sep|>b\n<|fim_suffix|>S<|fim_prefix|>P<|fim_middle|>M<|endoftext|>"
    ),
    "qwen2.5-coder": (
        "<|repo_name|>R\n<|file_sep|>a\nA<|file_sep|>b\n<|fim_prefix|>P<|fim_suffix|>S<|fim_middle|>M<|endoftext|>"
    ),
    "starcoder2": (
        "<repo_name>R<file_sep>a\nA<file_sep><fim_prefix>b\nP<fim_suffix>S<fim_middle>M<|endoftext|>"
    ),
    "codegemma": (
        "<bos>a\nA<|file_separator|>b\n<|fim_prefix|>P<|fim_suffix|>S<|fim_middle|>M<|file_separator|>"
    ),
    "codestral": "<s>[SUFFIX]S[PREFIX] +++++ a\nA\n\n+++++ b\nPM</s>",
    "mellum": "<filename>a\nA<filename>b\n<fim_suffix>S<fim_prefix>P<fim_middle>M<|endoftext|>",
}  # fmt: skip


def test_repository_forms_are_those_of_their_sources() -> None:
    assert set(REPOSITORY) == set(HAVING)
    for name, expected in REPOSITORY.items():
        form = stand_in(name)
        encode = form.tokenizer.encode
        header = form.repository("R", [("a", encode("A"))], "b")
        row = form.render(*(encode(part) for part in "PMS"), form.family.order, header)
        assert form.tokenizer.decode(row.tokens.tolist()) == expected


def test_repository_form_refuses() -> None:
    with pytest.raises(BadInput, match=r"'starcoder' has no repository-level form; these have: inlay, codegemma"):
        stand_in("starcoder").repository("R", [], "b")
    for name, files, path in (("R\n", [], "b"), ("R", [("a\nb", [])], "b"), ("R", [], "\nb")):
        with pytest.raises(BadInput, match="line end") as caught:
            stand_in("inlay").repository(name, files, path)
        assert "\n" not in str(caught.value)
    form = stand_in("inlay")
    with pytest.raises(ValueError, match="no repository header"):
        form.restore_repository(form.plain([5]))


@settings(max_examples=100)
@given(text=texts(6), start=SMALL, end=SMALL, key=st.integers(0, 2**32))
def test_hints_stand_before_the_middle_and_stay_out_of_the_document(text: str, start: str, end: str, key: int) -> None:
    form, draws = stand_in("inlay"), Draws(key)
    encode = form.tokenizer.encode
    header = form.repository("R", [("a", encode(end))], "b") if draws.uniform() < 0.5 else None
    for order in form.family.orders:
        example = check(form, order, cuts_of(text, draws), header, (encode(start), encode(end)))
        hint = example.tokens[example.regions == Region.HINT]
        assert form.tokenizer.decode(hint.tolist()) == start + end
        # Directly before <MID>, whatever the order.
        middle = int(np.flatnonzero(example.tokens == form.middle)[-1])
        block = [form.hint_start, *encode(start), form.hint_end, *encode(end), form.middle]
        assert example.tokens[middle + 1 - len(block) : middle + 1].tolist() == block


def test_hints_are_refused_where_there_are_none() -> None:
    with pytest.raises(BadInput, match="'starcoder' has no line hints"):
        stand_in("starcoder").render([5], [6], [7], "psm", hints=([], []))
    with pytest.raises(BadInput, match="'codestral' has no line hints"):
        stand_in("codestral").prompt([5], [7], "spm_open", hints=([], []))
    # A tokenizer of an older store: it loads, and hints name the token that it lacks.
    old = FimFormat(InlayFamily(hint_start="<|x|>"), stand_in("inlay").tokenizer)
    assert old.hint_start is None
    assert old.hint_end in old.stop_ids
    with pytest.raises(BadInput, match=r"need the special token '<\|x\|>'") as caught:
        old.render([5], [6], [7], "psm", hints=([], []))
    assert "\n" not in str(caught.value)


def test_the_token_that_straddles_the_cut_is_the_middles() -> None:
    form = stand_in("inlay")
    encode = form.tokenizer.encode
    together = encode("x return")
    first = next(index for index, token in enumerate(together) if len(form.tokenizer.decode([token])) > 2)
    cut = len(form.tokenizer.decode(together[:first])) + 1  # inside that token
    text = form.tokenizer.decode(together)
    row = form.render_joint(together, first, encode("S"), "spm_joint")
    assert (
        row.tokens.tolist()
        == form.render(encode(text[:cut]), encode(text[cut:]), encode("S"), "spm_joint").tokens.tolist()
    )
    assert row.tokens[row.regions == Region.MIDDLE].tolist() == together[first:]
    assert row.tokens[row.regions == Region.PREFIX].tolist() == together[:first]
    assert len(row.tokens) < len(form.render(encode(text[:cut]), encode(text[cut:]), encode("S"), "spm_v2").tokens)
    with pytest.raises(ValueError, match="apart"):
        form.render_joint(together, first, [], "spm")


def test_two_roles_of_one_token_are_refused(tokenizer: Tokenizer) -> None:
    for change in ({"middle": "<|fim_prefix|>"}, {"pad": "<|endoftext|>"}, {"bos": "<|endoftext|>"}):
        with pytest.raises(BadInput, match="are the same token") as caught:
            FimFormat(InlayFamily(**change), tokenizer)
        assert "'inlay'" in str(caught.value)


def test_a_foreign_tokenizer_is_told_which_families_suit_it() -> None:
    with pytest.raises(BadInput, match=r"it suits inlay, .*starcoder2\)") as caught:
        FimFormat.load("codellama", stand_in("starcoder2").tokenizer)
    assert "'▁<PRE>'" in str(caught.value) or "'<s>'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_prefix_whose_token_the_leading_space_swallows_still_comes_back() -> None:
    # In a text of its own the cut is on a token's border; with the space before it one token runs over the cut.
    form = stand_in("codellama")
    encode, decode = form.tokenizer.encode, form.tokenizer.decode
    pieces = [decode([token])[1:] for token in range(form.tokenizer.vocab_size) if decode([token]).startswith(" ")]
    swallowed = [text for text in pieces if text and len(encode(" " + text)) == 1 and len(encode(text)) == 2]
    assert swallowed
    for text in swallowed:
        cut = len(decode(encode(text)[:1]))
        example = check(form, "spm_joint", (text[:cut], text[cut:], "S"))
        assert decode(example.tokens[example.regions == Region.PREFIX].tolist()) == " " + text[:cut]
