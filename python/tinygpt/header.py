"""The header of a shard, as llm.c and modded-nanogpt read it, with the words that they leave zero."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinygpt._core import FormatError

HEADER_BYTES = 1024
_MAGIC = {(20240520, 1): "uint16", (20240801, 7): "uint32"}
_OURS = int.from_bytes(b"tGPT", "little")


@dataclass(frozen=True, kw_only=True)
class Header:
    """What the first 1,024 bytes of a shard say; a file of llm.c or modded-nanogpt leaves all but two unsaid."""

    dtype: str
    """Type of a token, "uint16" or "uint32"."""
    n_tokens: int
    """Tokens in the file."""
    vocab_size: int | None = None
    """Ids are below this."""
    eot_id: int | None = None
    """Id that ends each document."""
    n_documents: int | None = None
    """Documents that end in the file."""
    n_bytes: int | None = None
    """Bytes of the text before encoding."""
    fingerprint: str | None = None
    """First 32 hex digits of the tokenizer's fingerprint."""


def has_header(path: str | Path) -> bool:
    """Whether the file starts like a shard, whole or not."""
    with Path(path).open("rb") as file:
        return tuple(np.frombuffer(file.read(8).ljust(8, b"\0"), "<i4").tolist()) in _MAGIC


def read_header(path: str | Path) -> Header:
    """Header of a shard of ours, of llm.c or of modded-nanogpt, found to agree with the file's size.

    Raises:
        FormatError: The file is no such shard, or it is longer or shorter than its header promises.
        OSError: The file cannot be read.

    Source: llm.c, dev/data/data_common.py, for words 0 to 2; docs/formats.md for ours.
    """
    path = Path(path)
    with path.open("rb") as file:
        raw = file.read(HEADER_BYTES)
    if len(raw) < HEADER_BYTES:
        raise FormatError(f"{path}: {len(raw)} bytes, too short for the {HEADER_BYTES} of a shard's header")
    words = np.frombuffer(raw, "<i4")
    dtype = _MAGIC.get((int(words[0]), int(words[1])))
    if dtype is None:
        raise FormatError(
            f"{path}: starts with {words[0]}, {words[1]}, no shard's magic and version (20240520, 1 or 20240801, 7); "
            "for raw tokens without a header give dtype= and vocab_size="
        )
    n_tokens, size = int(words[2]), path.stat().st_size
    promised = HEADER_BYTES + n_tokens * np.dtype(dtype).itemsize
    if n_tokens < 0 or size != promised:
        raise FormatError(
            f"{path}: {size} bytes, but its header promises {n_tokens} tokens ({promised} bytes); "
            "write the shards again"
        )
    if int(words[3]) != _OURS:
        return Header(dtype=dtype, n_tokens=n_tokens)
    if int(words[4]) != 1:
        raise FormatError(f"{path}: header version {words[4]}, but this tinygpt reads 1; update it")
    counts = np.frombuffer(raw, "<u8", count=2, offset=32)
    return Header(
        dtype=dtype,
        n_tokens=n_tokens,
        vocab_size=int(words[6]),
        eot_id=int(words[7]) if words[7] >= 0 else None,
        n_documents=int(counts[0]),
        n_bytes=int(counts[1]),
        fingerprint=raw[48:64].hex(),
    )
