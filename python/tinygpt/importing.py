"""A model of somebody else's as a Checkpoint: folders, and nanoGPT's file where pickles are allowed."""

from pathlib import Path

import torch

from tinygpt.checkpoint import Checkpoint
from tinygpt.foreigntokenizer import tokenizer_in
from tinygpt.formats import nanogpt
from tinygpt.model import GPT
from tinygpt.modelconfig import GPTConfig


def load_model(path: Path, which: str | int = "best", *, allow_pickle: bool = False) -> Checkpoint:
    """The model that a path names.

    Args:
        path: A run, a checkpoint, a Hugging Face folder, or a `.pt` file of nanoGPT's, whose tokenizer is the one that
            lies beside it.
        which: In a run's folder, as `Checkpoint.load` takes it.
        allow_pickle: Read a `.pt` file, by torch's reader of plain data, which runs none of its code.

    Raises:
        FileNotFoundError: There is nothing.
        ValueError: It is a pickle and `allow_pickle` is false.
        FormatError: It is damaged, or of a kind that no option of ours stands for.
    """
    if path.suffix not in (".pt", ".pth") or path.is_dir():
        return Checkpoint.load(path, which)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if isinstance(which, int):
        raise ValueError(f"{path} is one model, not a run with a step {which} to take; leave the step out")
    if not allow_pickle:
        raise ValueError(f"{path} is a pickle; --allow-pickle reads it as plain data, running none of its code")
    fields, state = nanogpt.read(path)
    with torch.device("meta"):
        model = GPT(GPTConfig(**fields))
    model.load_state_dict(state, assign=True)
    return Checkpoint(model.eval(), tokenizer_in(path.parent), folder=path.parent)
