"""`tinygpt doctor`: say what is wrong with a run, how it is known, and what to change."""

if __name__ == "__main__":  # Ctrl-C may come during the imports below
    from tinygpt.interruption import leave_on_interrupt

    leave_on_interrupt()

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from tinygpt.command import byte_bar, run
from tinygpt.config import read


@dataclass(frozen=True, kw_only=True)
class DoctorFlags:
    """Which runs to look at, and how to say it."""

    paths: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Folders of runs, going on or ended; a checkpoint in one judges the course up to there."""
    json: bool = False
    """Print JSON: a list with an object for each run."""
    strict: bool = False
    """End with exit code 1 for what is to be watched, too."""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of `tinygpt doctor`: 0 nothing is wrong, 1 something is, 2 no run to judge, 130 Ctrl-C."""
    return run(_doctor, argv, verb="doctor")


def _doctor(argv: Sequence[str]) -> int:
    about = "Says what is wrong with a run, how it is known, and what to change."
    flags = read(argv, {"": DoctorFlags}, prog="tinygpt doctor", description=about).build(DoctorFlags)
    if not flags.paths:
        raise ValueError("PATHS is missing: the folder of a run, as `tinygpt train` writes it")

    from tinygpt.diagnosis import examine, shown, to_json  # not before the flags are read: torch takes seconds

    found = []
    for path in flags.paths:
        with byte_bar("duplicates") as progress:
            found.append(examine(path, progress=progress))
        if not flags.json:
            print("\n".join(shown(found[-1])), flush=True)
    if flags.json:
        print(to_json(found))
    return int(any(each.is_wrong(strict=flags.strict) for each in found))


if __name__ == "__main__":
    sys.exit(main())
