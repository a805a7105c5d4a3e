"""A model small enough that its server answers at once, and that server in a process of its own."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from tinygpt.chattemplate import CHAT_TOKENS
from tinygpt.checkpoint import Checkpoint
from tinygpt.model import GPT, GPTConfig
from tinygpt.tokenizer import Tokenizer

CONTEXT = 64


def checkpoint_of(*, chats: bool = True) -> Checkpoint:
    """A model that writes any byte, and knows chats or does not."""
    torch.manual_seed(0)
    names = ["<|endoftext|>", *CHAT_TOKENS] if chats else ["<|endoftext|>"]
    tokenizer = Tokenizer.train(["a"], pattern="byte", special_tokens=names)
    shape = GPTConfig(vocab_size=tokenizer.vocab_size, block_size=CONTEXT, n_layer=1, n_head=2, d_model=64)
    return Checkpoint(GPT(shape).eval(), tokenizer)


@contextmanager
def serving(folder: Path, *flags: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    line = [sys.executable, "-m", "tinygpt.serve", "--checkpoint", str(folder), "--port", "0", "--threads", "1"]
    process = subprocess.Popen([*line, "--dtype", "float32", *flags], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.stdout.readline().strip(), process
    finally:
        process.kill()
        process.wait()
