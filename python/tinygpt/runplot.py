"""Charts drawn with matplotlib, for notebooks and papers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygpt.chart import Chart
from tinygpt.chartscale import scale_of

_STYLES = ("-", "--", ":", "-.")
_MARKERS = "os^Dx+"
_COLUMNS = 2


def plot(charts: Sequence[Chart]) -> NDArray[Any]:
    """The axes of a figure with all charts, an array (n,).

    Raises:
        ValueError: There is no chart.
        ImportError: matplotlib is not installed.
    """
    if not charts:
        raise ValueError("nothing is measured yet, so there is nothing to draw; train a step first")
    try:
        from matplotlib import pyplot
    except ImportError:
        raise ImportError('plot needs matplotlib, which is missing; pip install "tinygpt[plot]"') from None
    n_rows = -(-len(charts) // _COLUMNS)
    figure, grid = pyplot.subplots(
        n_rows, _COLUMNS, figsize=(5 * _COLUMNS, 3.2 * n_rows), layout="constrained", squeeze=False
    )
    axes = grid.ravel()
    for chart, axis in zip(charts, axes, strict=False):
        _draw(chart, axis)
    for axis in axes[len(charts) :]:
        figure.delaxes(axis)
    return np.asarray(axes[: len(charts)])


def _draw(chart: Chart, axis: Any) -> None:
    for each in chart.series:
        marker = _MARKERS[each.style % len(_MARKERS)] if each.has_markers else ""
        style = {
            "color": f"C{each.style % 10}",
            "linestyle": _STYLES[each.style % len(_STYLES)],
            "linewidth": 0.8 if each.is_faint else 1.5,
        }
        axis.plot(each.x, each.y, label=each.name, marker=marker, markersize=4, **style)
    for level in chart.levels:
        axis.axhline(level.y, linestyle=(0, (1, 3)), color="0.4", label=f"{level.name}: {level.y:.4g}")
    for event in (each for each in chart.events if len(each.x)):
        if event.is_tall:
            for x in event.x:
                axis.axvline(x, linestyle=":", linewidth=0.8, color="0.5")
        else:
            foot = axis.get_xaxis_transform()
            axis.plot(event.x, np.zeros(len(event.x)), "kx", transform=foot, clip_on=False, label=event.name)
    values = np.concatenate([np.asarray(each.y, np.float64) for each in chart.series])
    if scale_of(values, 1, 0, most_ticks=5).is_log:
        axis.set_yscale("log")
    axis.set(title=chart.title, xlabel=chart.x_unit, ylabel=chart.y_unit)
    axis.grid(visible=True, alpha=0.3)
    if len(chart.series) > 1 or chart.levels:
        axis.legend(fontsize="small")
