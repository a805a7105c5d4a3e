"""`load_tokenizer` opens any tokenizer: ours where it can be, else by the library that owns its format."""

import os
from pathlib import Path

from tinygpt._core import FormatError
from tinygpt.librarytokenizers import HuggingFaceTokenizer, SentencePieceTokenizer
from tinygpt.tokenizer import Tokenizer

LoadedTokenizer = Tokenizer | SentencePieceTokenizer | HuggingFaceTokenizer


def load_tokenizer(path: str | os.PathLike[str]) -> LoadedTokenizer:
    """The tokenizer of a file or folder: ours where it is byte-level BPE, else the library's that owns its format.

    Args:
        path: What `Tokenizer.load` reads, a SentencePiece `.model`, any `tokenizer.json`, or a folder with one of them.

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
    try:
        return Tokenizer.load(file)
    except FormatError as refusal:
        if file.suffix == ".model":
            return SentencePieceTokenizer(file)
        json_file = file / "tokenizer.json" if file.is_dir() else file
        if json_file.suffix != ".json" or not json_file.is_file():
            raise
        return HuggingFaceTokenizer(json_file, refusal=refusal)


def tokenizer_in(folder: Path) -> LoadedTokenizer | None:
    """The tokenizer of a folder; None if it holds none."""
    names = ("tokenizer.json", "tokenizer.model", "vocab.json")
    return load_tokenizer(folder) if any((folder / name).is_file() for name in names) else None
