"""Learner: one model, its optimiser and its random numbers; a batch goes in, the weights move."""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tinygpt._core import FormatError
from tinygpt.distributed import Ranks
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
        ranks: Those that take each step together; each learns from its own rows of the batch.
    """

    def __init__(self, model: GPT, config: TrainConfig, engine: Engine, ranks: Ranks | None = None) -> None:
        self._ranks = ranks or Ranks()
        self.model = model.to(engine.device)
        self._ranks.distribute(self.model, self.model.blocks, dtype=engine.dtype)
        self.engine = engine
        self._config = config
        self._loss = CompiledLoss(model.loss) if engine.compile else model.loss
        self._scaler = engine.scaler()
        self._random = RandomStream(self._ranks.seed(config.seed), engine.device)
        self._optimizer = build_optimizer(
            config.optimizer,
            self.model,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            betas=(config.beta1, config.beta2),
        )

    def learn(self, x: Tensor, y: Tensor, learning_rate: float) -> tuple[float, float]:
        """One optimiser step; the weights stay as they are when its loss or gradient is not finite.

        Args:
            x: Ids of the whole batch, or of this rank's rows of it, int64 (B, T).
            y: Targets, int64 (B, T); -100 is none.
            learning_rate: Rate of this step.

        Returns:
            Loss, nats per target token, and norm of the gradient before clipping: of the batch of all ranks.
        """
        total = torch.zeros((), device=self.engine.device)
        (n_targets,) = self._ranks.sum((y != -100).sum().item())
        self.model.train()
        self._optimizer.zero_grad(set_to_none=True)  # a step that was broken off may have left some
        with self._random.use():
            for start in range(0, len(x), self._config.batch_size):
                part = slice(start, start + self._config.batch_size)
                self._ranks.reduce_after(self.model, is_last=part.stop >= len(x))
                with self.autocast():
                    loss = self._loss(x[part].to(total.device), y[part].to(total.device), reduction="sum")
                loss = loss / n_targets  # every target of the whole batch weighs the same, whichever part it is in
                torch.autograd.backward(self._scaler.scale(loss))
                total += loss.detach()
        if isinstance(self._loss, CompiledLoss) and self._loss.failed:
            self.engine, self._loss = replace(self.engine, compile=False), self.model.loss
        self._ranks.sum_gradients(self.model.parameters())
        self._scaler.unscale_(self._optimizer)
        norm = self._ranks.clip_gradients(self.model.parameters(), self._config.grad_clip or math.inf)
        numbers = self._ranks.sum(total.item())[0], norm
        if all(map(math.isfinite, numbers)):
            for group in self._optimizer.param_groups:
                group["lr"] = learning_rate
            self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        return numbers

    def autocast(self) -> AbstractContextManager[Any]:
        """The context in which forward passes run; a sharded model casts its own weights."""
        return nullcontext() if self._ranks.how == "fsdp" else self.engine.autocast()

    def whole_model(self) -> GPT | None:
        """The model as a process alone would have it, on the first rank; None on the others, which must take part.

        It is the model in training, or a copy on the CPU where that is sharded.
        """
        if self._ranks.how != "fsdp":
            return self.model if self._ranks.is_first else None
        weights = self._ranks.gather(self.model.state_dict())
        if not self._ranks.is_first:
            return None
        with torch.device("meta"):
            whole = GPT(self.model.config)
        whole.load_state_dict(weights, assign=True)
        return whole

    @property
    def is_finding_scale(self) -> bool:
        """Whether a gradient out of range may yet be the loss scale's fault: float16 finds its scale by overflowing."""
        return self._scaler.is_enabled() and self._scaler.get_scale() > 1

    @property
    def scaler_state(self) -> dict[str, float]:
        """State of the loss scaler; empty without one."""
        return dict(self._scaler.state_dict())

    def tensors(self) -> dict[str, Tensor]:
        """Optimiser and random state, flat: `optimizer/<parameter>/<entry>` and `random/<device>` -> tensor.

        They are whole on the first rank, which has the random state of the others as `random/<rank>/<device>`; the
        others, which must take part, get none.
        """
        names: dict[Tensor, str] = {parameter: name for name, parameter in self.model.named_parameters()}
        flat = {
            f"optimizer/{names[parameter]}/{entry}": value
            for parameter, state in self._optimizer.state.items()
            for entry, value in state.items()
            if isinstance(value, Tensor)
        }
        random = {
            _random_key(rank) + device: copy
            for device, state in self._random.state().items()
            for rank, copy in enumerate(self._ranks.gather_copies(state))
        }
        return self._ranks.gather({**flat, **random})

    def restore(self, tensors: Mapping[str, Tensor], scaler_state: Mapping[str, float]) -> None:
        """Goes on where `tensors` and `scaler_state` were taken, by any number of ranks.

        A rank that was not there begins its random numbers anew.

        Raises:
            FormatError: A tensor belongs to no parameter, is of another shape or type, or is missing.
        """
        key = _random_key(self._ranks.rank)
        self._random.restore({name[len(key) :]: value for name, value in tensors.items() if name.startswith(key)})
        if self._scaler.is_enabled() and scaler_state:
            self._scaler.load_state_dict(dict(scaler_state))
        parameters = dict(self.model.named_parameters())
        states = _optimizer_states(tensors, parameters)
        names = {parameter: name for name, parameter in parameters.items()}
        order = [names[parameter] for group in self._optimizer.param_groups for parameter in group["params"]]
        packed = {
            index: {entry: self._ranks.part(value, parameters[name]) for entry, value in states[name].items()}
            for index, name in enumerate(order)
            if name in states
        }
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": packed, "param_groups": groups})


def _random_key(rank: int) -> str:
    """What stands before the device's name; the first rank's key is that of a process alone."""
    return f"random/{rank}/" if rank else "random/"


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
