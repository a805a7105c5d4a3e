"""Charts: read back with an XML parser, places against places, thinning against its law."""

import math
import time
import xml.etree.ElementTree as ET
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tinygpt.chart import MOST_STYLES, Chart, Event, Level, Series
from tinygpt.chartscale import number, scale_of
from tinygpt.svgchart import figure, legend, svg, thinned

NUMBERS = st.floats(allow_nan=True, allow_infinity=True)


def chart(*series: Series, **more: object) -> Chart:
    return Chart(title="Loss", x_unit="steps", y_unit="nats", series=series, **more)  # type: ignore[arg-type]


def line(y: list[float], **more: object) -> Series:
    return Series(name="train", x=list(range(len(y))), y=y, **more)  # type: ignore[arg-type]


def texts(drawn: str) -> list[str]:
    return [each.text or "" for each in ET.fromstring(drawn).iter("text")]


def path_points(drawn: str) -> list[tuple[float, float]]:
    """The points of the first curve, which alone has no fill and round joins."""
    path = next(e for e in ET.fromstring(drawn).iter("path") if e.get("stroke-linejoin") == "round")
    words = path.get("d", "").replace("h.01", "").replace("L", "M").split("M")[1:]
    return [(float(x), float(y)) for x, y in (word.split() for word in words)]


@given(st.lists(NUMBERS, max_size=40), st.booleans())
def test_any_values_make_a_drawing_that_parses(y: list[float], has_markers: bool) -> None:
    drawn = svg(chart(line(y, has_markers=has_markers)))
    assert ET.fromstring(drawn).tag == "svg"
    assert "nan" not in drawn.split("</title>")[1].lower().replace("nats", "")


@given(st.lists(st.one_of(st.floats(-1e9, 1e9), st.just(math.nan)), min_size=1, max_size=200), st.integers(1, 50))
def test_each_column_keeps_its_lowest_and_highest_point(y: list[float], width: int) -> None:
    values, places = np.array(y), np.arange(len(y), dtype=float)
    columns = (places * width / len(y)).astype(np.int64)
    kept = list(thinned(places, values, columns))
    found = {c: sorted({v for x, v, _ in kept if columns[int(x)] == c}) for c in set(columns.tolist())}
    wanted = {}
    for c in found:
        inside = values[(columns == c) & np.isfinite(values)]
        wanted[c] = sorted({inside.min(), inside.max()}) if len(inside) else []
    assert found == wanted
    assert [x for x, _, _ in kept] == sorted(x for x, _, _ in kept)


def test_a_gap_is_a_new_beginning_of_the_line() -> None:
    columns = np.arange(5)
    kept = thinned(np.arange(5.0), np.array([1.0, 2.0, math.nan, 3.0, 4.0]), columns)
    assert [(x, gap) for x, _, gap in kept] == [(0, False), (1, False), (3, True), (4, False)]


def test_a_curve_goes_through_its_values_at_the_ticks() -> None:
    drawn = svg(chart(line([0.0, 10.0, 5.0])))
    (x0, low), (x1, high), (x2, middle) = path_points(drawn)
    assert [x1 - x0, low - high] == pytest.approx([x2 - x1, 2 * (low - middle)], abs=0.2)
    labels = {e.text: float(e.get("y", "0")) for e in ET.fromstring(drawn).iter("text")}
    assert labels["10"] - 4 == pytest.approx(high, abs=0.1)
    assert labels["0"] is not None


def test_a_million_steps_are_small_and_quick() -> None:
    steps = np.arange(1, 1_000_001.0)
    noisy = 9 * np.exp(-steps / 2e5) + np.random.default_rng(0).normal(3, 0.2, len(steps))
    started = time.process_time()
    drawn = figure(chart(Series(name="train", x=steps, y=noisy), Series(name="val", x=steps, y=noisy, style=1)))
    assert (len(drawn) < 60_000, time.process_time() - started < 2) == (True, True)


def test_both_axes_have_units_and_ticks() -> None:
    found = texts(svg(chart(line([1.0, 2.0, 3.0]))))
    assert {"nats", "steps"} <= set(found)
    assert sum(each.replace(".", "").isdigit() for each in found) >= 6


def test_what_dwarfs_all_else_is_drawn_on_a_log_scale() -> None:
    assert "nats (log scale)" in texts(svg(chart(line([1.0, 1.1, 0.9, 1.0, 5000.0]))))


def test_styles_differ_without_colour() -> None:
    looks = set()
    for style in range(MOST_STYLES):
        drawn = legend(chart(line([1.0, 2.0], style=style, has_markers=True))).split("</li>")[0]
        looks.add("".join(part.split('"', 1)[1] for part in drawn.split("var(--series-")))
    assert len(looks) == MOST_STYLES


def test_labels_of_close_levels_do_not_overlap() -> None:
    levels = [Level(name=name, y=y) for name, y in (("zlib", 5.0), ("zstd", 4.99), ("5-gram", 4.98))]
    root = ET.fromstring(svg(chart(line([1.0, 9.0]), levels=levels)))
    labels = [e for e in root.iter("text") if e.text in ("zlib", "zstd", "5-gram")]
    for one, other in combinations(labels, 2):
        is_apart = abs(float(one.get("y", "0")) - float(other.get("y", "0"))) >= 11
        assert is_apart or one.get("text-anchor") != other.get("text-anchor")


def test_a_label_keeps_clear_of_the_curves() -> None:
    falling = line([9.0, 5.0, 3.0, 2.5, 2.2, 2.1, 2.05, 2.03, 2.02])
    root = ET.fromstring(svg(chart(falling, levels=[Level(name="5-gram", y=1.9), Level(name="guessing", y=8.9)])))
    anchors = {e.text: e.get("text-anchor") for e in root.iter("text") if e.text in ("5-gram", "guessing")}
    assert anchors == {"5-gram": "start", "guessing": "end"}


def test_the_title_tells_what_the_drawing_shows() -> None:
    events = [Event(name="steps skipped", x=[1.0])]
    title = ET.fromstring(svg(chart(line([9.0, 4.0, math.nan, 5.0]), events=events))).find("title")
    assert title is not None
    assert title.text == "Loss, nats over steps. train: from 9 to 5, lowest 4, highest 9."


def test_a_chart_without_values_says_so() -> None:
    assert "No values." in figure(chart(line([math.nan, math.inf])))


def test_words_are_escaped() -> None:
    series = Series(name='</title><script>"', x=[1.0, 2.0], y=[1.0, 2.0], has_markers=True)
    page = figure(Chart(title="<b>", x_unit="\u202e", y_unit="&", series=[series], levels=[Level(name="<i>", y=1.0)]))
    assert [bad for bad in ("<script", "<b><b>", "<i>", "\u202e") if bad in page] == []


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=30))
def test_ticks_lie_within_the_axis_and_are_few(values: list[float]) -> None:
    scale = scale_of(np.array(values), 200.0, 20.0, most_ticks=6)
    ticks = [value for value, _ in scale.ticks]
    assert len(ticks) <= 40
    assert all(20 - 1e-6 <= scale(value) <= 200 + 1e-6 for value in ticks)


@given(st.floats(-1e300, 1e300))
def test_a_number_takes_few_characters_and_is_the_value(value: float) -> None:
    shown = number(value)
    assert len(shown) <= 12
    if value and not shown.endswith((" k", " M", " G", " T")):
        assert float(shown) == pytest.approx(value, rel=6e-3)
