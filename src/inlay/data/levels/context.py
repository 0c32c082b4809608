"""Context level: documents are chunked to what fits a row, then each piece is cut (2207.14255 section 4.3).

Prefix, middle and suffix of an example always share one window.
"""

from inlay.data.level import Level, Piece, Placed
from inlay.data.plan import Plan, plan_epoch
from inlay.fim.draws import Draws


class ContextLevel(Level):
    """Chunk, then cut each piece."""

    def plan(self, epoch: int) -> Plan:
        return plan_epoch(self.split, self.form, self.length, self.seed, epoch, self.shortest)

    def place(self, plan: Plan, epoch: int, piece: Piece, slot: int, room: int) -> Placed:
        _, document, start, stop, byte_start, byte_stop, whole, _ = piece
        example = self.transform(
            self.split.tokens(document, start, stop),
            room + 1,
            Draws(self.seed, epoch, document, start),
            syntax=self.syntax(document, byte_start, byte_stop),
            whole=whole,
        )
        return Placed(example, slot, document, start, stop, byte_stop - byte_start)
