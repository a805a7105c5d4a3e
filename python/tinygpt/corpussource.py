"""What a corpus can be made of: one, paths, or texts."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from tinygpt.corpus import Corpus

Source = Corpus | str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Iterable[str]
"""What a corpus can be made of; see `as_corpus`."""


def as_corpus(source: Source) -> Corpus:
    """A corpus out of what `Tokenizer.train` and `write_shards` take.

    A list holds paths if its items are paths or name files that exist, and documents otherwise; items that look like
    paths but do not exist are refused, so that a slip of the pen is not taken for a text of one line.

    Raises:
        FileNotFoundError: A path does not exist.
        TypeError: Something else.
    """
    if isinstance(source, Corpus):
        return source
    if isinstance(source, str | os.PathLike):
        return Corpus(source)
    if not isinstance(source, Iterable):
        raise TypeError(f"source must be a Corpus, a path or an iterable of str, got {type(source).__name__}")
    if isinstance(source, list | tuple):
        paths = [item for item in source if isinstance(item, os.PathLike) or (isinstance(item, str) and _is_path(item))]
        if source and len(paths) == len(source):
            return Corpus(paths)
        if paths:
            raise FileNotFoundError(
                f"{len(paths)} of {len(source)} items, the first {os.fspath(paths[0])!r}, look like paths and the rest "
                "do not; pass Corpus(paths) or Corpus.from_iterable(texts)"
            )
    return Corpus.from_iterable(source)  # type: ignore[arg-type]


def _is_path(item: str) -> bool:
    """Whether a string names a file, or is one word with a slash or an ending like a file's."""
    if not item or len(item) > 4096 or "\n" in item or "\0" in item:
        return False
    try:
        if os.path.exists(item):
            return True
    except OSError:
        return False
    one_word = not any(character.isspace() for character in item)
    return one_word and (
        "/" in item or os.sep in item or Path(item).suffix.lower() in {".txt", ".md", ".json", ".jsonl", ".csv"}
    )
