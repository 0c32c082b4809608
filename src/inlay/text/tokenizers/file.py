"""Takes an existing tokenizer from its `tokenizer.json`; nothing is trained and nothing is downloaded."""

from collections.abc import Callable, Iterable
from typing import Literal

from inlay.config import Config
from inlay.text.tokenizer import Tokenizer, tokenizer_kinds


@tokenizer_kinds.register
class FileTokenizer(Config):
    """A tokenizer that exists already, such as that of a model to be post-trained or of another store."""

    kind: Literal["file"] = "file"
    path: str = "tokenizer"
    """A `tokenizer.json`, or the folder that holds it."""

    def build(self, sample: Callable[[int], Iterable[str]]) -> Tokenizer:
        """Reads the file; `sample` is not called. Raises BadInput that names the file."""
        return Tokenizer.load(self.path)
