"""Encoder: text to ids, whole or in blocks, one text or many."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from tinygpt.paddedbatch import padded_batch
from tinygpt.specials import PAD_NAMES
from tinygpt.textblocks import text_parts
from tinygpt.tokenids import given_rows, given_text, given_texts
from tinygpt.tokenview import TokenView
from tinygpt.vocabulary import Vocabulary


class Encoder(Vocabulary):
    """A vocabulary by which text becomes ids.

    Text is text: the string of a special token becomes its id only where the caller allows it.
    """

    __slots__ = ()

    def encode(self, text: str, *, allowed_special: Literal["all"] | Iterable[str] = ()) -> list[int]:
        """The ids of a text.

        Args:
            text: Any text without lone surrogates.
            allowed_special: "all" or the names of special tokens whose strings become their ids, the longest where
                several start; all others are ordinary text.

        Raises:
            TypeError: `text` is no str.
            ValueError: A lone surrogate, with its place; or a name that is no special token.
        """
        return self._bpe.encode(given_text(text), self._allowed(allowed_special))

    def encode_to_numpy(
        self, text: str, *, allowed_special: Literal["all"] | Iterable[str] = ()
    ) -> npt.NDArray[np.uint32]:
        """The ids of a text as an array, which costs a third of the time of a list: uint32 (n,)."""
        return self._bpe.encode_to_numpy(given_text(text), self._allowed(allowed_special))

    def encode_batch(
        self,
        texts: Sequence[str],
        *,
        threads: int | None = None,
        allowed_special: Literal["all"] | Iterable[str] = (),
    ) -> list[list[int]]:
        """The ids of each text, worked out on several threads.

        Raises:
            TypeError: One is no str, with its place.
        """
        return self._bpe.encode_batch(given_texts(texts), self._allowed(allowed_special), threads)

    def encode_batch_to_numpy(
        self,
        texts: Sequence[str],
        *,
        threads: int | None = None,
        allowed_special: Literal["all"] | Iterable[str] = (),
    ) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint64]]:
        """The ids of all texts in a row, uint32 (n,), and where each text's end, uint64 (len(texts),)."""
        return self._bpe.encode_batch_to_numpy(given_texts(texts), self._allowed(allowed_special), threads)

    def encode_padded(
        self,
        texts: Sequence[str],
        *,
        max_length: int | None = None,
        side: Literal["left", "right"] = "right",
        threads: int | None = None,
        allowed_special: Literal["all"] | Iterable[str] = (),
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Texts as one rectangle: ids int64 (B, T), and where they are text and not padding, bool (B, T).

        Args:
            texts: One for each row.
            max_length: Longer texts lose their end; None makes T the longest text's length.
            side: Where the padding goes.
            threads: None means one for each core.
            allowed_special: As in `encode`.

        Raises:
            ValueError: The tokenizer has no pad token, or `side` or `max_length` is out of range.
        """
        if self.pad_id is None:
            raise ValueError(f"this tokenizer has no pad token; train it with one of {', '.join(PAD_NAMES)}")
        rows = self.encode_batch(texts, threads=threads, allowed_special=allowed_special)
        return padded_batch(rows, pad_id=self.pad_id, max_length=max_length, side=side)

    def encode_iterable(
        self, texts: Iterable[str], *, allowed_special: Literal["all"] | Iterable[str] = ()
    ) -> Iterator[int]:
        """The ids of all texts in a row, one at a time; no more than one text is held."""
        allowed = self._allowed(allowed_special)
        for i, text in enumerate(given_rows(texts, "texts", "str")):
            if not isinstance(text, str):
                raise TypeError(f"texts[{i}] must be a str, got {type(text).__name__}")
            yield from self._bpe.encode(text, allowed)

    def encode_blocks(
        self, blocks: Iterable[str], *, allowed_special: Literal["all"] | Iterable[str] = ()
    ) -> Iterator[npt.NDArray[np.uint32]]:
        """The ids of one text that comes in blocks cut anywhere, as arrays that follow one another.

        They are the ids of the blocks joined; memory does not grow with the text.

        Example:
            >>> from tinygpt.tokenizer import Tokenizer
            >>> tokenizer = Tokenizer.from_merges([(b"a", b"b")])
            >>> [ids.tolist() for ids in tokenizer.encode_blocks(["a", "b", "c"])]
            [[256, 99]]
        """
        allowed = self._allowed(allowed_special)
        for text in text_parts(blocks, pattern=self.pattern, whole=self.added_names):
            yield self.encode_to_numpy(text, allowed_special=allowed)

    def view(self, text: str, *, allowed_special: Literal["all"] | Iterable[str] = ()) -> TokenView:
        """How a text falls into tokens: coloured when printed to a terminal, and as the last line of a notebook's cell.

        Example:
            >>> from tinygpt.tokenizer import Tokenizer
            >>> print(Tokenizer.from_merges([(b"a", b"b")]).view("abba"))
            ab│b│a
        """
        return self.view_of(self.encode(text, allowed_special=allowed_special))

    def view_of(self, ids: Iterable[int]) -> TokenView:
        """The same of ids."""
        specials = set(self._specials.values())
        return TokenView([(id, self.token_bytes(id), id in specials) for id in ids])

    def _allowed(self, allowed: Literal["all"] | Iterable[str]) -> list[str]:
        if isinstance(allowed, str):
            if allowed != "all":
                raise ValueError(f'allowed_special must be "all" or a set of names, got the str {allowed!r}')
            return list(self._specials)
        return sorted(allowed)
