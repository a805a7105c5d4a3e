import bz2
import csv
import gzip
import io
import json
import lzma
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import assigned_texts
from shard_writer import write_folder
from tinygpt import Corpus, TokenDataset, Tokenizer, show
from tinygpt._core import FormatError, xxh3_file
from tinygpt.tracing import Origin, ends_of, origin_of, text_of

TEXTS = ["one\ntwo\n", "three\n"]


def add_maps(folder: Path, origins: list[tuple[int, int, int]], sources: list[Path] | None) -> None:
    """Gives the shards of train their `.map`, entry after entry, and the manifest its sources."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for shard in manifest["splits"]["train"]:
        mine, origins = origins[: shard["documents"]], origins[shard["documents"] :]
        path = (folder / shard["file"]).with_suffix(".map")
        path.write_bytes(np.array(mine, "<u8").tobytes())
        shard["map_xxh3"] = xxh3_file(str(path))
    if sources is not None:
        facts = [(path, path.stat().st_size, xxh3_file(str(path))) for path in sources]
        listed = [{"path": str(path), "bytes": size, "xxh3": xxh3, "documents": 1} for path, size, xxh3 in facts]
        manifest["corpus"] = {"sources": listed}
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three documents of two files, the second of them over two shards."""
    sources = [tmp_path / "a.txt", tmp_path / "b.txt"]
    for path, text in zip(sources, TEXTS, strict=True):
        path.write_text(text)
    folder = write_folder(tmp_path / "data", {"train": [[[1, 2, 999], [3, 4]], [[5, 999], [6, 999]]]})
    # The first shard's last tokens go on in the second.
    patch_index(folder)
    add_maps(folder, [(0, 0, 3), (0, 4, 7), (1, 0, 5)], sources)
    return folder


def patch_index(folder: Path) -> None:
    """Takes the second end out of the first shard: its document goes on."""
    index, shard = folder / "train_000000.idx", folder / "train_000000.bin"
    index.write_bytes(index.read_bytes()[:8])
    raw = bytearray(shard.read_bytes())
    raw[32:40] = (1).to_bytes(8, "little")
    shard.write_bytes(raw)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["splits"]["train"][0].update(documents=1, xxh3=xxh3_file(str(shard)), idx_xxh3=xxh3_file(str(index)))
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_every_token_leads_back_to_its_record(folder: Path) -> None:
    found = [origin_of(folder, "train", position) for position in range(9)]
    assert [origin.document for origin in found] == [0, 0, 0, 1, 1, 1, 1, 2, 2]
    assert [text_of(origin) for origin in found] == ["one"] * 3 + ["two"] * 4 + ["three"] * 2
    assert found[7].path == str(folder.parent / "b.txt")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=5), max_size=4), min_size=1, max_size=4))
def test_documents_are_numbered_over_all_shards(
    tmp_path_factory: pytest.TempPathFactory, shards: list[list[list[int]]]
) -> None:
    folder = write_folder(tmp_path_factory.mktemp("data"), {"train": shards})
    documents = [document for shard in shards for document in shard]
    add_maps(folder, [(0, number, number + 1) for number in range(len(documents))], None)
    wanted = [number for number, document in enumerate(documents) for _ in document]
    found = [origin_of(folder, "train", position) for position in range(len(wanted))]
    assert found == [Origin(path=None, start=number, end=number + 1, document=number) for number in wanted]


@pytest.mark.parametrize(
    ("split", "position", "message"),
    [
        ("test", 0, "has no split 'test'; it has train"),
        ("train", 9, r"\(train\) has tokens 0 to 8, got 9"),
        ("train", -1, r"has tokens 0 to 8, got -1"),
    ],
)
def test_a_place_that_is_not_there_is_refused(folder: Path, split: str, position: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        origin_of(folder, split, position)


def test_a_folder_without_origins_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "data", {"train": [[[1, 999]]]})
    with pytest.raises(FormatError, match=r"data: no origins, which older versions did not write"):
        origin_of(folder, "train", 0)


def test_a_map_of_another_length_is_refused(folder: Path) -> None:
    (folder / "train_000000.map").write_bytes(bytes(23))
    with pytest.raises(FormatError, match=r"000.map: 23 bytes, but manifest.json promises 1 documents \(24 bytes\)"):
        origin_of(folder, "train", 0)


def test_a_file_number_without_a_source_is_refused(folder: Path) -> None:
    (folder / "train_000000.map").write_bytes(np.array([7, 0, 3], "<u8").tobytes())
    with pytest.raises(FormatError, match=r"file 7, but manifest.json lists 2"):
        origin_of(folder, "train", 0)


def test_text_that_cannot_be_shown_is_refused(folder: Path, tmp_path: Path) -> None:
    origin = origin_of(folder, "train", 0)
    (tmp_path / "a.txt").write_text("changed")
    with pytest.raises(ValueError, match=r"a\.txt: 7 bytes, but 8 when it was read"):
        text_of(origin)
    with pytest.raises(
        FileNotFoundError, match=r"gone/a\.txt: no such file; go to the folder that it was prepared from"
    ):
        text_of(Origin(path="gone/a.txt", start=3, end=9, document=0))
    with pytest.raises(ValueError, match="document 4 came from standard input, which is gone"):
        text_of(Origin(path="-", start=3, end=9, document=4))
    with pytest.raises(ValueError, match="document 4 came from a program"):
        text_of(Origin(path=None, start=4, end=5, document=4))


def test_a_folder_that_noted_numbers_for_places_is_refused(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    for source in manifest["corpus"]["sources"]:
        source["documents"] = 0
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(
        FormatError, match=r"data: no origins, which older versions did not write; write the shards again"
    ):
        origin_of(folder, "train", 0)


LINES = [f"{i}: größer als 終わり " + "so " * (i % 7) + "it goes" for i in range(400)]
TEXT = "".join(line + "\n" for line in LINES)


def in_zip(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def in_tar(members: dict[str, bytes], mode: str = "w") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return file.getvalue()


def as_parquet(lines: list[str]) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": lines}), file, row_group_size=70)
    return file.getvalue()


def as_csv(lines: list[str]) -> bytes:
    file = io.StringIO()
    csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["text"], *([line] for line in lines)])
    return file.getvalue().encode()


HALVES = [TEXT.encode()[: (half := len("".join(line + "\n" for line in LINES[:150]).encode()))], TEXT.encode()[half:]]
UTF16 = [part.decode().encode("utf-16") for part in HALVES]
MEMBERS = {
    "a/0.txt": HALVES[0],
    "picture.png": b"\0" * 5000,
    "b.bin.txt": b"a\0b" * 99,
    "c.txt.gz": gzip.compress(HALVES[1]),
}
FILES: dict[str, tuple[bytes, Callable[[str], str]]] = {
    "a.txt": (TEXT.encode(), str),
    "marked.txt": (b"\xef\xbb\xbf" + TEXT.encode(), str),
    "wide.txt": (TEXT.encode("utf-16"), str),
    "a.txt.gz": (gzip.compress(TEXT.encode()), str),
    "named-otherwise.txt": (gzip.compress(TEXT.encode()), str),
    "members.txt.gz": (gzip.compress(HALVES[0]) + gzip.compress(HALVES[1]), str),
    "a.txt.bz2": (bz2.compress(TEXT.encode()), str),
    "a.txt.xz": (lzma.compress(TEXT.encode()), str),
    "a.txt.zst": (zstandard.compress(TEXT.encode()), str),
    "wide.txt.gz": (gzip.compress(TEXT.encode("utf-16")), str),
    "a.zip": (in_zip(MEMBERS), str),
    "a.tar": (in_tar(MEMBERS), str),
    "a.tgz": (in_tar(MEMBERS, "w:gz"), str),
    "wide.tar": (in_tar({f"{i}.txt": part for i, part in enumerate(UTF16)}), str),
    "a.jsonl.gz": (
        gzip.compress("".join(json.dumps({"text": line}) + "\n" for line in LINES).encode()),
        lambda record: str(json.loads(record)["text"]),
    ),
    "a.csv.zst": (zstandard.compress(as_csv(LINES)), lambda record: next(csv.reader([record]))[0]),
    "a.parquet": (as_parquet(LINES), str),
}


@pytest.mark.parametrize("name", FILES)
def test_every_document_is_shown_however_its_file_is_packed(tmp_path: Path, name: str) -> None:
    packed, text_in = FILES[name]
    (tmp_path / name).write_bytes(packed)
    tokenizer = Tokenizer.train([TEXT], vocab_size=400)
    tokenizer.write_shards(Corpus(tmp_path / name, documents="line"), tmp_path / "data", val_fraction=0.0)
    data = TokenDataset(tmp_path / "data", "train", block_size=8)
    ids = data.tokens_at(0, data.n_tokens)
    starts = [0, *(np.flatnonzero(ids == tokenizer.eot_id)[:-1] + 1).tolist()]
    found = [text_in(text_of(origin_of(tmp_path / "data", "train", start))) for start in starts]
    assert found == LINES


def test_what_was_said_of_a_file_serves_to_show_it(tmp_path: Path) -> None:
    table = pyarrow.table({"text": ["no", "nor this"], "poem": ["one rose", "two roses"]})
    pyarrow.parquet.write_table(table, tmp_path / "poems")
    tokenizer = Tokenizer.train(["one rose"], vocab_size=257)
    corpus = Corpus(tmp_path / "poems", format="parquet", text_field="poem")
    tokenizer.write_shards(corpus, tmp_path / "data", val_fraction=0.0)
    origin = origin_of(tmp_path / "data", "train", 9)
    assert (text_of(origin), str(origin)) == (
        "two roses",
        f"{tmp_path / 'poems'}, row 1 to 2 (document 1 of the split)",
    )
    assert str(Origin(path="a.PARQUET", start=1, end=2, document=0)).startswith("a.PARQUET, row 1 to 2")
    assert str(Origin(path="a.parquet", start=1, end=2, document=0, format="text")).startswith(
        "a.parquet, bytes 1 to 2"
    )
    assert str(Origin(path="-", start=1, end=2, document=0)).startswith("standard input, bytes 1 to 2")


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
@settings(max_examples=30, deadline=None)
@given(text=assigned_texts.filter(bool), most_bytes=st.integers(1, 40))
def test_both_ends_of_a_record_are_whole_characters_of_it(
    tmp_path_factory: pytest.TempPathFactory, name: str, text: str, most_bytes: int
) -> None:
    path = tmp_path_factory.mktemp("text") / name
    raw = b"before" + text.encode() + b"behind"
    path.write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
    origin = Origin(path=str(path), start=6, end=len(raw) - 6, document=0)
    head, between, tail = ends_of(origin, most_bytes=most_bytes)
    assert (head + text[len(head) : len(text) - len(tail)] + tail, text_of(origin)) == (text, text)
    assert between == len(text.encode()) - len(head.encode()) - len(tail.encode())
    assert between == 0 or len(head.encode()) > most_bytes - 4 < len(tail.encode()) + 1


def test_a_file_that_is_not_the_one_that_was_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"short"))
    for start, end in [(3, 9), (90, 99)]:
        with pytest.raises(
            FormatError, match=rf"a\.txt\.gz: nothing at {start} to {end}; it is not the file that was read"
        ):
            text_of(Origin(path=str(path), start=start, end=end, document=0))


PEAK = """
import resource, sys
from tinygpt.tracing import Origin, ends_of
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
head, between, tail = ends_of(Origin(path=sys.argv[1], start=10, end=300_000_000, document=0), most_bytes=200)
assert between == 300_000_000 - 10 - 400, between
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_memory_does_not_grow_with_what_is_packed(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"word " * 200_000) * 300)
    line = [sys.executable, "-c", PEAK, str(tmp_path / "a.txt.gz")]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 40 * 10**6


def test_the_command_shows_the_text_of_a_packed_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"one rose\n" + b"two " * 200 + b"roses\n"))
    tokenizer = Tokenizer.train(["one two rose"], vocab_size=260)
    corpus = Corpus(tmp_path / "a.txt.gz", documents="line")
    tokenizer.write_shards(corpus, tmp_path / "data", val_fraction=0.0)
    for position in (0, 100):
        assert show.main([str(tmp_path / "data"), "--at", f"train:{position}"]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("record")]
    assert said[0] == "record     'one rose'"
    assert said[1] == f"record     {'two ' * 50!r} [405 bytes] {'wo ' + 'two ' * 48 + 'roses'!r}"
