"""Texts of a program: any iterable of strings, each a document, read as often as it can be."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

_BATCH_CHARACTERS = 4 << 20
_Document = TypeVar("_Document")


class Texts:
    """Documents out of any iterable of strings.

    Raises:
        TypeError: It is one string.

    Example:
        >>> list(Texts(["one", "two", "three", "four"]).each(2))
        ['one', 'three']
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        if isinstance(texts, str | bytes):
            raise TypeError(f"texts must be an iterable of str, one for each document, got one {type(texts).__name__}")
        # An iterator gives its texts once; this one stands in for it until then.
        self._texts = _Once(texts) if isinstance(texts, Iterator) else texts

    @property
    def n_documents(self) -> int | None:
        """How many there are; None where only a pass can tell."""
        return len(self._texts) if isinstance(self._texts, Sequence) else None

    def each(self, n: int | None = None) -> Iterator[str]:
        """The documents; of a sequence with more than `n`, so many of them at even distances.

        Raises:
            TypeError: One is no string.
            ValueError: They come only once, and came before.
        """
        texts = self._texts
        places: Iterable[tuple[int, str]] = enumerate(texts)
        if n is not None and isinstance(texts, Sequence) and n < len(texts):
            places = ((i, texts[i]) for i in (k * len(texts) // n for k in range(n)))
        for i, text in places:
            if not isinstance(text, str):
                raise TypeError(f"document {i} must be a str, got {type(text).__name__}")
            yield text


class TextSample:
    """Texts until there are `max_bytes` of UTF-8 (the last one is cut at a character) or `max_documents`.

    Example:
        >>> sample = TextSample(Texts(["one", "two"]), max_bytes=4, max_documents=None)
        >>> list(sample), sample.line(4)
        (['one', 't'], '4 bytes, from 2 of 2 documents')
    """

    def __init__(self, texts: Texts, max_bytes: int | None, max_documents: int | None) -> None:
        self._texts, self._max_bytes, self._max_documents = texts, max_bytes, max_documents
        self._n_taken = 0
        self._is_cut = False

    def __iter__(self) -> Iterator[str]:
        left = self._max_bytes
        for text in self._texts.each(self._max_documents):
            if self._n_taken == self._max_documents or left == 0:
                self._is_cut = True
                return
            self._n_taken += 1
            if left is not None:
                raw = text.encode(errors="surrogatepass")
                if len(raw) > left:
                    self._is_cut = True
                    yield raw[:left].decode(errors="ignore")
                    return
                left -= len(raw)
            yield text

    def line(self, n_bytes: int) -> str | None:
        """What was taken, in words, given its bytes; None where it was all."""
        total = self._texts.n_documents
        if not self._is_cut and (total is None or self._n_taken == total):
            return None
        taken = (
            f"the first {self._n_taken:,} documents" if total is None else f"{self._n_taken:,} of {total:,} documents"
        )
        return f"{n_bytes:,} bytes, from {taken}"


def batches(
    documents: Iterable[_Document], *, n_characters: Callable[[_Document], int]
) -> Iterator[tuple[int, list[_Document]]]:
    """Runs of documents, millions of characters each (enough to do, little to hold), and each one's first number."""
    batch: list[_Document] = []
    first = size = 0
    for document in documents:
        batch.append(document)
        size += n_characters(document) + 1
        if size >= _BATCH_CHARACTERS:
            yield first, batch
            first, batch, size = first + len(batch), [], 0
    if batch:
        yield first, batch


class _Once:
    """An iterator that says so when it is asked a second time, where it would silently give nothing."""

    def __init__(self, texts: Iterator[str]) -> None:
        self._texts: Iterator[str] | None = texts

    def __iter__(self) -> Iterator[str]:
        if self._texts is None:
            raise ValueError(
                "these texts were read already and come only once; pass a list, or an object that starts anew"
            )
        texts, self._texts = self._texts, None
        return texts
