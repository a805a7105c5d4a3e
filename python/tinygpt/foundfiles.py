"""FoundFiles: the files of a corpus as they were found, and whether they are still the same."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tinygpt._core import Files, Verdicts, xxh3_file


class FoundFiles:
    """Files, and how they are read.

    Args:
        files: Which.
        settings: How they are read, as a manifest has it.
        spool: The file that stands for standard input.
    """

    def __init__(self, files: Files, settings: Mapping[str, Any], spool: str | None = None) -> None:
        self._files = files
        self._settings = settings
        self._spool = spool
        self._facts = self._facts_now()

    def check_unchanged(self) -> None:
        """Returns when none has been written to since they were found; one that is gone was read before.

        Raises:
            ValueError: One has: passes over it may have seen different text.
        """
        now = self._facts_now()
        changed = next((path for path, found in self._facts.items() if path in now and now[path] != found), None)
        if changed is not None:
            raise ValueError(f"{changed}: changed while it was read; start again")

    def identity(self) -> dict[str, Any]:
        """What decides what a pass gives, without reading it: settings, and path, size and date of each."""
        files = [(self._spelled(path), n_bytes, os.stat(path).st_mtime_ns) for path, n_bytes in self._files.files()]
        return {**self._settings, "files": files}

    def lineage(
        self, read: Sequence[tuple[int, str, int, str | None] | None], verdicts: Verdicts | None
    ) -> dict[str, Any]:
        """What a pass read, for the manifest: settings, files, their lengths, checksums and counts.

        Args:
            read: Of each its bytes, xxh3-64, documents and, as JSON, what was seen of it; None where it was not read.
            verdicts: Which documents were left out.
        """
        sources = []
        for i, ((path, n_bytes), found) in enumerate(zip(self._files.files(), read, strict=True)):
            source: dict[str, Any] = {"path": self._spelled(path), "bytes": n_bytes}
            if found is not None:
                source |= {"xxh3": found[1], "documents": found[2]}
                source |= {} if found[3] is None else {"report": json.loads(found[3])}
            if verdicts is not None:
                source["removed"] = verdicts.digest(i)
            sources.append(source)
        return {**self._settings, "sources": sources}

    def unchanged_since(self, lineage: Any) -> bool:
        """Whether files and settings are still those of a manifest's `corpus`; all bytes are compared by checksum."""
        if not self.settings_of(lineage):
            return False
        sources, found = lineage.get("sources"), self._files.files()
        if not isinstance(sources, list) or len(sources) != len(found):
            return False
        if any(old.get("bytes") != n_bytes for old, (_, n_bytes) in zip(sources, found, strict=True)):
            return False
        return all(
            old.get("path") == self._spelled(path) and old.get("xxh3") == xxh3_file(path)
            for old, (path, _) in zip(sources, found, strict=True)
        )

    def settings_of(self, lineage: Any) -> bool:
        """Whether a manifest's `corpus` was read in the same way, whatever its files."""
        return isinstance(lineage, dict) and {k: v for k, v in lineage.items() if k != "sources"} == self._settings

    def _spelled(self, path: str | os.PathLike[str]) -> str:
        r"""A path as text; bytes of it that are no UTF-8, which JSON cannot hold, are shown as `\xe9`."""
        if os.fspath(path) == self._spool:
            return "-"
        return os.fsencode(path).decode(errors="backslashreplace")

    def _facts_now(self) -> dict[str, tuple[int, int]]:
        """Size and date of each that is there."""
        found = {}
        for path in (Path(path) for path, _ in self._files.files()):
            with suppress(FileNotFoundError):
                facts = path.stat()
                found[str(path)] = facts.st_size, facts.st_mtime_ns
        return found
