"""llama.cpp's infill sampler: the rule by which its editors' plug-ins choose the next token and end a completion.

The candidates are those that top-k and top-p leave (40 and 0.9 where nothing else is said, as llama.vim sends), n of
them. Then, as `llama_sampler_infill_apply` in src/llama-sampling.cpp of ggml-org/llama.cpp does (read in 2026):

1. when 3 p(end) n exceeds p(text), only ends are left: with two candidates an end of more than 1/7 wins, with ten one
   of more than 1/31;
2. else the probability of a token whose bytes begin another candidate goes to the likelier of the two;
3. text below 0.2 is dropped, and the terminator alone is left when no text is;
4. of the rest, rescaled, text below 1 / (1 + the number of text candidates) is dropped.

What is left is drawn from by the model's own probabilities; the merged ones decide only what is left. (500 prompts at a
real server: the same tokens left in all of them, their probabilities equal to 3e-7.) llama.cpp draws at temperature 1;
ours goes on from there, 0 taking the likeliest. An end is here any stop id of the engine.

Shapes: B rows, V vocabulary.
"""

import torch

from inlay.infer.sampling import SamplingConfig, candidates
from inlay.text.tokenizer import Tokenizer

TOP_K, TOP_P = 40, 0.9
FACTOR = 3.0
LEAST = 0.2


class InfillSampler:
    """The rule for one vocabulary."""

    def __init__(self, tokenizer: Tokenizer, stop_ids: frozenset[int], terminator: int) -> None:
        self._tokenizer = tokenizer
        self._stop_ids = stop_ids
        self._terminator = terminator

    def narrow(self, logits: torch.Tensor, sampling: SamplingConfig) -> torch.Tensor:
        """`logits` [B, V] with -inf at all that the rule does not leave. top_k and top_p are those of `sampling`; its
        temperature has no part in the rule."""
        plain = SamplingConfig(temperature=1.0, top_k=sampling.top_k or TOP_K, top_p=sampling.top_p or TOP_P)
        probabilities, order = candidates(logits, plain)
        narrowed = torch.full_like(logits, -torch.inf)
        for row, (weights, ids) in enumerate(zip(probabilities.double().tolist(), order.tolist(), strict=True)):
            held = [(token, weight) for token, weight in zip(ids, weights, strict=True) if weight > 0.0]
            left = torch.tensor(self._left(held), device=logits.device)
            narrowed[row, left] = logits[row, left]
        return narrowed

    def _left(self, held: list[tuple[int, float]]) -> list[int]:
        """The ids that are left of candidates (id, weight), likeliest first."""
        total = sum(weight for _, weight in held)
        shares = {token: weight / total for token, weight in held}
        ends = {token: share for token, share in shares.items() if token in self._stop_ids}
        ending = sum(ends.values())
        if FACTOR * ending * len(shares) > sum(share for token, share in shares.items() if token not in ends):
            return list(ends)
        texts = self._merge({token: share for token, share in shares.items() if token not in ends})
        texts = {token: share for token, share in texts.items() if share >= LEAST}
        if not texts:
            return [self._terminator]
        kept = sum(texts.values()) + ending
        return [*(token for token, share in texts.items() if share / kept >= 1.0 / (len(texts) + 1)), *ends]

    def _merge(self, texts: dict[int, float]) -> dict[int, float]:
        """Each pair of which one's bytes begin the other's becomes one, at the likelier; in the order of the list."""
        names = {token: self._tokenizer.decode_bytes([token]) for token in texts}
        shares = dict(texts)
        for one in texts:
            for other in texts:
                if one not in shares:
                    break
                if other == one or other not in shares or not names[other].startswith(names[one]):
                    continue
                kept, gone = (other, one) if shares[other] > shares[one] else (one, other)
                shares[kept] += shares.pop(gone)
        return shares
