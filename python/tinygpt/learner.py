"""Learner: one model, its optimiser and its random numbers; a batch goes in, the weights move."""

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from tinygpt._core import FormatError
from tinygpt.engine import CompiledLoss, Engine, RandomStream
from tinygpt.model import GPT
from tinygpt.optim import build_optimizer
from tinygpt.trainconfig import TrainConfig


class Learner:
    """Takes optimiser steps with an engine.

    Args:
        model: Trained in place, and moved to the engine's device.
        config: Optimiser, seed, clipping, and the windows of one forward pass.
        engine: How a step runs.
    """

    def __init__(self, model: GPT, config: TrainConfig, engine: Engine) -> None:
        self.model = model.to(engine.device)
        self.engine = engine
        self._config = config
        self._loss = CompiledLoss(model.loss) if engine.compile else model.loss
        self._scaler = engine.scaler()
        self._random = RandomStream(config.seed, engine.device)
        self._optimizer = build_optimizer(
            config.optimizer,
            self.model,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            betas=(config.beta1, config.beta2),
        )

    def learn(self, x: Tensor, y: Tensor, learning_rate: float, *, norm_limit: float = math.inf) -> tuple[float, float]:
        """One optimiser step; the weights stay as they are when its loss or gradient is not finite, or a spike.

        Args:
            x: Ids of the whole batch, int64 (B, T).
            y: Targets, int64 (B, T); -100 is none.
            learning_rate: Rate of this step.
            norm_limit: Longest gradient that moves the weights.

        Returns:
            Loss, nats per target token, and norm of the gradient before clipping.
        """
        total = torch.zeros((), device=self.engine.device)
        n_targets = (y != -100).sum().item()
        self.model.train()
        self._optimizer.zero_grad(set_to_none=True)  # a step that was broken off may have left some
        with self._random.use():
            for start in range(0, len(x), self._config.batch_size):
                part = slice(start, start + self._config.batch_size)
                with self.engine.autocast():
                    loss = self._loss(x[part].to(total.device), y[part].to(total.device), reduction="sum")
                loss = loss / n_targets  # every target of the whole batch weighs the same, whichever part it is in
                torch.autograd.backward(self._scaler.scale(loss))
                total += loss.detach()
        if isinstance(self._loss, CompiledLoss) and self._loss.failed:
            self.engine, self._loss = replace(self.engine, compile=False), self.model.loss
        self._scaler.unscale_(self._optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._config.grad_clip or math.inf)
        numbers = total.item(), norm.item()
        if all(map(math.isfinite, numbers)) and numbers[1] <= norm_limit:
            for group in self._optimizer.param_groups:
                group["lr"] = learning_rate
            self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        return numbers

    @property
    def is_finding_scale(self) -> bool:
        """Whether a gradient out of range may yet be the loss scale's fault: float16 finds its scale by overflowing."""
        return self._scaler.is_enabled() and self._scaler.get_scale() > 1

    @property
    def scaler_state(self) -> dict[str, float]:
        """State of the loss scaler; empty without one."""
        return dict(self._scaler.state_dict())

    def tensors(self) -> dict[str, Tensor]:
        """Optimiser and random state, flat: `optimizer/<parameter>/<entry>` and `random/<device>` -> tensor."""
        names: dict[Tensor, str] = {parameter: name for name, parameter in self.model.named_parameters()}
        flat = {
            f"optimizer/{names[parameter]}/{entry}": value.detach().cpu()
            for parameter, state in self._optimizer.state.items()
            for entry, value in state.items()
            if isinstance(value, Tensor)
        }
        return {**flat, **{f"random/{device}": state for device, state in self._random.state().items()}}

    def restore(self, tensors: Mapping[str, Tensor], scaler_state: Mapping[str, float]) -> None:
        """Goes on where `tensors` and `scaler_state` were taken.

        Raises:
            FormatError: A tensor belongs to no parameter, is of another shape or type, or is missing.
        """
        self._random.restore({key.split("/")[1]: value for key, value in tensors.items() if key.startswith("random/")})
        if self._scaler.is_enabled() and scaler_state:
            self._scaler.load_state_dict(dict(scaler_state))
        parameters = dict(self.model.named_parameters())
        states = _optimizer_states(tensors, parameters)
        names = {parameter: name for name, parameter in parameters.items()}
        order = [names[parameter] for group in self._optimizer.param_groups for parameter in group["params"]]
        packed = {index: states[name] for index, name in enumerate(order) if name in states}
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": packed, "param_groups": groups})


def _optimizer_states(tensors: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Parameter -> entry -> tensor, each checked against its parameter."""
    states: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        kind, name, *entry = key.split("/")
        if kind != "optimizer":
            continue
        if name not in parameters or not entry:
            raise FormatError(f"optimiser state {key} belongs to no parameter of the model; use another checkpoint")
        wanted = parameters[name].shape
        if tensor.dtype != torch.float32 or tensor.shape not in (wanted, torch.Size([])):
            found = f"{tensor.dtype} {tuple(tensor.shape)}"
            raise FormatError(f"optimiser state {key} is {found}, not torch.float32 {tuple(wanted)}")
        states.setdefault(name, {})[entry[0]] = tensor
    if states and (missing := parameters.keys() - states.keys()):
        raise FormatError(f"optimiser state of {min(missing)} is missing; use another checkpoint")
    return states
