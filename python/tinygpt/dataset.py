"""TokenDataset: tokens as windows of a fixed length, and as batches that depend on their number alone.

The windows of epoch `e` come in an order seeded by `(seed, e)`; the epochs' orders stand in one endless row, and batch
`k` is the k-th run of it. Nothing is remembered between two batches, so a run continues at step `k` by asking for
batch `k`, and every rank asks for its own part of the same batch.
"""

import copy
import operator
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tinygpt._core import FormatError
from tinygpt.anydataset import Span, share_of
from tinygpt.permutation import permute
from tinygpt.targetbits import ArrayTargets, Targets
from tinygpt.tokenfiles import DOORS, OpenTokens, as_tokens, refuse
from tinygpt.tokenfolder import count_targets, document_ends, open_folder
from tinygpt.tokenstream import ArrayTokens
from tinygpt.tokenview import table

MODES = ("stream", "documents")
IGNORED = -100
"""Target of padding; the loss leaves it out."""


class TokenDataset:
    """Windows of `block_size` tokens with the targets one to the right.

    Window `i` reads tokens `i * stride` to `i * stride + block_size`; a window may cross shards and documents. The up
    to `block_size - 1` tokens at the very end are the only ones never used. With mode "documents" no window crosses a
    document: a shorter one is padded, a longer one gives several, and one of a single token, which has no target, none.
    Where shards of chats say which tokens are targets, that mode leaves the others out of y, and windows without any.

    Args:
        path: A prepared folder; a `.bin` of ours, of llm.c or of modded-nanogpt; a raw `.bin` of nanoGPT, with `dtype`
            and `vocab_size`; a `.npy` or `.pt` (a tensor, loaded as weights only), with `vocab_size`.
        split: "train" or "val" of a prepared folder; None takes "train".
        block_size: Tokens of a window, T.
        stride: Tokens from one window's start to the next, 1 to `block_size`; None takes `block_size`, so that each
            target is met once an epoch.
        mode: "stream" or "documents"; the latter keeps 16 bytes a document in memory.
        shuffle: Whether batches take the windows in a shuffled order, another one each epoch.
        verify: Whether to compare checksums of a prepared folder; None does for data up to 4 GiB.
        vocab_size: Ids are below this; for files that do not say.
        dtype: Type of a token in a `.bin` without a header, as "uint16".
        eot_id: Id that ends a document; for files that do not say.

    Raises:
        FormatError: A file is damaged or foreign.
        ValueError: An argument is out of range, or the tokens are fewer than a window takes.
        OSError: A file is missing or cannot be read.

    Example:
        >>> data = TokenDataset.from_tokens(range(10), vocab_size=10, block_size=3, shuffle=False)
        >>> len(data), data[1]
        (3, (tensor([3, 4, 5]), tensor([4, 5, 6])))
    """

    def __init__(
        self,
        path: str | Path,
        split: str | None = None,
        *,
        block_size: int,
        stride: int | None = None,
        mode: str = "stream",
        shuffle: bool = True,
        verify: bool | None = None,
        vocab_size: int | None = None,
        dtype: str | None = None,
        eot_id: int | None = None,
    ) -> None:
        path = Path(path)
        if path.is_dir() or not path.suffix:
            refuse(path, "says them in its manifest.json", vocab_size=vocab_size, dtype=dtype, eot_id=eot_id)
            split = split or "train"
            opened = open_folder(path, split, verify)
        else:
            refuse(path, "is a single file, not a prepared folder", split=split, verify=verify or None)
            if path.suffix not in DOORS:
                raise ValueError(f"{path}: tokens lie in a prepared folder or in a file ending in {', '.join(DOORS)}")
            opened = DOORS[path.suffix](path, vocab_size, dtype, eot_id)
        self._set_up(opened, split, block_size, stride, mode, shuffle)

    @classmethod
    def from_tokens(
        cls,
        array: Any,
        *,
        vocab_size: int,
        block_size: int,
        stride: int | None = None,
        mode: str = "stream",
        shuffle: bool = True,
        eot_id: int | None = None,
        fingerprint: str | None = None,
        targets: Any = None,
    ) -> "TokenDataset":
        """A dataset of tokens in memory, which are not copied.

        Args:
            array: Integers, (n,): an array, a tensor on the CPU, or a sequence.
            vocab_size: Ids are below this.
            block_size: As for the class.
            stride: As for the class.
            mode: As for the class; "documents" needs `eot_id`.
            shuffle: As for the class.
            eot_id: Id that ends a document.
            fingerprint: That of the tokenizer that made the tokens.
            targets: Which tokens are to be learnt, bool (n,), for mode "documents"; None takes all.

        Raises:
            ValueError: As for the class, or an id is out of range.
        """
        tokens = as_tokens(array, "tokens")
        low, high = (int(tokens.min()), int(tokens.max())) if len(tokens) else (0, 0)
        if not 0 <= low <= high < vocab_size:
            raise ValueError(f"token ids must be from 0 to vocab_size - 1 ({vocab_size - 1}), found {low} to {high}")
        dataset = cls.__new__(cls)
        source = ArrayTokens(tokens, "tokens")
        opened = OpenTokens(
            tokens=source,
            name="tokens",
            vocab_size=vocab_size,
            eot_id=eot_id,
            fingerprint=fingerprint,
            targets=None if targets is None else _as_targets(targets, len(tokens), mode),
        )
        dataset._set_up(opened, None, block_size, stride, mode, shuffle)
        return dataset

    def _set_up(
        self, opened: OpenTokens, split: str | None, block_size: int, stride: int | None, mode: str, shuffle: bool
    ) -> None:
        if block_size < 1:
            raise ValueError(f"block_size must be at least 1, got {block_size}")
        stride = block_size if stride is None else stride
        if not 1 <= stride <= block_size:
            raise ValueError(f"stride must be from 1 to block_size ({block_size}), got {stride}")
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
        self.split, self.block_size, self.stride, self.mode, self.shuffle = split, block_size, stride, mode, shuffle
        self.vocab_size, self.eot_id, self.fingerprint = opened.vocab_size, opened.eot_id, opened.fingerprint
        self.n_tokens, self.n_documents, self.n_bytes = opened.tokens.n_tokens, opened.n_documents, opened.n_bytes
        self.folder = opened.folder
        self._tokens = opened.tokens
        self._targets: Targets | None = None
        self._kept: NDArray[np.int64] | None = None
        if mode == "documents":
            self._set_up_documents(opened)
        else:
            self._n_windows = max(0, (self.n_tokens - 1 - block_size) // stride + 1)
        if self._n_windows < 1:
            wanted = f"a window of block_size {block_size} takes {block_size + 1}"
            if mode == "documents":
                wanted = "no document has the two tokens that a target takes"
                wanted = wanted if self._targets is None else "none of them is a target"
            raise ValueError(
                f"{opened.name}: {self.n_tokens} tokens, but {wanted}; take more text or a smaller block_size"
            )

    def __len__(self) -> int:
        """Windows in an epoch."""
        return self._n_windows

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Window `index` in the order of the text, whatever `shuffle` says: x and y, each int64 (T,)."""
        place = operator.index(index)
        if not -len(self) <= place < len(self):
            raise IndexError(f"window {place} of {len(self)}")
        x, y = self._read(np.array([place % len(self)]))  # each (1, T)
        return x[0], y[0]

    @property
    def targets_per_window(self) -> float:
        """Targets of a window that count, on average over an epoch."""
        return self.block_size if self.mode == "stream" else self._targets_per_window

    @property
    def has_targets(self) -> bool:
        """Whether some tokens alone are to be learnt, as the answers in chats."""
        return self._targets is not None

    def in_vocabulary(self, vocab_size: int, fingerprint: str) -> "TokenDataset":
        """The same windows as those of a larger vocabulary in which every id means what it means here.

        Raises:
            ValueError: It is not larger.

        Example:
            >>> data = TokenDataset.from_tokens(range(9), vocab_size=9, block_size=2, fingerprint="ab")
            >>> data.in_vocabulary(13, "cd").vocab_size
            13
        """
        if vocab_size <= self.vocab_size:
            raise ValueError(f"vocab_size must be above the data's {self.vocab_size}, got {vocab_size}")
        same = copy.copy(self)
        same.vocab_size, same.fingerprint = vocab_size, fingerprint
        return same

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return (self[index] for index in range(len(self)))

    def batch(
        self, k: int, *, batch_size: int, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Batch `k` of the endless row of epochs, or one rank's part of it: a function of the arguments alone.

        Args:
            k: From 0; an epoch's edge may fall inside a batch, and no batch is short.
            batch_size: Windows in the batch of all ranks, B.
            seed: Seed of the orders.
            rank: Which part to take, from 0: rank 0 has the first `B / world_size` rows.
            world_size: Number of parts.

        Returns:
            Ids x and targets y, each int64 (B / world_size, T); targets of padding are -100.

        Raises:
            ValueError: `world_size` does not divide `batch_size`, or an argument is out of range.
            FormatError: A token id is not below `vocab_size`, or a file was cut short.

        Example:
            >>> data = TokenDataset.from_tokens(range(9), vocab_size=9, block_size=2, shuffle=False)
            >>> data.batch(1, batch_size=3)[0].tolist()
            [[6, 7], [0, 1], [2, 3]]
        """
        return self.take(*share_of(k, batch_size=batch_size, rank=rank, world_size=world_size), seed=seed)

    def take(self, first: int, count: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
        """The `count` windows from place `first` of the endless row on: x and y, each int64 (count, T)."""
        return self._read(self._windows(first, count, seed))

    def spans(self, first: int, count: int, *, seed: int = 0) -> list[Span]:
        """Where these windows lie."""
        starts, lengths = self._places(self._windows(first, count, seed))  # each (count,)
        rows, read = zip(starts.tolist(), lengths.tolist(), strict=True), self._tokens.read
        return [Span(folder=self.folder, split=self.split, start=n, ids=read(n, length - 1)) for n, length in rows]

    def tokens_at(self, position: int, count: int) -> NDArray[np.int64]:
        """So many tokens from a place on, int64 (count,)."""
        return np.asarray(self._tokens.read(position, count), np.int64)

    def _windows(self, first: int, count: int, seed: int) -> NDArray[np.int64]:
        """Numbers of the windows from place `first` of the endless row on, int64 (count,)."""
        epochs, places = range(first // len(self), (first + count - 1) // len(self) + 1), []
        for epoch in epochs:
            low, high = epoch * len(self), (epoch + 1) * len(self)
            run = np.arange(max(first, low) - low, min(first + count, high) - low)
            places.append(permute(run, len(self), seed=seed, epoch=epoch) if self.shuffle else run)
        return np.concatenate(places)

    def _repr_html_(self) -> str:
        place = "in memory" if self.folder is None else f"{self.folder}, {self.split}"
        rows = {"tokens": f"{self.n_tokens:,}, {place}"}
        rows |= {} if self.n_documents is None else {"documents": f"{self.n_documents:,}"}
        if self.n_bytes:
            rows["text"] = f"{self.n_bytes:,} bytes, {self.n_bytes / max(1, self.n_tokens):.3f} a token"
        rows["windows"] = f"{len(self):,} of {self.block_size:,} tokens, {self.stride:,} from one to the next"
        rows |= {
            "mode": f"{self.mode}, {'shuffled' if self.shuffle else 'in order'}",
            "vocab_size": f"{self.vocab_size:,}",
        }
        return table("TokenDataset", {**rows, "tokenizer": (self.fingerprint or "not known")[:16]})

    def memmap(self) -> NDArray[Any] | list[NDArray[Any]]:
        """The tokens, mapped and read-only when they lie in files: one array, or a list of one a shard when several."""
        arrays = self._tokens.arrays()
        return arrays[0] if len(arrays) == 1 else arrays

    def _read(self, windows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        starts, lengths = self._places(windows)  # each (B,)
        padding = 0 if self.eot_id is None else self.eot_id
        ids = np.full((len(windows), self.block_size + 1), padding, np.int64)  # (B, T + 1)
        for row, start, length in zip(ids, starts.tolist(), lengths.tolist(), strict=True):
            row[:length] = self._tokens.read(start, length)
        if ids.view(np.uint64).max() >= self.vocab_size:  # as unsigned numbers, negative ids are large
            self._refuse_ids(ids, starts)
        x, y = ids[:, :-1].copy(), ids[:, 1:].copy()  # each (B, T)
        if self.mode == "documents":
            y[np.arange(self.block_size) >= lengths[:, None] - 1] = IGNORED
        if self._targets is not None:
            for row, start, length in zip(y, starts.tolist(), lengths.tolist(), strict=True):
                row[: length - 1][~self._targets.read(start + 1, length - 1)] = IGNORED
        return torch.from_numpy(x), torch.from_numpy(y)

    def _places(self, windows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where windows start and how many tokens they have, at most T + 1."""
        if self.mode == "stream":
            return windows * self.stride, np.full(len(windows), self.block_size + 1)
        windows = windows if self._kept is None else self._kept[windows]
        document = np.searchsorted(self._first_windows, windows, side="right") - 1
        begin = np.where(document > 0, self._ends[document - 1], 0)
        starts = begin + (windows - self._first_windows[document]) * self.stride
        return starts, np.minimum(self.block_size + 1, self._ends[document] - starts)

    def _set_up_documents(self, opened: OpenTokens) -> None:
        """Each document's end in the stream (N,), and the windows before each and in all (N + 1,)."""
        self._ends = document_ends(opened)
        lengths = np.diff(self._ends, prepend=0) - 1  # that many tokens have one before them
        windows = np.where(lengths > 0, 1 + np.maximum(0, -((self.block_size - lengths) // self.stride)), 0)
        self._first_windows = np.concatenate([[0], np.cumsum(windows)])
        self._n_windows, self.n_documents = int(self._first_windows[-1]), len(self._ends)
        # All windows of a document but its last are full, and meet again what lies behind the stride.
        n_again = (self._n_windows - np.count_nonzero(windows)) * (self.block_size - self.stride)
        self._targets_per_window = (int(lengths.clip(0).sum()) + int(n_again)) / max(1, self._n_windows)
        if opened.targets is None:
            return
        self._targets = opened.targets
        starts, lengths = self._places(np.arange(self._n_windows))
        counts = count_targets(self._targets, starts + 1, starts + lengths)
        self._kept = np.flatnonzero(counts)  # a window without a target would be computed for nothing
        self._n_windows, self._targets_per_window = len(self._kept), float(counts.sum()) / max(1, len(self._kept))

    def _refuse_ids(self, ids: NDArray[np.int64], starts: NDArray[np.int64]) -> None:
        row, column = np.argwhere((ids < 0) | (ids >= self.vocab_size))[0].tolist()
        position = int(starts[row]) + column
        raise FormatError(
            f"{self._tokens.name_at(position)}: token id {ids[row, column]} at place {position} of the stream, but "
            f"vocab_size is {self.vocab_size}; write the shards again or give the right vocab_size"
        )


def _as_targets(targets: Any, n_tokens: int, mode: str) -> ArrayTargets:
    array = np.asarray(targets)
    if array.shape != (n_tokens,) or mode != "documents":
        raise ValueError(
            f"targets must have the shape ({n_tokens},) of the tokens, in mode documents, got {array.shape} in {mode}"
        )
    return ArrayTargets(array)
