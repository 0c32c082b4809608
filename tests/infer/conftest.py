import pytest
from tests.tiny_run import tiny_opened, tiny_tokenizer

from inlay.infer.open import Opened
from inlay.text.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return tiny_tokenizer()


@pytest.fixture(scope="session")
def opened(tokenizer: Tokenizer) -> Opened:
    return tiny_opened(tokenizer)
