"""evaluate(model, dataset): how well a model predicts tokens, in figures that compare."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike

from tinygpt.anydataset import AnyDataset
from tinygpt.distributed import Ranks

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
    loss = total / n_tokens
    return Evaluation(
        loss=loss,
        perplexity=math.inf if loss > 700 else math.exp(loss),
        bits_per_byte=total / math.log(2) / n_bytes if n_bytes else None,
        bits_per_character=total / math.log(2) / n_characters if n_characters else None,
        n_tokens=n_tokens,
    )
