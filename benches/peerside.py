"""The peers' side of the training suite: the loop that a user of theirs writes. Imports nothing of ours.

A whole step of 252 windows takes up to two minutes here, so the seconds of a step are reckoned: `grad_accum` times the
median of the micro-batches measured, plus the median of the optimiser steps (clipping and clearing gradients included).
"""

import contextlib
import ctypes
import importlib
import math
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from benches.race import Took, peak_mb
from benches.shape import HEADER_BYTES, Shape

MICRO_BATCHES, STEPS = 4, 2
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
LEARNING_RATE, WEIGHT_DECAY, BETAS = 6e-4, 0.1, (0.9, 0.95)

Loss = Callable[[Any, Any], Any]


def train(
    peer: str,
    shape: Shape,
    data: str,
    *,
    dtype: str,
    is_compiled: bool,
    is_tuned: bool = False,
    nanogpt: str | None = None,
) -> tuple[Took, int]:
    """Seconds of a micro-batch, its share of the optimiser step included, with the peak; and the parameters.

    Args:
        peer: A name in `PEERS`.
        shape: Of the model and the step.
        data: The shard.
        dtype: float32, or bfloat16 by autocast.
        is_compiled: Whether the model goes through torch.compile.
        is_tuned: Add what it does not ship with: memory that malloc keeps, and AdamW in one kernel.
        nanogpt: The folder that holds nanoGPT's model.py.

    Raises:
        AssertionError: The first loss is not that of a model that knows nothing.
    """
    if is_tuned:
        keep_memory()
    import numpy as np
    import torch

    torch.set_num_threads(shape.threads)
    torch.manual_seed(0)
    model, loss, optimizer = PEERS[peer](shape, is_compiled, nanogpt)
    if is_tuned:
        optimizer = _adamw(model, fused=True)
    tokens = np.memmap(data, np.uint16, "r", offset=HEADER_BYTES)
    rng, losses = np.random.default_rng(0), []

    def micro_batch() -> None:
        starts = rng.integers(0, len(tokens) - shape.block_size - 1, shape.batch_size)
        windows = torch.from_numpy(np.stack([tokens[i : i + shape.block_size + 1].astype(np.int64) for i in starts]))
        x, y = windows[:, :-1].contiguous(), windows[:, 1:].contiguous()  # each (B, T)
        with torch.autocast("cpu", torch.bfloat16) if dtype == "bfloat16" else contextlib.nullcontext():
            found = loss(x, y) / shape.grad_accum
        found.backward()
        losses.append(found.item() * shape.grad_accum)

    def step() -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    for part in (micro_batch, micro_batch, step):  # compiles, and has the optimiser take its memory
        part()
    marks: dict[Callable[[], None], list[float]] = {micro_batch: [], step: []}
    for part in ([micro_batch] * MICRO_BATCHES + [step]) * STEPS:
        begin = time.perf_counter()
        part()
        marks[part].append(time.perf_counter() - begin)
    assert abs(losses[0] / math.log(shape.vocab_size) - 1) < 0.02, f"the first loss is {losses[0]}"
    seconds = median(marks[micro_batch]) + median(marks[step]) / shape.grad_accum
    return Took(seconds, peak_mb()), sum(parameter.numel() for parameter in model.parameters())


def keep_memory() -> None:
    """Has malloc keep what is freed, instead of giving it back and asking for fresh pages; before torch is imported.

    glibc refuses an M_MMAP_THRESHOLD above 32 MiB, and logits are larger: no mapping at all is what a larger one means.
    """
    libc = ctypes.CDLL(None)
    for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1)):
        assert libc.mallopt(option, value), f"this malloc does not take {value} for option {option}"


def _nanogpt(shape: Shape, is_compiled: bool, folder: str | None) -> tuple[Any, Loss, Any]:
    import torch

    sys.path.insert(0, str(folder))
    module: Any = importlib.import_module("model")
    config = module.GPTConfig(
        vocab_size=shape.vocab_size, block_size=shape.block_size, n_layer=shape.n_layer, n_head=shape.n_head,
        n_embd=shape.d_model, dropout=0.0, bias=False,
    )  # fmt: skip
    model = module.GPT(config)
    called = torch.compile(model) if is_compiled else model
    optimizer = model.configure_optimizers(WEIGHT_DECAY, LEARNING_RATE, BETAS, "cpu")
    return model, lambda x, y: called(x, y)[1], optimizer


def _gpt2(shape: Shape, is_compiled: bool, folder: str | None) -> tuple[Any, Loss, Any]:
    import transformers

    config = transformers.GPT2Config(
        vocab_size=shape.vocab_size, n_positions=shape.block_size, n_layer=shape.n_layer, n_head=shape.n_head,
        n_embd=shape.d_model, n_inner=shape.d_ff, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False,
    )  # fmt: skip
    return _transformers(transformers.GPT2LMHeadModel(config), is_compiled)


def _llama(shape: Shape, is_compiled: bool, folder: str | None) -> tuple[Any, Loss, Any]:
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=shape.vocab_size, max_position_embeddings=shape.block_size, num_hidden_layers=shape.n_layer,
        num_attention_heads=shape.n_head, hidden_size=shape.d_model, intermediate_size=shape.d_ff,
        tie_word_embeddings=True, use_cache=False,
    )  # fmt: skip
    return _transformers(transformers.LlamaForCausalLM(config), is_compiled)


def _transformers(model: Any, is_compiled: bool) -> tuple[Any, Loss, Any]:
    """Their own loss, which shifts the ids itself and so has one target less in a window."""
    import torch

    model.train()
    called = torch.compile(model) if is_compiled else model
    return model, lambda x, y: called(input_ids=x, labels=x).loss, _adamw(model)


def _adamw(model: Any, *, fused: bool = False) -> Any:
    import torch

    matrices, vectors = ([p for p in model.parameters() if (p.ndim >= 2) is kind] for kind in (True, False))
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS, fused=fused or None)


PEERS: dict[str, Callable[[Shape, bool, str | None], tuple[Any, Loss, Any]]] = {
    "nanoGPT": _nanogpt,
    "GPT-2": _gpt2,
    "Llama": _llama,
}
