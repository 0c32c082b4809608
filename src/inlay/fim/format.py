"""The one format object: training rows, evaluation and served prompts all come from it, and it can invert itself.

It works on token ids: the three parts are encoded each as if alone by the caller, and the sentinels are placed here. It
refuses a tokenizer in which a sentinel is not exactly one special token, and an order, hints or a repository form that
its family does not have.

Orders (2207.14255 section 3 and appendix D; reference names as in the literature), `p` prefix, `m` middle, `s` suffix:

    psm        <PRE> p <SUF> s <MID> m <EOT>
    spm        <SUF> s <PRE> p <MID> m <EOT>    SPM version 1, what llama.cpp's --spm-infill sends
    spm_v2     <PRE> <SUF> s <MID> p m <EOT>    SPM version 2, no sentinel between p and m
    spm_joint  as spm_v2, but p and m are encoded as one text (Code Llama, 2308.12950 section 2.3)
    spm_open   <SUF> s <PRE> p m <EOT>          no middle sentinel (Codestral)

A beginning-of-sequence token, where the family has one, stands first in all of them. Line hints (FIM-SE, 2405.17103)
stand directly before `<MID>`: `<START> L <END> F`, where the middle is whole lines, L the known beginning of its first
line and F the known end of its last. A repository's other files stand before the block (`Header`).

Under a SentencePiece tokenizer Code Llama and Codestral put a space before the text of the prefix, as their own code
does, and never before suffix or middle. An empty prefix has none. Ids alone cannot tell that space from a real one
where prefix and middle are not separate; `restore` then wants the whole `FimTokens`, whose regions tell.
"""

from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np

from inlay.config import BadInput
from inlay.config.base import nearest
from inlay.fim.example import KIND_OF_ORDER, FimTokens, Header, Hints, Ids, Kind, Part, Region, Repository
from inlay.fim.family import ORDERS, Family, Order, all_families, load_family
from inlay.fim.marks import marks_of
from inlay.fim.restore import restore_example, restore_ids, restore_repository
from inlay.text.tokenizer import Tokenizer

__all__ = ["KIND_OF_ORDER", "FimFormat", "FimTokens", "Header", "Hints", "Ids", "Kind", "Region", "Repository"]


class FimFormat:
    """A family resolved against a tokenizer. Create with `FimFormat.load(name, tokenizer)`."""

    OVERHEAD = 4
    """Tokens that a FIM example has at most beside its parts, hints and header left out; see `overhead`."""

    def __init__(self, family: Family, tokenizer: Tokenizer) -> None:
        self.family = family
        self.tokenizer = tokenizer
        self.name = family.kind
        ids = {role: self._special(text) for role, text in family.strings().items()}
        _check_distinct(family, ids)
        self.prefix: int = ids["prefix"]
        self.suffix: int = ids["suffix"]
        self.middle: int | None = ids.get("middle")
        self.pad: int = ids["pad"]
        self.eot: int = ids["terminator"]
        self.end: int = ids.get("end", self.eot)
        """Ends a left-to-right document; most families use the terminator."""
        self.bos: int | None = ids.get("bos")
        # A tokenizer made before there were hints still serves; asking for hints is what it refuses.
        self.hint_start, self.hint_end = (
            tokenizer.special.get(text or "") for text in (family.hint_start, family.hint_end)
        )
        self.repo: int | None = ids.get("repository")
        self.file: int | None = ids.get("file")
        self.specials: frozenset[int] = frozenset(tokenizer.special.values())
        """Every id that text never gives."""
        spaced = family.spacing == "dummy" and tokenizer.style == "sentencepiece"
        self.dummy: list[int] = tokenizer.encode(" ") if spaced else []
        """The leading space of a document or prefix, as a token; empty where the family has none."""
        # A control token inside a middle is never text: it ends a completion as well, named apart from the terminator.
        hints = {token for token in (self.hint_start, self.hint_end) if token is not None}
        self.stop_ids: frozenset[int] = frozenset({*ids.values(), *hints})
        self.starts_character = marks_of(tokenizer).starts_character
        """[V] bool: whether a token starts on a character boundary, so that text may be cut before it."""
        self.OVERHEAD = max(self.overhead(order) for order in family.orders)

    @classmethod
    def load(cls, name: str, tokenizer: Tokenizer) -> "FimFormat":
        """The family called `name` on this tokenizer. Raises ConfigError (unknown family), BadInput (sentinels)."""
        return cls(load_family(name), tokenizer)

    def overhead(self, order: Order | None, hinted: bool = False) -> int:
        """The most tokens that an example of `order` (None: plain text) has beside its parts, hints and header."""
        fixed = 1 + (self.bos is not None) + len(self.dummy)
        if order is None:
            return fixed
        return fixed + (2 if order == "spm_open" else 3) + 2 * hinted

    def joins(self, order: Order) -> bool:
        """Whether prefix and middle are encoded as one text in this order."""
        return order == "spm_joint"

    def render(
        self,
        prefix: Ids,
        middle: Ids,
        suffix: Ids,
        order: Order,
        header: Header | None = None,
        hints: Hints | None = None,
    ) -> FimTokens:
        """A whole training example, terminator included: prefix, middle, suffix ids to one row of ids.

        In the joint order prefix and middle are decoded and encoded again as one text; a caller that has their joint
        ids saves that with `render_joint`. Raises BadInput for an order or hints that the family does not have.
        """
        self.check_order(order)
        if self.joins(order):
            return self.render_joint(*self._join_parts(prefix, middle), suffix, order, header, hints)
        return self._render(self._spaced(prefix, header), middle, suffix, order, header, hints)

    def render_joint(
        self,
        together: Ids,
        first_middle: int,
        suffix: Ids,
        order: Order,
        header: Header | None = None,
        hints: Hints | None = None,
    ) -> FimTokens:
        """`render` where `together` encodes prefix and middle as one text; its tokens from index `first_middle` on,
        the one that straddles the cut included, are the middle.

        Raises BadInput for an order or hints that the family does not have, ValueError for an order that does not join.
        """
        self.check_order(order)
        if not self.joins(order):
            raise ValueError(f"order '{order}' encodes prefix and middle apart; use render")
        ids, cut = list(map(int, together)), first_middle
        if self.dummy and cut and (header is None or header.before == len(header.tokens)):
            ids, cut = self._spaced_joint(ids, cut)
        return self._render(ids[:cut], ids[cut:], suffix, order, header, hints)

    def prompt(
        self, prefix: Ids, suffix: Ids, order: Order, header: Header | None = None, hints: Hints | None = None
    ) -> list[int]:
        """The ids up to where the model begins the middle: `render` without middle and terminator.

        In the joint order that holds where the cut is on a border of the joint tokens. Raises BadInput for an order or
        hints that the family does not have.
        """
        self.check_order(order)
        parts = self._layout(self._spaced(prefix, header), (), suffix, order, header, hints)
        return [int(token) for ids, _ in parts for token in ids]

    def plain(self, text: Ids, header: Header | None = None) -> FimTokens:
        """A left-to-right example: the text and a trained end."""
        parts: list[Part] = [] if self.bos is None else [((self.bos,), Region.SENTINEL)]
        if header is not None:
            parts += _runs(header.tokens, header.regions)
        parts += [(self._spaced(text) if header is None else text, Region.TEXT), ((self.end,), Region.TERMINATOR)]
        return _join(parts, Kind.L2R)

    def repository(self, name: str, files: Sequence[tuple[str, Ids]], path: str) -> Header:
        """The header of an example in the file `path` of repository `name`, after other `files` (path, text ids).

        Raises BadInput when the family has no such form, or when a name or path has a line end.
        """
        form = self.family.repository
        if form is None:
            having = ", ".join(kind for kind, family in all_families().items() if family.repository)
            raise BadInput(f"format family '{self.name}' has no repository-level form; these have: {having}")
        for label in (name, path, *(other for other, _ in files)):
            if "\n" in label:
                raise BadInput(f"repository or path {label!r} has a line end; leave it out of fim.family '{self.name}'")
        pieces = form.pieces(name, [other for other, _ in files], path)
        opening = next((piece for piece in pieces if piece.inside and piece.text), None)
        parts: list[Part] = []
        for piece in pieces:
            if piece.role == "text":
                parts.append((files[piece.file][1], Region.TEXT))
                continue
            ids = [self._special(piece.text)] if piece.role == "sentinel" else self.tokenizer.encode(piece.text)
            # The text that opens the prefix has the family's space; with the whole form inside, that is a label.
            opens = piece is opening and form.place == "in_prefix"
            parts.append((self._spaced(ids) if opens else ids, Region.HEADER))
        joined = _join(parts, Kind.L2R)
        inside = sum(len(ids) for (ids, _), piece in zip(parts, pieces, strict=True) if piece.inside)
        return Header(joined.tokens, joined.regions, len(joined.tokens) - inside)

    def restore(self, example: FimTokens | Ids) -> bytes:
        """The document's bytes from a rendered example: the inverse of `render` and `plain`, header and hints left
        out.

        From bare ids it reads what sentinels tell. It raises ValueError when they are no whole example of this format,
        or when only the regions of a `FimTokens` can tell (a leading space, see above). A header without a sentinel
        (Codestral) reads as text from bare ids.
        """
        return restore_example(self, example) if isinstance(example, FimTokens) else restore_ids(self, example)

    def restore_repository(self, example: FimTokens) -> Repository:
        """Everything that an example with a header says. Raises ValueError when it has none."""
        return restore_repository(self, example)

    def check_order(self, order: Order) -> None:
        """Raises BadInput when the family has no such order."""
        if order not in self.family.orders:
            orders = ", ".join(sorted(self.family.orders, key=ORDERS.index))
            raise BadInput(f"format family '{self.name}' has no order '{order}'; it has {orders}")

    def check_hints(self, order: Order) -> None:
        """Raises BadInput when the family or its tokenizer has no line hints, or the order no place for them."""
        texts = (self.family.hint_start, self.family.hint_end)
        if None in texts or order == "spm_open":
            raise BadInput(f"format family '{self.name}' has no line hints in order '{order}'; set fim.hints.rate=0")
        for text, token in zip(texts, (self.hint_start, self.hint_end), strict=True):
            if token is None:
                raise BadInput(
                    f"line hints need the special token '{text}', which this tokenizer lacks;"
                    " prepare the store again, or set fim.hints.rate=0"
                )

    def _render(
        self, prefix: Ids, middle: Ids, suffix: Ids, order: Order, header: Header | None, hints: Hints | None
    ) -> FimTokens:
        parts = self._layout(prefix, middle, suffix, order, header, hints)
        return _join([*parts, ((self.eot,), Region.TERMINATOR)], KIND_OF_ORDER[order])

    def _layout(
        self, prefix: Ids, middle: Ids, suffix: Ids, order: Order, header: Header | None, hints: Hints | None
    ) -> list[Part]:
        inside: list[Part] = []
        parts: list[Part] = [] if self.bos is None else [((self.bos,), Region.SENTINEL)]
        if header is not None:
            parts += _runs(header.tokens[: header.before], header.regions[: header.before])
            inside = _runs(header.tokens[header.before :], header.regions[header.before :])
        known: list[Part] = []
        if hints is not None:
            self.check_hints(order)
            for token, ids in zip((self.hint_start, self.hint_end), hints, strict=True):
                known += [((int(token or 0),), Region.SENTINEL), (ids, Region.HINT)]
        places: dict[str, list[Part]] = {
            "prefix": [((self.prefix,), Region.SENTINEL)],
            "suffix": [((self.suffix,), Region.SENTINEL)],
            "middle": [] if self.middle is None else [((self.middle,), Region.SENTINEL)],
            "hints": known,
            "p": [*inside, (prefix, Region.PREFIX)],
            "s": [(suffix, Region.SUFFIX)],
            "m": [(middle, Region.MIDDLE)],
        }
        for place in self.family.layout(order, hints is not None):
            parts += places[place]
        return parts

    def _spaced(self, ids: Ids, header: Header | None = None) -> Ids:
        """The ids of a text that opens a document or prefix, with the family's leading space; at most one token more.

        It is encoded again with the space, as SentencePiece would; a text that needs more tokens so, or that starts
        inside a character, has the space as a token of its own.
        """
        if not self.dummy or not len(ids) or (header is not None and header.before < len(header.tokens)):
            return ids
        ids = list(map(int, ids))
        try:
            spaced = self.tokenizer.encode(" " + self.tokenizer.decode_bytes(ids).decode())
        except UnicodeDecodeError:
            spaced = None
        return spaced if spaced is not None and len(spaced) <= len(ids) + 1 else self.dummy + ids

    def _spaced_joint(self, together: list[int], first_middle: int) -> tuple[list[int], int]:
        cut = int(self.tokenizer.token_lengths[together[:first_middle]].sum()) + 1
        spaced = list(map(int, self._spaced(together)))
        first = self._token_behind(spaced, cut)
        # Some token must be the prefix's: an example whose prefix region is empty has no leading space.
        return (spaced, first) if first else (self.dummy + together, first_middle + len(self.dummy))

    def _join_parts(self, prefix: Ids, middle: Ids) -> tuple[list[int], int]:
        decode = self.tokenizer.decode_bytes
        before = decode(map(int, prefix))
        together = self.tokenizer.encode((before + decode(map(int, middle))).decode())
        return together, self._token_behind(together, len(before))

    def _token_behind(self, ids: list[int], position: int) -> int:
        """The index of the token that holds the byte at `position`; the number of ids at the end."""
        ends = np.cumsum(self.tokenizer.token_lengths[ids])
        return int(np.searchsorted(ends, position, side="right"))

    def _special(self, text: str) -> int:
        token = self.tokenizer.special.get(text)
        if token is None:
            special = self.tokenizer.special
            suiting = [
                kind for kind, family in all_families().items() if set(family.strings().values()) <= set(special)
            ]
            advice = f"it suits {', '.join(suiting)}" if suiting else f"no family suits it{nearest(text, special)}"
            raise BadInput(
                f"format family '{self.family.kind}': '{text}' is not one special token of this tokenizer;"
                f" choose another fim.family or another tokenizer ({advice})"
            )
        return token


def _check_distinct(family: Family, ids: dict[str, int]) -> None:
    """No two roles share a token, but a terminator may separate files as well (CodeGemma), and a stop may be any."""
    for one, other in combinations([role for role in ids if not role.startswith("stop")], 2):
        if ids[one] == ids[other] and (one, other) != ("terminator", "file"):
            raise BadInput(f"format family '{family.kind}': {one} and {other} are the same token; give each its own")


def _runs(tokens: np.ndarray, regions: np.ndarray) -> list[Part]:
    borders = [0, *(np.flatnonzero(np.diff(regions)) + 1).tolist(), len(tokens)]
    return [(tokens[a:b], Region(int(regions[a]))) for a, b in pairwise(borders) if a < b]


def _join(parts: list[Part], kind: Kind) -> FimTokens:
    total = sum(len(ids) for ids, _ in parts)
    tokens, regions, at = np.empty(total, dtype=np.int32), np.empty(total, dtype=np.uint8), 0
    for ids, region in parts:  # filling slices costs half of joining arrays, and an example is made for every piece
        end = at + len(ids)
        tokens[at:end] = ids
        regions[at:end] = region
        at = end
    return FimTokens(tokens, regions, kind)
