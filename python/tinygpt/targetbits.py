"""Which tokens are targets: a bit for each token of a shard, in a file beside it."""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tinygpt._core import xxh3_file
from tinygpt.tokenstream import FileTokens, TokenFile

TARGETS_SUFFIX = ".targets"


class Targets(Protocol):
    """Whether each token of a row is a target."""

    def read(self, start: int, count: int) -> NDArray[np.bool_]:
        """For the tokens from `start` on, bool (count,)."""


class TargetBits:
    """Targets of several shards, one after the other, read by pread.

    Args:
        files: The files of bits, each with the number of its shard's tokens.
    """

    def __init__(self, files: Sequence[tuple[Path, int]]) -> None:
        self._edges = [0, *accumulate(n_tokens for _, n_tokens in files)]
        rows = [TokenFile(path=path, n_tokens=n_bytes(n_tokens)) for path, n_tokens in files]
        self._first_bytes = [0, *accumulate(row.n_tokens for row in rows)]
        self._bytes = FileTokens(rows, np.dtype(np.uint8))

    def read(self, start: int, count: int) -> NDArray[np.bool_]:
        """For the tokens from `start` on, bool (count,)."""
        parts, end = [], start + count
        for shard, (low, high) in enumerate(zip(self._edges, self._edges[1:], strict=False)):
            if start < high and end > low:
                first, last = max(start, low) - low, min(end, high) - low
                raw = self._bytes.read(self._first_bytes[shard] + first // 8, n_bytes(last) - first // 8)
                parts.append(np.unpackbits(raw, bitorder="little")[first % 8 :][: last - first])
        return np.concatenate(parts).astype(bool)


class ArrayTargets:
    """Targets in memory."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array

    def read(self, start: int, count: int) -> NDArray[np.bool_]:
        """For the tokens from `start` on, bool (count,)."""
        return self._array[start : start + count].astype(bool)


def n_bytes(n_tokens: int) -> int:
    """Bytes that so many bits take."""
    return -(-n_tokens // 8)


def write_targets(path: Path, blocks: Iterable[NDArray[np.uint8]]) -> tuple[int, str]:
    """Writes packed bits, lowest bit first; returns how many are set, and the file's xxh3-64."""
    n_set = 0
    with path.open("wb") as file:
        for block in blocks:
            n_set += int(np.unpackbits(block).sum())
            file.write(block.tobytes())
    return n_set, xxh3_file(path)
