"""The sandboxes that these tests share; the safe one is skipped, with its own reason, where it cannot work."""

import pytest

from inlay.config import BadInput
from inlay.evaluate.sandbox.bubblewrap import Bubblewrap
from inlay.evaluate.sandbox.unsafe import UnsafeSubprocess


@pytest.fixture(scope="session")
def safe():
    try:
        sandbox = Bubblewrap(workers=2)
    except BadInput as error:
        pytest.skip(str(error))
    with sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def unsafe():
    with UnsafeSubprocess(workers=2) as sandbox:
        yield sandbox


@pytest.fixture(params=["safe", "unsafe"])
def sandbox(request):
    return request.getfixturevalue(request.param)
