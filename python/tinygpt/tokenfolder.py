"""What a prepared folder gives a dataset: its tokens, where its documents end, which tokens are targets."""

from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinygpt._core import FormatError
from tinygpt.header import HEADER_BYTES
from tinygpt.manifest import Manifest
from tinygpt.targetbits import TARGETS_SUFFIX, TargetBits, Targets
from tinygpt.tokenfiles import OpenTokens
from tinygpt.tokenstream import FileTokens, TokenFile, TokenStream

_VERIFIED_BYTES = 4 * 2**30
_SCAN_TOKENS = 1 << 22


def open_folder(folder: Path, split: str, verify: bool | None) -> OpenTokens:
    """One split of a prepared folder.

    Raises:
        FormatError: A file is damaged, or the folder is not prepared.
        ValueError: There is no such split, or the folder is a part of a whole.
    """
    manifest = Manifest.load(folder)
    if manifest.part is not None:
        number, of = manifest.part
        raise ValueError(f"{folder} is part {number + 1} of {of}; join all of them with `tinygpt prepare --merge`")
    if split not in manifest.splits:
        raise ValueError(f"{folder} has no split {split!r}; it has {', '.join(manifest.splits) or 'none'}")
    shards, dtype = manifest.splits[split], np.dtype(manifest.dtype).newbyteorder("<")
    if verify is None:
        verify = sum(shard.tokens for shard in shards) * dtype.itemsize <= _VERIFIED_BYTES
    manifest.check(folder, split=split, verify=verify)
    files = [TokenFile(path=folder / each.file, n_tokens=each.tokens, offset=HEADER_BYTES) for each in shards]
    return OpenTokens(
        tokens=FileTokens(files, dtype),
        name=f"{folder} ({split})",
        vocab_size=manifest.vocab_size,
        eot_id=manifest.eot_id,
        fingerprint=manifest.fingerprint,
        n_documents=sum(shard.documents for shard in shards),
        n_bytes=sum(shard.bytes for shard in shards),
        folder=folder,
        targets=TargetBits([(file.path.with_suffix(TARGETS_SUFFIX), file.n_tokens) for file in files])
        if any(shard.targets is not None for shard in shards)
        else None,
        indices=tuple((file.path.with_suffix(".idx"), file.n_tokens) for file in files),
    )


def document_ends(opened: OpenTokens) -> NDArray[np.int64]:
    """Where each document ends in the stream, (N,): what follows the last end is a document, too.

    Raises:
        ValueError: Nothing says where documents end.
        FormatError: An `.idx` is damaged.
    """
    n_tokens = opened.tokens.n_tokens
    if opened.indices:
        ends = _read_indices(opened.indices)
    elif opened.eot_id is not None:
        ends = _find_ends(opened.tokens, opened.eot_id)
    else:
        raise ValueError(f"{opened.name}: nothing says where its documents end; give eot_id= or use mode stream")
    return np.append(ends, n_tokens) if n_tokens > (ends[-1] if len(ends) else 0) else ends


def n_learnable(folder: Path, split: str) -> int:
    """Targets of a split that can be learnt: those with a token before them in their document.

    Raises:
        FormatError: A file is damaged.
        ValueError: There is no such split.
    """
    opened = open_folder(folder, split, verify=False)
    ends = document_ends(opened)
    starts = np.concatenate([[0], ends[:-1]]) + 1
    return int((count_targets(opened.targets, starts, ends) if opened.targets is not None else ends - starts).sum())


def count_targets(targets: Targets, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Targets in each run of tokens from start to before end, (N,); reads a few megabytes at a time."""
    n_tokens, base = int(ends.max(initial=0)), 0
    counts = np.zeros(len(starts), np.int64)
    for low in range(0, n_tokens, _SCAN_TOKENS):
        before = np.concatenate([[0], np.cumsum(targets.read(low, min(_SCAN_TOKENS, n_tokens - low)))])
        for edges, sign in ((ends, 1), (starts, -1)):
            here = (edges > low) & (edges <= low + len(before) - 1)
            counts[here] += sign * (base + before[edges[here] - low])
        base += int(before[-1])
    return counts


def _read_indices(indices: tuple[tuple[Path, int], ...]) -> NDArray[np.int64]:
    """Ends of all documents, counted from the start of the first shard."""
    starts, all_ends = accumulate((n_tokens for _, n_tokens in indices), initial=0), []
    for (path, n_tokens), start in zip(indices, starts, strict=False):
        ends = np.fromfile(path, "<u8")
        if len(ends) and (ends[-1] > n_tokens or (ends[1:] < ends[:-1]).any()):
            raise FormatError(f"{path}: document ends do not rise to at most {n_tokens} tokens; write the shards again")
        all_ends.append(ends.astype(np.int64) + start)
    return np.concatenate(all_ends) if all_ends else np.empty(0, np.int64)


def _find_ends(tokens: TokenStream, eot_id: int) -> NDArray[np.int64]:
    """Ends of all documents, found by reading the whole stream a few megabytes at a time."""
    found = [np.empty(0, np.int64)]
    for start in range(0, tokens.n_tokens, _SCAN_TOKENS):
        block = tokens.read(start, min(_SCAN_TOKENS, tokens.n_tokens - start))
        found.append(np.flatnonzero(block == eot_id) + start + 1)
    return np.concatenate(found)
