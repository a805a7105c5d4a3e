"""Shards and prepared folders, written byte by byte from the description in docs/architecture.md, without our code."""

import json
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
from tinygpt._core import xxh3_file

FINGERPRINT = "0123456789abcdef" * 4


def write_llm_c(path: Path, tokens: Sequence[int], *, wide: bool = False) -> Path:
    """A shard as llm.c writes it: three words, then zeros, then tokens."""
    header = np.zeros(256, "<i4")
    header[:3] = (20240801, 7, len(tokens)) if wide else (20240520, 1, len(tokens))
    path.write_bytes(header.tobytes() + np.array(tokens, "<u4" if wide else "<u2").tobytes())
    return path


def write_shard(path: Path, documents: Sequence[Sequence[int]], *, vocab_size: int, eot_id: int | None) -> Path:
    """A uint16 shard of ours with its .idx; its text counts two bytes a token."""
    tokens = [token for document in documents for token in document]
    header = np.zeros(256, "<i4")
    header[:8] = 20240520, 1, len(tokens), 0x54504774, 1, 8, vocab_size, -1 if eot_id is None else eot_id
    header[8:12] = np.array([len(documents), 2 * len(tokens)], "<u8").view("<i4")
    header[12:16] = np.frombuffer(bytes.fromhex(FINGERPRINT[:32]), "<i4")
    path.write_bytes(header.tobytes() + np.array(tokens, "<u2").tobytes())
    ends = list(accumulate(len(document) for document in documents))
    path.with_suffix(".idx").write_bytes(np.array(ends, "<u8").tobytes())
    return path


def write_folder(
    folder: Path,
    splits: Mapping[str, Sequence[Sequence[Sequence[int]]]],
    *,
    vocab_size: int = 1000,
    eot_id: int | None = 999,
) -> Path:
    """A prepared folder: for each split its shards, for each shard its documents, for each document its ids."""
    folder.mkdir(parents=True, exist_ok=True)
    listed: dict[str, list[dict[str, int | str]]] = {}
    for split, shards in splits.items():
        listed[split] = []
        for number, documents in enumerate(shards):
            path = write_shard(folder / f"{split}_{number:06}.bin", documents, vocab_size=vocab_size, eot_id=eot_id)
            count = sum(map(len, documents))
            sums = {"xxh3": xxh3_file(str(path)), "idx_xxh3": xxh3_file(str(path.with_suffix(".idx")))}
            sizes = {"tokens": count, "documents": len(documents), "bytes": 2 * count}
            listed[split].append({"file": path.name, **sizes, **sums})
    manifest = {
        "format": "tinygpt-shards", "version": 1, "vocab_size": vocab_size, "eot_id": eot_id, "dtype": "uint16",
        "fingerprint": FINGERPRINT, "val_fraction": 0.01, "shard_tokens": 100, "corpus": None, "report": {},
        "splits": listed,
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder
