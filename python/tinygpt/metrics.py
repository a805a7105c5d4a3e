"""metrics.jsonl and metrics.csv: one line for every logged step, whole lines only, cut back when a run goes back."""

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinygpt.staging import write_file

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_FIGURES = ("loss", "perplexity", "bits_per_byte", "bits_per_character", "n_tokens")
COLUMNS = (
    *("step", "epoch", "tokens", "loss", "learning_rate", "grad_norm", "skipped"),
    *(f"{split}_{figure}" for split in ("evaluation", "evaluation_train") for figure in _FIGURES),
    *("seconds", "tokens_per_second", "gemm_fraction", "memory_bytes", "peak_memory_bytes"),
)
"""The columns of metrics.csv: the keys of metrics.jsonl, flat, without samples, whose line ends would break lines."""


class MetricsLog:
    """The measurements of a run, appended line by line to a `.jsonl` file and to a `.csv` file beside it.

    Each line goes to a file in one write, so a killed process leaves whole lines; what a power cut tears is cut off
    by `cut_back`. While the disk is full lines wait in memory and the run goes on.

    Args:
        path: The `.jsonl` file; the table is made from it anew by every `cut_back`, so that the two agree.
    """

    def __init__(self, path: Path) -> None:
        self._lines, self._table = _Appended(path), _Appended(path.with_suffix(".csv"))

    def cut_back(self, step: int) -> int:
        """Drops every line after `step`, and from the first torn one on; the step of the last line that was there."""
        found = read_metrics(self._lines.path)
        kept = [line for line in found if line["step"] <= step]
        write_file(self._lines.path, "".join(_line(line) for line in kept))
        write_file(self._table.path, ",".join(COLUMNS) + "\n" + "".join(_row(line) for line in kept))
        return found[-1]["step"] if found else 0

    def append(self, line: Mapping[str, Any]) -> None:
        """Adds one object, which holds the key "step"."""
        self._lines.append(_line(line))
        self._table.append(_row(line))

    def flush(self) -> None:
        """Brings all lines to the disk itself: a checkpoint must not outlive the lines that led to it.

        Raises:
            OSError: The disk is still too full for the lines that wait.
        """
        self._lines.flush()
        self._table.flush()


class _Appended:
    """A file that grows by whole lines, or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting = b""

    def append(self, line: str) -> None:
        self._waiting += line.encode()
        self._write()

    def flush(self) -> None:
        self._write()
        if self._waiting:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        with self.path.open("ab") as file:
            os.fsync(file.fileno())

    def _write(self) -> None:
        if not self._waiting:
            return
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
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


def scalars(line: Mapping[str, Any]) -> dict[str, Any]:
    """The values of an object by column, those of "resources" under their own names and others' below their group's.

    Example:
        >>> scalars({"step": 1, "evaluation": {"loss": 2.5}, "sample": "a text", "resources": {"seconds": 0.5}})
        {'step': 1, 'evaluation_loss': 2.5, 'seconds': 0.5}
    """
    flat: dict[str, Any] = {}
    for key, value in line.items():
        if isinstance(value, Mapping):
            flat |= {name if key == "resources" else f"{key}_{name}": each for name, each in value.items()}
        elif key != "sample":
            flat[key] = value
    return flat


def _line(line: Mapping[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"


def _row(line: Mapping[str, Any]) -> str:
    flat = scalars(line)
    return ",".join("" if flat.get(name) is None else json.dumps(flat[name]) for name in COLUMNS) + "\n"
