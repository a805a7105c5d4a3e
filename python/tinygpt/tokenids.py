"""Ids and texts as callers give them: checked, each refused by its place."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Ids = Sequence[int] | npt.NDArray[np.integer[Any]]
"""A row of whole numbers."""

T = TypeVar("T")

_NO_IDS = frozenset([bool, np.bool_])  # numpy takes them for numbers
_SHOWN = 40


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
    try:
        array = np.asarray(ids)
    except ValueError:  # rows of several lengths
        array = np.asarray([None])
    if array.ndim == 0:
        raise TypeError(f"ids must be one row of whole numbers, got {type(ids).__name__}")
    if array.ndim != 1:
        raise ValueError(f"ids must be one row of whole numbers, got an array of shape {array.shape}")
    if array.size == 0:
        return np.zeros(0, dtype=np.uint32)
    if array.dtype.kind not in "iu" or (isinstance(ids, list | tuple) and not _NO_IDS.isdisjoint(map(type, ids))):
        raise _fault(ids)
    if array.dtype.kind == "i" or array.dtype.itemsize > 4:
        wrong = np.flatnonzero((array < 0) | (array >= 2**32))
        if wrong.size:
            raise ValueError(f"id {array[wrong[0]]} at place {wrong[0]} is not in the vocabulary")
    return np.ascontiguousarray(array, dtype=np.uint32)


def given_text(text: str) -> str:
    """A text, as it is.

    Raises:
        TypeError: It is none.
    """
    if not isinstance(text, str):
        raise TypeError(f"text must be a str, got {type(text).__name__}")
    return text


def given_texts(texts: Iterable[str]) -> list[str]:
    """Texts as a list.

    Raises:
        TypeError: One is no str, with its place; or they are one str, whose characters were hardly meant.
    """
    rows = list(given_rows(texts, "texts", "str"))
    if set(map(type, rows)) - {str}:
        for i, text in enumerate(rows):
            if not isinstance(text, str):
                raise TypeError(f"texts[{i}] must be a str, got {type(text).__name__}")
    return rows


def given_rows(rows: Iterable[T], name: str, kind: str) -> Iterable[T]:
    """Rows of a batch, as they are.

    Raises:
        TypeError: They are no iterable, or a str or bytes.
    """
    if isinstance(rows, str | bytes):
        shown = repr(rows if len(rows) <= _SHOWN else rows[:_SHOWN]) + ("..." if len(rows) > _SHOWN else "")
        raise TypeError(f"{name} must be a list of {kind}, got the {type(rows).__name__} {shown}")
    if not isinstance(rows, Iterable):
        raise TypeError(f"{name} must be a list of {kind}, got {type(rows).__name__}")
    return rows


def _fault(ids: Ids) -> Exception:
    """What is wrong with ids that numpy made no row of whole numbers of."""
    for place, item in enumerate(ids):
        if isinstance(item, bool) or not isinstance(item, int | np.integer):
            return TypeError(f"ids must be whole numbers, got {item!r} at place {place}")
        if not 0 <= item < 2**32:
            return ValueError(f"id {item} at place {place} is not in the vocabulary")
    return TypeError(f"ids must be whole numbers, got {type(ids).__name__}")
