"""What was measured of engines, remembered by machine, versions, shape and settings in a file that may be deleted."""

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from tinygpt.measurement import processor
from tinygpt.modelconfig import GPTConfig
from tinygpt.staging import write_file
from tinygpt.trainconfig import TrainConfig

_WAY_OF_MEASURING = 3  # one more whenever figures of before would not be measured so again


def cache_file() -> Path:
    """Where measurements are remembered: `tinygpt/engines.json` in the user's folder for caches."""
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "tinygpt" / "engines.json"


def key_of(config: TrainConfig, shape: GPTConfig, fixed: Mapping[str, Any]) -> str:
    """What measurements of a run on this machine are remembered by.

    Args:
        config: The run's settings.
        shape: The model's.
        fixed: Those of the engine, by the names in `ENGINE`.
    """
    facts = {
        "machine": [
            processor(),
            os.cpu_count(),
            sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
        ],
        "versions": [version("torch"), version("tinygpt"), platform.python_version(), _WAY_OF_MEASURING],
        "shape": asdict(shape),
        "batch": [config.batch_size, config.grad_accum, config.optimizer],
        "fixed": [dict(fixed), config.ram],
        "threads": torch.get_num_threads(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def remembered(key: str) -> list[dict[str, Any]] | None:
    """The rows of a key; None where there are none, or the file is damaged."""
    try:
        rows = json.loads(cache_file().read_text(encoding="utf-8"))[key]
        return [row for row in rows if row["tokens_per_second"] > 0 and row["compile_seconds"] >= 0 <= row["in_part"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(key: str, rows: list[dict[str, Any]]) -> None:
    """Keeps the rows of a key; a machine without a place for caches measures again."""
    try:
        content = dict(json.loads(cache_file().read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        content = {}
    try:
        cache_file().parent.mkdir(parents=True, exist_ok=True)
        write_file(cache_file(), json.dumps({**content, key: rows}, indent=1) + "\n")
    except OSError:
        pass
