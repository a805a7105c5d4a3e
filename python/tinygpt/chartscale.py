"""Scales of charts: values to places on an axis, round ticks, and numbers in few characters."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
_LETTERS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_LOG_FROM = 30.0
"""A largest value that is so many times the median would press all others to the floor of a linear axis."""
_LEAST, _MOST = 1e-300, 1e300
_MOST_WITH_LETTER = 1e15


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A linear or logarithmic map from values to places on a page."""

    low: float
    """The value at `start`."""
    high: float
    """The value at `end`."""
    start: float
    """Where the axis begins."""
    end: float
    """Where it ends."""
    is_log: bool
    """Whether equal ratios, not equal differences, are equally far."""
    most_ticks: int
    """How many ticks have room."""

    def __call__(self, value: float) -> float:
        """The place of a value."""
        return float(self.all(np.array([value]))[0])

    def all(self, values: Array) -> Array:
        """The places of values; what is outside is put at the edge."""
        clipped = np.clip(values, self.low, self.high)
        if self.is_log:
            share = (np.log10(clipped) - math.log10(self.low)) / (math.log10(self.high) - math.log10(self.low))
        else:
            share = (clipped - self.low) / (self.high - self.low)
        return np.asarray(self.start + (self.end - self.start) * share)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Round values within the axis, and how they are written."""
        values = list(_log_ticks(self) if self.is_log else _ticks(self))
        return [(value, number(value) if self.is_log else _label(value, values)) for value in values]


def scale_of(
    values: Array,
    start: float,
    end: float,
    *,
    most_ticks: int,
    extra: Array | None = None,
    is_log: bool | None = None,
) -> Scale:
    """The scale on which values find room.

    Args:
        values: What is to be shown; what is not finite is left out.
        start: Where the axis begins.
        end: Where it ends.
        most_ticks: How many ticks have room.
        extra: Values that are to have room, too, and do not decide between the two kinds.
        is_log: The kind; None takes the logarithmic one where all is above 0 and a few values dwarf the others.

    Example:
        >>> scale_of(np.array([1.0, 9.0]), 0, 100, most_ticks=5).ticks
        [(2.0, '2'), (4.0, '4'), (6.0, '6'), (8.0, '8')]
    """
    values = _within(values)
    if is_log is None:
        is_log = len(values) > 2 and values.min() > 0 and values.max() > _LOG_FROM * np.median(values)
    whole = values if extra is None else np.concatenate([values, _within(extra)])
    if is_log:
        whole = whole[whole > 0]
    low, high = (float(whole.min()), float(whole.max())) if len(whole) else (0.0, 1.0)
    room = 0.04 * (high - low)
    if is_log:
        low, high = low / 1.2, high * 1.2
    elif start > end:  # a vertical axis: curves are not to touch its ends, and what cannot be negative stays above 0
        low, high = (max(0.0, low - room) if low >= 0 else low - room), high + room
    if not high > low or not math.isfinite(high - low) or (high - low) < 1e-9 * abs(high):
        low, high = (low - abs(low) / 10, high + abs(high) / 10) if low or high else (0.0, 1.0)
    return Scale(low=low, high=high, start=start, end=end, is_log=bool(is_log), most_ticks=most_ticks)


def number(value: float) -> str:
    """A number in few characters, with a letter for its thousands.

    Example:
        >>> [number(n) for n in (0.0, 0.00012, 4.58891, 250, 61_440, 30_720_000_000.0, math.nan)]
        ['0', '0.00012', '4.589', '250', '61.44 k', '30.72 G', 'not finite']
    """
    if not math.isfinite(value):
        return "not finite"
    for size, letter in _LETTERS:
        if 10_000 <= abs(value) < _MOST_WITH_LETTER and abs(value) >= size:
            return f"{_short(value / size)} {letter}"
    return _short(value)


def _within(values: Array) -> Array:
    """The finite ones, within what can be reckoned with."""
    values = values[np.isfinite(values)].clip(-_MOST, _MOST)
    return np.where(np.abs(values) < _LEAST, 0.0, values)


def _ticks(scale: Scale) -> Iterator[float]:
    rough = (scale.high - scale.low) / max(1, scale.most_ticks - 1)
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * n for n in (1, 2, 2.5, 5, 10) if size * n >= rough * 0.999)
    first, last = math.ceil(scale.low / step - 1e-9), math.floor(scale.high / step + 1e-9)
    yield from (round(i * step, 12 - math.floor(math.log10(step))) for i in range(first, min(last, first + 20) + 1))


def _log_ticks(scale: Scale) -> Iterator[float]:
    low, high = math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high))
    every = max(1, -(-(high - low) // scale.most_ticks))
    parts = (1, 2, 5) if high - low <= 2 else (1,)
    for power in range(low, high + 1, every):
        yield from (n * 10.0**power for n in parts if scale.low <= n * 10.0**power <= scale.high)


def _label(value: float, all_values: list[float]) -> str:
    """A tick with the letter that all ticks of the axis have."""
    largest = max(map(abs, all_values))
    for size, letter in _LETTERS:
        if 10_000 <= largest < _MOST_WITH_LETTER and largest >= size and (value == 0 or abs(value) >= size / 100):
            return f"{_short(value / size)} {letter}" if value else "0"
    return _short(value)


def _short(value: float) -> str:
    """Four digits at most, without zeros that say nothing."""
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e6:
        mantissa, _, power = f"{value:.2e}".partition("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(power)}"
    text = f"{value:.{max(0, 3 - math.floor(math.log10(abs(value))))}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
