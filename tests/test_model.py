"""GPT: shapes, causality, cache, loss and generation, for every mixture of options."""

import pickle
import warnings
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import MIXTURES, TINY
from tinygpt.crossentropy import cross_entropy
from tinygpt.model import ACTIVATIONS, GPT, NORMS, GPTConfig, KVCache
from tinygpt.positions import POSITIONS
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(n_threads)


def gpt(**options: Any) -> GPT:
    """A tiny model with weights large enough that every part of it shows in the logits."""
    model = GPT(GPTConfig(**{**TINY, **options})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def ids(*shape: int, vocab_size: int = 13) -> Tensor:
    return torch.randint(vocab_size, shape)


def test_no_mixture_of_options_sees_the_future() -> None:
    x = ids(1, 8)
    changed = torch.cat((x[:, :5], (x[:, 5:] + 1) % 13), dim=1)
    for options in MIXTURES:
        model = gpt(**options)
        assert_close(model(x)[:, :5], model(changed)[:, :5], rtol=0, atol=1e-5, msg=str(options))
        assert (model(x)[:, 5:] - model(changed)[:, 5:]).abs().max() > 1e-3, options


def test_cache_equals_no_cache_for_every_mixture_of_options() -> None:
    x = ids(2, 8)
    for options in MIXTURES:
        model = gpt(**options)
        cache = KVCache(model.config, batch_size=2, n_positions=8, like=model.token_embedding.weight)
        pieces = [model(part, cache=cache) for part in torch.split(x, [3, 1, 3, 1], dim=1)]
        assert_close(torch.cat(pieces, dim=1), model(x), rtol=0, atol=1e-5, msg=str(options))


def test_the_loss_is_that_of_the_logits_for_every_mixture_of_options() -> None:
    x, y = ids(2, 8), ids(2, 8)
    for options in MIXTURES:
        model = gpt(**options)
        assert_close(model.loss(x, y), F.cross_entropy(model(x).flatten(0, 1), y.flatten()), msg=str(options))


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_no_token(position: str, side: str) -> None:
    model, x = gpt(position=position), ids(2, 5)
    padding, real = ids(2, 3), torch.ones(2, 5, dtype=torch.bool)
    parts, masks = [padding, x], [torch.zeros(2, 3, dtype=torch.bool), real]
    if side == "right":
        parts, masks = parts[::-1], masks[::-1]
    padded = model(torch.cat(parts, dim=1), mask=torch.cat(masks, dim=1))
    assert_close(padded[:, 3:] if side == "left" else padded[:, :5], model(x), rtol=0, atol=1e-5)
    assert padded.isfinite().all()


@pytest.mark.parametrize("tie_embeddings", [False, True])
def test_chunked_loss_and_gradients_equal_the_whole_ones(tie_embeddings: bool) -> None:
    model, x, y = gpt(tie_embeddings=tie_embeddings), ids(3, 7), ids(3, 7)
    y[0, 3:] = -100
    torch.autograd.backward(model.loss(x, y))
    chunked = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    torch.autograd.backward(F.cross_entropy(model(x).flatten(0, 1), y.flatten()))
    assert_close(chunked, {name: p.grad for name, p in model.named_parameters()})


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 30), st.integers(1, 50) | st.none(), st.integers(0, 2**31))
def test_cross_entropy_equals_that_of_torch(
    n_rows: int, width: int, vocab_size: int, chunk: int | None, seed: int
) -> None:
    torch.manual_seed(seed)
    hidden, weight = torch.randn(n_rows, width).double(), torch.randn(vocab_size, width).double()
    targets = torch.where(torch.rand(n_rows) < 0.2, -100, ids(n_rows, vocab_size=vocab_size))
    hidden.requires_grad_(), weight.requires_grad_()
    found = torch.autograd.grad(3 * cross_entropy(hidden, weight, targets, chunk=chunk), (hidden, weight))
    whole = F.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    wanted = torch.autograd.grad(3 * whole, (hidden, weight))
    assert_close(found, wanted)
    assert_close(cross_entropy(hidden, weight, targets, chunk=chunk), whole)
    sink = torch.ones_like(weight)
    scaled = cross_entropy(hidden, weight, targets, scale=3.0, chunk=chunk, weight_grad=sink)
    torch.autograd.backward(scaled)
    assert_close((scaled, hidden.grad, sink - 1, weight.grad), (3 * whole, *wanted, None))


def test_cross_entropy_of_many_blocks_of_rows_equals_that_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinygpt.crossentropy._BLOCK_NUMBERS", 64)
    hidden, weight, targets = torch.randn(100, 5), torch.randn(30, 5), ids(100, vocab_size=30)
    hidden.requires_grad_(), weight.requires_grad_()
    wanted = torch.autograd.grad(F.cross_entropy(hidden @ weight.T, targets), (hidden, weight))
    assert_close(torch.autograd.grad(cross_entropy(hidden, weight, targets, scale=0.01), (hidden, weight)), wanted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_cross_entropy_in_a_narrow_type_is_near_that_in_float32_where_probabilities_are_near_one(
    dtype: torch.dtype,
) -> None:
    hidden, weight = 3 * torch.eye(64), 3 * torch.eye(64).repeat(16, 1)[:1000]
    targets = torch.arange(64)
    hidden[0] = 0
    pairs = [[t.to(kind).requires_grad_() for t in (hidden, weight)] for kind in (torch.float32, dtype)]
    (loss, *found), (near, *nearly) = (
        (loss, *torch.autograd.grad(loss, (h, w))) for h, w in pairs for loss in [cross_entropy(h, w, targets)]
    )
    assert_close(near, loss, rtol=1e-2, atol=0)
    for a, b in zip(nearly, found, strict=True):
        assert_close(a.float(), b, rtol=2e-2, atol=2e-3)


class Loss(torch.nn.Module):
    """The loss as a module's forward, which functional_call needs."""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.model.loss(x, y)


@pytest.mark.parametrize("tie_embeddings", [False, True])
def test_gradients_equal_finite_differences(tie_embeddings: bool) -> None:
    model = gpt(n_layer=1, d_model=8, d_ff=8, vocab_size=5, qk_norm=True, n_kv_head=2, tie_embeddings=tie_embeddings)
    module, y = Loss(model.double()), torch.tensor([[1, -100, 3, 4]])
    names, values = zip(*module.named_parameters(), strict=True)
    x = ids(1, 4, vocab_size=5)

    def loss(*values: Tensor) -> Any:
        return torch.func.functional_call(module, dict(zip(names, values, strict=True)), (x, y))

    assert torch.autograd.gradcheck(loss, values)


class LargestTensor(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Numbers in the largest tensor that any operation makes."""

    n = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = [t.numel() for t in torch.utils._pytree.tree_leaves(out) if isinstance(t, Tensor)]
        self.n = max([self.n, *made])
        return out


@pytest.mark.parametrize("vocab_size", [300, 5000])
def test_the_logits_of_all_positions_never_exist_in_loss(vocab_size: int) -> None:
    model = gpt(vocab_size=vocab_size, block_size=64, n_layer=1)
    x = ids(4, 64, vocab_size=vocab_size)
    with LargestTensor() as largest:  # type: ignore[no-untyped-call]
        torch.autograd.backward(model.loss(x, x))
    assert largest.n <= 4 * 64 * vocab_size / 4


def test_loss_without_gradients_is_the_same_number() -> None:
    model, x, y = gpt(), ids(2, 8), ids(2, 8)
    with torch.no_grad():
        silent = model.loss(x, y)
    assert not silent.requires_grad
    assert_close(silent, model.loss(x, y).detach(), rtol=0, atol=0)


def test_the_sum_over_the_count_is_the_mean() -> None:
    model, x, y = gpt(), ids(2, 8), ids(2, 8)
    y[1] = -100
    assert_close(model.loss(x, y, scale=1.0) / 8, model.loss(x, y))
    assert model.loss(x, torch.full_like(y, -100)) == 0


def test_backward_twice_gives_twice_the_gradient() -> None:
    model, x = gpt(), ids(2, 8)
    loss = model.loss(x, x)
    torch.autograd.backward(loss, retain_graph=True)
    once = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    torch.autograd.backward(loss)
    assert_close({name: p.grad for name, p in model.named_parameters()}, {name: 2 * g for name, g in once.items()})


def test_loss_under_autocast_is_close_and_its_gradients_are_float32() -> None:
    model, x = gpt(qk_norm=True, n_kv_head=2), ids(2, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16), warnings.catch_warnings():
        warnings.simplefilter("error")
        loss = model.loss(x, x)
    torch.autograd.backward(loss)
    assert_close(loss, model.loss(x, x), rtol=0.05, atol=0.05)  # bfloat16 has 8 bits
    assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_model_of_another_type_computes_nearly_the_same(dtype: torch.dtype) -> None:
    model, x = gpt(qk_norm=True), ids(2, 8)
    wanted = model(x), model.loss(x, x)
    model.to(dtype)
    assert_close(
        (model(x).float(), model.loss(x, x).float()), wanted, rtol=0.1, atol=0.1 if dtype != torch.float64 else 1e-5
    )
    assert list(model.generate([1, 2], max_new_tokens=3, temperature=0)) == list(
        model.float().generate([1, 2], max_new_tokens=3, temperature=0)
    )


def test_every_public_shape() -> None:
    model, x = gpt(n_kv_head=2), ids(3, 5)
    assert model(x).shape == (3, 5, 13)
    assert model(x, mask=torch.ones(3, 5, dtype=torch.bool)).shape == (3, 5, 13)
    assert model.loss(x, x).shape == ()
    assert model.n_parameters == sum(p.numel() for p in model.parameters())


def test_the_parameters_of_a_llama_are_counted_once() -> None:
    c = GPTConfig(vocab_size=100, n_layer=3, n_head=4, n_kv_head=2, d_model=32, d_ff=48)
    block = 32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 48 + 2 * 32  # q, k and v, output, feed-forward, norms
    assert GPT(c).n_parameters == 100 * 32 + 3 * block + 32


@pytest.mark.parametrize(
    ("mlp", "d_model", "wanted"),
    [("gelu", 384, 1536), ("swiglu", 384, 1024), ("geglu", 512, 1408), ("swiglu", 128, 384), ("swiglu", 24, 64)],
)
def test_the_inner_width_follows_from_the_model_width(mlp: Any, d_model: int, wanted: int) -> None:
    assert GPTConfig(vocab_size=9, d_model=d_model, n_head=2, mlp=mlp).d_inner == wanted


def test_weights_begin_as_in_gpt2() -> None:
    model = GPT(GPTConfig(vocab_size=500, n_layer=8, n_head=2, d_model=128, bias=True, tie_embeddings=False))
    deviations = {name: p.std().item() for name, p in model.named_parameters() if p.ndim == 2}
    wanted = {n: 0.02 / 4 if n.endswith(("output.weight", "down.weight")) else 0.02 for n in deviations}
    assert deviations == pytest.approx(wanted, rel=0.05)
    assert not any(p.any() for name, p in model.named_parameters() if name.endswith("bias"))


def test_a_pickled_model_computes_the_same() -> None:
    model, x = gpt(mlp="geglu"), ids(2, 8)
    assert_close(pickle.loads(pickle.dumps(model))(x), model(x), rtol=0, atol=0)  # as worker processes get it


def test_dropout_acts_in_training_alone() -> None:
    model, x = gpt(dropout=0.5), ids(2, 8)
    assert_close(model(x), model(x), rtol=0, atol=0)
    model.train()
    assert (model(x) - model(x)).abs().max() > 0.01


@pytest.mark.parametrize("prompt_length", [1, 5, 8])
def test_greedy_generation_takes_the_likeliest_id_each_time(prompt_length: int) -> None:
    model, context = gpt(), ids(prompt_length).tolist()
    found = list(model.generate(context, max_new_tokens=20, temperature=0))
    for i in found:
        assert i == model(torch.tensor([context]))[0, -1].argmax()
        context = [*context, i]
        context = context if len(context) <= 8 else context[-4:]


def test_the_same_seed_gives_the_same_ids_and_moves_no_other_generator() -> None:
    model, before = gpt(), torch.get_rng_state()
    first, again, other = (list(model.generate([1], max_new_tokens=30, seed=seed)) for seed in (5, 5, 6))
    assert first == again != other
    assert list(model.generate([1], max_new_tokens=30)) != list(model.generate([1], max_new_tokens=30))
    assert torch.equal(torch.get_rng_state(), before)


def test_generation_follows_the_distribution() -> None:
    model = gpt(vocab_size=4)
    wanted = model(torch.tensor([[2, 1]]))[0, -1].softmax(-1)
    drawn = torch.tensor([next(model.generate([2, 1], max_new_tokens=1, seed=seed)) for seed in range(1500)])
    assert_close(torch.bincount(drawn, minlength=4) / 1500, wanted, rtol=0, atol=0.05)  # 0.05 is four deviations


def test_a_stop_id_ends_the_text_and_is_not_given_out() -> None:
    model = gpt()
    whole = list(model.generate([1], max_new_tokens=30, seed=1))
    stop = whole[10]
    assert list(model.generate([1], max_new_tokens=30, seed=1, stop=[stop])) == whole[: whole.index(stop)]


def test_a_long_prompt_is_cropped_from_the_left_with_a_warning() -> None:
    model, prompt = gpt(), ids(11).tolist()
    with pytest.warns(UserWarning, match="the prompt has 11 tokens and the context 8: the first 3 are left out"):
        cropped = list(model.generate(prompt, max_new_tokens=5, seed=1))
    assert cropped == list(model.generate(prompt[3:], max_new_tokens=5, seed=1))


def test_generation_leaves_modes_and_gradients_as_they_were() -> None:
    model = gpt(dropout=0.5).train()
    model.blocks[0].eval()
    modes = [module.training for module in model.modules()]
    text = model.generate([1], max_new_tokens=5, temperature=0)
    seen = [next(text), *text]
    assert [module.training for module in model.modules()] == modes
    assert torch.is_grad_enabled()
    assert seen == list(model.eval().generate([1], max_new_tokens=5, temperature=0))


def test_a_repetition_penalty_makes_ids_new() -> None:
    model = gpt()
    found = list(model.generate([3], max_new_tokens=12, temperature=0, repetition_penalty=1e9))
    assert len({3, *found}) > len({3, *model.generate([3], max_new_tokens=12, temperature=0)})


@pytest.mark.parametrize("make", [list, torch.tensor, lambda x: torch.tensor(x).numpy()])
def test_prompts_may_be_lists_tensors_and_arrays(make: Any) -> None:
    model = gpt()
    assert list(model.generate(make([1, 2]), max_new_tokens=3, seed=0)) == list(
        model.generate([1, 2], max_new_tokens=3, seed=0)
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ids": []}, "the prompt is empty"),
        ({"ids": [1, 13]}, "ids must be whole numbers from 0 to 12, got 13"),
        ({"ids": [-1]}, "got -1"),
        ({"ids": [1.5]}, "got 1.5"),
        ({"ids": [[1]]}, r"got \[1\]"),
        ({"max_new_tokens": -1}, "max_new_tokens must be 0 or more, got -1"),
        ({"temperature": -0.5}, "temperature must be 0 .* or above, got -0.5"),
        ({"seed": -1}, "seed must be from 0"),
    ],
)
def test_generate_refuses_at_the_call(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gpt().generate(**{"ids": [1], "max_new_tokens": 1, **arguments})


def test_forward_refuses_wrong_shapes() -> None:
    model = gpt()
    with pytest.raises(ValueError, match="the context holds block_size 8 tokens, got 9"):
        model(ids(1, 9))
    with pytest.raises(ValueError, match=r"ids must have the shape \(B, T\), got \(4,\)"):
        model(ids(4))
    with pytest.raises(ValueError, match=r"mask must be bool \(1, 4\)"):
        model(ids(1, 4), mask=torch.ones(1, 4))
    with pytest.raises(ValueError, match=r"got \(1, 4\) and \(1, 3\)"):
        model.loss(ids(1, 4), ids(1, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": 0}, "vocab_size must be at least 1, got 0"),
        ({"n_layer": 2.0}, "n_layer must be a whole number, got 2.0"),
        ({"n_head": 3}, r"n_head must divide d_model \(16\), got 3"),
        ({"n_kv_head": 3}, r"n_kv_head must divide n_head \(4\), got 3"),
        ({"n_head": 16}, "position rope needs an even head width"),
        ({"position": "alibi"}, "position must be one of rope, learned, sinusoidal, got 'alibi'"),
        ({"bias": 1}, "bias must be true or false, got 1"),
        ({"dropout": 1.0}, "dropout must be from 0 to below 1, got 1.0"),
        ({"norm_eps": 0.0}, "norm_eps must be above 0, got 0.0"),
        ({"rope_theta": "big"}, "rope_theta must be a number, got 'big'"),
    ],
)
def test_a_configuration_out_of_range_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GPTConfig(**{**TINY, **options})


def test_every_choice_of_the_configuration_has_its_row() -> None:
    hints = get_type_hints(GPTConfig)
    tables: dict[str, dict[str, Any]] = {"position": POSITIONS, "norm": NORMS, "mlp": ACTIVATIONS}
    assert {name: set(get_args(hints[name])) for name in tables} == {name: set(table) for name, table in tables.items()}


@pytest.mark.parametrize("options", [{}, {"mlp": "gelu", "tie_embeddings": False}, {"n_kv_head": 1}], ids=str)
def test_operations_of_a_token_are_those_that_torch_counts(options: dict[str, Any]) -> None:
    config = GPTConfig(**{"vocab_size": 50, "block_size": 16, "n_layer": 3, "n_head": 2, "d_model": 32, **options})
    x = torch.zeros(2, 16, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        GPT(config)(x)
    # torch counts the masked half of attention, too: T instead of (T + 1) / 2 tokens to look at, twice.
    masked = 2 * 2 * config.n_layer * config.d_model * (16 - (16 + 1) / 2)
    assert config.flops_per_token / 3 == counter.get_total_flops() / 32 - masked
