"""A tiny training run for `torchrun`: what each rank of tests/test_distributed.py is.

torchrun --nproc-per-node 2 tests/distributed_run.py FOLDER '{"config": {...}, "mode": "documents", ...}'
"""

import json
import math
import os
import shutil
import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tinygpt import runfolder
from tinygpt.command import run
from tinygpt.dataset import TokenDataset
from tinygpt.distributed import Ranks, end_process, label, silent
from tinygpt.interruption import stop_on_signals
from tinygpt.model import GPT, GPTConfig
from tinygpt.trainer import TrainConfig, Trainer

VOCAB, BLOCK = 13, 8
SHAPE = {"vocab_size": VOCAB, "block_size": BLOCK, "n_layer": 2, "n_head": 2, "d_model": 16}


def dataset(n: int, seed: int, mode: str) -> TokenDataset:
    """Tokens of a made-up language in which each follows from the one before, mostly; 0 ends a document."""
    draw = np.random.default_rng(seed)
    jumps, ids = draw.integers(0, VOCAB, n) * (draw.random(n) < 0.3), [1]
    for jump in jumps[1:]:
        ids.append(int((ids[-1] * 5 + 1 + jump) % VOCAB))
    return TokenDataset.from_tokens(ids, vocab_size=VOCAB, block_size=BLOCK, mode=mode, eot_id=0)


def half_of(run: Path, to: Path) -> None:
    """Copies a run as a process killed before its last save leaves it."""
    shutil.copytree(run, to, symlinks=True)
    shutil.rmtree(runfolder.step_folder(to, runfolder.steps(to)[-1]))


def train(ranks: Ranks, folder: Path, spec: dict[str, Any]) -> int:
    """Begins or continues the run in `folder`; the exit code is that of `tinygpt train`."""
    mode = spec.get("mode", "stream")
    data = dataset(4000, 0, mode), dataset(300, 1, mode)
    if runfolder.steps(folder):
        trainer = Trainer.resume(folder, train=data[0], val=data[1], ranks=ranks, **spec["config"])
    else:
        torch.manual_seed(0)
        shape = GPTConfig(**{**SHAPE, **spec.get("shape", {})})
        trainer = Trainer(GPT(shape), *data, config=TrainConfig(**spec["config"]), folder=folder, ranks=ranks)
    learn = trainer._learner.learn

    def disturbed(
        x: torch.Tensor, y: torch.Tensor, learning_rate: float, *, norm_limit: float = math.inf
    ) -> tuple[float, float]:
        """As `learn`, after what the spec wants to happen on one rank at one step."""
        if [trainer.step, ranks.rank] == spec.get("signal"):
            os.kill(os.getpid(), signal.SIGTERM)
        if [trainer.step, ranks.rank] == spec.get("fail"):
            raise RuntimeError("this rank was told to fail")
        if [trainer.step, ranks.rank] != spec.get("poison"):
            return learn(x, y, learning_rate, norm_limit=norm_limit)
        handle = trainer._learner.refresh().norm.register_forward_hook(lambda *_: _[-1] * float("nan"))
        numbers = learn(x, y, learning_rate, norm_limit=norm_limit)
        handle.remove()
        return numbers

    trainer._learner.learn = disturbed  # type: ignore[method-assign]
    with stop_on_signals(trainer.stop) as interruption:
        result = trainer.fit()
    (folder / f"end-{ranks.world_size}-{ranks.rank}.json").write_text(json.dumps([result.step, result.reason]))
    return interruption.exit_code


def main(words: Any) -> int:
    """Joins, silences all ranks but the first, trains each (folder, spec) of the command line."""
    torch.set_num_threads(1)
    ranks, codes = Ranks.from_environment(), [0]
    with ranks.joined(), nullcontext() if ranks.is_first else silent():
        for folder, spec in zip(words[::2], map(json.loads, words[1::2]), strict=True):
            with ranks.after_first():
                if ranks.is_first and "half_of" in spec:
                    half_of(Path(spec["half_of"]), Path(folder))
            how = spec["config"].get("distributed", "auto") if "WORLD_SIZE" in os.environ else "auto"
            codes.append(train(Ranks.from_environment(how), Path(folder), spec))
    return max(codes)


if __name__ == "__main__":
    sys.exit(end_process(run(main, None, verb=label("train"))))
