"""Progress: steps counted, limits reached, the best remembered; settings refused by name."""

import math
from dataclasses import replace
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
        *[("dtype", "int8"), ("optimizer", "lion"), ("max_seconds", -1), ("schedule", "step"), ("max_steps", 1.5)],
    ],
)
def test_value_out_of_range_is_named(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field} must be .*, got {value!r}$"):
        TrainConfig(**{field: value})


def test_what_decides_the_meaning_of_a_step_cannot_change() -> None:
    fixed = {"batch_size", "grad_accum", "optimizer", "beta1", "beta2", "seed", "eval_batches", "eval_batch_size"}
    assert set(TrainConfig.__dataclass_fields__) - CHANGEABLE == fixed
