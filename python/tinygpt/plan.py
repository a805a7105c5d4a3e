"""`tinygpt plan`: what to train on a text in the time there is, with the command."""

if __name__ == "__main__":  # Ctrl-C may come during the imports below
    from tinygpt.interruption import leave_on_interrupt

    leave_on_interrupt()

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import tyro

from tinygpt.command import run
from tinygpt.config import read
from tinygpt.modelconfig import GPTConfig
from tinygpt.reading import Reading
from tinygpt.trainconfig import TrainConfig

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, kw_only=True)
class PlanFlags:
    """What to plan for."""

    paths: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Files and folders of text, chats (.jsonl), or one prepared folder."""
    time: str = "1h"
    """All the time there is, as 30s, 10m, 8h or 2d."""
    kind: Literal["prose", "code", "chat"] | None = None
    """What the text is; none finds out."""
    out: Path | None = None
    """Folder of the run that is planned; none takes runs/NAME."""
    json: bool = False
    """Print JSON instead of a table."""

    @property
    def seconds(self) -> float:
        """`time` as a number."""
        found = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*(s|m|min|h|d)", self.time.strip())
        if found is None:
            raise ValueError(f"time must be a number with s, m, h or d, such as 10m or 8h, got {self.time!r}")
        return float(found[1]) * _UNITS[found[2]]

    def __post_init__(self) -> None:
        _ = self.seconds


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
    # Width and heads that are not given are for the plan to choose.
    is_known = {"d_model", "n_head"} <= options.given(GPTConfig).keys()
    options.build(GPTConfig, **({} if is_known else {"d_model": 2, "n_head": 1, "n_kv_head": 1}))
    if not flags.paths:
        raise ValueError("PATHS is missing: files or folders of text, or a prepared folder")

    from tinygpt.planning import plan  # not before the flags are read: torch takes seconds
    from tinygpt.planreport import plan_lines

    fixed = options.given(GPTConfig) | options.given(TrainConfig)
    fixed.pop("ram", None)
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
