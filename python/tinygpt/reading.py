"""How text is read: what its files are, what a document is in them, which are left out and how they are cleaned."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from tinygpt.chats import Chats, is_chats
from tinygpt.corpus import Corpus


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How text is read; each field is an argument of `Corpus`.

    Example:
        >>> Reading(documents="line").documents
        'line'
    """

    format: Literal["text", "jsonl", "json", "csv", "tsv", "warc", "parquet", "tar", "zip"] | None = None
    """What the files are; none tells by their names, packed (.gz .zst .xz .bz2) or not."""
    documents: Literal["file", "line", "blank"] = "file"
    """What a document is in text: file (or what stands between lines that are --separator), line, or blank (what stands
    between blank lines)."""
    separator: str = "<|endoftext|>"
    """Line that ends a document in text."""
    text_field: str | None = None
    """Text of a record: key of JSON (data.text for one in another), column by name or number from 0; none looks for
    text, content, body, messages, or prompt and completion."""
    header: bool | None = None
    """The first row of a .csv or .tsv names its columns; none finds out."""
    delimiter: str | None = None
    """Stands between two fields of a .csv; none finds out."""
    include: tuple[str, ...] = ()
    """Globs that the files of a folder must match; none takes all text, source code and data formats."""
    clean: tuple[str, ...] = ()
    """Cleaning rules, applied in order: newlines, whitespace, lowercase, drop-empty-lines, strip-control, nfc,
    html-entities, mask-urls, mask-emails, gutenberg."""
    invalid: Literal["replace", "error", "skip"] = "replace"
    """What becomes of bytes that are not UTF-8: replace (by U+FFFD, counted), error, or skip (the document is left
    out)."""
    min_chars: int | None = None
    """Leave out documents of fewer characters."""
    max_chars: int | None = None
    """Leave out documents of more characters."""
    language: tuple[str, ...] = ()
    """Leave out documents in other languages than these (en, de, ...)."""
    quality: Literal["gopher", "c4"] | None = None
    """Leave out documents that these rules find poor."""
    dedup: Literal["exact", "near"] | None = None
    """Leave out documents that came before: exact, the same text; near, most of the same words in a row, too."""
    malformed: Literal["error", "skip"] = "error"
    """What becomes of a record that cannot be used (no text in it, no conversation in a file of chats): error, or skip
    (counted)."""

    def corpus(
        self, paths: Sequence[str | Path], *, exclude: Path | None = None, threads: int | None = None
    ) -> Corpus | Chats:
        """The text of these files and folders, or the chats of .jsonl files.

        Args:
            paths: Files, folders, globs, or lists as `@list.txt`.
            exclude: A folder that is written to, whose files are left out.
            threads: None means one for each core.

        Raises:
            FileNotFoundError: A path does not exist.
            ValueError: A folder with nothing to read, an unknown rule or choice, or both text and chats.
        """
        how: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(Reading)}
        plain = Reading()
        set_for_text = [name for name in how if how[name] != getattr(plain, name) and name != "malformed"]
        chats = [path for path in paths if not set(set_for_text) & {"text_field", "format"} and is_chats(Path(path))]
        if chats and len(chats) < len(paths):
            other = next(path for path in paths if path not in chats)
            raise ValueError(f"{chats[0]} holds chats and {other} text; prepare them apart, each into its own --out")
        if chats:
            for name in set_for_text:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} is for text, but {chats[0]} holds chats; leave it away")
            return Chats(chats, malformed=self.malformed)
        how |= {"include": self.include or None, "language": self.language or None}
        return Corpus(list(paths), exclude=exclude, threads=threads, **how)


def folder_name(path: Path) -> str:
    """What a folder made of text is called, unless somebody names it.

    Example:
        >>> folder_name(Path("texts/book-*.txt")), folder_name(Path("@list.txt")), folder_name(Path("a.tar.gz"))
        ('book', 'list', 'a')
    """
    text = str(path).removeprefix("@")
    if text == "-":
        return "stdin"
    name = Path(text).resolve().name.split("*")[0].strip("-_. ")
    return name.split(".")[0] or "text"
