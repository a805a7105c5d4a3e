"""Chart: curves, heights and events, with the units of both axes; whoever draws it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
MOST_STYLES = 12
"""Series that can be told apart without colour."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One curve."""

    name: str
    """What the legend calls it."""
    x: Sequence[float] | Array
    """Places, ascending."""
    y: Sequence[float] | Array
    """Values; one that is not finite is a gap."""
    style: int = 0
    """Which dash, marker and colour, from 0 to below `MOST_STYLES`."""
    has_markers: bool = False
    """Whether points are marked, as where they are few."""
    is_faint: bool = False
    """Whether the line is thin, as where it shows every step."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """A height to hold curves against."""

    name: str
    """What stands beside it."""
    y: float
    """The height."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """Places at which something happened."""

    name: str
    """What."""
    x: Sequence[float]
    """Where."""
    is_tall: bool = False
    """Whether it is a line over all the height, else a cross at the foot."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """What is drawn, with the units of both axes.

    Example:
        >>> chart = Chart(title="Loss", x_unit="steps", y_unit="nats", series=[Series(name="a", x=[1, 2], y=[9, 8])])
        >>> chart.is_empty
        False
    """

    title: str
    """What the values are."""
    x_unit: str
    """Unit of the places."""
    y_unit: str
    """Unit of the values."""
    series: Sequence[Series]
    """The curves."""
    levels: Sequence[Level] = ()
    """Heights to hold them against."""
    events: Sequence[Event] = ()
    """What happened meanwhile."""
    reach: tuple[float, float] | None = None
    """Places that are to be within the chart, such as the ends of what other charts beside it show."""

    @property
    def is_empty(self) -> bool:
        """Whether no curve has a value."""
        return not any(np.isfinite(np.asarray(each.y, np.float64)).any() for each in self.series)
