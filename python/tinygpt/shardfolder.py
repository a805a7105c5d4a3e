"""ShardFolder: a corpus on its way into a folder of shards, whichever tokenizer encodes it."""

import hashlib
import json
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tinygpt._core import FormatError, ShardSet
from tinygpt.anytokenizer import AnyTokenizer
from tinygpt.manifest import Manifest, Shard, check_replaceable
from tinygpt.specials import EOT_NAMES
from tinygpt.staging import JOURNAL, WorkFolder, resumable_folder

Mark = Callable[[Path, Mapping[str, tuple[Shard, ...]], str], Mapping[str, tuple[Shard, ...]]]
"""Writes what belongs beside finished shards: their folder, they by split, and the type of a token."""

Folder = tuple[str, list[str], list[str], str | None]
"""A finished folder as the Rust part takes it: path, shards of train and val, and the side whose end val is."""


class Documents(Protocol):
    """What is encoded, as far as a manifest speaks of it."""

    report: dict[str, Any]
    """Counts of the last pass."""

    @property
    def name(self) -> str:
        """What to call it in a message."""

    def lineage(self) -> dict[str, Any] | None:
        """What the last pass read: settings, files, their lengths and checksums."""


@dataclass(frozen=True, kw_only=True)
class ShardFolder:
    """Where shards are to stand, and what its manifest will say."""

    tokenizer: AnyTokenizer
    """Whose ids they are; it is saved beside them."""
    folder: Path
    """Appears whole or not at all; a prepared folder that stands there already is replaced."""
    val_fraction: float
    """Share of the text to hold out."""
    shard_tokens: int
    """Most tokens in one file."""
    split: str = "hash"
    """What is held out: documents by a "hash" of their text, or the "last" of the text."""
    shuffle: int | None = None
    """Seed by which documents are shuffled; None leaves them in order."""
    part: tuple[int, int] | None = None
    """Which part of a whole this is, from 0, and how many there are: neither is anything moved to an empty split nor
    are documents shuffled, which `join` does for all."""
    training: Mapping[str, Any] | None = None
    """What the tokenizer was trained with."""

    def write(
        self,
        corpus: Documents,
        open_shards: Callable[..., ShardSet],
        fill: Callable[[ShardSet], None],
        mark: Mark | None = None,
        *,
        work: WorkFolder | None = None,
        key: str | None = None,
    ) -> Manifest:
        """Shards, the tokenizer and, last, `manifest.json`.

        Args:
            corpus: What is encoded.
            open_shards: Starts the shards of a folder, by its name and `split`; with a `journal` (a folder and a key)
                they go on from there, which is asked for only where `key` is given.
            fill: Encodes the corpus into them.
            mark: Writes more beside the finished shards, and returns them with what the manifest is to say of it.
            work: A folder to work in that the caller holds; None makes one, which becomes `folder`.
            key: Says what is done, so that the same can be continued after the process was killed.

        Raises:
            FileExistsError: The folder holds something else.
            BlockingIOError: Another process writes it.
            ValueError: The corpus holds no text, or the tokenizer has no token to end documents with.
        """
        check_ends(self.tokenizer)
        if work is None:
            with self.work(key or "") as made:
                return self.write(corpus, open_shards, fill, mark, work=made, key=key)
        is_shuffled = self.shuffle is not None and self.part is None
        staging = work.journal / "ordered" if is_shuffled else work.folder
        staging.mkdir(exist_ok=True)
        shards = self._opened(open_shards, staging, work, key)
        # Spelling out a large vocabulary takes a tenth of a second, which encoding can use for itself.
        with ThreadPoolExecutor(1) as beside:
            saving = beside.submit(self.tokenizer.save, work.folder)
            fill(shards)
            saving.result()
        dtype = shards.dtype()
        is_final = self.part is None and not (is_shuffled and self.split == "hash")
        found = shards.finish(fallback=is_final)
        if is_shuffled:
            found = self._shuffled(work, (str(staging), *_names(found)), open_shards)
        splits = _splits(found)
        if not splits and self.part is None:
            raise ValueError(f"{corpus.name}: no text to encode")
        manifest = Manifest(
            vocab_size=self.tokenizer.vocab_size,
            eot_id=self.tokenizer.eot_id,
            dtype=dtype,
            fingerprint=self.tokenizer.fingerprint,
            val_fraction=self.val_fraction,
            shard_tokens=self.shard_tokens,
            split=self.split,
            tail_of=found[2],
            shuffle=self.shuffle,
            part=self.part,
            corpus=corpus.lineage(),
            report=corpus.report,
            training=self.training,
            splits=splits if mark is None else mark(work.folder, splits, dtype),
        )
        manifest.save(work.folder)
        return manifest

    def _opened(
        self, open_shards: Callable[..., ShardSet], staging: Path, work: WorkFolder, key: str | None
    ) -> ShardSet:
        """The shards of a folder, gone on with where an earlier process has left whole ones; else begun."""
        journal = {} if key is None else {"journal": (str(work.journal), key)}
        try:
            return open_shards(str(staging), split=self.split, **journal)
        except (FormatError, FileNotFoundError) as error:
            if key is None or not work.is_continued:
                raise
            found = f"{error.filename} is gone" if isinstance(error, OSError) else str(error).partition("; remove ")[0]
            warnings.warn(f"half-done work was damaged and is begun anew ({found})", RuntimeWarning, stacklevel=3)
        (work.journal / JOURNAL).unlink()  # first, for what it tells of is gone then
        shutil.rmtree(staging)
        staging.mkdir()
        return open_shards(str(staging), split=self.split, **journal)

    @contextmanager
    def work(self, key: str) -> Iterator[WorkFolder]:
        """Where the folder is written; it takes its place when the block ends.

        Raises:
            FileExistsError: The folder holds something else.
            BlockingIOError: Another process writes it.
        """
        check_replaceable(self.folder)
        with resumable_folder(self.folder, key=key) as work:
            yield work

    def _shuffled(self, work: WorkFolder, ordered: Folder, open_shards: Callable[..., ShardSet]) -> "_Finished":
        """The shards of a finished folder again, their documents shuffled."""
        for left in [path for path in work.folder.iterdir() if path.name.startswith(("train_", "val_"))]:
            left.unlink()  # of a process that was killed at this
        shards = open_shards(str(work.folder), split="hash")
        assert self.shuffle is not None
        shards.shuffle(ordered, seed=self.shuffle, temporary=str(work.journal / "shuffle"))
        found = shards.finish(fallback=self.split == "hash")
        return found if found[2] is not None else (found[0], found[1], ordered[3])


_Finished = tuple[list[dict[str, Any]], list[dict[str, Any]], str | None]


def check_ends(tokenizer: AnyTokenizer) -> None:
    """Nothing, if a tokenizer has a token that ends documents.

    Raises:
        ValueError: It has none.
    """
    if tokenizer.eot_id is None:
        found, wanted = ", ".join(tokenizer.special_tokens) or "none", ", ".join(EOT_NAMES)
        raise ValueError(f"special_tokens must hold one that ends a document ({wanted}), found {found}")


def key_of(**facts: Any) -> str:
    """A checksum of all that decides what is written."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def folder_of(manifest: Manifest, folder: Path) -> Folder:
    """A prepared folder as the Rust part takes it."""
    train, val = ([shard.file for shard in manifest.splits.get(name, ())] for name in ("train", "val"))
    return str(folder), train, val, manifest.tail_of


def _names(found: _Finished) -> tuple[list[str], list[str], str | None]:
    return [facts["file"] for facts in found[0]], [facts["file"] for facts in found[1]], found[2]


def _splits(found: _Finished) -> dict[str, tuple[Shard, ...]]:
    splits = {"train": found[0], "val": found[1]}
    return {name: tuple(Shard(**facts) for facts in split) for name, split in splits.items() if split}
