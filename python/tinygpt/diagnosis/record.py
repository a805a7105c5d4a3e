"""Record: what a run's folder tells of its course, read and not judged."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import torch

from tinygpt import runfolder
from tinygpt._core import FormatError
from tinygpt.metrics import read_metrics
from tinygpt.model import GPT
from tinygpt.modelconfig import GPTConfig
from tinygpt.optionfile import entries
from tinygpt.progress import Progress, planned_steps
from tinygpt.trainconfig import TrainConfig
from tinygpt.trainingstate import read_facts
from tinygpt.values import convert

# A model that has learnt nothing starts at ln(vocabulary); one that is a nat below knew something before.
KNOWN_BEFORE_NATS = 1.0
_Config = TypeVar("_Config", GPTConfig, TrainConfig)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """An evaluation of a run."""

    step: int
    """Steps taken before it."""
    epoch: float
    """Passes over the training data before it."""
    loss: float
    """On validation data, nats per token."""
    train_loss: float | None
    """On training data; None where not measured."""
    bits_per_byte: float | None
    """On validation data; None where the lengths of tokens are unknown."""
    n_tokens: int
    """Targets of validation data that were counted."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """The course of a run: its settings, and what it logged."""

    folder: Path
    """The run."""
    lines: Sequence[Mapping[str, Any]]
    """The objects of metrics.jsonl, at least one."""
    shape: GPTConfig
    """The model."""
    config: TrainConfig
    """How it is trained."""
    facts: Mapping[str, Any] | None = None
    """The newest checkpoint's trainer.json; None before the first save."""
    starts_trained: bool | None = None
    """Whether it began with a trained model's weights; None where nothing says so."""

    @property
    def step(self) -> int:
        """The last step that was logged."""
        return int(self.lines[-1]["step"])

    @property
    def tokens(self) -> int:
        """Target tokens trained on."""
        return int(self.lines[-1].get("tokens") or 0)

    @property
    def epochs(self) -> float:
        """Passes over the training data."""
        return float(self.lines[-1].get("epoch") or 0.0)

    @property
    def first_loss(self) -> float | None:
        """Loss of the first step, infinite where it was not finite; None where its line is gone."""
        return _number(self.lines[0].get("loss")) if self.lines[0]["step"] == 1 else None

    @property
    def is_fine_tuned(self) -> bool:
        """Whether it began with a trained model; where nothing says so, its first loss does."""
        if self.starts_trained is not None or self.first_loss is None:
            return bool(self.starts_trained)
        return self.first_loss < math.log(self.shape.vocab_size) - KNOWN_BEFORE_NATS

    @cached_property
    def n_parameters(self) -> int:
        """Parameters of the model."""
        with torch.device("meta"):
            return GPT(self.shape).n_parameters

    @property
    def losses(self) -> list[tuple[int, float]]:
        """Step and training loss of each logged step that moved the weights."""
        return [
            (line["step"], line["loss"])
            for line in self.lines
            if not line.get("skipped") and isinstance(line.get("loss"), int | float)
        ]

    @property
    def skipped(self) -> list[int]:
        """The steps that were skipped, but for those by which float16 finds the scale of its loss."""
        return [line["step"] for line in self.lines if line.get("skipped") and not self._finds_scale(line)]

    def _finds_scale(self, line: Mapping[str, Any]) -> bool:
        dtype = ((self.facts or {}).get("engine") or {}).get("dtype", self.config.dtype)
        return dtype == "float16" and line.get("loss") is not None and line.get("grad_norm") is None

    @cached_property
    def evaluations(self) -> list[Measured]:
        """The evaluations on validation data; one that was not finite has an infinite loss."""
        found = [line for line in self.lines if isinstance(line.get("evaluation"), Mapping)]
        return [_measured(line) for line in found]

    @property
    def windows(self) -> int | None:
        """Windows in an epoch, to within rounding; None where the metrics do not say."""
        seen = self.step * self.config.windows_per_step
        return round(seen / self.epochs) if self.epochs > 0 else None

    @property
    def target_share(self) -> float:
        """Of the tokens that a step computes on: those that count."""
        return self.tokens / (self.step * self.config.windows_per_step * self.shape.block_size)

    @property
    def total_steps(self) -> int | None:
        """Steps of the whole run, where known."""
        if self.windows is None or not self.tokens:
            return self.config.max_steps
        each = self.tokens / (self.step * self.config.windows_per_step)
        planned = planned_steps(self.config, n_windows=self.windows, tokens_per_window=each)
        return self._progress.forecast_steps if planned is None else planned

    @property
    def is_ended(self) -> bool:
        """Whether it reached a limit that it was given; not where it was stopped, or is still going on."""
        if self.total_steps is not None and self.step >= self.total_steps:
            return True
        return (
            self._progress.step == self.step and self._progress.limit_reached(self.config, self.total_steps) is not None
        )

    @cached_property
    def _progress(self) -> Progress:
        found = dict((self.facts or {}).get("progress") or {})
        return Progress(**{**found, "norms": tuple(found.get("norms", ()))})

    def after(self, step: int) -> list[Measured]:
        """The evaluations after a step."""
        return [each for each in self.evaluations if each.step > step]


def read_record(path: str | Path, *, lines: Sequence[Mapping[str, Any]] | None = None) -> Record:
    """The record of a run, or of its course up to a checkpoint of it.

    Args:
        path: The run's folder, or a checkpoint in it.
        lines: The objects of its metrics.jsonl, where they have been read.

    Raises:
        FileNotFoundError: There is no such folder, or no metrics in it.
        FormatError: The metrics, the settings or the checkpoints cannot be read.
        ValueError: There is nothing yet to judge.
    """
    run, step = runfolder.run_and_step(Path(path))
    if not run.is_dir():
        raise FileNotFoundError(f"{run}: no such folder; name a run's, as `tinygpt train` writes it")
    metrics = run / "metrics.jsonl"
    if not metrics.is_file():
        raise FileNotFoundError(f"{run}: no metrics.jsonl in it, so no run; name a run's folder")
    lines = read_metrics(metrics) if lines is None else lines
    lines = [line for line in lines if step is None or line["step"] <= step]
    if not lines:
        raise FormatError(f"{metrics}: no whole line in it; a run has one after its first step")
    facts = _facts(run, step)
    settings = run / "config.yaml"
    if facts is None and not settings.is_file():
        raise ValueError(
            f"{run}: no checkpoint and no config.yaml in it, so its settings are unknown; ask after its first save"
        )
    known = {} if not settings.is_file() else {key: value for key, value, _ in entries(settings)}
    return Record(
        folder=run,
        lines=lines,
        shape=_from_file(GPTConfig, known, settings) if facts is None else _from_facts(GPTConfig, facts, "model", run),
        config=_from_file(TrainConfig, known, settings)
        if facts is None
        else _from_facts(TrainConfig, facts, "config", run),
        facts=facts,
        starts_trained=None if not known else known.get("init_from") is not None,
    )


def _facts(run: Path, step: int | None) -> dict[str, Any] | None:
    """The facts of a checkpoint, or of the newest one whose facts can be read; None before the first save."""
    if step is not None:
        return read_facts(runfolder.step_folder(run, step))
    found = None
    for each in reversed(runfolder.steps(run)):
        try:
            return read_facts(runfolder.step_folder(run, each))
        except (FormatError, OSError) as error:
            found = found or error
    if found is not None and not (run / "config.yaml").is_file():
        raise found
    return None


def _from_file(cls: type[_Config], known: Mapping[str, Any], path: Path) -> _Config:
    hints = get_type_hints(cls)
    return cls(**{key: convert(value, hints[key], f"{path}: {key}") for key, value in known.items() if key in hints})


def _from_facts(cls: type[_Config], facts: Mapping[str, Any], key: str, run: Path) -> _Config:
    try:
        return cls(**facts[key])
    except (KeyError, TypeError) as error:
        raise FormatError(
            f"{run}: its checkpoint is of another version ({key}: {error}); go on with that one"
        ) from None


def _measured(line: Mapping[str, Any]) -> Measured:
    found, train = line["evaluation"], line.get("evaluation_train")
    return Measured(
        step=line["step"],
        epoch=float(line.get("epoch") or 0.0),
        loss=_number(found.get("loss")),
        train_loss=_number(train.get("loss")) if isinstance(train, Mapping) else None,
        bits_per_byte=found.get("bits_per_byte"),
        n_tokens=int(found.get("n_tokens") or 0),
    )


def _number(value: Any) -> float:
    """A number of a metrics file, which has null for one that is not finite."""
    return float(value) if isinstance(value, int | float) else math.inf
