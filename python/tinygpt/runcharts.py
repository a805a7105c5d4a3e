"""The charts of a run: which measurements stand together, in which units."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from tinygpt.chart import Chart, Event, Level, Series
from tinygpt.curves import Curves

SPLITS = {"evaluation": "validation", "evaluation_train": "training, same measure"}
_TIMES = ((172_800, 86_400, "days"), (7200, 3600, "hours"), (180, 60, "minutes"), (0, 1, "seconds"))


def run_charts(
    curves: Curves,
    *,
    losses: Mapping[str, float] | None = None,
    bits: Mapping[str, float] | None = None,
    starts: Sequence[int] = (),
) -> list[Chart]:
    """All that was measured of a run, over its steps; charts without a value are left out.

    Args:
        curves: The measurements.
        losses: Nats per token of others, by name.
        bits: Bits per byte of others, by name.
        starts: Steps from which later sessions went on.
    """
    skipped = Event(name="steps skipped", x=curves.skipped.at)
    later = Event(name="a later session begins", x=starts, is_tall=True)
    memory = [
        _series(curves, "memory_bytes", "held", 0, scale=1e-9),
        _series(curves, "peak_memory_bytes", "most so far", 1, scale=1e-9),
    ]
    charts = [
        replace(_loss_chart(curves, losses or {}), events=[skipped, later]),
        _bits_chart(curves, bits or {}),
        _simple(curves, "learning_rate", "Learning rate", "rate"),
        replace(_simple(curves, "grad_norm", "Gradient norm", "norm before clipping"), events=[skipped]),
        _simple(curves, "tokens_per_second", "Speed", "tokens per second"),
        Chart(title="Memory", x_unit="steps", y_unit="GB", series=memory),
        _simple(curves, "gemm_fraction", "Share of the peak", "% of the products' peak", scale=100.0),
        _time_chart(curves),
    ]
    reach = (0.0, float(curves.last.get("step", 0)))
    return [replace(chart, reach=reach) for chart in charts if not chart.is_empty]


def time_unit(longest: float) -> tuple[int, str]:
    """The unit that suits times of up to so many seconds: its seconds, and its name.

    Example:
        >>> time_unit(5400.0)
        (60, 'minutes')
    """
    return next((size, name) for least, size, name in _TIMES if longest >= least)


def _loss_chart(curves: Curves, others: Mapping[str, float]) -> Chart:
    series = [_series(curves, "loss", "training, each step", 0, is_faint=True), *_evaluated(curves, "loss")]
    levels = [Level(name=name, y=value) for name, value in others.items()]
    return Chart(title="Loss", x_unit="steps", y_unit="nats per token", series=series, levels=levels)


def _bits_chart(curves: Curves, others: Mapping[str, float]) -> Chart:
    series = list(_evaluated(curves, "bits_per_byte"))
    levels = [Level(name=name, y=value) for name, value in others.items()]
    return Chart(title="Bits per byte", x_unit="steps", y_unit="bits per byte", series=series, levels=levels)


def _evaluated(curves: Curves, figure: str) -> Iterator[Series]:
    for style, (split, name) in enumerate(SPLITS.items(), start=1):
        if len(curves[f"{split}_{figure}"]):
            yield _series(curves, f"{split}_{figure}", name, style, has_markers=True)


def _simple(curves: Curves, column: str, title: str, unit: str, scale: float = 1.0) -> Chart:
    return Chart(
        title=title, x_unit="steps", y_unit=unit, series=[_series(curves, column, title.lower(), 0, scale=scale)]
    )


def _series(
    curves: Curves,
    column: str,
    name: str,
    style: int,
    *,
    scale: float = 1.0,
    has_markers: bool = False,
    is_faint: bool = False,
) -> Series:
    found = curves[column]
    return Series(
        name=name,
        x=found.steps(),
        y=found.values() * scale,
        style=style,
        has_markers=has_markers,
        is_faint=is_faint,
    )


def _time_chart(curves: Curves) -> Chart:
    """How far the run was at which time: a stretch that is flat is a machine that was busy elsewhere."""
    size, unit = time_unit(curves["seconds"].most() or 0.0)
    series = [_series(curves, "seconds", "steps", 0, scale=1 / size)]
    return Chart(title="Time taken", x_unit="steps", y_unit=unit, series=series)
