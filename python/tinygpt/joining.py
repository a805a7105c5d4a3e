"""The parts of a whole that were prepared one by one, put together: what one run over all the text would have given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from pathlib import Path
from typing import Any

from tinygpt.corpusreport import added
from tinygpt.manifest import Manifest
from tinygpt.shardfolder import ShardFolder, folder_of
from tinygpt.tokenizer import Tokenizer


@dataclass
class _Whole:
    """The corpus that the parts are of."""

    name: str
    sources: dict[str, Any]
    report: dict[str, Any] = field(default_factory=dict)

    def lineage(self) -> dict[str, Any]:
        return self.sources


def join_parts(paths: Sequence[str | Path], folder: str | Path) -> Manifest:
    """The folder that one run gives, out of all its parts, named in any order.

    Raises:
        ValueError: One is no part, some are missing or named twice, or they were not prepared alike.
        FileExistsError: The folder holds something else.
    """
    parts = _in_order([Path(path) for path in paths])
    place, first = parts[0]
    tokenizer = Tokenizer.load(place)
    whole = _Whole(name=str(folder), sources=_sources(parts), report=_report([part.report for _, part in parts]))
    target = ShardFolder(
        tokenizer=tokenizer,
        folder=Path(folder),
        val_fraction=first.val_fraction,
        shard_tokens=first.shard_tokens,
        split=first.split,
        shuffle=first.shuffle,
        training=first.training,
    )
    open_shards = partial(tokenizer.open_shards, shard_tokens=first.shard_tokens, val_fraction=first.val_fraction)
    folders = [folder_of(manifest, path) for path, manifest in parts]
    return target.write(whole, open_shards, lambda shards: shards.join(folders))


def _in_order(paths: Sequence[Path]) -> list[tuple[Path, Manifest]]:
    found: dict[int, tuple[Path, Manifest]] = {}
    for path in paths:
        manifest = Manifest.load(path)
        if manifest.part is None:
            raise ValueError(f"{path}: no part of a whole; parts are prepared with --shard I/N")
        manifest.check(path)
        number = manifest.part[0]
        if number in found:
            raise ValueError(f"{path} and {found[number][0]} are both part {number + 1}; name each part once")
        found[number] = path, manifest
    if not found:
        raise ValueError("no parts to join; name the folders of all parts")
    place, first = next(iter(found.values()))
    for path, manifest in found.values():
        if (fault := _difference(first, manifest)) is not None:
            raise ValueError(f"{path} and {place} were not prepared alike: they differ in {fault}")
    _, n_parts = first.part or (0, 0)
    missing = [str(i + 1) for i in range(n_parts) if i not in found]
    if missing:
        raise ValueError(f"of {n_parts} parts these are missing: {', '.join(missing)}; prepare and name them, too")
    return [found[i] for i in range(n_parts)]


def _difference(one: Manifest, other: Manifest) -> str | None:
    """What keeps two from being parts of the same whole."""
    pairs: dict[str, list[Any]] = {
        "number of parts": [(each.part or (0, 0))[1] for each in (one, other)],
        "tokenizer": [each.fingerprint for each in (one, other)],
        "settings": [
            {
                **(each.corpus or {}),
                "sources": [(s["path"], s["bytes"]) for s in (each.corpus or {}).get("sources", ())],
            }
            for each in (one, other)
        ],
    }
    for name in ("val_fraction", "shard_tokens", "split", "shuffle"):
        pairs[f"--{name.replace('_', '-')}"] = [getattr(each, name) for each in (one, other)]
    return next((name for name, (a, b) in pairs.items() if a != b), None)


def _sources(parts: Sequence[tuple[Path, Manifest]]) -> dict[str, Any]:
    """What all parts together have read."""
    lineages = [manifest.corpus or {} for _, manifest in parts]
    sources = []
    for told in zip(*(lineage["sources"] for lineage in lineages), strict=True):
        known = [{**source} for source in told if "xxh3" in source]
        reports = [source.pop("report", {}) for source in known]
        if any(source != known[0] for source in known):
            raise ValueError(f"{known[0]['path']} changed between two parts; prepare them anew")
        sources.append({**known[0], "report": _of_source(reports)} if known else told[0])
    return {**lineages[0], "sources": sources}


def _of_source(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts of a file out of those of its parts; where the first damaged byte is, is no count."""
    places = [report["first_invalid"] for report in reports if "first_invalid" in report]
    found = {**reduce(added, reports), **({"first_invalid": min(places)} if places else {})}
    is_count = {"documents", "bytes_read", "bytes_used", "cleaned", "first_invalid"}
    return {name: value for name, value in found.items() if name in is_count or value}


def _report(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts of all parts; filters have judged the whole for each, and files were looked for by each."""
    alike = {name: reports[0][name] for name in ("removed", "skipped_files") if name in reports[0]}
    return {**reduce(added, reports), **alike}
