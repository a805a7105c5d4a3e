"""KVCache: what attention keeps of the tokens that a model has seen."""

import torch
from torch import Tensor

from tinygpt.modelconfig import GPTConfig


class KVCache:
    """Keys and values of the tokens seen so far, for each block; full at `n_positions` tokens."""

    def __init__(self, config: GPTConfig, *, batch_size: int, n_positions: int, like: Tensor) -> None:
        shape = (config.n_layer, 2, batch_size, config.n_kv, n_positions, config.d_head)
        self._data = torch.empty(shape, dtype=like.dtype, device=like.device)
        self.n_tokens = 0

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Writes k and v (B, H_kv, T, D) behind the `n_tokens` there are; returns all S of them, (B, H_kv, S, D)."""
        end = self.n_tokens + k.shape[2]
        self._data[layer, 0, :, :, self.n_tokens : end] = k
        self._data[layer, 1, :, :, self.n_tokens : end] = v
        return self._data[layer, 0, :, :, :end], self._data[layer, 1, :, :, :end]
