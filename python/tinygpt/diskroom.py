"""Room on the disk: what the checkpoints of a run take, and whether they fit."""

import errno
import shutil
from dataclasses import dataclass
from pathlib import Path

from tinygpt import runfolder
from tinygpt.forecast import count

_SMALL_FILES = 1 << 16  # configuration, random state, a small tokenizer: about this


@dataclass(frozen=True, kw_only=True)
class DiskRoom:
    """What the checkpoints of a run need of a disk. `str` gives it as one line.

    Example:
        >>> room = DiskRoom(checkpoint_bytes=500_000_000, checkpoints=5, free_bytes=120_000_000_000)
        >>> print(room)
        a checkpoint takes 500.0 MB, 5 of them at most 2.5 GB; 120.0 GB are free
        >>> room.is_enough
        True
    """

    checkpoint_bytes: int
    """About what one checkpoint takes."""
    checkpoints: int
    """The most that are yet to come and to lie there at once."""
    free_bytes: int
    """Room that is free."""

    @property
    def is_enough(self) -> bool:
        """Whether all of them fit."""
        return self.checkpoint_bytes * self.checkpoints <= self.free_bytes

    def check(self, folder: Path) -> None:
        """Returns when at least one checkpoint fits.

        Raises:
            OSError: It does not.
        """
        if self.checkpoint_bytes > self.free_bytes:
            raise OSError(
                errno.ENOSPC,
                f"no room for one checkpoint of about {count(self.checkpoint_bytes)}B, "
                f"{count(self.free_bytes)}B are free; make room or name another folder",
                str(folder),
            )

    def __str__(self) -> str:
        """The need in words."""
        total = count(self.checkpoint_bytes * self.checkpoints)
        one, free = count(self.checkpoint_bytes), count(self.free_bytes)
        return f"a checkpoint takes {one}B, {self.checkpoints} of them at most {total}B; {free}B are free"


def disk_room(folder: Path, *, n_bytes: int, keep: int) -> DiskRoom:
    """The room for a run in `folder`, which need not exist yet.

    Args:
        folder: The run's folder.
        n_bytes: Weights and optimiser state of a checkpoint.
        keep: Newest checkpoints kept. Beside them stand the best one and the one being written.
    """
    one = n_bytes + _SMALL_FILES
    to_come = max(1, keep + 2 - len(runfolder.steps(folder)))
    there = next(each for each in (folder, *folder.absolute().parents) if each.is_dir())
    return DiskRoom(checkpoint_bytes=one, checkpoints=to_come, free_bytes=shutil.disk_usage(there).free)
