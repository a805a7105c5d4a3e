"""What a page says of a source of data: files with their hashes, what cleaning took away, shards with theirs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tinygpt.corpusreport import report_rows
from tinygpt.manifest import Manifest
from tinygpt.runfacts import DataSource

_MOST_FILES = 60
_ROLES = {"train": "Training", "val": "Validation"}


@dataclass(frozen=True, kw_only=True)
class DataPage:
    """What is said of one source; what it does not tell is empty."""

    folder: str
    """The name of its folder."""
    heading: str
    """What it is for, and where it lies."""
    rows: list[tuple[str, str]]
    """Name and value."""
    cleaned: list[tuple[str, str, str]]
    """What became of its text: documents and bytes that add up."""
    counts: list[tuple[str, str]]
    """Other counts of the pass that made it."""
    files: list[tuple[str, str, str, str]]
    """File, bytes, documents, checksum."""
    files_told: str
    """How many these are."""
    shards: list[tuple[str, str, str, str, str]]
    """Shard, tokens, documents, bytes of text, checksum."""
    shards_told: str
    """How many these are."""


def data_pages(sources: Sequence[DataSource]) -> list[DataPage]:
    """What there is to say of each source; of a folder how it was made is said where it comes first."""
    folders = [each.folder for each in sources]
    return [_data_page(each, is_first=each.folder not in folders[:i]) for i, each in enumerate(sources)]


def _data_page(source: DataSource, *, is_first: bool) -> DataPage:
    facts, manifest = source.facts, source.manifest
    opened = facts.get("open") if isinstance(facts.get("open"), Mapping) else {}
    split = str((opened or {}).get("split") or "tokens")
    where = "bare tokens" if source.folder is None else str(source.folder)
    rows = [("tokens", _whole(facts.get("n_tokens"))), ("windows an epoch", _whole(facts.get("n_windows")))]
    if source.share < 1:
        rows.append(("share of the windows", f"{source.share:.1%}"))
    rows += [(name, str(value)) for name, value in (opened or {}).items() if name in ("split", "mode", "stride")]
    rows += [
        (name.replace("_", " "), str(facts[name])[:16])
        for name in ("fingerprint", "manifest_sha256")
        if facts.get(name)
    ]
    files: list[tuple[str, str, str, str]] = []
    shards = [] if manifest is None else list(manifest.splits.get(split, ()))
    n_files, n_bytes = 0, 0
    if manifest is not None and is_first:
        rows += _made(manifest)
        given = _sources(manifest)
        n_files, n_bytes = len(given), sum(each.get("bytes") or 0 for each in given)
        files = [
            (
                str(each.get("path")),
                _whole(each.get("bytes")),
                _whole(each.get("documents")),
                str(each.get("xxh3") or ""),
            )
            for each in given[:_MOST_FILES]
        ]
    cleaned, counts = _counts(manifest.report) if manifest is not None and is_first else ([], [])
    more = "" if n_files <= _MOST_FILES else f", the first {_MOST_FILES} of them here, all in manifest.json"
    return DataPage(
        folder="" if source.folder is None else source.folder.name,
        heading=f"{_ROLES.get(source.role, source.role)}: {where}",
        rows=[(name, value) for name, value in rows if value],
        cleaned=cleaned,
        counts=counts,
        files=files,
        files_told=f"{n_files:,}, {n_bytes:,} bytes{more}",
        shards=[
            (each.file, f"{each.tokens:,}", f"{each.documents:,}", f"{each.bytes:,}", each.xxh3)
            for each in shards[:_MOST_FILES]
        ],
        shards_told=f"{len(shards):,}, {sum(each.tokens for each in shards):,} tokens",
    )


def _made(manifest: Manifest) -> list[tuple[str, str]]:
    """How the folder was made."""
    rows = [("held out", f"{manifest.val_fraction:.2%}, by {manifest.split}")]
    if manifest.corpus is not None:
        rules = manifest.corpus.get("clean")
        rows.append(("cleaning", ", ".join(map(str, rules)) if isinstance(rules, list) and rules else "none"))
        rows.append(("documents", str(manifest.corpus.get("documents") or "")))
    if manifest.shuffle is not None:
        rows.append(("shuffled by seed", str(manifest.shuffle)))
    return rows


def _sources(manifest: Manifest) -> list[Mapping[str, Any]]:
    found = (manifest.corpus or {}).get("sources")
    return [each for each in found if isinstance(each, Mapping)] if isinstance(found, list) else []


def _counts(report: Mapping[str, Any]) -> tuple[list[tuple[str, str, str]], list[tuple[str, str]]]:
    """A pass over a corpus as rows that add up; that of another kind of source as it is."""
    try:
        rows = [(name, "" if n is None else f"{n:,}", f"{n_bytes:,}") for name, n, n_bytes in report_rows(report)]
        return rows, []
    except (KeyError, TypeError, ValueError, AttributeError):
        return [], [(name.replace("_", " "), _whole(value)) for name, value in report.items() if isinstance(value, int)]


def _whole(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else ""
