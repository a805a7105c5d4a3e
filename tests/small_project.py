"""A project of a small text on a machine that is said to be slow, so that a minute's plan is a second's work.

As a program, `python small_project.py TEXT FOLDER` makes one in a process of its own, to be killed.
"""

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from tinygpt.modelconfig import GPTConfig
from tinygpt.project import Project
from tinygpt.trainconfig import TrainConfig

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "dogs", "that", "do", "not", "like", "rain", "but"]
SHAPE = {"vocab_size": 290, "n_layer": 1, "n_head": 2, "d_model": 32, "block_size": 32, "batch_size": 8}
SETTINGS = {"dtype": "float32", "compile": "off", "attention": "fused", "matmul": "highest", "threads": 1}


def words(n: int, *, seed: int = 7) -> str:
    """So many words in no order."""
    found = []
    for _ in range(n):
        seed = (seed * 1_103_515_245 + 12_345) % 2**31
        found.append(WORDS[(seed >> 16) % len(WORDS)])
    return " ".join(found)


def text(n: int, *, seed: int = 7) -> str:
    """So many lines."""
    return "".join(f"{words(12, seed=seed + i)}.\n" for i in range(n))


def slow_machine(config: TrainConfig, shape: GPTConfig) -> Mapping[str, Any]:
    """What a step is said to take."""
    facts = {"tokens_per_second": 600.0, "memory_bytes": 400_000_000, "compile_seconds": 0.0, "dtype": "float32"}
    return {**facts, "settings": {**SETTINGS, "micro_batch": config.batch_size, "loss_chunk": 64}}


def command(words: Sequence[str]) -> int:
    """A command of tinygpt in this process."""
    return int(import_module(f"tinygpt.{words[0]}").main(words[1:]))


def make(paths: Sequence[str | Path], folder: Path, *, seconds: float | None = 60, **options: Any) -> int:
    """The project of a text, with every step saved that may be."""
    how = {"command": command, "say": print, **{k: options.pop(k) for k in ("command", "say") if k in options}}
    fixed = {**SHAPE, "save_every": 5, **options.pop("fixed", {})}
    return Project(folder, **how).make(paths, seconds=seconds, fixed=fixed, measure=slow_machine, **options)


if __name__ == "__main__":
    sys.exit(make([sys.argv[1]], Path(sys.argv[2])))
