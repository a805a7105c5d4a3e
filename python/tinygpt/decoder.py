"""Decoder: streams of tokens and the model that takes them further; on a CPU in Rust, elsewhere by torch.

On a CPU a token costs one reading of the weights, and `rust/transformer` does it at nearly the speed of memory. Weights
are copied as they are when the decoder is made.
"""

import os
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tinygpt import _core
from tinygpt.kvcache import KVCache
from tinygpt.modelconfig import GPTConfig

Dtype = Literal["auto", "float32", "bfloat16", "int8"]
Feeds = Sequence[tuple[int, Sequence[int]]]


class Model(Protocol):
    """What a decoder needs of a model; GPT is one."""

    config: GPTConfig

    def state_dict(self) -> Mapping[str, Any]:
        """The weights by name."""

    def logits(self, ids: Tensor, cache: KVCache, *, every: bool) -> Tensor:
        """Logits (T, V) after each of `ids` (1, T), or (1, V) after the last; in evaluation mode, without gradient."""


class Decoder(Protocol):
    """Streams of tokens, each with what it has seen; a stream's logits do not depend on the others."""

    n_slots: int
    """How many streams there are; they are numbered from 0."""
    config: GPTConfig

    def n_seen(self, slot: int) -> int:
        """Tokens that a stream has seen, `block_size` at most."""

    def cut(self, slot: int, n: int) -> None:
        """Makes a stream forget all but its first `n` tokens."""

    def extend(self, feeds: Feeds, *, every: bool = False) -> Tensor:
        """Reads new tokens of some streams.

        Args:
            feeds: Stream and its new ids, one at least; no stream twice.
            every: Give logits after every new token, not only after the last of each stream.

        Returns:
            float32 on the CPU: (streams, V) in the order of `feeds`, or (tokens, V).

        Raises:
            ValueError: No such stream, an id that the model has not, or more tokens than the context holds.
        """


def decoder_for(model: Model, *, n_slots: int = 1, dtype: Dtype | None = None, threads: int | None = None) -> Decoder:
    """The fastest decoder for a model where it lives.

    Args:
        model: A GPT; training it later does not change the decoder where that is in Rust.
        n_slots: Streams at once.
        dtype: How weights are kept while generating. None: as the model has them. "auto": bfloat16 on a CPU, half of
            float32 to read; as the model has them elsewhere. "int8": a byte each, scaled by groups of 64.
        threads: CPU threads; None takes what torch has.

    Raises:
        ValueError: An argument is out of range, or `dtype` is int8 on a GPU.
    """
    if dtype is not None and dtype not in get_args(Dtype):
        raise ValueError(f"dtype must be one of {', '.join(get_args(Dtype))}, got {dtype!r}")
    for name, value in (("n_slots", n_slots), ("threads", threads)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    weight = model.state_dict()["token_embedding.weight"]
    own = str(weight.dtype).removeprefix("torch.")
    if weight.device.type == "cpu" and weight.dtype != torch.float64:
        kept: Dtype = dtype or ("bfloat16" if own == "bfloat16" else "float32")
        kept = "bfloat16" if kept == "auto" else kept
        return CpuDecoder(model, n_slots=n_slots, dtype=kept, threads=threads or torch.get_num_threads())
    if dtype == "int8":
        raise ValueError(f"dtype int8 is for a CPU, and the model is on {weight.device.type}; leave it away")
    return TorchDecoder(model if dtype in (None, "auto", own) else _cast(model, dtype), n_slots=n_slots)


class CpuDecoder:
    """The decoder in Rust; see `decoder_for`. Belongs to one thread at a time, and not to a forked child."""

    def __init__(self, model: Model, *, n_slots: int, dtype: Dtype, threads: int) -> None:
        self.config, self.n_slots, self.pid = model.config, n_slots, os.getpid()
        config = self.config
        tensors: dict[str, npt.NDArray[np.float32]] = {
            name: tensor.detach().float().contiguous().numpy() for name, tensor in model.state_dict().items()
        }
        self._core = _core.Decoder(
            tensors,
            vocab_size=config.vocab_size,
            block_size=config.block_size,
            n_layer=config.n_layer,
            n_head=config.n_head,
            n_kv=config.n_kv,
            d_model=config.d_model,
            d_inner=config.d_inner,
            norm=config.norm,
            norm_eps=config.norm_eps,
            mlp=config.mlp,
            rope_theta=config.rope_theta if config.position == "rope" else None,
            dtype=dtype,
            n_slots=n_slots,
            threads=threads,
        )

    def n_seen(self, slot: int) -> int:
        """Tokens that a stream has seen."""
        return self._core.n_seen()[slot]

    def cut(self, slot: int, n: int) -> None:
        """Makes a stream forget all but its first `n` tokens."""
        self._core.cut(slot, n)

    def extend(self, feeds: Feeds, *, every: bool = False) -> Tensor:
        """Logits after new tokens; see `Decoder`."""
        if os.getpid() != self.pid:
            raise RuntimeError("this decoder was made before a fork, and its threads stayed behind; make another")
        return torch.from_numpy(self._core.extend(list(feeds), every=every))  # (streams, V) or (tokens, V)


class TorchDecoder:
    """The decoder by torch, stream after stream: for GPUs, and as the reference."""

    def __init__(self, model: Model, *, n_slots: int) -> None:
        self.config, self.n_slots, self._model = model.config, n_slots, model
        like = model.state_dict()["token_embedding.weight"]
        size = self.config.block_size
        self._caches = [KVCache(self.config, batch_size=1, n_positions=size, like=like) for _ in range(n_slots)]
        self._device = like.device

    def n_seen(self, slot: int) -> int:
        """Tokens that a stream has seen."""
        return self._caches[slot].n_tokens

    def cut(self, slot: int, n: int) -> None:
        """Makes a stream forget all but its first `n` tokens."""
        if not 0 <= n <= self.n_seen(slot):
            raise ValueError(f"stream {slot} cannot be cut to {n} tokens: it has {self.n_seen(slot)}")
        self._caches[slot].n_tokens = n

    def extend(self, feeds: Feeds, *, every: bool = False) -> Tensor:
        """Logits after new tokens; see `Decoder`."""
        rows = []
        for slot, ids in feeds:
            x = torch.tensor([list(ids)], device=self._device)  # (1, T)
            rows.append(self._model.logits(x, self._caches[slot], every=every))
        return torch.cat(rows).float().cpu()  # (streams, V) or (tokens, V)


def _cast(model: Model, dtype: str) -> Model:
    copy: Any = deepcopy(model)
    cast: Model = copy.to(getattr(torch, dtype))
    return cast
