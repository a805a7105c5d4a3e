"""Sampling: hand-computed distributions, laws, and transformers' own filters as the oracle."""

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tinygpt.sampling import History, Sampling, distribution, keep_top_k, keep_top_p, sample
from torch.testing import assert_close

# Probabilities 0.4, 0.3, 0.2, 0.1 of tokens 2, 0, 3, 1.
LOGITS = torch.tensor([0.3, 0.1, 0.4, 0.2]).log() + 7
LOGIT_LISTS = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=30)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, [0.3, 0.1, 0.4, 0.2]),
        ({"temperature": 0.0}, [0, 0, 1, 0]),
        ({"temperature": 0.5}, [0.3, 1 / 30, 16 / 30, 4 / 30]),  # squares over their sum
        ({"temperature": 1e-40}, [0, 0, 1, 0]),
        ({"top_k": 0}, [0.3, 0.1, 0.4, 0.2]),
        ({"top_k": 2}, [3 / 7, 0, 4 / 7, 0]),
        ({"top_k": 99}, [0.3, 0.1, 0.4, 0.2]),
        ({"top_p": 0.35}, [0, 0, 1, 0]),
        ({"top_p": 0.65}, [3 / 7, 0, 4 / 7, 0]),
        ({"top_p": 0.75}, [3 / 9, 0, 4 / 9, 2 / 9]),
        ({"min_p": 0.6}, [3 / 7, 0, 4 / 7, 0]),
        ({"min_p": 1.0}, [0, 0, 1, 0]),
        # In this order: squares 16 9 4 1; three of them, 16 9 4 of 29; 25 / 29 = 0.86 is the first share above 0.7.
        ({"temperature": 0.5, "top_k": 3, "top_p": 0.7}, [9 / 25, 0, 16 / 25, 0]),
        ({"top_k": 3, "min_p": 0.6}, [3 / 7, 0, 4 / 7, 0]),
        # The expected surprise is 1.28 nats; those of 0.3, 0.4, 0.2 and 0.1 are off by 0.08, 0.36, 0.33 and 1.02.
        ({"typical_p": 0.2}, [1, 0, 0, 0]),
        ({"typical_p": 0.4}, [3 / 5, 0, 0, 2 / 5]),
        ({"typical_p": 0.6}, [3 / 9, 0, 4 / 9, 2 / 9]),
        ({"logit_bias": {2: -math.inf, 9: 1.0}}, [3 / 6, 1 / 6, 0, 2 / 6]),
        ({"logit_bias": {1: math.log(3.9)}, "temperature": 0.0}, [0, 0, 1, 0]),
        ({"logit_bias": {1: math.log(5)}, "temperature": 0.0}, [0, 1, 0, 0]),
    ],
)
def test_a_distribution_is_the_one_computed_by_hand(options: dict[str, Any], wanted: list[float]) -> None:
    assert_close(distribution(LOGITS, Sampling(**options)), torch.tensor(wanted, dtype=torch.float32))


def test_the_penalty_comes_before_the_temperature() -> None:
    logits, seen = torch.tensor([2.0, -1.0, 1.5]), torch.tensor([True, True, False])
    found = distribution(logits, Sampling(repetition_penalty=2.0, temperature=0.5), history=History(seen=seen))
    assert_close(found, torch.tensor([2.0, -4.0, 3.0]).softmax(-1))
    assert distribution(
        logits, Sampling(repetition_penalty=2.0, temperature=0.0), history=History(seen=seen)
    ).tolist() == [0, 0, 1]


def test_presence_and_frequency_count_what_was_drawn() -> None:
    history = History(drawn=torch.tensor([0.0, 1.0, 2.0]))
    logits, sampling = torch.tensor([1.0, 1.0, 1.0]), Sampling(presence_penalty=0.5, frequency_penalty=0.25)
    assert_close(distribution(logits, sampling, history=history), torch.tensor([1.0, 0.25, 0.0]).softmax(-1))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.01, 0.999), st.floats(0.05, 6))
def test_top_p_of_a_large_vocabulary_is_that_of_sorting_all(seed: int, p: float, spread: float) -> None:
    logits = torch.randn(2, 3000, generator=torch.Generator().manual_seed(seed)) * spread
    descending, ids = logits.sort(dim=-1, descending=True)
    shares = descending.double().softmax(-1)
    is_kept = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, ids, shares.cumsum(-1) - shares < p)
    found = keep_top_p(logits, p) > -math.inf
    assert (found != is_kept).sum() <= 2  # at the edge rounding decides


@given(LOGIT_LISTS, st.integers(1, 40))
def test_top_k_keeps_exactly_k(values: list[float], k: int) -> None:
    kept = keep_top_k(torch.tensor(values), k)
    assert sorted(kept[kept > -math.inf].tolist()) == sorted(torch.tensor(values).tolist())[-k:]


@given(LOGIT_LISTS, st.floats(0.01, 1))
def test_top_p_keeps_the_fewest_that_hold_p(values: list[float], p: float) -> None:
    logits = torch.tensor(values).double()
    kept = logits.softmax(-1)[keep_top_p(logits, p) > -math.inf]
    share = kept.sum().item()
    assert share >= p - 1e-9
    assert share - kept.min().item() < p + 1e-9


@given(
    LOGIT_LISTS,
    st.floats(0.1, 5),
    st.integers(0, 40),
    st.floats(0.05, 1),
    st.floats(0, 1),
    st.floats(0.5, 3),
    st.data(),
)
def test_every_setting_gives_a_distribution(
    values: list[float], temperature: float, k: int, p: float, min_p: float, penalty: float, data: st.DataObject
) -> None:
    seen = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values))))
    sampling = Sampling(temperature=temperature, top_k=k, top_p=p, min_p=min_p, repetition_penalty=penalty)
    found = distribution(torch.tensor(values), sampling, history=History(seen=seen))
    assert found.sum().item() == pytest.approx(1, abs=1e-5)
    assert (found >= 0).all()


@settings(deadline=None)  # the first call imports transformers
@given(
    st.lists(st.integers(-200, 200), min_size=2, max_size=20, unique=True),
    st.sampled_from([0.5, 1.0, 1.7]),
    st.integers(0, 25),
    st.sampled_from([0.31, 0.62, 0.93, 1.0]),
    st.sampled_from([0.0, 0.07, 0.51]),
    st.booleans(),
)
def test_the_filters_agree_with_those_of_transformers(
    values: list[int], temperature: float, k: int, p: float, min_p: float, typical: bool
) -> None:
    filters = pytest.importorskip("transformers").generation.logits_process
    logits = torch.tensor([values]) / 40
    chain = [filters.RepetitionPenaltyLogitsProcessor(1.3), filters.TemperatureLogitsWarper(temperature)]
    chain += [filters.TopKLogitsWarper(k)] if k else []
    chain += [filters.TopPLogitsWarper(p)] if p < 1 else []
    chain += [filters.MinPLogitsWarper(min_p)] if min_p else []
    chain += [filters.TypicalLogitsWarper(0.6)] if typical else []
    scores = logits
    for each in chain:
        scores = each(torch.tensor([[0, 1]]), scores)
    wanted = scores.softmax(-1)
    assume(((wanted / wanted.max() - min_p).abs() > 1e-4).all() or not min_p)  # not on the edge, where rounding decides
    seen = torch.arange(len(values))[None] < 2
    sampling = Sampling(
        temperature=temperature,
        top_k=k,
        top_p=p,
        min_p=min_p,
        repetition_penalty=1.3,
        typical_p=0.6 if typical else 1.0,
    )
    assert_close(distribution(logits, sampling, history=History(seen=seen)), wanted)


@pytest.mark.parametrize("shape", [(7,), (3, 7), (2, 3, 7)])
@pytest.mark.parametrize("options", [{}, {"temperature": 0.0}, {"top_k": 2, "top_p": 0.5, "min_p": 0.1}])
def test_every_public_shape(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    logits, seen, sampling = torch.randn(shape), torch.zeros(shape, dtype=torch.bool), Sampling(**options)
    assert distribution(logits, sampling, history=History(seen=seen)).shape == shape
    found = sample(logits, sampling, history=History(seen=seen))
    assert (found.shape, found.dtype) == (shape[:-1], torch.int64)


def test_the_same_generator_state_draws_the_same() -> None:
    logits = torch.randn(20, 50)
    draws = [sample(logits, Sampling(), generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_draws_follow_the_distribution() -> None:
    drawn = sample(LOGITS.expand(20000, 4), Sampling(top_k=3), generator=torch.Generator().manual_seed(0))
    found = torch.bincount(drawn, minlength=4) / 20000
    assert_close(found, torch.tensor([3, 0, 4, 2]) / 9, rtol=0, atol=0.015)  # four deviations


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "temperature must be 0 .* or above, got -0.1"),
        ({"temperature": math.nan}, "temperature .* got nan"),
        ({"temperature": math.inf}, "temperature .* got inf"),
        ({"top_k": -1}, "top_k must be a whole number, .* got -1"),
        ({"top_k": 1.5}, "top_k .* got 1.5"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1 .* got 0.0"),
        ({"top_p": 1.01}, "top_p .* got 1.01"),
        ({"min_p": 1.5}, "min_p must be from 0 .* got 1.5"),
        ({"typical_p": 0.0}, "typical_p must be above 0 .* got 0.0"),
        ({"presence_penalty": 2.5}, "presence_penalty must be from -2 to 2 .* got 2.5"),
        ({"frequency_penalty": math.nan}, "frequency_penalty .* got nan"),
        ({"logit_bias": {-1: 1.0}}, "logit_bias must map ids to numbers below infinity, got -1: 1.0"),
        ({"logit_bias": {1: math.inf}}, "logit_bias .* got 1: inf"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be above 0 .* got 0.0"),
    ],
)
def test_a_setting_out_of_range_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampling(**options)


def test_mixtures_never_keep_nothing() -> None:
    for k, p, min_p in itertools.product((0, 1, 3), (1e-9, 0.5, 1.0), (0.0, 1.0)):
        assert distribution(LOGITS, Sampling(top_k=k, top_p=p, min_p=min_p)).sum() == pytest.approx(1)
