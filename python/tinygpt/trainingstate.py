"""TrainingState: what a run needs beside the weights to go on, as two files of a checkpoint folder."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tinygpt._core import FormatError

OPTIMIZER_FILE = "optimizer.safetensors"
TRAINER_FILE = "trainer.json"
_TRAINER_FORMAT = {"format": "tinygpt-trainer", "version": 1}


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """What a run needs beside the weights to go on: plain facts and tensors."""

    facts: Mapping[str, Any]
    """The content of trainer.json: step, counters, both configurations, engine, data, environment."""
    tensors: Mapping[str, Tensor]
    """The content of optimizer.safetensors: optimiser and random state."""

    def save(self, folder: Path) -> None:
        """Writes both files into `folder`."""
        write_tensors(folder / OPTIMIZER_FILE, self.tensors)
        write_json(folder / TRAINER_FILE, {**_TRAINER_FORMAT, **self.facts})

    @staticmethod
    def load(folder: Path) -> "TrainingState":
        """Reads both files.

        Raises:
            FormatError: A file is damaged or of another version.
            FileNotFoundError: The folder holds a model only.
        """
        facts = read_facts(folder)
        try:
            return TrainingState(facts=facts, tensors=load_file(folder / OPTIMIZER_FILE))
        except SafetensorError as error:
            raise FormatError(f"{folder / OPTIMIZER_FILE}: {error}; use another checkpoint") from None


def read_facts(folder: Path) -> dict[str, Any]:
    """The facts of a training state, without its tensors.

    Raises:
        FormatError: The file is damaged or of another version.
        FileNotFoundError: The folder holds a model only.
    """
    if not (folder / TRAINER_FILE).is_file():
        raise FileNotFoundError(
            f"{folder}: no {TRAINER_FILE} in it, so training cannot go on from here; use a run's folder"
        )
    facts = read_json(folder / TRAINER_FILE)
    if {name: facts.get(name) for name in _TRAINER_FORMAT} != _TRAINER_FORMAT:
        raise FormatError(f"{folder / TRAINER_FILE}: not a {_TRAINER_FORMAT['format']} file of version 1")
    return facts


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Tensors as a safetensors file that transformers opens."""
    path.touch()
    mode = path.stat().st_mode  # what the user's mask allows; safetensors lets only the owner read
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, {"format": "pt"})
        path.chmod(mode)
    except SafetensorError as error:
        number = re.search(
            r"os error (\d+)", str(error)
        )  # the cause comes as text only, and a full disk is no surprise
        raise OSError(int(number[1]) if number else 0, str(error), str(path)) from None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """A JSON file as Hugging Face writes it."""
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a checkpoint.

    Raises:
        FormatError: There is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise FormatError(f"{path}: not JSON; use another checkpoint") from None
    if not isinstance(content, dict):
        raise FormatError(f"{path}: not a JSON object; use another checkpoint")
    return content
