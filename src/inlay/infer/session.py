"""One editor session: keeps the K/V cache of the last completion and recomputes only what changed since.

The longest common prefix of the new prompt's ids and the cached ids stays; the cache is cut back to it and the rest is
decoded. In SPM order typing moves nothing but the prompt's end, so a keystroke costs a few tokens; in PSM the suffix,
which follows the prefix, is computed again. The result equals that of a fresh run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from inlay.infer.engine import GREEDY, Engine, Generation
from inlay.infer.healing import NO_START, Start
from inlay.infer.sampling import SamplingConfig


@dataclass(frozen=True, slots=True)
class SessionResult:
    """A completion and what it cost: prompt tokens taken from the cache, and prompt tokens computed."""

    generation: Generation
    reused: int
    computed: int


class Session:
    """A one-row cache that lives from completion to completion. Not safe for concurrent calls."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._cache: Any = engine.new_cache(1, engine.opened.sequence_length + 1)
        self._ids: list[int] = []

    def generate(
        self,
        prompt: Sequence[int],
        *,
        max_tokens: int = 64,
        sampling: SamplingConfig = GREEDY,
        deadline: float | None = None,
        start: Start = NO_START,
        infill_sampler: bool = False,
        key: int = 0,
    ) -> SessionResult:
        """Completes `prompt`. Arguments and errors are those of `Engine.stream`, for one prompt; another `key` draws
        another sample."""
        self.engine.check([prompt], max_tokens, [start])
        ids = [int(token) for token in prompt]
        # The last token is always computed: its logits are what the first new token is chosen from.
        kept = min(common_prefix(self._ids, ids), len(ids) - 1)
        # Until this call has ended well the cache is worth nothing beyond `kept`.
        self._ids = ids[:kept]
        with torch.inference_mode():
            # A ring may have forgotten what stands there: then all is computed again.
            kept = int(self._cache.truncate(torch.tensor([kept], device=self._cache.lengths.device))[0])
            logits = self.engine.prefill(self._cache, [ids[kept:]])
        generation = self.engine.continue_row(
            self._cache, logits, max_tokens, sampling, deadline, start, infill_sampler, key
        )
        self._ids = [*ids, *generation.ids][: int(self._cache.lengths[0])]
        return SessionResult(generation, reused=kept, computed=len(ids) - kept)


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """The length of the longest common prefix of two id sequences."""
    count = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        count += 1
    return count
