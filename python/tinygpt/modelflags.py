"""ModelFlags: which model a command opens, and where it is to live; the flags of every command that opens one."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinygpt.checkpoint import Checkpoint


@dataclass(frozen=True, kw_only=True)
class ModelFlags:
    """The model and the machine."""

    checkpoint: Path
    """Run folder, checkpoint folder, or Hugging Face folder of a class we know."""
    which: str = "best"
    """In a run folder: best (by validation loss), last, or the number of a step."""
    cpu: bool = False
    """Stay on the CPU even if there is a GPU."""
    threads: int | None = None
    """CPU threads; none takes what torch finds."""

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}")
        if self.which not in ("best", "last") and not self.which.isdecimal():
            raise ValueError(f"which must be best, last or the number of a step, got {self.which!r}")

    @property
    def chosen(self) -> str | int:
        """`which`, as `Checkpoint.load` takes it."""
        return int(self.which) if self.which.isdecimal() else self.which

    def load_to_write(self) -> "Checkpoint":
        """The model, on the device that it is to write on, with as many threads; for commands, not for libraries."""
        # Read as torch is loaded: its threads are to leave the cores to the decoder's when they have nothing to do.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

        import torch  # only once the flags are right

        from tinygpt.checkpoint import Checkpoint

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        device = "cuda" if torch.cuda.is_available() and not self.cpu else "cpu"
        return Checkpoint.load(self.checkpoint, self.chosen, device=device)
