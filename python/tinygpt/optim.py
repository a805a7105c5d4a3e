"""Optimisers, parameter groups, and learning-rate schedules as pure functions of the step."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

_FUSED_DEVICES = ("cpu", "cuda", "mps")


def learning_rate(
    step: int, *, schedule: str = "cosine", peak: float, warmup_steps: int, max_steps: int, floor: float = 0.0
) -> float:
    """Linear rise to `peak`, then the schedule's fall to `floor`.

    Args:
        step: Optimiser steps already taken, from 0.
        schedule: A name in `SCHEDULES`.
        peak: Highest rate, reached as warm-up ends.
        warmup_steps: Steps of the rise; 0 starts at `peak`.
        max_steps: Step from which the rate stays where the fall ends.
        floor: Lowest rate of the fall, as a rate and not as a share of `peak`.

    Raises:
        ValueError: No schedule has this name, or `warmup_steps` exceeds `max_steps`.

    Example:
        >>> learning_rate(0, peak=1.0, warmup_steps=2, max_steps=10)
        0.5

    Source: Loshchilov and Hutter 2017, eq. 5 (arXiv:1608.03983), without restarts, for the cosine.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {schedule!r}")
    if not 0 <= warmup_steps <= max_steps:
        raise ValueError(f"warmup_steps must be from 0 to max_steps ({max_steps}), got {warmup_steps}")
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, max_steps - warmup_steps)) if step < max_steps else 1.0
    return floor + (peak - floor) * SCHEDULES[schedule](progress)


def cosine(progress: float) -> float:
    """Half a cosine from 1 to 0 as `progress` goes from 0 to 1."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def linear(progress: float) -> float:
    """A straight line from 1 to 0 as `progress` goes from 0 to 1."""
    return 1.0 - progress


def constant(progress: float) -> float:
    """1, whatever `progress` is."""
    return 1.0


def wsd(progress: float) -> float:
    """1 for the first four fifths, then a straight line to 0 ("warm-up, stable, decay").

    Source: Hu et al. 2024, section 4 (arXiv:2404.06395), with the share of decay of Hägele et al. 2024
    (arXiv:2405.18392).
    """
    return min(1.0, (1.0 - progress) / 0.2)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The trainable parameters in two groups: matrices, which decay, and vectors and scalars, which do not.

    Norms and biases are vectors: pulling them to zero changes the scale of a layer, not its complexity. A tied
    matrix appears once. A group with nothing in it is left out.

    Args:
        model: Any module.
        weight_decay: Decay of the matrices, a share of the weight per step and unit of learning rate.

    Example:
        >>> [(len(group["params"]), group["weight_decay"]) for group in parameter_groups(nn.Linear(2, 3), 0.1)]
        [(1, 0.1), (1, 0.0)]
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trainable if parameter.ndim >= 2]
    vectors = [parameter for parameter in trainable if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def build_optimizer(
    name: str,
    model: nn.Module,
    *,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.1,
    betas: tuple[float, float] = (0.9, 0.95),
    eps: float = 1e-8,
    fused: bool | None = None,
) -> torch.optim.Optimizer:
    """An optimiser over the parameters of a model, with decay on matrices only.

    Args:
        name: A name in `OPTIMIZERS`.
        model: Any module, already on its device.
        learning_rate: Rate of the first step; the trainer sets it anew at each.
        weight_decay: Decay of the matrices.
        betas: Memory of the mean and of the mean square of gradients; "sgd" takes the first as its momentum.
        eps: Added to the root of the mean square; "sgd" has no use for it.
        fused: Update all parameters in one kernel; None does where the device has one.

    Raises:
        ValueError: No optimiser has this name, or the model has nothing to train.

    Example:
        >>> build_optimizer("adamw", nn.Linear(2, 3)).param_groups[0]["lr"]
        0.001
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, got {name!r}")
    groups = parameter_groups(model, weight_decay)
    if not groups:
        raise ValueError("the model has no parameter that requires a gradient, so there is nothing to train")
    if fused is None:
        fused = all(parameter.device.type in _FUSED_DEVICES for group in groups for parameter in group["params"])
    return OPTIMIZERS[name](groups, learning_rate, betas, eps, fused)


def adamw(
    groups: list[dict[str, Any]], learning_rate: float, betas: tuple[float, float], eps: float, fused: bool
) -> torch.optim.Optimizer:
    """AdamW: Adam with decay apart from the gradient.

    Source: Loshchilov and Hutter 2019, algorithm 2 (arXiv:1711.05101).
    """
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=eps, fused=fused)


def sgd(
    groups: list[dict[str, Any]], learning_rate: float, betas: tuple[float, float], eps: float, fused: bool
) -> torch.optim.Optimizer:
    """Stochastic gradient descent with Nesterov's momentum, `betas[0]`; `eps` is not used.

    Source: Sutskever et al. 2013, eq. 3 and 4 (proceedings.mlr.press/v28/sutskever13.html).
    """
    return torch.optim.SGD(groups, lr=learning_rate, momentum=betas[0], nesterov=betas[0] > 0, fused=fused)


SCHEDULES: dict[str, Callable[[float], float]] = {"cosine": cosine, "linear": linear, "constant": constant, "wsd": wsd}

OPTIMIZERS: dict[
    str, Callable[[list[dict[str, Any]], float, tuple[float, float], float, bool], torch.optim.Optimizer]
] = {"adamw": adamw, "sgd": sgd}
