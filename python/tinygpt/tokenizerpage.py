"""What a page says of a tokenizer: figures, longest tokens, and a text in tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinygpt._core import FormatError
from tinygpt.chart import Chart, Series
from tinygpt.foreigntokenizer import LoadedTokenizer, tokenizer_in
from tinygpt.header import HEADER_BYTES, read_header
from tinygpt.manifest import Manifest
from tinygpt.tokenizer import Tokenizer
from tinygpt.tokenview import escaped, shortened

SHOWN_TOKENS = 320
_LONGEST = 12
_SHOWN_CHARACTERS = 48


@dataclass(frozen=True, kw_only=True)
class ShownToken:
    """A token as a page shows it."""

    id: int
    """Its id."""
    text: str
    """Its bytes, with what cannot be seen escaped."""
    n_bytes: int
    """How many these are."""
    is_special: bool
    """Whether it stands for no text."""
    ends_line: bool
    """Whether the line ends with it."""


@dataclass(frozen=True, kw_only=True)
class TokenizerPage:
    """What is said of a tokenizer; what its kind does not tell is empty."""

    rows: Mapping[str, str]
    """Name -> value."""
    lengths: Chart | None
    """How many ids have how many bytes."""
    longest: Sequence[ShownToken]
    """The longest tokens, longest first."""
    shown: Sequence[ShownToken]
    """The beginning of a text."""
    shown_from: str
    """Which text."""


def tokenizer_page(checkpoint: Path | None, prepared: Sequence[tuple[Path, Manifest]]) -> TokenizerPage | None:
    """What there is to say of a run's tokenizer; None where it has none.

    Args:
        checkpoint: A checkpoint, which holds its tokenizer.
        prepared: Prepared folders of its data, with their manifests: the first tells bytes per token and lends a text.

    Raises:
        FormatError: The tokenizer or a shard is damaged.
    """
    places = [*([] if checkpoint is None else [checkpoint]), *(folder for folder, _ in prepared)]
    found = next((each for place in places if place.is_dir() and (each := tokenizer_in(place)) is not None), None)
    if found is None:
        return None
    rows = {"ids": f"{found.vocab_size:,}", **_kind(found)}
    rows["special tokens"] = ", ".join(f"{name} = {i}" for name, i in found.special_tokens.items()) or "none"
    rows["fingerprint"] = found.fingerprint[:16]
    kin = [(folder, manifest) for folder, manifest in prepared if manifest.fingerprint == found.fingerprint]
    for folder, manifest in kin[:1]:
        rows |= _economy(folder, manifest)
    if not isinstance(found, Tokenizer):
        return TokenizerPage(rows=rows, lengths=None, longest=(), shown=(), shown_from="")
    n_bytes = found.token_lengths()[0].astype(np.int64)
    rows["unused ids"] = f"{found.vocab_size - np.count_nonzero(n_bytes) - len(set(found.special_tokens.values())):,}"
    longest = np.argsort(-n_bytes, kind="stable")[:_LONGEST].tolist()
    where, ids = next(((f"{folder.name}, {split}", ids) for folder, split, ids in _beginnings(kin)), ("", []))
    return TokenizerPage(
        rows=rows,
        lengths=_lengths(n_bytes),
        longest=_shown(found, longest),
        shown=_shown(found, [i for i in ids if i < found.vocab_size]),
        shown_from=where,
    )


def _kind(tokenizer: LoadedTokenizer) -> dict[str, str]:
    if isinstance(tokenizer, Tokenizer):
        return {"merges": f"{len(tokenizer.merges):,}", "pattern": tokenizer.pattern}
    return {"read by": "a library; its ids do not say which bytes they stand for"}


def _economy(folder: Path, manifest: Manifest) -> dict[str, str]:
    """Bytes that a token stands for, by split."""
    rows = {}
    for split, shards in manifest.splits.items():
        tokens, n_bytes = sum(shard.tokens for shard in shards), sum(shard.bytes for shard in shards)
        if tokens:
            rows[f"bytes per token, {split}"] = f"{n_bytes / tokens:.3f} ({n_bytes:,} bytes, {tokens:,} tokens)"
    return rows


def _lengths(n_bytes: np.typing.NDArray[np.int64]) -> Chart:
    counts = np.bincount(n_bytes[n_bytes > 0])
    places = np.flatnonzero(counts)
    series = Series(name="ids", x=places.astype(float), y=counts[places].astype(float), has_markers=True)
    return Chart(title="Lengths of tokens", x_unit="bytes of a token", y_unit="ids", series=[series])


def _shown(tokenizer: Tokenizer, ids: Sequence[int]) -> list[ShownToken]:
    specials = set(tokenizer.special_tokens.values())
    tokens = [(i, tokenizer.token_bytes(i)) for i in ids]
    return [
        ShownToken(
            id=i,
            text=shortened(escaped(token), _SHOWN_CHARACTERS),
            n_bytes=len(token),
            is_special=i in specials,
            ends_line=token.endswith(b"\n"),
        )
        for i, token in tokens
    ]


def _beginnings(prepared: Sequence[tuple[Path, Manifest]]) -> "list[tuple[Path, str, list[int]]]":
    """The first tokens of each split, val first: what the model has not learnt by heart."""
    found = []
    for folder, manifest in prepared:
        for split in sorted(manifest.splits, key=lambda name: name != "val"):
            shards = [shard for shard in manifest.splits[split] if shard.tokens]
            if not shards:
                continue
            header = read_header(folder / shards[0].file)
            n = min(SHOWN_TOKENS, header.n_tokens)
            raw = np.fromfile(folder / shards[0].file, header.dtype, n, offset=HEADER_BYTES)
            if len(raw) < n:
                raise FormatError(f"{folder / shards[0].file}: cut short; write the shards again")
            found.append((folder, split, raw.tolist()))
    return found
