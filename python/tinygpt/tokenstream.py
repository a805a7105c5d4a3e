"""Tokens in a row, in files or in memory, read from any place without a map of the files.

A window by `pread` is faster than through `np.memmap`, its pages count into nobody's memory, and a file cut short
under a running program is an exception here and the signal SIGBUS there.
"""

import os
import weakref
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tinygpt._core import FormatError

# Descriptors that one stream keeps; shards beyond them are opened for each read. The usual limit is 1,024 a process.
_KEPT_FILES = 512


class TokenStream(Protocol):
    """`n_tokens` tokens that can be read from any place."""

    @property
    def n_tokens(self) -> int:
        """Length of the row."""

    def read(self, start: int, count: int) -> NDArray[Any]:
        """The tokens from `start` on, (count,), in the type they are stored in."""

    def name_at(self, position: int) -> str:
        """What a message calls the place of this token."""

    def arrays(self) -> list[NDArray[Any]]:
        """All tokens, mapped and read-only when they lie in files; one array a file."""


@dataclass(frozen=True, kw_only=True)
class TokenFile:
    """Where tokens lie in a file."""

    path: Path
    """The file."""
    n_tokens: int
    """Tokens in it."""
    offset: int = 0
    """Bytes before the first token."""


class FileTokens:
    """Tokens of several files, one after the other; can be shared by threads, forked and pickled."""

    def __init__(self, files: Sequence[TokenFile], dtype: np.dtype[Any]) -> None:
        self.files = tuple(files)
        self.dtype = dtype
        self._ends = list(accumulate(file.n_tokens for file in self.files))
        self._opened: dict[int, int] = {}
        weakref.finalize(self, _close, self._opened)

    def __getstate__(self) -> dict[str, Any]:
        return {"files": self.files, "dtype": self.dtype}

    def __setstate__(self, state: dict[str, Any]) -> None:
        FileTokens.__init__(self, **state)

    @property
    def n_tokens(self) -> int:
        """Length of the row."""
        return self._ends[-1] if self._ends else 0

    def read(self, start: int, count: int) -> NDArray[Any]:
        """The tokens from `start` on, (count,); they must all exist.

        Raises:
            FormatError: The file has become shorter since it was opened.
            OSError: It cannot be read.
        """
        number = bisect_right(self._ends, start)
        if start + count <= self._ends[number]:
            return np.frombuffer(self._read_file(number, start, count), self.dtype)
        parts = []
        while count:
            taken = min(count, self._ends[number] - start)
            parts.append(self._read_file(number, start, taken))
            start, count, number = start + taken, count - taken, number + 1
        return np.frombuffer(b"".join(parts), self.dtype)

    def name_at(self, position: int) -> str:
        """What a message calls the place of this token."""
        return str(self.files[bisect_right(self._ends, position)].path)

    def arrays(self) -> list[NDArray[Any]]:
        """All tokens, one array a file; those of files are mapped and read-only."""
        return [
            np.memmap(file.path, self.dtype, mode="r", offset=file.offset, shape=(file.n_tokens,))
            for file in self.files
            if file.n_tokens
        ]

    def _read_file(self, number: int, start: int, count: int) -> bytes:
        """Bytes of the tokens from `start`, a place in the whole row, all of them in this file."""
        file, width = self.files[number], self.dtype.itemsize
        offset = file.offset + (start - self._ends[number] + file.n_tokens) * width
        descriptor = self._opened.get(number)
        if descriptor is not None:
            data = _read_at(descriptor, count * width, offset)
        else:
            data = self._open_and_read(number, count * width, offset)
        if len(data) != count * width:
            raise FormatError(
                f"{file.path}: {len(data)} bytes at offset {offset}, but {count * width} were promised when it was "
                "opened; the file was cut short since, write the shards again"
            )
        return data

    def _open_and_read(self, number: int, n_bytes: int, offset: int) -> bytes:
        descriptor = os.open(self.files[number].path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        keep = len(self._opened) < _KEPT_FILES and self._opened.setdefault(number, descriptor) == descriptor
        try:
            return _read_at(descriptor, n_bytes, offset)
        finally:
            if not keep:
                os.close(descriptor)


class ArrayTokens:
    """Tokens in memory."""

    def __init__(self, array: NDArray[Any], name: str) -> None:
        self.array = array
        self.name = name

    @property
    def n_tokens(self) -> int:
        """Length of the row."""
        return len(self.array)

    def read(self, start: int, count: int) -> NDArray[Any]:
        """The tokens from `start` on, (count,); they must all exist."""
        return self.array[start : start + count]

    def name_at(self, position: int) -> str:
        """What a message calls the place of this token."""
        return self.name

    def arrays(self) -> list[NDArray[Any]]:
        """All tokens, one array a file; those of files are mapped and read-only."""
        return [self.array]


def _read_at(descriptor: int, n_bytes: int, offset: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(descriptor, n_bytes, offset)
    os.lseek(descriptor, offset, os.SEEK_SET)  # Windows: two threads must not share one dataset
    return os.read(descriptor, n_bytes)


def _close(descriptors: dict[int, int]) -> None:
    while descriptors:
        os.close(descriptors.popitem()[1])
