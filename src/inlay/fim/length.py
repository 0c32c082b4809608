"""Length laws: how many tokens the middle should have. One file a law in `inlay.fim.lengths`."""

from abc import abstractmethod

from inlay.config import Config, Registry
from inlay.fim.draws import Draws

lengths = Registry("length law", "inlay.fim.lengths")


class LengthLaw(Config):
    """A distribution over whole numbers of tokens."""

    kind: str

    @property
    @abstractmethod
    def least(self) -> int:
        """The shortest length that it gives."""

    @abstractmethod
    def draw(self, draws: Draws, most: int | None = None) -> int:
        """A length in tokens, at least 1. `most`, `least` or more: as the law is among lengths up to this, the room of
        a piece. Cutting off what is drawn longer would heap lengths on it.
        """
