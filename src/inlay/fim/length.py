"""Length laws: how many tokens the middle should have. One file a law in `inlay.fim.lengths`."""

from abc import abstractmethod

from inlay.config import Config, Registry
from inlay.fim.draws import Draws

lengths = Registry("length law", "inlay.fim.lengths")


class LengthLaw(Config):
    """A distribution over whole numbers of tokens."""

    kind: str

    @abstractmethod
    def draw(self, draws: Draws) -> int:
        """A length in tokens, at least 1."""
