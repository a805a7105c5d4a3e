"""Dropout: the share it drops, masks that are independent of each other, gradients of what was dropped."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tinygpt.attention import explicit, fused
from tinygpt.dropout import Dropout, dropped, keys
from torch import Tensor
from torch.testing import assert_close

CPU = torch.device("cpu")


def mask(*shape: int, rate: float) -> Tensor:
    """What is kept of a tensor."""
    return dropped(torch.ones(shape), *keys(shape, CPU), rate) > 0


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([0.01, 0.1, 0.25, 0.5, 0.9]), st.integers(0, 2**31), st.booleans())
def test_a_share_is_zero_and_the_rest_is_scaled(rate: float, seed: int, is_narrow: bool) -> None:
    torch.manual_seed(seed)
    shape = (40_000, 3) if is_narrow else (30, 4000)
    found = dropped(torch.full(shape, 2.0), *keys(shape, CPU), rate)
    assert sorted(set(found.flatten().tolist())) == pytest.approx([0, 2 / (1 - rate)])
    n = found.numel()
    assert float((found == 0).sum()) == pytest.approx(rate * n, abs=6 * math.sqrt(rate * (1 - rate) * n))


@pytest.mark.parametrize("rate", [0.1, 0.5])
@pytest.mark.parametrize("shape", [(256, 256), (2048, 64), (4, 8192)])
def test_masks_are_as_independent_as_drawn_ones(shape: tuple[int, int], rate: float) -> None:
    torch.manual_seed(1)
    kept = torch.stack([mask(*shape, rate=rate) for _ in range(20)]).double() - (1 - rate)  # (N, R, C)
    variance = rate * (1 - rate)
    n = kept.numel()
    neighbours = {
        "columns": kept[:, :, 1:] * kept[:, :, :-1],
        "rows": kept[:, 1:] * kept[:, :-1],
        "diagonals": kept[:, 1:, 1:] * kept[:, :-1, :-1],
        "powers of two": kept[:, :, 4:] * kept[:, :, :-4],
        "masks": kept[1:] * kept[:-1],
        # The corners of a rectangle: numbers that are only added, or only exclusive-ored, are bound here.
        "rectangles": kept[:, 1:, 1:] * kept[:, :-1, 1:] * kept[:, 1:, :-1] * kept[:, :-1, :-1],
    }
    for name, product in neighbours.items():
        deviation = variance ** (2 if name == "rectangles" else 1) / math.sqrt(n)
        assert abs(float(product.mean())) < 5 * deviation, name
    for axis in (1, 2):  # sums of rows and of columns vary as sums of coins do
        sums = kept.sum(axis)
        expected = variance * shape[axis - 1]
        spread = math.sqrt(2 / sums.numel())
        assert float(sums.square().mean()) / expected == pytest.approx(1, abs=6 * spread), axis


def test_dropout_of_the_model_acts_in_training_alone_and_follows_torchs_generator() -> None:
    layer, x = Dropout(0.5), torch.randn(8, 16)
    torch.manual_seed(3)
    one, other = layer(x), layer(x)
    torch.manual_seed(3)
    assert torch.equal(layer(x), one)
    assert not torch.equal(one, other)
    assert layer.eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_the_gradient_is_of_what_was_kept() -> None:
    x = torch.randn(50, 20, requires_grad=True)
    torch.manual_seed(0)
    (gradient,) = torch.autograd.grad(Dropout(0.3)(x).sum(), x)
    torch.manual_seed(0)
    assert_close(gradient, Dropout(0.3)(torch.ones_like(x)))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 30), st.integers(1, 9), st.integers(0, 2**31))
def test_explicit_attention_drops_weights_as_attention_by_hand_does(b: int, h: int, t: int, d: int, seed: int) -> None:
    torch.manual_seed(seed)
    q, k, v, dy = (torch.randn(b, h, t, d).double() for _ in range(4))
    inputs = [each.requires_grad_() for each in (q, k, v)]
    torch.manual_seed(seed)
    found = explicit(q, k, v, 0.4)
    torch.manual_seed(seed)
    drawn = keys((b, h, t, t), CPU)
    hidden = torch.ones(t, t, dtype=torch.bool).triu(1)
    weights = (q @ k.transpose(-2, -1) / math.sqrt(d)).masked_fill(hidden, -math.inf).softmax(-1)
    wanted = dropped(weights, *drawn, 0.4) @ v
    assert_close(found, wanted)
    assert_close(torch.autograd.grad(found, inputs, dy), torch.autograd.grad(wanted, inputs, dy))


@pytest.mark.parametrize("attend", [fused, explicit])
def test_attention_with_dropout_is_attention_in_the_mean(attend: object) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 6, 4) for _ in range(3))
    mean = torch.stack([attend(q, k, v, 0.3) for _ in range(4000)]).mean(0)  # type: ignore[operator]
    assert_close(mean, fused(q, k, v), rtol=0, atol=0.1)


def test_a_compiled_layer_drops_its_share_and_has_its_gradient() -> None:
    layer, x = torch.compile(Dropout(0.25), dynamic=False), torch.ones(64, 512, requires_grad=True)
    masks = []
    for _ in range(2):
        found = layer(x)
        (gradient,) = torch.autograd.grad(found.sum(), x)
        assert torch.equal(gradient, found.detach())
        assert float((found == 0).float().mean()) == pytest.approx(0.25, abs=6 * math.sqrt(0.25 * 0.75 / x.numel()))
        masks.append(found == 0)
    assert float((masks[0] & masks[1]).float().mean()) == pytest.approx(0.0625, abs=0.01)


def test_compiled_and_not_compiled_drop_the_same() -> None:
    rows, columns = keys((64, 100), CPU)
    x = torch.randn(64, 100)
    assert torch.equal(torch.compile(dropped, dynamic=False)(x, rows, columns, 0.2), dropped(x, rows, columns, 0.2))
