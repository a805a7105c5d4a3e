"""What training tells: one `StepReport` an optimiser step, one `TrainResult` at the end."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinygpt.chart import Chart
from tinygpt.curves import Curves
from tinygpt.evaluation import Evaluation
from tinygpt.forecast import count, duration
from tinygpt.runcharts import run_charts
from tinygpt.svgchart import figure
from tinygpt.tokenview import table

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """What one optimiser step did."""

    step: int
    """Optimiser steps taken, this one included."""
    total_steps: int | None
    """Steps of the whole run, where known already."""
    loss: float
    """Mean over the step's target tokens, nats."""
    learning_rate: float
    """Rate of this step."""
    grad_norm: float
    """Norm of the gradient before clipping."""
    tokens: int
    """Target tokens trained on so far."""
    tokens_per_second: float
    """Target tokens of this step by the seconds of the whole step: reading the batch, passes, optimiser."""
    seconds: float
    """Seconds that the run has taken so far, over all its sessions."""
    seconds_left: float | None = None
    """Seconds to the end at this session's pace, evaluations and saves included; none before two steps, or the end."""
    gemm_fraction: float | None = None
    """Useful operations a second (`GPTConfig.flops_per_token`) by the measured peak of matrix products, where known."""
    memory_bytes: int | None = None
    """Memory held after this step: of the device on CUDA, else of the process (RSS)."""
    peak_memory_bytes: int | None = None
    """Most memory held so far, likewise."""
    skipped: bool = False
    """Whether loss or gradient was not finite, or the gradient a spike, so that the weights stayed as they were."""
    evaluation: Evaluation | None = None
    """Measured on the validation data after this step, when due."""
    evaluation_train: Evaluation | None = None
    """Measured on training data after this step, when due: the first windows of the order, the same each time."""
    sample: str | None = None
    """Text written after this step, when due, without the prompt."""
    saved: Path | None = None
    """The checkpoint written after this step, when due."""

    def __str__(self) -> str:
        """The report as one line, with the validation result when there is one."""
        loss = f"loss {self.loss:.4f}"
        if self.skipped:
            is_spike = math.isfinite(self.loss) and math.isfinite(self.grad_norm)
            loss = f"skipped: {f'gradient norm {self.grad_norm:.3g}' if is_spike else 'loss or gradient not finite'}"
        line = f"step {self.step}{f'/{self.total_steps}' if self.total_steps else ''}, {loss}"
        line += f", lr {self.learning_rate:.2e}, {self.tokens_per_second:,.0f} tokens/s"
        if self.gemm_fraction is not None:
            line += f" ({100 * self.gemm_fraction:.0f} % of peak)"
        if self.seconds_left is not None:
            minutes, seconds = divmod(round(self.seconds_left), 60)
            line += f", {minutes // 60}:{minutes % 60:02d}:{seconds:02d} left"
        if self.evaluation is not None:
            line += f", validation {self.evaluation.loss:.4f} nats, perplexity {self.evaluation.perplexity:.2f}"
            if self.evaluation.bits_per_byte is not None:
                line += f", {self.evaluation.bits_per_byte:.4f} bits per byte"
        if self.evaluation_train is not None:
            line += f", train {self.evaluation_train.loss:.4f} nats"
        return line


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a run ended."""

    step: int
    """Optimiser steps taken."""
    tokens: int
    """Target tokens trained on."""
    seconds: float
    """Seconds that the run took, over all its sessions."""
    reason: str
    """Why it ended: steps, seconds, patience, or what `Trainer.stop` was given."""
    loss: float | None
    """Loss of the last step, nats per token; none when this call took no step."""
    evaluation: Evaluation | None
    """The last evaluation of this call, on validation data."""
    evaluation_train: Evaluation | None
    """The same on training data."""
    best_loss: float | None
    """Lowest validation loss, nats per token."""
    best_step: int | None
    """The step it was measured at."""
    skipped: int
    """Steps skipped because loss or gradient was not finite, or the gradient a spike."""
    folder: Path | None
    """The run's folder."""

    def plot(self) -> "NDArray[Any]":
        """Draws what was measured with matplotlib, and returns the axes, one for each chart.

        Raises:
            ValueError: The run has no folder, so nothing was kept; or nothing is measured yet.
            ImportError: matplotlib is not installed.
        """
        from tinygpt.runplot import plot  # with matplotlib, which nothing else here needs

        return plot(self._charts())

    def _repr_html_(self) -> str:
        rows = {"ended": f"step {self.step:,} ({self.reason}), after {duration(self.seconds)}"}
        rows["trained on"] = f"{count(self.tokens)} tokens"
        if self.best_loss is not None:
            rows["best validation loss"] = f"{self.best_loss:.4f} nats per token, step {self.best_step:,}"
        for name, found in (("validation", self.evaluation), ("training", self.evaluation_train)):
            if found is not None:
                bits = "" if found.bits_per_byte is None else f", {found.bits_per_byte:.4f} bits per byte"
                rows[f"last on {name} data"] = f"{found.loss:.4f} nats per token{bits}"
        if self.skipped:
            rows["steps skipped"] = f"{self.skipped:,}"
        rows |= {} if self.folder is None else {"folder": str(self.folder)}
        drawn = [] if self.folder is None else self._charts()[:2]
        figures = "".join(f'<div style="width:24em">{figure(each)}</div>' for each in drawn)
        return f'{table("TrainResult", rows)}<div style="display:flex;flex-wrap:wrap;gap:1em">{figures}</div>'

    def _charts(self) -> list[Chart]:
        if self.folder is None:
            raise ValueError("the run has no folder, so its measurements were not kept; give the trainer folder=")
        curves = Curves()
        curves.read_on(self.folder / "metrics.jsonl")
        return run_charts(curves)


def metrics_line(report: StepReport, *, epoch: float) -> dict[str, Any]:
    """A report as it stands in metrics.jsonl: what a repeated run repeats, and under "resources" what it does not.

    Args:
        report: The report.
        epoch: Passes over the training data so far.
    """
    line: dict[str, Any] = {"step": report.step, "epoch": epoch}
    line |= {key: getattr(report, key) for key in ("tokens", "loss", "learning_rate", "grad_norm", "skipped")}
    for key in ("evaluation", "evaluation_train"):
        if (evaluation := getattr(report, key)) is not None:
            line[key] = {name: _or_none(value) for name, value in asdict(evaluation).items()}
    if report.sample is not None:
        line["sample"] = report.sample
    of_the_machine = ["seconds", "tokens_per_second", "gemm_fraction", "memory_bytes", "peak_memory_bytes"]
    line["resources"] = {key: getattr(report, key) for key in of_the_machine}
    return {key: _or_none(value) for key, value in line.items()}


def _or_none(value: Any) -> Any:
    """JSON knows no infinity and no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
