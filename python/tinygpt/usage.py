"""Usage: how a tokenizer serves a text, from the ids alone."""

import numpy as np
import numpy.typing as npt


class Usage:
    """How often each id occurs, and what follows from that.

    Args:
        n_bytes: Bytes of text of each id (V,), as `Tokenizer.token_lengths` gives them; 0 for special tokens.
        n_characters: Characters of each id (V,), likewise.

    Example:
        >>> usage = Usage(np.array([1, 1, 2]), np.array([1, 1, 2]))
        >>> usage.add([2, 2, 0])
        >>> usage.n_tokens, usage.n_bytes, usage.single_byte_fraction, usage.n_used
        (3, 5, 0.3333333333333333, 2)
    """

    def __init__(self, n_bytes: npt.ArrayLike, n_characters: npt.ArrayLike) -> None:
        self._bytes = np.asarray(n_bytes, dtype=np.int64)
        self._characters = np.asarray(n_characters, dtype=np.int64)
        self.counts = np.zeros(len(self._bytes), dtype=np.int64)
        """Occurrences of each id (V,)."""

    def add(self, ids: npt.ArrayLike) -> None:
        """Counts some more ids."""
        self.counts += np.bincount(np.asarray(ids, dtype=np.int64), minlength=len(self.counts))

    @property
    def n_tokens(self) -> int:
        """Tokens of the text."""
        return int(self.counts.sum())

    @property
    def n_bytes(self) -> int:
        """Bytes of the text, special tokens left out."""
        return int(self.counts @ self._bytes)

    @property
    def n_characters(self) -> int:
        """Characters of the text, likewise."""
        return int(self.counts @ self._characters)

    @property
    def n_used(self) -> int:
        """Ids that occur."""
        return int(np.count_nonzero(self.counts))

    @property
    def single_byte_fraction(self) -> float:
        """Share of the tokens that are one byte, so that nothing was gained by them."""
        return float(self.counts[self._bytes == 1].sum() / max(1, self.n_tokens))
