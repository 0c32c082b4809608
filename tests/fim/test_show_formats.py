"""`inlay inspect formats`: the drawn prompts are the format object's own, and both outputs are whole."""

import json

import pytest
from rich.cells import cell_len
from tests.fim.stand_ins import stand_in

from inlay.fim.family import families, load_family
from inlay.fim.show_formats import OTHER, PATH, PREFIX, REPOSITORY, SUFFIX, describe, draw_prompt, print_formats

FAMILIES = sorted(families.members())


@pytest.mark.parametrize("name", FAMILIES)
def test_the_drawn_prompt_is_the_prompt(name: str) -> None:
    family, form = load_family(name), stand_in(name)
    encode, decode = form.tokenizer.encode, form.tokenizer.decode
    headers = {False: None}
    if family.repository is not None:
        headers[True] = form.repository(REPOSITORY, [(OTHER[0], encode(OTHER[1]))], PATH)
    for order in family.orders:
        for repository, header in headers.items():
            drawn = "".join(text for text, _ in draw_prompt(family, order, repository=repository))
            prompt = decode(form.prompt(encode(PREFIX), encode(SUFFIX), order, header))
            if form.dummy:  # the space that is named and not drawn
                for start in (OTHER[0], PREFIX):
                    prompt = prompt.replace(f" +++++ {start}", f"+++++ {start}").replace(f" {PREFIX}", PREFIX)
            assert drawn == prompt
    if form.hint_start is not None:
        start = "    return "
        hints = (encode(start), encode(""))
        for order in family.orders:
            drawn = "".join(text for text, _ in draw_prompt(family, order, hints=True))
            prompt = form.prompt(encode(PREFIX.removesuffix(start)), encode(SUFFIX), order, None, hints)
            assert drawn == decode(prompt)


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_formats(as_json=True)
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert found[0]["family"] == "inlay"
    assert sorted(entry["family"] for entry in found) == FAMILIES
    for entry in found:
        family = load_family(entry["family"])
        assert entry == json.loads(json.dumps(describe(family)))
        assert set(entry["prompts"]) == set(entry["orders"])
        assert entry["order"] == entry["orders"][0]
        assert entry["stops"][0] == entry["terminator"]
        form = stand_in(entry["family"])
        assert {form.tokenizer.special[text] for text in entry["stops"]} == form.stop_ids
        assert entry["source"]


def test_the_page_fits_eighty_columns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_formats(as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(cell_len, lines)) <= 80
    headings = [line.strip() for line in lines if line and line[0] != " " and len(line.split()) == 1]
    assert set(FAMILIES) <= set(headings)
    # Nothing of a prompt is lost where lines wrap: spaces are drawn.
    page = "".join(line[13:].rstrip() for line in lines)
    assert "<|fim_prefix|>def·area(radius):↵····return·<|fim_suffix|>↵↵print(area(2))↵<|fim_middle|>" in page
