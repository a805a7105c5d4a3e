"""Several runs on one page: curves over tokens and over time, figures, and the settings that differ."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tinygpt.chart import MOST_STYLES, Chart, Series
from tinygpt.chartscale import number
from tinygpt.forecast import count, duration
from tinygpt.reportpage import page
from tinygpt.runcharts import time_unit
from tinygpt.runfacts import RunFacts, run_facts
from tinygpt.runtables import in_words
from tinygpt.staging import write_file

# Column of metrics.csv, title, unit, whether its points are few.
_DRAWN = (
    ("evaluation_loss", "Validation loss", "nats per token", True),
    ("evaluation_bits_per_byte", "Bits per byte, validation", "bits per byte", True),
    ("evaluation_train_loss", "Training loss, same measure", "nats per token", True),
    ("loss", "Training loss, each step", "nats per token", False),
    ("grad_norm", "Gradient norm", "norm before clipping", False),
    ("tokens_per_second", "Speed", "tokens per second", False),
)
_SETTINGS = {"model": "model", "config": "training", "engine": "engine", "environment": "machine"}


def write_comparison(folders: Sequence[Path], out: Path) -> None:
    """Writes a page of several runs, whole or not at all.

    Raises:
        FileNotFoundError: There is no such folder.
        FormatError: One holds no run.
        ValueError: They are too many to be told apart, or one is named twice.
        OSError: The page cannot be written.
    """
    if len(folders) > MOST_STYLES:
        raise ValueError(f"at most {MOST_STYLES} runs can be told apart on a page, got {len(folders)}; name fewer")
    places = Counter(folder.resolve() for folder in folders)
    if twice := next((place for place, n in places.items() if n > 1), None):
        raise ValueError(f"{twice} is named twice; a run is compared with others")
    write_file(out, comparison_page([run_facts(folder) for folder in folders]))


def comparison_page(runs: Sequence[RunFacts]) -> str:
    """Several runs as one page of HTML."""
    named = dict(zip(_names(runs), runs, strict=True))
    warnings = list(_warnings(named))
    parts = [("warnings", "Before they are compared")] if warnings else []
    parts += [("figures", "Figures"), ("tokens", "Over tokens"), ("time", "Over time"), ("settings", "Settings")]
    return page(
        "comparison.html",
        title=f"{len(runs)} runs",
        told=", ".join(named),
        parts=parts,
        warnings=warnings,
        figure_heads=["", *named],
        figures=[(name, *(tell(run) for run in runs)) for name, tell in _FIGURES.items()],
        over_tokens=list(_charts(named, _over_tokens)),
        over_time=list(_charts(named, _over_time)),
        setting_heads=["", *named],
        differing=_differing(runs),
    )


def _names(runs: Sequence[RunFacts]) -> list[str]:
    """The names of the folders, or their paths where names are not unique."""
    short = [run.folder.resolve().name for run in runs]
    return short if len(set(short)) == len(short) else [str(run.folder) for run in runs]


def _charts(named: Mapping[str, RunFacts], draw: "Callable[..., Chart]") -> Iterator[Chart]:
    for column, title, unit, has_markers in _DRAWN:
        chart = draw(named, column, title, unit, has_markers)
        if not chart.is_empty:
            yield chart


def _over_tokens(named: Mapping[str, RunFacts], column: str, title: str, unit: str, has_markers: bool) -> Chart:
    places = {name: run.curves.along(column, "tokens") for name, run in named.items()}
    return _chart(places, "tokens trained on", title, unit, has_markers)


def _over_time(named: Mapping[str, RunFacts], column: str, title: str, unit: str, has_markers: bool) -> Chart:
    places = {name: run.curves.along(column, "seconds") for name, run in named.items()}
    size, time = time_unit(max((float(x.max()) for x, _ in places.values() if len(x)), default=0.0))
    return _chart({name: (x / size, y) for name, (x, y) in places.items()}, time, title, unit, has_markers)


def _chart(places: Mapping[str, Any], x_unit: str, title: str, unit: str, has_markers: bool) -> Chart:
    series = [
        Series(name=name, x=x, y=y, style=style, has_markers=has_markers, is_faint=not has_markers)
        for style, (name, (x, y)) in enumerate(places.items())
    ]
    furthest = max((float(x.max()) for x, _ in places.values() if len(x)), default=1.0)
    return Chart(title=title, x_unit=x_unit, y_unit=unit, series=series, reach=(0.0, furthest))


def _warnings(named: Mapping[str, RunFacts]) -> Iterator[str]:
    """What the reader has to know before holding one curve against another."""
    if len({run.setting.get("tokenizer") for run in named.values()}) > 1:
        yield "The tokenizers differ: losses in nats per token do not compare, bits per byte do."
    if len({_judged_on(run) for run in named.values()}) > 1:
        yield "The validation data, or the windows taken of them, differ: neither losses nor bits compare exactly."
    still = [name for name, run in named.items() if run.is_running]
    if still:
        yield f"Still running: {', '.join(still)}."


def _judged_on(run: RunFacts) -> tuple[object, ...]:
    """What tells one measure from another, but for the tokenizer."""
    config = run.setting["config"]
    texts = [
        tuple((shard.bytes, shard.documents) for shard in each.manifest.splits.get("val", ()))
        if each.manifest
        else (each.facts.get("n_tokens"), each.facts.get("first_window_sha256"))
        for each in run.sources
        if each.role == "val"
    ]
    return tuple(texts), *(config.get(name) for name in ("eval_batches", "eval_batch_size", "batch_size"))


def _differing(runs: Sequence[RunFacts]) -> list[tuple[str, ...]]:
    """Every setting that is not the same in all runs."""
    rows: dict[str, list[str]] = {}
    for i, run in enumerate(runs):
        for name, value in _flat(run):
            rows.setdefault(name, [""] * len(runs))[i] = in_words(value)
    return [(name, *values) for name, values in rows.items() if len(set(values)) > 1]


def _flat(run: RunFacts) -> Iterator[tuple[str, object]]:
    for key, heading in _SETTINGS.items():
        yield from ((f"{heading}: {name}", value) for name, value in run.setting[key].items())
    if run.setting.get("processor"):
        yield "machine: processor", run.setting["processor"]
    for source in run.sources:
        where = "bare tokens" if source.folder is None else str(source.folder)
        yield f"data: {source.role}", f"{where}, {source.facts.get('n_tokens', 0):,} tokens"
    yield "data: tokenizer", str(run.setting.get("tokenizer") or "none")[:16]
    yield from ((f"text: {name}", value) for name, value in run.options.items() if name != "out")


def _best(column: str) -> Callable[[RunFacts], str]:
    def tell(run: RunFacts) -> str:
        found = run.curves[column].lowest()
        return "" if found is None else f"{found[1]:.4f}, step {found[0]:,}"

    return tell


def _last(column: str, form: Callable[[float], str]) -> Callable[[RunFacts], str]:
    def tell(run: RunFacts) -> str:
        found = run.curves[column].last()
        return "" if found is None else form(found)

    return tell


def _speed(run: RunFacts) -> str:
    found = run.curves["tokens_per_second"].median()
    return "" if found is None else f"{found:,.0f} tokens/s"


_FIGURES: dict[str, Callable[[RunFacts], str]] = {
    "state": lambda run: run.state,
    "steps": lambda run: f"{run.step:,}",
    "parameters": lambda run: "" if run.n_parameters is None else f"{run.n_parameters:,}",
    "tokens trained on": _last("tokens", count),
    "time": _last("seconds", duration),
    "best validation loss, nats per token": _best("evaluation_loss"),
    "best bits per byte, validation": _best("evaluation_bits_per_byte"),
    "last training loss, each step": _last("loss", number),
    "speed, median step": _speed,
    "peak memory": _last("peak_memory_bytes", lambda n: f"{count(n)}B"),
    "steps skipped, of those logged": lambda run: f"{len(run.curves.skipped):,}",
}
