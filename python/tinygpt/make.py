"""`tinygpt make`: one command from a folder of text to a model that one can talk to."""

if __name__ == "__main__":  # Ctrl-C may come during the imports below
    from tinygpt.interruption import leave_on_interrupt

    leave_on_interrupt()

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

from tinygpt.command import run
from tinygpt.config import read
from tinygpt.modelconfig import GPTConfig
from tinygpt.reading import Reading, folder_name
from tinygpt.textflags import TextFlags, fixed_fields
from tinygpt.trainconfig import TrainConfig


@dataclass(frozen=True, kw_only=True)
class MakeFlags(TextFlags):
    """What to make and where."""

    out: Path | None = None
    """Folder for all of it; none takes NAME-model, NAME being that of the first path."""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of `tinygpt make`: 0 done, 130 and 143 stopped by a signal after saving, 2 and 1 for errors."""
    return run(_make, argv, verb="make")


def _make(argv: Sequence[str]) -> int:
    about = (
        "From text to a model that one can talk to: plans what to train in the time there is, prepares the text, "
        "trains, judges, exports for transformers and llama.cpp, and writes a page about it. The same command goes on "
        "where it was stopped, and does anew what no longer fits when text was added."
    )
    groups = {"": MakeFlags, "text": Reading, "model": GPTConfig, "training": TrainConfig}
    options = read(argv, groups, prog="tinygpt make", description=about, defaults={"vocab_size": 8192})
    flags, reading, config = options.build(MakeFlags), options.build(Reading), options.build(TrainConfig)
    if "WORLD_SIZE" in os.environ:
        raise ValueError("make works in one process; train with several by `torchrun -m tinygpt.train`")
    fixed = fixed_fields(options)

    from tinygpt.project import Project  # only once the flags are right

    project = Project(flags.out or Path(f"{folder_name(flags.paths[0])}-model"), command=_command, say=_say)
    seconds = flags.seconds if "time" in options.given(MakeFlags) else None
    return project.make(flags.paths, seconds=seconds, ram=config.ram, kind=flags.kind, reading=reading, fixed=fixed)


def _command(words: Sequence[str]) -> int:
    """A command of tinygpt in this process, as `tinygpt` itself would run it."""
    return int(import_module(f"tinygpt.{words[0]}").main(words[1:]))


_say = partial(print, flush=True)


if __name__ == "__main__":
    sys.exit(main())
