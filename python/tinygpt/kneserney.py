"""KneserNey: the n-gram model that a neural one is held against, over the same tokens."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

ORDER = 5


@dataclass(frozen=True, kw_only=True)
class _Level:
    """All n-grams of one length, numbered in the order of their keys."""

    keys: NDArray[np.int64]
    """Number of the n-gram without its last token, times V, plus that token; rising, (U,)."""
    found: NDArray[np.float64]
    """What is left of the relative count after the discount, (U,)."""
    left_over: NDArray[np.float64]
    """The probability that is left for shorter contexts, of each context, (number of n-grams one shorter,)."""


class KneserNey:
    """Interpolated modified Kneser-Ney, learnt from a row of tokens as it stands, separators among them.

    The longest n-grams count as often as they occur, shorter ones by how many tokens stand before them. Each length has
    three discounts, from its own numbers of n-grams that count 1, 2, 3 and 4; where one of these is 0, they are
    0.5, 1 and 1.5. The last resort is 1 / V. Memory is 160 bytes a token at most while it learns.

    Args:
        tokens: Ids below `vocab_size`, (N,), at least one.
        vocab_size: V.
        order: Tokens of the longest n-grams.

    Example:
        >>> model = KneserNey([0, 1, 0, 1, 0, 2], vocab_size=3, order=2)
        >>> model.nats([0, 1, 0]).round(3).tolist()
        [1.099, 0.693, 0.405]

    Source: Chen and Goodman 1999, An empirical study of smoothing techniques for language modeling, section 4.1.
    """

    def __init__(self, tokens: ArrayLike, *, vocab_size: int, order: int = ORDER) -> None:
        row = np.asarray(tokens).astype(np.int64)
        if order < 1:
            raise ValueError(f"order must be at least 1, got {order}")
        if not len(row):
            raise ValueError("an n-gram model needs at least one token, got none")
        if not 0 <= int(row.min()) <= int(row.max()) < vocab_size:
            raise ValueError(f"tokens must be from 0 to {vocab_size - 1}, found {row.min()} to {row.max()}")
        self.vocab_size, self.order, self.n_tokens = vocab_size, order, len(row)
        self._levels: list[_Level] = []
        keys, counts, grams = np.arange(vocab_size), np.bincount(row, minlength=vocab_size), row
        for length in range(1, order + 1):
            n_contexts = 1 if length == 1 else len(self._levels[-1].keys)
            if length == order:
                self._levels.append(_level(keys, counts, vocab_size, n_contexts))
                break
            if len(grams) < 2:  # of so long n-grams there is one, with nothing before it
                self._levels.append(_level(keys, np.zeros_like(counts), vocab_size, n_contexts))
                break
            pairs = grams[:-1] * vocab_size + row[length:]
            longer, firsts, numbers, n_longer = np.unique(
                pairs, return_index=True, return_inverse=True, return_counts=True
            )
            del pairs
            before = np.bincount(grams[firsts + 1], minlength=len(keys))  # tokens that stand before each n-gram
            self._levels.append(_level(keys, before, vocab_size, n_contexts))
            keys, counts, grams = longer, n_longer, numbers

    def nats(self, tokens: ArrayLike) -> NDArray[np.float64]:
        """-log of the probability of each token (n,) after those before it in the row."""
        row = np.asarray(tokens).astype(np.int64)
        if len(row) and not 0 <= int(row.min()) <= int(row.max()) < self.vocab_size:
            raise ValueError(f"tokens must be from 0 to {self.vocab_size - 1}, found {row.min()} to {row.max()}")
        probability = np.full(len(row), 1 / self.vocab_size)
        contexts = np.zeros(len(row), np.int64)  # number of what stands before each token; -1 where it is unknown
        for length, level in enumerate(self._levels, start=1):
            ends = slice(length - 1, len(row))
            numbers = _numbers(level.keys, contexts, row[ends], self.vocab_size)
            is_known = contexts >= 0
            left_over = np.where(is_known, level.left_over[contexts], 1.0)
            found = np.where(numbers >= 0, level.found[numbers], 0.0)
            probability[ends] = found + left_over * probability[ends]
            contexts = numbers[:-1]
        nats: NDArray[np.float64] = -np.log(probability)
        return nats


def _level(keys: NDArray[np.int64], counts: NDArray[np.int64], vocab_size: int, n_contexts: int) -> _Level:
    contexts = keys // vocab_size
    totals = np.bincount(contexts, counts, n_contexts)  # (contexts,)
    discounts = _discounts(counts)[np.minimum(counts, 3)]  # (U,)
    held_back = np.bincount(contexts, discounts, n_contexts)
    left_over = np.divide(held_back, totals, out=np.ones(n_contexts), where=totals > 0)
    known = totals[contexts]
    found = np.divide(counts - discounts, known, out=np.zeros(len(keys)), where=known > 0)
    return _Level(keys=keys, found=found, left_over=left_over)


def _discounts(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """What is taken from counts of 0, 1, 2 and more."""
    n1, n2, n3, n4 = (int(np.count_nonzero(counts == i)) for i in range(1, 5))
    if not (n1 and n2 and n3 and n4):
        return np.array([0.0, 0.5, 1.0, 1.5])
    y = n1 / (n1 + 2 * n2)
    found = np.array([0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
    return found if (found >= 0).all() else np.array([0.0, 0.5, 1.0, 1.5])


def _numbers(
    keys: NDArray[np.int64], contexts: NDArray[np.int64], tokens: NDArray[np.int64], vocab_size: int
) -> NDArray[np.int64]:
    """The number of each n-gram, (n,); -1 where it is unknown."""
    wanted = contexts * vocab_size + tokens
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where((contexts >= 0) & (keys[places] == wanted), places, -1)
