"""Whose turn it is: exact shares of every beginning, and a turn that needs no other."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tinygpt.turns import Turns

weights = st.lists(st.integers(1, 1000) | st.floats(0.001, 1000, allow_nan=False), min_size=1, max_size=9)


@given(weights)
def test_a_turn_is_counted_by_the_turns_before_it(w: list[float]) -> None:
    turns, had = Turns(w), [0] * len(w)
    for n in range(200):
        source, before = turns.at(n)
        assert before == had[source]
        had[source] += 1


@given(weights)
def test_every_beginning_has_the_exact_proportions(w: list[float]) -> None:
    turns, had, levels = Turns(w), [0] * len(w), (len(w) - 1).bit_length()
    bound = {0: Fraction(0), 1: Fraction(1, 2)}.get(levels, Fraction(levels, 2))
    for n in range(1, 300):
        had[turns.at(n - 1)[0]] += 1
        farthest = max(abs(count - n * share) for count, share in zip(had, turns.shares, strict=True))
        assert farthest <= bound if levels < 2 else farthest < bound


@given(st.lists(st.integers(1, 30), min_size=1, max_size=9))
def test_a_whole_period_gives_each_source_its_weight(w: list[int]) -> None:
    turns = Turns(w)
    found = [turns.at(n)[0] for n in range(sum(w))]
    assert [found.count(i) for i in range(len(w))] == w


@given(weights, st.integers(0, 10**15))
def test_far_turns_are_near_their_share(w: list[float], n: int) -> None:
    turns = Turns(w)
    source, before = turns.at(n)
    assert abs(before - n * turns.shares[source]) < 2  # ceil(log2(9)) / 2


def test_decimals_are_what_is_written() -> None:
    assert Turns([0.7, 0.3]).shares == (Fraction(7, 10), Fraction(3, 10)) == Turns([7, 3]).shares


@pytest.mark.parametrize("wrong", [[], [1, 0], [1, -2], [float("nan")], [float("inf"), 1]])
def test_weights_that_are_none_are_refused(wrong: list[float]) -> None:
    with pytest.raises(ValueError, match="weights must be numbers above 0, got "):
        Turns(wrong)
