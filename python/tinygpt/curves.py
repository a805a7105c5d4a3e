"""Curves: the measurements of a run as columns of bounded size, read on from metrics.jsonl as it grows."""

import json
import math
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinygpt.metrics import scalars
from tinygpt.values import finite

Array = npt.NDArray[np.float64]
_MOST_POINTS = 1 << 16
_MOST_SAMPLES = 64
_BLOCK_BYTES = 1 << 20
_MOST_STEPS = 1 << 53
_NO_COLUMNS = frozenset(("step", "skipped"))


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A text that was written during a run."""

    step: int
    """After which step."""
    text: str
    """The text, without its prompt."""


@dataclass
class Column:
    """Values by step, at most 65,536 of them: of more, the lowest and highest of each four neighbours stay.

    Example:
        >>> column = Column()
        >>> for step in range(200_000):
        ...     column.add(step, 1000.0 if step == 77_777 else step % 7)
        >>> len(column) <= 65_536, column.most(), column.at[-1]
        (True, 1000.0, 199999.0)
    """

    at: "array[float]" = field(default_factory=lambda: array("d"))
    """The steps, ascending."""
    held: "array[float]" = field(default_factory=lambda: array("d"))
    """A value for each; what was not finite is NaN."""

    def __len__(self) -> int:
        return len(self.at)

    def add(self, step: float, value: float) -> None:
        """One more value, of a later step than those before."""
        self.at.append(step)
        self.held.append(value)
        if len(self.at) > _MOST_POINTS:
            self._thin()

    def steps(self) -> Array:
        """The steps, float64 (n,)."""
        return np.array(self.at, np.float64)

    def values(self) -> Array:
        """The values, float64 (n,)."""
        return np.array(self.held, np.float64)

    def last(self) -> float | None:
        """The last finite value; None when there is none."""
        return next((value for value in reversed(self.held) if math.isfinite(value)), None)

    def lowest(self) -> tuple[int, float] | None:
        """The first step of the lowest value, and that value; None where no value is finite."""
        steps, values = self._finite()
        return (int(steps[values.argmin()]), float(values.min())) if len(values) else None

    def at_step(self, step: float) -> float | None:
        """The value at a step; None where there is none, or it is not finite."""
        steps, values = self._finite()
        found = values[steps == step]
        return float(found[0]) if len(found) else None

    def median(self, first: float = 0, last: float = math.inf) -> float | None:
        """The median of the values after one step and up to another; None where there are none."""
        steps, values = self._finite()
        found = np.sort(values[(first < steps) & (steps <= last)])
        return float(found[len(found) // 2]) if len(found) else None

    def most(self, first: float = 0, last: float = math.inf) -> float | None:
        """The highest of them."""
        steps, values = self._finite()
        found = values[(first < steps) & (steps <= last)]
        return float(found.max()) if len(found) else None

    def _finite(self) -> tuple[Array, Array]:
        values = self.values()
        is_there = np.isfinite(values)
        return self.steps()[is_there], values[is_there]

    def _thin(self) -> None:
        """Keeps two of each four, and the last few as they are."""
        whole = len(self.at) // 4 * 4 - 4
        steps, values = self.steps(), self.values()
        groups = values[:whole].reshape(-1, 4)
        # A gap among four is one of the two that stay.
        high = np.where(np.isnan(groups), np.inf, groups).argmax(axis=1)
        low = np.where(np.isnan(groups), np.inf, groups).argmin(axis=1)
        rows = np.arange(0, whole, 4)
        chosen = np.unique(np.concatenate([rows + low, rows + high, np.arange(whole, len(steps))]))
        self.at, self.held = array("d", steps[chosen].tobytes()), array("d", values[chosen].tobytes())


@dataclass
class Curves:
    """Everything that metrics.jsonl tells of a run, by column.

    Example:
        >>> curves = Curves()
        >>> curves.add({"step": 1, "loss": 2.5, "resources": {"seconds": 0.5}})
        >>> curves["loss"].values().tolist(), curves.last["seconds"]
        ([2.5], 0.5)
    """

    columns: dict[str, Column] = field(default_factory=dict)
    """Name -> values; the names are those of metrics.csv."""
    samples: list[Sample] = field(default_factory=list)
    """Texts written meanwhile, at most 64, spread over the run."""
    skipped: Column = field(default_factory=Column)
    """Steps that did not move the weights."""
    last: dict[str, Any] = field(default_factory=dict)
    """The last line, flat."""
    n_lines: int = 0
    """Lines read."""
    lines: list[Mapping[str, Any]] | None = None
    """Lines that were read, whole; None, which is for runs that go on, keeps none."""
    _offset: int = 0
    _is_torn: bool = False

    def __getitem__(self, name: str) -> Column:
        return self.columns.get(name, Column())

    def read_on(self, path: Path) -> None:
        """Takes the lines that came since the last time, up to a torn one; a file that was cut back is read anew."""
        size = path.stat().st_size if path.is_file() else 0
        if size < self._offset:
            if self.lines is not None:
                self.lines.clear()
            self.__init__(lines=self.lines)  # type: ignore[misc]
        if size == self._offset or self._is_torn:
            return
        for raw in _lines(path, self._offset):
            line = _line(raw)
            if line is None:
                self._is_torn = raw.endswith(b"\n")  # what has no end yet may still get one
                return
            self._offset += len(raw)
            self.add(line)

    def add(self, line: Mapping[str, Any]) -> None:
        """Takes a line, as `metrics_line` makes it."""
        self.last, step = scalars(line), line["step"]
        self.n_lines += 1
        if self.lines is not None:
            self.lines.append(line)
        for name, value in self.last.items():
            if name in _NO_COLUMNS or isinstance(value, str | list):
                continue
            column = self.columns.get(name)
            if column is None:
                column = self.columns[name] = Column()
            number = finite(value)
            column.add(step, math.nan if number is None else number)
        if line.get("skipped"):
            self.skipped.add(step, 0.0)
        if isinstance(line.get("sample"), str):
            self.samples.append(Sample(step=step, text=line["sample"]))
            if len(self.samples) > _MOST_SAMPLES:
                self.samples = [*self.samples[:-1:2], self.samples[-1]]

    def along(self, name: str, axis: str) -> tuple[Array, Array]:
        """A column's values over another one that was measured at the same steps, as "tokens" or "seconds".

        Returns:
            Places and values, each float64 (n,); what has no place is left out.
        """
        column, other = self[name], self[axis]
        if not len(column) or not len(other):
            return np.zeros(0), np.zeros(0)
        steps, known = column.steps(), other.steps()
        places = np.interp(steps, known, np.maximum.accumulate(np.nan_to_num(other.values())))
        inside = (steps >= known[0]) & (steps <= known[-1])
        return places[inside], column.values()[inside]


def _lines(path: Path, offset: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(offset)
        while lines := file.readlines(_BLOCK_BYTES):
            yield from lines


def _line(raw: bytes) -> dict[str, Any] | None:
    """The object of a line; None for one that is torn."""
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    has_step = isinstance(line, dict) and isinstance(line.get("step"), int) and 0 <= line["step"] < _MOST_STEPS
    return line if has_step else None
