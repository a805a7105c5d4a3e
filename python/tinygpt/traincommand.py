"""The command that trains what was decided elsewhere, as one types it."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from tinygpt.modelconfig import GPTConfig
from tinygpt.trainconfig import RECIPE, TrainConfig

_SHAPE = ("vocab_size", "n_layer", "n_head", "d_model", "block_size", "dropout")
_STEP = ("batch_size", "grad_accum", "learning_rate")


def train_command(
    paths: Sequence[str], *, out: Path, shape: GPTConfig, config: TrainConfig, text: Mapping[str, Any] | None = None
) -> str:
    """`tinygpt train` with a flag for what a reader wants to see, and for what differs from the command's defaults.

    Args:
        paths: The data.
        out: The run's folder.
        shape: The model's.
        config: The run's settings.
        text: How text is read and prepared, by field.

    Example:
        >>> shape = GPTConfig(vocab_size=512, n_layer=2, n_head=2, d_model=64, qk_norm=True)
        >>> command = train_command(["a b.txt"], out=Path("run"), shape=shape, config=TrainConfig(optimizer="muon"))
        >>> command[:62]
        "tinygpt train --data 'a b.txt' --out run --vocab-size 512 --bl"
    """
    words = ["tinygpt", "train", "--data", *paths, "--out", str(out), *_flags(text or {})]
    for options, named in ((shape, _SHAPE), (config, _STEP)):
        defaults = {field.name: field.default for field in fields(options)} | RECIPE
        words += _flags({n: v for n, v in asdict(options).items() if n in named or v != defaults[n]})
    return shlex.join(words)


def _flags(values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            yield f"--{flag}" if value else f"--no-{flag}"
        elif isinstance(value, str) and value.startswith("--"):
            yield f"--{flag}={value}"
        elif value is not None:
            yield f"--{flag}"
            yield from map(str, value if isinstance(value, tuple | list) else [value])
