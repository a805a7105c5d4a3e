"""What compressors and an n-gram model reach on the text that a model is judged on: the scale of its bits per byte."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygpt.comparison import Comparison, compare
from tinygpt.compressors import zlib_bytes, zstd_bytes, zstd_shares
from tinygpt.corpus import Progress
from tinygpt.evaluation import Sums, scored_texts, tally_blocks
from tinygpt.heldout import HeldOut
from tinygpt.kneserney import ORDER, KneserNey
from tinygpt.tokenfiles import OpenTokens
from tinygpt.tokenfolder import open_folder
from tinygpt.trainingstate import TRAINER_FILE, read_facts

MOST_COMPRESSED_GROUPS = 20
"""Groups of documents that are compressed one by one; of more, the whole alone is."""
_STRETCHES = 100
Bar = Callable[[str], AbstractContextManager[Progress | None]]


@dataclass(frozen=True, kw_only=True)
class Baselines:
    """Bits per byte of others on the same bytes; None where not measured."""

    zlib: float | None
    """zlib at level 9."""
    zstd: float | None
    """zstd at level 19."""
    ngram: float | None
    """Interpolated modified Kneser-Ney over the same tokens, learnt from the training text."""
    ngram_loss: float | None
    """Its nats per token."""
    against_zstd: Comparison | None = None
    """The model beside zstd, document by document; of all documents alone."""
    against_ngram: Comparison | None = None
    """The model beside the n-gram model, likewise."""


def measure_baselines(
    held_out: HeldOut,
    sums: Sums,
    ngram: KneserNey | None,
    *,
    apart: bool = False,
    count_separators: bool = True,
    bar: Bar = lambda stage: nullcontext(),
) -> list[Baselines]:
    """What others reach on all the documents, and then on each group of them.

    Args:
        held_out: The documents.
        sums: What `evaluate_documents` found of them.
        ngram: The n-gram model; None leaves it out.
        apart: As in `evaluate_documents`.
        count_separators: Likewise; compressors are given a byte for each separator then.
        bar: Shows what is done.
    """
    n_groups = len(held_out.names)
    chosen: list[NDArray[np.bool_]] = [np.ones(held_out.n_documents, bool)]
    if held_out.groups is not None:
        chosen += [held_out.groups == i for i in range(n_groups)]
    nats = None
    against: dict[str, Comparison | None] = {}
    if ngram is not None:
        with bar("n-grams") as progress:
            how: dict[str, Any] = {"apart": apart, "count_separators": count_separators, "progress": progress}
            nats = tally_blocks(held_out, ngram.nats, overlap=ngram.order - 1, **how).nats
        against["against_ngram"] = compare(sums.nats, nats / math.log(2), sums.n_bytes)
    found = []
    for i, each in enumerate(chosen):
        n_bytes, n_tokens = int(sums.n_bytes[each].sum()), int(sums.n_tokens[each].sum())
        cost = None if nats is None else float(nats[each].sum())
        zlib = zstd = None
        if n_bytes and (i == 0 or n_groups <= MOST_COMPRESSED_GROUPS):
            numbers = np.flatnonzero(each)
            texts = partial(scored_texts, held_out, numbers, apart=apart, count_separators=count_separators)
            with bar("zlib and zstd") as progress:
                zlib, zstd = _compressed(texts, progress)
            if i == 0 and zstd is not None:
                with bar("zstd by document") as progress:
                    against["against_zstd"] = compare(sums.nats, _shared_bits(texts, zstd, progress), sums.n_bytes)
        found.append(
            Baselines(
                zlib=None if zlib is None else 8 * zlib / n_bytes,
                zstd=None if zstd is None else 8 * zstd / n_bytes,
                ngram=None if cost is None or not n_bytes else cost / math.log(2) / n_bytes,
                ngram_loss=None if cost is None or not n_tokens else cost / n_tokens,
                **(against if i == 0 else {}),
            )
        )
    return found


def _compressed(texts: Callable[[], Iterator[bytes]], progress: Progress | None) -> tuple[int, int | None]:
    """Bytes under zlib and zstd of what `texts` gives anew each time."""
    size = sum(map(len, texts()))
    return zlib_bytes(_told(texts(), size, progress)), zstd_bytes(_told(texts(), size, progress), size)


def _shared_bits(texts: Callable[[], Iterator[bytes]], total: int, progress: Progress | None) -> NDArray[np.float64]:
    """Bits of each text's share of the `total` bytes that zstd makes of all as one: (D,)."""
    size = sum(map(len, texts()))
    shares = np.array(zstd_shares(_told(texts(), size, progress), size), np.float64)
    return shares * (8 * total / float(shares.sum()))


def learn_ngrams(training: Sequence[OpenTokens], *, max_tokens: int, order: int = ORDER) -> KneserNey:
    """A Kneser-Ney model of at most so many training tokens, taken from all of them in up to 100 stretches.

    Memory is bounded by `max_tokens`: 160 bytes for each. Where a stretch ends and the next begins, a few
    n-grams are made that no text has.

    Args:
        training: The rows of tokens.
        max_tokens: Most tokens to learn from.
        order: Tokens of the longest n-grams.
    """
    rows = [each.tokens for each in training]
    total = sum(row.n_tokens for row in rows)
    parts = []
    for row in rows:
        share = row.n_tokens if total <= max_tokens else max_tokens * row.n_tokens // total
        n_stretches = 1 if share == row.n_tokens else min(_STRETCHES, max(1, share // 100))
        edges = [share * i // n_stretches for i in range(n_stretches + 1)]
        for i, (low, high) in enumerate(pairwise(edges)):
            if high > low:
                parts.append(row.read(row.n_tokens * i // n_stretches, high - low))
    tokens = np.concatenate(parts) if parts else np.zeros(0, np.uint32)
    return KneserNey(tokens, vocab_size=max(each.vocab_size for each in training), order=order)


def open_training(folders: Sequence[Path], fingerprint: str) -> list[OpenTokens]:
    """The train splits of prepared folders, which must hold the tokens of one tokenizer.

    Raises:
        ValueError: A folder has no train split, or is of another tokenizer.
        FormatError: A folder is not prepared, or damaged.
    """
    opened = [open_folder(folder, "train", verify=False) for folder in folders]
    for each in opened:
        if each.fingerprint != fingerprint:
            found = f"{(each.fingerprint or 'none')[:8]}, the checkpoint's has {fingerprint[:8]}"
            what = f"its tokenizer has the fingerprint {found}"
            raise ValueError(f"{each.name}: {what}; name the folder that the model was trained on")
    return opened


def training_folders(checkpoint: Path) -> list[Path]:
    """The prepared folders that a checkpoint says it was trained on, those that are still there."""
    if not (checkpoint / TRAINER_FILE).is_file():
        return []
    facts = (read_facts(checkpoint).get("data") or {}).get("train") or {}
    sources = facts.get("sources", [facts])
    folders = [checkpoint.resolve().parent / each["folder"] for each in sources if each.get("folder")]
    return [folder for folder in folders if (folder / "manifest.json").is_file()]


def _told(blocks: Iterator[bytes], total: int, progress: Progress | None) -> Iterator[bytes]:
    done = 0
    for block in blocks:
        yield block
        done += len(block)
        if progress is not None:
            progress(done, total)
