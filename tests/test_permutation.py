import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tinygpt.permutation import permute

seeds = st.integers(-(2**70), 2**70)


@given(st.integers(1, 3000), seeds, st.integers(0, 2**40))
def test_order_holds_every_number_once(n: int, seed: int, epoch: int) -> None:
    assert sorted(permute(np.arange(n), n, seed=seed, epoch=epoch).tolist()) == list(range(n))


@given(st.integers(1, 2**62), seeds, st.integers(0, 9), st.integers(0, 2**62))
def test_a_place_alone_holds_what_it_holds_in_a_batch(n: int, seed: int, epoch: int, place: int) -> None:
    places = np.array([0, place % n, n - 1])
    together = permute(places, n, seed=seed, epoch=epoch)
    alone = permute(places[1:2], n, seed=seed, epoch=epoch)
    assert (int(together[1]), True) == (int(alone[0]), bool((together >= 0).all() and (together < n).all()))


def test_seed_and_epoch_each_change_the_order() -> None:
    orders = {tuple(permute(np.arange(50), 50, seed=s, epoch=e).tolist()) for s in range(20) for e in range(20)}
    assert len(orders) == 400


@pytest.mark.parametrize("n", [2, 3, 5, 24])
def test_every_number_comes_first_equally_often(n: int) -> None:
    first = [int(permute(np.array([0]), n, seed=seed, epoch=0)[0]) for seed in range(100 * n)]
    counts = np.bincount(first, minlength=n)
    chi_squared = float(((counts - 100) ** 2 / 100).sum())
    assert chi_squared < n - 1 + 5 * (2 * (n - 1)) ** 0.5  # five deviations above the mean, and the seeds are fixed


def test_neighbours_do_not_stay_together() -> None:
    order = permute(np.arange(100_000), 100_000, seed=0, epoch=0)
    distance = np.abs(np.diff(order)).mean() / 100_000
    assert distance == pytest.approx(1 / 3, abs=0.005)
