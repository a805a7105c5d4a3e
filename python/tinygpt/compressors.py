"""How many bytes general compressors make of a text: the figures that a model of language has to beat."""

import zlib
from collections.abc import Iterable
from importlib import import_module
from typing import Any

ZSTD_LEVEL = 19


def zlib_bytes(blocks: Iterable[bytes]) -> int:
    """Bytes of the blocks as one text under zlib at level 9.

    Example:
        >>> zlib_bytes([b"a" * 500, b"a" * 500])
        17
    """
    compressor = zlib.compressobj(9)
    return sum(len(compressor.compress(block)) for block in blocks) + len(compressor.flush())


def zstd_bytes(blocks: Iterable[bytes], n_bytes: int) -> int | None:
    """Bytes of the blocks as one text under zstd at level 19; None where there is no zstd.

    It is Python's own from 3.14 on, else that of the package zstandard, which the extra `evaluate` brings.

    Args:
        blocks: The text.
        n_bytes: Its length, which zstd chooses its settings by.
    """
    compressor = _compressor(n_bytes)
    if compressor is None:
        return None
    return sum(len(compressor.compress(block)) for block in blocks) + len(compressor.flush())


def zstd_shares(blocks: Iterable[bytes], n_bytes: int) -> list[int] | None:
    """Bytes that each block adds to those before it, under zstd made to end each; None where there is no zstd.

    Their sum is more than `zstd_bytes` has, as ending a block takes some bytes; what the blocks take beside each
    other is what they are for.
    """
    compressor = _compressor(n_bytes)
    if compressor is None:
        return None
    return [len(compressor.compress(block)) + len(compressor.flush(compressor.FLUSH_BLOCK)) for block in blocks]


def _compressor(n_bytes: int) -> Any:
    """What has `compress(block)`, `flush()` and `flush(FLUSH_BLOCK)`."""
    try:
        zstd: Any = import_module("compression.zstd")
        compressor = zstd.ZstdCompressor(level=ZSTD_LEVEL)
        compressor.set_pledged_input_size(n_bytes)
        return compressor
    except ImportError:
        pass
    try:
        zstandard: Any = import_module("zstandard")
    except ImportError:
        return None
    return _Zstandard(zstandard, n_bytes)


class _Zstandard:
    """The package's compressor under the names of Python's."""

    def __init__(self, zstandard: Any, n_bytes: int) -> None:
        self.FLUSH_BLOCK, self._end = zstandard.COMPRESSOBJ_FLUSH_BLOCK, zstandard.COMPRESSOBJ_FLUSH_FINISH
        inner = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compressobj(size=n_bytes)
        self.compress, self._flush = inner.compress, inner.flush

    def flush(self, mode: int | None = None) -> bytes:
        """What is still to come, of a block or of all."""
        found: bytes = self._flush(self._end if mode is None else mode)
        return found
