"""Trainer: `steps()` yields one report per optimiser step; evaluates, saves and continues as `TrainConfig` says.

A run is a function of (model, data, `TrainConfig`, engine): step k takes batch k and draws its dropout from the
run's own random stream, so a run that was killed and continued ends, on the same machine and thread count, with the
same bits.
"""

import math
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from tinygpt import lineage, runfolder
from tinygpt.anydataset import AnyDataset
from tinygpt.anytokenizer import AnyTokenizer
from tinygpt.checkpoint import Checkpoint, TrainingState
from tinygpt.display import Display
from tinygpt.engine import Engine, choose_engine, environment
from tinygpt.evaluation import Evaluation, evaluate
from tinygpt.learner import Learner
from tinygpt.metrics import NO_ROOM, MetricsLog
from tinygpt.model import GPT, GPTConfig
from tinygpt.optim import learning_rate
from tinygpt.progress import Progress, planned_steps
from tinygpt.report import StepReport as StepReport
from tinygpt.report import TrainResult as TrainResult
from tinygpt.report import metrics_line
from tinygpt.staging import lock_folder, sweep
from tinygpt.trainconfig import CHANGEABLE, ENGINE, LIMITS
from tinygpt.trainconfig import TrainConfig as TrainConfig

MOST_FAULTS = 3  # in a row: steps without a finite loss or gradient, saves without room on the disk
SAMPLE_TOKENS = 100
_UNKNOWN_STEPS = 1 << 40  # while the length of a run is being forecast, its learning rate is that of an endless one


class Trainer:
    """Trains a model on the windows of a dataset.

    Args:
        model: Trained in place, and moved to the engine's device.
        train: Training data of the model's vocabulary and block size.
        val: Validation data; without them there is no evaluation and no best checkpoint.
        config: How to train.
        folder: The run's folder, for checkpoints and metrics.jsonl; None keeps nothing.
        tokenizer: Saved with the model and used for samples; None takes the tokenizer.json beside the shards, if any.

    Raises:
        ValueError: Model, data and tokenizer do not belong together, or this machine cannot do what `config` asks.
        FileExistsError: `folder` holds checkpoints already; `resume` continues them.

    Example:
        >>> from tinygpt.dataset import TokenDataset
        >>> data = TokenDataset.from_tokens(range(90), vocab_size=90, block_size=8)
        >>> model = GPT(GPTConfig(vocab_size=90, block_size=8, n_layer=1, n_head=2, d_model=16))
        >>> trainer = Trainer(model, data, config=TrainConfig(max_steps=2000, batch_size=4))
        >>> for report in trainer.steps():
        ...     if report.tokens >= 96:
        ...         break
        >>> trainer.step
        3
    """

    def __init__(
        self,
        model: GPT,
        train: AnyDataset,
        val: AnyDataset | None = None,
        config: TrainConfig | None = None,
        *,
        folder: str | Path | None = None,
        tokenizer: AnyTokenizer | None = None,
    ) -> None:
        self.config = config or TrainConfig()
        self.train, self.val = train, val
        self.tokenizer = lineage.tokenizer_beside(train) if tokenizer is None else tokenizer
        lineage.check_kinship(model, train, val, self.tokenizer)
        starts_nowhere = self.tokenizer is not None and self.tokenizer.eot_id is None and not self.config.sample_prompt
        if self.config.sample_every is not None and starts_nowhere:
            raise ValueError(
                "sample_prompt must hold a character: this tokenizer has no document separator to start at"
            )
        self.folder = None if folder is None else Path(folder)
        if self.folder is not None and (found := runfolder.steps(self.folder)):
            step = found[-1]
            raise FileExistsError(f"{folder} holds the checkpoint of step {step}; resume it or name another folder")
        if self.folder is not None and (frozen := [n for n, p in model.named_parameters() if not p.requires_grad]):
            raise ValueError(
                f"{frozen[0]} is frozen, and a run with frozen parameters cannot be continued; leave folder out"
            )
        self._token_lengths = None if self.tokenizer is None else self.tokenizer.token_lengths()
        self._progress = self._saved = Progress()
        self._session = (time.perf_counter(), 0.0)  # the clock, and the run's seconds, when this session began
        self._step_seconds: list[float] = []
        self._metrics: MetricsLog | None = None
        self._data_facts: dict[str, Any] = {}
        self._stop_reason: str | None = None
        self._failed_saves = 0
        engine = choose_engine(**{name: getattr(self.config, name) for name in ENGINE})
        self._learner = Learner(model, self.config, engine)

    @classmethod
    def resume(
        cls,
        folder: str | Path,
        *,
        train: AnyDataset | None = None,
        val: AnyDataset | None = None,
        tokenizer: AnyTokenizer | None = None,
        model_config: GPTConfig | None = None,
        **changes: Any,
    ) -> "Trainer":
        """The trainer of a run where its newest whole checkpoint left it, with the engine recorded there.

        Args:
            folder: The run's folder.
            train: The same training data; None opens them where they were.
            val: The same validation data; None opens them where they were.
            tokenizer: The same tokenizer; None takes the checkpoint's.
            model_config: Compared with the checkpoint's, when given.
            **changes: Fields of TrainConfig with new values, of those that `trainconfig.CHANGEABLE` lists.

        Raises:
            FileNotFoundError: There is no whole checkpoint, or the data are not where they were.
            ValueError: Something differs from what the run was trained with; the message lists each old -> new.

        Example:
            >>> result = Trainer.resume("runs/books", max_steps=4000).fit()  # doctest: +SKIP
        """
        run = Path(folder)
        newest = runfolder.newest(run)
        if newest is None:
            raise FileNotFoundError(f"{run}: no whole checkpoint to resume; looked for step-*/ with checksums in it")
        state = TrainingState.load(newest)
        facts = state.facts
        changes = {name: value for name, value in changes.items() if facts["config"].get(name, ...) != value}
        if train is None:
            train = lineage.open_data(facts["data"]["train"], run, "train")
        if val is None and facts["data"]["val"] is not None:
            val = lineage.open_data(facts["data"]["val"], run, "val")
        config = TrainConfig(**{**facts["config"], **changes})
        found = lineage.differences(
            facts,
            run=run,
            data={"train": train, "val": val},
            tokenizer=tokenizer,
            model_config=model_config,
            changes={name: value for name, value in changes.items() if name not in CHANGEABLE},
        )
        if found:
            raise ValueError(f"{run} was trained with other values ({'; '.join(found)}); use them or another folder")
        checkpoint = Checkpoint.load(newest, verify=False)
        trainer = cls(
            checkpoint.model, train, val, config, tokenizer=checkpoint.tokenizer if tokenizer is None else tokenizer
        )
        trainer.folder = run
        trainer._restore(state, changes)
        return trainer

    @property
    def model(self) -> GPT:
        """The model in training."""
        return self._learner.model

    @property
    def engine(self) -> Engine:
        """How a step runs; `engine.configure_process` gives it the process it needs."""
        return self._learner.engine

    @property
    def step(self) -> int:
        """Optimiser steps taken."""
        return self._progress.step

    @property
    def total_steps(self) -> int | None:
        """Steps of the whole run; None while a limit of seconds alone has not been turned into steps yet."""
        per_window = self.train.targets_per_window
        planned = planned_steps(self.config, n_windows=len(self.train), tokens_per_window=per_window)
        return self._progress.forecast_steps if planned is None else planned

    def stop(self, reason: str = "stop") -> None:
        """Ends `steps()` after the step in hand, with a checkpoint; a signal handler may call it."""
        self._stop_reason = reason

    def steps(self) -> Iterator[StepReport]:
        """Trains, one report per optimiser step, until a limit is reached; a loop that is left early saves, too.

        Raises:
            BlockingIOError: Another process trains in the run's folder.
            RuntimeError: Three steps in a row had no finite loss or gradient.
            OSError: The disk was full at three saves in a row, or at the last one.
        """
        if self.engine.device == "cpu" and torch.get_num_threads() != self.engine.threads:
            found, wanted = torch.get_num_threads(), self.engine.threads
            message = (
                f"torch uses {found} threads, this run {wanted}, so its bits will differ; see engine.configure_process"
            )
            warnings.warn(message, RuntimeWarning, stacklevel=2)
        with ExitStack() as stack:
            if self.folder is not None:
                stack.enter_context(lock_folder(self.folder))
                self._metrics = self._open_folder(self.folder)
            self._session = (time.perf_counter(), self._progress.seconds)
            try:
                while self._why_ended() is None:
                    yield self._take_step()
            except GeneratorExit:  # the loop over the steps was left
                self._save_unsaved()
                raise
            self._save_unsaved()

    def fit(self) -> TrainResult:
        """Trains to the end, with a bar on a terminal and plain lines elsewhere; raises as `steps` does."""
        report = evaluation = None
        with Display() as display:
            for report in self.steps():
                evaluation = report.evaluation or evaluation
                status = (
                    f"loss {report.loss:.3f}, lr {report.learning_rate:.1e}, {report.tokens_per_second:,.0f} tokens/s"
                )
                display.advance(report.step, report.total_steps, status)
                if self._is_logged(report):
                    display.line(str(report), above_bar=report.evaluation is not None)
                if report.sample is not None:
                    display.line(f"sample after step {report.step}: {self.config.sample_prompt}{report.sample}\n")
        progress = self._progress
        return TrainResult(
            step=progress.step,
            tokens=progress.tokens,
            seconds=progress.seconds,
            reason=self._why_ended() or "steps",
            loss=report.loss if report else None,
            evaluation=evaluation,
            best_loss=progress.best_loss,
            best_step=progress.best_step,
            skipped=progress.skipped,
            folder=self.folder,
        )

    def _take_step(self) -> StepReport:
        """One optimiser step and all that is due after it."""
        config, started = self.config, time.perf_counter()
        rate = self._learning_rate()
        x, y = self.train.batch(self.step, batch_size=config.windows_per_step, seed=config.seed)  # each (B, T)
        n_tokens = int((y != -100).sum())
        loss, grad_norm = self._learner.learn(x, y, rate)
        seconds = time.perf_counter() - started
        self._advance(loss, grad_norm, n_tokens, seconds)

        is_evaluated = self._is_due("eval_every") or self._limit_reached() is not None
        evaluation = self._evaluate() if is_evaluated else None
        if evaluation is not None:
            self._progress = self._progress.after_evaluation(evaluation.loss)
        is_best = evaluation is not None and self._progress.best_step == self.step
        report = StepReport(
            step=self.step,
            total_steps=self.total_steps,
            loss=loss,
            learning_rate=rate,
            grad_norm=grad_norm,
            tokens=self._progress.tokens,
            tokens_per_second=n_tokens / seconds,
            seconds=self._progress.seconds,
            skipped=not _finite(loss, grad_norm),
            evaluation=evaluation,
            sample=self._sample() if self._is_due("sample_every") else None,
        )
        if self._metrics is not None and self._is_logged(report):
            epoch = self.step * config.windows_per_step / len(self.train)
            self._metrics.append(metrics_line(report, epoch=epoch, peak_memory_bytes=self.engine.peak_memory_bytes()))
        return replace(report, saved=self._save(is_best=is_best) if is_best or self._is_save_due() else None)

    def _advance(self, loss: float, grad_norm: float, n_tokens: int, step_seconds: float) -> None:
        """Counts a step, ends a run that diverges, and forecasts the length of one limited by seconds alone."""
        begun, before = self._session
        skipped = not _finite(loss, grad_norm)
        self._progress = self._progress.after_step(
            tokens=n_tokens,
            seconds=before + time.perf_counter() - begun,
            skipped=skipped,
            is_fault=skipped and not (_finite(loss) and self._learner.is_finding_scale),
        )
        if skipped:
            message = f"step {self.step}: loss {loss} and gradient norm {grad_norm} are not both finite; step skipped"
            warnings.warn(message, RuntimeWarning, stacklevel=4)
        if self._progress.faults_in_a_row >= MOST_FAULTS:
            raise RuntimeError(
                f"training diverged: {MOST_FAULTS} steps up to step {self.step} had no finite loss or gradient; "
                "resume with a lower learning_rate"
            )
        if self.total_steps is None and self.config.max_seconds is not None:
            self._step_seconds.append(step_seconds)
            self._progress = self._progress.with_forecast(self.config.max_seconds, self._step_seconds)

    def _learning_rate(self) -> float:
        total = self.total_steps or _UNKNOWN_STEPS
        return learning_rate(
            self.step,
            schedule=self.config.schedule,
            peak=self.config.learning_rate,
            warmup_steps=min(self.config.warmup_steps, total),
            max_steps=total,
            floor=self.config.learning_rate * self.config.min_lr_fraction,
        )

    def _evaluate(self) -> Evaluation | None:
        if self.val is None:
            return None
        return evaluate(
            self.model,
            self.val,
            batches=self.config.eval_batches,
            batch_size=self.config.eval_batch_size or self.config.batch_size,
            token_lengths=self._token_lengths,
            device=self.engine.device,
            autocast=self.engine.autocast,
        )

    def _sample(self) -> str | None:
        if self.tokenizer is None:
            return None
        self.model.eval()
        seed, prompt = self.config.seed + self.step, self.config.sample_prompt
        checkpoint = Checkpoint(self.model, self.tokenizer)
        return checkpoint.generate(prompt, max_new_tokens=SAMPLE_TOKENS, temperature=0.8, seed=seed)

    def _is_due(self, name: str) -> bool:
        every = getattr(self.config, name)
        return every is not None and self.step % every == 0

    def _is_logged(self, report: StepReport) -> bool:
        at_end = self._limit_reached() is not None
        news = report.evaluation or report.sample or report.skipped or report.step == 1
        return bool(news or at_end or self._is_due("log_every"))

    def _is_save_due(self) -> bool:
        if self._why_ended() or self._progress.forecast_steps != self._saved.forecast_steps:
            return True
        if self.config.save_every != "epoch":
            return self._is_due("save_every")
        ends = [step * self.config.windows_per_step // len(self.train) for step in (self.step - 1, self.step)]
        return ends[0] != ends[1]

    def _limit_reached(self) -> str | None:
        return self._progress.limit_reached(self.config, self.total_steps)

    def _why_ended(self) -> str | None:
        return self._limit_reached() or self._stop_reason

    def _restore(self, state: TrainingState, changes: Mapping[str, Any]) -> None:
        """Puts a saved state in place of the fresh one."""
        facts = state.facts
        recorded = {**facts["engine"], "compile": "on" if facts["engine"]["compile"] else "off"}
        engine = choose_engine(**{**recorded, **{name: value for name, value in changes.items() if name in ENGINE}})
        self._learner = Learner(self.model, self.config, engine)
        self._learner.restore(state.tensors, facts["scaler"])
        self._progress = self._saved = Progress(**facts["progress"])
        if any(name in changes for name in LIMITS):
            self._progress = replace(self._progress, forecast_steps=None)

    def _state(self) -> TrainingState:
        """All that `_restore` needs."""
        return TrainingState(
            facts={
                "step": self.step,
                "progress": asdict(self._progress),
                "model": asdict(self.model.config),
                "config": asdict(self.config),
                "engine": asdict(self.engine),
                "data": self._data_facts,
                "tokenizer": None if self.tokenizer is None else self.tokenizer.fingerprint,
                "scaler": self._learner.scaler_state,
                "environment": environment(self.engine),
            },
            tensors=self._learner.tensors(),
        )

    def _open_folder(self, folder: Path) -> MetricsLog:
        """Clears what a killed process left, and brings pointers and metrics back to where this run stands."""
        data = {"train": self.train, "val": self.val}
        self._data_facts = {name: lineage.data_facts(dataset, folder) for name, dataset in data.items()}
        sweep(folder)
        metrics = MetricsLog(folder / "metrics.jsonl")
        metrics.cut_back(self.step)
        for name, step in (("last", self._saved.step), ("best", self._saved.best_step)):
            if step and (target := runfolder.step_folder(folder, step)).is_dir():
                runfolder.point(folder, name, target)
        return metrics

    def _save(self, *, is_best: bool) -> Path | None:
        """Writes a checkpoint and moves the pointers; None when the disk has no room, which the next save may find."""
        if self.folder is None or self._metrics is None:
            return None
        path = runfolder.step_folder(self.folder, self.step)
        try:
            self._metrics.flush()
            Checkpoint(self.model, self.tokenizer).save(path, state=self._state(), replace=True)
            for name in ("last", "best") if is_best else ("last",):
                runfolder.point(self.folder, name, path)
        except OSError as error:
            self._failed_saves += 1
            if error.errno not in NO_ROOM or self._why_ended() or self._failed_saves >= MOST_FAULTS:
                raise
            message = f"{path}: not saved, no room on the disk; the old checkpoints stay, the next save tries again"
            warnings.warn(message, RuntimeWarning, stacklevel=3)
            if is_best:  # a best that is not on the disk would keep later ones off it
                old = self._saved
                self._progress = replace(self._progress, best_loss=old.best_loss, best_step=old.best_step)
            return None
        self._failed_saves, self._saved = 0, self._progress
        runfolder.prune(self.folder, self.config.keep)
        return path

    def _save_unsaved(self) -> None:
        if self.step > self._saved.step:
            self._save(is_best=False)


def _finite(*numbers: float) -> bool:
    return all(map(math.isfinite, numbers))
