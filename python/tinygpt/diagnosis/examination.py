"""Diagnosis: all checks of a run, what they found, and which could not be made."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tinygpt.diagnosis.course import COURSE_CHECKS
from tinygpt.diagnosis.finding import Finding
from tinygpt.diagnosis.record import Record, read_record
from tinygpt.diagnosis.text import TEXT_CHECKS
from tinygpt.diagnosis.textfigures import Progress, TextFigures, read_text_figures


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What was found of a run, the worst first."""

    record: Record
    """The run."""
    findings: tuple[Finding, ...]
    """What is wrong."""
    left_out: Mapping[str, str]
    """Checks that could not be made, by name, each with the reason."""

    def is_wrong(self, *, strict: bool = False) -> bool:
        """Whether something is wrong, or with `strict` to be watched."""
        return any(strict or each.severity == "wrong" for each in self.findings)


def diagnose(path: str | Path, *, lines: Sequence[Mapping[str, Any]] | None = None) -> list[Finding]:
    """What is wrong with a run, the worst first; none where it is healthy.

    Args:
        path: The run's folder, while it is trained or afterwards; or a checkpoint in it, to judge its course up to
            there. The text is looked at where it lies; what that takes is left out where it is gone.
        lines: The objects of its metrics.jsonl, where they have been read.

    Raises:
        FileNotFoundError: There is no run.
        FormatError: Its metrics or settings cannot be read.
        ValueError: It has no settings yet.
    """
    return list(examine(path, lines=lines).findings)


def course_findings(path: str | Path) -> list[Finding]:
    """What the course of a run shows to be wrong, as in `diagnose`; its text is not looked at, which takes long."""
    return list(findings_of(read_record(path), None))


def examine(
    path: str | Path, *, lines: Sequence[Mapping[str, Any]] | None = None, progress: Progress | None = None
) -> Diagnosis:
    """`diagnose`, with the record that it was made from and what was left out.

    Args:
        path: As in `diagnose`.
        lines: As there.
        progress: Told the bytes of training text searched and the bytes there are.
    """
    record = read_record(path, lines=lines)
    left_out: dict[str, str] = {}
    text = None
    try:
        text = read_text_figures(record, progress=progress)
    except (ValueError, OSError) as error:
        left_out = dict.fromkeys(map(name_of, TEXT_CHECKS), " ".join(str(error).split()))
    if text is not None:
        left_out = _without_figures(text)
    return Diagnosis(record=record, findings=findings_of(record, text), left_out=left_out)


def findings_of(record: Record, text: TextFigures | None) -> tuple[Finding, ...]:
    """The findings of all checks that can be made, without those that another one explains, the worst first."""
    found = [check(record) for check in COURSE_CHECKS]
    found += [check(record, text) for check in TEXT_CHECKS] if text is not None else []
    findings = {each.name: each for each in found if each is not None}
    explained = {name for cause in findings for name in EXPLAINS.get(cause, ())}
    left = [each for name, each in findings.items() if name not in explained]
    return tuple(sorted(left, key=lambda each: each.severity != "wrong"))


def name_of(check: Callable[..., Finding | None]) -> str:
    """The name of what a check finds."""
    return check.__name__.replace("_", "-")


def shown(diagnosis: Diagnosis) -> Iterator[str]:
    """A diagnosis as lines for a person."""
    record = diagnosis.record
    total = "" if record.total_steps is None else f" of {record.total_steps:,}"
    yield (
        f"{record.folder}: {record.step:,}{total} steps, {record.epochs:.2g} passes over the text, "
        f"{record.n_parameters:,} parameters"
    )
    for each in diagnosis.findings:
        yield f"  {each.severity:<6} {each.name}: {each.what}"
        yield f"         known by: {each.evidence}"
        yield f"         change:   {each.advice}"
    if not diagnosis.findings:
        yield "  nothing wrong found"
    for reason in dict.fromkeys(diagnosis.left_out.values()):
        names = [name for name, found in diagnosis.left_out.items() if found == reason]
        yield f"  left out: {', '.join(names)} ({reason})"


def to_json(diagnoses: Iterable[Diagnosis]) -> str:
    """Diagnoses as a list of JSON objects."""
    found = [
        {
            "run": str(each.record.folder),
            "step": each.record.step,
            "findings": [asdict(finding) for finding in each.findings],
            "left_out": dict(each.left_out),
        }
        for each in diagnoses
    ]
    return json.dumps(found, indent=1, ensure_ascii=False)


def _without_figures(text: TextFigures) -> dict[str, str]:
    """The checks that this text has no figures for."""
    reasons = {
        "long-context": (text.half_length, "nothing says where documents end"),
        "duplicates": (text.repeated, "no validation text, or less than one stretch of it"),
        "worse-than-zstd": (text.compressed_bits, "no validation text, no tokenizer beside it, or chats"),
    }
    return {name: reason for name, (figure, reason) in reasons.items() if figure is None}


# What a finding explains is not said besides: a run whose rate is too high is not told to train longer, too.
_OF_A_BAD_RATE = ("spikes", "not-learning", "undertrained", "overfitting", "many-epochs", "worse-than-zstd")
EXPLAINS: dict[str, tuple[str, ...]] = {
    "loss-at-start": ("undertrained",),
    "diverged": (*_OF_A_BAD_RATE, "learning-rate-high", "learning-rate-low", "long-warmup"),
    "learning-rate-high": (*_OF_A_BAD_RATE, "learning-rate-low"),
    "learning-rate-low": _OF_A_BAD_RATE,
    "not-learning": ("undertrained", "many-epochs", "worse-than-zstd"),
    "undertrained": ("worse-than-zstd",),
    "long-warmup": ("undertrained",),
    "little-text": ("undertrained",),
    "overfitting": ("little-text", "many-epochs", "worse-than-zstd"),
    "other-validation": ("overfitting", "undertrained", "worse-than-zstd"),
}
CHECKS: tuple[str, ...] = (*map(name_of, COURSE_CHECKS), *map(name_of, TEXT_CHECKS))
