"""A model beside something else that predicts or compresses the same documents: better, worse, or not told apart."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinygpt.intervals import Interval, bootstrap_interval, ratio_interval

LEAST_DRAWN = 20
"""Documents from which on the interval is a bootstrap's: of fewer it is too narrow, and Student's is taken."""
BETTER, WORSE, NOT_TOLD_APART = "better", "worse", "not told apart"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How a model stands to another on the same documents."""

    difference: float
    """Bits per byte of the model less those of the other: below 0 the model is better."""
    interval: Interval | None
    """95 % interval of the difference over documents, drawn in pairs; None below two documents."""
    finding: str
    """`better`, `worse`, or `not told apart` where 0 is within the interval; without one the difference decides."""


def compare(nats: NDArray[np.float64], bits: NDArray[np.float64], n_bytes: NDArray[np.int64]) -> Comparison | None:
    """A model beside another, document by document; None where there are no bytes.

    Args:
        nats: What each of D documents costs the model, (D,).
        bits: What it costs the other, (D,).
        n_bytes: Bytes of each, (D,).

    Example:
        >>> compare(np.log([2, 2, 4]), np.array([2.0, 2.0, 3.0]), np.array([1, 1, 1])).finding
        'better'
    """
    total = int(n_bytes.sum())
    if not total:
        return None
    apart = nats / math.log(2) - bits  # (D,)
    difference = float(apart.sum()) / total
    interval_of = bootstrap_interval if np.count_nonzero(n_bytes) >= LEAST_DRAWN else ratio_interval
    interval = interval_of(apart, n_bytes)
    low, high = (difference, difference) if interval is None else (interval.low, interval.high)
    finding = BETTER if high < 0 else WORSE if low > 0 else NOT_TOLD_APART
    return Comparison(difference=difference, interval=interval, finding=finding)
