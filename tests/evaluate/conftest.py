from pathlib import Path

import numpy as np
import pytest
from tests.tiny_run import SENTENCES, tiny_opened, tiny_tokenizer, write_run

from inlay.evaluate.corpus import of_documents
from inlay.evaluate.task import Corpus, SourceDocument
from inlay.infer.open import Opened
from inlay.text.document import content_id, document
from inlay.text.tokenizer import Tokenizer
from inlay.text.writer import StoreWriter


def module(number: int) -> str:
    """A distinct Python module that compiles, with text beyond ASCII."""
    return (
        f'"""Module {number}: größer, 日本語."""\n\nimport os\n\n\n'
        f"def function_{number}(first: int, second: int = {number}) -> int:\n"
        f"    total_{number} = first + second\n    if total_{number} > {number}:\n        return os.getpid()\n"
        f"    return total_{number}\n\n\nclass Holder_{number}:\n    names = ['a{number}', 'b', \"c\"]\n\n"
        f"    def show(self) -> None:\n        for name in self.names:\n            print(f'{{name}} 🙂 {number}')\n"
    )


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return tiny_tokenizer()


@pytest.fixture(scope="session")
def opened(tokenizer: Tokenizer) -> Opened:
    return tiny_opened(tokenizer)


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    texts = [module(number) for number in range(12)]
    documents = [SourceDocument(content_id(text), f"m{at}.py", "python", text) for at, text in enumerate(texts)]
    broken = "def broken(:\n    total = 1\n    return total\n"
    documents.append(SourceDocument(content_id(broken), "broken.py", "python", broken))
    documents.append(SourceDocument(content_id(SENTENCES[1]), "notes.txt", "text", SENTENCES[1]))
    return of_documents(documents, "memory")


@pytest.fixture
def run(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    """A run directory with the store that it was trained from."""
    with StoreWriter(tmp_path / "store", tokenizer) as writer:
        for number in range(6):
            text = module(number)
            item = document(text, language="python", path=f"m{number}.py", repo="r", licence="MIT", source="test")
            ids, starts = tokenizer.encode_with_starts([text])[0]
            writer.add("train" if number < 2 else "validation", item, np.asarray(ids), starts)
        writer.commit({})
    return write_run(tmp_path / "run", tokenizer, store=str(tmp_path / "store"))
