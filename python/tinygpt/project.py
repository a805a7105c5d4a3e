"""Project: a folder with everything from a text to a model that one can talk to, made stage by stage.

    books-model/  project.json  data/  run/  export/hf/  export/gguf/

Each stage is a command that one could type, and is printed as such. What a stage depends on (its words, checksums of
the text or of what the stages before it left) is written down when it begins, what it left when it ends: a second call
passes over what is as it was, goes on with what was interrupted, and does anew what no longer fits.
"""

import json
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tinygpt import __version__
from tinygpt._core import FormatError, xxh3_file
from tinygpt.forecast import duration
from tinygpt.modelconfig import GPTConfig
from tinygpt.planning import Machine, Measure, plan, reference_rows
from tinygpt.planreport import plan_lines
from tinygpt.projectend import end_lines, prompt_flags
from tinygpt.projectstages import EVALUATED, SETTLED, STAGES, Stage, Stages
from tinygpt.reading import Reading
from tinygpt.runfacts import EVALUATION
from tinygpt.runfolder import PROJECT, RUN
from tinygpt.runreport import REPORT
from tinygpt.shardfolder import key_of
from tinygpt.staging import lock_folder, sweep, write_file
from tinygpt.textsurvey import Kind
from tinygpt.trainconfig import LIMITS, TrainConfig

LEAST_SECONDS, _HOUR = 60, 3600.0
_FORMAT, _VERSION = "tinygpt-project", 1
_STARTED = 5.0  # seconds of loading Python and torch, which is over when a project begins: training is in its process
_SIGNAL = 128  # exit codes from here on are of a signal, which ends all

Command = Callable[[Sequence[str]], int]
"""Runs a command of tinygpt, given verb and flags, and returns its exit code."""


class Project:
    """A folder that goes from text to a model.

    Args:
        folder: Where everything is written.
        command: Runs a command of tinygpt, given verb and flags, and returns its exit code.
        say: Takes what is to be shown, a line at a time.

    Raises:
        FileExistsError: The folder holds something else.
        FormatError: Its project.json cannot be read.
    """

    def __init__(self, folder: str | Path, *, command: Command, say: Callable[[str], None]) -> None:
        self.folder = Path(folder)
        self._command, self._say = command, say
        self._record = _record_of(self.folder)

    def make(
        self,
        paths: Sequence[str | Path],
        *,
        seconds: float | None = None,
        ram: str | None = None,
        kind: Kind | None = None,
        reading: Reading | None = None,
        fixed: Mapping[str, Any] | None = None,
        measure: Measure | None = None,
    ) -> int:
        """Makes what is not made yet, and returns 0, or the exit code of the command that did not end well.

        Args:
            paths: Text, chats, or one prepared folder.
            seconds: All the time there is; None takes that of the folder's plan, and an hour where there is none.
            ram: Most memory for training, as 8G; None takes what is free.
            kind: prose, code or chat; None finds out.
            reading: How text is read.
            fixed: Fields of `GPTConfig` and `TrainConfig` that are chosen already.
            measure: Takes the place of the machine, in tests.

        Raises:
            BlockingIOError: Another process works in the folder.
            FileNotFoundError: A path does not exist.
            ValueError: Text, time or memory are too little, a setting cannot be, or the folder lies in its text.
        """
        fixed, reading = dict(fixed or {}), reading or Reading()
        known = self._record["stages"].get("plan", {}).get("time", _HOUR)
        seconds = float(known if seconds is None else seconds)
        if not paths:
            raise ValueError("paths are missing: files or folders of text, or a prepared folder")
        if seconds < LEAST_SECONDS:
            raise ValueError(f"time must be at least {LEAST_SECONDS} seconds to make all stages, got {seconds:g}")
        if limits := [name for name in LIMITS if name in fixed]:
            raise ValueError(f"{limits[0]} follows from the time here; leave it away, or use `tinygpt train`")
        if any(str(path) == "-" for path in paths):
            raise ValueError("standard input can be read once, and a project reads its text again; name files")
        for path in paths:
            if (Path(path) / PROJECT).is_file():
                raise ValueError(f"{path} is what `tinygpt make` made, and no text; name its text, and this as --out")
            if self.folder.resolve().is_relative_to(Path(path).resolve()):
                raise ValueError(
                    f"{self.folder} lies in {path}, so its files would be read as text; name another --out"
                )
        started, failed = time.perf_counter(), 0
        rows = self._rows(paths, reading)  # before there is a folder: a path that does not exist leaves none
        with lock_folder(self.folder):
            self._record = {**_record_of(self.folder), "files": rows}  # as it is now that nobody else writes it
            for place in (self.folder, self.folder / "export"):
                sweep(place)
            for name in (EVALUATION, REPORT):
                sweep(self.folder / RUN, name)  # the rest of the run's folder is for its trainer
            files = [(Path(path).name, xxh3) for path, _, _, xxh3 in rows]  # by whatever path they are named
            how = {"seconds": seconds, "ram": ram, "kind": kind, "reading": reading, "fixed": fixed}
            stages = Stages(self._planned(paths, files, how, measure), self.folder, paths, files)
            for stage in stages:
                code = self._done(stage, stages.expected)
                if code and (stage.name != "export" or code >= _SIGNAL):
                    self._say("not finished; the same command goes on from here")
                    return code
                failed = failed or code  # what cannot be exported is a model all the same
            code = self._say_end(stages, paths, took=time.perf_counter() - started, is_exported=not failed)
            return failed or code

    def _planned(
        self,
        paths: Sequence[str | Path],
        files: Sequence[tuple[str, str]],
        how: Mapping[str, Any],
        measure: Measure | None,
    ) -> Mapping[str, Any]:
        """What is to be trained: the plan that stands, if it was made for the same, or a new one."""
        facts = {name: asdict(value) if isinstance(value, Reading) else value for name, value in how.items()}
        key = key_of(files=files, version=__version__, **facts)
        old, seconds = self._record["stages"].get("plan", {}), how["seconds"]
        if old.get("key") != key or not old.get("made"):
            self._say(f"[1/{len(STAGES)}] plan: what to train in {duration(seconds)}; the first time takes minutes")
            started = time.perf_counter()
            once = _Once(measure or Machine(device=how["fixed"].get("device", "auto"), say=self._say))
            reference_rows(once)
            # Measuring the machine took of the time, too, and measuring what may be chosen will.
            left = seconds - EVALUATED * seconds - SETTLED - (time.perf_counter() - started) - min(80, 0.2 * seconds)
            given = {**how, "measure": once, "out": self.folder / RUN, "startup_seconds": _STARTED}
            found = plan(paths, **{**given, "seconds": max(0.6 * seconds, left)})
            for line in plan_lines(found):
                if not line.startswith("recommended: "):
                    self._say(line)
            self._record["plan"] = json.loads(json.dumps(found.to_json(), default=str))
            self._note(
                "plan",
                key=key,
                made=key_of(plan=self._record["plan"]),
                **{"time": seconds, "seconds": time.perf_counter() - started},
            )
        else:
            self._say(f"[1/{len(STAGES)}] plan: as it was")
        made: Mapping[str, Any] = self._record["plan"]
        return made

    def _rows(self, paths: Sequence[str | Path], reading: Reading) -> list[tuple[str, int, int, str]]:
        """Path, size, date and checksum of each file of the text; of the same as before the checksum is known."""
        manifest = Path(paths[0]) / "manifest.json"
        files = [manifest] if len(paths) == 1 and manifest.is_file() else reading.corpus(paths).files
        known = {(path, n_bytes, date): xxh3 for path, n_bytes, date, xxh3 in self._record["files"]}
        rows = []
        for file in files:
            facts = file.stat()
            seen = (str(file), facts.st_size, facts.st_mtime_ns)
            rows.append((*seen, known.get(seen) or xxh3_file(file)))
        return rows

    def _done(self, stage: Stage, expected: Mapping[str, float]) -> int:
        """Does a stage, or passes over it."""
        number = STAGES.index(stage.name)
        place, old = f"[{number + 1}/{len(STAGES)}] {stage.name}", self._record["stages"].get(stage.name, {})
        made = stage.made()
        if not stage.commands or (old.get("key") == stage.key and made is not None and old.get("made") == made):
            self._say(f"{place}: {'as it was' if stage.commands else 'nothing to do'}")
            return 0
        end = datetime.now() + timedelta(seconds=sum(expected[name] for name in STAGES[number:]))
        self._say(f"\n{place}: about {duration(expected[stage.name])}; all done about {end:%H:%M}")
        if stage.name == "train" and old.get("key") != stage.key:
            self._set_run_aside()
        self._note(stage.name, key=stage.key)
        started, failed = time.perf_counter(), 0
        for words in stage.commands:
            self._say(f"$ {shlex.join(['tinygpt', *words])}")
            code = self._command(words)
            if code >= _SIGNAL:
                return code
            failed = failed or code
        if not failed:
            self._note(stage.name, key=stage.key, made=stage.made(), seconds=time.perf_counter() - started)
        return failed

    def _set_run_aside(self) -> None:
        """Moves a run of other text or another plan out of the way of the new one."""
        run = self.folder / RUN
        if not run.exists():
            return
        n = 1 + max((int(p.name[4:]) for p in self.folder.glob("run-*") if p.name[4:].isdigit()), default=0)
        aside = self.folder / f"{RUN}-{n}"
        with lock_folder(run):  # nobody trains in it
            run.rename(aside)
        self._say(f"the run that stood here was of other text or another plan: it is {aside} now, remove it at will")

    def _note(self, name: str, **facts: Any) -> None:
        """Writes down where a stage stands."""
        self._record["stages"][name] = facts
        content = {"format": _FORMAT, "version": _VERSION, **self._record}
        write_file(self.folder / PROJECT, json.dumps(content, indent=1) + "\n")  # ASCII: a name may be no UTF-8

    def _say_end(self, stages: Stages, paths: Sequence[str | Path], **facts: Any) -> int:
        """Writes a sample, and says what there is now and what may be done with it; the exit code of the sample."""
        words = ["generate", "--checkpoint", str(self.folder), *prompt_flags(stages.data)]
        words += ["--max-new-tokens", "100", "--temperature", "0.8", "--top-p", "0.95", "--seed", "1"]
        self._say(f"\n$ {shlex.join(['tinygpt', *words])}")
        code = self._command(words)
        times = {name: row.get("seconds", 0.0) for name, row in self._record["stages"].items()}
        for line in end_lines(self.folder, stages.run, paths, plan=self._record["plan"], times=times, **facts):
            self._say(line)
        return code


class _Once:
    """Measurements, each made once."""

    def __init__(self, measure: Measure) -> None:
        self._measure = measure
        self._found: list[tuple[TrainConfig, GPTConfig, Mapping[str, Any]]] = []

    def __call__(self, config: TrainConfig, shape: GPTConfig) -> Mapping[str, Any]:
        for known_config, known_shape, row in self._found:
            if (known_config, known_shape) == (config, shape):
                return row
        row = self._measure(config, shape)
        self._found.append((config, shape, row))
        return row

    @property
    def free_bytes(self) -> int | None:
        found: int | None = getattr(self._measure, "free_bytes", None)
        return found


def _record_of(folder: Path) -> dict[str, Any]:
    """What project.json says; of a folder that is new or empty, that nothing is done yet."""
    path = folder / PROJECT
    if not path.is_file():
        if folder.exists() and not folder.is_dir():
            raise FileExistsError(f"{folder} is a file; name a folder that is new or empty")
        if folder.is_dir() and any(not each.name.startswith(".") for each in folder.iterdir()):
            raise FileExistsError(f"{folder} exists and has no {PROJECT}; name a folder that is new or empty")
        return {"files": [], "plan": None, "stages": {}}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if (found.pop("format"), found.pop("version")) != (_FORMAT, _VERSION):
            raise ValueError(f"not of format {_FORMAT}, version {_VERSION}")
        record = {"files": list(found["files"]), "plan": found["plan"], "stages": dict(found["stages"])}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"{path}: damaged ({error}); name another folder to begin anew") from None
    return record
