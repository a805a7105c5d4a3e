"""Trainer: `steps()` yields one report per optimiser step; evaluates, saves and continues as `TrainConfig` says.

A run is a function of (model, data, `TrainConfig`, engine): step k takes batch k and draws its dropout from the
run's own random stream, so a run that was killed and continued ends, on the same machine and thread count, with the
same bits.
"""

import errno
import math
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from tinygpt import lineage, runfolder, sessions
from tinygpt.anydataset import AnyDataset
from tinygpt.anytokenizer import AnyTokenizer
from tinygpt.chattemplate import knows_chats
from tinygpt.checkpoint import Checkpoint
from tinygpt.crossentropy import IGNORED
from tinygpt.diagnosis import course_findings
from tinygpt.diskroom import DiskRoom, disk_room
from tinygpt.display import Display
from tinygpt.distributed import Ranks
from tinygpt.engine import Engine, environment, settle
from tinygpt.evaluation import Evaluation, evaluate
from tinygpt.forecast import Forecast
from tinygpt.learner import Learner
from tinygpt.measurement import processor
from tinygpt.metrics import NO_ROOM, MetricsLog
from tinygpt.model import GPT, GPTConfig
from tinygpt.optim import learning_rate, state_size
from tinygpt.probe import choose, with_room
from tinygpt.progress import Progress, planned_steps
from tinygpt.runreport import LiveReport
from tinygpt.staging import lock_folder, sweep
from tinygpt.stepreport import StepReport as StepReport
from tinygpt.stepreport import TrainResult as TrainResult
from tinygpt.stepreport import metrics_line
from tinygpt.trackers import Trackers, check_packages
from tinygpt.trainconfig import CHANGEABLE, ENGINE, LIMITS, MEASURED
from tinygpt.trainconfig import TrainConfig as TrainConfig
from tinygpt.trainingstate import TrainingState

MOST_FAULTS = 3  # in a row: steps skipped, saves without room on the disk
SAMPLE_TOKENS = 100
# How ranks tell each other why they stop; any other reason is 1000 and "stop" to those who did not have it.
_STOPS: dict[str | None, int] = {None: 0, **{name: int(number) for name, number in signal.Signals.__members__.items()}}
_UNKNOWN_STEPS = 1 << 40  # while the length of a run is being forecast, its learning rate is that of an endless one


class Trainer:
    """Trains a model on the windows of a dataset.

    Args:
        model: Trained in place, and moved to the engine's device.
        train: Training data of the model's vocabulary and block size.
        val: Validation data; without them there is no evaluation and no best checkpoint.
        config: How to train.
        folder: The run's folder, for checkpoints, metrics.jsonl and metrics.csv; None keeps nothing.
        tokenizer: Saved with the model and used for samples; None takes the tokenizer.json beside the shards, if any.
        ranks: The processes that train together; each makes a Trainer of the same arguments inside `ranks.joined()`.
            The first one alone writes. None is a process alone.
        engine: How a step runs; None chooses, and measures for that if the run is long enough to gain by it and
            the process is alone.
        say: Called with a line for each candidate that is measured.

    Raises:
        ValueError: Model, data and tokenizer do not belong together, this machine cannot do what `config` asks, or
            the ranks cannot share a step's windows equally.
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
        ranks: Ranks | None = None,
        engine: Engine | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.config = config or TrainConfig()
        check_packages(tensorboard=self.config.tensorboard, wandb=self.config.wandb)
        self.ranks = ranks or Ranks()
        self.ranks.check_share(self.config.windows_per_step)
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
        self._pace: tuple[float, int] | None = None  # the clock and the step after the first step of this session
        self._step_seconds: list[float] = []
        self._metrics: MetricsLog | None = None
        self._trackers: Trackers | None = None
        self._data_facts: dict[str, Any] = {}
        self._asked_to_stop: str | None = None  # of this rank, at any moment
        self._stop_reason: str | None = None  # of all ranks, since they last agreed
        self._ended_by: str | None = None  # the reason of the stop that ended the last `steps()`
        self._failed_saves = 0
        self._is_locked = self._goes_back = False
        self._later: frozenset[int] = frozenset()  # checkpoints after this one that were there when it was loaded
        self.command: str | None = None
        """The command line that trains, for the record of the run; None from Python."""
        self.changed: tuple[str, ...] = ()
        """What `resume` changed in the settings, each as "name: old -> new"."""
        self._learner = Learner(model, self.config, engine or self._chosen_engine(model, say), self.ranks)

    @classmethod
    def resume(
        cls,
        folder: str | Path,
        *,
        train: AnyDataset | None = None,
        val: AnyDataset | None = None,
        tokenizer: AnyTokenizer | None = None,
        model_config: GPTConfig | None = None,
        ranks: Ranks | None = None,
        **changes: Any,
    ) -> "Trainer":
        """The trainer of a run where a checkpoint left it, with the engine recorded there.

        Args:
            folder: The run's folder, for its newest whole checkpoint; or a checkpoint in it, by name or as best or
                last. Those after it are then set aside, in a folder `aside-N` of the run, when training goes on.
            train: The same training data; None opens them where they were.
            val: The same validation data; None opens them where they were.
            tokenizer: The same tokenizer; None takes the checkpoint's.
            model_config: Compared with the checkpoint's, when given.
            ranks: As for the class; not necessarily as many as before.
            **changes: Fields of TrainConfig with new values, of those that `trainconfig.CHANGEABLE` lists.

        Raises:
            FileNotFoundError: There is no whole checkpoint, or the data are not where they were.
            FormatError: The checkpoint that was named is damaged.
            ValueError: Something differs from what the run was trained with; the message lists each old -> new.

        Example:
            >>> result = Trainer.resume("runs/books", max_steps=4000).fit()  # doctest: +SKIP
        """
        run, step = runfolder.run_and_step(Path(folder))
        source = runfolder.newest(run) if step is None else runfolder.step_folder(run, step)
        if source is None:
            raise FileNotFoundError(f"{run}: no whole checkpoint to resume; looked for step-*/ with checksums in it")
        if step is not None:
            runfolder.verify(source)
        state = TrainingState.load(source)
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
        checkpoint = Checkpoint.load(source, verify=False)
        trainer = cls(
            checkpoint.model,
            train,
            val,
            config,
            tokenizer=checkpoint.tokenizer if tokenizer is None else tokenizer,
            ranks=ranks,
            engine=_engine_again(facts, config, changes, ranks or Ranks()),
        )
        trainer.folder, trainer._goes_back = run, step is not None
        trainer._restore(state, changes)
        trainer._later = frozenset(each for each in runfolder.steps(run) if each > trainer.step)
        trainer.changed = tuple(f"{name}: {facts['config'].get(name)} -> {value}" for name, value in changes.items())
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
        return self._total_steps(self._progress)

    def _total_steps(self, progress: Progress) -> int | None:
        planned = planned_steps(self.config, n_windows=len(self.train), tokens_per_window=self._tokens_per_window)
        return min((n for n in (planned, progress.forecast_steps) if n is not None), default=None)

    @property
    def is_chat(self) -> bool:
        """Whether nothing but answers in chats is learnt, so that a sample answers its prompt."""
        return self.tokenizer is not None and self.train.has_targets and knows_chats(self.tokenizer.special_tokens)

    @property
    def _tokens_per_window(self) -> float:
        return self.train.targets_per_window

    @property
    def forecast(self) -> Forecast:
        """What lies before the run, as far as its engine has measured this machine."""
        config, total = self.config, self.total_steps
        return Forecast(
            steps=None if total is None else max(0, total - self.step),
            tokens_per_step=round(self._tokens_per_window * config.windows_per_step),
            target_share=self._tokens_per_window / self.train.block_size,
            tokens_per_second=self.engine.tokens_per_second,
            memory_bytes=self.engine.memory_bytes,
            max_seconds=None if config.max_seconds is None else max(0.0, config.max_seconds - self._progress.seconds),
        )

    @property
    def disk_room(self) -> DiskRoom | None:
        """What the run's checkpoints need of the disk; None without a folder."""
        if self.folder is None:
            return None
        n_state = state_size(self.config.optimizer, self.model)
        n_bytes = 4 * (self.model.n_parameters + n_state)
        return disk_room(self.folder, n_bytes=n_bytes, keep=self.config.keep)

    def stop(self, reason: str = "stop") -> None:
        """Ends `steps()` after the step in hand, with a checkpoint; a signal handler may call it.

        Another `steps()` or `fit()` goes on from there.
        """
        self._asked_to_stop = reason

    def check_folder(self) -> None:
        """Returns when this run can go on in its folder; `steps()` asks, too.

        Raises:
            FileExistsError: Another trainer has trained on in it since this one was made.
            OSError: There is no room for one checkpoint.
        """
        if self.folder is None:
            return
        if unknown := {step for step in runfolder.steps(self.folder) if step > self.step} - self._later:
            raise FileExistsError(
                f"{self.folder} holds the checkpoint of step {max(unknown)}, and this trainer stands at {self.step}: "
                "another one has trained in it meanwhile; resume it, or name another folder"
            )
        if (room := self.disk_room) is not None:
            room.check(self.folder)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the run's folder, as `steps()` does by itself: for who writes there before it begins.

        Raises:
            BlockingIOError: Another process, or another trainer, holds it; the message names it.
        """
        if self.folder is None or self._is_locked or not self.ranks.is_first:
            yield
            return
        with lock_folder(self.folder):
            self._is_locked = True
            try:
                yield
            finally:
                self._is_locked = False

    def steps(self) -> Iterator[StepReport]:
        """Trains, one report per optimiser step, until a limit is reached; a loop that is left early saves, too.

        Raises:
            BlockingIOError: Another process trains in the run's folder.
            FileExistsError: Another process has trained on in it.
            RuntimeError: Three steps in a row had no finite loss or gradient, or a spike for a gradient.
            OSError: The folder cannot be written, or has no room for one checkpoint; or the disk was full at three
                saves in a row, or at the last one.
        """
        if self.engine.device == "cpu" and torch.get_num_threads() != self.engine.threads:
            found, wanted = torch.get_num_threads(), self.engine.threads
            message = (
                f"torch uses {found} threads, this run {wanted}, so its bits will differ; see engine.configure_process"
            )
            warnings.warn(message, RuntimeWarning, stacklevel=2)
        if self.folder is None and (self.config.tensorboard or self.config.wandb):
            raise ValueError("tensorboard and wandb write into the run's folder, and there is none; give folder=")
        with ExitStack() as stack:
            if self.folder is not None and self.ranks.is_first:
                stack.enter_context(self.locked())
                self._open_folder(self.folder, stack)
            self._session, self._pace = (time.perf_counter(), self._progress.seconds), None
            try:
                while self._agreed_end() is None:
                    yield self._take_step()
            except GeneratorExit:  # the loop over the steps was left
                self._save_unsaved()
                raise
            else:
                self._save_unsaved()
            finally:
                self._ended_by, self._stop_reason, self._asked_to_stop = self._stop_reason, None, None

    def fit(self) -> TrainResult:
        """Trains to the end, with a bar on a terminal and plain lines elsewhere; raises as `steps` does."""
        report = evaluation = evaluation_train = None
        page = LiveReport(self.folder if self.ranks.is_first else None, look=course_findings)
        with Display(is_shown=self.ranks.is_first) as display, page:
            for report in self.steps():
                evaluation = report.evaluation or evaluation
                evaluation_train = report.evaluation_train or evaluation_train
                status = (
                    f"loss {report.loss:.3f}, lr {report.learning_rate:.1e}, {report.tokens_per_second:,.0f} tokens/s"
                )
                display.advance(report.step, report.total_steps, status)
                if self._is_logged(report):
                    is_news = report.evaluation is not None or report.evaluation_train is not None
                    display.line(str(report), above_bar=is_news)
                if report.sample is not None:
                    prompt = self.config.sample_prompt + ("\n" if self.is_chat else "")
                    display.line(f"sample after step {report.step}: {prompt}{report.sample}\n")
                if report.saved is not None and self._why_ended() is None:  # the end has a page of its own
                    page.refresh()
        progress = self._progress
        return TrainResult(
            step=progress.step,
            tokens=progress.tokens,
            seconds=progress.seconds,
            reason=self._limit_reached() or self._ended_by or "steps",
            loss=report.loss if report else None,
            evaluation=evaluation,
            evaluation_train=evaluation_train,
            best_loss=progress.best_loss,
            best_step=progress.best_step,
            skipped=progress.skipped,
            folder=self.folder,
        )

    def _take_step(self) -> StepReport:
        """One optimiser step and all that is due after it."""
        config, started = self.config, time.perf_counter()
        rate = self._learning_rate()
        place = {"rank": self.ranks.rank, "world_size": self.ranks.world_size}
        x, y = self.train.batch(self.step, batch_size=config.windows_per_step, seed=config.seed, **place)  # each (B, T)
        n_tokens = int(self.ranks.sum(int((y != IGNORED).sum()))[0])
        norm_limit = self._progress.norm_limit(config)
        loss, grad_norm = self._learner.learn(x, y, rate, norm_limit=norm_limit)
        # One clock for all: what is due by the time is then due on every rank.
        seconds, elapsed = self.ranks.of_first(time.perf_counter() - started, self._seconds())
        fault = _fault(loss, grad_norm, norm_limit)
        self._advance(loss, grad_norm, n_tokens, seconds, elapsed, fault)

        is_evaluated = self._is_due("eval_every") or self._limit_reached() is not None
        evaluation = self._evaluate(self.val) if is_evaluated else None
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
            seconds_left=self._seconds_left(),
            gemm_fraction=self._gemm_fraction(x.numel() / seconds),
            memory_bytes=self.engine.held_memory_bytes(),
            peak_memory_bytes=self.engine.peak_memory_bytes(),
            skipped=fault is not None,
            evaluation=evaluation,
            evaluation_train=self._evaluate(self.train) if is_evaluated and config.eval_train else None,
            sample=self._sample() if self._is_due("sample_every") else None,
        )
        if self._is_logged(report):
            self._log(report)
        return replace(report, saved=self._save(is_best=is_best) if is_best or self._is_save_due() else None)

    def _advance(
        self, loss: float, grad_norm: float, n_tokens: int, step_seconds: float, elapsed: float, fault: str | None
    ) -> None:
        """Counts a step, ends a run that diverges, and forecasts the length of one that seconds may end."""
        is_scales = math.isfinite(loss) and not math.isfinite(grad_norm) and self._learner.is_finding_scale
        self._progress = self._progress.after_step(
            tokens=n_tokens,
            seconds=elapsed,
            skipped=fault is not None,
            is_fault=fault is not None and not is_scales,
            norm=grad_norm,
        )
        if fault is not None:
            warnings.warn(f"step {self.step}: {fault}; step skipped", RuntimeWarning, stacklevel=4)
        if self._progress.faults_in_a_row >= MOST_FAULTS:
            raise RuntimeError(
                f"training diverged: {MOST_FAULTS} steps up to step {self.step} had no finite loss or gradient, or one "
                f"beyond spike_factor {self.config.spike_factor:g}; resume with a lower learning_rate"
            )
        max_seconds = self.config.max_seconds
        if max_seconds is not None:
            if self._progress.forecast_steps is None:
                self._step_seconds.append(step_seconds)
            self._progress = self._progress.with_forecast(max_seconds, self._step_seconds)

    def _seconds(self) -> float:
        """Seconds of the run up to now."""
        begun, before = self._session
        return before + time.perf_counter() - begun

    def _seconds_left(self) -> float | None:
        """Seconds to the end at the pace since the first step of this session, which warms up."""
        now, pace = time.perf_counter(), self._pace
        if pace is None:
            self._pace = now, self.step
        if pace is None or self.total_steps is None or self.step >= self.total_steps:
            return None
        return (now - pace[0]) / (self.step - pace[1]) * (self.total_steps - self.step)

    def _gemm_fraction(self, tokens_per_second: float) -> float | None:
        peak = self.engine.gemm_flops
        return None if peak is None else self.model.config.flops_per_token * tokens_per_second / peak

    def _log(self, report: StepReport) -> None:
        if self._metrics is None or self._trackers is None:
            return
        line = metrics_line(report, epoch=self.step * self.config.windows_per_step / len(self.train))
        self._metrics.append(line)
        self._trackers.append(line)

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

    def _evaluate(self, data: AnyDataset | None) -> Evaluation | None:
        if data is None:
            return None
        # Without gradients a block is another program: to compile it, too, takes longer and more memory than it saves.
        with self.engine.products(), torch.compiler.set_stance("force_eager" if self.engine.compile else "default"):
            return evaluate(
                self._learner.refresh(),
                data,
                batches=self.config.eval_batches,
                batch_size=self.config.eval_batch_size or self.config.batch_size,
                token_lengths=self._token_lengths,
                device=self.engine.device,
                ranks=self.ranks,
                at_once=self.engine.micro_batch or self.config.batch_size,
            )

    def _sample(self) -> str | None:
        if self.tokenizer is None or (model := self._learner.whole_model()) is None:
            return None
        model.eval()
        seed, prompt = self.config.seed + self.step, self.config.sample_prompt
        checkpoint = Checkpoint(model, self.tokenizer)
        return checkpoint.generate(prompt, chat=self.is_chat, max_new_tokens=SAMPLE_TOKENS, temperature=0.8, seed=seed)

    def _is_due(self, name: str) -> bool:
        every = getattr(self.config, name)
        return every is not None and self.step % every == 0

    def _is_logged(self, report: StepReport) -> bool:
        at_end = self._limit_reached() is not None
        news = report.evaluation or report.evaluation_train or report.sample or report.skipped or report.step == 1
        return bool(news or at_end or self._is_due("log_every"))

    def _is_save_due(self) -> bool:
        if self._why_ended() or self.total_steps != self._total_steps(self._saved):
            return True
        if self.config.save_every != "epoch":
            return self._is_due("save_every")
        ends = [step * self.config.windows_per_step // len(self.train) for step in (self.step - 1, self.step)]
        return ends[0] != ends[1]

    def _chosen_engine(self, model: GPT, say: Callable[[str], None] | None) -> Engine:
        """What the run's length makes worth measuring is measured, by a process that is alone."""
        if self.ranks.how != "none":
            if self.config.ram is not None:
                raise ValueError(
                    "ram plans a process that is alone; with several, --micro-batch takes fewer windows at once"
                )
            wanted = {name: getattr(self.config, name) for name in ENGINE}
            return settle(**{**wanted, "threads": self.ranks.threads(self.config.threads)})
        planned = self.total_steps
        n_tokens = math.inf if planned is None else planned * self.config.windows_per_step * self.train.block_size
        return choose(self.config, model.config, n_tokens=n_tokens, say=say)

    def _limit_reached(self) -> str | None:
        return self._progress.limit_reached(self.config, self.total_steps)

    def _why_ended(self) -> str | None:
        return self._limit_reached() or self._stop_reason

    def _agreed_end(self) -> str | None:
        """Why the run is at its end, by the same step on every rank: a signal may have reached only one."""
        number = _STOPS.get(self._asked_to_stop, 1000)
        agreed = self.ranks.largest(number)
        if agreed:
            own = self._asked_to_stop if number == agreed else None
            self._stop_reason = own or next((name for name, n in _STOPS.items() if n == agreed), None) or "stop"
        return self._why_ended()

    def _restore(self, state: TrainingState, changes: Mapping[str, Any]) -> None:
        """Puts a saved state in place of the fresh one."""
        facts = state.facts
        self._learner.restore(state.tensors, facts["scaler"])
        progress = {**facts["progress"], "norms": tuple(facts["progress"].get("norms", ()))}
        self._progress = self._saved = Progress(**progress)
        if any(name in changes for name in LIMITS):
            self._progress = replace(self._progress, forecast_steps=None)
            if self.config.max_seconds is not None and self.step:
                # Of what the run has shown so far: measuring anew would take the rate up to its peak meanwhile.
                speed = self._progress.seconds / self.step
                self._progress = self._progress.forecast(self.config.max_seconds, speed)

    def _state(self) -> TrainingState:
        """All that `_restore` needs, on the first rank; the others must take part."""
        progress = {"step": self.step, "progress": asdict(self._progress)}
        return TrainingState(
            facts={**progress, **self._setting(), "scaler": self._learner.scaler_state},
            tensors=self._learner.tensors(),
        )

    def _setting(self) -> dict[str, Any]:
        """What trains, how, on what and where, as it stands in every checkpoint."""
        return {
            "model": asdict(self.model.config),
            "config": asdict(self.config),
            "engine": asdict(self.engine),
            "data": self._data_facts,
            "tokenizer": None if self.tokenizer is None else self.tokenizer.fingerprint,
            "environment": environment(self.engine),
            "processes": self.ranks.world_size,
        }

    def _recorded(self, folder: Path) -> AbstractContextManager[None]:
        """The record of this session in the run's folder."""
        forecast = self.forecast
        facts = {
            **{"command": self.command, "from_step": self.step, "from_seconds": self._progress.seconds},
            **{"n_parameters": self.model.n_parameters, "processor": processor()},
            "forecast": {**asdict(forecast), "seconds": forecast.seconds},
            **self._setting(),
        }
        return sessions.recorded(folder, facts, self._ending)

    def _ending(self) -> dict[str, Any]:
        """How a session ended, when it has."""
        why = self._limit_reached() or self._ended_by or "the loop over the steps was left"
        return {"step": self.step, "seconds": self._progress.seconds, "reason": why}

    def _open_folder(self, folder: Path, stack: ExitStack) -> None:
        """Clears what a killed process left, and brings pointers and metrics back to where this run stands."""
        data = {"train": self.train, "val": self.val}
        self._data_facts = {name: lineage.data_facts(dataset, folder) for name, dataset in data.items()}
        self.check_folder()
        sweep(folder)
        if (room := self.disk_room) is not None and not room.is_enough:
            message = f"{folder}: {room}; a save that finds no room is tried again, the third in a row ends the run"
            warnings.warn(message, RuntimeWarning, stacklevel=4)
        if self._goes_back and (aside := runfolder.set_aside(folder, self.step)) is not None:
            message = (
                f"{folder}: goes on from step {self.step}; the checkpoints after it are in {aside}, with their metrics"
            )
            warnings.warn(message, RuntimeWarning, stacklevel=4)
            self._later = frozenset()
        self._goes_back = False
        self._bring_back_pointers(folder)
        self._metrics = MetricsLog(folder / "metrics.jsonl")
        logged = self._metrics.cut_back(self.step)
        self._trackers = Trackers(
            folder,
            tensorboard=self.config.tensorboard,
            wandb=self.config.wandb,
            settings={**asdict(self.model.config), **asdict(self.config)},
            step=self.step,
            logged=logged,
        )
        stack.callback(self._trackers.close)
        stack.enter_context(self._recorded(folder))

    def _bring_back_pointers(self, folder: Path) -> None:
        """Makes last and best lead to what they led to at this step; a best that is gone is none."""
        for name, step in (("last", self._saved.step), ("best", self._saved.best_step)):
            if step and (target := runfolder.step_folder(folder, step)).is_dir():
                runfolder.point(folder, name, target)
                continue
            (folder / name).unlink(missing_ok=True)
            if name == "best":  # one that is not on the disk would keep later ones off it
                self._progress = replace(self._progress, best_loss=None, best_step=None)

    def _save(self, *, is_best: bool) -> Path | None:
        """Writes a checkpoint and moves the pointers; None when the disk has no room, which the next save may find."""
        if self.folder is None:
            return None
        path = runfolder.step_folder(self.folder, self.step)
        (elapsed,) = self.ranks.of_first(self._seconds())
        self._progress = replace(self._progress, seconds=elapsed)
        error = self._write(path, self._learner.whole_model(), self._state(), is_best=is_best)
        number = int(self.ranks.of_first(0 if error is None else error.errno or errno.EIO)[0])
        if number:
            error = error or OSError(number, os.strerror(number), str(path))  # what the first rank met
            self._failed_saves += 1
            if error.errno not in NO_ROOM or self._why_ended() or self._failed_saves >= MOST_FAULTS:
                raise error
            message = f"{path}: not saved, no room on the disk; the old checkpoints stay, the next save tries again"
            warnings.warn(message, RuntimeWarning, stacklevel=3)
            if is_best:  # a best that is not on the disk would keep later ones off it
                old = self._saved
                self._progress = replace(self._progress, best_loss=old.best_loss, best_step=old.best_step)
            return None
        self._failed_saves, self._saved = 0, self._progress
        if self.ranks.is_first:
            runfolder.prune(self.folder, self.config.keep)
        return path

    def _write(self, path: Path, model: GPT | None, state: TrainingState, *, is_best: bool) -> OSError | None:
        """The writing part of `_save`, which the first rank does alone; what went wrong, if anything."""
        if model is None or self._metrics is None or self.folder is None:
            return None
        try:
            self._metrics.flush()
            if self._trackers is not None:
                self._trackers.flush()
            Checkpoint(model, self.tokenizer).save(path, state=state, replace=True)
            for name in ("last", "best") if is_best else ("last",):
                runfolder.point(self.folder, name, path)
        except OSError as error:
            return error
        return None

    def _save_unsaved(self) -> None:
        if self.step > self._saved.step:
            self._save(is_best=False)


def _engine_again(facts: Mapping[str, Any], config: TrainConfig, changes: Mapping[str, Any], ranks: Ranks) -> Engine:
    """The engine that a checkpoint records, with what is to change; what is left open again stays as it was chosen."""
    changes = {name: value for name, value in changes.items() if value not in ("auto", None)}
    recorded = {**facts["engine"], "compile": "on" if facts["engine"]["compile"] else "off"}
    is_same = facts.get("processes", 1) == ranks.world_size and not changes.keys() & set(ENGINE)
    if facts.get("processes", 1) != ranks.world_size:
        recorded["threads"] = ranks.threads(facts["config"]["threads"])
    recorded |= {name: value for name, value in changes.items() if name in ENGINE}
    engine = settle(**{name: recorded[name] for name in ENGINE})
    if "ram" in changes:
        if ranks.how != "none" or engine.device != "cpu":
            raise ValueError("ram is for a process that is alone, on the CPU; micro_batch takes fewer windows at once")
        return with_room(config, GPTConfig(**facts["model"]), engine)
    # What was measured holds for what was chosen.
    return replace(engine, **{name: facts["engine"][name] for name in MEASURED}) if is_same else engine


def _fault(loss: float, grad_norm: float, norm_limit: float) -> str | None:
    """Why a step did not move the weights; None where it did."""
    if not (math.isfinite(loss) and math.isfinite(grad_norm)):
        return f"loss {loss} and gradient norm {grad_norm} are not both finite"
    if grad_norm > norm_limit:
        return f"gradient norm {grad_norm:.4g} is a spike, above {norm_limit:.4g}"
    return None
