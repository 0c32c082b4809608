"""Rows of several sources in one stream, with shares by tokens met exactly and nothing drawn.

Row i of the stream is of a source that follows from i alone (`inlay.data.quota`), and each source gives its own rows in
their own order, epoch after epoch. Rows of one source are fuller than those of another, so shares of tokens become
shares of rows through the tokens of text that each source's rows hold in the epoch with which the mixture begins; the
rows of a period that come out of it are part of the state. Whatever the number of ranks and workers, the stream is the
same, and it goes on from its state bit for bit.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import xxhash

from inlay.config import BadInput
from inlay.data.loader import Batch, LoaderState, Rows, SourceState
from inlay.data.quota import PERIOD, pattern, quotas
from inlay.data.rows import Row, RowMaker
from inlay.data.supply import row_shares
from inlay.fim.format import Kind, Region
from inlay.text.tokenizer import Tokenizer

_TEXT = (Region.TEXT, Region.PREFIX, Region.SUFFIX, Region.MIDDLE)


def text_tokens(batch: Batch) -> np.ndarray:
    """Tokens of text in each row of a batch, int64 [B]: what shares are shares of."""
    targets = np.isin(batch.regions, _TEXT).sum(axis=1)
    # The first token of plain text is nobody's target; what is cut begins with a sentinel.
    return targets + ((batch.positions == 0) & (batch.kinds == Kind.L2R)).sum(axis=1)


def mixed_hash(hashes: Mapping[str, str]) -> str:
    """The hash of a mixture of the stores with these hashes, by the names of its sources."""
    return xxhash.xxh3_128_hexdigest("\n".join(f"{name} {one}" for name, one in hashes.items()).encode())


class MixedRows:
    """The rows of several sources as one stream; see `RowStream`. Picklable."""

    setting = "data.sources"

    def __init__(self, sources: Mapping[str, Rows], shares: Mapping[str, float]) -> None:
        """`shares` of the tokens of text by name; a source that has none keeps its place for a later stage.

        Raises BadInput for stores with different tokenizers, and for one store under two names.
        """
        self._sources = dict(sources)
        self._shares = {name: shares.get(name, 0.0) for name in sources}
        self.source_names = tuple(sources)
        self._rows = tuple(sources.values())
        _check(sources)
        self.notices = tuple(line for rows in self._rows for line in rows.notices)
        self.store_hash = mixed_hash({name: rows.store_hash for name, rows in sources.items()})

    def __reduce__(self) -> tuple[type["MixedRows"], tuple[dict[str, Rows], dict[str, float]]]:
        return type(self), (self._sources, self._shares)

    @property
    def maker(self) -> RowMaker:
        """That of the first source."""
        return self._rows[0].maker

    @property
    def length(self) -> int:
        """Slots of a row."""
        return self._rows[0].length

    @property
    def tokenizer(self) -> Tokenizer:
        """The one that all stores have."""
        return self._rows[0].tokenizer

    def part(self, number: int) -> Rows:
        """The rows of one source by its number."""
        return self._rows[number]

    def row(self, epoch: int, row: int, source: int = 0) -> Row:
        """One row's arrays, marked with the number of its source."""
        return replace(self._rows[source].row(epoch, row), source=source)

    def density(self, name: str, epoch: int = 0) -> float:
        """Tokens of text per slot in the rows of one source."""
        return self._sources[name].density(epoch)

    def advance(self, state: LoaderState, count: int) -> tuple[list[tuple[int, int, int]], LoaderState]:
        """The next `count` rows from `state` on as (epoch, row, source), and the state behind them."""
        if not state.sources:
            state = self._fixed({name: SourceState() for name in self.source_names})
        places = {name: state.sources[name] for name in self.source_names}
        whose = self._pattern(places, state.row, count)
        queues = []
        for number, (name, place) in enumerate(places.items()):
            taken = int(np.count_nonzero(whose == number))
            start = LoaderState(epoch=place.epoch, row=place.row)
            pairs, after = self._rows[number].advance(start, taken) if taken else ([], start)
            queues.append(iter(pairs))
            places[name] = SourceState(epoch=after.epoch, row=after.row, quota=place.quota)
        rows = [(*next(queues[number]), number) for number in whose.tolist()]
        return rows, state.model_copy(update={"row": state.row + count, "sources": places})

    def begin_stage(self, state: LoaderState) -> LoaderState:
        """Where a stage begins when the stage before ended at `state`: each source goes on where it stood, in the
        shares of this stage. With rows of another length each source that was begun goes on with its next epoch: which
        text of this one is left is not known here, so some of it is read once less and some once more."""
        places = state.sources or {name: SourceState() for name in self.source_names}
        if state.length != self.length:
            places = {
                name: SourceState(epoch=place.epoch + 1 if place.row else place.epoch) for name, place in places.items()
            }
        return self._fixed(places)

    def _fixed(self, places: Mapping[str, SourceState]) -> LoaderState:
        """The sources at `places`, with the rows of a period that give this mixture from there on."""
        density = {name: self.density(name, places[name].epoch) for name, share in self._shares.items() if share}
        rows = row_shares({name: self._shares[name] for name in density}, density)
        try:
            whole = dict(zip(rows, quotas(list(rows.values())), strict=True))
        except ValueError:
            least = min(rows, key=lambda name: rows[name])
            raise BadInput(
                f"the share of source '{least}' is less than one row in {PERIOD:,}: leave it out, or give it more"
            ) from None
        fixed = {
            name: SourceState(epoch=place.epoch, row=place.row, quota=whole.get(name, 0))
            for name, place in places.items()
        }
        return LoaderState(row=0, store=self.store_hash, length=self.length, sources=fixed)

    def _pattern(self, places: Mapping[str, SourceState], row: int, count: int) -> np.ndarray:
        """[count] uint8: the source of each row from `row` on."""
        whose = pattern(tuple(place.quota for place in places.values()))
        return whose[np.arange(row, row + count) % len(whose)]


def _check(sources: Mapping[str, Rows]) -> None:
    seen: dict[str, str] = {}
    first = next(iter(sources))
    for name, rows in sources.items():
        if rows.store_hash in seen:
            raise BadInput(f"the sources '{seen[rows.store_hash]}' and '{name}' are one store: name it once")
        seen[rows.store_hash] = name
        if rows.tokenizer.hash != sources[first].tokenizer.hash:
            raise BadInput(
                f"the sources '{first}' and '{name}' have different tokenizers: prepare '{name}' again with"
                f" tokenizer=file tokenizer.path={sources[first].store_path}/tokenizer"
            )
