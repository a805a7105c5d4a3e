"""The tokenizer against its peers: train, encode, text file to shards."""

import os
import sysconfig
import tempfile
from pathlib import Path

from benches.race import Row, race, report

VOCAB_SIZE = 8192
PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def corpus(folder: Path) -> Path:
    """The large sample text if it is there, else the source files of this machine's Python as one file."""
    sample = Path(os.environ.get("TINYGPT_SAMPLES", "../shared/data")) / "large/gutenberg-128mb.txt.zst"
    path = folder / "corpus.txt"
    if sample.exists():
        import zstandard

        with sample.open("rb") as packed, path.open("wb") as plain:
            zstandard.ZstdDecompressor(max_window_size=2**27).copy_stream(packed, plain)
        return path
    sources = sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py"))
    texts = [source.read_bytes().decode("utf-8", "ignore") for source in sources if "site-packages" not in source.parts]
    path.write_text("\n".join(texts), encoding="utf-8")
    return path


def train(path: Path, rounds: int, amount: float) -> list[Row]:
    ours = f"""
import time; from tinygpt import Tokenizer
begin = time.perf_counter()
answer = Tokenizer.train({str(path)!r}, vocab_size={VOCAB_SIZE}).vocab_size
seconds = time.perf_counter() - begin
"""
    theirs = f"""
import time, tokenizers
tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
trainer = tokenizers.trainers.BpeTrainer(vocab_size={VOCAB_SIZE}, special_tokens=["<|endoftext|>"], show_progress=False,
    initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet())
begin = time.perf_counter()
tokenizer.train([{str(path)!r}], trainer)
seconds = time.perf_counter() - begin
answer = tokenizer.get_vocab_size()
"""
    sides = {"tinygpt": ours, "tokenizers": theirs}
    return race(f"train {VOCAB_SIZE}", sides, amount=amount, unit="MB", rounds=rounds)


def encode(path: Path, tokenizer: Path, rounds: int) -> list[Row]:
    load = f"""
import time; from tinygpt import Tokenizer
text = open({str(path)!r}, encoding="utf-8", newline="").read()[:20_000_000]
ours = Tokenizer.load({str(tokenizer)!r})
"""
    end = "seconds = time.perf_counter() - begin\nanswer = len(ids)\n"
    ours = f"{load}begin = time.perf_counter()\nids = ours.encode_to_numpy(text)\n{end}"
    theirs = f"""{load}
import tiktoken
special = ours.special_tokens
ranks = {{ours.token_bytes(i): i for i in range(ours.vocab_size) if i not in special.values()}}
peer = tiktoken.Encoding("peer", pat_str={PATTERN!r}, mergeable_ranks=ranks, special_tokens=special)
begin = time.perf_counter()
ids = peer.encode_to_numpy(text, disallowed_special=())
{end}"""
    hugging_face = f"""{load}
import tokenizers
peer = tokenizers.Tokenizer.from_file({str(tokenizer / "tokenizer.json")!r})
lines = text.split("\\n")
texts = ["\\n".join(lines[i : i + 200]) for i in range(0, len(lines), 200)]
begin = time.perf_counter()
ids = [i for encoding in peer.encode_batch_fast(texts) for i in encoding.ids]
{end}"""
    amount = min(path.stat().st_size, 20_000_000) / 1e6
    rows = race("encode, 1 thread", {"tinygpt": ours, "tiktoken": theirs}, amount=amount, unit="MB", rounds=rounds)
    # Cut into batches the text gives a few ids more or less at the seams, so counts are not compared.
    batch = {"tinygpt": ours, "tokenizers (all cores)": hugging_face}
    return rows + race("encode", batch, amount=amount, unit="MB", rounds=rounds, check=False)


def shards(path: Path, tokenizer: Path, folder: Path, rounds: int, amount: float) -> list[Row]:
    ours = f"""
import time; from tinygpt import Tokenizer
tokenizer = Tokenizer.load({str(tokenizer)!r})
begin = time.perf_counter()
manifest = tokenizer.write_shards({str(path)!r}, {str(folder / "shards")!r}, val_fraction=0)
seconds = time.perf_counter() - begin
answer = sum(shard.bytes for shard in manifest.splits["train"]) // 1_000_000
"""
    theirs = f"""
import time; import numpy as np; import tiktoken; from tinygpt import Tokenizer
ours = Tokenizer.load({str(tokenizer)!r})
special = ours.special_tokens
ranks = {{ours.token_bytes(i): i for i in range(ours.vocab_size) if i not in special.values()}}
peer = tiktoken.Encoding("peer", pat_str={PATTERN!r}, mergeable_ranks=ranks, special_tokens=special)
begin = time.perf_counter()
size = 0
with open({str(path)!r}, encoding="utf-8", newline="") as text, open({str(folder / "peer.bin")!r}, "wb") as out:
    documents, lines = [], []
    def flush():
        for ids in peer.encode_ordinary_batch(documents, num_threads=2):
            out.write(np.array([*ids, peer.eot_token], dtype=np.uint16).tobytes())
        documents.clear()
    for line in text:
        if line == "<|endoftext|>\\n":
            documents.append("".join(lines)); lines.clear()
            if len(documents) == 16: flush()
        else:
            lines.append(line); size += len(line.encode())
    if lines: documents.append("".join(lines))
    flush()
seconds = time.perf_counter() - begin
answer = size // 1_000_000
"""
    sides = {"tinygpt": ours, "tiktoken, 2 threads": theirs}
    return race("text file to shards", sides, amount=amount, unit="MB", rounds=rounds)


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = corpus(folder)
        amount = path.stat().st_size / 1e6
        print(f"text: {amount:.0f} MB", flush=True)
        rows = train(path, rounds, amount)
        from tinygpt import Tokenizer

        Tokenizer.train(str(path), vocab_size=VOCAB_SIZE).save(folder / "tokenizer")
        rows += encode(path, folder / "tokenizer", rounds)
        rows += shards(path, folder / "tokenizer", folder, rounds, amount)
        report("tokenizer", rows)
