"""Ids as callers give them, lists or arrays: checked, each refused by its place."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Ids = Sequence[int] | npt.NDArray[np.integer[Any]]
"""A row of whole numbers."""


def single(id: int) -> int:
    """One id as a plain int.

    Raises:
        TypeError: It is no whole number.
        ValueError: It is negative or has more than 32 bits.
    """
    if isinstance(id, bool) or not isinstance(id, int | np.integer):
        raise TypeError(f"an id must be a whole number, got {type(id).__name__}")
    if not 0 <= id < 2**32:
        raise ValueError(f"id {id} is not in the vocabulary")
    return int(id)


def as_uint32(ids: Ids) -> npt.NDArray[np.uint32]:
    """Ids as one contiguous row of uint32, without a copy where they are that already.

    Raises:
        TypeError: One is no whole number; the message says which, and where.
        ValueError: One is negative or has more than 32 bits, or they are not one row.
    """
    array = np.asarray(ids)
    if array.ndim != 1:
        raise ValueError(f"ids must be one row of whole numbers, got an array of shape {array.shape}")
    if array.size == 0:
        return np.zeros(0, dtype=np.uint32)
    if array.dtype.kind not in "iu":
        place = next((i for i, item in enumerate(ids) if not isinstance(item, int | np.integer)), 0)
        raise TypeError(f"ids must be whole numbers, got {ids[place]!r} at place {place}")
    if array.dtype.kind == "i" or array.dtype.itemsize > 4:
        wrong = np.flatnonzero((array < 0) | (array >= 2**32))
        if wrong.size:
            raise ValueError(f"id {array[wrong[0]]} at place {wrong[0]} is not in the vocabulary")
    return np.ascontiguousarray(array, dtype=np.uint32)
