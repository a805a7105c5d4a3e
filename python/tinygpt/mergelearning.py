"""MergeLearning: which vocabulary is wanted of counted pieces, refused before minutes are spent on counting them."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tinygpt._core import Bpe, Counts
from tinygpt.specials import special_names
from tinygpt.tokenids import single

_MAX_IDS = 1 << 21
_OF_CALLER = 4
"""Warnings name the line that called `Tokenizer.train` or `from_counts`."""


@dataclass(frozen=True, kw_only=True)
class MergeLearning:
    """What is wanted of a vocabulary; there is room for it.

    Raises:
        ValueError: `vocab_size` has no room for the bytes and the special tokens, or is above 2,097,152; a special
            token's id is that of a byte or merge; or `max_pieces_bytes` has no room for anything.
    """

    vocab_size: int
    """Ids in all: bytes, merges, special tokens."""
    pattern: str
    """How text is split; "byte" has no merges."""
    special_tokens: Sequence[str] | Mapping[str, int]
    """Names, or names with their ids."""
    max_pieces_bytes: int | None
    """Bytes of the pieces that are learnt from, one added for each; None takes all."""

    def __post_init__(self) -> None:
        names = self.names
        least = 256 + len(names)
        if self.pattern != "byte" and self.vocab_size < least:
            extra = f" and {', '.join(names)}" if names else ""
            raise ValueError(f"vocab_size must be at least {least} (256 bytes{extra}), got {self.vocab_size}")
        if self.vocab_size > _MAX_IDS:
            raise ValueError(f"vocab_size must be at most {_MAX_IDS}, got {self.vocab_size}")
        taken = 256 + self.n_merges
        for name, id in self.special_tokens.items() if isinstance(self.special_tokens, Mapping) else ():
            if not taken <= single(id) < _MAX_IDS:
                raise ValueError(
                    f"the id of {name} must be from {taken} (bytes and merges come before) to {_MAX_IDS - 1}, got {id}"
                )
        if self.max_pieces_bytes is not None and self.max_pieces_bytes < 1:
            raise ValueError(f"max_pieces_bytes must be at least 1, got {self.max_pieces_bytes}")

    @property
    def names(self) -> list[str]:
        """Names of the special tokens."""
        return special_names(self.special_tokens)

    @property
    def n_merges(self) -> int:
        """Merges that are wanted."""
        return 0 if self.pattern == "byte" else self.vocab_size - 256 - len(self.names)

    def learn(self, counts: Counts, *, consume: bool) -> Bpe:
        """The merges of counted pieces, and the special tokens after them; warns where there is less than was wanted.

        Args:
            counts: How often each piece occurs.
            consume: Give the memory of the counts back before the learning needs some: they are empty afterwards.
        """
        bpe, (taken, there_are, fraction) = Bpe.learn(
            counts,
            n_merges=self.n_merges,
            pattern=self.pattern,
            special_tokens=self.names,
            max_bytes=self.max_pieces_bytes,
            consume=consume,
        )
        if taken < there_are:
            warnings.warn(
                f"the tokenizer is learnt from {taken:,} of {there_are:,} different pieces, which are {fraction:.2%} "
                f"of the text: the most frequent, as max_pieces_bytes is {self.max_pieces_bytes:,}",
                stacklevel=_OF_CALLER,
            )
        found = len(bpe.merges())
        if found < self.n_merges and self.pattern != "char":  # where each character is one id, nothing more is to learn
            warnings.warn(
                f"no pair of tokens is left after {found} merges, so the vocabulary has {len(bpe)} ids, not "
                f"{self.vocab_size}: the text is small for it",
                stacklevel=_OF_CALLER,
            )
        return bpe
