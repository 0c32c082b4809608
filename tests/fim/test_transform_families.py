"""The transform under every family: whatever the tokenizer, the middle is whole, and nothing exceeds its place."""

from typing import Any

import pytest
from tests.fim.stand_ins import stand_in
from tests.fim.witness import SNIPPETS
from tests.text.code import CODE

from inlay.config import validate
from inlay.fim.draws import Draws
from inlay.fim.family import all_families
from inlay.fim.format import Kind, Region
from inlay.fim.transform import FimConfig, Transform

TEXTS = [*CODE.values(), *SNIPPETS, "".join(SNIPPETS)]


@pytest.mark.parametrize("name", list(all_families()))
def test_any_family_at_any_capacity(name: str) -> None:
    form = stand_in(name)
    decode = form.tokenizer.decode_bytes
    options: dict[str, Any] = {"rate": 1.0, "family": name, "spans": {"any": {"kind": "random"}}}
    kinds = set()
    for order in form.family.orders:
        transform = Transform(validate(FimConfig, {**options, "orders": {order: 1.0}}), form)
        for key in range(120):
            draws = Draws(name, order, key)
            text = TEXTS[draws.integer(0, len(TEXTS))]
            capacity = draws.integer(8, 400)
            ids = form.tokenizer.encode_array(text)
            example = transform(ids, capacity, draws)
            row, data = example.row, text.encode()
            assert len(row.tokens) <= capacity
            kinds.add(row.kind)
            if example.span is None:
                assert row.kind == Kind.L2R
                assert row.tokens[-1] == form.end
                assert data.startswith(form.restore(row))
                continue
            start, end = example.span
            assert row.tokens[-1] == form.eot
            middle = decode(row.tokens[row.regions == Region.MIDDLE].tolist())
            # In a joint order the middle begins with the sub-token that the cut falls into.
            assert middle == data[start:end] or (form.joins(order) and data[:end].endswith(middle))
            restored = form.restore(row)
            assert restored in data
            if not example.trimmed:
                assert restored == data
    assert len(kinds) == len(form.family.orders) + 1
