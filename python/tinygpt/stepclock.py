"""Clock: a real optimiser step of a candidate, timed on random tokens; and the peak that its products could reach."""

import contextlib
import gc
import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

from tinygpt.engine import Engine
from tinygpt.learner import Learner
from tinygpt.model import GPT, GPTConfig
from tinygpt.trainconfig import TrainConfig

_NUMERIC_WINDOWS = 4  # the first choices are the slowest; a part of a micro-batch tells them apart


class Clock:
    """Measures candidates on random tokens.

    Args:
        config: The run's settings.
        shape: The model's.
        is_alone: Whether one candidate is all that this process will measure, so that the peak memory is its own.
    """

    def __init__(self, config: TrainConfig, shape: GPTConfig, *, is_alone: bool = False) -> None:
        torch.manual_seed(0)
        self._threads = torch.get_num_threads()
        self._first_pace = self._pace()
        self._config = config
        self._model = GPT(shape)
        # The choice of type and precision has the slowest candidates; a part of model and batch tells them apart.
        self._part = None if is_alone else GPT(replace(shape, n_layer=min(2, shape.n_layer)))
        self._is_alone = is_alone

    def __call__(self, engine: Engine, *, in_part: bool) -> dict[str, Any] | None:
        """One candidate: an optimiser step to warm up and for the memory, then micro-batches and a step by the clock.

        Returns:
            The measurement; None where the compiler fails or the loss is no number.

        Raises:
            MemoryError: There is too little.
        """
        windows = engine.micro_batch or self._config.batch_size
        windows = min(windows, _NUMERIC_WINDOWS) if in_part else windows
        model = self._part if in_part and self._part is not None else self._model
        generator = torch.Generator().manual_seed(1)
        ids = torch.randint(model.config.vocab_size, (windows, model.config.block_size + 1), generator=generator)
        x, y = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()  # each (B, T)
        pace = self._pace()
        torch.set_num_threads(engine.threads)
        config = replace(self._config, batch_size=windows, grad_accum=1, micro_batch=None, learning_rate=1e-12)
        try:
            learner = Learner(model, config, replace(engine, micro_batch=windows))
            started = time.perf_counter()
            loss, _ = learner.learn(x, y, 1e-12)
            first = time.perf_counter() - started
            if learner.engine.compile != engine.compile or not math.isfinite(loss):
                return None
            waited, began = _waiting_seconds(), time.perf_counter()
            seconds = _some(partial(learner.accumulate, x, y), least=2)
            # What the clock read while threads waited for a core is worth little.
            waiting = (_waiting_seconds() - waited) / (time.perf_counter() - began) / engine.threads
            whole = _some(partial(learner.learn, x, y, 1e-12), least=1)
            rest = max(0.0, min(whole) - min(seconds))  # of a step, whatever its size
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
                raise
            raise MemoryError(str(error)) from None  # torch says it otherwise
        # A part of the model is there to tell types apart, and has no steps to come.
        n_passes = 1.0 if in_part else self._config.windows_per_step / windows
        tokens_per_second = n_passes * x.numel() / (n_passes * min(seconds) + (0.0 if in_part else rest))
        tokens_per_second *= (pace + self._pace()) / 2 / self._first_pace
        memory = _peak_bytes()
        del learner
        torch.compiler.reset()
        gc.collect()
        return {
            **asdict(engine),
            "tokens_per_second": tokens_per_second,
            "memory_bytes": memory if self._is_alone else None,
            "compile_seconds": max(0.0, first - min(seconds)) if engine.compile else 0.0,
            "loss": loss,
            "in_part": in_part,
            "waiting_share": waiting,
        }

    def _pace(self) -> float:
        """Seconds of some fixed work: what a virtual machine gives drifts by a half within minutes.

        Candidates are measured one after the other; held against this work they compare, whenever their turn was.
        Without it a compiled engine whose turn came in a slow minute lost: 10,956 tokens a second against 14,012, where
        side by side it did 18,203 against 14,668.
        """
        torch.set_num_threads(self._threads)
        a, b = torch.ones(768, 512), torch.ones(512, 2048)
        return min(_seconds(lambda: (a @ b).clone()) for _ in range(6))


def _waiting_seconds() -> float:
    """Seconds that this process's threads were ready to run and had no core; 0 where the system does not say."""
    found = 0
    for file in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError, ValueError, IndexError):  # a thread that has ended
            found += int(file.read_text(encoding="ascii").split()[1])
    return found / 1e9


def _peak_bytes() -> int | None:
    """Most memory that this process has held; None where nobody knows."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return Engine().peak_memory_bytes()
    # getrusage counts what the parent held when it forked
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), None)


def gemm_flops(shape: GPTConfig, engine: Engine, *, n_rows: int) -> float:
    """Operations per second of a model's matrix products alone: the peak that a training step is held against.

    Args:
        shape: The model's.
        engine: Type and precision of the products.
        n_rows: Tokens of a micro-batch.
    """
    dtype, c = getattr(torch, engine.dtype), shape.d_model
    up = shape.d_inner * (1 if shape.mlp == "gelu" else 2)
    layers = [(c, (shape.n_head + 2 * shape.n_kv) * shape.d_head), (c, c), (c, up), (shape.d_inner, c)]
    n_operations, seconds = 0.0, 0.0
    with engine.products():
        for n_in, n_out, n_times in [*((*layer, shape.n_layer) for layer in layers), (c, shape.vocab_size, 1)]:
            x, w = torch.randn(n_rows, n_in, dtype=dtype), torch.randn(n_out, n_in, dtype=dtype)
            dy = torch.randn(n_rows, n_out, dtype=dtype)  # (N, n_out)
            products: list[Callable[[], torch.Tensor]] = [
                partial(F.linear, x, w),
                partial(torch.mm, dy, w),
                partial(torch.mm, dy.T, x),
            ]
            for product in products:
                seconds += n_times * min(_seconds(product) for _ in range(4))
                n_operations += n_times * 2.0 * n_rows * n_in * n_out
    return n_operations / seconds


def _some(work: Callable[[], object], *, least: int) -> list[float]:
    """Seconds of some work again and again, of which a moment that the machine lost spoils one and not the smallest."""
    found: list[float] = []
    while len(found) < least or (sum(found) < 0.5 and len(found) < 20):
        found.append(_seconds(work))
    return found


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
