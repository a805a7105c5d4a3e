"""Rows of ids as one rectangle."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt


def padded_batch(
    rows: Sequence[Sequence[int]],
    *,
    pad_id: int,
    max_length: int | None = None,
    side: Literal["left", "right"] = "right",
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Ids int64 (B, T), and where they are text and not padding, bool (B, T).

    Args:
        rows: The ids of each row.
        pad_id: What fills up.
        max_length: Longer rows lose their end; None makes T the longest row's length.
        side: Where the padding goes.

    Raises:
        ValueError: `side` or `max_length` is out of range.

    Example:
        >>> padded_batch([[5, 6], [7]], pad_id=0)[0].tolist()
        [[5, 6], [7, 0]]
    """
    if side not in ("left", "right"):
        raise ValueError(f"side must be left or right, got {side!r}")
    if max_length is not None and max_length < 1:
        raise ValueError(f"max_length must be at least 1, got {max_length}")
    rows = [row[:max_length] for row in rows]
    width = max(map(len, rows), default=0)
    ids = np.full((len(rows), width), pad_id, dtype=np.int64)  # (B, T)
    mask = np.zeros((len(rows), width), dtype=np.bool_)  # (B, T)
    for i, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        ids[i, place] = row
        mask[i, place] = True
    return ids, mask
