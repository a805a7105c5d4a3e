"""Curves: metrics.jsonl read on, against the reader of whole files."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tinygpt.curves import Column, Curves
from tinygpt.metrics import MetricsLog, read_metrics


def line(step: int, loss: float | None = 2.0, **more: Any) -> dict[str, Any]:
    return {"step": step, "loss": loss, "tokens": 10 * step, "resources": {"seconds": step / 2}, **more}


def written(path: Path, lines: list[dict[str, Any]], tail: str = "") -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in lines) + tail)
    return path


@given(st.lists(st.one_of(st.floats(-1e6, 1e6), st.none()), max_size=60), st.data())
def test_read_on_in_pieces_equals_read_at_once(losses: list[float | None], data: st.DataObject) -> None:
    import tempfile

    lines = [line(i + 1, loss) for i, loss in enumerate(losses)]
    cut = data.draw(st.integers(0, len(lines)))
    with tempfile.TemporaryDirectory() as folder:
        path, pieces, whole = Path(folder) / "metrics.jsonl", Curves(), Curves()
        pieces.read_on(written(path, lines[:cut], tail='{"step": 99, "lo'))
        pieces.read_on(written(path, lines))
        whole.read_on(path)
        known = [math.nan if each["loss"] is None else each["loss"] for each in read_metrics(path)]
    np.testing.assert_array_equal(pieces["loss"].values(), known)
    np.testing.assert_array_equal(whole["loss"].values(), known)


def test_a_torn_line_ends_the_reading(tmp_path: Path) -> None:
    curves = Curves()
    curves.read_on(written(tmp_path / "metrics.jsonl", [line(1)], tail='garbage\n{"step": 3, "loss": 1}\n'))
    assert (curves.n_lines, curves.last["step"]) == (1, 1)


def test_a_file_that_was_cut_back_is_read_anew(tmp_path: Path) -> None:
    path, curves = tmp_path / "metrics.jsonl", Curves(lines=[])
    log = MetricsLog(path)
    log.cut_back(0)
    for step in (1, 2, 3):
        log.append(line(step))
    curves.read_on(path)
    log.cut_back(1)
    curves.read_on(path)
    assert (curves["loss"].steps().tolist(), curves.lines) == ([1], read_metrics(path))


def test_no_file_is_no_curve(tmp_path: Path) -> None:
    curves = Curves()
    curves.read_on(tmp_path / "metrics.jsonl")
    assert (curves.n_lines, len(curves["loss"]), curves["loss"].lowest()) == (0, 0, None)


@pytest.mark.parametrize(("seed", "n"), [(0, 65_537), (1, 131_073), (2, 300_001)])
def test_a_long_column_keeps_its_extremes_and_its_end(seed: int, n: int) -> None:
    values = np.random.default_rng(seed).normal(size=n)
    column = Column()
    for step, value in enumerate(values.tolist()):
        column.add(step, value)
    kept = column.values()
    assert len(column) <= 65_536
    assert (kept.min(), kept.max(), kept[-1]) == (values.min(), values.max(), values[-1])
    assert (np.diff(column.steps()) > 0).all()


@given(st.lists(st.sampled_from([0.0, 1.0, 2.5, math.nan]), max_size=20), st.integers(0, 20), st.integers(0, 20))
def test_figures_of_a_column_are_those_of_its_finite_values(values: list[float], first: int, last: int) -> None:
    column = Column()
    for i, value in enumerate(values):
        column.add(i + 1, value)
    known = {i + 1: value for i, value in enumerate(values) if not math.isnan(value)}
    inside = sorted(value for step, value in known.items() if first < step <= last)
    lowest = min(((value, step) for step, value in known.items()), default=None)
    assert column.lowest() == (None if lowest is None else lowest[::-1])
    assert column.at_step(first) == known.get(first)
    assert column.median(first, last) == (inside[len(inside) // 2] if inside else None)
    assert column.most(first, last) == max(inside, default=None)


def test_gaps_survive_thinning() -> None:
    column = Column()
    for step in range(70_000):
        column.add(step, math.nan if 30_000 <= step < 40_000 else 1.0)
    gaps = column.steps()[np.isnan(column.values())]
    assert (gaps.min() < 30_010, gaps.max() > 39_990) == (True, True)


def test_samples_are_bounded_and_keep_the_first_and_the_last() -> None:
    curves = Curves()
    for step in range(1, 1001):
        curves.add(line(step, sample=f"text {step}"))
    steps = [each.step for each in curves.samples]
    assert (len(steps) <= 64, steps[0], steps[-1]) == (True, 1, 1000)


def test_values_stand_along_tokens_and_seconds() -> None:
    curves = Curves()
    for step in (1, 2, 3):
        curves.add(line(step, evaluation={"loss": 5.0 - step}) if step != 2 else line(step))
    tokens, losses = curves.along("evaluation_loss", "tokens")
    seconds, _ = curves.along("evaluation_loss", "seconds")
    assert (tokens.tolist(), seconds.tolist(), losses.tolist()) == ([10, 30], [0.5, 1.5], [4.0, 2.0])


def test_skipped_steps_and_numbers_that_no_float_holds() -> None:
    curves = Curves()
    curves.add(line(4, None, skipped=True, grad_norm=10**400))
    assert (curves.skipped.at.tolist(), curves["loss"].last(), curves["grad_norm"].last()) == ([4], None, None)
