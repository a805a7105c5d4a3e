"""Confidence intervals: of a ratio of two sums over documents, and of a share."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVEL = 0.95
_N_DRAWS, _DRAWN_AT_ONCE = 9_999, 1 << 21
_MOST_DRAWN = 2_000  # of more documents, sums of some dealt out in turn are drawn: they vary as the documents do


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


def bootstrap_interval(above: ArrayLike, below: ArrayLike, *, level: float = LEVEL, seed: int = 0) -> Interval | None:
    """The interval of `sum(above) / sum(below)` by drawing documents anew; None below two documents.

    Unlike `ratio_interval` it follows a skewed figure, as the difference of two is: BCa, the bias-corrected and
    accelerated bootstrap, of 9,999 draws. The same seed gives the same interval.

    Args:
        above: What is divided, of each document (D,); for a paired difference, that of the pair.
        below: By what, likewise. Documents of 0 count nothing.
        level: Share of all draws whose interval holds the truth.
        seed: Of the draws.

    Example:
        >>> bootstrap_interval([2.0, 4.0, 6.0, 8.0], [1, 2, 3, 4])
        Interval(low=2.0, high=2.0)

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 14.3.
    """
    a, b = np.asarray(above, np.float64), np.asarray(below, np.float64)
    a, b = a[b > 0], b[b > 0]
    if len(b) < 2:
        return None
    if len(b) > _MOST_DRAWN:
        turns = np.arange(len(b)) % _MOST_DRAWN
        a, b = (np.bincount(turns, each, _MOST_DRAWN).astype(np.float64) for each in (a, b))
    ratio, drawn = float(a.sum() / b.sum()), _drawn_ratios(a, b, np.random.default_rng(seed))
    if np.ptp(drawn) <= 1e-12 * abs(ratio):
        return Interval(low=ratio, high=ratio)
    share = float((drawn < ratio).mean() + (drawn <= ratio).mean()) / 2
    normal, least = NormalDist(), 0.5 / _N_DRAWS
    bias = normal.inv_cdf(min(max(share, least), 1 - least))
    left_out = (a.sum() - a) / (b.sum() - b)  # (D,): the ratio without each
    pull = left_out.mean() - left_out
    acceleration = float((pull**3).sum() / (6 * (pull**2).sum() ** 1.5))
    ends = []
    for p in ((1 - level) / 2, (1 + level) / 2):
        z = bias + normal.inv_cdf(p)
        ends.append(float(np.quantile(drawn, normal.cdf(bias + z / (1 - acceleration * z)))))
    return Interval(low=ends[0], high=ends[1])


def _drawn_ratios(a: NDArray[np.float64], b: NDArray[np.float64], draw: np.random.Generator) -> NDArray[np.float64]:
    """The ratio of as many documents, drawn with replacement, again and again."""
    found, size = [], max(1, _DRAWN_AT_ONCE // len(b))
    for first in range(0, _N_DRAWS, size):
        chosen = draw.integers(0, len(b), (min(size, _N_DRAWS - first), len(b)))
        found.append(a[chosen].sum(axis=1) / b[chosen].sum(axis=1))
    return np.concatenate(found)


def share_interval(n_hits: int, n: int, *, level: float = LEVEL) -> Interval:
    """The interval of a share, `n_hits` of `n` that are independent, by Wilson: none is of width 0, none leaves 0 to 1.

    Args:
        n_hits: How many have something.
        n: Of how many, one at least.
        level: Share of all draws whose interval holds the truth.

    Example:
        >>> found = share_interval(10, 10)
        >>> round(found.low, 3), found.high
        (0.722, 1.0)

    Source: Wilson 1927, Probable inference, the law of succession, and statistical inference.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    middle, margin = n_hits + z * z / 2, z * math.sqrt(n_hits * (n - n_hits) / n + z * z / 4)
    low, high = (middle - margin) / (n + z * z), (middle + margin) / (n + z * z)
    return Interval(low=low if n_hits else 0.0, high=high if n_hits < n else 1.0)


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
