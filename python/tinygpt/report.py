"""`tinygpt report`: a run as a page, or several beside one another."""

if __name__ == "__main__":  # Ctrl-C may come during the imports below
    from tinygpt.interruption import leave_on_interrupt

    leave_on_interrupt()

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import tyro

from tinygpt.command import run
from tinygpt.config import read
from tinygpt.curves import Curves
from tinygpt.diagnosis import diagnose
from tinygpt.runcomparison import write_comparison
from tinygpt.runreport import REPORT, write_report


@dataclass(frozen=True, kw_only=True)
class ReportFlags:
    """Which runs, and where to write."""

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Folders of runs: one becomes a page of its own, several are compared on one page."""
    out: Path | None = None
    """File to write; none takes report.html, in the run's folder or, of several runs, here."""
    evaluation: Path | None = None
    """Of one run, what `tinygpt evaluate --json --out` wrote; none takes its evaluation.json, if there."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("RUNS is missing: the folder of a run, or several to compare")
        if self.out is not None and self.out.is_dir():
            raise ValueError(f"out must be a file, and {self.out} is a folder; name a file in it")
        if self.evaluation is not None and len(self.runs) > 1:
            raise ValueError(f"evaluation is of one run, and {len(self.runs)} are named; name that run alone")


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of `tinygpt report`: 0 done, 2 and 1 for errors."""
    return run(_report, argv, verb="report")


def _report(argv: Sequence[str]) -> int:
    about = "Writes a run as one HTML page, or several runs beside one another."
    flags = read(argv, {"": ReportFlags}, prog="tinygpt report", description=about).build(ReportFlags)
    if len(flags.runs) == 1:
        curves = Curves(lines=[])  # read once: whoever looks for faults takes the lines, too
        look = partial(diagnose, lines=curves.lines)
        out = write_report(flags.runs[0], out=flags.out, curves=curves, evaluation=flags.evaluation, look=look)
    else:
        out = flags.out or Path(REPORT)
        write_comparison(flags.runs, out)
    print(f"written: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
