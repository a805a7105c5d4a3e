"""What a run's folder tells: settings, curves, sessions, data, evaluation; without torch, however far it got."""

import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinygpt import runfolder
from tinygpt._core import FormatError
from tinygpt.curves import Curves
from tinygpt.manifest import Manifest
from tinygpt.optionfile import entries
from tinygpt.sessions import Session, is_held, read_sessions
from tinygpt.values import finite

METRICS = "metrics.jsonl"
EVALUATION = "evaluation.json"
_MOST_HEADER_BYTES = 1 << 26


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """One source of training or validation data."""

    role: str
    """train or val."""
    share: float
    """Of the windows."""
    facts: Mapping[str, Any]
    """What the run recorded of it: "folder", "open", "n_tokens", "n_windows" and checksums."""
    folder: Path | None
    """Where it lies; None for bare tokens."""
    manifest: Manifest | None
    """What is there now; None where nothing is."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What `tinygpt evaluate` found on held-out text; None where it did not say."""

    name: str
    """The text."""
    loss: float | None
    """Nats per token."""
    bits_per_byte: float | None
    """Of the model."""
    others: Mapping[str, float]
    """Name -> bits per byte of compressors and n-grams on the same bytes."""
    ngram: tuple[str, float] | None
    """Name and nats per token of the n-gram model."""
    verdict: str | None
    """Where that leaves the model."""
    notes: tuple[str, ...] = ()
    """What could not be measured."""


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """A run, as its folder tells it."""

    folder: Path
    """Where it lies."""
    curves: Curves
    """What was measured."""
    sessions: tuple[Session, ...]
    """When it was worked on; none in runs of before there was a record."""
    is_running: bool
    """Whether a process of this machine is at it."""
    setting: Mapping[str, Any]
    """ "model", "config", "engine", "data", "environment" and more, of the newest checkpoint or session."""
    progress: Mapping[str, Any]
    """What the newest checkpoint counts."""
    options: Mapping[str, Any]
    """config.yaml, what is in none of the others."""
    checkpoints: Mapping[int, tuple[str, ...]]
    """Step -> best, last or nothing."""
    sources: tuple[DataSource, ...]
    """Data, those for training first."""
    judged: Judged | None
    """What an evaluation found."""
    n_parameters: int | None
    """Trained numbers, where known."""
    notes: tuple[str, ...] = field(default=())
    """What could not be read, and why."""

    @property
    def step(self) -> int:
        """Steps taken, as far as anything tells."""
        told = [each.end_step for each in self.sessions[-1:] if each.end_step is not None]
        return int(max([self.curves.last.get("step", 0), self.progress.get("step", 0), *told]))

    @property
    def total_steps(self) -> int | None:
        """Steps that it was to take, where known."""
        if not self.sessions:
            planned = self.setting["config"].get("max_steps")
            return planned if isinstance(planned, int) else None
        left, forecast = self.sessions[-1].forecast.get("steps"), self.progress.get("forecast_steps")
        total = self.sessions[-1].from_step + left if isinstance(left, int) else forecast
        return total if isinstance(total, int) else None

    @property
    def state(self) -> str:
        """Where it stands, in words."""
        if self.is_running:
            return "running"
        if not self.sessions:
            return "how it ended is not recorded"
        if self.sessions[-1].end is None:
            return "stopped without a word: killed, or another machine is at it"
        return f"ended: {self.sessions[-1].reason}"


def run_facts(folder: Path, *, curves: Curves | None = None, evaluation: Path | None = None) -> RunFacts:
    """Everything that a run's folder tells.

    Args:
        folder: The run.
        curves: What was read of it before; it is read on.
        evaluation: What `tinygpt evaluate --json --out` wrote; None takes the folder's evaluation.json, if there.

    Raises:
        FileNotFoundError: There is no such folder, or no such evaluation.
        FormatError: It holds no run, or the evaluation is none.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: {'is a file, name its folder' if folder.exists() else 'no such folder'}")
    steps, sessions = runfolder.steps(folder), tuple(read_sessions(folder))
    if not (steps or sessions or (folder / METRICS).is_file()):
        raise FormatError(f"{folder}: no {METRICS}, step-*/ or sessions.jsonl in it, so no run; name the folder of one")
    curves = curves or Curves()
    curves.read_on(folder / METRICS)
    notes: list[str] = []
    newest = runfolder.step_folder(folder, steps[-1]) if steps else None
    saved = {} if newest is None else _object(newest / "trainer.json", notes)
    setting = dict(sessions[-1].facts) if sessions else saved
    setting |= {name: _mapping(setting.get(name)) for name in ("model", "config", "engine", "environment", "data")}
    judged = None
    if evaluation is not None or (folder / EVALUATION).is_file():
        judged = read_evaluation(evaluation or folder / EVALUATION)
    pointers = {name: runfolder.follow(folder, name) for name in ("best", "last")}
    return RunFacts(
        folder=folder,
        curves=curves,
        sessions=sessions,
        is_running=is_held(folder) and bool(sessions) and sessions[-1].end is None,
        setting=setting,
        progress=_mapping(saved.get("progress")),
        options=_options(folder / "config.yaml", setting, notes),
        checkpoints={
            step: tuple(name for name, at in pointers.items() if at == runfolder.step_folder(folder, step))
            for step in steps
        },
        sources=tuple(_sources(folder, setting["data"], notes)),
        judged=judged,
        n_parameters=_n_parameters(setting, newest),
        notes=tuple(notes),
    )


def read_evaluation(path: Path) -> Judged:
    """What an evaluation found on held-out text.

    Raises:
        FileNotFoundError: There is no such file.
        FormatError: It is none that `tinygpt evaluate --json` wrote, or one without held-out text.
    """
    try:
        content = json.loads(path.read_bytes())
        if content.get("format") != "tinygpt-evaluation" or content.get("version") != 1:
            raise ValueError
        text = content["text"]
        figures = text["groups"][0]["figures"]
        others, order = (text["baselines"] or [None])[0] or {}, text["ngram_order"]
        named = {"zlib": "zlib -9", "zstd": "zstd -19", "ngram": f"{order}-gram model"}
        loss = finite(others.get("ngram_loss"))
        return Judged(
            name=str(text["name"]),
            loss=finite(figures["loss"]),
            bits_per_byte=finite(figures["bits_per_byte"]),
            others={named[key]: value for key in named if (value := finite(others.get(key))) is not None},
            ngram=None if loss is None else (f"{order}-gram model", loss),
            verdict=text.get("verdict"),
            notes=tuple(map(str, content.get("notes", ()))),
        )
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        wanted = "`tinygpt evaluate --data TEXT --json --out FILE` writes one"
        raise FormatError(f"{path}: no evaluation of held-out text as JSON; {wanted}") from None


def _sources(run: Path, data: Mapping[str, Any], notes: list[str]) -> Iterator[DataSource]:
    for role in ("train", "val"):
        facts = _mapping(data.get(role))
        if not facts:
            continue
        parts = _list(facts.get("sources")) or [facts]
        weights = _list(facts.get("weights")) or ["1"] * len(parts)
        for part, weight in zip(map(_mapping, parts), weights, strict=False):
            folder = run / part["folder"] if isinstance(part.get("folder"), str) else None
            manifest = None
            try:
                manifest = None if folder is None else Manifest.load(folder)
            except (FormatError, OSError) as error:
                notes.append(f"{role} data: {error}")
            yield DataSource(role=role, share=_share(weight), facts=part, folder=folder, manifest=manifest)


def _share(weight: object) -> float:
    """A weight as `Fraction` writes it."""
    above, _, below = str(weight).partition("/")
    try:
        return int(above) / int(below or 1)
    except (ValueError, ZeroDivisionError, OverflowError):
        return math.nan


def _options(path: Path, setting: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """The options of the command that are no settings of model or training."""
    known = {*setting["model"], *setting["config"]}
    try:
        found = {key: value for key, value, _ in entries(str(path))} if path.is_file() else {}
    except (ValueError, OSError) as error:
        notes.append(str(error))
        return {}
    return {key: value for key, value in found.items() if key not in known}


def _n_parameters(setting: Mapping[str, Any], newest: Path | None) -> int | None:
    """Of the record of a session, else by the header of the newest weights."""
    if isinstance(setting.get("n_parameters"), int):
        return int(setting["n_parameters"])
    try:
        with (newest or Path()).joinpath("model.safetensors").open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(size, _MOST_HEADER_BYTES)))
        return sum(int(math.prod(each["shape"])) for name, each in header.items() if name != "__metadata__")
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return None


def _object(path: Path, notes: list[str]) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        notes.append(f"{path}: not read: {error}")
        return {}
    return found if isinstance(found, dict) else {}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
