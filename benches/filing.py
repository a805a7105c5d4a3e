"""Rows F1 to F4: a text file to shards, its memory, and what a second thread gives."""

from collections.abc import Iterator
from pathlib import Path

from benches.corpora import Text
from benches.race import Run, Side, race
from benches.setting import THREADS, VOCAB_SIZE, Setting
from benches.table import Row

AMDAHL_CORES = 12


def f1(setting: Setting) -> Iterator[Row]:
    """Against gigatoken."""
    for text in setting.texts:
        code = f"""
import gigatoken; import numpy as np
from benches.answers import digest
source = gigatoken.TextFileSource([{str(text.path)!r}], separator=b"<|endoftext|>\\n")
with clock() as took:
    rows = tokenizer.encode_files(source)
    rows.layout.content.data.astype(np.uint16).tofile({str(setting.folder / "gigatoken.bin")!r})
answer = digest(np.fromfile({str(setting.folder / "gigatoken.bin")!r}, "<u2"))
"""
        sides = [_ours(setting, text.path), setting.gigatoken(code, door="encode_files")]
        runs = race(f"file to shards, {text.name}", sides, rounds=setting.rounds)
        task = f"{text.name} to shards, 2 threads"
        yield Row(id="F1", task=task, ours=runs[0], peer=runs[1], amount=text.mb, target=2.5)


def f2(setting: Setting) -> Iterator[Row]:
    """Against batches of tiktoken and of tokenizers."""
    for text in setting.texts:
        for side, goal in ((_tiktoken(setting, text), 18), (_tokenizers(setting, text), 50)):
            sides = [_ours(setting, text.path), side]
            runs = race(f"file to shards, {text.name}", sides, rounds=setting.rounds)
            task = f"{text.name} to shards, 2 threads"
            yield Row(id="F2", task=task, ours=runs[0], peer=runs[1], amount=text.mb, target=goal)


def f3(setting: Setting) -> Iterator[Row]:
    """Peak memory, whatever the file's size."""
    for text in setting.texts:
        for name, path in ((text.name, text.path), (f"1 GB of {text.name}", text.gigabyte)):
            for threads in (1, THREADS):
                side = _ours(setting, path, threads=threads, answer="manifest.vocab_size")
                run = race(f"file to shards, {name}", [side], rounds=1)[0]
                task, mb = f"{name} to shards, {threads} threads", path.stat().st_size / 1e6
                yield Row(id="F3", task=task, ours=run, amount=mb, target=100 + 25 * threads, kind="MB")


def f4(setting: Setting) -> Iterator[Row]:
    """What a second thread gives in counting and in encoding, and what it cannot give in training."""
    for text in setting.texts:
        counting = {n: _timed(_count(text, n), n, setting.rounds) for n in (1, THREADS)}
        encoding = {n: _timed(_ours(setting, text.path, threads=n).code, n, setting.rounds) for n in (1, THREADS)}
        for task, runs in (("count", counting), ("encode to shards", encoding)):
            gain = min(runs[1].all_seconds) / min(runs[THREADS].all_seconds)
            name = f"{task} {text.name}, 1 to {THREADS} threads"
            yield Row(id="F4", task=name, ours=runs[THREADS], peer=runs[1], amount=text.mb, target=1.7, value=gain)
        learning = _timed(_learn(text), 1, setting.rounds)
        both = learning.seconds + counting[1].seconds
        forecast = learning.seconds + counting[1].seconds / AMDAHL_CORES
        task = f"train {text.name}, share that stays serial"
        yield Row(id="F4", task=task, ours=learning, kind="share", value=learning.seconds / both)
        task = f"train {text.name}, {AMDAHL_CORES} cores against 1"
        yield Row(id="F4", task=task, ours=learning, value=both / forecast)


def _ours(setting: Setting, path: Path, *, threads: int = THREADS, answer: str | None = None) -> Side:
    """Writes shards; the answer is that of their text, ends of documents left out."""
    code = f"""
import shutil
from pathlib import Path
place = Path({str(setting.folder / "shards")!r})
shutil.rmtree(place, ignore_errors=True)
with clock() as took:
    manifest = tokenizer.write_shards({str(path)!r}, place, val_fraction=0, threads={threads})
"""
    check = """
import numpy as np
from benches.answers import digest
ids = np.concatenate([np.fromfile(place / shard.file, "<u2", offset=1024) for shard in manifest.splits["train"]])
answer = digest(ids[ids != tokenizer.eot_id])
"""
    return setting.ours(code + (check if answer is None else f"answer = {answer}"))


def _tiktoken(setting: Setting, text: Text) -> Side:
    encode = f"tokenizer.encode_ordinary_batch(batch, num_threads={THREADS})"
    return setting.tiktoken(_batches(setting, text, encode, "tiktoken"), door="encode_ordinary_batch")


def _tokenizers(setting: Setting, text: Text) -> Side:
    encode = "[row.ids for row in tokenizer.encode_batch_fast(batch)]"
    return setting.tokenizers(_batches(setting, text, encode, "tokenizers"), door="encode_batch_fast")


def _batches(setting: Setting, text: Text, encode: str, name: str) -> str:
    """Sixteen documents, or parts of a long one, at a time."""
    out = str(setting.folder / f"{name}.bin")
    return f"""
import numpy as np
from itertools import islice
from benches.answers import digest, documents
with clock() as took, open({out!r}, "wb") as out:
    texts = documents({str(text.path)!r})
    while batch := list(islice(texts, 16)):
        for ids in {encode}:
            np.array(ids, dtype=np.uint16).tofile(out)
answer = digest(np.fromfile({out!r}, "<u2"))
"""


def _timed(code: str, threads: int, rounds: int) -> Run:
    side = Side(name=f"tinygpt, {threads} thread{'s' * (threads > 1)}", code=code)
    return race("threads", [side], rounds=rounds)[0]


def _count(text: Text, threads: int) -> str:
    return f"""
from tinygpt import Corpus
corpus = Corpus({str(text.path)!r}, threads={threads})
with clock() as took:
    counts = corpus.count(special_tokens=["<|endoftext|>"])
answer = len(counts)
"""


def _learn(text: Text) -> str:
    return f"""
from tinygpt import Corpus, Tokenizer
counts = Corpus({str(text.path)!r}).count(special_tokens=["<|endoftext|>"])
with clock() as took:
    tokenizer = Tokenizer.from_counts(counts, vocab_size={VOCAB_SIZE})
answer = tokenizer.fingerprint
"""


ROWS = {"F1": f1, "F2": f2, "F3": f3, "F4": f4}
