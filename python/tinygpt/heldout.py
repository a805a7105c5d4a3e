"""HeldOut: the text that a model is judged on, as tokens in documents that have a file or a label."""

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygpt.anytokenizer import AnyTokenizer
from tinygpt.chats import Chats
from tinygpt.chatshards import write_chats
from tinygpt.chattemplate import knows_chats
from tinygpt.corpus import Progress
from tinygpt.manifest import Manifest
from tinygpt.reading import Reading
from tinygpt.tokenfiles import OpenTokens
from tinygpt.tokenfolder import document_ends, open_folder

BY = ("none", "file", "label")
_PACKED = (".gz", ".zst", ".xz", ".bz2", ".zip", ".tar", ".tgz")
"""Endings of files whose bytes are not those of the text in them."""
Bar = Callable[[str], AbstractContextManager[Progress | None]]


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Documents that follow each other as tokens; 16 bytes a document are held, the tokens are read as needed."""

    opened: OpenTokens
    """The tokens, and which of them are targets."""
    ends: NDArray[np.int64]
    """Where each document ends in the row, (D,); the last one ends it."""
    tokenizer: AnyTokenizer
    """What made the tokens."""
    names: tuple[str, ...] = ()
    """Names of the groups of documents, in the order of their first ones."""
    groups: NDArray[np.int64] | None = None
    """Number of each document's group, (D,); None where there are no groups."""

    @property
    def n_tokens(self) -> int:
        """Tokens of all documents."""
        return int(self.ends[-1]) if len(self.ends) else 0

    @property
    def n_documents(self) -> int:
        """Documents, D; the last one may be a part of one."""
        return len(self.ends)

    @property
    def starts(self) -> NDArray[np.int64]:
        """Where each document begins, (D,)."""
        return np.concatenate([[0], self.ends[:-1]]).astype(np.int64)

    def read(self, start: int, count: int) -> NDArray[Any]:
        """The tokens from `start` on, (count,)."""
        return self.opened.tokens.read(start, count)

    def bounds(self, *, apart: bool) -> Iterator[tuple[int, int]]:
        """First and last place, exclusive, of each row over which the model's windows slide.

        One row, or one a document where these are kept `apart`. A document's row begins with the separator before it,
        which may stand at -1; where there is none, or the tokens say which of them are targets, with its first token.
        """
        if not apart and self.opened.targets is None:
            yield 0, self.n_tokens
            return
        before = 1 if self.is_separated else 0
        yield from ((int(start) - before, int(end)) for start, end in zip(self.starts, self.ends, strict=True))

    @property
    def is_separated(self) -> bool:
        """Whether a document that is judged by itself is read after a separator, as after the one before it."""
        return self.opened.eot_id is not None and self.opened.targets is None

    def row(self, start: int, end: int) -> NDArray[Any]:
        """The tokens from `start`, which is -1 for a separator before the first one, to before `end`."""
        if start >= 0:
            return self.read(start, end - start)
        assert self.opened.eot_id is not None
        read = self.read(0, end)
        return np.concatenate([[self.opened.eot_id], read]).astype(read.dtype)

    def is_scored(self, start: int, count: int, *, apart: bool, count_separators: bool) -> NDArray[np.bool_]:
        """Which tokens from `start` on enter the figures, bool (count,): those that have a token before them.

        Args:
            start: Place of the first one.
            count: How many.
            apart: Whether documents are judged by themselves.
            count_separators: Whether the token that ends a document does.
        """
        found = np.ones(count, bool)
        if self.opened.targets is not None:
            found &= self.opened.targets.read(start, count)
        if (apart or self.opened.targets is not None) and not self.is_separated:
            first, last = np.searchsorted(self.starts, [start, start + count])
            found[self.starts[first:last] - start] = False
        elif not apart and start == 0:
            found[:1] = False
        if not count_separators and self.opened.eot_id is not None:
            found &= self.read(start, count) != self.opened.eot_id
        return found

    def text_of(self, ids: NDArray[Any]) -> bytes:
        """The bytes of the text that tokens stand for; separators and other special tokens are no text."""
        kept = ids[~np.isin(ids, list(self.tokenizer.special_tokens.values()))]
        decode = getattr(self.tokenizer, "decode_bytes", None)
        return decode(kept) if decode is not None else self.tokenizer.decode(kept.tolist()).encode()


@contextmanager
def open_held_out(
    paths: Sequence[str | os.PathLike[str]],
    tokenizer: AnyTokenizer,
    *,
    split: str = "val",
    reading: Reading | None = None,
    by: str = "none",
    label_field: str = "label",
    max_tokens: int | None = None,
    threads: int | None = None,
    bar: Bar = lambda stage: nullcontext(),
) -> Iterator[HeldOut]:
    """What `paths` name: a prepared folder, or text, which is encoded into a folder that is removed afterwards.

    Args:
        paths: One prepared folder; or files and folders of text or chats, globs and lists.
        tokenizer: That of the model. A prepared folder must have been made with it.
        split: Of a prepared folder.
        reading: How text is read.
        by: What documents are grouped by: none, file, or label, which is read from the JSON record of each.
        label_field: Key of the label; `meta.label` for one in another object.
        max_tokens: Take no more tokens than these first ones.
        threads: Threads to encode with; None means one for each core.
        bar: Shows the encoding.

    Raises:
        ValueError: Nothing to judge on, another tokenizer, no such split, or no way to tell groups.
        FormatError: A file is damaged.
        OSError: A file is missing or cannot be read.
    """
    if by not in BY:
        raise ValueError(f"by must be one of {', '.join(BY)}, got {by}")
    if max_tokens is not None and max_tokens < 1:
        raise ValueError(f"max_tokens must be at least 1, got {max_tokens}")
    is_prepared = [(Path(path) / "manifest.json").is_file() for path in paths]
    if any(is_prepared) and len(paths) > 1:
        raise ValueError(f"{paths[is_prepared.index(True)]} is a prepared folder; name it alone, or text alone")
    with contextlib.ExitStack() as stack:
        if any(is_prepared):
            if reading not in (None, Reading()):
                raise ValueError(f"{paths[0]} is prepared already, and flags that say how text is read change nothing")
            folder, name = Path(paths[0]), None
            if Manifest.load(folder).fingerprint != tokenizer.fingerprint:
                found = f"{Manifest.load(folder).fingerprint[:8]}, the checkpoint's has {tokenizer.fingerprint[:8]}"
                what = f"its tokenizer has the fingerprint {found}"
                raise ValueError(f"{folder}: {what}; name the text itself, which is then encoded anew")
        else:
            parent = stack.enter_context(tempfile.TemporaryDirectory(prefix="tinygpt-"))
            folder, split = Path(parent) / "data", "train"
            name = ", ".join(os.fspath(path) for path in paths)
            _encode(paths, tokenizer, reading or Reading(), folder, threads, bar)
        yield _opened(folder, split, tokenizer, by, label_field, max_tokens, name)


def _encode(
    paths: Sequence[str | os.PathLike[str]],
    tokenizer: Any,
    reading: Reading,
    folder: Path,
    threads: int | None,
    bar: Bar,
) -> None:
    corpus = reading.corpus([os.fspath(path) for path in paths], threads=threads)
    with bar("encode") as progress:
        if isinstance(corpus, Chats):
            if not knows_chats(tokenizer.special_tokens):
                raise ValueError(
                    f"{corpus.name} holds chats, and the model knows none; judge one that was trained on chats"
                )
            write_chats(corpus, tokenizer, folder, val_fraction=0.0, threads=threads, progress=progress)
        else:
            tokenizer.write_shards(corpus, folder, val_fraction=0.0, threads=threads, progress=progress)


def _opened(
    folder: Path,
    split: str,
    tokenizer: AnyTokenizer,
    by: str,
    label_field: str,
    max_tokens: int | None,
    name: str | None,
) -> HeldOut:
    opened = open_folder(folder, split, verify=None)
    ends = document_ends(opened)
    if not len(ends):
        raise ValueError(f"{name or opened.name}: no text in it to judge the model on")
    if max_tokens is not None and max_tokens < ends[-1]:
        ends = np.append(ends[: np.searchsorted(ends, max_tokens)], max_tokens)
    if name is not None:
        opened = replace(opened, name=name)
    if by == "none":
        return HeldOut(opened=opened, ends=ends, tokenizer=tokenizer)
    keys = _files_of(folder, opened, len(ends)) if by == "file" else _labels(folder, opened, len(ends), label_field)
    names = tuple(dict.fromkeys(keys))
    numbers = {each: i for i, each in enumerate(names)}
    groups = np.array([numbers[key] for key in keys], np.int64)
    return HeldOut(opened=opened, ends=ends, tokenizer=tokenizer, names=names, groups=groups)


def _origins(folder: Path, opened: OpenTokens, n_documents: int) -> tuple[NDArray[np.uint64], list[str]]:
    """File, first byte and end of each document, (D, 3), and the names of the files."""
    manifest = Manifest.load(folder)
    manifest.check_origins(folder)
    paths = [index.with_suffix(".map") for index, _ in opened.indices]
    entries = np.concatenate([np.fromfile(path, "<u8").reshape(-1, 3) for path in paths])[:n_documents]
    if len(entries) < n_documents:  # the split cut the last one in two: its rest lies in the other split
        entries = np.concatenate([entries, entries[-1:]])
    sources = [source["path"] for source in ((manifest.corpus or {}).get("sources") or [])]
    if not sources:
        why = "its text came from a program, so nothing says which file or label it has"
        raise ValueError(f"{opened.name}: {why}; evaluate it as a whole")
    return entries, sources


def _files_of(folder: Path, opened: OpenTokens, n_documents: int) -> list[str]:
    """The file of each document."""
    entries, sources = _origins(folder, opened, n_documents)
    return [sources[int(number)] for number in entries[:, 0]]


def _labels(folder: Path, opened: OpenTokens, n_documents: int, field: str) -> list[str]:
    """The label of each document, from its record in a file of JSON lines."""
    entries, sources = _origins(folder, opened, n_documents)
    found = [""] * n_documents
    for number in np.unique(entries[:, 0]).tolist():
        path = Path(sources[int(number)])
        if path.suffix.lower() in _PACKED or not path.name.lower().endswith((".jsonl", ".ndjson")):
            raise ValueError(f"{path}: labels are read from .jsonl files that are not packed; evaluate with --by file")
        with path.open("rb") as file:
            for document in np.flatnonzero(entries[:, 0] == number).tolist():
                start, end = int(entries[document, 1]), int(entries[document, 2])
                file.seek(start)
                found[document] = _label(file.read(end - start), field, f"{path}, byte {start}")
    return found


def _label(record: bytes, field: str, place: str) -> str:
    try:
        value = json.loads(record)
    except ValueError:
        raise ValueError(f"{place}: no JSON record here; the file has changed, prepare it anew") from None
    for key in field.split("."):
        if not isinstance(value, dict) or key not in value:
            raise ValueError(f"{place}: no {field} in the record; --label-field names the field of the label")
        value = value[key]
    if isinstance(value, dict | list) or value is None:
        raise ValueError(f"{place}: {field} must be a text, number or boolean, found {json.dumps(value):.40}")
    return value if isinstance(value, str) else json.dumps(value)
