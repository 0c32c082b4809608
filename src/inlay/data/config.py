"""Where the rows of a run come from: one token store, or several in a mixture."""

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field, field_validator, model_validator

from inlay.config import BadInput, Config, nearest, validate
from inlay.data.loader import Rows
from inlay.data.mixture import MixedRows
from inlay.data.quota import MOST_SOURCES
from inlay.data.supply import SUM_TOLERANCE, Demand, Supply, Use, check_sum, resolve, solve
from inlay.fim.draws import Draws
from inlay.fim.format import Kind
from inlay.fim.transform import FimConfig
from inlay.text.store import TokenStore

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
STORE_OVERRIDE = re.compile(r"data\.(?:path|sources\.([a-z0-9][a-z0-9_-]*)\.path)=")
"""The beginning of an override that says where a store is, of a mixture (the group) which: it decides no weight."""
_TAKEN = frozenset({*(kind.name.lower() for kind in Kind), "middle"})
"""Names that losses of all sources are logged under."""


class SourceConfig(Config):
    """One source of a mixture."""

    path: str
    """Token store that `inlay prepare` wrote, with the tokenizer that all sources have."""
    share: float | None = Field(None, gt=0.0, le=1.0)
    """Of the tokens of text. null: what the others leave, by size; where no source says, English has 10 % together."""
    content: Literal["code", "english"] = "code"
    """What it holds. English is trained left to right and in pieces as long as a row: it is there so that code follows
    comments, prose has no syntax to cut by, and nobody asks for the middle of it."""
    max_epochs: float | None = Field(4.0, gt=0.0, le=1e6)
    """How often it may be read at most; null for as often as it takes. Four times is as good as new text, about
    (2305.16264, section 5)."""
    fim_rate: float | None = Field(None, ge=0.0, le=1.0)
    """Share of its pieces that become FIM examples. null: as `fim.rate` for code, none for English."""


class DataConfig(Config):
    """Where rows come from: `path` or `sources`."""

    path: str | None = None
    """Token store that `inlay prepare` wrote."""
    sources: dict[str, SourceConfig] = Field({})
    """Several stores by a name of your choice, in a mixture (`data=mixture`)."""
    workers: int = Field(0, ge=0, le=1024)
    """Processes that make rows ahead of time; 0 makes them in line (about 1 % of a step on a CPU)."""
    shortest_piece: int | None = Field(24, ge=8, le=1 << 24)
    """Documents are chunked into pieces of log-uniform length from so many tokens to a whole row. null fills rows with
    the longest pieces: for left-to-right training only, because FIM examples that all have one length tell the model
    how long the middle is (it then stops at the row's end, wherever the gap is: LOG.md, 2026-11-21). No effect at
    document level; at repository level it draws how much context a target has, and null fills the row."""

    @field_validator("sources")
    @classmethod
    def _shares(cls, sources: dict[str, SourceConfig]) -> dict[str, SourceConfig]:
        for name in sources:
            if not _NAME.fullmatch(name):
                raise ValueError(f"the name '{name}': use lower-case letters, digits, '-' and '_'")
            if name in _TAKEN:
                raise ValueError(f"the name '{name}' is that of a kind of rows: choose another")
        if len(sources) > MOST_SOURCES:
            raise ValueError(f"{len(sources)} sources; at most {MOST_SOURCES} can be mixed")
        given = {name: source.share for name, source in sources.items() if source.share is not None}
        if sources and len(given) == len(sources):
            check_sum(given, "the shares")
        elif sum(given.values()) >= 1.0 - SUM_TOLERANCE:
            others = ", ".join(name for name in sources if name not in given)
            raise ValueError(f"the shares sum to {sum(given.values()):g}, which leaves nothing for {others}")
        return sources

    @model_validator(mode="after")
    def _one_way(self) -> "DataConfig":
        if self.path is not None and self.sources:
            raise ValueError("give path (one store) or sources (a mixture), not both: set one of them to null or {}")
        if self.path is None and not self.sources:
            raise ValueError("give path=STORE, or sources with data=mixture")
        return self

    @property
    def main_source(self) -> str | None:
        """The source that evaluation and samples are about: the first one of code, else the first; None for `path`."""
        code = (name for name, source in self.sources.items() if source.content == "code")
        return next(code, next(iter(self.sources), None))

    @property
    def main(self) -> str:
        """The store of the main source, or the only one."""
        if self.path is not None:
            return self.path
        return self.sources[self.main_source or ""].path

    @property
    def paths(self) -> tuple[str, ...]:
        """Every store."""
        return (self.path,) if self.path is not None else tuple(source.path for source in self.sources.values())

    def open(
        self, split: str, fim: FimConfig, length: int, seed: int, shares: Mapping[str, float] | None = None
    ) -> Rows | MixedRows:
        """The rows of a split, `length` slots each; `shares` of the sources where a stage has its own.

        Raises BadInput for rows that cannot be made, and stores that cannot be mixed.
        """
        if shares is not None:
            self._refuse(shares)
        if self.path is not None:
            return Rows(self.path, split, fim, length, seed, self.shortest_piece)
        opened = {name: self.open_source(name, split, self.fim_of(name, fim), length, seed) for name in self.sources}
        return MixedRows(opened, self.shares() if shares is None else shares)

    def open_source(self, name: str, split: str, fim: FimConfig, length: int, seed: int) -> Rows:
        """The rows of one source of the mixture under `fim` (`fim_of`). The main one has the rows it has alone; in
        training the others have a seed of their own, for document 7 of two stores not to be cut alike."""
        source = self.sources[name]
        if name != self.main_source and split == "train":
            seed = Draws(seed, "source", name).integer(0, 1 << 32)
        shortest = None if source.content == "english" and not source.fim_rate else self.shortest_piece
        return Rows(source.path, split, fim, length, seed, shortest)

    def fim_of(self, name: str, fim: FimConfig) -> FimConfig:
        """The options of a run as they hold for one source: with its own `fim_rate`."""
        source = self.sources[name]
        rate = source.fim_rate if source.fim_rate is not None else 0.0 if source.content == "english" else fim.rate
        if rate == fim.rate:
            return fim
        return validate(FimConfig, {**fim.to_dict(), "rate": rate}, where=f"data.sources.{name}")

    def check_shares(self, shares: Mapping[str, float]) -> None:
        """Whether a stage may have `shares`: each of a known source, positive, in sum 1. Raises ValueError."""
        if not self.sources:
            raise ValueError("shares of sources need several: data.path is one store (data=mixture has sources)")
        for name in shares:
            if name not in self.sources:
                raise ValueError(f"shares: unknown source '{name}'{nearest(name, self.sources)}")
        check_sum(shares, "the shares")

    def shares(self) -> dict[str, float]:
        """The share of each source of the mixture by tokens. Raises what opening a store raises."""
        english = frozenset(name for name, source in self.sources.items() if source.content == "english")
        asked = {name: source.share for name, source in self.sources.items()}
        return resolve(asked, english, {name: _tokens(source.path) for name, source in self.sources.items()})

    def _refuse(self, shares: Mapping[str, float]) -> None:
        try:
            self.check_shares(shares)
        except ValueError as error:
            raise BadInput(str(error)) from None


def check_supply(
    data: DataConfig, demand: Sequence[tuple[int, Mapping[str, float] | None]], rows: Rows | MixedRows | None = None
) -> list[Use]:
    """What a run takes of each source. `demand`: for each stage its row slots (rows times length) and its shares, None
    for those of the sources. `rows`: the opened ones, which tell how much text a slot holds; without them a slot is
    taken for a token.

    Raises BadInput with one line for a source that would be read more often than its `max_epochs`; it says what could
    be had instead.
    """
    if data.path is not None:
        density = rows.density(0) if isinstance(rows, Rows) else 1.0
        return solve(
            {"all": Supply(_tokens(data.path), None, density)}, [Demand(slots, {"all": 1.0}) for slots, _ in demand]
        )
    supplies = {
        name: Supply(
            _tokens(source.path),
            source.max_epochs,
            rows.density(name) if isinstance(rows, MixedRows) else 1.0,
        )
        for name, source in data.sources.items()
    }
    usual = data.shares()
    return solve(supplies, [Demand(slots, usual if shares is None else shares) for slots, shares in demand])


def _tokens(path: str) -> int:
    """Tokens of a store's training split. Raises BadInput when there are none."""
    count = TokenStore.open(path, verify=False).split("train").token_count
    if not count:
        raise BadInput(f"the train split of {path} is empty; prepare it from more source files")
    return count
