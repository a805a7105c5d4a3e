"""Train a small model into a folder, or continue the run that is there, as a command does: for tests that break it.

    python tests/small_run.py FOLDER STEPS [nan|spike]@STEP ...

A fault strikes the gradient of the step it names.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tinygpt import command, runfolder
from tinygpt.dataset import TokenDataset
from tinygpt.interruption import stop_on_signals
from tinygpt.model import GPT, GPTConfig
from tinygpt.trainer import TrainConfig, Trainer

VOCAB, BLOCK = 13, 8
STRETCH = {"nan": float("nan"), "spike": 1e6}


def stream(n: int, seed: int = 0) -> TokenDataset:
    tokens = np.random.default_rng(seed).integers(0, VOCAB, n).astype(np.uint16)
    return TokenDataset.from_tokens(tokens, vocab_size=VOCAB, block_size=BLOCK)


def small_run(folder: Path, steps: int) -> Trainer:
    """The trainer of the run in `folder`: 1.3 MB a checkpoint, one every 5 steps."""
    if runfolder.steps(folder):
        return Trainer.resume(folder, train=stream(3000), val=stream(90), max_steps=steps)
    torch.manual_seed(0)
    shape = GPTConfig(vocab_size=VOCAB, block_size=BLOCK, n_layer=2, n_head=2, d_model=64, dropout=0.2)
    config = TrainConfig(
        max_steps=steps, batch_size=2, grad_accum=2, warmup_steps=3, log_every=1, eval_every=20, eval_batches=2,
        save_every=5, keep=2,
    )  # fmt: skip
    return Trainer(GPT(shape), stream(3000), stream(90), config, folder=folder)


def strike(trainer: Trainer, faults: Sequence[str]) -> None:
    """Makes the gradients of some steps what no healthy step has."""
    struck = {int(step): STRETCH[kind] for kind, step in (fault.split("@") for fault in faults)}

    def hook(grad: torch.Tensor) -> torch.Tensor:
        return grad * struck.get(trainer.step + 1, 1.0)

    next(trainer.model.parameters()).register_hook(hook)  # type: ignore[no-untyped-call]


def run(words: Sequence[str]) -> int:
    torch.set_num_threads(1)
    trainer = small_run(Path(words[0]), int(words[1]))
    strike(trainer, words[2:])
    with stop_on_signals(trainer.stop) as interruption:
        trainer.fit()
    return interruption.exit_code


if __name__ == "__main__":
    sys.exit(command.run(run, None, verb="train"))
