"""Charts as inline SVG: pure functions of numbers, which need no script, no network and no colour to be read.

A chart is drawn for a phone's width and grows with the room it is given. Series differ by dash and marker as well as by
colour; colours are CSS variables with defaults, so that a page may set its own for light and dark.
"""

import html
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from tinygpt.chart import Chart, Event, Series
from tinygpt.chartscale import Scale, number, scale_of
from tinygpt.tokenview import visible

_WIDTH, _HEIGHT = 360.0, 232.0
_RIGHT, _TOP, _BOTTOM = 22.0, 24.0, 38.0
_LEAST_LEFT, _DIGIT = 36.0, 7.8
_COLOURS = ("#2f77c4", "#c2571a", "#2b8f57", "#a8479b", "#8a7413", "#4b8f99")
_DASHES = ("", "7 3", "2 3", "9 3 2 3")
_LEVEL_DASHES = ("1 3", "5 2 1 2", "3 3", "8 2")
_MARKERS = ("circle", "square", "triangle", "diamond", "cross", "plus")
_MOST_MARKERS, _MOST_EVENTS, _TABLE_ROWS = 24, 60, 10
_LABEL_ROOM, _LETTER, _PROBES = 12.0, 6.8, 24

Array = npt.NDArray[np.float64]


def figure(chart: Chart) -> str:
    """A chart with caption, legend and a table of its values, as one HTML element."""
    caption = f"<figcaption><b>{_text(chart.title)}</b></figcaption>"
    if chart.is_empty:
        return f'<figure class="chart">{caption}<p>No values.</p></figure>'
    more = f"<details><summary>Values</summary>{_table(chart)}</details>"
    is_plain = len(chart.series) == 1 and not chart.levels and not any(len(each.x) for each in chart.events)
    return f'<figure class="chart">{caption}{"" if is_plain else legend(chart)}{svg(chart)}{more}</figure>'


def svg(chart: Chart) -> str:
    """The drawing alone; what could not be seen in it is said in its title."""
    x_scale, y_scale = _scales(chart)
    summary = " ".join(_summary(chart))
    style = "display:block;width:100%;height:auto;font:12px system-ui,sans-serif"
    parts = [f'<svg viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" role="img" style="{style}" fill="currentColor" ']
    parts.append(f'aria-label="{summary}"><title>{summary}</title>')
    parts += _axes(chart, x_scale, y_scale)
    parts += _events(chart.events, x_scale)
    for i, level in enumerate(chart.levels):
        parts.append(_level_line(i, x_scale, y_scale(level.y)))
    for series in chart.series:
        parts += _curve(chart, series, x_scale, y_scale)
    parts += _level_labels(chart, x_scale, y_scale)
    return "".join([*parts, "</svg>"])


def legend(chart: Chart) -> str:
    """What each line of a chart is, as an HTML list: dashes and markers tell it without colour."""
    rows = []
    for each in chart.series:
        marker = _marker(each.style, 14, 6) if each.has_markers else ""
        rows.append(f"<li>{_swatch(_stroke(each, 2.0), marker)} {_text(each.name)}</li>")
    rows += [
        f"<li>{_swatch(_level_stroke(i))} {_text(each.name)}: {number(each.y)}</li>"
        for i, each in enumerate(chart.levels)
    ]
    for event in (each for each in chart.events if len(each.x)):
        shape = _tall(14, 1, 11) if event.is_tall else _cross(14, 6)
        n = "" if len(event.x) == 1 else f" ({len(event.x):,})"
        rows.append(f"<li>{_swatch('', shape)} {_text(event.name)}{n}</li>")
    style = "list-style:none;margin:0;padding:0;display:flex;flex-wrap:wrap;gap:0 1em;font-size:0.85em"
    return f'<ul class="legend" style="{style}">{"".join(rows)}</ul>'


def thinned(x: Array, y: Array, columns: npt.NDArray[np.int64]) -> Iterator[tuple[float, float, bool]]:
    """Of each column of pixels the lowest and the highest point, in order; and whether a gap comes before it.

    Args:
        x: Places, ascending.
        y: Values; what is not finite is a gap.
        columns: The column of each place, ascending.
    """
    is_there = np.isfinite(y)
    gaps = np.cumsum(~is_there)  # a change between two points tells a gap between them
    kept = np.flatnonzero(is_there)
    if not len(kept):
        return
    starts = np.flatnonzero(np.diff(columns[kept], prepend=-1 + columns[kept[0]]))
    chosen: list[int] = []
    for start, end in pairwise([*starts.tolist(), len(kept)]):
        values = y[kept[start:end]]
        chosen += sorted({int(kept[start + values.argmin()]), int(kept[start + values.argmax()])})
    before = gaps[chosen[0]]
    for i in chosen:
        yield float(x[i]), float(y[i]), bool(gaps[i] != before)
        before = gaps[i]


def _scales(chart: Chart) -> tuple[Scale, Scale]:
    reach = np.array(chart.reach or (), np.float64)
    xs = [*(each.x for each in chart.series), *(each.x for each in chart.events)]
    places = np.concatenate([reach, *(np.asarray(x, np.float64) for x in xs)])
    values = np.concatenate([np.zeros(0), *(np.asarray(each.y, np.float64) for each in chart.series)])
    extra = np.array([each.y for each in chart.levels], np.float64)
    y_scale = scale_of(values, _HEIGHT - _BOTTOM, _TOP, most_ticks=7, extra=extra)
    left = max(_LEAST_LEFT, 9 + _DIGIT * max((len(label) for _, label in y_scale.ticks), default=0))
    return scale_of(places, left, _WIDTH - _RIGHT, most_ticks=6, is_log=False), y_scale


def _axes(chart: Chart, x_scale: Scale, y_scale: Scale) -> Iterator[str]:
    left, right, foot = x_scale.start, x_scale.end, _HEIGHT - _BOTTOM
    for value, label in y_scale.ticks:
        y = y_scale(value)
        yield f'<path d="M{left:.0f} {y:.1f}H{right:.0f}" stroke="currentColor" stroke-opacity=".15"/>'
        yield f'<text x="{left - 5:.0f}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
    for value, label in x_scale.ticks:
        x = x_scale(value)
        yield f'<path d="M{x:.1f} {foot:.0f}v4" stroke="currentColor" stroke-opacity=".6"/>'
        yield f'<text x="{x:.1f}" y="{foot + 16:.0f}" text-anchor="middle">{label}</text>'
    frame = f"M{left:.0f} {_TOP:.0f}V{foot:.0f}H{right:.0f}"
    yield f'<path d="{frame}" fill="none" stroke="currentColor" stroke-opacity=".6"/>'
    kind = " (log scale)" if y_scale.is_log else ""
    yield f'<text x="4" y="13">{_text(chart.y_unit)}{kind}</text>'
    middle = (left + right) / 2
    yield f'<text x="{middle:.0f}" y="{_HEIGHT - 5:.0f}" text-anchor="middle">{_text(chart.x_unit)}</text>'


def _curve(chart: Chart, series: Series, x_scale: Scale, y_scale: Scale) -> Iterator[str]:
    x, y = np.asarray(series.x, np.float64), np.asarray(series.y, np.float64)
    y = np.where(np.isfinite(y) & ((y > 0) | (not y_scale.is_log)), y, np.nan)
    across = x_scale.all(x)
    points = list(thinned(across, y_scale.all(y), np.round(across).astype(np.int64)))
    if not points:
        return
    path, after = [], [gap for _, _, gap in points[1:]] + [True]
    for i, (px, py, gap) in enumerate(points):
        path.append(f"{'M' if gap or not i else 'L'}{px:.1f} {py:.1f}")
        if (gap or not i) and after[i]:
            path.append("h.01")  # a point alone is a dot
    yield f'<path d="{"".join(path)}" fill="none" stroke-linejoin="round" stroke-linecap="round" {_stroke(series)}/>'
    if not series.has_markers:
        return
    there = np.flatnonzero(np.isfinite(y))
    picked = there if len(there) <= _MOST_MARKERS else there[np.linspace(0, len(there) - 1, _MOST_MARKERS).astype(int)]
    for i in picked.tolist():
        words = f"{series.name}: {number(float(y[i]))} {chart.y_unit} at {number(float(x[i]))} {chart.x_unit}"
        shape = _marker(series.style, x_scale(float(x[i])), y_scale(float(y[i])))
        yield f"<g>{shape}<title>{_text(words)}</title></g>"


def _events(events: Sequence[Event], x_scale: Scale) -> Iterator[str]:
    foot = _HEIGHT - _BOTTOM
    for event in events:
        places = sorted({round(x_scale(x)) for x in event.x})
        places = places if len(places) <= _MOST_EVENTS else places[:: -(-len(places) // _MOST_EVENTS)]
        for x in places:
            yield _tall(x, _TOP, foot) if event.is_tall else _cross(x, foot)


def _tall(x: float, top: float, foot: float) -> str:
    return (
        f'<path d="M{x:.1f} {top:.0f}V{foot:.0f}" stroke="currentColor" stroke-opacity=".55" stroke-dasharray="1 2"/>'
    )


def _cross(x: float, y: float) -> str:
    return f'<path d="M{x - 3:.1f} {y - 3:.1f}l6 6m-6 0l6 -6" stroke="currentColor" stroke-width="1.6"/>'


def _stroke(series: Series, width: float | None = None) -> str:
    dash = _DASHES[series.style % len(_DASHES)]
    width = width or (1.0 if series.is_faint else 1.8)
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return f'style="stroke:{_colour(series.style)}" stroke-width="{width}"{dashes}'


def _colour(style: int) -> str:
    i = style % len(_COLOURS)
    return f"var(--series-{i},{_COLOURS[i]})"


def _marker(style: int, x: float, y: float) -> str:
    """A small shape, filled with the ground where it has an inside: lines that cross it stay readable."""
    shape, colour = _MARKERS[style % len(_MARKERS)], _colour(style)
    paths = {
        "square": f"M{x - 3:.1f} {y - 3:.1f}h6v6h-6z",
        "triangle": f"M{x:.1f} {y - 3.8:.1f}l3.8 6.6h-7.6z",
        "diamond": f"M{x:.1f} {y - 4.2:.1f}l4.2 4.2l-4.2 4.2l-4.2 -4.2z",
        "cross": f"M{x - 3:.1f} {y - 3:.1f}l6 6m-6 0l6 -6",
        "plus": f"M{x - 4:.1f} {y:.1f}h8m-4 -4v8",
    }
    style_text = f'style="stroke:{colour};fill:var(--card,none)" stroke-width="1.5"'
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" {style_text}/>'
    return f'<path d="{paths[shape]}" {style_text}/>'


def _level_stroke(i: int) -> str:
    dash = _LEVEL_DASHES[i % len(_LEVEL_DASHES)]
    return f'stroke="currentColor" stroke-opacity=".8" stroke-width="1.4" stroke-dasharray="{dash}"'


def _level_line(i: int, x_scale: Scale, y: float) -> str:
    return f'<path d="M{x_scale.start:.0f} {y:.1f}H{x_scale.end:.0f}" {_level_stroke(i)}/>'


def _level_labels(chart: Chart, x_scale: Scale, y_scale: Scale) -> Iterator[str]:
    """Names at their lines, at that end and on that side where they hide least of the curves and of one another."""
    taken: list[tuple[float, float, float, float]] = []
    for level in sorted(chart.levels, key=lambda each: each.y):
        width, y = min(_LETTER * len(level.name), x_scale.end - x_scale.start), y_scale(level.y)
        places = [
            (left, base, left + width, base)
            for base in (y - 3, y + _LABEL_ROOM, y - 3 - _LABEL_ROOM, y + 2 * _LABEL_ROOM)
            for left in (x_scale.end - width, x_scale.start + 4)
            if base - 9 >= _TOP - 8 and base <= _HEIGHT - _BOTTOM
        ]
        left, base, right, _ = min(places, key=lambda place: _hidden(chart, place, taken, x_scale, y_scale))
        taken.append((left, base - _LABEL_ROOM, right, base))
        x, anchor = (right, "end") if right > x_scale.end - 1 else (left, "start")
        halo = 'font-size="11" paint-order="stroke" style="stroke:var(--card,none);stroke-width:3px"'
        yield f'<text x="{x:.0f}" y="{base:.1f}" text-anchor="{anchor}" {halo}>{_text(level.name)}</text>'


def _hidden(
    chart: Chart,
    place: tuple[float, float, float, float],
    taken: Sequence[tuple[float, float, float, float]],
    x_scale: Scale,
    y_scale: Scale,
) -> int:
    """How much a label would hide: points of curves in its box, and labels, which count more."""
    left, base, right, _ = place
    top, hidden = base - _LABEL_ROOM, 0
    for each in taken:
        hidden += 1000 * (left < each[2] and each[0] < right and top < each[3] and each[1] < base)
    probes = np.linspace(left, right, _PROBES)
    for series in chart.series:
        x, y = np.asarray(series.x, np.float64), np.asarray(series.y, np.float64)
        there = np.isfinite(y)
        if there.any():
            line = np.interp(probes, x_scale.all(x[there]), y_scale.all(y[there]), np.nan, np.nan)
            hidden += int(((line > top - 4) & (line < base + 4)).sum())
    return hidden


def _swatch(stroke: str, shape: str = "") -> str:
    line = f'<path d="M0 6H28" fill="none" {stroke}/>' if stroke else ""
    return f'<svg width="28" height="12" viewBox="0 0 28 12" aria-hidden="true">{line}{shape}</svg>'


def _summary(chart: Chart) -> Iterator[str]:
    """The chart in words, escaped."""
    yield f"{_text(chart.title)}, {_text(chart.y_unit)} over {_text(chart.x_unit)}."
    for each in chart.series:
        y = np.asarray(each.y, np.float64)
        y = y[np.isfinite(y)]
        if len(y):
            ends = f"from {number(float(y[0]))} to {number(float(y[-1]))}"
            yield f"{_text(each.name)}: {ends}, lowest {number(float(y.min()))}, highest {number(float(y.max()))}."
    for level in chart.levels:
        yield f"{_text(level.name)}: {number(level.y)}."


def _table(chart: Chart) -> str:
    """Values at places spread over the chart, the nearest of each curve."""
    marked = [each for each in chart.series if each.has_markers and len(each.x)] or list(chart.series)
    places = np.unique(np.concatenate([np.asarray(each.x, np.float64) for each in marked]))
    places = (
        places[np.unique(np.linspace(0, len(places) - 1, _TABLE_ROWS).round().astype(int))] if len(places) else places
    )
    heads = "".join(f'<th scope="col">{_text(each.name)}</th>' for each in chart.series)
    rows = ""
    for place in places.tolist():
        cells = "".join(f"<td>{_at(each, place)}</td>" for each in chart.series)
        rows += f'<tr><th scope="row">{number(place)}</th>{cells}</tr>'
    head = f'<thead><tr><th scope="col">{_text(chart.x_unit)}</th>{heads}</tr></thead>'
    return f'<div class="wide" tabindex="0"><table>{head}<tbody>{rows}</tbody></table></div>'


def _at(series: Series, place: float) -> str:
    """The last value up to a place."""
    x = np.asarray(series.x, np.float64)
    i = int(np.searchsorted(x, place, side="right")) - 1
    if i < 0 or not math.isfinite(series.y[i]):
        return ""
    return number(float(series.y[i]))


def _text(text: str) -> str:
    return html.escape(visible(text))
