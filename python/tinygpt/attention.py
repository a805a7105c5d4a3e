"""Causal attention in two forms with one result: the engine takes the one that is faster where a model trains."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from tinygpt.dropout import dropped, keys


def fused(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
    """Torch's own causal attention, which never holds the weights of all pairs of positions, but on a CPU with dropout.

    Args:
        q: Queries (B, H, T, D).
        k: Keys (B, H, T, D).
        v: Values (B, H, T, D).
        dropout: Share of the weights that become 0.

    Returns:
        (B, H, T, D).
    """
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)


def explicit(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
    """The same by batched matrix products, holding the weights (B, H, T, T) for the backward pass.

    On a CPU torch's own goes through keys block by block, and its products are small. For short contexts all weights
    are small, too, and their products run at full speed: with 12 windows of 256 and 8 heads of 64, a whole training
    step is 11 to 16 % faster, in bfloat16 with compiled blocks (two cores of an AMD EPYC, Zen 5). Torch's forward pass
    with this backward pass, which has to make the weights anew, gave 5 to 7 %.

    Source: Vaswani et al. 2017, section 3.2.1 (arXiv:1706.03762).
    """
    rows, columns = keys((*q.shape[:3], k.shape[2]), q.device) if dropout else (None, None)  # (B, H, T, 1), (T,)
    return _Explicit.apply(q, k, v, rows, columns, dropout)  # type: ignore[no-any-return]


class _Explicit(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, q: Tensor, k: Tensor, v: Tensor, rows: Tensor | None, columns: Tensor | None, dropout: float
    ) -> Tensor:
        wide = torch.promote_types(q.dtype, torch.float32)
        visible = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool, device=q.device).tril()  # (T, T)
        scores = (q @ k.transpose(-2, -1)).to(wide) / math.sqrt(q.shape[-1])  # (B, H, T, T)
        weights = torch.where(visible, scores, -math.inf).softmax(-1).to(q.dtype)  # (B, H, T, T)
        ctx.save_for_backward(q, k, v, weights, rows, columns)
        ctx.dropout = dropout
        return _kept(weights, rows, columns, dropout) @ v  # (B, H, T, D)

    @staticmethod
    def backward(  # type: ignore[no-untyped-def]
        ctx, dy: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        q, k, v, weights, rows, columns = ctx.saved_tensors
        wide = torch.promote_types(q.dtype, torch.float32)
        d_weights = _kept((dy @ v.transpose(-2, -1)).to(wide), rows, columns, ctx.dropout)  # (B, H, T, T)
        w = weights.to(wide)  # (B, H, T, T)
        mean = (w * d_weights).sum(-1, keepdim=True)  # (B, H, T, 1)
        d_scores = (w * (d_weights - mean) / math.sqrt(q.shape[-1])).to(q.dtype)  # (B, H, T, T)
        dv = _kept(weights, rows, columns, ctx.dropout).transpose(-2, -1) @ dy  # (B, H, T, D)
        return d_scores @ k, d_scores.transpose(-2, -1) @ q, dv, None, None, None  # (B, H, T, D) three times


def _kept(weights: Tensor, rows: Tensor | None, columns: Tensor | None, dropout: float) -> Tensor:
    """Weights (B, H, T, T) after dropout; themselves without keys."""
    if rows is None or columns is None:
        return weights
    return dropped(weights, rows, columns, dropout)  # (B, H, T, T)


FORMS: dict[str, Callable[..., Tensor]] = {"fused": fused, "explicit": explicit}
