"""Confidence intervals of a ratio of two sums over documents."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Where a figure of the whole population lies, at the confidence `LEVEL`."""

    low: float
    high: float


def ratio_interval(above: ArrayLike, below: ArrayLike, *, level: float = LEVEL) -> Interval | None:
    """The interval of `sum(above) / sum(below)` were other documents of the same kind drawn; None below two documents.

    The delta method: with r the ratio and e = above - r below the residuals of D documents, the variance of r is
    D / (D - 1) sum(e^2) / sum(below)^2, and the ends are r -/+ t times its root, t being Student's quantile with D - 1
    degrees of freedom.

    Args:
        above: What is divided, of each document (D,): nats, or hits.
        below: By what, likewise: tokens, or bytes. Documents of 0 count nothing.
        level: Share of all draws whose interval holds the truth.

    Example:
        >>> ratio_interval([2.0, 4.0, 6.0, 8.0], [1, 2, 3, 4])
        Interval(low=2.0, high=2.0)

    Source: Cochran 1977, Sampling Techniques, section 6.4, without the correction for a finite population.
    """
    a, b = np.asarray(above, np.float64), np.asarray(below, np.float64)
    a, b = a[b > 0], b[b > 0]
    n, total = len(b), float(b.sum())
    if n < 2:
        return None
    ratio = float(a.sum()) / total
    residuals = a - ratio * b
    deviation = math.sqrt(n / (n - 1) * float(residuals @ residuals)) / total
    margin = student_quantile((1 + level) / 2, n - 1) * deviation
    return Interval(low=ratio - margin, high=ratio + margin)


def student_quantile(p: float, degrees: int) -> float:
    """The p-quantile of Student's t, to a thousandth from 3 degrees of freedom on; exact for 1 and 2.

    Example:
        >>> round(student_quantile(0.975, 1), 2), round(student_quantile(0.975, 10), 3)
        (12.71, 2.228)

    Source: Abramowitz and Stegun 1964, 26.7.5.
    """
    if degrees == 1:
        return math.tan(math.pi * (p - 0.5))
    if degrees == 2:
        return (2 * p - 1) * math.sqrt(2 / (4 * p * (1 - p)))
    x, v = NormalDist().inv_cdf(p), degrees
    terms = (
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
        (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160,
    )
    return x + sum(term / float(v) ** (i + 1) for i, term in enumerate(terms))
