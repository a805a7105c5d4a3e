"""What is read from files of every form, against the libraries that own them."""

import bz2
import csv
import gzip
import hashlib
import io
import json
import lzma
import random
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from samples import sample
from tinygpt import Corpus, FormatError

PIECES = [
    "word",
    " ",
    "\n",
    '"',
    ",",
    "\\",
    "\t",
    "é",
    "字",
    "\U0001f600",
    "'",
    "{",
    "}",
    "a long run of words",
    "\r\n",
    "\x7f",
]


def hostile_texts(n: int) -> list[str]:
    """Texts with what formats stumble over; none is empty."""
    rng = random.Random(n)
    return ["".join(rng.choices(PIECES, k=rng.randrange(1, 40))) + "." for _ in range(n)]


def read(path: Path, **how: Any) -> list[str]:
    return list(Corpus(path, **how))


def as_jsonl(texts: list[str]) -> bytes:
    rows = ({"id": i, "text": text, "meta": {"n": [1, {"text": "no"}]}} for i, text in enumerate(texts))
    return "".join(json.dumps(row, ensure_ascii=i % 2 == 0) + "\n" for i, row in enumerate(rows)).encode()


def as_csv(texts: list[str], delimiter: str = ",") -> bytes:
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerow(["id", "text", "note"])
    writer.writerows([i, text, "x, y"] for i, text in enumerate(texts))
    return file.getvalue().encode()


def as_parquet(texts: list[str]) -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    file = io.BytesIO()
    parquet.write_table(pyarrow.table({"id": range(len(texts)), "text": texts}), file, row_group_size=300)
    return file.getvalue()


def as_wet(texts: list[str]) -> bytes:
    warcio = pytest.importorskip("warcio")
    file = io.BytesIO()
    writer = warcio.warcwriter.WARCWriter(file, gzip=True)
    for i, text in enumerate(texts):
        body = io.BytesIO(text.encode())
        uri = f"http://example.org/{i}"
        writer.write_record(writer.create_warc_record(uri, "conversion", payload=body, warc_content_type="text/plain"))
    return file.getvalue()


FORMS: dict[str, Callable[[list[str]], bytes]] = {
    "a.jsonl": as_jsonl,
    "a.ndjson": as_jsonl,
    "rows.json": lambda texts: json.dumps([{"text": text} for text in texts]).encode(),
    "columns.json": lambda texts: json.dumps({"id": list(range(len(texts))), "text": texts}).encode(),
    "strings.json": lambda texts: json.dumps(texts).encode(),
    "a.csv": as_csv,
    "semicolons.csv": lambda texts: as_csv(texts, ";"),
    "a.tsv": lambda texts: as_csv(texts, "\t"),
    "a.parquet": as_parquet,
    "a.warc.wet.gz": as_wet,
}


@pytest.mark.parametrize("name", FORMS)
def test_records_are_those_that_were_written(name: str, tmp_path: Path) -> None:
    texts = hostile_texts(1200)
    path = tmp_path / name
    path.write_bytes(FORMS[name](texts))
    corpus = Corpus(path)
    assert list(corpus) == texts
    assert corpus.report["bytes_read"] == corpus.report["bytes_used"] == sum(len(text.encode()) for text in texts)


def zipped(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/a.jsonl", data)
        archive.writestr("folder/picture.png", b"\0\1\2")
    return file.getvalue()


def tarred(data: bytes, mode: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:  # type: ignore[call-overload]
        entry = tarfile.TarInfo("folder/" + "long/" * 40 + "a.jsonl.gz")
        packed = gzip.compress(data)
        entry.size = len(packed)
        archive.addfile(entry, io.BytesIO(packed))
    return file.getvalue()


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "a.jsonl.gz": gzip.compress,
    "members.jsonl.gz": lambda data: gzip.compress(data[:5000]) + gzip.compress(b"") + gzip.compress(data[5000:]),
    "a.jsonl.bz2": bz2.compress,
    "a.jsonl.xz": lzma.compress,
    "streams.jsonl.xz": lambda data: lzma.compress(data[:5000]) + b"\0" * 4 + lzma.compress(data[5000:]),
    "a.jsonl.zst": zstandard.ZstdCompressor(write_checksum=True).compress,
    "frames.jsonl.zst": lambda data: zstandard.compress(data[:5000]) + zstandard.compress(data[5000:]),
    "a.zip": zipped,
    "a.tar": lambda data: tarred(data, "w"),
    "a.tar.gz": lambda data: tarred(data, "w:gz"),
    "a.tar.xz": lambda data: tarred(data, "w:xz"),
}


@pytest.mark.parametrize("name", PACKED)
def test_packed_files_hold_what_was_packed(name: str, tmp_path: Path) -> None:
    texts = hostile_texts(300)
    path = tmp_path / name
    path.write_bytes(PACKED[name](as_jsonl(texts)))
    assert read(path) == texts


@pytest.mark.parametrize("name", [name for name in PACKED if not name.startswith("a.tar")])
def test_packed_files_that_were_cut_short_are_refused(name: str, tmp_path: Path) -> None:
    whole = PACKED[name](as_jsonl(hostile_texts(40)))
    path = tmp_path / name
    for length in range(1, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:length])
        with pytest.raises(FormatError, match=name):
            read(path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.warc.wet.gz"])
def test_no_cut_gives_what_was_not_there(name: str, tmp_path: Path) -> None:
    texts = hostile_texts(6)
    whole = FORMS[name](texts)
    path = tmp_path / name
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        try:
            found = read(path)
        except ValueError:
            continue
        assert found[:-1] == texts[: max(0, len(found) - 1)]


def test_utf16_and_marks_are_read(tmp_path: Path) -> None:
    for encoding in ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"):
        mark = {"utf-16-le": "\ufeff", "utf-16-be": "\ufeff"}.get(encoding, "")
        (tmp_path / "a.txt").write_bytes((mark + "Größe 字 \U0001f600").encode(encoding))
        assert read(tmp_path / "a.txt") == ["Größe 字 \U0001f600"]


def test_documents_are_files_lines_or_paragraphs(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n\n \nthree\n---\nfour")
    assert read(path) == ["one\ntwo\n\n \nthree\n---\nfour"]
    assert read(path, separator="---") == ["one\ntwo\n\n \nthree\n", "four"]
    assert read(path, documents="line") == ["one", "two", " ", "three", "---", "four"]
    assert read(path, documents="blank") == ["one\ntwo", "three\n---\nfour"]


def test_paths_may_be_globs_and_lists(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt", "c.md", "deep/d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    listed = tmp_path / "list"
    listed.write_text(f"# these\n{tmp_path}/c.md\n\n{tmp_path}/a.txt\n")
    assert read(tmp_path / "*.txt") == ["a.txt", "b.txt"]
    assert read(tmp_path / "**/*.txt") == ["a.txt", "b.txt", "deep/d.txt"]
    assert list(Corpus(f"@{listed}")) == ["c.md", "a.txt"]


def test_data_beside_text_is_left_out_and_told(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("print(1)")
    (tmp_path / "package.json").write_text("{}")
    (tmp_path / "b.txt").write_bytes(b"ab\0cd")
    corpus = Corpus(tmp_path)
    assert list(corpus) == ["print(1)"]
    assert [path.name for path, _ in corpus.skipped] == ["b.txt", "package.json"]


@pytest.mark.parametrize(
    ("name", "content", "how", "message"),
    [
        ("a.jsonl", b'{"title": "x"}\n', {}, r'"title".*--text-field'),
        ("a.jsonl", b'{"text": "x"}\n{"text": 1}\n', {}, r"line 2 \(byte 14\)"),
        ("a.csv", b"id,text\n1,2,3\n", {}, r"--malformed skip"),
        ("a.csv", b"id,name\n1,2\n", {"text_field": "text"}, r"text"),
        ("a.wet", b"WARC/1.0\r\nWARC-Type: conversion\r\n\r\n", {}, r"record 1"),
        ("a.parquet", b"PAR1 and nothing", {}, r"a\.parquet"),
        ("a.zip", b"PK\3\4", {}, r"a\.zip"),
        ("a.txt", b"ab\0cd", {}, r"zero byte at offset 2"),
    ],
)
def test_faults_are_named(name: str, content: bytes, how: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read(path, **how)
    assert [name in str(caught.value), "\n" in str(caught.value)] == [True, False]


def test_records_that_cannot_be_used_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n{"text": null}\nnot json\n{"text": "b"}\n')
    corpus = Corpus(path, malformed="skip")
    assert list(corpus) == ["a", "b"]
    assert corpus.report["refused"][0] == 2


def test_special_files_are_refused(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe: not a regular file"):
        Corpus(tmp_path / "pipe")
    (tmp_path / "link.txt").symlink_to("nowhere")
    with pytest.raises(FileNotFoundError, match=r"link\.txt"):
        Corpus(tmp_path / "link.txt")


def digest(texts: list[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def test_shared_samples_hold_the_documents_that_their_owners_find() -> None:
    expected = json.loads(sample("expected_csv_jsonl.json").read_text())
    found = {
        "csv": read(sample("csv/sms_a.csv"), text_field="masseges"),
        "jsonl": read(sample("jsonl/cc_en_head-0174.jsonl")),
    }
    for kind, texts in found.items():
        facts = expected[kind]
        count = facts.get("records", facts.get("documents"))
        assert (len(texts), digest(texts)) == (count, facts["sha256_of_texts_joined_by_nul"]), kind
    records = json.loads(sample("wet/expected.json").read_text())
    texts = read(sample("wet/whirlwind.warc.wet.gz"))
    assert texts == read(sample("wet/whirlwind.warc.wet"))
    assert json.dumps(records).count(hashlib.sha256(texts[0].encode()).hexdigest()) == 1


def test_gutenberg_leaves_the_body() -> None:
    for name, facts in _books():
        (text,) = read(sample(f"gutenberg/{name}"), clean=["gutenberg", "newlines"])
        lines = [line for line in text.split("\n") if line.strip()]
        assert (lines[0], lines[-1]) == (facts["body_first_text"], facts["body_last_text"])


def _books() -> Iterator[tuple[str, dict[str, Any]]]:
    found = json.loads(sample("gutenberg/expected.json").read_text())
    for facts in found if isinstance(found, list) else found.values():
        yield Path(facts["file"]).name, facts
