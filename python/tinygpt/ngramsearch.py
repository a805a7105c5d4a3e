"""Where runs of tokens stand verbatim in rows of tokens of any length, read once in blocks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygpt.tokenstream import TokenStream

_BLOCK_TOKENS = 1 << 18  # a block's hashes, 2 MiB, stay in the processor's cache: twice as fast as blocks of 2^22
_FILTER_BITS = range(12, 27)  # of a filter: 64 places a query, so that one in 64 windows is looked up in vain
_MIX, _STEP, _SPREAD = (np.uint64(odd) for odd in (0x9E3779B97F4A7C15, 0xD1342543DE82EF95, 0xFF51AFD7ED558CCD))


@dataclass(frozen=True, kw_only=True)
class Queries:
    """Runs of `length` tokens that are looked for."""

    rows: NDArray[Any]
    """The different ones, (Q, length)."""
    counts: NDArray[np.int64]
    """How often each was asked for, (Q,)."""
    firsts: NDArray[np.int64]
    """Sequence and place in it where each stands first, (Q, 2)."""

    @property
    def length(self) -> int:
        """Tokens of each."""
        return int(self.rows.shape[1])


def queries_of(sequences: Sequence[NDArray[Any]], length: int) -> Queries:
    """All runs of so many tokens in some sequences.

    Example:
        >>> queries_of([np.array([1, 2, 1, 2])], 2).counts.tolist()
        [2, 1]
    """
    long = [(i, each) for i, each in enumerate(sequences) if len(each) >= length]
    if not long:
        return Queries(
            rows=np.zeros((0, length), np.uint32), counts=np.zeros(0, np.int64), firsts=np.zeros((0, 2), np.int64)
        )
    views = [np.lib.stride_tricks.sliding_window_view(each, length) for _, each in long]
    rows = np.concatenate(views).astype(np.uint32)
    places = np.concatenate(
        [np.stack([np.full(len(v), i), np.arange(len(v))], 1) for (i, _), v in zip(long, views, strict=True)]
    )
    whole = np.ascontiguousarray(rows).view(np.dtype((np.void, 4 * length))).ravel()
    _, firsts, counts = np.unique(whole, return_index=True, return_counts=True)
    return Queries(rows=rows[firsts], counts=counts, firsts=places[firsts])


def find(
    queries: Sequence[Queries],
    rows: Sequence[TokenStream],
    *,
    progress: Callable[[int, int | None], object] | None = None,
) -> list[NDArray[np.int64]]:
    """Where each query stands first: number of the row and place in it, (Q, 2) for each of `queries`; -1 for nowhere.

    Every window of the rows is hashed, which costs a few multiplications for all lengths together; what has the hash of
    a query is compared token by token, so that the answer is exact. Memory is that of the queries and of a few blocks.

    Args:
        queries: Of different lengths.
        rows: What is searched.
        progress: Told the bytes searched and the bytes there are.
    """
    searches = [_Search(each) for each in queries if len(each.rows)]
    total = sum(row.n_tokens for row in rows)
    done, width = 0, 0
    for number, row in enumerate(rows):
        for start in range(0, row.n_tokens, _BLOCK_TOKENS):
            if not any(search.is_open for search in searches):
                break
            overlap = max(search.length for search in searches) - 1
            count = min(_BLOCK_TOKENS, row.n_tokens - start)
            ids = row.read(start, min(count + overlap, row.n_tokens - start))
            width = ids.dtype.itemsize
            hashes = _Hashes(ids)
            for search in searches:
                search.look(ids, hashes.of(search.length)[:count], number, start)
            done += count
            if progress is not None:
                progress(done * width, total * width)
    found = {id(search.queries): search.found for search in searches}
    return [found.get(id(each), np.full((len(each.rows), 2), -1)) for each in queries]


def longest(
    sequences: Sequence[NDArray[Any]],
    rows: Sequence[TokenStream],
    *,
    at_least: int = 0,
    below: int | None = None,
    progress: Callable[[int, int | None], object] | None = None,
) -> tuple[int, tuple[int, int], tuple[int, int]] | None:
    """The longest run of tokens that some sequence shares with some row; None where no token is shared.

    What is found at one length is found at each shorter one, so that a search halves what is open at each pass.

    Args:
        sequences: What is looked for.
        rows: Where.
        at_least: A length that is known to be found.
        below: A length that is known not to be.
        progress: As in `find`, for each pass.

    Returns:
        Its length, its sequence and place in that, its row and place in that.
    """
    high = 1 + max((len(each) for each in sequences), default=0)
    low, high = at_least, high if below is None else min(high, below)
    best: tuple[int, tuple[int, int], tuple[int, int]] | None = None
    step = max(1, at_least)
    while high - low > 1 or (best is None and low > 0):
        length = min(low + step, (low + high) // 2) if high - low > 1 else low
        step *= 2
        queries = queries_of(sequences, length)
        found = find([queries], rows, progress=progress)[0]
        at = np.flatnonzero(found[:, 0] >= 0)
        if not len(at):
            if length == low:
                raise ValueError(f"no run of {length} tokens is shared, but at_least says so")
            high = length
            continue
        (i, j), (row, place) = queries.firsts[at[0]].tolist(), found[at[0]].tolist()
        low, best = length, (length, (i, j), (row, place))
    return best


class _Hashes:
    """Hashes of all windows of a block, made by doubling: that of 2 w tokens out of two of w."""

    def __init__(self, ids: NDArray[Any]) -> None:
        self._ladder = [(ids.astype(np.uint64) + np.uint64(1)) * _MIX]
        self._n = len(ids)

    def of(self, length: int) -> NDArray[np.uint64]:
        """The hash of the window of `length` tokens that begins at each place; (0,) where the block is shorter."""
        if length > self._n:
            return np.zeros(0, np.uint64)
        while 1 << len(self._ladder) <= length:
            width = 1 << (len(self._ladder) - 1)
            self._ladder.append(_joined(self._ladder[-1], self._ladder[-1], width, width))
        found: NDArray[np.uint64] | None = None
        covered = 0
        for power, hashes in enumerate(self._ladder):
            if length >> power & 1:
                found = hashes if found is None else _joined(found, hashes, covered, 1 << power)
                covered += 1 << power
        assert found is not None
        return found[: self._n - length + 1]


def _joined(
    left: NDArray[np.uint64], right: NDArray[np.uint64], left_width: int, right_width: int
) -> NDArray[np.uint64]:
    """The hashes of windows that are one of `left_width` tokens and then one of `right_width`."""
    factor = np.uint64(pow(int(_STEP), right_width, 1 << 64))
    n = min(len(left), len(right) - left_width)
    out: NDArray[np.uint64] = left[:n] * factor
    out += right[left_width : left_width + n]
    return out


class _Search:
    """The queries of one length, with what was found so far."""

    def __init__(self, queries: Queries) -> None:
        self.queries, self.length = queries, queries.length
        self.found = np.full((len(queries.rows), 2), -1)
        hashes = np.array([_Hashes(row).of(self.length)[0] for row in queries.rows], np.uint64)
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]
        self._refresh()

    @property
    def is_open(self) -> bool:
        """Whether something is still to be found."""
        return len(self._hashes) > 0

    def look(self, ids: NDArray[Any], hashes: NDArray[np.uint64], row: int, start: int) -> None:
        """Looks at the windows of a block, which lies at `start`."""
        if not self.is_open or not len(hashes):
            return
        places = np.flatnonzero(self._filter[(hashes * _SPREAD) >> self._shift])
        lows, highs = (np.searchsorted(self._hashes, hashes[places], side=side) for side in ("left", "right"))
        repeats = highs - lows  # more than 1 only where queries share a hash
        inner = np.arange(repeats.sum()) - np.repeat(np.cumsum(repeats) - repeats, repeats)
        queries = self._order[np.repeat(lows, repeats) + inner]
        places = np.repeat(places, repeats)
        has_news = False
        while len(queries):
            asked, firsts = np.unique(queries, return_index=True)
            at = places[firsts]
            windows = ids[at[:, None] + np.arange(self.length)]
            is_same = (windows == self.queries.rows[asked]).all(axis=1)
            self.found[asked[is_same]] = np.stack([np.full(int(is_same.sum()), row), at[is_same] + start], axis=1)
            has_news |= bool(is_same.any())
            left = np.ones(len(queries), bool)
            left[firsts] = False
            left &= ~np.isin(queries, asked[is_same])
            queries, places = queries[left], places[left]
        if has_news:
            kept = self.found[self._order, 0] < 0
            self._order, self._hashes = self._order[kept], self._hashes[kept]
            self._refresh()

    def _refresh(self) -> None:
        bits = min(max(len(self._hashes).bit_length() + 6, _FILTER_BITS[0]), _FILTER_BITS[-1])
        self._shift = np.uint64(64 - bits)
        self._filter = np.zeros(1 << bits, bool)
        self._filter[(self._hashes * _SPREAD) >> self._shift] = True
