"""ModelFlags: which model a command opens, and where it is to live; WritingFlags: how much it writes, and how."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tinygpt.checkpoint import Checkpoint


@dataclass(frozen=True, kw_only=True)
class ModelFlags:
    """The model and the machine."""

    checkpoint: Path
    """Folder of a run, of a checkpoint, of what `tinygpt make` made, or Hugging Face folder of a class we know."""
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


@dataclass(frozen=True, kw_only=True)
class WritingFlags(ModelFlags):
    """How much a model writes, and how it is held meanwhile."""

    system: str | None = None
    """Message of the system before what is said, for a model that was trained on chats."""
    max_new_tokens: int = 200
    """Tokens to write at most."""
    stop: tuple[str, ...] = ()
    """Strings before which the text ends."""
    seed: int | None = None
    """The same seed gives the same text; none draws one."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """How weights are kept: auto takes bfloat16 on a CPU, and what the model has on a GPU."""
    int8: bool = False
    """Keep weights as bytes with scales: half of bfloat16 to read for each token; on a CPU."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_new_tokens < 0:
            raise ValueError(f"max_new_tokens must be at least 0, got {self.max_new_tokens}")
        if self.int8 and self.dtype != "auto":
            raise ValueError(f"int8 and --dtype {self.dtype} are both given; keep one of them")

    @property
    def kept_as(self) -> Literal["auto", "float32", "bfloat16", "int8"]:
        """How weights are kept, as a decoder takes it."""
        return "int8" if self.int8 else self.dtype
