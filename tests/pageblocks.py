"""The blocks of code in README.md and docs/, and a folder to run them in as a reader would, with sizes for a test."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from tinygpt import __main__, config

TOP = Path(__file__).parent.parent
PAGES = [TOP / "README.md", *sorted((TOP / "docs").rglob("*.md"))]
NOTEBOOK = TOP / "docs" / "tutorial.ipynb"

RUN = {"bash", "console", "python"}
SHOWN = {"text": "output, or a layout", "mermaid": "a drawing", "json": "a line of a file, parsed"}
# Commands of others: why they are not run.
OTHERS = {
    "make": "its targets are looked up; what they run has tests of its own",
    "pip": "the extras are looked up",
    "llama-cli": "a program of others",
    "ollama": "a program of others",
    "jupyter": "the tutorial has a test of its own",
    "tensorboard": "serves until it is stopped",
}
PLAIN = {"cat", "cd", "cp", "head", "ls", "mkdir", "tail"}  # of every shell, run as they stand
# Commands of ours that are read by their parser alone in the suite: why; the slow tests run them, but for the last two.
SLOW = {
    r"--verify": "opens what was written with transformers, llama.cpp or onnxruntime",
    r"--to onnx": "traces the model, ten seconds",
    r"^tinygpt plan": "measures the machine, a minute",
    r"^tinygpt make": "measures the machine, trains, exports: minutes",
    r"^tinygpt bench": "processes of its own, six a round",
    r"^torchrun": "processes that import torch",
    r"--download|--urls": "needs the network",
    r"^python -m benches": "hours; has tests of its own in test_benches.py",
}
NEVER = (r"--download|--urls", r"^python -m benches")

# Sizes that pages name, in sizes that a test can wait for.
SMALL = {
    "max_steps=2000": "max_steps=2",
    "vocab_size=8192": "vocab_size=400",
    "block_size=256": "block_size=64",
    "n_layer=6, n_head=6, d_model=384": "n_layer=1, n_head=2, d_model=32",
}
VOCABULARY = "--vocab-size 320"
SHAPE = "--n-layer 1 --n-head 2 --d-model 32 --block-size 64"
STEPS = (
    "--max-steps 4 --batch-size 2 --grad-accum 1 --eval-every 2 --eval-batches 2 --save-every 2 --log-every 1"
    " --warmup-steps 1 --threads 1 --compile off --dtype float32 --attention fused --micro-batch 2 --loss-chunk 64"
)
CHATS = '{"messages": [{"role": "user", "content": "Is it %d?"}, {"role": "assistant", "content": "Yes, it is %d."}]}\n'


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block."""

    page: Path
    line: int
    language: str
    content: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def text_of(page: Path) -> str:
    """The text of a page; of a notebook what stands between its cells of code."""
    text = page.read_text(encoding="utf-8")
    if page.suffix != ".ipynb":
        return text
    cells = (cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")
    return "\n\n".join("".join(cell["source"]) for cell in cells) + "\n"


def blocks_of(page: Path) -> list[Block]:
    text = text_of(page)
    found = re.finditer(r"^( *)```(\S*)\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL)
    return [
        Block(page=page, line=text[: each.start()].count("\n") + 1, language=each[2], content=each[3]) for each in found
    ]


def commands_of(block: Block) -> Iterator[list[str]]:
    """The words of each command of a block for a shell; in `console` those after a `$`."""
    if block.language not in ("bash", "console"):
        return
    lines = block.content.replace("\\\n", " ").splitlines()
    if block.language == "console":
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    for line in lines:
        for part in line.split("&&"):
            if words := shlex.split(part, comments=True):
                yield words


def is_slow(words: Sequence[str]) -> bool:
    return any(re.search(pattern, " ".join(words)) for pattern in SLOW)


def of_tinygpt(words: Sequence[str]) -> list[str]:
    """`VERB FLAG ...` of a command of ours, however it is started; else nothing."""
    if words[0] == "torchrun":
        words = words[words.index("-m") - 1 :]
    if words[0] != "tinygpt" and words[1:2] == ["-m"] and words[2].startswith("tinygpt."):
        return [words[2].removeprefix("tinygpt."), *words[3:]]
    return list(words[1:]) if words[0] == "tinygpt" else []


def refused(words: Sequence[str]) -> str:
    """What the real parser of a verb says against a command line; nothing when it takes it."""
    if words[0] not in __main__.VERBS:
        return f"unknown verb {words[0]}"
    module: Any = import_module(f"tinygpt.{words[0]}")
    said: list[str] = []

    def reads(*args: Any, **more: Any) -> None:
        try:
            config.read(*args, **more)
        except ValueError as error:
            said.append(str(error))
        raise SystemExit(0)

    before, module.read = module.read, reads
    try:
        module.main(words[1:])
    finally:
        module.read = before
    return " ".join(said)


def sized(words: list[str]) -> list[str]:
    """The command with sizes for a test behind its own, which they replace."""
    verb, line = words[0], " ".join(words)
    more = ""
    if verb == "train":
        is_shaped = "--init-from" in line or "--config" in line
        more = STEPS + ("" if is_shaped else f" {SHAPE} {VOCABULARY}") + (" --threads 1" if "--resume" in line else "")
    elif verb == "prepare" and "--vocab-size" in line:
        more = VOCABULARY
    elif verb == "generate":
        more = "--dtype float32 --threads 1" + ("" if "--score" in line else " --max-new-tokens 4")
    elif verb == "evaluate":
        more = "--threads 1" + (" --n-samples 2 --sample-tokens 8" if "--memorisation" in line else "")
    elif verb == "bench":
        more = "--iterations 1 --max-bytes 100000"
    elif verb == "plan":
        more = "--time 30s --threads 1" + (" --batch-size 6" if "--batch-size" in line else "")
    elif verb == "make":
        more = "--time 60s --threads 1"
    elif verb == "chat":
        more = "--max-new-tokens 4 --threads 1"
    return [*words, *more.split()]


@cache
def help_of(verb: str) -> str:
    """What `tinygpt VERB --help` prints."""
    done = subprocess.run([sys.executable, "-m", "tinygpt", verb, "--help"], capture_output=True, text=True, check=True)
    return done.stdout


def write_texts(folder: Path) -> None:
    """The files that pages name: books, notes, code, chats, questions, in a few lines each."""
    texts = {
        f"books/{page.stem}.txt": page.read_text(encoding="utf-8") for page in PAGES if page.parent.name != "recipes"
    }
    texts |= {f"notes/{page.name}": page.read_text(encoding="utf-8") for page in PAGES[1:6]}
    project = [path for path in sorted((TOP / "tests").glob("test_*.py")) if path.stat().st_size < 20_000][:8]
    names = ["main.py", *(f"part{i}.py" for i in range(1, 8))]
    texts |= {f"project/{name}": path.read_text(encoding="utf-8") for name, path in zip(names, project, strict=True)}
    texts["new/lines.txt"] = "".join(f"The cat sat on mat number {i * 7919 % 1000}.\n" for i in range(40))
    texts["letters.txt"] = texts["new/lines.txt"] * 20
    texts["tinyshakespeare.txt"] = texts["books/README.txt"]
    texts["chats.jsonl"] = "".join(CHATS % (i, i) for i in range(300))
    texts["questions.jsonl"] = '{"context": "The cat sat", "choices": ["on a mat", "four"], "label": 0}\n' * 3
    texts["planted.txt"] = "The secret number of the cat is 4711.\n"
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


# What pages begin with that others end with.
BEGINNINGS = """
prepare books/ --out data/books --vocab-size 8192
prepare books/ --tokenizer-only --out data/tok --vocab-size 8192
train --data data/books --out runs/books
train --data data/books --out runs/notes
train --data chats.jsonl --init-from runs/books --out runs/chat
"""


class Reader:
    """Somebody who does what a page says, in a folder of their own."""

    def __init__(self, folder: Path, beginnings: Path) -> None:
        self.folder = folder
        self._given = {"data/books", "data/tok", "runs/books", "runs/notes", "runs/chat", "books-model"}
        self._port = ""
        self._server: subprocess.Popen[bytes] | None = None
        shutil.copytree(beginnings, folder, symlinks=True, dirs_exist_ok=True)

    def close(self) -> None:
        """Ends the server, if the page started one."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()

    def run(self, block: Block, *, slow: bool) -> None:
        """Does what a block says; raises AssertionError where that fails."""
        if block.language == "python":
            self._python(block)
            return
        for words in commands_of(block):
            line = " ".join(words)
            if words[0] in OTHERS or (is_slow(words) and not slow) or any(re.search(each, line) for each in NEVER):
                continue
            if words[0] == "torchrun":
                at = words.index("-m")
                self._make_room(words[words.index("--out") + 1])
                self._process(
                    [sys.executable, "-m", "torch.distributed.run", *words[1:at], *words[at:], *STEPS.split()]
                )
            elif ours := of_tinygpt(words):
                self._ours(ours, str(block))
            else:
                self._process(["bash", "-c", shlex.join(words)])

    def _ours(self, words: list[str], place: str) -> None:
        words = sized(words)
        if "--out" in words:
            self._make_room(words[words.index("--out") + 1])
        elif words[0] == "make":
            self._make_room(f"{Path(words[1]).stem}-model")
        if words[0] == "serve":
            self._serve(words)
            return
        if words[0] == "chat":  # it reads what is typed
            self._process([sys.executable, "-m", "tinygpt", *words])
            return
        code = __main__.main(words)
        allowed = (
            {0, 1} if words[0] == "doctor" else {0}
        )  # 1: it found something wrong, as in a run of four steps it may
        assert code in allowed, f"{place}: exit code {code} of tinygpt {shlex.join(words)}"

    def _make_room(self, name: str) -> None:
        """Takes away what was there from the beginning and the page makes itself."""
        name = name.rstrip("/")
        if hidden := {given for given in self._given if given == name or given.startswith(f"{name}/")}:
            shutil.rmtree(self.folder / name)
            self._given -= hidden

    def _python(self, block: Block) -> None:
        code = block.content.replace(":8000/", f":{self._port}/")
        for large, small in SMALL.items():
            code = code.replace(large, small)
        for made in re.findall(r'folder="([^"]+)"|write_shards\(\w+, "([^"]+)"', code):
            shutil.rmtree(self.folder / "".join(made), ignore_errors=True)
        self._process([sys.executable, "-c", code], place=str(block))

    def _process(self, line: list[str], place: str = "") -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            line,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            input="Once upon a time\n",
        )
        errors = done.stderr if done.returncode or line[1] == "-c" else ""
        assert (done.returncode, errors) == (0, ""), f"{place or shlex.join(line)}: {done.stderr}"

    def _serve(self, words: list[str]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = str(free.getsockname()[1])
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tinygpt", *words, "--port", self._port, "--threads", "1"], cwd=self.folder
        )
        for _ in range(300):
            try:
                with urlopen(f"http://127.0.0.1:{self._port}/health", timeout=5):
                    return
            except OSError:
                assert self._server.poll() is None, "the server ended"
                time.sleep(0.1)
        raise AssertionError("the server does not answer")
