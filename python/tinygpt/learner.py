"""Learner: one model, its optimiser and its random numbers; a batch goes in, the weights move."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from tinygpt._core import FormatError
from tinygpt.crossentropy import IGNORED, add_wide
from tinygpt.distributed import Ranks
from tinygpt.engine import Engine
from tinygpt.model import GPT
from tinygpt.optim import build_optimizers
from tinygpt.randomstream import RandomStream
from tinygpt.trainconfig import TrainConfig


class Learner:
    """Takes optimiser steps with an engine.

    The model's own parameters are float32 masters. A step in a narrower type runs a copy of the model whose parameters
    are in that type; each gradient is added to its master's, in float32, as soon as it is whole, and let go. Against
    torch.autocast this spares the cast of every weight in every forward pass, and of every activation.

    Args:
        model: Trained in place, and moved to the engine's device.
        config: Optimiser, seed, clipping, and the windows of one forward pass.
        engine: How a step runs.
        ranks: Those that take each step together; each learns from its own rows of the batch.

    Source: Micikevicius et al. 2018, section 3.1 (arXiv:1710.03740), for the masters.
    """

    def __init__(self, model: GPT, config: TrainConfig, engine: Engine, ranks: Ranks | None = None) -> None:
        self._ranks = ranks or Ranks()
        if self._ranks.how == "fsdp" and config.optimizer == "muon":
            raise ValueError(
                "optimizer muon needs whole matrices, and with fsdp each process has parts; use adamw or ddp"
            )
        self.model = model.to(engine.device)
        self._ranks.distribute(self.model, self.model.blocks, dtype=engine.dtype)
        self.engine = engine
        self._config = config
        self._scaler = engine.scaler()
        self._random = RandomStream(self._ranks.seed(config.seed), engine.device)
        self._optimizers = build_optimizers(
            config.optimizer,
            self.model,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            betas=(config.beta1, config.beta2),
        )
        self._has_compiled = False
        self._work = self._working_copy()

    def learn(self, x: Tensor, y: Tensor, learning_rate: float, *, norm_limit: float = math.inf) -> tuple[float, float]:
        """One optimiser step; the weights stay as they are when its loss or gradient is not finite, or a spike.

        Args:
            x: Ids of the whole batch, or of this rank's rows of it, int64 (B, T).
            y: Targets, int64 (B, T); -100 is none.
            learning_rate: Rate of this step.
            norm_limit: Longest gradient that moves the weights.

        Returns:
            Loss, nats per target token, and norm of the gradient before clipping: of the batch of all ranks.
        """
        self.refresh()
        self._work.train()
        loss = self.accumulate(x, y)
        self._ranks.sum_gradients(self.model.parameters())
        for optimizer in self._optimizers:
            self._scaler.unscale_(optimizer)
        norm = self._ranks.clip_gradients(self.model.parameters(), self._config.grad_clip or math.inf)
        numbers = self._ranks.sum(loss)[0], norm
        if all(map(math.isfinite, numbers)) and numbers[1] <= norm_limit:
            for optimizer in self._optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate
                self._scaler.step(optimizer)
        self._scaler.update()
        self._drop_gradients()
        return numbers

    def refresh(self) -> GPT:
        """The model as the engine runs it, with the weights that it has now."""
        if self._work is not self.model:
            pairs = [(copy, own) for copy, own in zip(self._work.parameters(), self.model.parameters(), strict=True)]
            changed = [(copy.detach(), own.detach()) for copy, own in pairs if copy is not own]
            if changed:
                torch._foreach_copy_([copy for copy, _ in changed], [own for _, own in changed])
        return self._work

    def _working_copy(self) -> GPT:
        if self._ranks.how == "fsdp":  # which casts and gathers the model's own parts
            return self.engine.prepare(self.model)
        work = self.engine.working_copy(self.model)
        for copy, own in zip(work.parameters(), self.model.parameters(), strict=True):
            if copy is not own and copy.requires_grad:
                copy.register_post_accumulate_grad_hook(partial(_hand_over, own))  # type: ignore[no-untyped-call]
        return work

    def accumulate(self, x: Tensor, y: Tensor) -> float:
        """Forward and backward passes of a batch; its gradient is then in the model's parameters, times the loss scale.

        When the compiler fails or the device's memory is too small it goes on with another engine, and says so.

        Returns:
            Loss, nats per target token.
        """
        (n_targets,) = self._ranks.sum((y != IGNORED).sum().item())
        while True:
            try:
                loss = self._accumulate(x, y, n_targets)
            except torch.OutOfMemoryError as error:
                if self._ranks.how == "fsdp":  # the others are in the middle of the same pass
                    raise
                is_memory, reason = True, _first_line(error)
            except Exception as error:  # whatever the compiler stumbles over; the model's own errors come again
                if not self.engine.compile or self._has_compiled or self._ranks.how == "fsdp":
                    raise
                is_memory, reason = False, _first_line(error)
            else:
                self._has_compiled = True
                return loss
            # Not before the error is gone: with it goes what the pass that failed still held.
            self._drop_gradients()
            self._take_fewer(x.shape[1], reason) if is_memory else self._go_on_uncompiled(reason)

    def _take_fewer(self, block_size: int, reason: str) -> None:
        n = self.engine.micro_batch or self._config.batch_size
        if n == 1:
            raise RuntimeError(
                f"out of memory with one window of {block_size} tokens at a time: {reason}; "
                "a smaller block_size or model takes less"
            )
        message = f"out of memory with {n} windows at a time, going on with {n // 2}"
        warnings.warn(message, RuntimeWarning, stacklevel=5)
        self.engine = replace(self.engine, micro_batch=n // 2)
        if self.engine.device == "cuda":
            torch.cuda.empty_cache()

    def _go_on_uncompiled(self, reason: str) -> None:
        message = f"torch.compile failed ({reason}); training goes on without it"
        warnings.warn(message, RuntimeWarning, stacklevel=5)
        self.engine = replace(self.engine, compile=False)
        self._work = self._working_copy()
        self.refresh()
        self._work.train()

    def _accumulate(self, x: Tensor, y: Tensor, n_targets: float) -> float:
        self._drop_gradients()  # a step that was broken off may have left some
        scale = self._scaler.get_scale()
        total = torch.zeros((), device=self.engine.device)
        head = self.model.head_weight
        if head.requires_grad and self._ranks.how != "fsdp":
            head.grad = torch.zeros_like(head)  # (V, C)
        n_windows = self.engine.micro_batch or self._config.batch_size
        with self._random.use(), self.engine.products():
            for start in range(0, len(x), n_windows):
                part = slice(start, start + n_windows)
                self._ranks.reduce_after(self._work, is_last=part.stop >= len(x))
                # Every target of the whole batch weighs the same, whichever part it is in.
                ids, targets = self._moved(x[part]), self._moved(y[part])  # each (B, T)
                loss = self._work.loss(ids, targets, scale=scale / n_targets, head_grad=head.grad)
                torch.autograd.backward(loss)
                total += loss.detach()
        return total.item() / scale

    def _moved(self, ids: Tensor) -> Tensor:
        """The ids on the engine's device; a copy to a GPU goes on while it computes."""
        if self.engine.device == "cuda":
            return ids.pin_memory().to("cuda", non_blocking=True)
        return ids.to(self.engine.device)

    def _drop_gradients(self) -> None:
        for parameter in (*self.model.parameters(), *self._work.parameters()):
            parameter.grad = None

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
            for optimizer in self._optimizers
            for parameter, state in optimizer.state.items()
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
        for optimizer in self._optimizers:
            order = [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
            packed = {
                index: {entry: self._ranks.part(value, parameters[name]) for entry, value in states[name].items()}
                for index, name in enumerate(order)
                if name in states
            }
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": packed, "param_groups": groups})


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


def _hand_over(own: Tensor, copy: Tensor) -> None:
    """Adds the gradient of a parameter's copy to the parameter's own, and lets it go."""
    if copy.grad is None:  # the head's, which went to its own at once
        return
    if own.grad is None:
        own.grad = copy.grad.to(own.dtype)
    else:
        add_wide(own.grad, copy.grad)
    copy.grad = None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
