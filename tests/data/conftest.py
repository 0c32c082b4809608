import pytest
from tests.data.stores import AWKWARD, write_store
from tests.text.corpus import library_texts

from inlay.fim.format import FimFormat
from inlay.text.store import TokenStore
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


@pytest.fixture(scope="session")
def store(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """A few short files and every awkward one: some hundred short rows."""
    files = [f"def function_{number}(value):\n    return value + {number}\n" * (1 + number % 7) for number in range(40)]
    return write_store(tmp_path_factory.mktemp("data") / "store", tokenizer, [*AWKWARD, *files])


@pytest.fixture(scope="session")
def code_store(tokenizer: Tokenizer, library: list[str], tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """Real modules, long and short."""
    return write_store(tmp_path_factory.mktemp("code") / "store", tokenizer, library)
