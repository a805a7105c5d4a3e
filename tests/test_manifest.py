import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tinygpt._core import FormatError, xxh3_file
from tinygpt.manifest import Manifest, Shard

FINGERPRINT = "0123456789abcdef" * 4


def write_bin(path: Path, tokens: list[int], **words: int) -> None:
    """A uint16 shard of ours, byte by byte; `words` overrides one of them by its position, as w2=5."""
    header = np.zeros(256, "<i4")
    header[:8] = 20240520, 1, len(tokens), int.from_bytes(b"tGPT", "little"), 1, 8, 300, 256
    header[8:12] = np.array([2, 11], "<u8").view("<i4")
    header[12:16] = np.frombuffer(bytes.fromhex(FINGERPRINT[:32]), "<i4")
    for word, value in words.items():
        header[int(word[1:])] = value
    path.write_bytes(header.tobytes() + np.array(tokens, "<u2").tobytes())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five tokens, two documents, eleven bytes of text, and the manifest that says so."""
    shard = tmp_path / "train_000000.bin"
    write_bin(shard, [1, 2, 256, 3, 256])
    shard.with_suffix(".idx").write_bytes(struct.pack("<2Q", 3, 5))
    sums: dict[str, Any] = {"xxh3": xxh3_file(str(shard)), "idx_xxh3": xxh3_file(str(shard.with_suffix(".idx")))}
    split = {"train": (Shard(file=shard.name, tokens=5, documents=2, bytes=11, **sums),), "val": ()}
    Manifest(vocab_size=300, eot_id=256, dtype="uint16", fingerprint=FINGERPRINT, splits=split).save(tmp_path)
    return tmp_path


def test_saved_manifest_loads_equal_and_its_shards_check(folder: Path) -> None:
    manifest = Manifest.load(folder)
    manifest.check(folder, verify=True)
    (folder / "copy").mkdir()
    manifest.save(folder / "copy")
    assert Manifest.load(folder / "copy") == manifest
    assert manifest.splits["train"][0].tokens == 5


def test_manifest_on_disk_has_the_documented_fields(folder: Path) -> None:
    found = json.loads((folder / "manifest.json").read_text())
    assert list(found) == [
        *("format", "version", "vocab_size", "eot_id", "dtype", "fingerprint", "val_fraction", "shard_tokens"),
        *("split", "tail_of", "shuffle", "part", "corpus", "report", "training", "splits"),
    ]
    assert list(found["splits"]["train"][0]) == ["file", "tokens", "documents", "bytes", "xxh3", "idx_xxh3"]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("format", "tar", 'format is not "tinygpt-shards"'),
        ("version", 2, "version 2, but this tinygpt reads 1"),
        ("vocab_size", 0, "vocab_size must be"),
        ("vocab_size", "300", "vocab_size must be"),
        ("vocab_size", True, "vocab_size must be"),
        ("vocab_size", 70000, "dtype must be uint32"),
        ("eot_id", 300, "eot_id must be"),
        ("dtype", "uint8", "dtype must be"),
        ("fingerprint", "abc", "fingerprint must be"),
        ("val_fraction", 1.5, "val_fraction must be"),
        ("shard_tokens", -1, "shard_tokens must be"),
        ("split", "first", "split must be hash or last"),
        ("tail_of", "test", "tail_of must be"),
        ("shuffle", -1, "shuffle must be"),
        ("part", 3, "part must be"),
        ("part", [3, 3], "part must be"),
        ("part", [0, 1, 2], "part must be"),
        ("corpus", [], "corpus must be"),
        ("report", None, "report must be"),
        ("training", 3, "training must be"),
        ("splits", None, "splits must be"),
        ("splits", {"train": {}}, "splits must be"),
        ("splits", {"train": [3]}, "splits.train: a shard must be an object"),
        ("splits", {"train": [{"file": "a.bin"}]}, "splits.train: field tokens is missing"),
        ("colour", "red", "unknown field colour"),
    ],
)
def test_wrong_field_is_named_with_the_file(folder: Path, field: str, value: Any, message: str) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(FormatError, match=f"manifest.json: {message}"):
        Manifest.load(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("file", "../a.bin"),
        ("file", "a.txt"),
        ("tokens", -1),
        ("documents", 1.5),
        ("bytes", None),
        ("xxh3", "F" * 16),
        ("map_xxh3", 5),
    ],
)
def test_wrong_field_of_a_shard_is_named(folder: Path, field: str, value: Any) -> None:
    path = folder / "manifest.json"
    found = json.loads(path.read_text())
    found["splits"]["train"][0][field] = value
    path.write_text(json.dumps(found))
    with pytest.raises(FormatError, match=rf"manifest.json: splits.train: {field} must be"):
        Manifest.load(folder)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "[" * 100_000, "\x00"])
def test_manifest_that_is_no_json_object_is_refused(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(FormatError, match=r"manifest\.json: "):
        Manifest.load(folder)


def test_missing_field_is_named(folder: Path) -> None:
    path = folder / "manifest.json"
    found = json.loads(path.read_text())
    del found["vocab_size"]
    path.write_text(json.dumps(found))
    with pytest.raises(FormatError, match="field vocab_size is missing"):
        Manifest.load(folder)


def test_folder_without_manifest_is_called_unfinished(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="not finished or not prepared"):
        Manifest.load(tmp_path)
    with pytest.raises(FormatError, match="nowhere is no folder"):
        Manifest.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"w0": 7}, "starts with 7, 1, no shard's magic"),
        ({"w1": 3}, "starts with 20240520, 3, no shard's magic"),
        ({"w2": 6}, r"1034 bytes, but its header promises 6 tokens \(1036 bytes\)"),
        ({"w2": -1}, "1034 bytes, but its header promises -1 tokens"),
        ({"w3": 0}, "header says vocab_size None, but manifest.json says 300"),
        ({"w4": 2}, "header version 2"),
        ({"w6": 301}, "header says vocab_size 301, but manifest.json says 300"),
        ({"w7": -1}, "header says eot_id None, but manifest.json says 256"),
        ({"w8": 3}, "header says n_documents 3, but manifest.json says 2"),
        ({"w10": 9}, "header says n_bytes 9, but manifest.json says 11"),
        ({"w12": 0}, "header says fingerprint 00000000"),
    ],
)
def test_header_that_disagrees_is_refused(folder: Path, words: dict[str, int], message: str) -> None:
    write_bin(folder / "train_000000.bin", [1, 2, 256, 3, 256], **words)
    with pytest.raises(FormatError, match=f"train_000000.bin: {message}"):
        Manifest.load(folder).check(folder)


def test_changed_byte_is_found_by_verify_alone(folder: Path) -> None:
    write_bin(folder / "train_000000.bin", [1, 2, 256, 4, 256])
    Manifest.load(folder).check(folder)
    with pytest.raises(FormatError, match=r"train_000000.bin: xxh3 [0-9a-f]{16}, but manifest.json says"):
        Manifest.load(folder).check(folder, verify=True)


def test_short_index_is_refused(folder: Path) -> None:
    (folder / "train_000000.idx").write_bytes(bytes(8))
    with pytest.raises(FormatError, match=r"000.idx: 8 bytes, but manifest.json promises 2 documents \(16 bytes\)"):
        Manifest.load(folder).check(folder)


def with_origins(folder: Path) -> Path:
    """The folder with a `.map` for its two documents; returned is that file."""
    path, manifest = folder / "train_000000.map", folder / "manifest.json"
    path.write_bytes(struct.pack("<6Q", 0, 0, 5, 0, 6, 11))
    found = json.loads(manifest.read_text())
    found["splits"]["train"][0]["map_xxh3"] = xxh3_file(str(path))
    manifest.write_text(json.dumps(found | {"part": [1, 3], "shuffle": 7, "split": "last", "tail_of": "train"}))
    return path


def test_origins_and_what_was_asked_for_come_back(folder: Path) -> None:
    with_origins(folder)
    manifest = Manifest.load(folder)
    manifest.check(folder, verify=True)
    (folder / "copy").mkdir()
    manifest.save(folder / "copy")
    assert Manifest.load(folder / "copy") == manifest
    assert (manifest.part, manifest.shuffle, manifest.split, manifest.tail_of) == ((1, 3), 7, "last", "train")
    assert (folder / "copy" / "manifest.json").read_text().count("map_xxh3") == 1


def test_damaged_origins_are_refused(folder: Path) -> None:
    path = with_origins(folder)
    path.write_bytes(bytes(48))
    Manifest.load(folder).check(folder)
    with pytest.raises(FormatError, match=r"000.map: xxh3 [0-9a-f]{16}, but manifest.json says"):
        Manifest.load(folder).check(folder, verify=True)
    path.write_bytes(bytes(47))
    with pytest.raises(FormatError, match=r"000.map: 47 bytes, but manifest.json promises 2 documents \(48 bytes\)"):
        Manifest.load(folder).check(folder)


def test_missing_shard_is_an_os_error_naming_it(folder: Path) -> None:
    (folder / "train_000000.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"train_000000\.bin"):
        Manifest.load(folder).check(folder)
