"""Attention: both forms give one result and one gradient, that of attention by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tinygpt.attention import FORMS
from torch import Tensor
from torch.testing import assert_close


def by_hand(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = torch.einsum("bhtd,bhsd->bhts", q, k) / math.sqrt(q.shape[-1])
    t = torch.arange(q.shape[2])
    return torch.einsum("bhts,bhsd->bhtd", scores.masked_fill(t[None, :] > t[:, None], -math.inf).softmax(-1), v)


@pytest.mark.parametrize("form", sorted(FORMS))
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 40), st.integers(1, 9), st.integers(0, 2**31))
def test_form_and_its_gradient_are_those_of_attention_by_hand(
    form: str, b: int, h: int, t: int, d: int, seed: int
) -> None:
    torch.manual_seed(seed)
    q, k, v, dy = (2 * torch.randn(b, h, t, d).double() for _ in range(4))
    inputs = [each.requires_grad_() for each in (q, k, v)]
    found, wanted = FORMS[form](q, k, v), by_hand(q, k, v)
    assert_close(found, wanted)
    assert_close(torch.autograd.grad(found, inputs, dy), torch.autograd.grad(wanted, inputs, dy))


def test_explicit_in_bfloat16_is_as_near_to_float32_as_torch_own() -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(2, 3, 64, 32) for _ in range(4)]
    errors = {}
    for form, attend in FORMS.items():
        *exact, dy = (each.clone().requires_grad_() for each in inputs)
        narrow = [each.bfloat16().detach().requires_grad_() for each in exact]
        wanted = torch.autograd.grad(by_hand(*exact), exact, dy)
        found = torch.autograd.grad(attend(*narrow), narrow, dy.bfloat16())
        errors[form] = max(float((a.float() - b).norm() / b.norm()) for a, b in zip(found, wanted, strict=True))
    assert errors["explicit"] < max(1.5 * errors["fused"], 0.01)
