"""Optimisers, parameter groups, and learning-rate schedules as pure functions of the step."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

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


def build_optimizers(
    name: str,
    model: nn.Module,
    *,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.1,
    betas: tuple[float, float] = (0.9, 0.95),
    eps: float = 1e-8,
    fused: bool | None = None,
) -> list[torch.optim.Optimizer]:
    """The optimisers that together train a model, with decay on matrices only.

    Norms and biases are vectors: pulling them to zero changes the scale of a layer, not its complexity.

    Args:
        name: A name in `OPTIMIZERS`.
        model: Any module, already on its device.
        learning_rate: Rate of the first step; the trainer sets it anew at each.
        weight_decay: Decay of the matrices, a share of the weight per step and unit of learning rate.
        betas: Memory of the mean and of the mean square of gradients; "sgd" and "muon" take the first as momentum.
        eps: Added to the root of the mean square.
        fused: Update all parameters in one kernel; None does where the device has one.

    Raises:
        ValueError: No optimiser has this name, or the model has nothing to train.

    Example:
        >>> [optimizer] = build_optimizers("adamw", nn.Linear(2, 3))
        >>> [(len(group["params"]), group["weight_decay"]) for group in optimizer.param_groups]
        [(1, 0.1), (1, 0.0)]
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, got {name!r}")
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not parameters:
        raise ValueError("the model has no parameter that requires a gradient, so there is nothing to train")
    if fused is None:
        fused = all(parameter.device.type in _FUSED_DEVICES for parameter in parameters.values())
    return OPTIMIZERS[name](parameters, learning_rate, weight_decay, betas, eps, fused)


def state_size(name: str, model: nn.Module) -> int:
    """Numbers that an optimiser comes to remember of a model's parameters, but for counters.

    Args:
        name: A name in `OPTIMIZERS`.
        model: Any module.

    Example:
        >>> [state_size(name, nn.Linear(2, 3)) for name in ("adamw", "sgd")]
        [18, 9]
    """
    sizes = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    orthogonal = {each for each, p in model.named_parameters() if name == "muon" and _is_for_muon(each, p)}
    return sum(size * (1 if name == "sgd" or each in orthogonal else 2) for each, size in sizes.items())


def _is_for_muon(name: str, parameter: Tensor) -> bool:
    return parameter.ndim == 2 and name.startswith("blocks.")


def adamw(
    parameters: Mapping[str, Tensor],
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float],
    eps: float,
    fused: bool,
) -> list[torch.optim.Optimizer]:
    """AdamW: Adam with decay apart from the gradient.

    Source: Loshchilov and Hutter 2019, algorithm 2 (arXiv:1711.05101).
    """
    groups = _groups(parameters.values(), weight_decay)
    return [torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=eps, fused=fused)]


def sgd(
    parameters: Mapping[str, Tensor],
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float],
    eps: float,
    fused: bool,
) -> list[torch.optim.Optimizer]:
    """Stochastic gradient descent with Nesterov's momentum, `betas[0]`; `eps` is not used.

    Source: Sutskever et al. 2013, eq. 3 and 4 (proceedings.mlr.press/v28/sutskever13.html).
    """
    groups = _groups(parameters.values(), weight_decay)
    return [torch.optim.SGD(groups, lr=learning_rate, momentum=betas[0], nesterov=betas[0] > 0, fused=fused)]


def muon(
    parameters: Mapping[str, Tensor],
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float],
    eps: float,
    fused: bool,
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, whose updates it makes orthogonal; AdamW for embeddings, head and vectors.

    Both take the same learning rate: Muon's updates are scaled to the size that AdamW's have. The momentum is
    `betas[0]`, at least 0.95, as published.

    Source: Jordan et al. 2024 (kellerjordan.github.io/posts/muon); Liu et al. 2025, section 2.2 (arXiv:2502.16982) for
    the scale.
    """
    matrices = {name: p for name, p in parameters.items() if _is_for_muon(name, p)}
    others = [parameter for name, parameter in parameters.items() if name not in matrices]
    optimizers: list[torch.optim.Optimizer] = []
    if matrices:
        optimizers.append(
            torch.optim.Muon(
                matrices.values(),
                lr=learning_rate,
                weight_decay=weight_decay,
                momentum=max(0.95, betas[0]),
                adjust_lr_fn="match_rms_adamw",
            )
        )
    if others:
        groups = _groups(others, weight_decay)
        optimizers.append(torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=eps, fused=fused))
    return optimizers


def _groups(parameters: Iterable[Tensor], weight_decay: float) -> list[dict[str, Any]]:
    """Matrices, which decay, and vectors and scalars, which do not; a group with nothing in it is left out."""
    trained = list(parameters)
    matrices, vectors = [p for p in trained if p.ndim >= 2], [p for p in trained if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


SCHEDULES: dict[str, Callable[[float], float]] = {"cosine": cosine, "linear": linear, "constant": constant, "wsd": wsd}

_Builder = Callable[[Mapping[str, Tensor], float, float, tuple[float, float], float, bool], list[torch.optim.Optimizer]]
OPTIMIZERS: dict[str, _Builder] = {"adamw": adamw, "muon": muon, "sgd": sgd}
