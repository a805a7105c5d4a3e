"""From a token of a prepared folder back to the text it came from."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinygpt._core import FormatError
from tinygpt.manifest import Manifest, Shard

PACKED = (".gz", ".zst", ".xz", ".bz2", ".zip", ".tar", ".tgz")
"""Endings of files whose bytes are not those of the text in them."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a document of a prepared folder came from."""

    path: str | None
    """Its file, as the manifest names it; None for a document that came from no file."""
    start: int
    """First byte of its record in the unpacked file; the number of a document that came from no file."""
    end: int
    """Byte before which its record ends."""
    document: int
    """Its number in the split, from 0."""
    n_bytes: int | None = None
    """Bytes of the file when it was read."""

    def __str__(self) -> str:
        where = "texts of a program" if self.path is None else self.path
        unit = "number" if self.path is None else "bytes"
        return f"{where}, {unit} {self.start:,} to {self.end:,} (document {self.document:,} of the split)"


def origin_of(folder: str | Path, split: str, position: int) -> Origin:
    """Where the document with the token at `position` of a split came from.

    Args:
        folder: A prepared folder.
        split: "train" or "val".
        position: Place of a token in the split, from 0.

    Raises:
        FormatError: A file is damaged, or the folder is of before origins were written.
        ValueError: There is no such split or token.
    """
    folder = Path(folder)
    manifest = Manifest.load(folder)
    if split not in manifest.splits:
        raise ValueError(f"{folder} has no split {split!r}; it has {', '.join(manifest.splits) or 'none'}")
    manifest.check(folder, split=split)
    shards = manifest.splits[split]
    n_tokens = sum(shard.tokens for shard in shards)
    if not 0 <= position < n_tokens:
        raise ValueError(f"{folder} ({split}) has tokens 0 to {n_tokens - 1:,}, got {position:,}")
    document, entry = _find(folder, shards, position)
    file, start, end = entry
    sources = (manifest.corpus or {}).get("sources")
    if not sources:
        return Origin(path=None, start=start, end=end, document=document)
    if file >= len(sources):
        raise FormatError(f"{folder}: file {file}, but manifest.json lists {len(sources)}; write the shards again")
    source = sources[file]
    return Origin(path=source["path"], start=start, end=end, document=document, n_bytes=source.get("bytes"))


def text_of(origin: Origin) -> str:
    """The record of a document in a plain file, as it stands there.

    Raises:
        ValueError: It came from no file, the file is packed, or it is not as long as it was.
        OSError: The file is missing or cannot be read.
    """
    if origin.path is None:
        raise ValueError(f"document {origin.document} came from a program, which alone can show it")
    path = Path(origin.path)
    if path.suffix.lower() in PACKED:
        raise ValueError(f"{path}: packed; unpack it and look at bytes {origin.start} to {origin.end}")
    size = path.stat().st_size
    if origin.n_bytes is not None and size != origin.n_bytes:
        raise ValueError(f"{path}: {size} bytes, but {origin.n_bytes} when it was read; prepare it again")
    with path.open("rb") as file:
        file.seek(origin.start)
        return file.read(origin.end - origin.start).decode(errors="replace")


def _find(folder: Path, shards: tuple[Shard, ...], position: int) -> tuple[int, tuple[int, int, int]]:
    """Number of the document that holds a token, and its entry: it may end in a later shard than it holds the token."""
    before, start = 0, 0
    for shard in shards:
        path = folder / shard.file
        if shard.map_xxh3 is None:
            raise FormatError(f"{path}: no origins, which older versions did not write; write the shards again")
        if position < start + shard.tokens and shard.documents:
            ends = _entries(path.with_suffix(".idx"), shard.documents, 1)[:, 0]
            place = int(np.searchsorted(ends, np.uint64(max(0, position - start)), side="right"))
            if place < shard.documents:
                entry = _entries(path.with_suffix(".map"), shard.documents, 3)[place]
                return before + place, (int(entry[0]), int(entry[1]), int(entry[2]))
        before, start = before + shard.documents, start + shard.tokens
    raise FormatError(f"{folder}: no document ends after token {position}; write the shards again")


def _entries(path: Path, n_documents: int, width: int) -> NDArray[np.uint64]:
    """A sidecar's numbers, (documents, width): mapped, for it may be larger than memory."""
    return np.memmap(path, np.dtype("<u8"), "r", shape=(n_documents, width))
