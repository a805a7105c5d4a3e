import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_kneserney import ReferenceKneserNey
from tinygpt.kneserney import KneserNey


def test_a_case_by_hand() -> None:
    """0 1 0 1 0 2 in pairs: 01 twice, 10 twice, 02 once; no pair counts 3, so the discounts are 0.5, 1, 1.5.

    Each token has one other before it, so singles have 1/3 less half of that, and the half back: 1/3 each. Of 0's
    three followers 1 keeps 2 - 1 of 3, and 1 + 0.5 of 3 is shared out by thirds: 1/3 + 1/6. Of 1's two, 0 keeps
    2 - 1 of 2, and 1 of 2 is shared out: 1/2 + 1/6.
    """
    found = KneserNey([0, 1, 0, 1, 0, 2], vocab_size=3, order=2).nats([0, 1, 0])
    assert np.exp(-found) == pytest.approx([1 / 3, 1 / 2, 2 / 3])


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=60),
    st.lists(st.integers(0, 4), max_size=12),
    st.integers(1, 5),
)
def test_it_is_the_reference(tokens: list[int], text: list[int], order: int) -> None:
    reference = ReferenceKneserNey(tokens, 5, order)
    wanted = [-math.log(reference.probability(tuple(text[:i]), text[i])) for i in range(len(text))]
    assert KneserNey(tokens, vocab_size=5, order=order).nats(text).tolist() == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("order", [1, 3, 5])
def test_it_is_the_reference_where_discounts_are_estimated(order: int) -> None:
    draw = np.random.default_rng(0)
    tokens, text = draw.zipf(1.3, 8000) % 2000, draw.zipf(1.3, 200) % 2000
    reference = ReferenceKneserNey(tokens.tolist(), 2000, order)
    assert reference.discounts[order] != (0.5, 1.0, 1.5)
    wanted = [-math.log(reference.probability(tuple(text[:i].tolist()), int(text[i]))) for i in range(len(text))]
    assert KneserNey(tokens, vocab_size=2000, order=order).nats(text).tolist() == pytest.approx(wanted, rel=1e-9)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.lists(st.integers(0, 3), max_size=5))
def test_probabilities_after_any_context_add_up_to_one(tokens: list[int], context: list[int]) -> None:
    model = KneserNey(tokens, vocab_size=4, order=4)
    assert sum(math.exp(-model.nats([*context, i])[-1]) for i in range(4)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("tokens", "order", "message"),
    [
        ([], 5, "an n-gram model needs at least one token, got none"),
        ([0, 7], 5, "tokens must be from 0 to 6, found 0 to 7"),
        ([0], 0, "order must be at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_refused(tokens: list[int], order: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KneserNey(tokens, vocab_size=7, order=order)
