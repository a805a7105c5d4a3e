"""Our side of the training suite: the command as a user runs it, in a process of its own, read by what it leaves."""

import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benches.race import Took
from benches.shape import Shape

STEPS = 2
"""Optimiser steps that count, after one that does not."""


def steps(shape: Shape, data: str, run: str, flags: list[str]) -> tuple[Took, int]:
    """Seconds of a micro-batch, over whole optimiser steps, with the peak of the command; and the parameters.

    Raises:
        AssertionError: The first loss is not that of a model that knows nothing.
    """
    words = [*flags, "--batch-size", str(shape.batch_size), "--grad-accum", str(shape.grad_accum)]
    process = _start(shape, data, Path(run), [*words, "--max-steps", str(1 + STEPS)])
    rss_mb = _end(process, Path(run))
    lines = metrics(Path(run))
    assert abs(lines[0]["loss"] / math.log(shape.vocab_size) - 1) < 0.02, f"the first loss is {lines[0]['loss']}"
    first, last = (line["resources"]["seconds"] for line in (lines[0], lines[-1]))
    assert lines[-1]["tokens"] - lines[0]["tokens"] == STEPS * shape.grad_accum * shape.tokens, lines
    return Took((last - first) / (STEPS * shape.grad_accum), rss_mb), n_parameters(Path(run))


def first_step(shape: Shape, data: str, run: str, flags: list[str]) -> tuple[Took, int]:
    """Seconds from the start of the process to the first optimiser step done and logged, of a batch of one window.

    A second step follows, for the evaluation that ends a run is part of its last step.
    The command has run once before, so that what it keeps between runs (compiled code, its choice of engine) is there.
    """
    words = [*flags, "--batch-size", "1", "--grad-accum", "1", "--max-steps", "2"]
    _end(_start(shape, data, Path(run), words), Path(run))
    begin = time.perf_counter()
    process, log = _start(shape, data, Path(run), words), Path(run) / "metrics.jsonl"
    while not (log.exists() and log.stat().st_size) and process.poll() is None:
        time.sleep(0.005)
    seconds = time.perf_counter() - begin
    return Took(seconds, _end(process, Path(run))), n_parameters(Path(run))


def engine(run: Path) -> dict[str, Any]:
    """How the steps were run, as the last checkpoint records it."""
    found: dict[str, Any] = json.loads((run / "last" / "trainer.json").read_text(encoding="utf-8"))["engine"]
    return found


def metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that tell of a step."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line.get("loss") is not None]


def n_parameters(run: Path) -> int:
    """Numbers that the optimiser of the last checkpoint has a state for (a GPT-2 folder holds biases of 0 besides)."""
    from safetensors import safe_open

    sizes: dict[str, int] = {}
    with safe_open(run / "last" / "optimizer.safetensors", "numpy") as state:
        for name in (name for name in state.keys() if name.startswith("optimizer/")):  # noqa: SIM118
            parameter = name.split("/")[1]
            sizes[parameter] = max(sizes.get(parameter, 0), math.prod(state.get_slice(name).get_shape()))
    return sum(sizes.values())


def shape_flags(shape: Shape) -> list[str]:
    """The flags of a model: that of GPT-2 without biases, as nanoGPT trains it, or that of Llama."""
    names = ("vocab_size", "n_layer", "n_head", "d_model", "d_ff", "block_size", "mlp", "threads")
    flags = [word for name in names for word in (f"--{name.replace('_', '-')}", str(getattr(shape, name)))]
    gpt2 = ["--position", "learned", "--norm", "layernorm"]
    return flags + (gpt2 if shape.mlp == "gelu" else ["--position", "rope", "--norm", "rmsnorm"])


def _start(shape: Shape, data: str, run: Path, flags: list[str]) -> "subprocess.Popen[bytes]":
    shutil.rmtree(run, ignore_errors=True)
    words = ["--data", data, "--out", str(run), "--cpu", "--log-every", "1", "--save-every", "1000000", *flags]
    words += [*shape_flags(shape), "--no-bias", "--no-qk-norm", "--tie-embeddings", "--dropout", "0"]
    with run.with_suffix(".log").open("wb") as log:
        return subprocess.Popen([sys.executable, "-m", "tinygpt.train", *words], stdout=log, stderr=log)


def _end(process: "subprocess.Popen[bytes]", run: Path) -> float:
    """Waits for the command; the peak of its memory in MB, of processes that it started, too."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        said = run.with_suffix(".log").read_text(encoding="utf-8").strip().splitlines()
        raise RuntimeError(said[-1] if said else f"exit code {process.returncode}")
    return usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3 / 1.024)
