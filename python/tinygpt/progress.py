"""Progress: what a run has behind it, and which limit it has reached; plain numbers, saved with every checkpoint."""

import math
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tinygpt.trainconfig import LIMITS, TrainConfig

DEFAULT_STEPS = 2000
FORECAST_STEPS = 20
# Shares of max_seconds at which a forecast is made anew: a machine that was busy during the first steps, or that slows
# down later, is found out; each is saved, so that a continued run has the same ones behind it.
FORECASTS_AT = (*(tenth / 10 for tenth in range(1, 10)), 0.95, 0.99)
# Norms that the next one is held against, and how many there must be: the first ones of a run are its longest.
NORMS_KEPT, NORMS_NEEDED = 64, 32


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands."""

    step: int = 0
    """Optimiser steps taken."""
    tokens: int = 0
    """Target tokens trained on."""
    seconds: float = 0.0
    """Seconds that the run has taken, over all its sessions."""
    skipped: int = 0
    """Steps whose loss or gradient was not finite, or whose gradient was a spike."""
    faults_in_a_row: int = 0
    """Such steps since the last good one."""
    best_loss: float | None = None
    """Lowest validation loss, nats per token."""
    best_step: int | None = None
    """The step it was measured at."""
    evaluations_since_best: int = 0
    """Evaluations after that one."""
    forecast_steps: int | None = None
    """Steps that fit into `max_seconds`, once that is known."""
    forecast_at_step: int = 0
    """The step after which that was forecast."""
    forecast_at_seconds: float = 0.0
    """The run's seconds then."""
    norms: tuple[float, ...] = ()
    """Norms of the gradients of the last steps that moved the weights, oldest first."""

    def after_step(
        self, *, tokens: int, seconds: float, skipped: bool, is_fault: bool, norm: float = math.nan
    ) -> "Progress":
        """One step further.

        Args:
            tokens: Target tokens of the step.
            seconds: Seconds of the run so far.
            skipped: Whether the weights stayed as they were.
            is_fault: Whether that is a sign of divergence.
            norm: Norm of the gradient, remembered when the weights moved.
        """
        return replace(
            self,
            step=self.step + 1,
            tokens=self.tokens + tokens,
            seconds=seconds,
            skipped=self.skipped + skipped,
            faults_in_a_row=self.faults_in_a_row + is_fault if skipped else 0,
            norms=self.norms if skipped else (*self.norms, norm)[-NORMS_KEPT:],
        )

    def norm_limit(self, config: TrainConfig) -> float:
        """Norm above which a gradient is a spike; infinite while too few steps are known.

        It is `spike_factor` times the median of the last norms, but never below so many times `grad_clip` (1 without
        clipping): a model that has learnt its text by heart has gradients near zero, and the first sentence that it
        does not know is no fault. Longer ones than `grad_clip` are scaled down in any case, so a gradient is only
        thrown away when even its direction is worth nothing.

        Example:
            >>> Progress(norms=(0.5,) * 32).norm_limit(TrainConfig(spike_factor=100, grad_clip=0.1))
            50.0
        """
        if not config.spike_factor or len(self.norms) < NORMS_NEEDED:
            return math.inf
        return config.spike_factor * max(sorted(self.norms)[len(self.norms) // 2], config.grad_clip or 1.0)

    def after_evaluation(self, loss: float) -> "Progress":
        """With an evaluation counted; it is the best so far when `best_step` is then `step`."""
        if math.isfinite(loss) and (self.best_loss is None or loss < self.best_loss):
            return replace(self, best_loss=loss, best_step=self.step, evaluations_since_best=0)
        return replace(self, evaluations_since_best=self.evaluations_since_best + 1)

    def with_forecast(self, max_seconds: float, step_seconds: Sequence[float]) -> "Progress":
        """With the number of steps that fit into `max_seconds`, where it is time to forecast it.

        First when enough steps have been measured or half of the time is gone, from their median: the first ones are
        slow. Then at each of `FORECASTS_AT`, from all seconds since the forecast before, evaluations, samples and
        saves included.

        Args:
            max_seconds: Seconds of the whole run.
            step_seconds: Seconds of each step measured in this session.

        Example:
            >>> Progress(step=20, seconds=20.0).with_forecast(1000.0, [1.0] * 20).forecast_steps
            1000
        """
        if self.forecast_steps is None:
            if len(step_seconds) < FORECAST_STEPS and self.seconds < max_seconds / 2:
                return self
            return self.forecast(max_seconds, sorted(step_seconds)[(len(step_seconds) - 1) // 2])
        passed, steps = self.seconds - self.forecast_at_seconds, self.step - self.forecast_at_step
        shares = (self.forecast_at_seconds / max_seconds, self.seconds / max_seconds)
        is_due = bisect(FORECASTS_AT, shares[1]) > bisect(FORECASTS_AT, shares[0])
        if not is_due or (steps < FORECAST_STEPS and passed < max_seconds / 10):
            return self
        return self.forecast(max_seconds, passed / steps)

    def forecast(self, max_seconds: float, seconds_per_step: float) -> "Progress":
        """With the number of steps that fit into `max_seconds` at this speed."""
        steps = self.step + max(0, int((max_seconds - self.seconds) / max(seconds_per_step, 1e-9)))
        return replace(self, forecast_steps=steps, forecast_at_step=self.step, forecast_at_seconds=self.seconds)

    def limit_reached(self, config: TrainConfig, total_steps: int | None) -> str | None:
        """Why the run is at its end: steps, patience or seconds; None when it is not."""
        if total_steps is not None and self.step >= total_steps:
            return "steps"
        if config.patience is not None and self.evaluations_since_best >= config.patience:
            return "patience"
        # A forecast is kept until the next, however long its steps take: the schedule of a continued run hangs on it.
        if config.max_seconds is not None and total_steps is not None and self.forecast_steps is None:
            return "seconds" if self.seconds >= config.max_seconds else None
        return None


def planned_steps(config: TrainConfig, *, n_windows: int, tokens_per_window: float) -> int | None:
    """Steps after which the first limit is reached that can be counted in steps; None when there is none such.

    Args:
        config: The limits; with no limit of any kind a run takes 2000 steps.
        n_windows: Windows in an epoch.
        tokens_per_window: Mean number of target tokens in a window.

    Example:
        >>> planned_steps(TrainConfig(epochs=2, batch_size=10), n_windows=101, tokens_per_window=256)
        21
    """
    if all(getattr(config, name) is None for name in LIMITS):
        return DEFAULT_STEPS
    limits = [] if config.max_steps is None else [config.max_steps]
    if config.epochs is not None:
        limits.append(math.ceil(config.epochs * n_windows / config.windows_per_step))
    if config.max_tokens is not None:
        limits.append(math.ceil(config.max_tokens / (tokens_per_window * config.windows_per_step)))
    return min(limits, default=None)
