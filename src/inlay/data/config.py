"""Where the rows of a run come from."""

from pydantic import Field

from inlay.config import Config
from inlay.data.loader import Rows
from inlay.fim.transform import FimConfig


class DataConfig(Config):
    """Where rows come from."""

    path: str
    """Token store that `inlay prepare` wrote."""
    workers: int = Field(0, ge=0)
    """Processes that make rows ahead of time; 0 makes them in line (about 1 % of a step on a CPU)."""
    shortest_piece: int | None = Field(24, ge=8)
    """Documents are chunked into pieces of log-uniform length from so many tokens to a whole row. null fills rows with
    the longest pieces: for left-to-right training only, because FIM examples that all have one length tell the model
    how long the middle is (it then stops at the row's end, wherever the gap is: LOG.md, 2026-11-21). No effect at
    document level; at repository level it draws how much context a target has, and null fills the row."""

    def open(self, split: str, fim: FimConfig, length: int, seed: int) -> Rows:
        """The rows of a split, `length` slots each. Raises BadInput for rows that cannot be made."""
        return Rows(self.path, split, fim, length, seed, self.shortest_piece)
