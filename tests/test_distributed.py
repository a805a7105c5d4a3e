"""Several processes are one: the same losses, checkpoints and ends, however many ranks share the work."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import distributed_run
import pytest
import torch
from tinygpt import runfolder
from tinygpt.distributed import Ranks
from tinygpt.metrics import read_metrics

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


def all_runs(top: Path, alone: Path) -> dict[Path, dict[str, Any]]:
    """The same runs for several ranks, where the last one is poisoned; then halves of some, continued."""
    runs = {
        top / f"{name}-{kind}": how({**spec, "poison": [3, 1]} if name == "poison" else spec, kind)
        for name, spec in CASES.items()
        for kind in ("ddp", "fsdp")
    }
    dropout = {"config": {**CONFIG, "max_steps": 12, "save_every": 6}, "shape": {"dropout": 0.2}}
    continued = {"one-to-fsdp": alone / "stream", "one-to-ddp": alone / "stream", "fsdp-to-ddp": top / "stream-fsdp"}
    return {
        **runs,
        top / "bfloat16": how({"config": {**CONFIG, "dtype": "bfloat16"}}, "fsdp"),
        top / "dropout": dropout,
        top / "dropout-continued": {**dropout, "half_of": str(top / "dropout")},
        **{
            top / name: {**how(CASES["stream"], name.rsplit("-")[-1]), "half_of": str(run)}
            for name, run in continued.items()
        },
    }


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, alone: Path) -> Path:
    """The runs of two ranks."""
    top = tmp_path_factory.mktemp("pair")
    train_on(2, all_runs(top, alone))
    return top


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize("case", CASES)
def test_two_ranks_have_the_losses_of_one(alone: Path, pair: Path, case: str, kind: str) -> None:
    assert losses(pair / f"{case}-{kind}") == pytest.approx(losses(alone / case), rel=CLOSE)


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize("case", ["stream", "documents"])
def test_two_ranks_have_the_evaluations_of_one(alone: Path, pair: Path, case: str, kind: str) -> None:
    ours, theirs = evaluations(pair / f"{case}-{kind}"), evaluations(alone / case)
    assert [each["n_tokens"] for each in ours] == [each["n_tokens"] for each in theirs]
    assert [each["loss"] for each in ours] == pytest.approx([each["loss"] for each in theirs], rel=CLOSE)


def test_sharded_run_in_bfloat16_follows_float32(alone: Path, pair: Path) -> None:
    assert losses(pair / "bfloat16") == pytest.approx(losses(alone / "stream"), rel=5e-3)  # bfloat16 has 8 bits
    assert losses(pair / "bfloat16") != pytest.approx(losses(alone / "stream"), rel=CLOSE)


def test_a_loss_that_is_not_finite_on_one_rank_is_skipped_by_all(pair: Path) -> None:
    for kind in ("ddp", "fsdp"):
        skipped = [line["skipped"] for line in read_metrics(pair / f"poison-{kind}" / "metrics.jsonl")]
        assert skipped == [False] * 3 + [True] + [False] * 4


@pytest.mark.parametrize("run", ["one-to-fsdp", "one-to-ddp", "fsdp-to-ddp"])
def test_run_continued_by_two_ranks_stays_on_its_curve(alone: Path, pair: Path, run: str) -> None:
    assert losses(pair / run) == pytest.approx(losses(alone / "stream"), rel=CLOSE)


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_run_of_two_ranks_is_continued_by_one(alone: Path, pair: Path, tmp_path: Path, kind: str) -> None:
    distributed_run.half_of(pair / f"stream-{kind}", tmp_path / "run")
    assert distributed_run.train(Ranks(), tmp_path / "run", CASES["stream"]) == 0
    assert losses(tmp_path / "run") == pytest.approx(losses(alone / "stream"), rel=CLOSE)


def test_run_with_dropout_continued_by_as_many_ranks_ends_with_the_same_bits(pair: Path) -> None:
    for name in ("model.safetensors", "optimizer.safetensors"):
        one, other = (pair / run / "last" / name for run in ("dropout", "dropout-continued"))
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.slow
def test_four_ranks_have_the_losses_of_one(alone: Path, pair: Path, tmp_path: Path) -> None:
    runs = all_runs(tmp_path, alone)
    for kind in ("ddp", "fsdp"):
        half_of_two = str(pair / f"stream-{kind}")
        runs[tmp_path / f"two-{kind}-to-four"] = {**how(CASES["stream"], "ddp"), "half_of": half_of_two}
    train_on(4, runs)
    for run in (run for run in runs if run.name not in ("dropout", "dropout-continued", "bfloat16")):
        case = run.name.split("-")[0]
        assert losses(run) == pytest.approx(losses(alone / (case if case in CASES else "stream")), rel=CLOSE), run


def test_a_rank_that_fails_ends_the_others_with_one_line_each(tmp_path: Path) -> None:
    spec = {"config": {**CONFIG, "max_steps": 9999}, "fail": [3, 1]}
    done = torchrun(2, distributed_run.__file__, str(tmp_path / "run"), json.dumps(spec), timeout=60)
    told = [line for line in done.stderr.splitlines() if line.startswith("tinygpt train")]
    assert told[0] == "tinygpt train (rank 1): error: this rank was told to fail"
    assert all("lost another rank, which ended or was silent" in line for line in told[1:])


@pytest.mark.slow
def test_a_silent_rank_is_given_up(tmp_path: Path) -> None:
    program = (
        "import time; from tinygpt.distributed import Ranks; ranks = Ranks.from_environment()\n"
        "with ranks.joined(silence_seconds=2):\n"
        "    time.sleep(0 if ranks.is_first else 30); ranks.barrier()"
    )
    (tmp_path / "program.py").write_text(program)
    done = torchrun(2, str(tmp_path / "program.py"), timeout=30)
    assert "rank 0 of 2 lost another rank, which ended or was silent for 2 s" in done.stderr


def test_batch_that_ranks_cannot_share_is_refused_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("The cat sat on the mat.\n" * 200)
    words = f"-m tinygpt.train --data {tmp_path / 'text.txt'} --out {tmp_path / 'run'} --batch-size 3 --max-steps 2"
    done = torchrun(2, *words.split())
    told = [line for line in done.stderr.splitlines() if line.startswith("tinygpt train")]
    wanted = "batch_size * grad_accum is 3 windows, which 2 processes cannot share equally; make it 2 or 4"
    assert told == [f"tinygpt train: error: {wanted}"]
    assert "exitcode  : 2" in done.stderr


def test_signal_to_one_rank_ends_all_saved_and_resume_auto_goes_on(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("The cat sat on the mat.\n" * 2000)
    shape = "--vocab-size 270 --n-layer 1 --n-head 2 --d-model 16 --block-size 16 --batch-size 4 --threads 1 --cpu"
    run = tmp_path / "run"
    words = f"-m tinygpt.train --data {tmp_path / 'text.txt'} --out {run} {shape} --eval-every 1000".split()
    words += ["--optimizer", "adamw"]
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *words]
    with subprocess.Popen([*line, "--max-steps", "99999"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as agent:
        pids = wait_for_training(agent.pid, run)
        (last,) = pids - {int((run / ".lock-owner").read_text().split()[1])}
        os.kill(last, signal.SIGTERM)
        told = agent.communicate(timeout=60)[0].decode()
    (step,) = runfolder.steps(run)
    assert f"ended at step {step} (SIGTERM)" in told.replace(",", "")
    more = f"--resume auto --max-steps {step + 3} --sample-every 1 --distributed fsdp"
    done = torchrun(2, *words, *more.split())
    assert (done.returncode, done.stdout.count("sample after step")) == (0, 3), done.stderr
    assert runfolder.steps(run) == [step, step + 3]


def wait_for_training(agent: int, run: Path) -> set[int]:
    """The ranks' process ids, once the run has logged a step."""
    while not (run / "metrics.jsonl").exists() or not (run / "metrics.jsonl").read_text():
        time.sleep(0.05)
    return set(map(int, Path(f"/proc/{agent}/task/{agent}/children").read_text().split()))


def test_environment_that_is_not_torchruns_is_refused() -> None:
    with pytest.raises(ValueError, match="distributed fsdp needs several processes, and this one is alone"):
        Ranks.from_environment("fsdp", {})
    with pytest.raises(ValueError, match="WORLD_SIZE=two must be whole numbers"):
        Ranks.from_environment(environment={"WORLD_SIZE": "two"})


def test_cores_are_shared_by_the_ranks_of_a_machine() -> None:
    assert Ranks(local_world_size=2, world_size=2).threads(5) == 5
    assert Ranks(local_world_size=1 << 20, world_size=1 << 20).threads(None) == 1
    assert Ranks().threads(None) is None


def test_each_rank_has_dropout_of_its_own() -> None:
    assert len({Ranks(rank=rank, world_size=8).seed(3) for rank in range(8)}) == 8
