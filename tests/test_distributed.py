"""Several processes are one: the same losses, checkpoints and ends, however many ranks share the work."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import distributed_run
import pytest
import torch
from tinygpt.distributed import Ranks
from tinygpt.metrics import read_metrics
from tinygpt.staging import remove_folder

STEPS, HALF = 50, 25
CONFIG = {
    "max_steps": STEPS, "batch_size": 4, "grad_accum": 2, "warmup_steps": 5, "learning_rate": 3e-3, "log_every": 1,
    "eval_every": HALF, "eval_batches": 3, "save_every": HALF, "keep": 9, "threads": 1, "device": "cpu",
    "dtype": "float32", "compile": "off",
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "stream": {"config": CONFIG},
    "documents": {"config": CONFIG, "mode": "documents"},
    "poison": {"config": {**CONFIG, "max_steps": 8}, "poison": [3, 0]},
}
CLOSE = 1e-5  # relative: sums of float32 in another order


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads of a tensor this small wait for each other longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def torchrun(n: int, *words: str, timeout: float = 200) -> subprocess.CompletedProcess[str]:
    """`torchrun` of `n` processes with one thread each."""
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=timeout, env=environment)


def train_on(n: int, runs: dict[Path, dict[str, Any]]) -> None:
    """Trains each run on `n` ranks, all of them after each other in the same processes."""
    words = [word for folder, spec in runs.items() for word in (str(folder), json.dumps(spec))]
    done = torchrun(n, distributed_run.__file__, *words)
    assert done.returncode == 0, done.stderr[-3000:]


def losses(run: Path) -> list[float]:
    """Loss of each step; 0 for one that was skipped."""
    return [line["loss"] or 0.0 for line in read_metrics(run / "metrics.jsonl")]


def evaluations(run: Path) -> list[Any]:
    return [line["evaluation"] for line in read_metrics(run / "metrics.jsonl") if "evaluation" in line]


def how(spec: dict[str, Any], distributed: str) -> dict[str, Any]:
    return {**spec, "config": {**spec["config"], "distributed": distributed}}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs, one for each case, of a process alone."""
    top = tmp_path_factory.mktemp("alone")
    for name, spec in CASES.items():
        with pytest.warns(RuntimeWarning, match="skipped") if name == "poison" else pytest.MonkeyPatch.context():
            assert distributed_run.train(Ranks(), top / name, spec) == 0
    return top


def all_cases(top: Path) -> dict[Path, dict[str, Any]]:
    """The same runs for several ranks, where the last one is poisoned."""
    return {
        top / f"{name}-{kind}": how({**spec, "poison": [3, 1]} if name == "poison" else spec, kind)
        for name, spec in CASES.items()
        for kind in ("ddp", "fsdp")
    }


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of two ranks, ddp and fsdp."""
    top = tmp_path_factory.mktemp("pair")
    train_on(2, all_cases(top))
    return top


def half_of(run: Path, to: Path) -> Path:
    """A copy of a run as a process killed after step `HALF` leaves it."""
    shutil.copytree(run, to, symlinks=True)
    remove_folder(to / f"step-{STEPS:07d}")
    return to


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize("case", CASES)
def test_two_ranks_have_the_losses_of_one(alone: Path, pair: Path, case: str, kind: str) -> None:
    assert losses(pair / f"{case}-{kind}") == pytest.approx(losses(alone / case), rel=CLOSE)
