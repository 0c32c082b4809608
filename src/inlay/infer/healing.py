"""Token healing: a prompt that ends inside a word gives its last tokens back; the completion begins with their bytes.

A prefix that ends in `retu` is tokens that no text has before `rn`: the model saw `return` as one token. So the tokens
of the last pre-token are taken off the prompt, and the first tokens generated must spell what was taken off; a token
that spells it and more goes on into the text. It decides how far back that goes: to the beginning of the last
pre-token, never over a line end (a line that is complete stays as it is), and at most `MOST_TOKENS`. Where there is
nothing to take back the prompt stays whole. The idea is that of guidance ("token healing", 2023).

At each step the candidates are the tokens that begin with what is left of the bytes, or that what is left begins with;
special tokens are never among them. Shapes: B rows, V vocabulary.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch

from inlay.config import InlayError
from inlay.text.tokenizer import Tokenizer

MOST_TOKENS = 8
"""Tokens that are taken back at most: a word hardly has more, a run of digits or base64 may."""
TAIL_TOKENS = 64
"""Tokens before the cursor in which the last pre-token is looked for."""


@dataclass(frozen=True, slots=True)
class Start:
    """What a completion has to begin with: text that stands before the cursor and was taken off the prompt."""

    data: bytes = b""
    tokens: int = 0
    """How many tokens of the prompt that was."""


NO_START = Start()


def take_back(ids: Sequence[int], tokenizer: Tokenizer, keep: int = 0) -> tuple[list[int], Start]:
    """A prefix's ids without its last pre-token, and that pre-token as what the completion begins with.

    `keep`: ids at the beginning that are never taken.
    """
    tail = list(ids[max(0, len(ids) - TAIL_TOKENS) :])
    data = tokenizer.decode_bytes(tail)
    # What the tail's own first token begins may be the rest of a character.
    pieces = tokenizer.pretokens(data.decode("utf-8", errors="ignore"))
    wanted = len(pieces[-1].encode()) if pieces else 0
    count = size = 0
    while size < wanted and count < min(MOST_TOKENS, len(ids) - keep):
        token = tokenizer.decode_bytes([ids[len(ids) - 1 - count]])
        if b"\n" in token or b"\r" in token:
            break
        count, size = count + 1, size + len(token)
    left = list(ids[: len(ids) - count])
    return left, Start(data[len(data) - size :], count)


class Vocabulary:
    """The tokens of a vocabulary by their bytes: which of them agree with bytes that must come."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        special = set(tokenizer.special.values())
        held = [token for token, size in enumerate(tokenizer.token_lengths.tolist()) if size and token not in special]
        named = sorted((tokenizer.decode_bytes([token]), token) for token in held)
        self._names = [name for name, _ in named]
        self._ids = [token for _, token in named]
        self._known: dict[bytes, torch.Tensor] = {}

    def agreeing(self, data: bytes) -> torch.Tensor:
        """Ids, ascending int64, of the tokens that begin with `data` or that `data` begins with. Raises InlayError when
        there is none."""
        found = self._known.get(data)
        if found is None:
            first = bisect_left(self._names, data)
            last = first
            while last < len(self._names) and self._names[last].startswith(data):
                last += 1
            ids = self._ids[first:last]
            for size in range(1, len(data)):
                at = bisect_left(self._names, data[:size])
                while at < len(self._names) and self._names[at] == data[:size]:
                    ids.append(self._ids[at])
                    at += 1
            if not ids:
                raise InlayError(f"token healing: no token of the vocabulary can spell {data!r}; leave healing out")
            if len(self._known) >= 4096:
                self._known.clear()
            found = self._known[data] = torch.tensor(sorted(ids))
        return found

    def narrow(self, logits: torch.Tensor, left: Sequence[bytes]) -> torch.Tensor:
        """`logits` [B, V] with -inf at every token that does not agree with the bytes that each row must still spell;
        rows with nothing left to spell are as they were."""
        if not any(left):
            return logits
        narrowed = logits.clone()
        for row, data in enumerate(left):
            if data:
                ids = self.agreeing(data).to(logits.device)
                narrowed[row] = -torch.inf
                narrowed[row, ids] = logits[row, ids]
        return narrowed


_VOCABULARIES: WeakKeyDictionary[Tokenizer, Vocabulary] = WeakKeyDictionary()


def vocabulary_of(tokenizer: Tokenizer) -> Vocabulary:
    """The index of a tokenizer, made once for each (about 0.3 s for 150,000 tokens)."""
    found = _VOCABULARIES.get(tokenizer)
    if found is None:
        found = _VOCABULARIES[tokenizer] = Vocabulary(tokenizer)
    return found
