"""The main job from nothing, on text that every machine has: `make demo`.

Trains a tokenizer and a small GPT on the source files of this machine's Python, writes samples, and holds the model's
bits per byte against those of zlib on the same held-out text. Everything goes into demo/; a second call continues.
"""

import os
import shlex
import subprocess
import sys
import sysconfig
import time
import zlib
from pathlib import Path

import tinygpt
from tinygpt.command import byte_bar
from tinygpt.preparation import Preparation

FOLDER = Path("demo")
DATA, RUN = FOLDER / "data", FOLDER / "run"
VOCAB_SIZE, VAL_FRACTION = 4096, 0.02
STEPS = 600
SHAPE = "--n-layer 4 --n-head 4 --d-model 256 --block-size 128"
PROMPTS = ["def read_lines(path", "class Server", "for name in"]
LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "lib2to3", "encodings", "pydoc_data"}


def sources() -> list[str | Path]:
    """The standard library's own source files, without tests, tables of characters and installed packages."""
    top = Path(sysconfig.get_path("stdlib"))
    return sorted(path for path in top.rglob("*.py") if not LEFT_OUT & set(path.relative_to(top).parts))


def prepare() -> None:
    """The prepared folder; what is there already is left alone if nothing has changed."""
    paths = sources()
    n_bytes = sum(os.path.getsize(path) for path in paths)
    print(f"{len(paths)} source files of Python {sys.version.split()[0]}, {n_bytes / 1e6:.1f} MB", flush=True)
    how = Preparation(val_fraction=VAL_FRACTION)
    started = time.perf_counter()
    manifest, is_new = how.prepare(how.corpus(paths), DATA, vocab_size=VOCAB_SIZE, bar=byte_bar)
    seconds = f"in {time.perf_counter() - started:.1f} s" if is_new else "prepared already"
    n_tokens = sum(shard.tokens for shards in manifest.splits.values() for shard in shards)
    print(f"tokenizer of {manifest.vocab_size:,} ids and {n_tokens:,} tokens, {seconds}", flush=True)


def command(line: str, *words: str) -> None:
    """Run a command of tinygpt, shown as one would type it; a failure ends the demo with its exit code."""
    argv = [*line.split(), *words]
    print(f"\n$ tinygpt {shlex.join(argv)}", flush=True)
    done = subprocess.run([sys.executable, "-m", "tinygpt", *argv], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def held_out_text() -> bytes:
    """The text of the validation shards."""
    tokenizer = tinygpt.Tokenizer.load(DATA)
    ids = tinygpt.TokenDataset(DATA, "val", block_size=1).memmap()
    return tokenizer.decode_bytes(ids[ids != tokenizer.eot_id])


def compare() -> None:
    """Bits per byte of the model and of zlib, on all of the held-out text."""
    from tinygpt.evaluation import evaluate

    checkpoint = tinygpt.Checkpoint.load(RUN)
    val = tinygpt.TokenDataset(DATA, "val", block_size=checkpoint.model.config.block_size)
    lengths = tinygpt.Tokenizer.load(DATA).token_lengths()
    ours = evaluate(checkpoint.model, val, batches=None, token_lengths=lengths)
    text = held_out_text()
    theirs = 8 * len(zlib.compress(text, 9)) / len(text)
    print(f"\nheld-out text, {len(text) / 1e3:.0f} kB: model {ours.bits_per_byte:.3f} bits per byte, ", end="")
    print(f"zlib level 9 {theirs:.3f}", flush=True)


def main() -> None:
    prepare()
    command(
        f"train --data {DATA} --out {RUN} --resume auto {SHAPE} --max-steps {STEPS} --eval-every 100 --batch-size 16"
    )
    for prompt in PROMPTS:
        command(f"generate --checkpoint {RUN} --max-new-tokens 60 --temperature 0.7 --seed 1 --prompt", prompt)
    compare()
    kept = "report.html, config.yaml, metrics.jsonl, checkpoints"
    print(f"\nwritten: {DATA}/ (tokenizer.json, shards, manifest.json), {RUN}/ ({kept})")
    program = Path(sys.executable).parent / "tinygpt"
    program = program.relative_to(Path.cwd()) if program.is_relative_to(Path.cwd()) else program
    print("\nthe same with a folder of your own text, planned for the time there is, then a talk with the model:")
    print(f"  {program} make FOLDER --time 1h --out mine")
    print(f"  {program} chat mine")


if __name__ == "__main__":
    main()
