"""A model beside another on the same documents: what is said follows the interval of the pairs."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from tinygpt.comparison import LEAST_DRAWN, compare
from tinygpt.intervals import Interval, bootstrap_interval, ratio_interval

SIZES = np.array([100, 40, 250, 80, 120, 60, 30, 200])
WAVES = np.array([1.0, -1.0] * 4)


@pytest.mark.parametrize(
    ("apart", "noise", "finding"),
    [(-0.2, 0.1, "better"), (0.2, 0.1, "worse"), (-0.02, 0.1, "not told apart"), (0.02, 0.1, "not told apart")],
)
@pytest.mark.parametrize("n", [1, 5], ids=["8 documents", "40 documents"])
def test_a_difference_counts_where_its_interval_leaves_out_0(apart: float, noise: float, finding: str, n: int) -> None:
    sizes, waves = np.tile(SIZES, n), np.tile(WAVES, n) * n**0.5
    other = sizes * 3.0
    found = compare((other + sizes * (apart + noise * waves)) * math.log(2), other, sizes)
    assert found is not None
    assert (found.finding, found.interval is not None and found.interval.low < found.difference) == (finding, True)


def test_pairs_are_told_apart_where_two_separate_intervals_are_not() -> None:
    hard = SIZES * np.array([1.0, 5.0, 2.0, 4.0, 1.5, 4.5, 3.0, 2.5])  # documents differ far more than the two models
    found = compare((hard - 0.01 * SIZES * (1 + 0.1 * WAVES)) * math.log(2), hard, SIZES)
    assert found is not None
    assert (found.finding, round(found.difference, 3)) == ("better", -0.01)


@pytest.mark.parametrize(("n", "interval_of"), [(LEAST_DRAWN - 1, ratio_interval), (LEAST_DRAWN, bootstrap_interval)])
def test_a_bootstrap_is_drawn_of_twenty_documents_on(n: int, interval_of: Callable[..., Interval | None]) -> None:
    draw = np.random.default_rng(0)
    nats, sizes = draw.gamma(4, 3.0, n + 3), draw.integers(1, 40, n + 3)
    sizes[:3] = 0  # documents without bytes are none of them
    found = compare(nats * math.log(2), np.zeros(n + 3), sizes)
    assert found is not None
    assert (LEAST_DRAWN, found.interval) == (20, interval_of(nats, sizes))


def test_of_one_document_the_difference_decides() -> None:
    found = compare(np.array([70.0]), np.array([99.0]), np.array([50]))
    assert found is not None
    assert (found.finding, found.interval) == ("worse", None)


def test_without_bytes_there_is_no_comparison() -> None:
    assert compare(np.ones(2), np.ones(2), np.zeros(2, np.int64)) is None
