"""The slow, obvious GPT that the fast one is held against: one head at a time, every formula written out.

It knows all options of `GPTConfig` but dropout, and computes in the type of the weights, which have the names of our
state dict. Nothing in it is shared with ours: no module, no fused norm, no attention of torch's.
"""

import math
from collections.abc import Mapping

import torch
from tinygpt.modelconfig import GPTConfig
from torch import Tensor

Weights = Mapping[str, Tensor]


def logits(config: GPTConfig, weights: Weights, x: Tensor) -> Tensor:
    """Ids (B, T) -> logits (B, T, V)."""
    h = weights["token_embedding.weight"][x]  # (B, T, C)
    if config.position == "learned":
        h = h + weights["position.weight"][: x.shape[1]]
    elif config.position == "sinusoidal":
        h = h + 0.02 * waves(x.shape[1], config.d_model).to(h.dtype)
    for i in range(config.n_layer):
        block = {name.split(".", 2)[2]: w for name, w in weights.items() if name.startswith(f"blocks.{i}.")}
        h = h + attention(config, block, norm(config, block, "attention_norm", h))
        h = h + feed_forward(config, block, norm(config, block, "feed_forward_norm", h))
    head = weights["token_embedding.weight" if config.tie_embeddings else "head.weight"]  # (V, C)
    return torch.einsum("btc,vc->btv", norm(config, weights, "norm", h), head)


def loss(config: GPTConfig, weights: Weights, x: Tensor, y: Tensor) -> Tensor:
    """Mean nats over the targets that are not -100, a scalar."""
    all_logits, nats = logits(config, weights, x), []
    for b, t in (y != -100).nonzero().tolist():
        row = all_logits[b, t]  # (V,)
        nats.append((row - row.max()).exp().sum().log() + row.max() - row[y[b, t]])
    return torch.stack(nats).mean()


def norm(config: GPTConfig, weights: Weights, name: str, x: Tensor) -> Tensor:
    """The layer's norm over the last axis: (..., C) -> (..., C)."""
    if config.norm == "rmsnorm":
        return rms_norm(x, weights[f"{name}.weight"], config.norm_eps)
    centred = x - x.mean(-1, keepdim=True)
    y = centred / ((centred**2).mean(-1, keepdim=True) + config.norm_eps).sqrt() * weights[f"{name}.weight"]
    return y + weights[f"{name}.bias"] if config.bias else y


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / ((x**2).mean(-1, keepdim=True) + eps).sqrt() * weight


def linear(config: GPTConfig, weights: Weights, name: str, x: Tensor) -> Tensor:
    y = torch.einsum("btc,oc->bto", x, weights[f"{name}.weight"])
    return y + weights[f"{name}.bias"] if config.bias else y


def attention(config: GPTConfig, block: Weights, x: Tensor) -> Tensor:
    """(B, T, C) -> (B, T, C): each query head in turn, with the head of keys and values that it shares."""
    n_head, n_kv, outputs = config.n_head, config.n_kv, []
    heads = torch.split(linear(config, block, "attention.qkv", x), config.d_head, dim=-1)  # H + 2 H_kv of (B, T, D)
    queries, keys, values = heads[:n_head], heads[n_head : n_head + n_kv], heads[n_head + n_kv :]
    for i, q in enumerate(queries):
        k, v = keys[i * n_kv // n_head], values[i * n_kv // n_head]
        if config.qk_norm:
            q = rms_norm(q, block["attention.q_norm.weight"], config.norm_eps)
            k = rms_norm(k, block["attention.k_norm.weight"], config.norm_eps)
        if config.position == "rope":
            q, k = turned(q, config.rope_theta), turned(k, config.rope_theta)
        scores = torch.einsum("btd,bsd->bts", q, k) / math.sqrt(config.d_head)
        future = torch.arange(x.shape[1])[None, :] > torch.arange(x.shape[1])[:, None]  # (T, S)
        weight = scores.masked_fill(future, -math.inf).exp()
        outputs.append(torch.einsum("bts,bsd->btd", weight / weight.sum(-1, keepdim=True), v))
    return linear(config, block, "attention.output", torch.cat(outputs, dim=-1))


def turned(x: Tensor, theta: float) -> Tensor:
    """Channels i and i + D / 2 as one complex number, turned by t / theta^(2 i / D): (B, T, D) -> (B, T, D)."""
    half = x.shape[-1] // 2
    speeds = theta ** (-torch.arange(half, dtype=torch.float64) / half)  # (D / 2,)
    angles = torch.arange(x.shape[1], dtype=torch.float64)[:, None] * speeds  # (T, D / 2)
    cos, sin, a, b = angles.cos().to(x.dtype), angles.sin().to(x.dtype), x[..., :half], x[..., half:]
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)


def feed_forward(config: GPTConfig, block: Weights, x: Tensor) -> Tensor:
    """(B, T, C) -> (B, T, C)."""
    up = linear(config, block, "feed_forward.up", x)
    gate, value = (up, 1) if config.mlp == "gelu" else up.chunk(2, dim=-1)
    tanh_gelu = 0.5 * gate * (1 + torch.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)))
    active = gate / (1 + (-gate).exp()) if config.mlp == "swiglu" else tanh_gelu
    return linear(config, block, "feed_forward.down", active * value)


def waves(n_positions: int, d_model: int) -> Tensor:
    """Sines at even channels and cosines at odd ones, in float64: (n_positions, C)."""
    rows = [[t / 10000 ** (c // 2 * 2 / d_model) for c in range(d_model)] for t in range(n_positions)]
    table = [[math.cos(a) if c % 2 else math.sin(a) for c, a in enumerate(row)] for row in rows]
    return torch.tensor(table, dtype=torch.float64)
