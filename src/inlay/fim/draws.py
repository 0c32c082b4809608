"""Counter-based random draws: every draw is a hash of (key, counter), so nothing random is ever carried or saved.

A key is a tuple of integers and strings such as (seed, epoch, document id). Two `Draws` of one key give the same
numbers on every machine, in every process, in every order of calls to other keys. A key is told apart by what it reads
as: 1 and "1" are one key. It refuses empty ranges and weights that name nothing.
"""

import math

import numpy as np
import xxhash

_SCALE = 1.0 / (1 << 53)


def _encode(key: tuple[int | str, ...]) -> bytes:
    return "\x1f".join(map(str, key)).encode()


class Draws:
    """A short-lived stream of draws for one example. Never keep one across examples."""

    __slots__ = ("_counter", "_key")

    def __init__(self, *key: int | str) -> None:
        self._key = xxhash.xxh3_64_digest(_encode(key))
        self._counter = 0

    def bits(self) -> int:
        """64 random bits."""
        self._counter += 1
        return xxhash.xxh3_64_intdigest(self._key, seed=self._counter)

    def uniform(self) -> float:
        """A float in [0, 1)."""
        return (self.bits() >> 11) * _SCALE

    def integer(self, low: int, high: int) -> int:
        """An integer in [low, high), high excluded. Raises ValueError for an empty range."""
        if high <= low:
            raise ValueError(f"empty range [{low}, {high})")
        return low + (self.bits() * (high - low) >> 64)

    def normal(self, mean: float, deviation: float) -> float:
        """A normal draw (Box-Muller, so that one value costs exactly two draws)."""
        radius = math.sqrt(-2.0 * math.log(1.0 - self.uniform()))
        return mean + deviation * radius * math.cos(2.0 * math.pi * self.uniform())

    def choose(self, weights: list[float]) -> int:
        """An index drawn in proportion to `weights` (non-negative). Raises ValueError when all are zero."""
        if not any(weights):
            raise ValueError("all weights are zero")
        mark = self.uniform() * sum(weights)
        for index, weight in enumerate(weights):
            mark -= weight
            if mark < 0.0:
                return index
        return max(index for index, weight in enumerate(weights) if weight > 0.0)


def permutation(count: int, *key: int | str) -> np.ndarray:
    """A keyed permutation of range(count), int64: sorted hashes of a Philox counter stream."""
    seed = xxhash.xxh3_128_intdigest(_encode(key))
    generator = np.random.Generator(np.random.Philox(key=seed))
    # Sorting 64-bit words is defined by the bit stream alone; Generator.permutation may change between numpy releases.
    words = generator.bit_generator.random_raw(count)
    return np.argsort(words, kind="stable")
