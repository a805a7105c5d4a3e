"""AnyTokenizer: what a tokenizer is to whoever only encodes and decodes with it, ours or a library's."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from tinygpt.tokenids import Ids


class AnyTokenizer(Protocol):
    """Text to ids and back."""

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""

    @property
    def special_tokens(self) -> dict[str, int]:
        """Ids of the special tokens, by name."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 over what decides ids, 64 hex digits."""

    @property
    def eot_id(self) -> int | None:
        """Id of the token that ends a document, if there is one."""

    @property
    def bos_id(self) -> int | None:
        """Id of the token that begins a document, if there is one."""

    @property
    def pad_id(self) -> int | None:
        """Id of the token that fills up rows, if there is one."""

    def encode(self, text: str, *, allowed_special: Literal["all"] | Iterable[str] = ()) -> list[int]:
        """The ids of a text; strings of special tokens are ordinary text save where they are allowed."""

    def encode_batch(
        self,
        texts: Sequence[str],
        *,
        threads: int | None = None,
        allowed_special: Literal["all"] | Iterable[str] = (),
    ) -> list[list[int]]:
        """The ids of each text."""

    def decode(self, ids: Ids, errors: str = "replace") -> str:
        """The text of ids, special tokens by name."""

    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of ids as they come, in pieces of whole characters."""

    def token_lengths(self) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]] | None:
        """Bytes and characters of text of each id, uint32 (V,) each; None where ids do not say what the text was."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the tokenizer into a folder, from which it can be loaded again."""


TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "encoder.json")
"""By which a folder's tokenizer is known, whosever it is."""


def tokenizer_file(folder: Path) -> Path | None:
    """The file by which a folder's tokenizer is known; None if it holds none.

    Example:
        >>> tokenizer_file(Path("nowhere"))
    """
    return next((file for name in TOKENIZER_FILES if (file := folder / name).is_file()), None)
