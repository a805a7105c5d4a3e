import numpy as np
import pytest
from tinygpt.intervals import bootstrap_interval, ratio_interval, share_interval, student_quantile


@pytest.mark.parametrize(
    ("degrees", "quantile"),  # the table of Abramowitz and Stegun, 26.10
    [(1, 12.706), (2, 4.303), (3, 3.182), (5, 2.571), (10, 2.228), (30, 2.042), (120, 1.980), (10**6, 1.960)],
)
def test_student_quantiles_are_those_of_the_table(degrees: int, quantile: float) -> None:
    assert student_quantile(0.975, degrees) == pytest.approx(quantile, abs=4e-3)


def test_interval_of_equal_documents_is_a_mean_with_its_standard_error() -> None:
    values = np.array([1.0, 2.0, 4.0, 9.0])
    found = ratio_interval(values, np.ones(4))
    margin = 3.182 * values.std(ddof=1) / 2
    assert found is not None
    assert (found.low, found.high) == pytest.approx((4 - margin, 4 + margin), abs=0.01)


@pytest.mark.parametrize("n_documents", [0, 1])
def test_there_is_no_interval_below_two_documents(n_documents: int) -> None:
    assert ratio_interval([1.0, 0.0][: n_documents + 1], [n_documents, 0][: n_documents + 1]) is None


@pytest.mark.parametrize("n_documents", [10, 40, 200])
def test_the_interval_holds_the_truth_as_often_as_it_says(n_documents: int) -> None:
    """Documents of skewed lengths, each with a difficulty of its own; 1,500 draws tell how often."""
    draw = np.random.default_rng(n_documents)
    held = 0
    for _ in range(1500):
        tokens = np.ceil(draw.lognormal(4, 0.7, n_documents))
        nats = tokens * draw.gamma(25, 3.0 / 25, n_documents)  # 3 nats a token, a deviation of 0.6 between documents
        found = ratio_interval(nats, tokens)
        assert found is not None
        held += found.low <= 3.0 <= found.high
    assert 0.90 <= held / 1500 <= 0.97


def test_intervals_of_whole_documents_are_wider_than_those_of_tokens_would_be() -> None:
    draw = np.random.default_rng(0)
    per_document = draw.normal(3, 0.5, 50)
    found = ratio_interval(100 * per_document, np.full(50, 100))
    assert found is not None
    assert found.high - found.low == pytest.approx(2 * 2.01 * per_document.std(ddof=1) / 50**0.5, rel=0.01)


@pytest.mark.parametrize(
    ("above", "below", "low", "high"),
    # scipy 1.17.1: bootstrap((above, below), ratio of sums, paired=True, method="BCa", rng=default_rng(0))
    [
        ([-1.5, -3, -0.2, -9, 4, -2.2, -0.7, -12.5], [10, 22, 7, 60, 41, 18, 9, 55], -0.18285714286, 0.01956676277),
        ([1.0, 2.0], [3, 5], 0.33333333333333, 0.4),
        ([0.1, 0.2, 0.1, 7.5, 0.3, 0.2], [1, 2, 1, 30, 4, 3], 0.07857142857143, 0.24634146341463),
    ],
)  # fmt: skip
def test_the_bootstrap_is_that_of_scipy(above: list[float], below: list[int], low: float, high: float) -> None:
    found = bootstrap_interval(above, below)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-10)


def test_bootstrap_of_many_documents_is_that_of_the_delta_method() -> None:
    draw = np.random.default_rng(0)
    tokens = np.ceil(draw.lognormal(4, 0.7, 50_000))
    nats = tokens * draw.gamma(25, 3.0 / 25, 50_000)
    found, other = bootstrap_interval(nats, tokens), ratio_interval(nats, tokens)
    assert found is not None
    assert other is not None
    assert (found.low, found.high) == pytest.approx((other.low, other.high), abs=0.1 * (other.high - other.low))


@pytest.mark.parametrize("n_documents", [0, 1])
def test_there_is_no_bootstrap_below_two_documents(n_documents: int) -> None:
    assert bootstrap_interval([1.0, 0.0][: n_documents + 1], [n_documents, 0][: n_documents + 1]) is None


@pytest.mark.parametrize(
    ("n_hits", "n", "low", "high"),  # the intervals of Newcombe 1998, table I, method 3; the last is scipy's
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718),
     (29, 29, 0.8830, 1.0)],
)  # fmt: skip
def test_interval_of_a_share_is_that_of_the_table(n_hits: int, n: int, low: float, high: float) -> None:
    found = share_interval(n_hits, n)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("n", [1, 7, 8, 1000])
def test_the_interval_of_none_or_all_ends_exactly_there(n: int) -> None:
    none, every = share_interval(0, n), share_interval(n, n)
    assert (none.low, every.high) == (0.0, 1.0)
    assert (none.high > 0, every.low < 1) == (True, True)
