"""The compact form in which a token store keeps syntax nodes: a third of the bytes of plain integers.

Legend: `nodes` int32 [N, 3]: byte start, byte end, kind number; sorted by start.
"""

from collections.abc import Sequence

import numpy as np

_WIDE = 255


class KindTable:
    """The node kinds of a store, numbered in the order of their first sight, so frequent ones tend to fit a byte."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    @property
    def names(self) -> list[str]:
        return list(self._numbers)

    def numbered(self, nodes: np.ndarray, kinds: Sequence[str]) -> np.ndarray:
        """`nodes` (int32 [N, 3]), whose kinds are indices into `kinds`, with this table's numbers in their place."""
        numbers = self._numbers
        table = np.array([numbers.setdefault(kind, len(numbers)) for kind in kinds], np.int32)
        numbered = nodes.copy()
        if len(nodes):
            numbered[:, 2] = table[nodes[:, 2]]
        return numbered


def pack_nodes(nodes: np.ndarray) -> bytes:
    """Nodes as bytes, about four a node: steps between starts, sizes and kinds, a byte each, and those of 255 or more
    in full at the end.

    Law: `unpack_nodes(pack_nodes(nodes)) == nodes`. Raises ValueError when starts fall or an end precedes its start.
    """
    if not len(nodes):
        return b""
    columns = np.empty((3, len(nodes)), np.int64)
    columns[0] = np.diff(nodes[:, 0], prepend=0)
    columns[1] = nodes[:, 1] - nodes[:, 0]
    columns[2] = nodes[:, 2]
    if columns.min() < 0:
        raise ValueError("syntax nodes must be sorted by start, and end behind it")
    wide = columns[columns >= _WIDE].astype("<u4")
    return (
        np.uint32(len(nodes)).astype("<u4").tobytes()
        + np.minimum(columns, _WIDE).astype(np.uint8).tobytes()
        + wide.tobytes()
    )


def unpack_nodes(packed: np.ndarray | bytes) -> np.ndarray:
    """The nodes that `pack_nodes` made into `packed` (bytes or uint8): int32 [N, 3]."""
    data = np.frombuffer(packed, np.uint8)
    if not len(data):
        return np.zeros((0, 3), np.int32)
    count = int(data[:4].view("<u4")[0])
    narrow = data[4 : 4 + 3 * count].reshape(3, count)
    columns = narrow.astype(np.int32)
    wide = data[4 + 3 * count :]
    if len(wide):
        columns[narrow == _WIDE] = wide.view("<u4")
    nodes = np.empty((count, 3), np.int32)
    np.cumsum(columns[0], out=nodes[:, 0])
    np.add(nodes[:, 0], columns[1], out=nodes[:, 1])
    nodes[:, 2] = columns[2]
    return nodes
