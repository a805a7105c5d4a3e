"""`load_tokenizer` opens any tokenizer: ours where it can be, else by the library that owns its format."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from tinygpt._core import FormatError
from tinygpt.anytokenizer import AnyTokenizer, tokenizer_file
from tinygpt.formats import tiktoken
from tinygpt.librarytokenizers import HuggingFaceTokenizer, SentencePieceTokenizer
from tinygpt.tokenizer import Tokenizer

LoadedTokenizer = Tokenizer | SentencePieceTokenizer | HuggingFaceTokenizer


def load_tokenizer(
    path: str | os.PathLike[str],
    *,
    pattern: str | None = None,
    special_tokens: Sequence[str] | Mapping[str, int] | None = None,
) -> LoadedTokenizer:
    """The tokenizer of a file or folder: ours where it is byte-level BPE, else the library's that owns its format.

    Args:
        path: What `Tokenizer.load` reads, a SentencePiece `.model`, any `tokenizer.json`, or a folder with one of them.
        pattern: As in `Tokenizer.load`, for files that do not say it; they are ours, so no library is asked.
        special_tokens: Likewise.

    Raises:
        FileNotFoundError: There is no such file.
        FormatError: It is damaged.
        ImportError: The library is not installed; the message says how it is.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Tokenizer.from_merges([(b"a", b"b")]).save(folder)
        ...     load_tokenizer(folder).encode("abc")
        [256, 99]
    """
    file = Path(path)
    if file.is_dir() and not (file / "tokenizer.json").is_file() and (file / "tokenizer.model").is_file():
        file = file / "tokenizer.model"
    if pattern is not None or special_tokens is not None:
        return Tokenizer.load(file, pattern=pattern, special_tokens=special_tokens)
    try:
        return Tokenizer.load(file)
    except FormatError as refusal:
        if file.suffix == ".model":
            return SentencePieceTokenizer(file)
        json_file = file / "tokenizer.json" if file.is_dir() else file
        if json_file.suffix != ".json" or not json_file.is_file():
            raise
        return HuggingFaceTokenizer(json_file, refusal=refusal)


def is_rank_file(path: Path) -> bool:
    """Whether a file holds ranks as tiktoken writes them, which say neither pattern nor special tokens."""
    if path.suffix == ".json" or not path.is_file():
        return False
    with path.open("rb") as file:
        return path.suffix == ".tiktoken" or tiktoken.are_ranks(file.read(1024))


def tokenizer_in(folder: Path) -> LoadedTokenizer | None:
    """The tokenizer of a folder; None if it holds none."""
    return None if tokenizer_file(folder) is None else load_tokenizer(folder)


def continues(larger: AnyTokenizer, smaller: AnyTokenizer) -> bool:
    """Whether one is the other with special tokens after its ids, so that every id of the smaller means the same.

    Example:
        >>> plain = Tokenizer.from_merges([(b"a", b"b")])
        >>> continues(plain.with_special_tokens(["<|user|>"]), plain), continues(plain, plain)
        (True, False)
    """
    if not isinstance(larger, Tokenizer) or not isinstance(smaller, Tokenizer):
        return False
    added = {i: name for name, i in larger.special_tokens.items() if i >= smaller.vocab_size}
    if not added or not set(added.values()).isdisjoint(smaller.added_names):
        return False
    return smaller.with_special_tokens([added[i] for i in sorted(added)]).fingerprint == larger.fingerprint
