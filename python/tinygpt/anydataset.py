"""AnyDataset: what training data are to whoever trains or evaluates on them, one source of tokens or a mixture."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Span:
    """Where a window lies."""

    folder: Path | None
    """The prepared folder, if its tokens lie in one."""
    split: str | None
    """Split of that folder."""
    start: int
    """Place of its first token in the split."""
    ids: NDArray[Any]
    """Its tokens, those that are inputs alone."""


class AnyDataset(Protocol):
    """Windows in an endless row of epochs; batch `k` depends on the arguments alone."""

    @property
    def vocab_size(self) -> int:
        """Every id is below this."""

    @property
    def fingerprint(self) -> str | None:
        """That of the tokenizer that made the tokens, or the first half of it; None when unknown."""

    @property
    def folder(self) -> Path | None:
        """Folder with the tokenizer of the tokens, if there is one."""

    @property
    def split(self) -> str | None:
        """Split of a prepared folder; None for other tokens."""

    @property
    def block_size(self) -> int:
        """Tokens of a window, T."""

    @property
    def stride(self) -> int:
        """Tokens from one window's start to the next."""

    @property
    def mode(self) -> str:
        """How tokens become windows."""

    @property
    def has_targets(self) -> bool:
        """Whether some tokens alone are to be learnt, as the answers in chats."""

    @property
    def shuffle(self) -> bool:
        """Whether batches take the windows in a shuffled order."""

    @property
    def n_tokens(self) -> int:
        """Tokens in all."""

    @property
    def targets_per_window(self) -> float:
        """Targets of a window that count, on average over an epoch."""

    def __len__(self) -> int:
        """Windows in an epoch."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Window `index` in the order of the text: x and y, each int64 (T,)."""

    def take(self, first: int, count: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
        """The `count` windows from place `first` of the endless row on: x and y, each int64 (count, T)."""

    def spans(self, first: int, count: int, *, seed: int = 0) -> "list[Span]":
        """Where these windows lie."""

    def batch(
        self, k: int, *, batch_size: int, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Batch `k`, or one rank's part of it: x and y, each int64 (B / world_size, T)."""


def share_of(k: int, *, batch_size: int, rank: int, world_size: int) -> tuple[int, int]:
    """Where one rank's part of batch `k` begins in the endless row of windows, and how many windows it has.

    Raises:
        ValueError: `world_size` does not divide `batch_size`, or an argument is out of range.

    Example:
        >>> share_of(2, batch_size=6, rank=1, world_size=2)
        (15, 3)
    """
    if k < 0 or batch_size < 1:
        raise ValueError(f"k must be from 0 and batch_size from 1, got {k} and {batch_size}")
    if world_size < 1 or batch_size % world_size:
        raise ValueError(f"batch_size must be a multiple of world_size, got {batch_size} and {world_size}")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must be from 0 to world_size - 1 ({world_size - 1}), got {rank}")
    share = batch_size // world_size
    return k * batch_size + rank * share, share
