"""MixedDataset: windows of several datasets in given proportions, still a function of the batch's number alone."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tinygpt.anydataset import AnyDataset, Span, share_of
from tinygpt.turns import Turns


class MixedDataset:
    """Several datasets as one: window n of the endless row is the next window of the source whose turn n is.

    Each source goes through its own epochs, in its own shuffled orders. An epoch of the mixture is as many windows as
    the sources have together, whichever they are: with weights of its own a small source comes several times in it.

    Args:
        sources: Datasets of one vocabulary, tokenizer and block size.
        weights: Share of the windows that each source gives, in any unit; None goes by their numbers of windows, so
            that an epoch holds every window once.
        names: What messages call the sources; None takes their folders or numbers.

    Raises:
        ValueError: No source, weights that are not one above 0 for each source, or sources that do not go together.

    Example:
        >>> from tinygpt.dataset import TokenDataset
        >>> books = TokenDataset.from_tokens([1] * 90, vocab_size=3, block_size=4)
        >>> notes = TokenDataset.from_tokens([2] * 30, vocab_size=3, block_size=4)
        >>> MixedDataset([books, notes], [0.7, 0.3]).batch(0, batch_size=10)[0][:, 0].tolist()
        [1, 2, 1, 1, 1, 2, 1, 1, 2, 1]
    """

    def __init__(
        self,
        sources: Sequence[AnyDataset],
        weights: Sequence[float | Fraction] | None = None,
        *,
        names: Sequence[str] | None = None,
    ) -> None:
        self.sources = tuple(sources)
        if not self.sources:
            raise ValueError("a mixture needs at least one source, got none")
        weights = [Fraction(len(source)) for source in self.sources] if weights is None else weights
        if len(weights) != len(self.sources):
            raise ValueError(f"weights must be one for each source ({len(self.sources)}), got {len(weights)}")
        self._turns = Turns(weights)
        self.names = tuple(names or (str(s.folder or f"source {i + 1}") for i, s in enumerate(self.sources)))
        _check_kinship(self.sources, self.names)
        self._first = [0, *accumulate(map(len, self.sources))]

    @property
    def weights(self) -> tuple[float, ...]:
        """Share of each source, in all 1."""
        return tuple(map(float, self._turns.shares))

    @property
    def shares(self) -> tuple[Fraction, ...]:
        """The same as exact fractions."""
        return self._turns.shares

    @property
    def vocab_size(self) -> int:
        """Every id is below this."""
        return self.sources[0].vocab_size

    @property
    def fingerprint(self) -> str | None:
        """The longest that a source knows; None when none knows its tokenizer."""
        return max((source.fingerprint for source in self.sources if source.fingerprint), key=len, default=None)

    @property
    def folder(self) -> Path | None:
        """The first folder with the sources' tokenizer, if there is one."""
        return next((source.folder for source in self.sources if source.folder is not None), None)

    @property
    def split(self) -> str | None:
        """The split of all sources; None when they differ."""
        return _common(self.sources, lambda source: source.split)

    @property
    def block_size(self) -> int:
        """Tokens of a window, T."""
        return self.sources[0].block_size

    @property
    def stride(self) -> int:
        """The largest of the sources' strides."""
        return max(source.stride for source in self.sources)

    @property
    def mode(self) -> str:
        """The mode of all sources, or "mixed"."""
        return _common(self.sources, lambda source: source.mode) or "mixed"

    @property
    def has_targets(self) -> bool:
        """Whether of every source some tokens alone are to be learnt."""
        return all(source.has_targets for source in self.sources)

    @property
    def shuffle(self) -> bool:
        """Whether any source is shuffled."""
        return any(source.shuffle for source in self.sources)

    @property
    def n_tokens(self) -> int:
        """Tokens of all sources."""
        return sum(source.n_tokens for source in self.sources)

    @property
    def targets_per_window(self) -> float:
        """Targets of a window that count, on average in these proportions."""
        pairs = zip(self.weights, self.sources, strict=True)
        return sum(weight * source.targets_per_window for weight, source in pairs)

    def __len__(self) -> int:
        """Windows of all sources."""
        return self._first[-1]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Window `index` of all sources in a row, in the order of their text: x and y, each int64 (T,)."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        place = index % len(self)
        source = int(np.searchsorted(self._first, place, side="right")) - 1
        return self.sources[source][place - self._first[source]]

    def take(self, first: int, count: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
        """The `count` windows from place `first` of the endless row on: x and y, each int64 (count, T)."""
        turns = [self._turns.at(n) for n in range(first, first + count)]
        x, y = torch.empty(2, count, self.block_size, dtype=torch.int64)  # each (count, T)
        for number, source in enumerate(self.sources):
            rows = [row for row, (whose, _) in enumerate(turns) if whose == number]
            if rows:  # its windows follow one another in its own row
                x[rows], y[rows] = source.take(turns[rows[0]][1], len(rows), seed=seed)
        return x, y

    def spans(self, first: int, count: int, *, seed: int = 0) -> list[Span]:
        """Where these windows lie, as `TokenDataset.spans`."""
        turns = [self._turns.at(n) for n in range(first, first + count)]
        return [span for whose, place in turns for span in self.sources[whose].spans(place, 1, seed=seed)]

    def batch(
        self, k: int, *, batch_size: int, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Batch `k` of the endless row, or one rank's part of it; as `TokenDataset.batch`."""
        return self.take(*share_of(k, batch_size=batch_size, rank=rank, world_size=world_size), seed=seed)


def _check_kinship(sources: Sequence[AnyDataset], names: Sequence[str]) -> None:
    """Nothing, if ids mean the same in all sources and their windows are as long as each other."""
    first, known = sources[0], {}
    for name, source in zip(names, sources, strict=True):
        for key in ("vocab_size", "block_size"):
            found, wanted = getattr(source, key), getattr(first, key)
            if found != wanted:
                raise ValueError(
                    f"{key} of {name} is {found}, of {names[0]} {wanted}; sources of one mixture must agree"
                )
        if source.fingerprint is not None:
            known[name] = source.fingerprint
    for name, fingerprint in known.items():
        other, wanted = next(iter(known.items()))
        n = min(len(fingerprint), len(wanted))  # the header of a shard holds the first half
        if fingerprint[:n] != wanted[:n]:
            raise ValueError(
                f"tokenizer fingerprint {fingerprint[:6]}.. of {name} is not {wanted[:6]}.., that of {other}; "
                "prepare both with one --tokenizer"
            )


def _common(sources: Sequence[AnyDataset], of: Callable[[AnyDataset], str | None]) -> str | None:
    """What all sources have in common; None when they differ."""
    found = {of(source) for source in sources}
    return found.pop() if len(found) == 1 else None
