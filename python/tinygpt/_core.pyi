"""The Rust part: everything that touches each byte of text; `tinygpt.tokenizer` and `tinygpt.corpus` are its faces."""

from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from typing import Any, final

import numpy as np
import numpy.typing as npt

__all__ = [
    "CLEANING_RULES",
    "MAX_PIECES_BYTES",
    "PATTERNS",
    "Bpe",
    "Counts",
    "Decoder",
    "DocumentIterator",
    "Files",
    "FormatError",
    "ShardSet",
    "Verdicts",
    "check_filters",
    "clean",
    "last_cut",
    "pieces",
    "xxh3_file",
]

CLEANING_RULES: list[str]
MAX_PIECES_BYTES: int
PATTERNS: list[str]

class FormatError(ValueError):
    """A file is damaged, or is not what it should be."""

@final
class Files:
    """Files of a corpus: which, what a document is in them, how they are cleaned."""

    def __new__(
        cls,
        paths: list[str],
        *,
        include: list[str] | None = None,
        exclude: str | None = None,
        format: str | None = None,
        documents: str = "file",
        separator: str = "<|endoftext|>",
        text_field: str | None = None,
        header: bool | None = None,
        delimiter: str | None = None,
        malformed: str = "error",
        clean: list[str] = ...,
        invalid: str = "replace",
        open_rows: Callable[[str, str | None], Iterator[list[str | None]]] | None = None,
    ) -> Files: ...
    def files(self) -> list[tuple[str, int]]: ...
    def formats(self) -> list[str]: ...
    def skipped(self) -> list[tuple[str, str]]: ...
    def total_bytes(self) -> int: ...
    def passage(self, file: int, start: int, end: int, *, most: int) -> tuple[bytes, int, bytes]: ...
    def documents(
        self, *, verdicts: Verdicts | None = None, is_raw: bool = False, threads: int | None = None
    ) -> DocumentIterator: ...
    def judge(
        self,
        folder: str,
        *,
        min_chars: int | None = None,
        max_chars: int | None = None,
        language: list[str] | None = None,
        quality: str | None = None,
        dedup: str | None = None,
        skip_invalid: bool = False,
        threads: int | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> Verdicts: ...

@final
class Verdicts:
    """Which documents are left out."""

    def counts(self) -> list[tuple[str, int, int]]: ...
    def is_removed(self, number: int) -> bool: ...
    def digest(self, file: int) -> str: ...

@final
class Decoder:
    """The forward pass for generation: streams of tokens and the model that reads them."""

    def __new__(
        cls,
        tensors: dict[str, npt.NDArray[np.float32]],
        *,
        vocab_size: int,
        block_size: int,
        n_layer: int,
        n_head: int,
        n_kv: int,
        d_model: int,
        d_inner: int,
        norm: str,
        norm_eps: float,
        mlp: str,
        rope_theta: float | None,
        dtype: str,
        n_slots: int,
        threads: int,
    ) -> Decoder: ...
    def n_seen(self) -> list[int]: ...
    def cut(self, slot: int, n: int) -> None: ...
    def extend(self, feeds: list[tuple[int, Sequence[int]]], *, every: bool = False) -> npt.NDArray[np.float32]: ...

@final
class DocumentIterator(Iterator[str]):
    """The clean documents of files, one string each."""

    def __iter__(self) -> DocumentIterator: ...
    def __next__(self) -> str: ...
    @property
    def number(self) -> int: ...
    @property
    def origin(self) -> tuple[int, int, int]: ...
    def report(self) -> dict[str, Any]: ...

@final
class Counts:
    """How often each piece of text occurs: what a tokenizer is learnt from.

    Counting is a sum: counts of parts, made by several processes or machines, add up to the counts of the whole.

    Example:
        >>> from tinygpt import Corpus, Tokenizer
        >>> counts = Corpus.from_iterable(["a b"]).count()
        >>> counts.add(Corpus.from_iterable(["b b"]).count())
        >>> counts.to_dict() == {b"a": 1, b"b": 1, b" b": 2}
        True

    `save` writes them to a file, `load` checks and reads it; `pattern` is how text was split, if that is known. What
    takes more than 75 MB of memory lies in a file without a name in the folder `temporary`, or in the system's for
    temporary files. `len` reads all of that, and `to_dict` takes the memory of a dict. Where `add_files` fails, the
    counts of before are lost, too; where a disk is full, what was being added is there in part.
    """

    def __new__(
        cls, pieces: dict[bytes, int] | None = None, *, temporary: str | PathLike[str] | None = None
    ) -> Counts: ...
    def add_texts(
        self,
        texts: list[str],
        *,
        first: int = 0,
        pattern: str = "gpt2",
        special_tokens: list[str] = ...,
        clean: list[str] = ...,
        threads: int | None = None,
    ) -> dict[str, Any]: ...
    def add_files(
        self,
        files: Files,
        *,
        pattern: str = "gpt2",
        special_tokens: list[str] = ...,
        max_bytes: int | None = None,
        max_documents: int | None = None,
        verdicts: Verdicts | None = None,
        threads: int | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> dict[str, Any]: ...
    def add(self, other: Counts) -> None: ...
    def save(self, path: str | PathLike[str]) -> None: ...
    @staticmethod
    def load(path: str | PathLike[str]) -> Counts: ...
    @property
    def pattern(self) -> str | None: ...
    def to_dict(self) -> dict[bytes, int]: ...
    def __len__(self) -> int: ...
    def __bool__(self) -> bool: ...

@final
class Bpe:
    """A vocabulary, indexed for speed; immutable."""

    @staticmethod
    def learn(
        counts: Counts,
        *,
        n_merges: int,
        pattern: str,
        special_tokens: list[str],
        max_bytes: int | None = None,
        consume: bool = False,
    ) -> tuple[Bpe, tuple[int, int, float]]: ...
    @staticmethod
    def from_tokens(
        pattern: str,
        tokens: list[tuple[bytes, int]],
        merges: list[tuple[bytes, bytes]] | None,
        added: list[tuple[str, int, int]],
        whole_pieces: bool,
    ) -> Bpe: ...
    def encode(self, text: str, allowed_special: list[str]) -> list[int]: ...
    def encode_to_numpy(self, text: str, allowed_special: list[str]) -> npt.NDArray[np.uint32]: ...
    def encode_batch(self, texts: list[str], allowed_special: list[str], threads: int | None) -> list[list[int]]: ...
    def encode_batch_to_numpy(
        self, texts: list[str], allowed_special: list[str], threads: int | None
    ) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint64]]: ...
    def decode(self, ids: npt.NDArray[np.uint32]) -> bytes: ...
    def token_bytes(self, id: int) -> bytes: ...
    def token_to_id(self, token: bytes) -> int | None: ...
    def tokens(self) -> list[bytes]: ...
    def model_tokens(self) -> list[tuple[bytes, int]]: ...
    def merges(self) -> list[tuple[int, int]]: ...
    def merge_tokens(self) -> list[tuple[bytes, bytes]]: ...
    def special_tokens(self) -> list[tuple[str, int]]: ...
    def added_tokens(self) -> list[tuple[str, int, int]]: ...
    def whole_pieces(self) -> bool: ...
    def rank_fault(self) -> str | None: ...
    def pattern(self) -> str: ...
    def fingerprint(self) -> str: ...
    def __len__(self) -> int: ...

@final
class ShardSet:
    """The shards of a folder, being written: add files or texts, then finish once."""

    def __new__(
        cls,
        folder: str,
        bpe: Bpe,
        *,
        eot_id: int | None,
        shard_tokens: int,
        val_fraction: float,
        split: str = "hash",
        journal: tuple[str, str] | None = None,
    ) -> ShardSet: ...
    @staticmethod
    def of_ids(
        folder: str,
        *,
        lengths: list[int],
        fingerprint: bytes,
        eot_id: int | None,
        shard_tokens: int,
        val_fraction: float,
        split: str = "hash",
    ) -> ShardSet: ...
    def add_ids(
        self,
        texts: list[str],
        ids: list[bytes],
        *,
        first: int = 0,
        origins: list[tuple[int, int, int]] | None = None,
    ) -> None: ...
    def dtype(self) -> str: ...
    def next_file(self) -> int: ...
    def add_files(
        self,
        files: Files,
        *,
        until: int | None = None,
        part: tuple[int, int] | None = None,
        verdicts: Verdicts | None = None,
        threads: int | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> dict[str, Any]: ...
    def copy_files(
        self,
        folder: tuple[str, list[str], list[str], str | None],
        files: Sequence[tuple[int, int, int, str, int, str]],
    ) -> None: ...
    def join(
        self,
        folders: list[tuple[str, list[str], list[str], str | None]],
        *,
        progress: Callable[[int], object] | None = None,
    ) -> None: ...
    def shuffle(
        self,
        folder: tuple[str, list[str], list[str], str | None],
        *,
        seed: int,
        temporary: str,
        progress: Callable[[int], object] | None = None,
    ) -> None: ...
    def add_texts(
        self, texts: list[str], *, first: int = 0, clean: list[str] = ..., threads: int | None = None
    ) -> dict[str, Any]: ...
    def finish(self, *, fallback: bool = True) -> tuple[list[dict[str, Any]], list[dict[str, Any]], str | None]: ...

def check_filters(
    *,
    min_chars: int | None = None,
    max_chars: int | None = None,
    language: list[str] | None = None,
    quality: str | None = None,
    dedup: str | None = None,
    skip_invalid: bool = False,
) -> None:
    """Raise a ValueError where filters are not what they should be."""

def xxh3_file(path: str | PathLike[str]) -> str:
    """Return xxh3-64 of a file's content, as 16 hexadecimal digits."""

def clean(text: str, names: list[str]) -> str:
    """Return a text after the cleaning rules of those names."""

def pieces(text: str, pattern: str = "gpt2") -> list[bytes]:
    """Return the pieces of a text, as bytes."""

def last_cut(text: str, pattern: str, whole: list[str]) -> int:
    """Return how many characters of a text, of which more may follow, can be encoded by themselves; 0 if none can.

    `whole` are strings that may become ids before text is split.
    """
