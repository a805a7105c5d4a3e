"""TextFigures: what the prepared text of a run is like, measured in one pass over its tokens."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygpt.anytokenizer import AnyTokenizer
from tinygpt.compressors import ZSTD_LEVEL, zlib_bytes, zstd_bytes
from tinygpt.diagnosis.record import Record
from tinygpt.foreigntokenizer import tokenizer_in
from tinygpt.heldout import HeldOut
from tinygpt.ngramsearch import find, queries_of
from tinygpt.tokenfiles import OpenTokens
from tinygpt.tokenfolder import document_ends, open_folder

Progress = Callable[[int, int | None], object]
# 50 tokens of a vocabulary of 50,000, some 200 bytes, are no chance repetition any more (Lee et al. 2022,
# arXiv:2107.06499); with few ids it takes more tokens to make as many bytes.
STRETCH_BYTES, STRETCHES = 200, 1000
# An id is learnt from some 100 places; 95 % of the ids should have them (Gowda and May 2020, arXiv:2004.02334).
RARE = 100
COUNTED_TOKENS = 1 << 28
COMPRESSED_BYTES = 4_000_000
_BLOCK_TOKENS = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """Stretches of validation text that stand word for word in the training text."""

    n_found: int
    """How many."""
    n_asked: int
    """Of how many that were looked for."""
    length: int
    """Tokens of each."""
    example: str
    """Where the first one stands, as `tinygpt show` takes it."""


@dataclass(frozen=True, kw_only=True)
class TextFigures:
    """What a run's text is like; None where it does not say."""

    n_tokens: int
    """Tokens of training text."""
    n_longer: int
    """Ids of more than one byte, which were chosen for some text; single bytes are there in any case."""
    rare_fraction: float
    """Of those: ids that occur fewer than 100 times in the training text."""
    unseen_fraction: float
    """Of those: ids that never occur in it."""
    guess_loss: float
    """Nats a token of who knows how often each token occurs, and nothing else."""
    half_length: int | None = None
    """Half of the training tokens stand in documents of at most this many tokens."""
    repeated: Repeated | None = None
    """What validation text repeats of the training text."""
    compressor: str = ""
    """What the validation text was compressed with."""
    compressed_bits: float | None = None
    """Bits a byte that it makes of the validation text."""


def read_text_figures(record: Record, *, progress: Progress | None = None) -> TextFigures:
    """The figures of the text that a run was trained on.

    Args:
        record: The run.
        progress: Told the bytes of training text searched and the bytes there are.

    Raises:
        ValueError: The text cannot be read, is not where it was, or is another one now; the message says which.
        OSError: A file cannot be read.
    """
    if record.facts is None:
        raise ValueError("no checkpoint yet, which says where the text lies")
    data = record.facts.get("data") or {}
    train, shares = open_recorded(data.get("train"), record.folder)
    val, val_shares = open_recorded(data.get("val"), record.folder) if data.get("val") else ([], [])
    vocab_size = max(record.shape.vocab_size, *(each.vocab_size for each in (*train, *val)))
    counts = [count_ids(each, vocab_size) for each in train]
    judged = [count_ids(each, vocab_size) for each in val]
    folder = train[0].folder
    tokenizer = None if folder is None else tokenizer_in(folder)
    lengths = None if tokenizer is None else tokenizer.token_lengths()
    total = np.sum(counts, axis=0)
    if any(each.targets is not None for each in train):  # what is read is learnt, too
        total = np.sum([count_ids(each, vocab_size, targets=False) for each in train], axis=0)
    longer = total if lengths is None else total[: len(lengths[0])][lengths[0] > 1]
    return TextFigures(
        n_tokens=sum(each.tokens.n_tokens for each in train),
        n_longer=len(longer),
        rare_fraction=float((longer < RARE).sum() / max(1, len(longer))),
        unseen_fraction=float((longer == 0).sum() / max(1, len(longer))),
        guess_loss=guess_loss(mixed(counts, shares), mixed(judged or counts, val_shares or shares)),
        half_length=half_length(train),
        repeated=repeated(train, val, progress=progress),
        **_compressed(val, tokenizer),
    )


def open_recorded(facts: Mapping[str, Any] | None, run: Path) -> tuple[list[OpenTokens], list[float]]:
    """The tokens that a run's facts describe, source by source, and the share of the windows that each has.

    Raises:
        ValueError: They lay in no prepared folder, are no longer there, or are others now.
    """
    sources = (facts or {}).get("sources", [facts])
    weights = [float(Fraction(weight)) for weight in (facts or {}).get("weights", [1])]
    opened = []
    for each in sources:
        if not each or each.get("folder") is None:
            raise ValueError("its tokens lay in no prepared folder")
        folder = run / each["folder"]
        if not (folder / "manifest.json").is_file():
            raise ValueError(f"{folder} is no longer there")
        if hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest() != each["manifest_sha256"]:
            raise ValueError(f"{folder} holds other text now")
        opened.append(open_folder(folder, each["open"]["split"], verify=False))
    return opened, weights


def count_ids(opened: OpenTokens, vocab_size: int, *, targets: bool = True) -> NDArray[np.int64]:
    """How often each id stands, or is a target, in the first 268 million tokens, (V,)."""
    counts = np.zeros(vocab_size, np.int64)
    for start in range(0, min(opened.tokens.n_tokens, COUNTED_TOKENS), _BLOCK_TOKENS):
        count = min(_BLOCK_TOKENS, opened.tokens.n_tokens - start)
        ids = opened.tokens.read(start, count)
        kept = ids if opened.targets is None or not targets else ids[opened.targets.read(start, count)]
        counts += np.bincount(kept, minlength=vocab_size)[:vocab_size]
    return counts


def mixed(counts: Sequence[NDArray[np.int64]], shares: Sequence[float]) -> NDArray[np.float64]:
    """How likely each id is where every source has its share of the tokens, (V,)."""
    rows = [share * each / max(1, each.sum()) for each, share in zip(counts, shares, strict=True)]
    total = np.sum(rows, axis=0)
    return np.asarray(total / max(total.sum(), 1e-300), np.float64)


def guess_loss(known: NDArray[np.float64], judged: NDArray[np.float64], *, unseen: float = 1e-6) -> float:
    """Nats a token of who knows how likely each id is by itself, and nothing of what stands before it.

    Args:
        known: What is known, (V,).
        judged: How likely each id is in what is judged, (V,).
        unseen: Probability that all ids share beside what is known.

    Example:
        >>> round(guess_loss(np.array([0.5, 0.5]), np.array([0.5, 0.5])), 4)
        0.6931
    """
    likely = (1 - unseen) * known + unseen / len(known)
    return float(-(judged * np.log(likely)).sum())


def half_length(sources: Sequence[OpenTokens]) -> int | None:
    """Half of the tokens stand in documents of at most this many; None where nothing says where documents end."""
    try:
        lengths = np.sort(np.concatenate([np.diff(document_ends(each), prepend=0) for each in sources]))
    except ValueError:
        return None
    below = np.cumsum(lengths)
    return int(lengths[np.searchsorted(below, below[-1] / 2)]) if len(lengths) else None


def repeated(
    train: Sequence[OpenTokens], val: Sequence[OpenTokens], *, progress: Progress | None = None
) -> Repeated | None:
    """Which share of stretches of validation text, taken evenly from all of it, stands in the training text.

    Documents of half a stretch and more are looked for besides, by their first half of one: where they are shuffled,
    a stretch that runs over two of them is nowhere else. The larger share counts.

    Args:
        train: The training text.
        val: The validation text.
        progress: As in `ngramsearch.find`.
    """
    n_bytes, n_tokens = sum(each.n_bytes or 0 for each in val), sum(each.tokens.n_tokens for each in val)
    if not n_bytes:
        return None
    length = max(8, math.ceil(STRETCH_BYTES * n_tokens / n_bytes))
    anywhere, begins = [], []
    for each in val:
        last = each.tokens.n_tokens - length
        if last >= 0:
            places = np.unique(np.linspace(0, last, STRETCHES // len(val)).astype(np.int64))
            anywhere += [each.tokens.read(place, length) for place in places.tolist()]
        ends = document_ends(each) if each.indices else np.zeros(0, np.int64)
        starts = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
        short = starts[(ends - starts >= length // 2) & (ends - starts < length)]
        begins += [each.tokens.read(place, length // 2) for place in short[: STRETCHES // len(val)].tolist()]
    asked = [queries_of(anywhere, length), queries_of(begins, length // 2)]
    found = find(asked, [each.tokens for each in train], progress=progress)
    shares = [_repeated_of(query.counts, place, query.length, train) for query, place in zip(asked, found, strict=True)]
    return max((each for each in shares if each), key=lambda each: each.n_found / each.n_asked, default=None)


def _repeated_of(
    counts: NDArray[np.int64], places: NDArray[np.int64], length: int, train: Sequence[OpenTokens]
) -> Repeated | None:
    if not len(counts):
        return None
    is_found = places[:, 0] >= 0
    row, place = places[is_found][0].tolist() if is_found.any() else (0, 0)
    return Repeated(
        n_found=int(counts[is_found].sum()),
        n_asked=int(counts.sum()),
        length=length,
        example=f"tinygpt show {train[row].folder} --at train:{place}",
    )


def _compressed(val: Sequence[OpenTokens], tokenizer: AnyTokenizer | None) -> dict[str, Any]:
    """What a compressor makes of the beginning of the validation text; nothing for chats, whose answers alone count."""
    if not val or tokenizer is None or any(each.targets is not None for each in val):
        return {}
    texts = []
    for each in val:
        share = min(each.tokens.n_tokens, COMPRESSED_BYTES // len(val))
        held = HeldOut(opened=each, ends=np.array([share], np.int64), tokenizer=tokenizer)
        texts.append(held.text_of(held.read(0, share))[: COMPRESSED_BYTES // len(val)])
    size = sum(map(len, texts))
    if not size:
        return {}
    name, found = f"zstd -{ZSTD_LEVEL}", zstd_bytes(texts, size)
    if found is None:
        name, found = "zlib -9", zlib_bytes(texts)
    return {"compressor": name, "compressed_bits": 8 * found / size}
