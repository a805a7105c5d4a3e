"""How likely a model finds a text, token by token."""

import math
from dataclasses import dataclass

from tinygpt.anytokenizer import AnyTokenizer
from tinygpt.decoder import Decoder
from tinygpt.generation import token_logprobs


@dataclass(frozen=True, kw_only=True)
class ScoredToken:
    """A token of a text and how likely it was there."""

    id: int
    """The token."""
    logprob: float
    """Natural logarithm of its probability."""
    top: tuple[tuple[int, float], ...]
    """The likeliest ids at its place and theirs, best first."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """How likely a model finds a text."""

    tokens: tuple[ScoredToken, ...]
    """Each token that has another, or the document separator, before it."""
    n_bytes: int
    """Bytes of the text in UTF-8."""

    @property
    def loss(self) -> float:
        """Mean nats per token."""
        return -sum(token.logprob for token in self.tokens) / len(self.tokens)

    @property
    def perplexity(self) -> float:
        """The exponential of the loss: the model hesitates as between this many equally likely tokens."""
        return math.inf if self.loss > 700 else math.exp(self.loss)

    @property
    def bits_per_byte(self) -> float:
        """Bits to encode a byte of the text."""
        return self.loss * len(self.tokens) / math.log(2) / self.n_bytes


def score_text(decoder: Decoder, tokenizer: AnyTokenizer, text: str, *, n_logprobs: int = 0) -> Score:
    """Judges each token of a text, the first after the document separator; see `Checkpoint.score`.

    Args:
        decoder: The model; its first stream is taken.
        tokenizer: Its tokenizer.
        text: The text.
        n_logprobs: How many of the likeliest ids to name at each place.

    Raises:
        ValueError: The text holds no token that could be judged.
    """
    start = [] if tokenizer.eot_id is None else [tokenizer.eot_id]
    ids = [*start, *tokenizer.encode(text)]
    if len(ids) < 2:
        raise ValueError("a text to score needs at least one token with another before it; give a longer one")
    size = decoder.config.block_size
    tokens: list[ScoredToken] = []
    first = 0
    while len(tokens) + 1 < len(ids):
        decoder.cut(0, 0)
        logits = decoder.extend([(0, ids[first : first + size])], every=True)  # (T, V)
        for place in range(len(tokens) - first, min(size, len(ids) - 1 - first)):
            i = ids[first + place + 1]
            logprob, top = token_logprobs(logits[place, : tokenizer.vocab_size], i, n_logprobs)
            tokens.append(ScoredToken(id=i, logprob=logprob or 0.0, top=top))
        first += max(1, size // 2)
    return Score(tokens=tuple(tokens), n_bytes=len(text.encode("utf-8", "replace")))
