"""Windows that overlap, in which a model scores each token of a row once: its nats, and whether it was likeliest."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tinygpt.model import GPT

_SORTED_BATCHES = 32  # rows of a few lengths are put side by side, so that little is padding
_LOGITS_BYTES = 256 << 20

Scores = tuple[NDArray[np.float64], NDArray[np.bool_]]
"""Nats of some tokens, and whether each was the likeliest of all: both (n,)."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """Tokens of which the model reads all but the last, and is asked for the last `n_scored`."""

    ids: NDArray[Any]
    """(T + 1,), T at most the model's block_size."""
    n_scored: int
    """From 0 to T."""
    start: int = 0
    """Place of the first of `ids` in the row that they are of."""


def window_edges(n_tokens: int, *, context: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """First token, last token and number scored of each window over a row of `n_tokens`: (start, end, n_scored).

    All tokens but the first are scored once. A window begins `stride` after the one before and scores what that did
    not: so a token has from `context - stride + 1` to `context` tokens before it in view, fewer in the first window.

    Args:
        n_tokens: Length of the row.
        context: Most tokens that the model reads in a window.
        stride: Tokens from one window's start to the next, 1 to `context`; with `context` each is read once.

    Example:
        >>> list(window_edges(8, context=4, stride=2))
        [(0, 4, 4), (2, 6, 2), (4, 7, 1)]

    Source: the guide "Perplexity of fixed-length models" of transformers; its max_length is `context` + 1.
    """
    if context < 1:
        raise ValueError(f"context must be at least 1, got {context}")
    if not 1 <= stride <= context:
        raise ValueError(f"stride must be from 1 to the context, {context}, got {stride}")
    start, last = 0, 0
    while last < n_tokens - 1:
        end = min(start + context, n_tokens - 1)
        yield start, end, end - last
        start, last = start + stride, end


def score_windows(model: "GPT", windows: Iterable[Window], *, batch_size: int = 12) -> Iterator[tuple[Window, Scores]]:
    """Each window with the scores of its last `n_scored` tokens, in order, the model in evaluation mode meanwhile.

    Probabilities are over all the model's ids, in float32 whatever type the model computes in. Windows of one length
    give the same bits in any company; shorter ones are padded on the right, which nothing before can see.

    Args:
        model: Its mode is as before between two windows.
        windows: As many as there are; a few hundred are held at a time.
        batch_size: Windows in a forward pass, at most; fewer where their logits would take more than 256 MiB.

    Raises:
        ValueError: `batch_size` is below 1, or a window is longer than the context.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    source = iter(windows)
    while held := list(islice(source, batch_size * _SORTED_BATCHES)):
        order = sorted(range(len(held)), key=lambda i: len(held[i].ids))
        found: dict[int, Scores] = {}
        while order:
            n_positions = len(held[order[-1]].ids) - 1
            fits = _LOGITS_BYTES // max(1, 4 * n_positions * model.config.vocab_size)
            taken, order = order[-min(batch_size, max(1, fits)) :], order[: -min(batch_size, max(1, fits))]
            found |= dict(zip(taken, _score_batch(model, [held[i] for i in taken]), strict=True))
        yield from ((held[i], found[i]) for i in range(len(held)))


def _score_batch(model: "GPT", windows: Sequence[Window]) -> list[Scores]:
    length = max(len(window.ids) for window in windows) - 1
    ids = torch.zeros(len(windows), length + 1, dtype=torch.int64)  # (B, T + 1)
    is_scored = torch.zeros(len(windows), length, dtype=torch.bool)  # (B, T)
    for row, window in enumerate(windows):
        ids[row, : len(window.ids)] = torch.from_numpy(window.ids.astype(np.int64))
        is_scored[row, len(window.ids) - 1 - window.n_scored : len(window.ids) - 1] = True
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            logits = model(ids[:, :-1].to(device))[is_scored.to(device)].float()  # (n, V)
            wanted = ids[:, 1:][is_scored].to(device)  # (n,)
            nats = F.cross_entropy(logits, wanted, reduction="none").cpu().double().numpy()  # (n,)
            hits = (logits.argmax(-1) == wanted).cpu().numpy()  # (n,)
    finally:
        model.train(was_training)
    edges = np.cumsum([window.n_scored for window in windows])[:-1]
    return list(zip(np.split(nats, edges), np.split(hits, edges), strict=True))
