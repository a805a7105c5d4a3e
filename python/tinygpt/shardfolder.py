"""ShardFolder: a corpus on its way into a folder of shards, whichever tokenizer encodes it."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tinygpt._core import ShardSet
from tinygpt.anytokenizer import AnyTokenizer
from tinygpt.manifest import Manifest, Shard, check_replaceable
from tinygpt.specials import EOT_NAMES
from tinygpt.staging import staged_folder, sweep

Mark = Callable[[Path, Mapping[str, tuple[Shard, ...]], str], Mapping[str, tuple[Shard, ...]]]
"""Writes what belongs beside finished shards: their folder, they by split, and the type of a token."""


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
    training: Mapping[str, Any] | None = None
    """What the tokenizer was trained with."""

    def write(
        self,
        corpus: Documents,
        open_shards: Callable[[str], ShardSet],
        fill: Callable[[ShardSet], None],
        mark: Mark | None = None,
    ) -> Manifest:
        """Shards, the tokenizer and, last, `manifest.json`.

        Args:
            corpus: What is encoded.
            open_shards: Starts the shards of a folder.
            fill: Encodes the corpus into them.
            mark: Writes more beside the finished shards, and returns them with what the manifest is to say of it.

        Raises:
            FileExistsError: The folder holds something else.
            ValueError: The corpus holds no text, or the tokenizer has no token to end documents with.
        """
        tokenizer = self.tokenizer
        if tokenizer.eot_id is None:
            found = ", ".join(tokenizer.special_tokens) or "none"
            wanted = ", ".join(EOT_NAMES)
            raise ValueError(f"special_tokens must hold one that ends a document ({wanted}), found {found}")
        check_replaceable(self.folder)
        place = self.folder.absolute()
        sweep(place.parent, place.name)
        with staged_folder(self.folder, replace=True) as staging:
            shards = open_shards(str(staging))
            # Spelling out a large vocabulary takes a tenth of a second, which encoding can use for itself.
            with ThreadPoolExecutor(1) as beside:
                saving = beside.submit(tokenizer.save, staging)
                fill(shards)
                saving.result()
            dtype = shards.dtype()
            train, val = ([Shard(**facts) for facts in split] for split in shards.finish())  # type: ignore[arg-type]
            if not train and not val:
                raise ValueError(f"{corpus.name}: no text to encode")
            splits = {name: tuple(split) for name, split in [("train", train), ("val", val)] if split}
            manifest = Manifest(
                vocab_size=tokenizer.vocab_size,
                eot_id=tokenizer.eot_id,
                dtype=dtype,
                fingerprint=tokenizer.fingerprint,
                val_fraction=self.val_fraction,
                shard_tokens=self.shard_tokens,
                corpus=corpus.lineage(),
                report=corpus.report,
                training=self.training,
                splits=splits if mark is None else mark(staging, splits, dtype),
            )
            manifest.save(staging)
        return manifest
