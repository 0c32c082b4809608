"""What happens between two lines of the log, as sums: (value, weight) by name, divided once when they are logged.

Each rank notes what happens in its own rows; sums are added up over ranks when they are logged, or saved.
"""

import numpy as np

from inlay.data.loader import Batch
from inlay.data.mixture import text_tokens
from inlay.fim.format import Kind, Region
from inlay.train.parallel import Parallel


class Meters:
    """Weighted sums by name, and counts of the whole run. `sums` is their whole state: plain numbers, kept in
    checkpoints."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}

    def note(self, name: str, value: float, weight: float = 1.0) -> None:
        """Adds `value`, which is already multiplied by its weight."""
        self.sums[name] = self.sums.get(name, 0.0) + value
        self.sums[f"{name}|weight"] = self.sums.get(f"{name}|weight", 0.0) + weight

    def count(self, name: str, value: float) -> None:
        """Adds to a count over the whole run, which is never cleared."""
        self.sums[f"{name}|total"] = self.sums.get(f"{name}|total", 0.0) + value

    def note_batch(self, losses: np.ndarray, batch: Batch, sources: tuple[str, ...] = ()) -> None:
        """Adds the losses [B T] of a batch by kind, for its middles and by source of a mixture, how full its rows are,
        and the tokens of text of each source. `sources`: as `source_names` of the rows."""
        regions, kinds, weights = (array.reshape(-1) for array in (batch.regions, batch.kinds, batch.weights))
        trained = weights > 0.0
        self.note("loss", float((losses * weights).sum()), float(weights.sum()))
        for kind in Kind:
            chosen = trained & (kinds == kind)  # padding is never trained
            if chosen.any():
                self.note(f"loss_{kind.name.lower()}", float(losses[chosen].sum()), float(chosen.sum()))
        middle = trained & (regions == Region.MIDDLE)
        if middle.any():
            self.note("loss_middle", float(losses[middle].sum()), float(middle.sum()))
        self.note("fill", float((regions != Region.PADDING).sum()), float(len(regions)))
        text = text_tokens(batch) if sources else None
        for number, name in enumerate(sources):
            rows = batch.sources == number
            chosen = trained & rows.repeat(batch.tokens.shape[1])
            if chosen.any():
                self.note(f"loss_{name}", float(losses[chosen].sum()), float(chosen.sum()))
            if text is not None:
                self.count(f"mixture/{name}", float(text[rows].sum()))

    def pool(self, parallel: Parallel) -> None:
        """Brings the sums of all ranks together on rank 0, which saves them. Every rank calls it together."""
        total = self._total(parallel)
        self.sums = total if parallel.main else {}

    def take(self, parallel: Parallel | None = None) -> dict[str, float]:
        """The means since the last call, over the ranks of `parallel`, which call it together. What was counted since
        the run began comes as `NAME/tokens` and `NAME/share`."""
        total = self.sums if parallel is None else self._total(parallel)
        values = {name: value / total[f"{name}|weight"] for name, value in total.items() if "|" not in name}
        counts = {name.removesuffix("|total"): value for name, value in total.items() if name.endswith("|total")}
        for name, value in counts.items():
            values[f"{name}/tokens"] = value
            values[f"{name}/share"] = value / sum(counts.values())
        self.sums = {name: value for name, value in self.sums.items() if name.endswith("|total")}
        return values

    def _total(self, parallel: Parallel) -> dict[str, float]:
        first, *others = parallel.gather(self.sums)  # what was noted differs: a kind may be in the rows of one rank
        total = dict(first)
        for sums in others:
            for name, value in sums.items():
                total[name] = total.get(name, 0.0) + value
        return total
