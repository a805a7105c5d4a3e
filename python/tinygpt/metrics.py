"""metrics.jsonl: one JSON object a line for every logged step, whole lines only, cut back when a run goes back."""

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinygpt.staging import write_file

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class MetricsLog:
    """The measurements of a run, appended line by line.

    Each line goes to the file in one write, so a killed process leaves whole lines; what a power cut tears is cut off
    by `cut_back`. While the disk is full lines wait in memory and the run goes on.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting = b""

    def cut_back(self, step: int) -> None:
        """Drops every line after `step`, and from the first torn one on."""
        kept = [line for line in read_metrics(self._path) if line["step"] <= step]
        write_file(self._path, "".join(_line(line) for line in kept))

    def append(self, line: Mapping[str, Any]) -> None:
        """Adds one object, which holds the key "step"."""
        self._waiting += _line(line).encode()
        self._write()

    def flush(self) -> None:
        """Brings all lines to the disk itself: a checkpoint must not outlive the lines that led to it.

        Raises:
            OSError: The disk is still too full for the lines that wait.
        """
        self._write()
        if self._waiting:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        with self._path.open("ab") as file:
            os.fsync(file.fileno())

    def _write(self) -> None:
        if not self._waiting:
            return
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            before = os.fstat(descriptor).st_size
            try:
                written = os.write(descriptor, self._waiting)
            except OSError as error:
                if error.errno not in NO_ROOM:
                    raise
                written = 0
            if written == len(self._waiting):
                self._waiting = b""
            else:  # half a line would hide all that follow
                os.ftruncate(descriptor, before)
        finally:
            os.close(descriptor)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The objects of a metrics.jsonl up to its first torn line; none when there is no such file."""
    lines: list[dict[str, Any]] = []
    for text in path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else ():
        try:
            line = json.loads(text)
        except ValueError:
            break
        if not isinstance(line, dict) or not isinstance(line.get("step"), int):
            break
        lines.append(line)
    return lines


def _line(line: Mapping[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"
