"""Which text: files or any iterable of strings, what a document is, and how it is cleaned."""

import inspect
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from tinygpt._core import CLEANING_RULES, Counts, Files, ShardSet, Verdicts, check_filters, xxh3_file
from tinygpt._core import clean as clean_text
from tinygpt.corpusreport import added
from tinygpt.foundfiles import FoundFiles
from tinygpt.parquetrows import open_rows
from tinygpt.texts import Texts, TextSample, batches

Progress = Callable[[int, int | None], object]
"""Called now and then with the bytes done and the bytes there are (None when unknown)."""

Origin = tuple[int, int, int]
"""Where a document came from: number of its file, first byte and end of its record."""


class Kept(Protocol):
    """Files whose documents lie encoded in a finished folder already."""

    @property
    def folder(self) -> tuple[str, list[str], list[str], str | None]:
        """Its path, the shards of train and val, and the side whose end val is."""

    @property
    def rows(self) -> Sequence[tuple[int, int, int, str, int, str]]:
        """For each its number there and here, its bytes, xxh3-64, documents and, as JSON, what was seen of it."""

    @property
    def is_all(self) -> bool:
        """Whether they are all that the folder held and all that there is."""


class Corpus:
    """Documents, read as often as needed and never held whole.

    Files are told by their names: text and source code, `.jsonl` `.ndjson` `.json`, `.csv` `.tsv`, `.parquet`, Common
    Crawl's `.warc` and `.wet`, each also packed (`.gz` `.zst` `.xz` `.bz2`) or in a `.tar` or `.zip`.

    Args:
        paths: A file, a folder (searched for all of these), a glob, `@list.txt` with a path a line, or several of them.
        include: Globs that a folder's files must match instead of the usual endings: by name, or by path below the
            folder where the glob holds a `/`.
        exclude: A folder whose files are left out, should it lie in one of `paths`.
        format: What the files are, whatever their names say; one of `FORMATS`.
        documents: What a document is in text: "file", each file, or each part of it between lines that are
            `separator`; "line"; "blank", what stands between blank lines.
        separator: A line that ends a document.
        text_field: The text of a record: a key of JSON (`data.text` for one in another), a column of a table by name
            or by number from 0. None looks for text, content, body, messages, or prompt and completion.
        header: Whether the first row of a table names its columns; None finds out.
        delimiter: What stands between two fields of a table; None finds out.
        malformed: What becomes of a record that cannot be used: "error", or "skip" and count it.
        clean: Names of cleaning rules, applied in order; see `CLEANING_RULES`.
        invalid: What becomes of bytes that are not UTF-8: "replace" (by U+FFFD, counted), "error", or "skip", which
            leaves out the document and counts it.
        min_chars: Leave out documents of fewer characters.
        max_chars: Leave out documents of more.
        language: Codes of languages such as "en", outside of which a document is left out.
        quality: Rules by which a document is left out: "gopher" or "c4".
        dedup: Leave out documents that came before: "exact", the same text; "near", most of the same words in a row.
        threads: Threads for the passes over it; None means one for each core.

    Attributes:
        report: What the last pass saw; see `docs/formats.md`.
        sample: What the last `count` with a limit took, in words; None where it took all.

    Raises:
        FileNotFoundError: A path does not exist.
        ValueError: Nothing to read in a folder, an unknown rule or choice.

    Example:
        >>> corpus = Corpus.from_iterable(["One  document.", "Another."], clean=["whitespace"])
        >>> list(corpus)
        ['One document.', 'Another.']
        >>> corpus.report["documents"]
        2
    """

    def __init__(
        self,
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        include: Sequence[str] | None = None,
        exclude: str | os.PathLike[str] | None = None,
        format: str | None = None,
        documents: str = "file",
        separator: str = "<|endoftext|>",
        text_field: str | None = None,
        header: bool | None = None,
        delimiter: str | None = None,
        malformed: str = "error",
        clean: Sequence[str] = (),
        invalid: str = "replace",
        min_chars: int | None = None,
        max_chars: int | None = None,
        language: Sequence[str] | str | None = None,
        quality: str | None = None,
        dedup: str | None = None,
        threads: int | None = None,
    ) -> None:
        several = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
        if not several:
            raise ValueError("a corpus needs at least one file or folder, got none")
        self.clean = _rule_names(clean)
        self.threads = threads
        self.report: dict[str, Any] = {}
        self.sample: str | None = None
        self._name = os.fspath(several[0]) + (f" and {len(several) - 1} more" if len(several) > 1 else "")
        self._spool = _spooled() if any(os.fspath(path) == "-" for path in several) else None
        self._texts = Texts()
        self._read: list[tuple[int, str, int, str | None] | None] = []
        self._verdicts: Verdicts | None = None
        reading: dict[str, Any] = {
            "documents": documents,
            "separator": separator,
            "text_field": text_field,
            "header": header,
            "delimiter": delimiter,
            "malformed": malformed,
            "format": format,
            "include": None if include is None else list(include),
        }
        languages = [language] if isinstance(language, str) else None if language is None else list(language)
        self._filters: dict[str, Any] = {
            "min_chars": min_chars,
            "max_chars": max_chars,
            "language": languages,
            "quality": quality,
            "dedup": dedup,
            "skip_invalid": invalid == "skip",
        }
        check_filters(**self._filters)
        plain = inspect.signature(Corpus).parameters
        chosen = {**reading, **self._filters}
        kept = {name: value for name, value in chosen.items() if name in plain and value != plain[name].default}
        settings = {"documents": documents, "clean": self.clean, "invalid": invalid, **kept}
        self._files: Files | None = Files(
            [
                self._spool.name if self._spool is not None and path == "-" else path
                for path in (os.fspath(path) for path in several)
            ],
            exclude=None if exclude is None else os.fspath(exclude),
            clean=self.clean,
            invalid="replace" if invalid == "skip" else invalid,
            open_rows=open_rows,
            **reading,
        )
        self._found: FoundFiles | None = FoundFiles(
            self._files, settings, None if self._spool is None else self._spool.name
        )

    @classmethod
    def from_iterable(cls, texts: Iterable[str], *, clean: Sequence[str] = (), threads: int | None = None) -> "Corpus":
        """Documents from any iterable of strings, one each.

        Training a tokenizer and writing shards are a pass each, so what can be iterated only once, as a generator,
        serves for one of them.
        """
        corpus = cls.__new__(cls)
        corpus._texts = Texts(texts)
        corpus.clean = _rule_names(clean)
        corpus.threads = threads
        corpus.report = {}
        corpus.sample = None
        corpus._name = "the texts"
        corpus._files = None
        corpus._filters = {}
        corpus._found = None
        corpus._spool = None
        corpus._verdicts = None
        return corpus

    @property
    def n_bytes(self) -> int | None:
        """Bytes of the files as they were found; None for an iterable."""
        return None if self._files is None else self._files.total_bytes()

    @property
    def name(self) -> str:
        """What to call it in a message: the first path and how many more there are."""
        return self._name

    @property
    def files(self) -> list[Path]:
        """The files, in the order in which they are read."""
        return [] if self._files is None else [Path(path) for path, _ in self._files.files()]

    @property
    def skipped(self) -> list[tuple[Path, str]]:
        """Files that were found in folders and are not read, and why."""
        return [] if self._files is None else [(Path(path), why) for path, why in self._files.skipped()]

    def pairs(self) -> Iterator[tuple[str, str, bool]]:
        """Each document as it was read and after cleaning, and whether a filter leaves it out."""
        if self._files is None:
            yield from ((text, clean_text(text, self.clean), False) for text in self._texts.each())
            return
        verdicts, documents = self.judge(), self._files.documents(is_raw=True, threads=self.threads)
        for text in documents:
            yield text, clean_text(text, self.clean), verdicts is not None and verdicts.is_removed(documents.number)

    def __iter__(self) -> Iterator[str]:
        return (text for text, _ in self._each_document())

    def _each_document(self) -> Iterator[tuple[str, Origin | None]]:
        """The documents, and where each came from."""
        if self._files is None:
            report = {"documents": 0}
            for text in self._texts.each():
                report["documents"] += 1
                yield clean_text(text, self.clean), None
            self.report = report
            return
        documents = self._files.documents(verdicts=self.judge(), threads=self.threads)
        for text in documents:
            yield text, documents.origin
        self.report = self._completed(documents.report())

    def judge(self, *, threads: int | None = None, progress: Progress | None = None) -> Verdicts | None:
        """Which documents the filters leave out, found out once; None where there are no filters."""
        wanted = {name: value for name, value in self._filters.items() if value}
        if self._files is None or not wanted:
            return None
        if self._verdicts is None:
            with tempfile.TemporaryDirectory(prefix="tinygpt-") as folder:
                self._verdicts = self._files.judge(
                    folder,
                    **wanted,
                    threads=self.threads if threads is None else threads,
                    progress=_with_total(progress, self.n_bytes),
                )
        return self._verdicts

    def count(
        self,
        *,
        pattern: str = "gpt2",
        special_tokens: Sequence[str] = (),
        max_bytes: int | None = None,
        max_documents: int | None = None,
        into: Counts | None = None,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> Counts:
        """How often each piece occurs: what a tokenizer is learnt from.

        The counts are exact and take up to 75 MB of memory; what is beyond lies in a temporary file.

        Args:
            pattern: How documents are split into pieces.
            special_tokens: Names that are cut out of the text first.
            max_bytes: Count a sample of at most so many bytes, spread over the files; of an iterable, the first ones.
            max_documents: Count a sample of at most so many documents, likewise; of a sequence, spread over it.
            into: Counts to which these are added, and which are returned; None makes new ones. They are of no use
                any longer where counting fails.
            threads: None means the corpus's own choice.
            progress: Told the bytes done and the bytes there are.
        """
        for name, limit in [("max_bytes", max_bytes), ("max_documents", max_documents)]:
            if limit is not None and limit < 1:
                raise ValueError(f"{name} must be at least 1, got {limit}")
        counts, specials = Counts() if into is None else into, list(special_tokens)
        threads = self.threads if threads is None else threads
        if self._files is not None:
            report = counts.add_files(
                self._files,
                pattern=pattern,
                special_tokens=specials,
                max_bytes=max_bytes,
                max_documents=max_documents,
                verdicts=self.judge(threads=threads),
                threads=threads,
                progress=_with_total(progress, self.n_bytes),
            )
            _end(progress, self.n_bytes)
            self.sample = _sample_line(report.pop("sample", None), report.pop("sampled_from", None))
            self.report = self._completed(report)
            return counts
        texts = TextSample(self._texts, max_bytes, max_documents)
        self.report = {}
        for first, batch in batches(texts, n_characters=len):
            seen = counts.add_texts(
                batch, first=first, pattern=pattern, special_tokens=specials, clean=self.clean, threads=threads
            )
            self._add_to_report(seen, progress)
        self.sample = texts.line(self.report.get("bytes_read", 0))
        return counts

    def write(
        self,
        shards: ShardSet,
        *,
        part: tuple[int, int] | None = None,
        kept: "Kept | None" = None,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Encodes every document into `shards`.

        Args:
            shards: Where they go; what an earlier process has encoded into them is not encoded again.
            part: Encode only the part of this number, from 0, of so many.
            kept: Files whose documents are copied from elsewhere.
            threads: None means the corpus's own choice.
            progress: Told the bytes done and the bytes there are.
        """
        threads = self.threads if threads is None else threads
        if self._files is None:
            self.report = {}
            for first, batch in batches(self._texts.each(), n_characters=len):
                self._add_to_report(shards.add_texts(batch, first=first, clean=self.clean, threads=threads), progress)
            return
        verdicts, rows = self.judge(threads=threads), {} if kept is None else {row[1]: row for row in kept.rows}
        at, n_files, sizes = shards.next_file(), len(self.files), [n_bytes for _, n_bytes in self._files.files()]
        while at in rows or at < n_files:
            run = []
            while at in rows:
                run.append(rows[at])
                at += 1
            if kept is not None and run:
                shards.copy_files(kept.folder, run)
            until = next((i for i in range(at, n_files) if i in rows), n_files)
            if until > at:
                told = _with_total(progress, self.n_bytes, sum(sizes[:at]))
                how: dict[str, Any] = {"part": part, "verdicts": verdicts, "threads": threads, "progress": told}
                shards.add_files(self._files, until=until, **how)
                at = until
        report = shards.add_files(self._files, part=part, verdicts=verdicts)
        _end(progress, self.n_bytes)
        self.check_unchanged()
        self._read = report.pop("read")
        if verdicts is not None and part is None:
            wanted = sum(n_bytes for _, _, n_bytes in verdicts.counts())
            if report["removed"][1] != wanted:
                raise ValueError(f"{self.name}: changed while it was read; start again")
        has_grown = kept is not None and not kept.is_all
        self.report = self._completed(report) | ({"kept_files": len(rows)} if has_grown else {})

    def write_ids(
        self, shards: ShardSet, *, encode: Callable[[list[str]], list[bytes]], progress: Progress | None = None
    ) -> None:
        """Adds every document to `shards` as the ids that `encode` gives for a batch, each little-endian uint32."""
        done, n_documents = 0, [0] * len(self.files)
        for first, batch in batches(self._each_document(), n_characters=lambda document: len(document[0])):
            texts, origins = [text for text, _ in batch], [origin for _, origin in batch if origin is not None]
            shards.add_ids(texts, encode(texts), first=first, origins=origins or None)
            done += sum(len(text.encode()) for text in texts)
            for file, _, _ in origins:
                n_documents[file] += 1
            if progress is not None:
                progress(done, self.n_bytes)
        _end(progress, self.n_bytes)
        self.check_unchanged()
        self.report = {"bytes_read": done, "bytes_used": done, "invalid_sequences": 0, **self.report}
        if self._files is not None:
            found = zip(self._files.files(), n_documents, strict=True)
            self._read = [(n_bytes, xxh3_file(path), documents, None) for (path, n_bytes), documents in found]

    def check_unchanged(self) -> None:
        """Returns when no file has been written to since the corpus was made; one that is gone was read before.

        Raises:
            ValueError: One has: passes over it may have seen different text.
        """
        if self._found is not None:
            self._found.check_unchanged()

    def identity(self) -> dict[str, Any] | None:
        """What decides what a pass gives, without reading it: settings, and path, size and date of each file."""
        return None if self._found is None else self._found.identity()

    def lineage(self) -> dict[str, Any] | None:
        """What the last `write` read, for the manifest: settings, files, their lengths, checksums and counts.

        A file of which another part of a whole is to tell has none of these.
        """
        return None if self._found is None else self._found.lineage(self._read, self._verdicts)

    def unchanged_since(self, lineage: Any) -> bool:
        """Whether files and settings are still those of a manifest's `corpus`; all bytes are compared by checksum."""
        return self._found is not None and self._found.unchanged_since(lineage)

    def settings_of(self, lineage: Any) -> bool:
        """Whether a manifest's `corpus` was read in the same way, whatever its files."""
        return self._found is not None and self._found.settings_of(lineage)

    def _completed(self, report: dict[str, Any]) -> dict[str, Any]:
        """A report with what each filter left out in place of the sum, and with the files that were passed over."""
        assert self._files is not None
        counts = [] if self._verdicts is None else self._verdicts.counts()
        report["removed"] = {rule: [documents, n_bytes] for rule, documents, n_bytes in counts}
        report["refused"] = list(report["refused"])
        report["skipped_files"] = len(self._files.skipped())
        return report

    def _add_to_report(self, seen: dict[str, Any], progress: Progress | None) -> None:
        seen |= {"removed": {}, "refused": list(seen["refused"])}
        self.report = added(self.report, seen) if self.report else seen
        if progress is not None:
            progress(self.report["bytes_read"], None)


def _spooled() -> "tempfile._TemporaryFileWrapper[bytes]":
    """Standard input as a file: it comes once, and is read several times."""
    spool = tempfile.NamedTemporaryFile(prefix="tinygpt-stdin-")  # noqa: SIM115  it lives as long as the corpus
    try:
        shutil.copyfileobj(sys.stdin.buffer, spool)
        spool.flush()
    except OSError as error:
        error.filename = f"{spool.name} (standard input; TMPDIR names another place)"
        raise
    return spool


def _rule_names(names: Sequence[str]) -> list[str]:
    if isinstance(names, str):
        raise TypeError(f"clean must be a list of rules such as {CLEANING_RULES}, got the str {names!r}")
    clean_text("", list(names))  # refuses an unknown name
    return list(names)


def _sample_line(taken: tuple[int, int] | None, of: tuple[int, int] | None) -> str | None:
    """A sample in words, given documents and bytes of it and of all."""
    if taken is None or of is None:
        return None
    return f"{taken[1]:,} of {of[1]:,} bytes, from {taken[0]:,} of {of[0]:,} documents"


def _with_total(progress: Progress | None, total: int | None, before: int = 0) -> Callable[[int], object] | None:
    return None if progress is None else lambda done: progress(before + done, total)


def _end(progress: Progress | None, total: int | None) -> None:
    """Says that all is done: a short pass would else say nothing."""
    if progress is not None and total is not None:
        progress(total, total)
