"""`tinygpt plan`: what to train on a text in the time there is, with the command."""

if __name__ == "__main__":  # Ctrl-C may come during the imports below
    from tinygpt.interruption import leave_on_interrupt

    leave_on_interrupt()

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tinygpt.command import run
from tinygpt.config import read
from tinygpt.modelconfig import GPTConfig
from tinygpt.reading import Reading
from tinygpt.textflags import TextFlags, fixed_fields
from tinygpt.trainconfig import TrainConfig


@dataclass(frozen=True, kw_only=True)
class PlanFlags(TextFlags):
    """What to plan for."""

    out: Path | None = None
    """Folder of the run that is planned; none takes runs/NAME."""
    json: bool = False
    """Print JSON instead of a table."""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of `tinygpt plan`: 0 done, 2 and 1 for errors, 130 stopped by Ctrl-C."""
    return run(_plan, argv, verb="plan")


def _plan(argv: Sequence[str]) -> int:
    about = (
        "Says what to train on a text in a time: some choices with what each takes and gives, and the command of the "
        "best. Flags of the model and of training fix what they say; of a limit (--max-steps) it says what that takes."
    )
    groups = {"": PlanFlags, "text": Reading, "model": GPTConfig, "training": TrainConfig}
    options = read(argv, groups, prog="tinygpt plan", description=about, defaults={"vocab_size": 8192})
    flags, reading, config = options.build(PlanFlags), options.build(Reading), options.build(TrainConfig)
    fixed = fixed_fields(options)

    from tinygpt.planning import plan  # not before the flags are read: torch takes seconds
    from tinygpt.planreport import plan_lines

    found = plan(
        flags.paths,
        seconds=flags.seconds,
        ram=config.ram,
        kind=flags.kind,
        reading=reading,
        fixed=fixed,
        out=flags.out,
        say=partial(print, file=sys.stderr, flush=True),
    )
    if flags.json:
        print(json.dumps(found.to_json(), indent=1, default=str))
        return 0
    for line in plan_lines(found):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
