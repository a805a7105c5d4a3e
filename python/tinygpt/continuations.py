"""How likely a model holds texts after other texts, by the protocol of lm-evaluation-harness."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tinygpt.anytokenizer import AnyTokenizer
from tinygpt.slidingwindow import Window, score_windows

if TYPE_CHECKING:
    from tinygpt.model import GPT


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """What a model gives a continuation."""

    log_likelihood: float
    """Sum over its tokens of the logarithm of their probability, in nats."""
    is_greedy: bool
    """Whether each of its tokens is the likeliest: whether the model writes it at temperature 0."""
    n_tokens: int
    """Its tokens."""


def likelihoods(
    model: "GPT",
    tokenizer: AnyTokenizer,
    pairs: Sequence[tuple[str, str]],
    *,
    batch_size: int = 12,
    progress: Callable[[int, int | None], object] | None = None,
) -> list[Likelihood]:
    """What the model gives each continuation after its context.

    White space at the end of a context belongs to the continuation. Both are encoded as one text, and the continuation
    is what comes after as many tokens as the context has by itself. An empty context stands for the separator of
    documents. Where both do not fit, the beginning is cut off.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        pairs: Context and continuation.
        batch_size: Sequences in a forward pass.
        progress: Told the pairs done and the pairs there are.

    Raises:
        ValueError: A continuation is empty, or a context where no token separates documents.

    Source: `TemplateLM._encode_pair` and `HFLM._loglikelihood_tokens` of lm-evaluation-harness 0.4.
    """
    found = []
    for _, (nats, hits) in score_windows(
        model, _windows(tokenizer, pairs, model.config.block_size), batch_size=batch_size
    ):
        found.append(Likelihood(log_likelihood=-float(nats.sum()), is_greedy=bool(np.all(hits)), n_tokens=len(nats)))
        if progress is not None:
            progress(len(found), len(pairs))
    return found


def encode_pair(tokenizer: AnyTokenizer, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """The ids of a context and of its continuation.

    Raises:
        ValueError: There is nothing to score, or nothing to stand before it.
    """
    stripped = context.rstrip()
    whole = tokenizer.encode(context + continuation)
    before = tokenizer.encode(stripped) if stripped else []
    after = whole[len(before) :]
    if not before:
        first = tokenizer.bos_id if tokenizer.bos_id is not None else tokenizer.eot_id
        if first is None:
            raise ValueError(
                "an empty context needs a tokenizer with a document separator; give at least one character"
            )
        before = [first]
    if not after:
        raise ValueError(f"nothing to score: {continuation[:40]!r} adds no token to {context[-40:]!r}")
    return before, after


def check_length(continuation: str, ids: Sequence[int], block_size: int) -> None:
    """Nothing, if a continuation fits into the context.

    Raises:
        ValueError: It does not.
    """
    if len(ids) > block_size:
        found = f"{continuation[:40]!r} has {len(ids)} tokens and the model's context {block_size}"
        raise ValueError(f"{found}, which has to hold all that is scored; shorten it")


def _windows(tokenizer: AnyTokenizer, pairs: Sequence[tuple[str, str]], block_size: int) -> Iterator[Window]:
    for context, continuation in pairs:
        before, after = encode_pair(tokenizer, context, continuation)
        check_length(continuation, after, block_size)
        ids = np.array([*before, *after][-(block_size + 1) :])
        yield Window(ids=ids, n_scored=len(after))
