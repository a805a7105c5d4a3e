"""Decoders: the one in Rust against the model in torch, and against itself in other company."""

import math
import os
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tinygpt.decoder import CpuDecoder, Decoder, TorchDecoder, decoder_for
from tinygpt.model import GPT, GPTConfig
from torch.testing import assert_close

SHAPES: list[dict[str, Any]] = [
    {},
    {"n_kv_head": 2},
    {"n_kv_head": 1, "qk_norm": True, "tie_embeddings": False},
    {"position": "learned", "norm": "layernorm", "mlp": "gelu", "bias": True},
    {"position": "sinusoidal", "norm": "rmsnorm", "mlp": "geglu"},
    {"position": "learned", "norm": "layernorm", "mlp": "swiglu", "bias": False, "d_ff": 24},
    {"norm": "layernorm", "bias": True, "norm_eps": 1e-2, "rope_theta": 500.0},
    {"d_model": 68, "n_head": 2, "vocab_size": 131},
    {"d_model": 320, "n_head": 4, "n_layer": 1},  # heads of 80: more than one group
]


def gpt(seed: int = 0, **options: Any) -> GPT:
    torch.manual_seed(seed)
    fields = {"vocab_size": 97, "block_size": 24, "n_layer": 2, "n_head": 4, "d_model": 32, **options}
    model = GPT(GPTConfig(**fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # away from the start, where norms are 1 and biases 0
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def ids(n: int, model: GPT, seed: int = 1) -> list[int]:
    drawn = torch.randint(model.config.vocab_size, (n,), generator=torch.Generator().manual_seed(seed))
    return [int(i) for i in drawn]


@pytest.mark.parametrize("options", SHAPES, ids=str)
def test_float32_logits_are_those_of_torch(options: dict[str, Any]) -> None:
    model = gpt(**options)
    prompt = ids(24, model)
    wanted = model(torch.tensor([prompt]))[0]
    found = decoder_for(model).extend([(0, prompt)], every=True)
    # float32 sums of a hundred numbers in another order.
    assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_logits_do_not_depend_on_threads_or_on_how_tokens_come(options: dict[str, Any], dtype: Any) -> None:
    model = gpt(**options)
    prompt = ids(20, model)
    wanted = decoder_for(model, dtype=dtype, threads=1).extend([(0, prompt)], every=True)
    one_by_one = decoder_for(model, dtype=dtype, threads=3)
    found = torch.cat([one_by_one.extend([(0, [i])]) for i in prompt])
    assert torch.equal(found, wanted)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_stream_does_not_notice_its_company(data: st.DataObject) -> None:
    model = gpt()
    texts = [ids(24, model, seed) for seed in range(4)]
    alone: list[Decoder] = [decoder_for(model, dtype="bfloat16", threads=1) for _ in texts]
    together = decoder_for(model, n_slots=4, dtype="bfloat16", threads=2)
    for _ in range(data.draw(st.integers(1, 6))):
        slots = data.draw(st.lists(st.integers(0, 3), min_size=1, unique=True))
        feeds = []
        for slot in slots:
            if together.n_seen(slot) >= 20:
                n = data.draw(st.integers(0, 10))
                together.cut(slot, n)
                alone[slot].cut(0, n)
            first = together.n_seen(slot)
            feeds.append((slot, texts[slot][first : first + data.draw(st.integers(1, 4))]))
        wanted = torch.cat([alone[slot].extend([(0, new)]) for slot, new in feeds])
        assert torch.equal(together.extend(feeds), wanted)


@pytest.mark.parametrize(("dtype", "within"), [("bfloat16", 0.02), ("int8", 0.04)])
def test_narrow_weights_change_logits_by_their_rounding(dtype: Any, within: float) -> None:
    model = gpt(d_model=128, n_layer=4)
    prompt = ids(24, model)
    wanted = model(torch.tensor([prompt]))[0]
    found = decoder_for(model, dtype=dtype).extend([(0, prompt)], every=True)
    assert 0 < (found - wanted).abs().mean() < within * wanted.std()


def test_more_tokens_than_one_pass_takes_are_read_in_several() -> None:
    model = gpt(block_size=600, n_layer=1)
    prompt = ids(600, model)
    found = decoder_for(model).extend([(0, prompt)], every=True)
    assert_close(found, model(torch.tensor([prompt]))[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [CpuDecoder, TorchDecoder])
def test_both_decoders_keep_the_same_promises(kind: type) -> None:
    model = gpt()
    assert isinstance(decoder_for(model), CpuDecoder)
    options = {"dtype": "float32", "threads": 1} if kind is CpuDecoder else {}
    decoder = kind(model, n_slots=2, **options)
    prompt = ids(9, model)
    whole = decoder.extend([(1, prompt)], every=True)
    assert whole.shape == (9, 97)
    assert (decoder.n_seen(0), decoder.n_seen(1)) == (0, 9)
    decoder.cut(1, 5)
    assert_close(decoder.extend([(1, prompt[5:])]), whole[-1:])
    with pytest.raises(ValueError, match="block_size 24"):
        decoder.extend([(0, prompt * 3)])
    with pytest.raises(ValueError, match="cannot be cut to 10"):
        decoder.cut(1, 10)


def test_a_decoder_of_a_model_elsewhere_or_in_float64_is_torchs() -> None:
    model = gpt().double()
    prompt = ids(9, model)
    found = decoder_for(model).extend([(0, prompt)], every=True)
    assert_close(found, model(torch.tensor([prompt]))[0].float())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float16"}, "dtype must be one of auto, float32, bfloat16, int8, got 'float16'"),
        ({"n_slots": 0}, "n_slots must be at least 1, got 0"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decoder_for(gpt(), **options)


def test_a_refused_call_reads_nothing() -> None:
    model = gpt()
    decoder = decoder_for(model, n_slots=2)
    for feeds in ([(0, [1]), (2, [1])], [(0, [1]), (1, [97])], [(0, [1]), (0, [2])], [(0, [1]), (1, [])]):
        with pytest.raises(ValueError, match="stream|ids must be from 0 to 96, got 97"):
            decoder.extend(feeds)
    assert (decoder.n_seen(0), decoder.n_seen(1)) == (0, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_told_to_make_its_own() -> None:
    decoder = decoder_for(gpt(), threads=2)
    child = os.fork()
    if not child:
        try:
            decoder.extend([(0, [1])])
        except RuntimeError as error:
            os._exit(0 if "before a fork" in str(error) else 3)
        os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_is_not_a_number_stays_so() -> None:
    model = gpt()
    with torch.no_grad():
        model.get_parameter("blocks.0.attention.qkv.weight")[0, 0] = math.nan
    assert decoder_for(model, dtype="bfloat16").extend([(0, [1, 2])]).isnan().all()


@pytest.mark.parametrize("threads", [2, 3, 4])
def test_no_thread_runs_ahead_of_the_others(threads: int) -> None:
    # Wide enough that a thread which did not wait would read what another has not written yet: without one of the
    # barriers between phases some of these fail, most often.
    model = gpt(d_model=1024, n_head=16, qk_norm=True, block_size=120)
    prompt = ids(120, model)
    wanted = decoder_for(model, dtype="bfloat16", threads=1).extend([(0, prompt)], every=True)
    decoder = decoder_for(model, dtype="bfloat16", threads=threads)
    whole = decoder.extend([(0, prompt)], every=True)
    decoder.cut(0, 0)
    one_by_one = torch.cat([decoder.extend([(0, [i])]) for i in prompt])
    assert (torch.equal(whole, wanted), torch.equal(one_by_one, wanted)) == (True, True)
