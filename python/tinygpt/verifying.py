"""An export held against the model it was made from, through the eyes of the program that owns the format."""

import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tinygpt import lineage, owners
from tinygpt.chattemplate import knows_chats
from tinygpt.checkpoint import Checkpoint
from tinygpt.exporting import TARGETS, rounded, tensors_of
from tinygpt.model import GPT
from tinygpt.trainingstate import TRAINER_FILE, read_facts

N_LINES = 10_000
_N_WINDOWS, _N_PROMPTS, _N_NEW = 4, 4, 32
# The owner's module in Python, and what installs it.
_PACKAGES = {
    "transformers": ("transformers", "transformers"),
    "llama.cpp": ("llama_cpp", "tinygpt[llama]"),
    "onnxruntime": ("onnxruntime", "tinygpt[onnx]"),
}
# What the owner computes with is no finer than this: the difference of the logits over their deviation, in the root of
# the mean square. In float32 it is the order of sums; llama.cpp rounds what it multiplies with a matrix to the matrix's
# type, of 11, 8 and 7 bits (0.00014, 0.0012 and 0.0037 found on a trained model of 4 layers; docs/export.md).
_GELU_TABLE = 2e-3  # llama.cpp looks the GELU of GPT-2 up in a table of float16, whatever the weights are
_ALLOWED = {"f32": 1e-4, "f16": 0.01, "bf16": 0.04, "q8_0": 0.08}
_CHAT = [("system", "Be brief."), ("user", "What's new?\n <|end|> 12"), ("assistant", "Nothing."), ("user", "Ah so!")]
_HARD = (
    *(
        "'s",
        "'LL",
        "a",
        "B",
        "the",
        " the",
        "\u00e9",
        "e\u0301",
        "\u00df",
        "\u5b57",
        "\ud55c",
        "\u0939\u093f",
        "\u0627",
    ),
    *(
        "\U0001f642",
        "\U0001f469\u200d\U0001f469",
        "\ufe0f",
        "1",
        "42",
        "12345",
        "\u2167",
        "\u0663",
        "\u00bd",
        " ",
        "  ",
    ),
    *(
        "\n",
        "\r\n",
        "\t",
        "\x0b",
        "\x1c",
        "\x85",
        "\u00a0",
        "\u2003",
        "\u2028",
        "\u200b",
        "\u3000",
        "\ufeff",
        "\0",
        "\x1b",
    ),
    *(
        "!",
        "...",
        "-",
        "/",
        "<|endoftext|>",
        "<|endof",
        "\ufffd",
        "\U0010ffff",
        "\ufb01",
        "\U0001d4b3",
        "http://",
        "x_y",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One thing compared."""

    name: str
    found: str
    """What came out, in words."""
    allowed: str
    """What would do."""
    is_equal: bool

    def __str__(self) -> str:
        return f"{self.name:<9} {self.found:<60} {self.allowed:<20} {'ok' if self.is_equal else 'FAILED'}"


def need_owner(to: str) -> None:
    """Nothing, if the program that a target's `verify` asks is there; to be called before anything is written.

    Raises:
        ImportError: It is not installed.
    """
    owner = TARGETS[to].owner
    if owner is not None and find_spec(_PACKAGES[owner][0]) is None:
        raise ImportError(f"--verify asks {owner}, which is not installed; pip install '{_PACKAGES[owner][1]}'")


def verify(
    checkpoint: Checkpoint, folder: Path, *, to: str, dtype: str, lines: Sequence[str], threads: int = 2
) -> list[Row]:
    """What the owner of the format makes of an export, beside what the model itself makes of the same.

    Args:
        checkpoint: What was exported.
        folder: The export.
        to: Its target.
        dtype: Its type of weights.
        lines: Texts whose tokens are compared.
        threads: CPU threads of the owner.

    Raises:
        ValueError: The target has no owner that could be asked.
        RuntimeError: The owner does not open the export.
    """
    owner = TARGETS[to].owner
    if owner is None:
        raise ValueError(f"{to} has no program that could be asked here; its layout is checked as it is written")
    asked = _questions(checkpoint, lines, threads)
    answers = _ask(owner, folder, asked)
    facts = json.loads(str(answers["facts"]))
    reference = rounded(checkpoint.model, to, dtype)
    allowed = _ALLOWED["f32" if owner != "llama.cpp" else dtype]
    if owner == "llama.cpp" and checkpoint.model.config.mlp == "gelu":
        allowed = max(allowed, _GELU_TABLE)
    logits, scale = _logits_row(reference, asked["windows"], answers["logits"], allowed)
    return [
        *_token_rows(checkpoint, owner, lines, answers),
        _tensor_row(tensors_of(reference, to), facts["tensors"]),
        logits,
        _drawn_row(reference, checkpoint, asked, facts["drawn"], 2 * allowed * scale),
        *_fact_rows(checkpoint, owner, asked, facts),
    ]


def lines_of(checkpoint: Checkpoint, path: Path | None = None, *, n: int = N_LINES) -> list[str]:
    """Texts to compare tokens on: a file's lines, or text of the training data where it is at hand, then hard ones.

    Args:
        checkpoint: Whose data are looked for.
        path: A file; its lines come first.
        n: How many.
    """
    if path is not None:
        found = islice(path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True), n)
    else:
        found = islice(_data_lines(checkpoint), n // 2)
    lines = [line for line in found if line]
    return [*lines, *hard_lines(n - len(lines))]


def hard_lines(n: int) -> list[str]:
    """Lines of what splitting finds hard, and of any characters that there are; the same each time."""
    draw = random.Random(0)
    letters = ["a", " ", "1", ".", "\n", "A", "'"]

    def any_character() -> str:
        number = draw.randrange(0x3000) if draw.random() < 0.7 else draw.randrange(0x110000 - 0x800)
        return chr(number if number < 0xD800 else number + 0x800)

    def line(i: int) -> str:
        length = draw.randrange(1, 40)
        if i % 2:
            return "".join(draw.choice(_HARD) for _ in range(length))
        return "".join(draw.choice(letters) if draw.random() < 0.4 else any_character() for _ in range(length))

    return [line(i) for i in range(n)]


def _data_lines(checkpoint: Checkpoint) -> Iterator[str]:
    """Lines of the text that the run was trained on, out of its tokens; none where they are not at hand."""
    folder, tokenizer = checkpoint.folder, checkpoint.tokenizer
    if folder is None or tokenizer is None or not (folder / TRAINER_FILE).is_file():
        return
    try:
        data = lineage.open_data(read_facts(folder)["data"]["train"], folder.parent, "train")
    except (OSError, ValueError, KeyError, TypeError):
        return  # moved away since, or no folder: other lines will do
    for i in range(len(data)):
        yield from tokenizer.decode(data[i][0].tolist()).splitlines(keepends=True)


def _questions(checkpoint: Checkpoint, lines: Sequence[str], threads: int) -> dict[str, Any]:
    """What the owner is asked: the same lines, windows and prompts each time."""
    config, tokenizer = checkpoint.model.config, checkpoint.tokenizer
    n_ids = config.vocab_size if tokenizer is None else min(config.vocab_size, tokenizer.vocab_size)
    draw, length = np.random.default_rng(0), min(config.block_size, 128)
    windows = draw.integers(0, n_ids, (_N_WINDOWS, length))
    text = [] if tokenizer is None else [i for line in lines[:200] for i in tokenizer.encode(line)]
    for row in range(min(_N_WINDOWS // 2, len(text) // length)):  # half of text, half of any ids
        windows[row] = text[row * length : (row + 1) * length]
    n_prompt = max(1, min(16, config.block_size // 2))
    chat = tokenizer is not None and knows_chats(tokenizer.special_tokens)
    return {
        "lines": [] if tokenizer is None else list(lines),
        "windows": windows.tolist(),
        "prompts": [window[:n_prompt].tolist() for window in windows[:_N_PROMPTS]],
        "n_new": min(_N_NEW, config.block_size - n_prompt),
        "chat": [{"role": role, "content": text} for role, text in _CHAT] if chat else None,
        "ends": checkpoint.end_ids,
        "threads": threads,
    }


def _ask(owner: str, folder: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """The answers of a process in which the owner's library runs and nothing of ours does."""
    with tempfile.TemporaryDirectory() as place:
        questions, answers = Path(place) / "questions.json", Path(place) / "answers.npz"
        questions.write_text(json.dumps(asked), encoding="utf-8")
        # From standard input: a script's own folder would come first on its path, and names of ours are in it.
        words = [sys.executable, "-", owner, str(folder.resolve()), str(questions), str(answers)]
        script = Path(owners.__file__).read_text(encoding="utf-8")
        done = subprocess.run(words, input=script, capture_output=True, text=True, check=False, cwd=place)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no word of it"])[-1]
            raise RuntimeError(f"{owner} does not open {folder}: {last}")
        with np.load(answers, allow_pickle=False) as found:
            return dict(found)


def _token_rows(checkpoint: Checkpoint, owner: str, lines: Sequence[str], answers: dict[str, Any]) -> list[Row]:
    """Whether the owner's tokenizer gives our ids; those of Hugging Face find special tokens in any text."""
    tokenizer = checkpoint.tokenizer
    if tokenizer is None:
        return []
    allowed: Any = () if owner == "llama.cpp" else "all"
    ours = tokenizer.encode_batch(list(lines), allowed_special=allowed)
    theirs = np.split(answers["tokens"], np.cumsum(answers["lengths"])[:-1])
    wrong = [i for i, ids in enumerate(ours) if ids != theirs[i].tolist()]
    found = f"{len(ours) - len(wrong):,} of {len(ours):,} lines equal"
    if wrong:
        found += f", not {lines[wrong[0]][:20]!r}"
    return [Row(name="tokens", found=found, allowed="all", is_equal=not wrong)]


def _tensor_row(ours: dict[str, Tensor], theirs: dict[str, str]) -> Row:
    """Whether the owner holds our numbers, bit for bit."""
    digests = {name: owners.digest(tensor.detach().numpy()) for name, tensor in ours.items()}
    held = set(theirs.values())
    wrong = [name for name, each in digests.items() if theirs.get(name, each) != each or each not in held]
    found = f"{len(ours) - len(wrong):,} of {len(ours):,} tensors bit for bit" + (f", not {wrong[0]}" if wrong else "")
    return Row(name="weights", found=found, allowed="all", is_equal=not wrong)


def _logits_row(reference: GPT, windows: list[list[int]], theirs: Any, allowed: float) -> tuple[Row, float]:
    """Row, and the deviation of our logits."""
    with torch.no_grad():
        ours = reference(torch.tensor(windows)).double().numpy()  # (windows, T, V)
    difference, scale = np.abs(ours - theirs.astype(np.float64)), float(ours.std())
    share = float(np.sqrt((difference**2).mean())) / scale
    agree = float((ours.argmax(-1) == theirs.argmax(-1)).mean())
    found = f"apart {share:.2g} of deviation, most {difference.max():.2g}; {agree:.1%} agree"
    is_equal = bool(np.isfinite(share) and share <= allowed)
    return Row(name="logits", found=found, allowed=f"{allowed:g} of deviation", is_equal=is_equal), scale


def _drawn_row(
    reference: GPT, checkpoint: Checkpoint, asked: dict[str, Any], drawn: list[list[int]], allowed: float
) -> Row:
    """Whether every id that the owner took is the likeliest to us, too, but for those that are as good as equal."""
    worst, n_equal, n_ids, is_short = 0.0, 0, 0, False
    for prompt, ids in zip(asked["prompts"], drawn, strict=True):
        with torch.no_grad():
            logits = reference(torch.tensor([prompt + ids]))[0, len(prompt) - 1 : -1]  # (ids, V)
        taken = logits[torch.arange(len(ids)), torch.tensor(ids)]
        behind = (logits.max(-1).values - taken).tolist()
        worst, n_equal, n_ids = max([worst, *behind]), n_equal + sum(not gap for gap in behind), n_ids + len(ids)
        is_short |= len(ids) < asked["n_new"] and ids[-1:] != [i for i in ids[-1:] if i in checkpoint.end_ids]
    found = f"{n_equal} of {n_ids} ids the likeliest" + (f", else behind by {worst:.2g}" if n_equal < n_ids else "")
    found += ", ended too early" if is_short else ""
    return Row(
        name="greedy", found=found, allowed=f"behind by {allowed:.2g}", is_equal=worst <= allowed and not is_short
    )


def _fact_rows(checkpoint: Checkpoint, owner: str, asked: dict[str, Any], facts: dict[str, Any]) -> Iterator[Row]:
    """Where generation stops, and how a chat is laid out."""
    if owner != "onnxruntime":  # a graph knows no ends
        ours, theirs = sorted(checkpoint.end_ids), sorted(facts["ends"])
        yield Row(name="ends", found=f"stops at {theirs}", allowed=f"{ours}", is_equal=ours == theirs)
        if asked["chat"]:
            # A rendered template is text: what a user types as <|end|> is that token to others. So it is compared so.
            assert checkpoint.tokenizer is not None  # or there were no chat
            wanted = checkpoint.tokenizer.encode(_rendered(asked["chat"]), allowed_special="all")
            is_equal = facts["chat"] == wanted
            found = f"{len(facts['chat'])} ids of {len(asked['chat'])} messages"
            yield Row(name="chat", found=found, allowed="ours", is_equal=is_equal)


def _rendered(messages: Sequence[dict[str, str]]) -> str:
    said = "".join(f"<|{each['role']}|>{each['content']}<|end|>" for each in messages)
    return f"{said}<|assistant|>"
