"""Progress: steps counted, limits reached, the best remembered; settings refused by name."""

import json
import math
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tinygpt.progress import Progress, planned_steps
from tinygpt.trainconfig import CHANGEABLE, TrainConfig


@pytest.mark.parametrize(
    ("limits", "steps"),
    [
        ({"max_steps": 5}, 5),
        ({"epochs": 1}, 10),  # 37 windows, 4 a step
        ({"epochs": 0.5}, 5),
        ({"max_tokens": 65}, 3),  # 32 tokens a step
        ({"max_steps": 7, "epochs": 1, "max_tokens": 10**6}, 7),
        ({"max_steps": 7, "max_seconds": 1}, 7),
        ({"max_seconds": 1}, None),
        ({}, 2000),
    ],
    ids=str,
)
def test_limits_are_counted_in_steps_and_the_first_one_wins(limits: dict[str, Any], steps: int | None) -> None:
    assert planned_steps(TrainConfig(batch_size=2, grad_accum=2, **limits), n_windows=37, tokens_per_window=8) == steps


@given(st.lists(st.floats(allow_nan=True), max_size=20))
def test_best_is_the_first_lowest_finite_loss(losses: list[float]) -> None:
    progress = Progress()
    for step, loss in enumerate(losses, 1):
        progress = replace(progress, step=step).after_evaluation(loss)
    finite = [loss for loss in losses if math.isfinite(loss)]
    best = losses.index(min(finite)) + 1 if finite else None
    assert (progress.best_step, progress.evaluations_since_best) == (best, len(losses) - (best or 0))


@given(st.lists(st.booleans(), max_size=20))
def test_faults_are_counted_in_a_row_and_skips_in_all(skips: list[bool]) -> None:
    progress = Progress()
    for skipped in skips:
        progress = progress.after_step(tokens=3, seconds=1.0, skipped=skipped, is_fault=skipped)
    in_a_row = skips[::-1].index(False) if False in skips else len(skips)
    assert (progress.skipped, progress.faults_in_a_row, progress.tokens) == (sum(skips), in_a_row, 3 * len(skips))


@pytest.mark.parametrize(
    ("step", "seconds", "forecast"),
    [(19, 1.0, None), (20, 1.0, 20 + 180), (2, 5.0, 2 + 100), (3, 11.0, 3)],  # of 10 seconds, at 0.05 a step
)
def test_forecast_waits_for_twenty_steps_or_half_the_time(step: int, seconds: float, forecast: int | None) -> None:
    progress = Progress(step=step, seconds=seconds).with_forecast(10.0, [0.05] * step)
    assert progress.forecast_steps == forecast


def test_forecast_is_kept_however_long_the_steps_take() -> None:
    config, late = TrainConfig(max_seconds=10), Progress(step=50, seconds=99.0)
    assert late.limit_reached(config, None) is None
    assert replace(late, forecast_steps=60).limit_reached(config, 60) is None
    assert late.limit_reached(replace(config, max_steps=60), 60) == "seconds"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("batch_size", 0), ("learning_rate", float("nan")), ("min_lr_fraction", 2), ("beta2", 1.0), ("keep", 0)],
        *[
            ("spike_factor", 0.5),
            ("dtype", "int8"),
            ("optimizer", "lion"),
            ("max_seconds", -1),
            ("schedule", "step"),
            ("max_steps", 1.5),
        ],
    ],
)
def test_value_out_of_range_is_named(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field} must be .*, got {value!r}$"):
        TrainConfig(**{field: value})


def test_what_decides_the_meaning_of_a_step_cannot_change() -> None:
    fixed = {"batch_size", "grad_accum", "optimizer", "beta1", "beta2", "seed", "eval_batches", "eval_batch_size"}
    assert set(TrainConfig.__dataclass_fields__) - CHANGEABLE == fixed


def test_busy_start_is_found_out_and_the_time_is_kept() -> None:
    progress, seconds = Progress(), [5.0] * 30 + [0.5] * 10_000  # ten times as slow at first
    while progress.forecast_steps is None or progress.step < progress.forecast_steps:
        now = progress.seconds + seconds[progress.step]
        progress = progress.after_step(tokens=1, seconds=now, skipped=False, is_fault=False)
        progress = progress.with_forecast(1000.0, seconds[: progress.step])
    assert progress.seconds == pytest.approx(1000, rel=0.01)


@given(st.lists(st.floats(0.01, 100), min_size=1), st.floats(0.1, 1000), st.integers(1, 300))
def test_a_forecast_continued_from_any_step_is_the_same(pattern: list[float], max_seconds: float, cut: int) -> None:
    def train(progress: Progress, steps: int) -> Progress:
        for _ in range(steps):
            now = progress.seconds + pattern[progress.step % len(pattern)]
            progress = progress.after_step(tokens=1, seconds=now, skipped=False, is_fault=False)
            if progress.forecast_steps is not None or progress.step >= 20:
                progress = progress.with_forecast(max_seconds, [pattern[0]] * 20)
        return progress

    half = train(Progress(), cut)
    saved = Progress(**{**json.loads(json.dumps(asdict(half))), "norms": half.norms})
    assert train(saved, 50) == train(Progress(), cut + 50)


def test_evaluations_between_the_steps_are_part_of_the_forecast() -> None:
    progress = Progress(step=20, seconds=20.0).with_forecast(1000.0, [1.0] * 20)
    late = replace(progress, step=60, seconds=100.0).with_forecast(1000.0, [1.0] * 60)  # 40 steps took 80 seconds
    assert (progress.forecast_steps, late.forecast_steps) == (1000, 60 + 450)


@pytest.mark.parametrize(
    ("norms", "clip", "limit"),
    [
        ([0.5] * 31, 1.0, math.inf),  # too few
        ([0.5] * 32, 1.0, 100.0),  # the floor is the clip
        ([3.0] * 32, 1.0, 300.0),
        ([1e-6] * 64, 1.0, 100.0),  # a model that knows its text by heart
        ([0.5] * 32, 0.0, 100.0),  # without clipping the floor is 1
        ([0.5] * 32, 0.01, 50.0),
        ([1.0] * 30 + [7.0] * 40, 1.0, 700.0),  # the last 64
    ],
)
def test_spike_is_a_multiple_of_the_median_or_of_the_clip(norms: list[float], clip: float, limit: float) -> None:
    progress = Progress()
    for norm in norms:
        progress = progress.after_step(tokens=1, seconds=1.0, skipped=False, is_fault=False, norm=norm)
        progress = progress.after_step(tokens=1, seconds=1.0, skipped=True, is_fault=True, norm=1e9)
    assert progress.norm_limit(TrainConfig(grad_clip=clip)) == limit
