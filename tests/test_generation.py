"""Streams: what a request gets does not depend on who else is there."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tinygpt.decoder import decoder_for
from tinygpt.generation import Request, Streams, continuation
from tinygpt.model import GPT, GPTConfig
from tinygpt.sampling import Sampling
from torch.testing import assert_close


def gpt() -> GPT:
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=31, block_size=12, n_layer=2, n_head=2, d_model=32)).eval()
    with torch.no_grad():
        model.token_embedding.weight.mul_(20)
    return model


MODEL = gpt()
REQUESTS = st.builds(
    Request,
    ids=st.lists(st.integers(0, 30), min_size=1, max_size=11),
    max_new_tokens=st.integers(0, 20),
    seed=st.integers(0, 99),
    stop=st.just(frozenset({7})),
    n_ids=st.sampled_from([None, 29]),
    sampling=st.builds(
        Sampling,
        temperature=st.sampled_from([0.0, 0.7, 1.0]),
        top_k=st.sampled_from([0, 5]),
        top_p=st.sampled_from([1.0, 0.8]),
        repetition_penalty=st.sampled_from([1.0, 1.2]),
        frequency_penalty=st.sampled_from([0.0, 0.5]),
        logit_bias=st.sampled_from([{}, {3: 2.0}]),
    ),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), REQUESTS), min_size=1, max_size=6), st.integers(1, 4))
def test_a_request_gets_what_it_gets_alone(arrivals: list[tuple[int, Request]], n_slots: int) -> None:
    streams, got, waiting = Streams(decoder_for(MODEL, n_slots=n_slots, dtype="bfloat16")), {}, list(arrivals)
    places: dict[Any, int] = {}
    while waiting or streams.n_active:
        while waiting and streams.n_active < n_slots:
            pause, request = waiting.pop(0)
            places[streams.add(request)] = len(places)
            got[len(places) - 1] = list[int]()
            for _ in range(pause):
                for drawn in streams.step():
                    got[places[drawn.stream]] += [] if drawn.id is None else [drawn.id]
        for drawn in streams.step():
            got[places[drawn.stream]] += [] if drawn.id is None else [drawn.id]
    wanted = [list(continuation(decoder_for(MODEL, dtype="bfloat16"), request)) for _, request in arrivals]
    assert [got[i] for i in range(len(arrivals))] == wanted


def test_logprobs_are_those_of_the_model_before_the_settings() -> None:
    request = Request(
        ids=[1, 2], max_new_tokens=1, seed=0, n_logprobs=3, sampling=Sampling(temperature=0.3, logit_bias={4: 50.0})
    )
    streams = Streams(decoder_for(MODEL))
    streams.add(request)
    [drawn] = streams.step()
    wanted = MODEL(torch.tensor([[1, 2]]))[0, -1].log_softmax(-1)
    assert (drawn.id, drawn.finish) == (4, "length")
    assert drawn.logprob is not None
    assert_close(torch.tensor(drawn.logprob), wanted[4].detach(), rtol=1e-4, atol=1e-4)
    assert [i for i, _ in drawn.top] == wanted.topk(3).indices.tolist()


def test_a_stop_id_ends_a_stream_and_frees_its_slot() -> None:
    streams = Streams(decoder_for(MODEL))
    stream = streams.add(Request(ids=[1], max_new_tokens=5, stop=frozenset(range(31))))
    [drawn] = streams.step()
    assert (drawn.stream, drawn.id, drawn.finish, streams.n_active) == (stream, None, "stop", 0)


def test_a_full_house_and_a_bad_prompt_are_refused() -> None:
    streams = Streams(decoder_for(MODEL))
    with pytest.raises(ValueError, match="the prompt is empty"):
        streams.add(Request(ids=[], max_new_tokens=1))
    streams.add(Request(ids=[1], max_new_tokens=1))
    with pytest.raises(RuntimeError, match="all 1 streams are taken"):
        streams.add(Request(ids=[1], max_new_tokens=1))


def test_a_removed_stream_leaves_nothing_behind() -> None:
    streams = Streams(decoder_for(MODEL))
    gone = streams.add(Request(ids=[5, 6, 7], max_new_tokens=9, seed=1))
    streams.step()
    streams.remove(gone)
    streams.remove(gone)
    streams.add(Request(ids=[1], max_new_tokens=9, seed=1))
    found = [drawn.id for _ in range(9) for drawn in streams.step()]
    assert found == list(continuation(decoder_for(MODEL), Request(ids=[1], max_new_tokens=9, seed=1)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": -1}, "max_new_tokens must be 0 or more, got -1"),
        ({"seed": 2**64}, "seed must be from 0 to"),
        ({"n_logprobs": -1}, "n_logprobs must be 0 or more, got -1"),
    ],
)
def test_a_request_out_of_range_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Request(**{"ids": [1], "max_new_tokens": 1, **options})
