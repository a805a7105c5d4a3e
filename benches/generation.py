"""Rows G1 to G7: writing with a model of 41.7 M parameters, against transformers, nanoGPT and llama.cpp.

The weights are random, which costs what trained ones cost. llama.cpp reads what `tinygpt export --to gguf` writes, by
llama-cpp-python, built on this machine so that it has all instructions of its processor:
`pip install --no-binary llama-cpp-python llama-cpp-python`. Sides that are not installed are left out, and said so.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from tinygpt import GPT, Checkpoint, GPTConfig, Tokenizer
from tinygpt.exporting import export

from benches.race import Run, Side, race
from benches.table import Row, report

THREADS, PROMPT, WRITTEN, PREFILL, STREAMS, REPEATS = 2, 50, 200, 200, 16, 10
VOCAB_SIZE = 32000
SHAPE = {"block_size": 256, "n_layer": 8, "n_head": 8, "d_model": 512}
TINY = {"block_size": 256, "n_layer": 1, "n_head": 2, "d_model": 32}

IDS = f"ids = [(i * 7919 + 13) % {VOCAB_SIZE - 1} for i in range(256)]\n"
THREADED = f"import torch\ntorch.set_num_threads({THREADS})\ntorch.set_grad_enabled(False)\n"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What of the suite to run."""

    rounds: int = 3
    rows: Sequence[str] = field(default_factory=lambda: [*ROWS])
    peers: str = sys.executable
    """The Python that has transformers and llama-cpp-python."""
    nanogpt: Path | None = None
    """The folder that holds nanoGPT's model.py."""
    is_tiny: bool = False


@dataclass(frozen=True)
class Models:
    """The model in the forms of each side, made when first asked for, and what has been run."""

    choice: Choice
    folder: Path
    runs: dict[str, Run] = field(default_factory=dict)

    @cached_property
    def checkpoint(self) -> Path:
        place = self.folder / "model"
        torch.manual_seed(0)
        model = GPT(GPTConfig(vocab_size=VOCAB_SIZE, **(TINY if self.choice.is_tiny else SHAPE)))
        # Any vocabulary of that size will do: pairs of bytes.
        merges = [(bytes([i // 256]), bytes([i % 256])) for i in range(VOCAB_SIZE - 257)]
        tokenizer = Tokenizer.from_merges(merges, special_tokens=["<|endoftext|>"])
        Checkpoint(model.eval(), tokenizer).save(place)
        return place

    def gguf(self, dtype: str) -> Path:
        place = self.folder / f"gguf-{dtype}"
        if not place.exists():
            export(Checkpoint.load(self.checkpoint), place, to="gguf", dtype=dtype)
        return next(place.glob("*.gguf"))

    def ours(self, name: str, dtype: str, code: str, *, n_slots: int = 1) -> Side:
        """`decoder`, `streams` and `request` are there."""
        load = f"""{THREADED}{IDS}
from tinygpt import Checkpoint
from tinygpt.generation import Request, Streams
from tinygpt.sampling import Sampling
decoder = Checkpoint.load({str(self.checkpoint)!r}).decoder(n_slots={n_slots}, dtype={dtype!r})
streams = Streams(decoder)
request = Request(ids=ids[:{PROMPT}], max_new_tokens={WRITTEN}, sampling=Sampling(temperature=0.0))
"""
        return Side(name=name, code=load + code)

    def writes(self, name: str, dtype: str, *, n: int = 1) -> Side:
        """Ours, writing `n` texts at once."""
        code = f"""
with clock() as took:
    for _ in range({n}):
        streams.add(request)
    answer = 0
    while streams.n_active:
        answer += len(streams.step())
"""
        return self.ours(name, dtype, code, n_slots=n)

    def llama(self, name: str, dtype: str, code: str) -> Side:
        """`llama` is there."""
        load = f"""{IDS}
import llama_cpp
import numpy as np
llama = llama_cpp.Llama({str(self.gguf(dtype))!r}, n_ctx=256, n_batch=256, n_threads={THREADS},
                        n_threads_batch={THREADS}, verbose=False)
def logits():
    return np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(llama._ctx.ctx, -1), ({VOCAB_SIZE},))
"""
        return Side(name=name, code=load + code, python=self.choice.peers)

    def llama_writes(self, name: str, dtype: str) -> Side:
        code = f"""
with clock() as took:
    llama.eval(ids[:{PROMPT}])
    for answer in range(1, {WRITTEN} + 1):
        i = int(logits().argmax())
        if answer < {WRITTEN}:
            llama.eval([i])
"""
        return self.llama(name, dtype, code)

    def race(self, task: str, *sides: Side) -> None:
        """Runs those sides that have not run; all write as many tokens."""
        for run in race(task, [side for side in sides if side.name not in self.runs], rounds=self.choice.rounds):
            self.runs[run.name] = run

    def row(self, id: str, task: str, ours: str, peer: str, target: float, amount: int) -> Row:
        return Row(
            id=id, task=task, ours=self.runs[ours], peer=self.runs[peer], target=target, amount=amount, unit="tokens"
        )

    @cached_property
    def has_llama(self) -> bool:
        return _has(self.choice.peers, "llama_cpp")


def _has(python: str, module: str) -> bool:
    return not subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False).returncode


ONE, INT8 = "tinygpt", "tinygpt --int8"


def g1(models: Models) -> Iterator[Row]:
    """As it comes, against transformers as it comes."""
    code = f"""{THREADED}{IDS}
import transformers
transformers.logging.set_verbosity_error()
model = transformers.AutoModelForCausalLM.from_pretrained({str(models.checkpoint)!r}, dtype=torch.float32)
x = torch.tensor([ids[:{PROMPT}]])
with clock() as took:
    text = model.generate(x, max_new_tokens={WRITTEN}, min_new_tokens={WRITTEN}, do_sample=False)
answer = text.shape[1] - {PROMPT}
"""
    theirs = Side(name="transformers float32", code=code, python=models.choice.peers)
    models.race("write", models.writes(ONE, "auto"), theirs)
    yield models.row("G1", "write", ONE, theirs.name, 3, WRITTEN)


def g2(models: Models) -> Iterator[Row]:
    """As it comes, against nanoGPT in bfloat16."""
    if models.choice.nanogpt is None:
        return
    shape = TINY if models.choice.is_tiny else SHAPE
    sizes = f"n_layer={shape['n_layer']}, n_head={shape['n_head']}, n_embd={shape['d_model']}"
    code = f"""{THREADED}{IDS}
import sys
sys.path.insert(0, {str(models.choice.nanogpt)!r})
from model import GPT, GPTConfig
model = GPT(GPTConfig(vocab_size={VOCAB_SIZE}, block_size=256, {sizes}, bias=False)).bfloat16().eval()
x = torch.tensor([ids[:{PROMPT}]])
with clock() as took:
    text = model.generate(x, {WRITTEN})
answer = text.shape[1] - {PROMPT}
"""
    theirs = Side(name="nanoGPT bfloat16", code=code, python=models.choice.peers)
    models.race("write", models.writes(ONE, "auto"), theirs)
    yield models.row("G2", "write", ONE, theirs.name, 6, WRITTEN)


def g3(models: Models) -> Iterator[Row]:
    """Weights of 16 bits for weights of 16 bits."""
    if models.has_llama:
        sides = [models.llama_writes(f"llama.cpp {dtype.upper()}", dtype) for dtype in ("f16", "bf16")]
        models.race("write", models.writes(ONE, "auto"), *sides)
        for side in sides:
            yield models.row("G3", "write", ONE, side.name, 1.0, WRITTEN)


def g4(models: Models) -> Iterator[Row]:
    """Bytes for bytes."""
    if models.has_llama:
        theirs = models.llama_writes("llama.cpp Q8_0", "q8_0")
        models.race("write", models.writes(INT8, "int8"), theirs)
        yield models.row("G4", "write", INT8, theirs.name, 0.7, WRITTEN)


def g5(models: Models) -> Iterator[Row]:
    """Reading a prompt."""
    if models.has_llama:
        code = f"""
decoder.extend([(0, ids[:{PREFILL}])])
with clock() as took:
    for answer in range({REPEATS}):
        decoder.cut(0, 0)
        decoder.extend([(0, ids[:{PREFILL}])])
"""
        ours = models.ours("tinygpt, prompt", "auto", code)
        code = f"""
llama.eval(ids[:{PREFILL}])
with clock() as took:
    for answer in range({REPEATS}):
        llama.reset()
        llama.eval(ids[:{PREFILL}])
"""
        theirs = models.llama("llama.cpp F16, prompt", "f16", code)
        models.race("read", ours, theirs)
        yield models.row("G5", f"read {PREFILL} tokens", ours.name, theirs.name, 1.0, PREFILL * REPEATS)


def g6(models: Models) -> Iterator[Row]:
    """Many texts at once against one."""
    many = f"tinygpt, {STREAMS} at once"
    models.race("write", models.writes(ONE, "auto"))
    models.race("write many", models.writes(many, "auto", n=STREAMS))
    ours, one = models.runs[many], models.runs[ONE]
    value = STREAMS * one.seconds / ours.seconds
    yield Row(
        id="G6",
        task=f"{STREAMS} at once",
        ours=ours,
        peer=one,
        target=5,
        value=value,
        amount=STREAMS * WRITTEN,
        unit="tokens",
    )


def g7(models: Models) -> Iterator[Row]:
    """From the command to the first token."""
    words = f"-m tinygpt generate --cpu --checkpoint {models.checkpoint} --prompt a --max-new-tokens 1"
    code = f"""
import subprocess, sys
subprocess.run([sys.executable, *{words.split()!r}], check=True, capture_output=True)
with clock() as took:
    subprocess.run([sys.executable, *{words.split()!r}], check=True, capture_output=True)
answer = 1
"""
    side = Side(name="tinygpt generate", code=code)
    models.race("first token", side)
    yield Row(id="G7", task="command to first token", ours=models.runs[side.name], target=3, kind="seconds")


def main(choice: Choice) -> None:
    """Runs the rows and writes `benches/results/generation.json`."""
    with tempfile.TemporaryDirectory(prefix="tinygpt-bench-") as name:
        models, rows = Models(choice, Path(name)), list[Row]()
        for id in choice.rows:
            rows += ROWS[id](models)
        notes = [] if models.has_llama else ["llama-cpp-python is not installed: no G3, G4 and G5"]
        notes += [] if choice.nanogpt else ["no --nanogpt FOLDER: no G2"]
        name = "generation" if set(choice.rows) == set(ROWS) and not choice.is_tiny else "generation-part"
        report(name, rows, python=choice.peers, notes=notes)


ROWS = {"G1": g1, "G2": g2, "G3": g3, "G4": g4, "G5": g5, "G6": g6, "G7": g7}
