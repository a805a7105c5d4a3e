"""Linear layer and cross-entropy in one, in chunks of rows, so that the logits of all rows never exist at once."""

import torch
from torch import Tensor

IGNORED = -100


def cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Sum over rows of the cross-entropy, in nats, of `targets` under the logits `hidden @ weight.T`.

    The gradient is made in the forward pass, chunk by chunk, while the chunk's logits are at hand: backward only
    scales it. What is held is the gradient itself, (N, C) and (V, C), and the logits of one chunk. Under autocast the
    products run in its type; sums are kept in float32.

    Args:
        hidden: (N, C).
        weight: (V, C).
        targets: int64 (N,), ids below V; rows with -100 count nothing.

    Returns:
        A scalar, float32 or wider.

    Example:
        >>> cross_entropy(torch.zeros(2, 4), torch.zeros(8, 4), torch.tensor([3, -100])).exp().round().item()
        8.0
    """
    if torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad):
        return _CrossEntropy.apply(hidden, weight, targets)  # type: ignore[no-any-return]
    return _chunked(hidden, weight, targets, None, None)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        d_hidden = torch.zeros_like(hidden) if ctx.needs_input_grad[0] else None  # (N, C)
        exact = torch.promote_types(weight.dtype, torch.float32)  # a sum over chunks in bfloat16 would lose them
        d_weight = torch.zeros_like(weight, dtype=exact) if ctx.needs_input_grad[1] else None  # (V, C)
        loss = _chunked(hidden, weight, targets, d_hidden, d_weight)
        ctx.dtypes = hidden.dtype, weight.dtype
        ctx.save_for_backward(d_hidden, d_weight)
        return loss

    @staticmethod
    def backward(ctx, d_loss: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # type: ignore[no-untyped-def]
        scaled = (None if d is None else d * d_loss for d in ctx.saved_tensors)
        d_hidden, d_weight = (d if d is None else d.to(dtype) for d, dtype in zip(scaled, ctx.dtypes, strict=True))
        return d_hidden, d_weight, None


def _chunked(
    hidden: Tensor, weight: Tensor, targets: Tensor, d_hidden: Tensor | None, d_weight: Tensor | None
) -> Tensor:
    """The sum; its gradient goes into `d_hidden` and `d_weight` where they are given."""
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    n_rows = _rows_per_chunk(len(hidden), *weight.shape)
    with torch.autocast(device, enabled=False):
        w = weight.to(dtype)  # (V, C), once for all chunks
        loss = torch.zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32), device=hidden.device)
        for start in range(0, len(hidden), n_rows):
            x = hidden[start : start + n_rows].to(dtype)  # (n, C)
            target = targets[start : start + n_rows]  # (n,)
            logits = (x @ w.T).to(loss.dtype)  # (n, V)
            counted = (target != IGNORED)[:, None]  # (n, 1)
            target = torch.where(counted[:, 0], target, 0)[:, None]  # (n, 1)
            log_sum = logits.logsumexp(dim=-1, keepdim=True)  # (n, 1)
            loss += ((log_sum - logits.gather(-1, target)) * counted).sum()
            if d_hidden is None and d_weight is None:
                continue
            d_logits = logits.sub_(log_sum).exp_()  # (n, V): the probabilities
            d_logits.scatter_add_(-1, target, torch.full_like(log_sum, -1.0)).mul_(counted)
            d = d_logits.to(dtype)
            if d_hidden is not None:
                d_hidden[start : start + len(x)] = d @ w
            if d_weight is not None:
                d_weight += d.T @ x
    return loss


def _rows_per_chunk(n_rows: int, vocab_size: int, d_model: int) -> int:
    """Rows of a chunk, the same for the same shapes: its logits take no more than the weight does, or 4 MiB.

    Never more than a quarter of the rows: the sum of all logits must not exist however small the model.
    """
    limit = max(d_model, 2**20 // vocab_size)
    n_chunks = max(4, -(-n_rows // limit))
    return max(1, -(-n_rows // n_chunks))
