"""Vocabulary: what a tokenizer knows of its ids, and ids to text."""

import codecs
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from tinygpt._core import Bpe
from tinygpt.specials import BOS_NAMES, EOT_NAMES, PAD_NAMES
from tinygpt.tokenids import Ids, as_uint32, given_rows, single


class Vocabulary:
    """Ids, the bytes they stand for, merges and special tokens; equal where all that decides ids is equal."""

    __slots__ = ("_bpe", "_fingerprint", "_specials")

    def __init__(self, bpe: Bpe) -> None:
        self._bpe = bpe
        self._specials = dict(bpe.special_tokens())
        self._fingerprint = bpe.fingerprint()

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return len(self._bpe)

    @property
    def merges(self) -> list[tuple[bytes, bytes]]:
        """Pairs of byte strings, first to be applied first."""
        return self._bpe.merge_tokens()

    @property
    def special_tokens(self) -> dict[str, int]:
        """Ids of the special tokens, by name."""
        return dict(self._specials)

    @property
    def added_names(self) -> list[str]:
        """The strings that may become ids before text is split: special tokens and added ones, by id."""
        return [name for name, _, _ in self._bpe.added_tokens()]

    @property
    def pattern(self) -> str:
        """Name of the split."""
        return self._bpe.pattern()

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all that decides ids, 64 hex digits; equal fingerprints give equal ids."""
        return self._fingerprint

    @property
    def eot_id(self) -> int | None:
        """Id of the token that ends a document, if there is one."""
        return self._first_special(EOT_NAMES)

    @property
    def bos_id(self) -> int | None:
        """Id of the token that begins a document, if there is one; it is never added unasked."""
        return self._first_special(BOS_NAMES)

    @property
    def pad_id(self) -> int | None:
        """Id of the token that fills up rows, if there is one."""
        return self._first_special(PAD_NAMES)

    def decode(self, ids: Ids, errors: str = "replace") -> str:
        """The text of ids, special tokens by name.

        Args:
            ids: A list or an array of whole numbers.
            errors: What becomes of bytes that are no UTF-8, as in `bytes.decode`; ids may end within a character.

        Raises:
            TypeError: One is no whole number, with its place.
            ValueError: An id that the vocabulary does not have, with its place.
        """
        return self.decode_bytes(ids).decode("utf-8", errors)

    def decode_bytes(self, ids: Ids) -> bytes:
        """The bytes of ids, exactly."""
        return self._bpe.decode(as_uint32(ids))

    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of ids as they come, in pieces of whole characters."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for i in ids:
            yield decoder.decode(self.decode_bytes([i]))
        yield decoder.decode(b"", final=True)

    def decode_batch(self, batch: Iterable[Ids], errors: str = "replace") -> list[str]:
        """The text of each row of ids."""
        texts = []
        for i, ids in enumerate(given_rows(batch, "batch", "rows of ids")):
            try:
                raw = self.decode_bytes(ids)
            except (TypeError, ValueError) as error:
                raise (TypeError if isinstance(error, TypeError) else ValueError)(f"batch[{i}]: {error}") from None
            texts.append(raw.decode("utf-8", errors))
        return texts

    def token_bytes(self, id: int) -> bytes:
        """The bytes that an id stands for; a special token's name."""
        return self._bpe.token_bytes(single(id))

    def token_lengths(self) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
        """Bytes and characters of text of each id, uint32 (V,) each; special tokens are no text.

        A character counts where its first byte stands, so the sum over a text's ids is the text's length.
        """
        tokens = self._bpe.tokens()
        n_bytes = np.fromiter(map(len, tokens), dtype=np.uint32, count=len(tokens))  # (V,)
        starts = (sum(byte & 0xC0 != 0x80 for byte in token) for token in tokens)
        return n_bytes, np.fromiter(starts, dtype=np.uint32, count=len(tokens))  # (V,)

    def token_to_id(self, token: str | bytes) -> int | None:
        """The id of a token given by its text, its bytes or, as str, its special name; None if there is none."""
        if isinstance(token, str):
            return self._specials.get(token, self._bpe.token_to_id(token.encode(errors="surrogatepass")))
        return self._bpe.token_to_id(token)

    def id_to_token(self, id: int) -> str:
        r"""The text of an id; bytes that are no character are shown as `\xe2`."""
        return self.token_bytes(id).decode(errors="backslashreplace")

    def __len__(self) -> int:
        return self.vocab_size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self._fingerprint == other._fingerprint

    def __hash__(self) -> int:
        return hash(self._fingerprint)

    def __repr__(self) -> str:
        name, short = type(self).__name__, self.fingerprint[:8]
        return f"{name}(vocab_size={self.vocab_size}, pattern={self.pattern!r}, fingerprint={short!r})"

    def _first_special(self, names: Iterable[str]) -> int | None:
        return next((self._specials[name] for name in names if name in self._specials), None)
