"""Which text: files or any iterable of strings, what a document is, and how it is cleaned."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tinygpt._core import CLEANING_RULES, Counts, Files, ShardSet, xxh3_file
from tinygpt._core import clean as clean_text

Progress = Callable[[int, int | None], object]
"""Called now and then with the bytes done and the bytes there are (None when unknown)."""

_BATCH_CHARACTERS = 4 << 20


class Corpus:
    """Documents, read as often as needed and never held whole.

    Args:
        paths: A file, a folder (searched for text and source code) or several of them.
        include: Globs that a folder's files must match instead of the usual endings: by name, or by path below the
            folder where the glob holds a `/`.
        documents: "file": each file, or each part of it between lines that are `<|endoftext|>`; "line": each line.
        clean: Names of cleaning rules, applied in order: "newlines", "whitespace", "lowercase", "drop-empty-lines".
        invalid: What is done with bytes that are not UTF-8: "replace" (by U+FFFD, counted in `report`) or "error".
        threads: Threads for the passes over it; None means one for each core.

    Attributes:
        report: What the last pass saw: documents, bytes read and used, sequences that were not UTF-8.
        sample: What the last `count` with a limit took, in words; None where it took all.

    Raises:
        FileNotFoundError: A path does not exist.
        ValueError: No text file in a folder, an unknown rule or choice.

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
        documents: str = "file",
        clean: Sequence[str] = (),
        invalid: str = "replace",
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
        self._texts: Iterable[str] = ()
        self._read: list[tuple[int, str]] = []
        self._settings: dict[str, Any] = {"documents": documents, "clean": self.clean, "invalid": invalid}
        if include is not None:
            self._settings["include"] = list(include)
        self._files: Files | None = Files(
            [os.fspath(path) for path in several],
            include=None if include is None else list(include),
            documents=documents,
            clean=self.clean,
            invalid=invalid,
        )

    @classmethod
    def from_iterable(cls, texts: Iterable[str], *, clean: Sequence[str] = (), threads: int | None = None) -> "Corpus":
        """Documents from any iterable of strings, one each.

        Training a tokenizer and writing shards are a pass each, so what can be iterated only once, as a generator,
        serves for one of them.
        """
        if isinstance(texts, str | bytes):
            raise TypeError(f"texts must be an iterable of str, one for each document, got one {type(texts).__name__}")
        corpus = cls.__new__(cls)
        corpus.clean = _rule_names(clean)
        corpus.threads = threads
        corpus.report = {}
        corpus.sample = None
        corpus._name = "the texts"
        corpus._files = None
        # An iterator gives its texts once; this one stands in for it until then.
        corpus._texts = _Once(texts) if isinstance(texts, Iterator) else texts
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

    def __iter__(self) -> Iterator[str]:
        if self._files is None:
            report = {"documents": 0}
            for text in self._each_text():
                report["documents"] += 1
                yield clean_text(text, self.clean)
            self.report = report
            return
        documents = self._files.documents()
        yield from documents
        self.report = documents.report()

    def count(
        self,
        *,
        pattern: str = "gpt2",
        special_tokens: Sequence[str] = (),
        max_bytes: int | None = None,
        max_documents: int | None = None,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> Counts:
        """How often each piece occurs: what a tokenizer is learnt from.

        Args:
            pattern: How documents are split into pieces.
            special_tokens: Names that are cut out of the text first.
            max_bytes: Count a sample of at most so many bytes, spread over the files; of an iterable, the first ones.
            max_documents: Count a sample of at most so many documents, likewise; of a sequence, spread over it.
            threads: None means the corpus's own choice.
            progress: Told the bytes done and the bytes there are.
        """
        for name, limit in [("max_bytes", max_bytes), ("max_documents", max_documents)]:
            if limit is not None and limit < 1:
                raise ValueError(f"{name} must be at least 1, got {limit}")
        counts, specials, threads = Counts(), list(special_tokens), self.threads if threads is None else threads
        if self._files is not None:
            self.report = counts.add_files(
                self._files,
                pattern=pattern,
                special_tokens=specials,
                max_bytes=max_bytes,
                max_documents=max_documents,
                threads=threads,
                progress=_with_total(progress, self.n_bytes),
            )
            _end(progress, self.n_bytes)
            self.sample = _sample_line(self.report.pop("sample", None), self.report.pop("sampled_from", None))
            return counts
        texts = _Limited(self._each_text(max_documents), max_bytes, max_documents)
        self.report = {}
        for first, batch in _batches(texts):
            seen = counts.add_texts(
                batch, first=first, pattern=pattern, special_tokens=specials, clean=self.clean, threads=threads
            )
            self._add_to_report(seen, progress)
        total = len(self._texts) if isinstance(self._texts, Sequence) else None
        is_part = texts.is_cut or (total is not None and texts.n_taken < total)
        self.sample = _part_line(texts.n_taken, total, self.report) if is_part else None
        return counts

    def write(self, shards: ShardSet, *, threads: int | None = None, progress: Progress | None = None) -> None:
        """Encodes every document into `shards`."""
        threads = self.threads if threads is None else threads
        if self._files is not None:
            report = shards.add_files(self._files, threads=threads, progress=_with_total(progress, self.n_bytes))
            _end(progress, self.n_bytes)
            self._read = report.pop("read")
            self.report = report
            return
        self.report = {}
        for first, batch in _batches(self._each_text()):
            self._add_to_report(shards.add_texts(batch, first=first, clean=self.clean, threads=threads), progress)

    def write_ids(
        self, shards: ShardSet, *, encode: Callable[[list[str]], list[bytes]], progress: Progress | None = None
    ) -> None:
        """Adds every document to `shards` as the ids that `encode` gives for a batch, each little-endian uint32."""
        done = 0
        for first, batch in _batches(self):
            shards.add_ids(batch, encode(batch), first=first)
            done += sum(len(text.encode()) for text in batch)
            if progress is not None:
                progress(done, self.n_bytes)
        _end(progress, self.n_bytes)
        self.report = {"bytes_read": done, "bytes_used": done, "invalid_sequences": 0, **self.report}
        if self._files is not None:
            self._read = [(n_bytes, xxh3_file(path)) for path, n_bytes in self._files.files()]

    def lineage(self) -> dict[str, Any] | None:
        """What the last `write` read, for the manifest: settings, files, their lengths and checksums."""
        if self._files is None:
            return None
        sources = [
            {"path": _spelled(path), "bytes": n_bytes, "xxh3": xxh3}
            for path, (n_bytes, xxh3) in zip(self.files, self._read, strict=True)
        ]
        return {**self._settings, "sources": sources}

    def unchanged_since(self, lineage: Any) -> bool:
        """Whether files and settings are still those of a manifest's `corpus`; all bytes are compared by checksum."""
        if self._files is None or not isinstance(lineage, dict):
            return False
        before = dict(lineage)
        sources = before.pop("sources", None)
        found = self._files.files()
        if before != self._settings or not isinstance(sources, list) or len(sources) != len(found):
            return False
        if any(old.get("bytes") != n_bytes for old, (_, n_bytes) in zip(sources, found, strict=True)):
            return False
        return all(
            old.get("path") == _spelled(path) and old.get("xxh3") == xxh3_file(path)
            for old, (path, _) in zip(sources, found, strict=True)
        )

    def _each_text(self, n: int | None = None) -> Iterator[str]:
        """The documents; of a sequence with more than `n`, so many of them at even distances."""
        texts = self._texts
        places: Iterable[tuple[int, str]] = enumerate(texts)
        if n is not None and isinstance(texts, Sequence) and n < len(texts):
            places = ((i, texts[i]) for i in (k * len(texts) // n for k in range(n)))
        for i, text in places:
            if not isinstance(text, str):
                raise TypeError(f"document {i} must be a str, got {type(text).__name__}")
            yield text

    def _add_to_report(self, seen: dict[str, int], progress: Progress | None) -> None:
        for name, n in seen.items():
            self.report[name] = self.report.get(name, 0) + n
        if progress is not None:
            progress(self.report["bytes_read"], None)


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


def _spelled(path: str | os.PathLike[str]) -> str:
    r"""A path as text; bytes of it that are no UTF-8, which JSON cannot hold, are shown as `\xe9`."""
    return os.fsencode(path).decode(errors="backslashreplace")


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


def _part_line(n_taken: int, total: int | None, report: Mapping[str, int]) -> str:
    """The same of an iterable, whose bytes in all are not known."""
    documents = f"the first {n_taken:,} documents" if total is None else f"{n_taken:,} of {total:,} documents"
    return f"{report.get('bytes_read', 0):,} bytes, from {documents}"


def _with_total(progress: Progress | None, total: int | None) -> Callable[[int], object] | None:
    return None if progress is None else lambda done: progress(done, total)


def _end(progress: Progress | None, total: int | None) -> None:
    """Says that all is done: a short pass would else say nothing."""
    if progress is not None and total is not None:
        progress(total, total)


def _batches(texts: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Runs of texts, some millions of characters each (enough to do, little to hold), and the number of their first."""
    batch: list[str] = []
    first = size = 0
    for text in texts:
        batch.append(text)
        size += len(text) + 1
        if size >= _BATCH_CHARACTERS:
            yield first, batch
            first, batch, size = first + len(batch), [], 0
    if batch:
        yield first, batch


class _Limited:
    """Texts until there are `max_bytes` of UTF-8 (the last one is cut at a character) or `max_documents`."""

    def __init__(self, texts: Iterator[str], max_bytes: int | None, max_documents: int | None) -> None:
        self._texts, self._max_bytes, self._max_documents = texts, max_bytes, max_documents
        self.n_taken = 0
        self.is_cut = False
        """Whether some text was left out."""

    def __iter__(self) -> Iterator[str]:
        left = self._max_bytes
        for text in self._texts:
            if self.n_taken == self._max_documents or left == 0:
                self.is_cut = True
                return
            self.n_taken += 1
            if left is not None:
                raw = text.encode(errors="surrogatepass")
                if len(raw) > left:
                    self.is_cut = True
                    yield raw[:left].decode(errors="ignore")
                    return
                left -= len(raw)
            yield text
