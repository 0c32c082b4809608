import pytest
from tests.text.corpus import library_texts

from inlay.fim.format import FimFormat
from inlay.text.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def library() -> list[str]:
    return library_texts()


@pytest.fixture(scope="session")
def tokenizer(library: list[str]) -> Tokenizer:
    return Tokenizer.train(library, 512)


@pytest.fixture(scope="session")
def form(tokenizer: Tokenizer) -> FimFormat:
    return FimFormat.load("inlay", tokenizer)
