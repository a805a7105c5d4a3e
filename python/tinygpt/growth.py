"""What of a prepared folder can stay when its corpus has grown: the documents of files that are still the same."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tinygpt._core import FormatError, xxh3_file
from tinygpt.corpus import Corpus
from tinygpt.manifest import Manifest
from tinygpt.shardfolder import Folder, ShardFolder, folder_of


@dataclass(frozen=True)
class KeptFiles:
    """Files whose documents are copied and not encoded again."""

    folder: Folder
    """Where they lie."""
    rows: Sequence[tuple[int, int, int, str, int, str]]
    """For each its number there and here, its bytes, xxh3-64, documents and, as JSON, what was seen of it."""
    fingerprint: str
    """Of the folder they lie in."""
    is_all: bool
    """Whether they are all that the folder held and all that there is."""


def kept_files(place: ShardFolder, corpus: Corpus) -> KeptFiles | None:
    """The files of a corpus that the folder which is to be replaced holds already; None where there are none.

    They are told by their content, wherever they lie now. What is shuffled or a part is encoded anew, as is what was
    made with another tokenizer, other settings, or before origins and counts of each file were written.
    """
    folder = Path(place.folder)
    if place.part is not None or place.shuffle is not None or not (folder / "manifest.json").is_file():
        return None
    try:
        manifest = Manifest.load(folder)
        if not _is_alike(manifest, place, corpus):
            return None
        manifest.check(folder, verify=True)
    except (FormatError, OSError):
        return None
    rows = _rows(manifest, corpus)
    if not rows:
        return None
    return KeptFiles(
        folder=folder_of(manifest, folder),
        rows=rows,
        fingerprint=xxh3_file(folder / "manifest.json"),
        is_all=len(rows) == len(corpus.files) == len((manifest.corpus or {})["sources"]),
    )


def _is_alike(manifest: Manifest, place: ShardFolder, corpus: Corpus) -> bool:
    wanted = (place.tokenizer.fingerprint, place.val_fraction, place.split, None, None)
    found = (manifest.fingerprint, manifest.val_fraction, manifest.split, manifest.shuffle, manifest.part)
    return manifest.has_origins and found == wanted and corpus.settings_of(manifest.corpus)


def _rows(manifest: Manifest, corpus: Corpus) -> list[tuple[int, int, int, str, int, str]]:
    """One for each file that is the same, in the order of the corpus; each there is taken once."""
    sources = (manifest.corpus or {}).get("sources") or []
    there: dict[tuple[int, str], list[int]] = {}
    for i, source in enumerate(sources):
        if "documents" in source and isinstance(source.get("report"), dict):
            there.setdefault((source["bytes"], source["xxh3"]), []).append(i)
    sizes = {n_bytes for n_bytes, _ in there}
    verdicts, rows = corpus.judge(), []
    for here, path in enumerate(corpus.files):
        n_bytes = path.stat().st_size
        found = there.get((n_bytes, xxh3_file(path))) if n_bytes in sizes else None
        if found is None:
            continue
        removed = None if verdicts is None else verdicts.digest(here)
        same = next((i for i in found if sources[i].get("removed") == removed), None)
        if same is not None:
            source = sources[same]
            rows.append((same, here, n_bytes, source["xxh3"], source["documents"], json.dumps(source["report"])))
    return rows
