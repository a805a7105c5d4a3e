"""StepCost: seconds and memory of a step of any shape, from those of a few shapes that were measured here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygpt.modelconfig import GPTConfig

MOST_WAITING = 0.1
"""Share of the time of a measurement that threads may wait for a core: beyond it, its speed is worth nothing."""
_PASSES_OF_FIT = 2000


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """What a step takes: so much for each operation, each activation, each layer, each parameter; none is negative."""

    seconds: tuple[float, ...]
    memory: tuple[float, ...]

    @staticmethod
    def fitted(rows: Sequence[Mapping[str, Any]]) -> "StepCost":
        """The cost that comes nearest to measurements, each by its share.

        Args:
            rows: "shape", a `GPTConfig`; "windows" and "passes" of its step; "seconds" and "memory_bytes".
        """
        features = [
            (_work(row["shape"], row["windows"], row["passes"]), _room(row["shape"], row["windows"] // row["passes"]))
            for row in rows
        ]
        return StepCost(
            seconds=_nonnegative([each for each, _ in features], [row["seconds"] for row in rows]),
            memory=_nonnegative([each for _, each in features], [row["memory_bytes"] for row in rows]),
        )

    def step_parts(self, shape: GPTConfig) -> tuple[float, float, float]:
        """Seconds of a step for each token, for each pass, and besides."""
        work = np.asarray(self.seconds) * _work(shape, 1, 1)
        return float(work[:2].sum()) / shape.block_size, float(work[2]), float(work[3:].sum())

    def memory_parts(self, shape: GPTConfig) -> tuple[float, float]:
        """Bytes for each token of a pass, and besides."""
        room = np.asarray(self.memory) * _room(shape, 1)
        return float(room[2]) / shape.block_size, float(room[:2].sum())

    def step_seconds(self, shape: GPTConfig, windows: int, passes: int = 1) -> float:
        """Seconds of an optimiser step of so many windows in so many passes."""
        per_token, per_pass, rest = self.step_parts(shape)
        return windows * shape.block_size * per_token + passes * per_pass + rest

    def memory_bytes(self, shape: GPTConfig, windows: int) -> float:
        """Peak memory with so many windows at once."""
        per_token, rest = self.memory_parts(shape)
        return windows * shape.block_size * per_token + rest


def n_parameters(shape: GPTConfig) -> int:
    """Parameters of a model without biases, norms left out; a tied head counts once.

    Example:
        >>> n_parameters(GPTConfig(vocab_size=1000, n_layer=1, n_head=1, d_model=64))
        117248
    """
    embeddings = shape.vocab_size * (1 if shape.tie_embeddings else 2)
    positions = shape.block_size if shape.position == "learned" else 0
    return block_parameters(shape) + (embeddings + positions) * shape.d_model


def block_parameters(shape: GPTConfig) -> int:
    """Those of its blocks alone.

    Example:
        >>> block_parameters(GPTConfig(vocab_size=1000, n_layer=1, n_head=1, d_model=64))
        53248
    """
    return sum(rows * columns for rows, columns in _matrices(shape)) * shape.n_layer


def _matrices(shape: GPTConfig) -> list[tuple[int, int]]:
    c, gates = shape.d_model, 1 if shape.mlp == "gelu" else 2
    return [((shape.n_head + 2 * shape.n_kv) * shape.d_head, c), (c, c), (gates * shape.d_inner, c), (c, shape.d_inner)]


def _work(shape: GPTConfig, windows: int, passes: int) -> NDArray[np.float64]:
    """What seconds go with: operations, activations, layers passed, the optimiser's products, parameters."""
    tokens = windows * shape.block_size
    orthogonal = shape.n_layer * sum(min(pair) ** 2 * max(pair) for pair in _matrices(shape))
    activations = tokens * shape.n_layer * (shape.d_model + shape.d_inner + 0.25 * shape.n_head * shape.block_size)
    work = (shape.flops_per_token * tokens, activations, shape.n_layer * passes, orthogonal, n_parameters(shape), 1)
    return np.array(work, np.float64)


def _room(shape: GPTConfig, windows: int) -> NDArray[np.float64]:
    """What memory goes with: the program, parameters, activations."""
    tokens = windows * shape.block_size
    widths = shape.d_model * 6 + 3 * shape.d_inner + shape.n_head * shape.block_size
    return np.array((1, n_parameters(shape), tokens * shape.n_layer * widths), np.float64)


def _nonnegative(features: Sequence[NDArray[np.float64]], wanted: Sequence[float]) -> tuple[float, ...]:
    """Weights from 0 up whose sums are nearest to what is wanted, in least squares of shares: Lawson and Hanson's
    problem by coordinate descent.
    """
    a = np.stack(features) / np.asarray(wanted)[:, None]  # (rows, features)
    size = np.linalg.norm(a, axis=0)
    a = a / np.where(size > 0, size, 1)
    weights, left = np.zeros(a.shape[1]), np.ones(len(a))
    for _ in range(_PASSES_OF_FIT):
        for i in range(a.shape[1]):
            changed = max(0.0, weights[i] + float(a[:, i] @ left))
            left -= (changed - weights[i]) * a[:, i]
            weights[i] = changed
    return tuple(float(w) for w in weights / np.where(size > 0, size, 1))
