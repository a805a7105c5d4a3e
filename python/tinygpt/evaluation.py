"""How well a model predicts tokens, in figures that compare: of a dataset's windows, or of documents one by one."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from tinygpt.anydataset import AnyDataset
from tinygpt.distributed import Ranks
from tinygpt.heldout import HeldOut
from tinygpt.intervals import Interval, ratio_interval
from tinygpt.slidingwindow import Window, score_windows, window_edges

if TYPE_CHECKING:
    from tinygpt.model import GPT


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How well a model predicts, over `n_tokens` targets."""

    loss: float
    """Mean nats per token."""
    perplexity: float
    """e to the loss: the model hesitates as between this many equally likely tokens."""
    bits_per_byte: float | None
    """Bits to encode a byte of the text; compares across tokenizers. None when the lengths of tokens are unknown."""
    bits_per_character: float | None
    """The same for a character."""
    n_tokens: int
    """Targets counted."""

    @staticmethod
    def of(nats: float, *, n_tokens: int, n_bytes: int, n_characters: int) -> "Evaluation":
        """The figures of sums: nats of some targets, how many these are, and the text that they stand for.

        Example:
            >>> Evaluation.of(math.log(2) * 8, n_tokens=4, n_bytes=16, n_characters=8).bits_per_byte
            0.5
        """
        loss = nats / n_tokens
        return Evaluation(
            loss=loss,
            perplexity=math.inf if loss > 700 else math.exp(loss),
            bits_per_byte=nats / math.log(2) / n_bytes if n_bytes else None,
            bits_per_character=nats / math.log(2) / n_characters if n_characters else None,
            n_tokens=n_tokens,
        )


@dataclass(frozen=True, kw_only=True)
class Sums:
    """What is known of each of D documents, in arrays (D,): their sums are those of any group."""

    nats: NDArray[np.float64]
    """Cost of the tokens that are scored."""
    hits: NDArray[np.int64]
    """Those of them that the model held for the likeliest."""
    n_tokens: NDArray[np.int64]
    """How many are scored."""
    n_bytes: NDArray[np.int64]
    """Bytes of the text that they stand for."""
    n_characters: NDArray[np.int64]
    """Characters of it."""


@dataclass(frozen=True, kw_only=True)
class DocumentsEvaluation:
    """How well a model predicts some documents, with the intervals that other documents of the kind would fall into."""

    name: str
    """What the documents have in common: a file, a label, or `all`."""
    n_documents: int
    """Documents with a token that is scored."""
    n_bytes: int
    """Bytes of the text that is scored."""
    n_characters: int
    """Characters of it."""
    figures: Evaluation
    """Loss, perplexity, bits."""
    accuracy: float
    """Share of the tokens that the model held for the likeliest."""
    loss_interval: Interval | None
    """95 % interval of the loss over documents; None below two."""
    bits_per_byte_interval: Interval | None
    """The same of the bits per byte."""
    accuracy_interval: Interval | None
    """The same of the accuracy."""

    @staticmethod
    def of(name: str, sums: Sums, chosen: NDArray[np.bool_] | slice = slice(None)) -> "DocumentsEvaluation | None":
        """The figures of the chosen documents; None where no token of them is scored."""
        nats, hits, tokens = sums.nats[chosen], sums.hits[chosen], sums.n_tokens[chosen]
        n_bytes, n_characters, n_tokens = sums.n_bytes[chosen], int(sums.n_characters[chosen].sum()), int(tokens.sum())
        if not n_tokens:
            return None
        total = int(n_bytes.sum())
        bits = ratio_interval(nats / math.log(2), n_bytes) if total else None
        return DocumentsEvaluation(
            name=name,
            n_documents=int(np.count_nonzero(tokens)),
            n_bytes=total,
            n_characters=n_characters,
            figures=Evaluation.of(float(nats.sum()), n_tokens=n_tokens, n_bytes=total, n_characters=n_characters),
            accuracy=int(hits.sum()) / n_tokens,
            loss_interval=ratio_interval(nats, tokens),
            bits_per_byte_interval=bits,
            accuracy_interval=ratio_interval(hits, tokens),
        )


def evaluate(
    model: "GPT",
    dataset: AnyDataset,
    *,
    batches: int | None = 20,
    batch_size: int = 12,
    token_lengths: tuple[ArrayLike, ArrayLike] | None = None,
    device: str | torch.device | None = None,
    ranks: Ranks | None = None,
    at_once: int | None = None,
) -> Evaluation:
    """Loss on the same windows each time, of an epoch at most, with dropout off and no gradient.

    Args:
        model: Its training mode is as before when this returns.
        dataset: The windows; the first batches of seed 0 are taken.
        batches: How many; None, or more than there are, takes every window.
        batch_size: Windows in a batch, B.
        token_lengths: Bytes and characters of each id, two arrays (V,), as `Tokenizer.token_lengths()` returns them.
        device: Where the model is; None asks its parameters.
        ranks: Those that share the batches out among them; the figures are the same for any number of them.
        at_once: Windows in one forward pass; None takes the whole batch.

    Raises:
        ValueError: `batches` or `batch_size` is below 1, or `token_lengths` are not the dataset's.

    Example:
        >>> from tinygpt.dataset import TokenDataset
        >>> from tinygpt.model import GPT, GPTConfig
        >>> data = TokenDataset.from_tokens(range(9), vocab_size=9, block_size=4)
        >>> model = GPT(GPTConfig(vocab_size=9, block_size=4, n_layer=1, n_head=1, d_model=64))
        >>> evaluate(model, data).n_tokens
        8
    """
    if batches is not None and batches < 1:
        raise ValueError(f"batches must be at least 1, or None for every window, got {batches}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    lengths = (
        None if token_lengths is None else np.stack([np.asarray(each, np.int64) for each in token_lengths])
    )  # (2, V)
    if lengths is not None and lengths.shape[1] < dataset.vocab_size:
        raise ValueError(f"token_lengths are of {lengths.shape[1]} ids, but the data have {dataset.vocab_size}")
    device = next(model.parameters()).device if device is None else device
    n_windows = len(dataset) if batches is None else min(len(dataset), batches * batch_size)
    n_batches, ranks = math.ceil(n_windows / batch_size), ranks or Ranks()
    nats, counts = [0.0] * n_batches, np.zeros(3, np.int64)  # tokens, bytes, characters
    was_training = model.training
    model.eval()
    try:
        for first in range(0, n_batches, ranks.world_size):
            k = min(first + ranks.rank, n_batches - 1)  # where the batches do not go round, some ranks do the last, too
            # The last batch runs into the next epoch; those rows were met already.
            x, y = (ids[: n_windows - k * batch_size] for ids in dataset.batch(k, batch_size=batch_size))  # each (B, T)
            loss_sum, size = 0.0, at_once or batch_size
            for ids, wanted in zip(torch.split(x, size), torch.split(y, size), strict=True):  # each (at_once, T)
                with torch.no_grad():
                    loss_sum += float(model.loss(ids.to(device), wanted.to(device), scale=1.0))
            if k != first + ranks.rank:
                continue
            nats[k] = loss_sum
            targets = y[y >= 0].numpy()
            counts[0] += len(targets)
            if lengths is not None:
                counts[1:] += lengths[:, targets].sum(axis=1)
    finally:
        model.train(was_training)
    # Each batch's sum was made by one rank alone and the sums are added in the order of the batches: the same bits.
    n_tokens, n_bytes, n_characters = map(int, ranks.sum(*counts.tolist()))
    total = sum(ranks.sum(*nats))
    return Evaluation.of(total, n_tokens=n_tokens, n_bytes=n_bytes, n_characters=n_characters)


def evaluate_documents(
    model: "GPT",
    held_out: HeldOut,
    *,
    context: int | None = None,
    stride: int | None = None,
    apart: bool = False,
    count_separators: bool = True,
    batch_size: int = 12,
    progress: Callable[[int, int | None], object] | None = None,
) -> Sums:
    """What each token of held-out text costs the model, summed over each document; every token is scored once.

    With `stride` equal to `context` this is the loss of the trainer's evaluation, on all windows in order. With a
    `context` of one less than another program's window it is that program's figure: see `window_edges`.

    Args:
        model: Its training mode is as before when this returns.
        held_out: The documents.
        context: Most tokens that the model reads before one; None takes its block_size.
        stride: Tokens from one window's start to the next; None takes `context`. Smaller ones show every token more
            of what is before it, and take `context / stride` times as long.
        apart: Judge each document by itself, after a separator; else windows run over the ends of documents, as in
            training. Chats are apart always.
        count_separators: Whether the token that ends a document counts. It stands for no bytes, so that it adds to
            the bits per byte what it costs to say where the text ends.
        batch_size: Windows in a forward pass.
        progress: Told the tokens done and the tokens there are.

    Raises:
        ValueError: An argument is out of range, the tokens are not the model's, or none is scored.
    """
    context = model.config.block_size if context is None else context
    if context > model.config.block_size:
        raise ValueError(f"context must be at most the model's block_size, {model.config.block_size}, got {context}")
    if held_out.opened.vocab_size > model.config.vocab_size:
        found = f"{held_out.opened.vocab_size} ids, but the model {model.config.vocab_size}"
        raise ValueError(f"{held_out.opened.name} has {found}; evaluate with the model's own tokenizer")
    stride = context if stride is None else stride
    if not 1 <= stride <= context:
        raise ValueError(f"stride must be from 1 to the context, {context}, got {stride}")
    windows = _windows(held_out, context, stride, apart=apart)
    tally = _Tally(held_out, apart=apart, count_separators=count_separators)
    for window, (nats, hits) in score_windows(model, windows, batch_size=batch_size):
        end = window.start + len(window.ids)
        tally.add(end - window.n_scored, window.ids[len(window.ids) - window.n_scored :], nats, hits)
        if progress is not None:
            progress(end, held_out.n_tokens)
    return tally.sums()


def tally_blocks(
    held_out: HeldOut,
    nats_of: Callable[[NDArray[np.uint32]], NDArray[np.float64]],
    *,
    overlap: int,
    apart: bool = False,
    count_separators: bool = True,
    progress: Callable[[int, int | None], object] | None = None,
) -> Sums:
    """The sums of `evaluate_documents` for what gives each token of a row its nats from `overlap` tokens before it.

    Args:
        held_out: The documents.
        nats_of: Nats of each token of a row (n,).
        overlap: Tokens that it looks back at most.
        apart: As in `evaluate_documents`: which tokens are scored.
        count_separators: Likewise.
        progress: Told the tokens done and the tokens there are.
    """
    tally = _Tally(held_out, apart=apart, count_separators=count_separators)
    for start in range(0, held_out.n_tokens, _BLOCK_TOKENS):
        first = max(0, start - overlap)
        end = min(start + _BLOCK_TOKENS, held_out.n_tokens)
        ids = held_out.read(first, end - first)
        tally.add(start, ids[start - first :], nats_of(ids)[start - first :], np.zeros(end - start, bool))
        if progress is not None:
            progress(end, held_out.n_tokens)
    return tally.sums()


_BLOCK_TOKENS = 1 << 18


def _windows(held_out: HeldOut, context: int, stride: int, *, apart: bool) -> Iterator[Window]:
    for low, high in held_out.bounds(apart=apart):
        for start, end, n_scored in window_edges(high - low, context=context, stride=stride):
            yield Window(ids=held_out.row(low + start, low + end + 1), n_scored=n_scored, start=low + start)


class _Tally:
    """Sums over documents, as the scores of runs of tokens come in."""

    def __init__(self, held_out: HeldOut, *, apart: bool, count_separators: bool) -> None:
        self._held_out, self._apart, self._count_separators = held_out, apart, count_separators
        lengths = held_out.tokenizer.token_lengths()
        self._lengths = (
            None if lengths is None else np.stack([np.asarray(each, np.int64) for each in lengths])
        )  # (2, V)
        self._nats = np.zeros(held_out.n_documents)
        self._counts = np.zeros((4, held_out.n_documents), np.int64)  # hits, tokens, bytes, characters

    def add(self, start: int, ids: NDArray[np.generic], nats: NDArray[np.float64], hits: NDArray[np.bool_]) -> None:
        """Counts the tokens from place `start` on, those that are scored."""
        held = self._held_out
        kept = held.is_scored(start, len(ids), apart=self._apart, count_separators=self._count_separators)
        places = np.flatnonzero(kept) + start
        if not len(places):
            return
        first = int(np.searchsorted(held.ends, places[0], side="right"))
        last = int(np.searchsorted(held.ends, places[-1], side="right")) + 1
        documents = np.searchsorted(held.ends[first:last], places, side="right")
        size = last - first
        self._nats[first:last] += np.bincount(documents, nats[kept], size)
        self._counts[0, first:last] += np.bincount(documents[hits[kept]], minlength=size)
        self._counts[1, first:last] += np.bincount(documents, minlength=size)
        if self._lengths is not None:
            for row, lengths in zip(self._counts[2:], self._lengths[:, ids[kept].astype(np.int64)], strict=True):
                row[first:last] += np.bincount(documents, lengths, size).astype(np.int64)

    def sums(self) -> Sums:
        """The sums of each document.

        Raises:
            ValueError: No token was scored.
        """
        held, (hits, n_tokens, n_bytes, n_characters) = self._held_out, self._counts
        if not n_tokens.any():
            found = f"{held.n_tokens:,} token{'s' * (held.n_tokens != 1)}"
            raise ValueError(f"{held.opened.name}: no token in it can be scored, it holds {found}; give more text")
        if self._lengths is None:  # the ids do not say what they stand for: the text of each document does
            for i, text in enumerate(scored_texts(held, apart=self._apart, count_separators=False)):
                n_bytes[i], n_characters[i] = len(text), len(text.decode(errors="replace"))
        return Sums(nats=self._nats, hits=hits, n_tokens=n_tokens, n_bytes=n_bytes, n_characters=n_characters)


def scored_texts(
    held_out: HeldOut, documents: NDArray[np.int64] | None = None, *, apart: bool, count_separators: bool
) -> Iterator[bytes]:
    """The text of the scored tokens of each document, or of each of `documents`, held whole one at a time.

    Where separators count, a byte that no text has, 0xff, stands for each: whoever compresses the text then says, too,
    where its documents end.
    """
    starts = held_out.starts
    for i in range(held_out.n_documents) if documents is None else documents.tolist():
        start, count = int(starts[i]), int(held_out.ends[i] - starts[i])
        ids = held_out.read(start, count)
        kept = ids[held_out.is_scored(start, count, apart=apart, count_separators=count_separators)]
        text = held_out.text_of(kept)
        yield text + b"\xff" if count_separators and len(kept) and kept[-1] == held_out.opened.eot_id else text
