import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_writer import write_folder
from tinygpt._core import FormatError, xxh3_file
from tinygpt.tracing import Origin, origin_of, text_of

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
        listed = [{"path": str(path), "bytes": path.stat().st_size, "xxh3": xxh3_file(str(path))} for path in sources]
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


@settings(max_examples=50)
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
    with pytest.raises(FormatError, match=r"train_000000\.bin: no origins, which older versions did not write"):
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
    with pytest.raises(ValueError, match=r"a\.jsonl\.zst: packed; unpack it and look at bytes 3 to 9"):
        text_of(Origin(path="a.jsonl.zst", start=3, end=9, document=0))
    with pytest.raises(ValueError, match="document 4 came from a program"):
        text_of(Origin(path=None, start=4, end=5, document=4))
