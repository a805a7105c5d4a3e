"""What a prepared folder holds: `manifest.json`, written last and read first."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from tinygpt._core import FormatError, xxh3_file
from tinygpt.header import read_header
from tinygpt.staging import write_file

_FORMAT, _VERSION = "tinygpt-shards", 1
_Kind = TypeVar("_Kind", "Shard", "Manifest")


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One shard as the manifest lists it."""

    file: str
    """File name inside the folder."""
    tokens: int
    """Tokens in the file."""
    documents: int
    """Documents that end in the file, hence entries of its `.idx`."""
    bytes: int
    """Bytes of text before encoding."""
    xxh3: str
    """xxh3-64 of the file, 16 hex digits."""
    idx_xxh3: str
    """xxh3-64 of its `.idx`, 16 hex digits."""
    map_xxh3: str | None = None
    """xxh3-64 of its `.map`, 16 hex digits; None in folders of before there were any."""
    targets: int | None = None
    """Tokens that are to be learnt, by its `.targets`; None where there is no such file and all are."""
    targets_xxh3: str | None = None
    """xxh3-64 of its `.targets`, 16 hex digits."""

    def __post_init__(self) -> None:
        _require(self, "file", "a file name that ends in .bin, without a folder", _like(r"[^/\\\0]+\.bin"))
        for name in ("tokens", "documents", "bytes"):
            _require(self, name, "a whole number from 0", lambda value: _whole(value, 0))
        for name in ("xxh3", "idx_xxh3"):
            _require(self, name, "16 hex digits", _like("[0-9a-f]{16}"))
        if self.map_xxh3 is not None:
            _require(self, "map_xxh3", "16 hex digits", _like("[0-9a-f]{16}"))
        if self.targets is None and self.targets_xxh3 is None:
            return
        _require(self, "targets", "a number of tokens", lambda value: _whole(value, 0, self.tokens + 1))
        _require(self, "targets_xxh3", "16 hex digits", _like("[0-9a-f]{16}"))


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a folder of shards holds and what it was made from.

    Example:
        >>> Manifest(vocab_size=257, eot_id=256, dtype="uint16", fingerprint="0" * 64, splits={}).eot_id
        256
    """

    vocab_size: int
    """Every id is below this."""
    eot_id: int | None
    """Id that ends each document; None when there is none."""
    dtype: str
    """Type of a token, "uint16" or "uint32"."""
    fingerprint: str
    """The tokenizer's fingerprint, 64 hex digits."""
    val_fraction: float = 0.0
    """Share of the text that was set aside for validation."""
    shard_tokens: int = 100_000_000
    """Most tokens in one shard."""
    split: str = "hash"
    """How val was chosen: "hash" of each document, or the "last" share of the tokens."""
    tail_of: str | None = None
    """Where val is the end of train: the side, "train" or "val", that all documents had fallen to; else None."""
    shuffle: int | None = None
    """Seed of the order of documents; None when they lie in the order of the corpus."""
    part: tuple[int, int] | None = None
    """Which part of a whole this is, from 0, and how many there are; None when it is the whole."""
    corpus: Mapping[str, Any] | None = None
    """Sources and cleaning rules; None when the text came from an iterable."""
    report: Mapping[str, Any] = field(default_factory=dict)
    """Counts of the pass over the corpus."""
    training: Mapping[str, Any] | None = None
    """What the tokenizer was trained with; None when it was given."""
    splits: Mapping[str, tuple[Shard, ...]]
    """Shards of each split, in order."""

    def __post_init__(self) -> None:
        _require(self, "vocab_size", "a whole number from 1 to 2147483647", lambda value: _whole(value, 1, 2**31))
        _require(
            self,
            "eot_id",
            "null or an id below vocab_size",
            lambda value: value is None or _whole(value, 0, self.vocab_size),
        )
        _require(self, "dtype", "uint16 or uint32", lambda value: value in ("uint16", "uint32"))
        _require(self, "fingerprint", "64 hex digits", _like("[0-9a-f]{64}"))
        _require(self, "val_fraction", "a number from 0 to 1", _is_fraction)
        _require(self, "shard_tokens", "a whole number from 1", lambda value: _whole(value, 1))
        _require(self, "split", "hash or last", lambda value: value in ("hash", "last"))
        _require(self, "tail_of", "null, train or val", lambda value: value in (None, "train", "val"))
        _require(self, "shuffle", "null or a whole number from 0", lambda value: value is None or _whole(value, 0))
        _require(self, "part", "null or a number and a greater one", lambda value: value is None or _is_part(value))
        _require(self, "corpus", "null or an object", lambda value: value is None or isinstance(value, Mapping))
        _require(self, "report", "an object", lambda value: isinstance(value, Mapping))
        _require(self, "training", "null or an object", lambda value: value is None or isinstance(value, Mapping))
        _require(self, "splits", "an object", lambda value: isinstance(value, Mapping))
        if self.dtype == "uint16" and self.vocab_size > 65536:
            raise ValueError(f"dtype must be uint32 for a vocab_size above 65536, found uint16 and {self.vocab_size}")

    @classmethod
    def load(cls, folder: str | Path) -> "Manifest":
        """The manifest of a prepared folder.

        Raises:
            FormatError: There is none, so the folder is not finished or not prepared; or a field of it is wrong.
            OSError: It cannot be read.
        """
        path = Path(folder) / "manifest.json"
        if not path.is_file():
            found = "is no folder" if not path.parent.is_dir() else "has no manifest.json: not finished or not prepared"
            raise FormatError(f"{path.parent} {found}; write it with `tinygpt prepare`")
        try:
            return cls._from_fields(json.loads(path.read_bytes()))
        except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
            raise FormatError(f"{path}: {error}; write the shards again") from None

    def save(self, folder: str | Path) -> None:
        """Writes `manifest.json` whole into an existing folder: last, for a folder without it is unfinished."""
        content = {"format": _FORMAT, "version": _VERSION, **asdict(self)}
        for shard in (shard for shards in content["splits"].values() for shard in shards):
            for name in [name for name in ("map_xxh3", "targets", "targets_xxh3") if shard[name] is None]:
                del shard[name]
        text = json.dumps(content, indent=1, ensure_ascii=False)
        write_file(Path(folder) / "manifest.json", text + "\n")

    @property
    def has_targets(self) -> bool:
        """Whether the shards say which of their tokens are to be learnt, as those of chats do."""
        return any(shard.targets is not None for shards in self.splits.values() for shard in shards)

    @property
    def has_origins(self) -> bool:
        """Whether the shards say of each document where it came from.

        Older versions wrote no such thing, or, of chats and of what a library's tokenizer encoded, the document's
        number alone: then no source has a number of documents.
        """
        sources = (self.corpus or {}).get("sources")
        has_maps = all(shard.map_xxh3 is not None for shards in self.splits.values() for shard in shards)
        return has_maps and (not sources or any(source.get("documents") for source in sources))

    def check_origins(self, folder: str | Path) -> None:
        """Nothing, if the shards say of each document where it came from.

        Raises:
            FormatError: They do not.
        """
        if not self.has_origins:
            raise FormatError(f"{folder}: no origins, which older versions did not write; write the shards again")

    def check(self, folder: str | Path, *, split: str | None = None, verify: bool = False) -> None:
        """Nothing, when the folder's shards are what this manifest says.

        Args:
            folder: Where the shards lie.
            split: Look at this split only; None looks at all.
            verify: Read every byte and compare checksums; otherwise sizes and headers only.

        Raises:
            FormatError: A file disagrees; the message names it and both numbers.
            OSError: A file is missing or cannot be read.
        """
        for shards in self.splits.values() if split is None else [self.splits[split]]:
            for shard in shards:
                self._check_shard(Path(folder) / shard.file, shard, verify=verify)

    def _check_shard(self, path: Path, shard: Shard, *, verify: bool) -> None:
        header, index = read_header(path), path.with_suffix(".idx")
        mine = {
            "dtype": self.dtype,
            "n_tokens": shard.tokens,
            "vocab_size": self.vocab_size,
            "eot_id": self.eot_id,
            "n_documents": shard.documents,
            "n_bytes": shard.bytes,
            "fingerprint": self.fingerprint[:32],
        }
        for name, value in mine.items():
            found = getattr(header, name)
            if found != value:
                raise FormatError(
                    f"{path}: header says {name} {found}, but manifest.json says {value}; write the shards again"
                )
        sums = {path: shard.xxh3, index: shard.idx_xxh3}
        _check_entries(index, shard.documents, 8)
        if shard.map_xxh3 is not None:
            origins = path.with_suffix(".map")
            sums[origins] = shard.map_xxh3
            _check_entries(origins, shard.documents, 24)
        if shard.targets_xxh3 is not None:
            targets = path.with_suffix(".targets")
            sums[targets], size, promised = shard.targets_xxh3, targets.stat().st_size, -(-shard.tokens // 8)
            if size != promised:
                raise FormatError(
                    f"{targets}: {size} bytes, but a bit for each of {shard.tokens} tokens takes {promised}; "
                    "write the shards again"
                )
        for file, known in sums.items() if verify else ():
            checksum = xxh3_file(str(file))
            if checksum != known:
                raise FormatError(f"{file}: xxh3 {checksum}, but manifest.json says {known}; write the shards again")

    @classmethod
    def _from_fields(cls, found: Any) -> "Manifest":
        if not isinstance(found, dict) or found.pop("format", None) != _FORMAT:
            raise ValueError(f'format is not "{_FORMAT}"')
        version = found.pop("version", None)
        if version != _VERSION:
            raise ValueError(f"version {version}, but this tinygpt reads {_VERSION}")
        splits = found.get("splits")
        if not isinstance(splits, dict) or not all(isinstance(shards, list) for shards in splits.values()):
            raise ValueError(f"splits must be an object of lists of shards, found {splits!r:.80}")
        if isinstance(part := found.get("part"), list):
            found["part"] = tuple(part)
        return _build(cls, found | {"splits": {name: _shards(name, shards) for name, shards in splits.items()}})


def check_replaceable(folder: Path) -> None:
    """Nothing, if a prepared folder may be written there: the place is free, empty, or holds a prepared folder.

    Raises:
        FileExistsError: It holds something else, which is not ours to replace.
    """
    if folder.is_dir() and any(folder.iterdir()) and not _is_prepared(folder):
        raise FileExistsError(f"{folder} exists and is no prepared folder; choose another name or remove it")
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; choose another name for the folder")


def _check_entries(path: Path, n_documents: int, entry_bytes: int) -> None:
    """Nothing, if the file holds an entry for each document."""
    size, promised = path.stat().st_size, entry_bytes * n_documents
    if size != promised:
        raise FormatError(
            f"{path}: {size} bytes, but manifest.json promises {n_documents} documents ({promised} bytes); "
            "write the shards again"
        )


def _is_prepared(folder: Path) -> bool:
    """Whether the folder's manifest is ours: many programs name a file manifest.json."""
    try:
        Manifest.load(folder)
    except FormatError:
        return False
    return True


def _shards(split: str, found: list[Any]) -> tuple[Shard, ...]:
    try:
        return tuple(_build(Shard, shard) for shard in found)
    except ValueError as error:
        raise ValueError(f"splits.{split}: {error}") from None


def _build(kind: type[_Kind], found: Any) -> _Kind:
    """`kind(**found)`, naming a field that is missing or unknown."""
    if not isinstance(found, dict):
        raise ValueError(f"a {kind.__name__.lower()} must be an object, found {found!r:.80}")
    known = {each.name: each for each in fields(kind)}
    if unknown := sorted(found.keys() - known.keys()):
        raise ValueError(f"unknown field {unknown[0]}")
    for name, each in known.items():
        if name not in found and each.default is MISSING and each.default_factory is MISSING:
            raise ValueError(f"field {name} is missing")
    return kind(**found)


def _require(owner: object, name: str, wanted: str, holds: Callable[[Any], bool]) -> None:
    value = getattr(owner, name)
    if not holds(value):
        raise ValueError(f"{name} must be {wanted}, found {value!r:.80}")


def _whole(value: object, low: int, high: int = 2**64) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value < high


def _is_part(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and _whole(value[1], 1) and _whole(value[0], 0, value[1])


def _is_fraction(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _like(pattern: str) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None
