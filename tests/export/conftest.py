import pytest
from tests.tiny_run import tiny_tokenizer

from inlay.text.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return tiny_tokenizer()
