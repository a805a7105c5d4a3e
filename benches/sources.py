"""Rows J1 to D1: text in the forms that it comes in, to documents and shards, against the libraries of each form."""

import csv
import gzip
import json
import random
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tinygpt import Tokenizer

from benches import peers
from benches.answers import SEPARATOR
from benches.corpora import Text, gpt2_ranks, texts
from benches.race import Run, Side, race
from benches.setting import THREADS, VOCAB_SIZE, Setting
from benches.table import Row, cells, report
from benches.tokenizer import Choice

LIBRARIES = "datatrove==0.10.1 datasets==5.2.0 fastwarc==2.0.1 warcio==1.8.1 polars==2.1.0 pyarrow==26.0.1"
# What datatrove asks for where it reads JSON and makes MinHash of English; its hashes take no newer xxhash.
PACKAGES = (*LIBRARIES.split(), "orjson==3.13.0", "xxhash==3.8.2", "spacy==3.8.18")
DOCUMENT_CHARACTERS = 4096
COPIES = 4
"""How often the text stands in the inputs of the faster sides, for 200 MB out of 50."""
CHANGED = (0.0, 0.01, 0.02, 0.03, 0.05, 0.1)
"""Shares of words that planted copies have otherwise."""
ALIKE = 0.01
AGREEMENT = 0.99
"""Share of the copies with the same words, or all but one in a hundred, that both sides have to find."""
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}

CHECKED = """
import zlib
def checked(texts):
    n = crc = 0
    for text in texts:
        n, crc = n + 1, zlib.crc32(text.encode(), crc)
    return f"{n} documents, {crc:08x}"
"""

# Resident memory of all processes of a side, a page that several share counted once.
WATCHED = """
import os, re, threading
from pathlib import Path
os.setsid()
peak, ended = [0.0], threading.Event()
def resident_mb():
    sizes = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(process.name)) == os.getpid():
                sizes += re.findall(r"^Pss: +([0-9]+)", (process / "smaps_rollup").read_text(), re.MULTILINE)
        except OSError:
            continue
    return sum(map(int, sizes)) / 1000
def watch():
    while not ended.wait(0.2):
        peak[0] = max(peak[0], resident_mb())
threading.Thread(target=watch, daemon=True).start()
"""


@dataclass(frozen=True)
class Forms:
    """One text as documents of 4 KB, in each form, written when first asked for."""

    setting: Setting
    notes: list[str] = field(default_factory=list)
    """What is to be said below the table."""

    @property
    def folder(self) -> Path:
        return self.setting.folder

    @cached_property
    def documents(self) -> list[str]:
        text = self.setting.texts[0].beginning.read_bytes().decode("utf-8")
        return [part for book in text.split(SEPARATOR) for part in _parts(book)]

    @cached_property
    def mb(self) -> float:
        """Of the documents' text."""
        return sum(len(document.encode()) for document in self.documents) / 1e6

    @cached_property
    def jsonl(self) -> Path:
        """In two files, for a peer that gives a file to a process."""
        return self._jsonl("jsonl", self.documents)

    @cached_property
    def wet(self) -> Path:
        """A member of gzip for each record, as in Common Crawl."""
        place = self.folder / "text.warc.wet.gz"
        raw = b"".join(gzip.compress(_conversion(i, text), 6, mtime=0) for i, text in enumerate(self.documents))
        place.write_bytes(raw * COPIES)
        return place

    @cached_property
    def table(self) -> Path:
        place = self.folder / "text.csv"
        with place.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "text"])
            writer.writerows((i, text) for _ in range(COPIES) for i, text in enumerate(self.documents))
        return place

    @cached_property
    def planted(self) -> list[tuple[int, float]]:
        """Of the copies that stand behind the documents: number of the original, share of words that are others."""
        return [(at, CHANGED[i % len(CHANGED)]) for i, at in enumerate(range(5, len(self.documents), 10))]

    @cached_property
    def doubled(self) -> Path:
        """The documents, and of every tenth a copy with other words here and there."""
        rng = random.Random(0)
        copies = [_changed(self.documents[at], share, rng) for at, share in self.planted]
        return self._jsonl("doubled", self.documents + copies)

    def _jsonl(self, name: str, documents: Sequence[str]) -> Path:
        place = self.folder / name
        place.mkdir()
        half = len(documents) // 2
        for file, numbers in enumerate([range(half), range(half, len(documents))]):
            rows = (json.dumps({"id": str(i), "text": documents[i]}, ensure_ascii=False) for i in numbers)
            (place / f"{file}.jsonl").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
        return place


def j1(forms: Forms) -> Iterator[Row]:
    """JSON lines to shards, against datatrove's reader and writer of tokens."""
    place, vocabulary = forms.folder / "datatrove", str(forms.setting.tokenizer / "tokenizer.json")
    code = f"""{WATCHED}
import shutil
import numpy as np
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer
from benches.answers import digest
place = Path({str(place)!r})
shutil.rmtree(place, ignore_errors=True)
steps = [
    JsonlReader({str(forms.jsonl)!r}),
    DocumentTokenizer(
        str(place / "tokens"), {vocabulary!r}, eos_token="<|endoftext|>", shuffle_documents=False
    ),
]
with clock() as took:
    LocalPipelineExecutor(
        steps, tasks={THREADS}, workers={THREADS}, logging_dir=str(place / "logs"), start_method="fork"
    ).run()
ended.set()
took.rss_mb = peak[0]
files = sorted((place / "tokens").glob("*.ds"))
answer = digest(np.concatenate([np.fromfile(file, "<u2") for file in files]))
"""
    environment = {"TOKENIZERS_PARALLELISM": "false"}
    side = Side(name="datatrove", code=code, python=forms.setting.peers, environment=environment)
    yield from _shards(forms, "J1", side)


def j2(forms: Forms) -> Iterator[Row]:
    """The same, against datasets and tokenizers."""
    place = forms.folder / "datasets"
    code = f"""
import shutil
import numpy as np
from datasets import Features, List, Value, disable_progress_bars, load_dataset
from benches.answers import digest
from pathlib import Path
disable_progress_bars()
place = Path({str(place)!r})
shutil.rmtree(place, ignore_errors=True)
end = tokenizer.token_to_id("<|endoftext|>")
def ids(batch):
    return {{"ids": [np.array([*row.ids, end], dtype=np.uint16) for row in tokenizer.encode_batch_fast(batch["text"])]}}
with clock() as took:
    files = sorted(map(str, Path({str(forms.jsonl)!r}).iterdir()))
    rows = load_dataset("json", data_files=files, split="train", cache_dir=str(place / "cache"))
    how = {{"remove_columns": rows.column_names, "features": Features(ids=List(Value("uint16")))}}
    rows = rows.map(ids, batched=True, **how)
    with open(place / "tokens.bin", "wb") as file:
        for batch in rows.with_format("arrow").iter(1000):
            batch["ids"].combine_chunks().flatten().to_numpy().tofile(file)
answer = digest(np.fromfile(place / "tokens.bin", "<u2"))
"""
    side = forms.setting.tokenizers(code, door="under datasets.map")
    side = Side(name=side.name, code=side.code, python=side.python, environment={**side.environment, **OFFLINE})
    yield from _shards(forms, "J2", side)


def _shards(forms: Forms, id: str, side: Side) -> Iterator[Row]:
    ours = _to_shards(forms, f"{str(forms.jsonl)!r}", "answer = digest(ids)")
    runs = race("jsonl to shards", [ours, side], rounds=forms.setting.rounds)
    yield Row(id=id, task="jsonl to shards", ours=runs[0], peer=runs[1], amount=forms.mb, target=20)


def _to_shards(forms: Forms, source: str, answer: str) -> Side:
    return forms.setting.ours(f"""
import shutil, zlib
from pathlib import Path
import numpy as np
from benches.answers import digest
from tinygpt import Corpus
place = Path({str(forms.folder / "shards")!r})
shutil.rmtree(place, ignore_errors=True)
source = {source}
with clock() as took:
    manifest = tokenizer.write_shards(source, place, val_fraction=0, threads={THREADS})
ids = np.concatenate([np.fromfile(place / shard.file, "<u2", offset=1024) for shard in manifest.splits["train"]])
{answer}
""")


def w1(forms: Forms) -> Iterator[Row]:
    """WET to documents, against fastwarc."""
    yield from _wet(forms, "W1", "fastwarc", FASTWARC, 1)


def w2(forms: Forms) -> Iterator[Row]:
    """The same, against warcio."""
    yield from _wet(forms, "W2", "warcio", WARCIO, 10)


FASTWARC = """
from fastwarc.warc import ArchiveIterator, WarcRecordType
def documents(path):
    for record in ArchiveIterator(path, WarcRecordType.conversion, parse_http=False, fsspec_args=False):
        yield record.reader.read().decode()
"""
WARCIO = """
from warcio.archiveiterator import ArchiveIterator
def documents(path):
    with open(path, "rb") as file:
        for record in ArchiveIterator(file):
            if record.rec_type == "conversion":
                yield record.content_stream().read().decode()
"""


def _wet(forms: Forms, id: str, name: str, documents: str, target: float) -> Iterator[Row]:
    code = f"""{CHECKED}
with clock() as took:
    characters = sum(map(len, documents({str(forms.wet)!r})))
answer = f"{{characters}} characters in {{checked(documents({str(forms.wet)!r}))}}"
"""
    sides = [
        Side(name="tinygpt", code=f"from tinygpt import Corpus as documents\n{code}"),
        forms.setting.peer(name, documents + code),
    ]
    runs = race("WET.gz to documents", sides, rounds=forms.setting.rounds)
    task, mb = "WET.gz to documents", COPIES * forms.mb
    yield Row(id=id, task=task, ours=runs[0], peer=runs[1], amount=mb, target=target)


TEXT_OF_SHARDS = """
ends = ids == tokenizer.eot_id
answer = f"{ends.sum()} documents, {zlib.crc32(tokenizer.decode_bytes(ids[~ends])):08x}"
"""


def c1(forms: Forms) -> Iterator[Row]:
    """A column of a table to shards, against reading that column alone."""
    sides = [_to_shards(forms, f"Corpus({str(forms.table)!r}, text_field='text')", TEXT_OF_SHARDS)]
    for name, read in READERS.items():
        code = f"{CHECKED}{read}path = {str(forms.table)!r}\nwith clock() as took:\n    column = read(path)\n"
        sides.append(forms.setting.peer(name, code + "answer = checked(rows(column))"))
    ours, *others = race("csv", sides, rounds=forms.setting.rounds)
    for peer in others:
        value, task = ours.seconds / peer.seconds, "csv to shards, to reading alone"
        mb = COPIES * forms.mb
        yield Row(id="C1", task=task, ours=ours, peer=peer, amount=mb, target=2, kind="times as long", value=value)


READERS = {
    "pyarrow.csv": """
import pyarrow.csv as arrow
def read(path):
    parsing, converting = arrow.ParseOptions(newlines_in_values=True), arrow.ConvertOptions(include_columns=["text"])
    return arrow.read_csv(path, parse_options=parsing, convert_options=converting)["text"]
def rows(column):
    return (text for chunk in column.chunks for text in chunk.to_pylist())
""",
    "polars": """
import polars
def read(path):
    return polars.read_csv(path, columns=["text"])["text"]
def rows(column):
    return iter(column)
""",
}


def d1(forms: Forms) -> Iterator[Row]:
    """Near duplicates found, against datatrove's MinHash, whose last step, that writes what is left, is not counted."""
    place = forms.folder / "minhash"
    ours = f"""
from tinygpt import Corpus
corpus = Corpus({str(forms.doubled)!r}, dedup="near", threads={THREADS})
with clock() as took:
    verdicts = corpus.judge()
answer = [i for i in range({len(forms.documents) + len(forms.planted)}) if verdicts.is_removed(i)]
"""
    theirs = f"""{WATCHED}
import shutil
import numpy as np
import spacy
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.readers import JsonlReader
place, config = {str(place)!r}, MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8)
shutil.rmtree(place, ignore_errors=True)
def stage(name, steps, tasks):
    how = {{"tasks": tasks, "workers": min(tasks, {THREADS}), "logging_dir": f"{{place}}/logs-{{name}}"}}
    LocalPipelineExecutor(steps, **how, start_method="fork").run()
with clock() as took:
    stage(1, [JsonlReader({str(forms.doubled)!r}), MinhashDedupSignature(f"{{place}}/1", config)], {THREADS})
    stage(2, [MinhashDedupBuckets(f"{{place}}/1", f"{{place}}/2", config=config, lines_to_buffer=-1)], 14)
    stage(3, [MinhashDedupCluster(f"{{place}}/2", f"{{place}}/3", config, lines_to_buffer=-1)], 1)
ended.set()
took.rss_mb = peak[0]
firsts = [0, {(len(forms.documents) + len(forms.planted)) // 2}]
files = sorted(Path(f"{{place}}/3").glob("*.remove"))
answer = sorted(int(i) + firsts[int(file.stem)] for file in files for i in np.fromfile(file, "<u4"))
"""
    sides = [Side(name="tinygpt", code=ours), forms.setting.peer("datatrove MinHash", theirs)]
    runs = race("near duplicates", sides, rounds=forms.setting.rounds, check=False)
    forms.notes.extend(_agreement(forms, *runs))
    mb = sum(path.stat().st_size for path in forms.doubled.iterdir()) / 1e6
    yield Row(id="D1", task="near duplicates of jsonl", ours=runs[0], peer=runs[1], amount=mb, target=5)


def _agreement(forms: Forms, *runs: Run) -> list[str]:
    """How often both remove the same; raises AssertionError where one misses what is too alike to be missed."""
    ours, peer = removed = [set(run.answer) for run in runs]  # type: ignore[call-overload]
    both, either = ours & peer, ours | peer
    counts = ", ".join(f"{run.name} {len(numbers):,}" for run, numbers in zip(runs, removed, strict=True))
    lines = [f"D1: near duplicates removed: {counts}; {len(both):,} by both, {len(both) / len(either):.1%} of all"]
    for share in CHANGED:
        copies = {len(forms.documents) + i for i, (_, changed) in enumerate(forms.planted) if changed == share}
        found = [len(copies & numbers) / len(copies) for numbers in (ours, peer, both)]
        said = "{:.1%} by ours, {:.1%} by the peer, {:.1%} by both".format(*found)
        lines.append(f"D1: copies with {share:.0%} other words, {len(copies)}: found {said}")
        assert share > ALIKE or found[-1] >= AGREEMENT, lines
    return lines


ROWS: dict[str, Callable[[Forms], Iterator[Row]]] = {"J1": j1, "J2": j2, "W1": w1, "W2": w2, "C1": c1, "D1": d1}


def main(choice: Choice) -> None:
    """Runs the rows on the first of the texts and writes `benches/results/sources.json`."""
    python = choice.peers or _interpreter()
    with tempfile.TemporaryDirectory(prefix="tinygpt-bench-") as name:
        folder = Path(name)
        text = texts(folder, choice.corpora)[0]
        ranks = gpt2_ranks() or _trained_ranks(text, folder / "trained.tiktoken")
        setting = Setting(folder=folder, texts=(text,), ranks=ranks, rounds=choice.rounds, peers=python)
        forms, rows = Forms(setting), list[Row]()
        print(f"{text.name}: {len(forms.documents):,} documents, {forms.mb:.0f} MB", flush=True)
        for id in choice.rows:
            for row in ROWS[id](forms):
                rows.append(row)
                print("  ".join(filter(None, cells(row))), flush=True)
        report("sources" if set(choice.rows) == set(ROWS) else "sources-part", rows, python=python, notes=forms.notes)


def _interpreter() -> str:
    """The Python of the peers of the tokenizer, which gets these besides."""
    python = peers.interpreter()
    stamp = peers.FOLDER / "installed-sources"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != " ".join(PACKAGES):
        print(f"installing {', '.join(PACKAGES)} into {peers.FOLDER}", flush=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        stamp.write_text(" ".join(PACKAGES), encoding="utf-8")
    return python


def _trained_ranks(text: Text, place: Path) -> Path:
    """A vocabulary learnt from the text, where the samples have none."""
    Tokenizer.train(text.path, vocab_size=VOCAB_SIZE).save(place)
    return place


def _parts(book: str) -> Iterator[str]:
    """About as many characters each, cut at line ends."""
    begin = 0
    while begin < len(book):
        end = book.find("\n", begin + DOCUMENT_CHARACTERS) + 1 or len(book)
        yield book[begin:end]
        begin = end


def _conversion(number: int, text: str) -> bytes:
    """A record as Common Crawl writes it."""
    body = text.encode()
    header = f"""WARC/1.0
WARC-Type: conversion
WARC-Target-URI: http://example.com/{number}
WARC-Date: 2024-01-01T00:00:00Z
WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-{number:012}>
WARC-Refers-To: <urn:uuid:00000000-0000-0000-0001-{number:012}>
WARC-Block-Digest: sha1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
WARC-Identified-Content-Language: eng
Content-Type: text/plain
Content-Length: {len(body)}

"""
    return header.replace("\n", "\r\n").encode() + body + b"\r\n\r\n"


def _changed(text: str, share: float, rng: random.Random) -> str:
    """The text with that share of its words put for others."""
    return "".join(
        f"w{rng.randrange(10**6)} " if word and rng.random() < share else f"{word} " for word in text.split(" ")
    )
