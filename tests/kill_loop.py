"""Kill a training run at random instants, continue it each time, and hold its end against the run never killed.

    python tests/kill_loop.py --out DIR --kills 20 --inside-saves 5 -- COMMAND ... {folder} ...

COMMAND trains into the folder put in place of `{folder}`, continues what it finds there, and exits with 0 when done.
It runs once undisturbed, then as often as it takes. The exit code is 0 when weights, optimiser state and metrics.jsonl
(but for the key "resources") are the same.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.numpy import load_file
from tinygpt import runfolder
from tinygpt.metrics import read_metrics


@dataclass(frozen=True, kw_only=True)
class Kill:
    """What a killed process left."""

    step: int
    """The last step in metrics.jsonl."""
    saved_step: int | None
    """The highest step with a checkpoint folder."""
    inside_save: bool
    """Whether a half-written checkpoint lay there."""


def kill_loop(
    command: Sequence[str], out: Path, *, kills: int, inside_saves: int, seed: int = 0
) -> tuple[list[Kill], list[str]]:
    """The kills, and the differences between the two ends; raises when COMMAND fails by itself."""
    undisturbed, killed, draw = out / "undisturbed", out / "killed", random.Random(seed)
    _start(command, undisturbed).wait()
    first, *_, last = (line["resources"]["seconds"] for line in read_metrics(undisturbed / "metrics.jsonl"))
    pause = (last - first) / kills  # together the pauses would not outlast the run
    done: list[Kill] = []
    while len(done) < kills:
        in_save = sum(kill.inside_save for kill in done) < inside_saves and len(done) >= kills // 4
        before = _stat(killed / "metrics.jsonl")
        child = _start(command, killed)
        _wait_for_training(child, killed, before)
        time.sleep(draw.uniform(0, 1.5 * pause))
        while in_save and child.poll() is None and not _half_written(killed):
            time.sleep(0.0002)
        time.sleep(draw.uniform(0, 0.004) if in_save else 0)
        child.kill()
        if (code := child.wait()) == 0:
            break
        if code > 0:
            raise RuntimeError(f"exit code {code} of {' '.join(command)}")
        lines, steps = read_metrics(killed / "metrics.jsonl"), runfolder.steps(killed)
        kill = Kill(
            step=lines[-1]["step"] if lines else 0,
            saved_step=steps[-1] if steps else None,
            inside_save=_half_written(killed),
        )
        done.append(kill)
        print(f"kill {len(done)}: {kill}", flush=True)
    if _start(command, killed).wait() != 0:
        raise RuntimeError(f"the continued run failed: {' '.join(command)}")
    return done, differences(undisturbed, killed)


def differences(one: Path, other: Path) -> list[str]:
    """What the ends of two runs differ in."""
    found = []
    for name in ("model.safetensors", "optimizer.safetensors"):
        a, b = (load_file(run / "last" / name) for run in (one, other))
        found += [f"{name}: {key}" for key in a.keys() | b.keys() if key not in a or key not in b]
        found += [f"{name}: {key}" for key in a.keys() & b.keys() if a[key].tobytes() != b[key].tobytes()]
    a_lines, b_lines = (comparable_metrics(run) for run in (one, other))
    found += [f"metrics.jsonl: {a} | {b}" for a, b in zip(a_lines, b_lines, strict=False) if a != b]
    return found + ([f"metrics.jsonl: {len(a_lines)} | {len(b_lines)} lines"] if len(a_lines) != len(b_lines) else [])


def comparable_metrics(run: Path) -> list[str]:
    """The lines of metrics.jsonl without what no two runs share."""
    lines = read_metrics(run / "metrics.jsonl")
    return [json.dumps({key: value for key, value in line.items() if key != "resources"}) for line in lines]


def _start(command: Sequence[str], folder: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [word.replace("{folder}", str(folder)) for word in command],
        stdout=subprocess.DEVNULL,
    )


def _wait_for_training(child: "subprocess.Popen[bytes]", folder: Path, before: os.stat_result | None) -> None:
    """Returns once the child has logged a step of its own, or has ended; `before` is the log before it started.

    The start takes far longer than a step, so random instants counted from it would never reach the training.
    """
    while child.poll() is None:
        now = _stat(folder / "metrics.jsonl")
        if now is not None and (before is None or now.st_mtime_ns != before.st_mtime_ns):
            lines, saved = read_metrics(folder / "metrics.jsonl"), runfolder.steps(folder)
            if lines and lines[-1]["step"] > (saved[-1] if saved else 0):
                return
        time.sleep(0.002)


def _stat(path: Path) -> os.stat_result | None:
    return path.stat() if path.exists() else None


def _half_written(folder: Path) -> bool:
    return any(folder.glob(".tmp-step-*"))


def main() -> int:
    """Runs the loop that the command line describes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--inside-saves", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("command", nargs="+")
    given = parser.parse_args()
    done, found = kill_loop(
        given.command, given.out, kills=given.kills, inside_saves=given.inside_saves, seed=given.seed
    )
    after_save = sum(kill.saved_step is not None for kill in done)
    inside = sum(kill.inside_save for kill in done)
    print(f"{len(done)} kills, {after_save} after the first save, {inside} inside a save; {len(found)} differences")
    print("\n".join(found[:20]))
    return int(bool(found) or len(done) < given.kills)


if __name__ == "__main__":
    sys.exit(main())
