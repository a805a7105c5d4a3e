"""TrainConfig: every knob of training, with its default, unit and range. Needs no torch."""

import math
import re
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train. Of the four limits any may be given; the first one reached ends the run."""

    max_steps: int | None = None
    """Optimiser steps at most; with no limit of any kind, 2000."""
    epochs: float | None = None
    """Passes over the training data at most."""
    max_tokens: int | None = None
    """Tokens to train on at most, rounded up to whole steps."""
    max_seconds: float | None = None
    """Seconds of training; as the only limit they are turned into steps, anew as they pass."""
    batch_size: int = 12
    """Windows in one forward pass."""
    grad_accum: int = 1
    """Forward passes in one optimiser step, which takes batch_size * grad_accum windows."""
    learning_rate: float = 1e-3
    """Highest learning rate."""
    min_lr_fraction: float = 0.1
    """Lowest learning rate after warm-up, as a share of the highest."""
    warmup_steps: int = 100
    """Steps of the linear rise to the highest learning rate; a shorter run rises to its end."""
    schedule: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    """Course of the learning rate after warm-up; wsd stays up and falls at the end."""
    optimizer: Literal["adamw", "muon", "sgd"] = "adamw"
    """Rule of the step."""
    beta1: float = 0.9
    """Memory of the gradient's mean, from 0 to below 1."""
    beta2: float = 0.95
    """Memory of the gradient's square, from 0 to below 1."""
    weight_decay: float = 0.1
    """Decay of the matrices (not of biases and norms) per step, times the learning rate."""
    grad_clip: float = 1.0
    """Largest norm of the gradient, longer ones are scaled down to it; 0 leaves them."""
    spike_factor: float = 100.0
    """Skip a step whose gradient is so many times as long as usual (the median, at least --grad-clip); 0 skips none."""
    log_every: int = 10
    """Steps between two lines of metrics.jsonl."""
    eval_every: int = 250
    """Steps between two evaluations on the validation data; there is one at the end, too."""
    eval_batches: int = 20
    """Batches of one evaluation, the same each time."""
    eval_batch_size: int | None = None
    """Windows in a batch of an evaluation; none takes batch_size."""
    eval_train: bool = True
    """Evaluate on as many batches of the training data, too."""
    save_every: int | Literal["epoch"] = 250
    """Steps between two checkpoints, or epoch; the best one and the last are saved besides."""
    keep: int = 3
    """Newest checkpoints to keep beside best and last."""
    patience: int | None = None
    """Evaluations in a row without a better loss that end the run; none never does."""
    sample_every: int | None = None
    """Steps between two samples of text; none makes none."""
    sample_prompt: str = ""
    """Text that samples begin with; the empty one is the start of a document."""
    tensorboard: bool = False
    """Write what metrics.jsonl holds for TensorBoard, too, into OUT/tensorboard."""
    wandb: str | None = None
    """Project of Weights & Biases to log to; without a login into OUT/wandb, for `wandb sync`."""
    seed: int = 0
    """Seed of the order of the data, of dropout and of samples."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train: auto takes a GPU when there is one."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Numbers of activations and products: auto takes the fastest that follows float32."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Whether the blocks go through torch.compile: auto does where it pays within the run."""
    threads: int | None = None
    """CPU threads; none takes what torch finds, fewer where that is faster, or a process's share of the cores."""
    distributed: Literal["auto", "ddp", "fsdp"] = "auto"
    """How processes under torchrun share a model: auto is ddp, each holds all of it; fsdp, each holds a part."""
    attention: Literal["auto", "fused", "explicit"] = "auto"
    """Form of attention: torch's own, or by matrix products that hold all weights; auto takes the faster."""
    matmul: Literal["auto", "highest", "medium"] = "auto"
    """Torch's precision of float32 products: medium is faster and as exact on some CPUs, which auto finds out."""
    micro_batch: int | None = None
    """Windows in one forward pass; none takes batch_size, or fewer where that is faster or memory is short."""
    loss_chunk: int | None = None
    """Rows whose logits exist at once; none chooses."""
    recompute: bool = False
    """Make activations again in the backward pass instead of keeping them: a third more work, far less memory."""
    ram: str | None = None
    """Most memory that training may take, as 8G or 900M; fewer windows at once make it fit. None takes what is free."""

    def __post_init__(self) -> None:
        whole = "max_steps max_tokens batch_size grad_accum warmup_steps log_every eval_every eval_batches"
        whole += " eval_batch_size keep patience sample_every seed threads micro_batch loss_chunk"
        for name in whole.split():
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
                raise ValueError(f"{name} must be a whole number, got {value!r}")
        positive = "max_steps epochs max_tokens max_seconds batch_size grad_accum learning_rate log_every eval_every"
        positive += " eval_batches eval_batch_size keep patience sample_every threads micro_batch loss_chunk"
        for name in positive.split():
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be above 0, got {value}")
        for name in ("warmup_steps", "weight_decay", "grad_clip", "spike_factor", "seed"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if self.seed >= 2**63:
            raise ValueError(f"seed must be below 2^63, got {self.seed}")
        if 0 < self.spike_factor <= 1:
            raise ValueError(f"spike_factor must be above 1, or 0 for none, got {self.spike_factor}")
        if self.wandb == "":
            raise ValueError("wandb must be the name of a project, got none")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be from 0 to below 1, got {getattr(self, name)}")
        if not 0 <= self.min_lr_fraction <= 1:
            raise ValueError(f"min_lr_fraction must be from 0 to 1, got {self.min_lr_fraction}")
        if self.ram is not None and not re.fullmatch(r"\d*\.?\d+[GgMm][Bb]?", str(self.ram)):
            raise ValueError(f"ram must be a number of gigabytes or megabytes, such as 8G or 900M, got {self.ram!r}")
        if self.ram_bytes == 0:
            raise ValueError(f"ram must be above 0, got {self.ram}")
        if self.micro_batch is not None and self.windows_per_step % self.micro_batch:
            raise ValueError(
                f"micro_batch must divide batch_size * grad_accum ({self.windows_per_step}), got {self.micro_batch}"
            )
        if self.save_every != "epoch" and not (isinstance(self.save_every, int) and self.save_every > 0):
            raise ValueError(f"save_every must be above 0, or epoch, got {self.save_every}")
        for name, hint in get_type_hints(TrainConfig).items():
            if get_origin(hint) is Literal and getattr(self, name) not in get_args(hint):
                raise ValueError(f"{name} must be one of {', '.join(get_args(hint))}, got {getattr(self, name)!r}")

    @property
    def ram_bytes(self) -> int | None:
        """`ram` as a number."""
        if self.ram is None:
            return None
        return int(float(self.ram.rstrip("Bb")[:-1]) * {"G": 10**9, "M": 10**6}[self.ram.rstrip("Bb")[-1].upper()])

    @property
    def windows_per_step(self) -> int:
        """Windows that one optimiser step takes."""
        return self.batch_size * self.grad_accum


# What may change when a run is continued: it decides how far the run goes, what it shows and keeps, and how large its
# steps are. All else decides what the steps already taken meant.
LIMITS = ("max_steps", "epochs", "max_tokens", "max_seconds")
ENGINE = ("device", "dtype", "compile", "threads", "attention", "matmul", "micro_batch", "loss_chunk", "recompute")
MEASURED = ("tokens_per_second", "memory_bytes", "gemm_flops")
COURSE = (
    *("learning_rate", "min_lr_fraction", "warmup_steps", "schedule", "weight_decay"),
    *("grad_clip", "spike_factor", "patience"),
)
HABITS = (
    *("log_every", "eval_every", "eval_train", "save_every", "keep", "sample_every", "sample_prompt"),
    *("tensorboard", "wandb"),
)
CHANGEABLE = frozenset((*LIMITS, *ENGINE, "ram", "distributed", *COURSE, *HABITS))

# The recipe that learns most per second of a CPU; docs/training.md has what each part of it gives. The classes keep
# the defaults that the field knows, and the commands take these.
RECIPE: dict[str, Any] = {
    **{"vocab_size": 8192, "qk_norm": True, "optimizer": "muon", "learning_rate": 5e-3},
    **{"schedule": "linear", "min_lr_fraction": 0.0, "warmup_steps": 50},
}
