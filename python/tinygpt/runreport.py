"""report.html: one run as one page, which needs no network, no script and no colour."""

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from tinygpt import runfolder
from tinygpt._core import FormatError
from tinygpt.curves import Curves, Sample
from tinygpt.datapage import data_pages
from tinygpt.reportpage import page
from tinygpt.runcharts import run_charts
from tinygpt.runfacts import METRICS, RunFacts, run_facts
from tinygpt.runtables import (
    checkpoints,
    evaluate_command,
    forecasts,
    how_far,
    machine,
    scale,
    session_rows,
    settings,
    tiles,
)
from tinygpt.staging import write_file
from tinygpt.tokenizerpage import TokenizerPage, tokenizer_page

REPORT = "report.html"
_MOST_SAMPLES = 12
_PACE = 100
"""Seconds between two pages of a run that goes on, for each second that a page takes."""


class AnyFinding(Protocol):
    """What a look for faults found, as a page shows it."""

    @property
    def severity(self) -> str:
        """wrong, or watch."""

    @property
    def what(self) -> str:
        """What is found."""

    @property
    def evidence(self) -> Any:
        """What shows it: a line, or several."""

    @property
    def advice(self) -> str:
        """What would help."""


Look = Callable[[Path], Sequence[AnyFinding]]
"""A look for faults in a run's folder; ValueError or OSError where there is too little of it to judge."""


class LiveReport:
    """Keeps the page of a run up to date while it is trained; a failure is a warning, and training goes on.

    A context manager: the page is written when the block ends, also by an error. `refresh` writes it in between, so
    seldom that it takes a hundredth of the time.

    Args:
        folder: The run; None does nothing.
        look: How the last page looks for faults; None does not.
    """

    def __init__(self, folder: Path | None, *, look: Look | None = None) -> None:
        self._folder = folder
        self._look = look
        self._curves = Curves()
        self._next = -math.inf
        self._has_failed = False

    def __enter__(self) -> "LiveReport":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or issubclass(kind, Exception):  # who stops by force is not to wait
            self._write(self._look)

    def refresh(self) -> None:
        """Writes the page, if it is time."""
        if time.perf_counter() >= self._next:
            self._write()

    def _write(self, look: Look | None = None) -> None:
        if self._folder is None or not (self._folder / METRICS).is_file():  # a run that was refused has no page
            return
        started = time.perf_counter()
        try:
            write_report(self._folder, curves=self._curves, look=look)
        except Exception as error:  # whatever it is: a page is not worth a run
            if not self._has_failed:
                message = f"{self._folder / REPORT}: not written: {error or type(error).__name__}; the run goes on"
                warnings.warn(message, RuntimeWarning, stacklevel=4)
            self._has_failed = True
        ended = time.perf_counter()
        self._next = ended + _PACE * (ended - started)


def write_report(
    folder: Path,
    *,
    out: Path | None = None,
    curves: Curves | None = None,
    evaluation: Path | None = None,
    look: Look | None = None,
) -> Path:
    """Writes the page of a run, whole or not at all, and returns where it is.

    Args:
        folder: The run.
        out: Where to write; None takes report.html in the run's folder.
        curves: What was read of it before; it is read on.
        evaluation: What `tinygpt evaluate --json --out` wrote; None takes the folder's evaluation.json, if there.
        look: Looks for faults, which stand on the page, as does why it cannot; None does not look.

    Raises:
        FileNotFoundError: There is no such folder, or no such evaluation.
        FormatError: It holds no run, or the evaluation is none.
        OSError: The page cannot be written.
    """
    target = folder / REPORT if out is None else out
    run = run_facts(folder, curves=curves, evaluation=evaluation)
    findings: Sequence[AnyFinding] = ()
    try:
        findings = () if look is None else look(folder)
    except (OSError, ValueError) as error:
        run = replace(run, notes=(*run.notes, f"faults: not looked for: {error}"))
    write_file(target, report_page(run, findings=findings))
    return target


def report_page(run: RunFacts, *, findings: Sequence[AnyFinding] = ()) -> str:
    """A run as one page of HTML.

    Args:
        run: What its folder tells.
        findings: What a look for faults found, shown first.
    """
    tokenizer, notes = _tokenizer(run)
    notes = [*run.notes, *notes]
    starts = [each.from_step for each in run.sessions[1:]]
    losses, bits = levels(run)
    chosen, everything = settings(run)
    parts = [("findings", "Findings")] if findings else []
    parts += [("notes", "What could not be read")] if notes else []
    parts += [("curves", "Curves"), ("scale", "On a scale"), ("samples", "Samples")]
    parts += [("tokenizer", "Tokenizer")] if tokenizer else []
    parts += [("data", "Data"), ("forecast", "Forecast"), ("settings", "Settings"), ("machine", "Machine")]
    samples = _spread(run.curves.samples, _MOST_SAMPLES)
    return page(
        "run.html",
        title=run.folder.resolve().name or "run",
        parts=parts,
        state=run.state,
        how_far=how_far(run),
        tiles=list(tiles(run)),
        findings=[_Shown(each) for each in findings],
        notes=notes,
        charts=run_charts(run.curves, losses=losses, bits=bits, starts=starts),
        n_lines=run.curves.n_lines,
        judged=run.judged,
        scale=[] if run.judged is None else scale(run.judged),
        evaluate_command=evaluate_command(run),
        samples=samples,
        samples_told=_samples_told(run, samples),
        prompt=run.setting["config"].get("sample_prompt") or "",
        tokenizer=tokenizer,
        data=data_pages(run.sources),
        forecasts=list(forecasts(run)),
        command=next((each.command for each in reversed(run.sessions) if each.command), None),
        chosen=chosen,
        settings=everything,
        machine=list(machine(run)),
        sessions=session_rows(run),
        checkpoints=checkpoints(run),
    )


def levels(run: RunFacts) -> tuple[dict[str, float], dict[str, float]]:
    """What a run's curves are held against: nats per token, and bits per byte, by name."""
    vocab_size = run.setting["model"].get("vocab_size")
    losses = {"guessing": math.log(vocab_size)} if isinstance(vocab_size, int) and vocab_size > 1 else {}
    if run.judged is None:
        return losses, {}
    return losses | dict([run.judged.ngram] if run.judged.ngram else []), dict(run.judged.others)


class _Shown:
    """A finding with its evidence as lines."""

    def __init__(self, finding: AnyFinding) -> None:
        self.severity, self.what, self.advice = finding.severity, finding.what, finding.advice
        found = finding.evidence
        self.evidence = [found] if isinstance(found, str) else list(found or ())


def _tokenizer(run: RunFacts) -> tuple[TokenizerPage | None, list[str]]:
    """What there is to say of the tokenizer, and why nothing, where its files are damaged."""
    newest = runfolder.step_folder(run.folder, max(run.checkpoints)) if run.checkpoints else None
    prepared = [(each.folder, each.manifest) for each in run.sources if each.folder and each.manifest]
    try:
        return tokenizer_page(newest, prepared), []
    except (FormatError, OSError, ImportError, ValueError) as error:
        return None, [f"tokenizer: {error}"]


def _spread(samples: Sequence[Sample], most: int) -> list[Sample]:
    """So many at most, the first and the last among them."""
    if len(samples) <= most:
        return list(samples)
    return [samples[i * (len(samples) - 1) // (most - 1)] for i in range(most)]


def _samples_told(run: RunFacts, shown: Sequence[Sample]) -> str:
    prompt = run.setting["config"].get("sample_prompt")
    begins = "The underlined beginning was given." if prompt else "Each begins a document."
    more = "" if len(shown) == len(run.curves.samples) else f" {len(shown)} of them, spread over the run."
    return begins + more
