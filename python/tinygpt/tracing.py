"""From a token of a prepared folder back to the text it came from."""

import codecs
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinygpt._core import Files, FormatError
from tinygpt.manifest import Manifest, Shard
from tinygpt.parquetrows import open_rows

_WHOLE = 2**62


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a document of a prepared folder came from."""

    path: str | None
    """Its file, as the manifest names it; None for a document that came from no file."""
    start: int
    """First byte of its record in the unpacked file, its row in Parquet; the number of a document from no file."""
    end: int
    """Byte before which its record ends."""
    document: int
    """Its number in the split, from 0."""
    n_bytes: int | None = None
    """Bytes of the file when it was read."""
    format: str | None = None
    """What the file is, where it was said and not told from its name."""
    text_field: str | None = None
    """Which column holds text, where it was said."""

    def __str__(self) -> str:
        where = "texts of a program" if self.path is None else _place(self.path)
        unit = "number" if self.path is None else "row" if self._is_table() else "bytes"
        return f"{where}, {unit} {self.start:,} to {self.end:,} (document {self.document:,} of the split)"

    def _is_table(self) -> bool:
        return self.format == "parquet" or (self.format is None and str(self.path).lower().endswith(".parquet"))


def origin_of(folder: str | Path, split: str, position: int) -> Origin:
    """Where the document with the token at `position` of a split came from.

    Args:
        folder: A prepared folder.
        split: "train" or "val".
        position: Place of a token in the split, from 0.

    Raises:
        FormatError: A file is damaged, or the folder is of before its origins were written.
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
    manifest.check_origins(folder)
    document, entry = _find(folder, shards, position)
    file, start, end = entry
    corpus = manifest.corpus or {}
    sources = corpus.get("sources")
    if not sources:
        return Origin(path=None, start=start, end=end, document=document)
    if file >= len(sources):
        raise FormatError(f"{folder}: file {file}, but manifest.json lists {len(sources)}; write the shards again")
    source = sources[file]
    return Origin(
        path=source["path"],
        start=start,
        end=end,
        document=document,
        n_bytes=source.get("bytes"),
        format=corpus.get("format"),
        text_field=corpus.get("text_field"),
    )


def text_of(origin: Origin) -> str:
    """The record of a document as it stands in its unpacked file; of Parquet, the text of its row.

    Raises:
        ValueError: It came from no file, or the file is not as long as it was or is damaged before the record.
        OSError: The file is missing or cannot be read.
    """
    return ends_of(origin, most_bytes=_WHOLE)[0]


def ends_of(origin: Origin, *, most_bytes: int) -> tuple[str, int, str]:
    """The first and last `most_bytes` of a record, whole characters, and how many bytes are between them.

    A record that is not longer than both is the first of these. What is packed is unpacked up to there, in memory that
    grows with `most_bytes` alone.

    Raises:
        ValueError: As `text_of`.
        OSError: As `text_of`.
    """
    if origin.path is None:
        raise ValueError(f"document {origin.document} came from a program, which alone can show it")
    if origin.path == "-":
        raise ValueError(f"document {origin.document} came from standard input, which is gone")
    path = Path(origin.path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; go to the folder that it was prepared from, or bring it back")
    size = path.stat().st_size
    if origin.n_bytes is not None and size != origin.n_bytes:
        raise ValueError(f"{path}: {size} bytes, but {origin.n_bytes} when it was read; prepare it again")
    files = Files([str(path)], format=origin.format, text_field=origin.text_field, open_rows=open_rows)
    head, between, tail = files.passage(0, origin.start, origin.end, most=most_bytes)
    if not tail:
        return head.decode(errors="replace"), 0, ""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    first, torn = decoder.decode(head), len(decoder.getstate()[0])
    whole = tail[:4].lstrip(bytes(range(0x80, 0xC0))) + tail[4:]  # what is left of a character that was cut goes
    return first, between + torn + len(tail) - len(whole), whole.decode(errors="replace")


def _place(path: str) -> str:
    return "standard input" if path == "-" else path


def _find(folder: Path, shards: tuple[Shard, ...], position: int) -> tuple[int, tuple[int, int, int]]:
    """Number of the document that holds a token, and its entry: it may end in a later shard than it holds the token."""
    before, start = 0, 0
    for shard in shards:
        path = folder / shard.file
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
