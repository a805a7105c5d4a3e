import json
import multiprocessing
import pickle
import resource
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_writer import FINGERPRINT, write_folder, write_llm_c, write_shard
from tinygpt._core import FormatError
from tinygpt.dataset import TokenDataset

WORLDS = [  # tokens of each shard
    (40,),
    (7, 1, 30),
    (1, 1, 1, 1, 1, 6),
    (0, 13, 0, 0, 20, 0),
    (3, 17, 2, 9),
]


def world(folder: Path, sizes: tuple[int, ...], **options: Any) -> TokenDataset:
    """Tokens 0, 1, 2, ... cut into shards of these sizes, so that an id is its place."""
    places = iter(range(sum(sizes)))
    shards = [[[next(places) for _ in range(size)]] if size else [] for size in sizes]
    return TokenDataset(write_folder(folder, {"train": shards}, vocab_size=5000, eot_id=None), **options)


def whole_batch(data: TokenDataset, k: int, batch_size: int, seed: int, world_size: int) -> torch.Tensor:
    """Batch k put together from the parts of all ranks: x with the last target appended, (B, T + 1)."""
    parts = [data.batch(k, batch_size=batch_size, seed=seed, rank=r, world_size=world_size) for r in range(world_size)]
    x, y = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    assert torch.equal(x[:, 1:], y[:, :-1])
    return torch.cat([x, y[:, -1:]], dim=1)


@pytest.mark.parametrize("sizes", WORLDS)
def test_every_window_comes_exactly_once_an_epoch(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    total = sum(sizes)
    for block_size in (1, 2, 3, 8, total - 1):
        for stride in {1, (block_size + 1) // 2, block_size}:
            data = world(tmp_path, sizes, block_size=block_size, stride=stride)
            wanted = [list(range(s, s + block_size + 1)) for s in range(0, total - block_size, stride)]
            assert [[*x.tolist(), int(y[-1])] for x, y in data] == wanted
            for batch_size, world_size in [(1, 1), (2, 2), (6, 1), (6, 2), (6, 3)]:
                epochs = batch_size  # so that the epochs end where a batch ends
                rows = [
                    row
                    for k in range(len(wanted) * epochs // batch_size)
                    for row in whole_batch(data, k, batch_size, 5, world_size).tolist()
                ]
                runs = [rows[i : i + len(wanted)] for i in range(0, len(rows), len(wanted))]
                assert [sorted(run) for run in runs] == [wanted] * epochs


@pytest.mark.parametrize("sizes", WORLDS)
def test_each_target_comes_once_and_fewer_than_a_window_are_left(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    for block_size in range(1, sum(sizes)):
        data = world(tmp_path, sizes, block_size=block_size)
        seen = Counter(torch.cat([y for _, y in data]).tolist())
        unused = sum(sizes) - 1 - len(seen)
        assert (set(seen.values()), list(seen), unused < block_size) == ({1}, list(range(1, len(seen) + 1)), True)


@pytest.mark.parametrize("cuts", range(64))
def test_every_way_to_cut_seven_tokens_into_shards_gives_the_same_windows(tmp_path: Path, cuts: int) -> None:
    edges = [0, *(place for place in range(1, 7) if cuts >> (place - 1) & 1), 7]
    sizes = tuple(b - a for a, b in pairwise(edges))
    for block_size in range(1, 7):
        windows = [x.tolist() for x, _ in world(tmp_path, sizes, block_size=block_size, stride=1)]
        assert windows == [list(range(s, s + block_size)) for s in range(7 - block_size)]


def test_batch_depends_on_data_seed_and_number_alone(tmp_path: Path) -> None:
    one, other = (world(tmp_path / name, WORLDS[1], block_size=3) for name in "ab")
    forwards = [one.batch(k, batch_size=5, seed=2) for k in range(20)]
    backwards = [other.batch(k, batch_size=5, seed=2) for k in reversed(range(20))][::-1]
    torch.testing.assert_close(forwards, backwards, atol=0, rtol=0)


def test_two_batches_of_half_the_size_are_the_batch(tmp_path: Path) -> None:
    data = world(tmp_path, WORLDS[0], block_size=3)
    halves = [torch.cat([data.batch(2 * k, batch_size=4)[0], data.batch(2 * k + 1, batch_size=4)[0]]) for k in range(9)]
    torch.testing.assert_close(halves, [data.batch(k, batch_size=8)[0] for k in range(9)])


def test_epochs_and_seeds_have_different_orders(tmp_path: Path) -> None:
    data = world(tmp_path, WORLDS[0], block_size=1)
    orders = {tuple(data.batch(k, batch_size=len(data), seed=s)[0][:, 0].tolist()) for k in range(5) for s in range(5)}
    assert len(orders) == 25


def test_epoch_edge_falls_inside_a_batch_that_is_longer_than_epochs(tmp_path: Path) -> None:
    data = world(tmp_path, (9,), block_size=2, shuffle=False)
    x, y = data.batch(1, batch_size=10)
    assert (x[:, 0].tolist(), x.dtype, y.shape) == ([4, 6, 0, 2, 4, 6, 0, 2, 4, 6], torch.int64, (10, 2))


@given(st.data())
@settings(max_examples=60)
def test_documents_mode_meets_every_target_once_and_crosses_no_document(data: st.DataObject) -> None:
    documents = data.draw(st.lists(st.lists(st.integers(0, 8), max_size=9).map(lambda d: [*d, 9]), min_size=1))
    block_size = data.draw(st.integers(1, 6))
    wanted = Counter((a, b) for d in documents for a, b in pairwise(d))
    tokens = [token for document in documents for token in document]
    if not wanted:
        documents, tokens, wanted = [[1, 9]], [1, 9], Counter([(1, 9)])
    found = TokenDataset.from_tokens(tokens, vocab_size=10, block_size=block_size, mode="documents", eot_id=9)
    pairs = [p for x, y in found for p in zip(x.tolist(), y.tolist(), strict=True) if p[1] != -100]
    assert (Counter(pairs), found.n_documents) == (wanted, len(documents))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(1, 12), st.data())
def test_targets_per_window_are_those_of_all_windows_in_the_mean(
    lengths: list[int], block_size: int, data: st.DataObject
) -> None:
    tokens = [1, 9] + [token for length in lengths for token in [*[1] * (length - 1), 9]]
    stride, mode = data.draw(st.integers(1, block_size)), data.draw(st.sampled_from(["stream", "documents"]))
    tokens += [2] * data.draw(st.integers(block_size if mode == "stream" else 0, 20))  # a document that does not end
    found = TokenDataset.from_tokens(tokens, vocab_size=10, block_size=block_size, stride=stride, mode=mode, eot_id=9)
    n_targets = sum(int((y >= 0).sum()) for _, y in found)
    assert found.targets_per_window == pytest.approx(n_targets / len(found), rel=1e-12)


def test_documents_are_padded_in_x_and_ignored_in_y(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {"train": [[[1, 2, 999], [999]], [[3, 4, 5, 6, 7, 999]]]})
    data = TokenDataset(folder, block_size=4, mode="documents", shuffle=False)
    x, y = data.batch(0, batch_size=3)
    assert x.tolist() == [[1, 2, 999, 999], [3, 4, 5, 6], [7, 999, 999, 999]]
    assert y.tolist() == [[2, 999, -100, -100], [4, 5, 6, 7], [999, -100, -100, -100]]


def test_a_document_may_end_in_a_later_shard_and_the_last_may_not_end(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {"train": [[[1, 2, 999]], [[3, 999]]]})
    for number, (tokens, ends) in enumerate([([1, 2], []), ([999, 3, 4], [1])]):
        shard = write_shard(folder / f"train_{number:06}.bin", [tokens], vocab_size=1000, eot_id=999)
        shard.with_suffix(".idx").write_bytes(np.array(ends, "<u8").tobytes())
        raw = bytearray(shard.read_bytes())
        raw[32:40] = len(ends).to_bytes(8, "little")
        shard.write_bytes(raw)
    listed = (folder / "manifest.json").read_text()
    listed = listed.replace('"tokens": 3, "documents": 1, "bytes": 6', '"tokens": 2, "documents": 0, "bytes": 4')
    listed = listed.replace('"tokens": 2, "documents": 1, "bytes": 4', '"tokens": 3, "documents": 1, "bytes": 6')
    (folder / "manifest.json").write_text(listed)
    data = TokenDataset(folder, block_size=8, mode="documents", verify=False)
    assert [x[:3].tolist() for x, _ in data] == [[1, 2, 999], [3, 4, 999]]


@pytest.mark.parametrize("wide", [False, True])
def test_a_shard_of_llm_c_is_read_as_it_is(tmp_path: Path, wide: bool) -> None:
    path = write_llm_c(tmp_path / "a.bin", [5, 6, 7, 8, 70000 if wide else 9], wide=wide)
    data = TokenDataset(path, block_size=4, vocab_size=70001)
    x, y = data[0]
    assert (x.tolist(), y.tolist()) == ([5, 6, 7, 8], [6, 7, 8, 70000 if wide else 9])
    assert (data.n_documents, data.n_bytes, data.eot_id, data.fingerprint, data.folder) == (None,) * 5


def test_single_file_doors_give_the_same_windows(tmp_path: Path) -> None:
    tokens = np.arange(20, dtype="<u2")
    tokens.tofile(tmp_path / "raw.bin")
    np.save(tmp_path / "a.npy", tokens.astype(">i8"))
    torch.save(torch.arange(20), tmp_path / "a.pt")
    write_llm_c(tmp_path / "c.bin", tokens.tolist())
    write_shard(tmp_path / "ours.bin", [tokens.tolist()], vocab_size=20, eot_id=None)
    opened = [
        TokenDataset(tmp_path / "raw.bin", block_size=4, vocab_size=20, dtype="uint16"),
        *(TokenDataset(tmp_path / name, block_size=4, vocab_size=20) for name in ("a.npy", "a.pt", "c.bin")),
        TokenDataset(tmp_path / "ours.bin", block_size=4),
        TokenDataset.from_tokens(torch.arange(20), block_size=4, vocab_size=20),
    ]
    batches = [torch.cat(data.batch(1, batch_size=3)).tolist() for data in opened]
    assert batches == [batches[0]] * 6
    assert {data.n_tokens for data in opened} == {20}


def test_prepared_folder_tells_what_it_holds(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {"train": [[[1, 999], [2, 999]], [[3, 4, 999]]], "val": [[[5, 6, 7, 999]]]})
    train, val = TokenDataset(folder, block_size=2), TokenDataset(folder, "val", block_size=2)
    assert (train.n_tokens, train.n_documents, train.n_bytes, len(train)) == (7, 3, 14, 3)
    assert (val.n_tokens, val.n_documents, val.n_bytes, len(val)) == (4, 1, 8, 1)
    assert (train.vocab_size, train.eot_id, train.fingerprint, train.folder) == (1000, 999, FINGERPRINT, folder)
    assert (train.split, val.split) == ("train", "val")


def test_memmap_is_an_array_for_one_shard_and_a_list_for_several(tmp_path: Path) -> None:
    one = world(tmp_path / "one", (5,), block_size=2).memmap()
    two = world(tmp_path / "two", (3, 0, 2), block_size=2).memmap()
    assert isinstance(one, np.ndarray)
    assert (one.tolist(), [array.tolist() for array in two]) == ([0, 1, 2, 3, 4], [[0, 1, 2], [3, 4]])


def test_index_counts_from_the_end_too_and_ends(tmp_path: Path) -> None:
    data = world(tmp_path, (10,), block_size=3)
    assert data[-1][0].tolist() == data[np.int64(2)][0].tolist() == [6, 7, 8]
    for index in (3, -4):
        with pytest.raises(IndexError, match=f"window {index} of 3"):
            data[index]


def first_tokens(data: TokenDataset) -> list[int]:
    return data.batch(3, batch_size=5)[0][:, 0].tolist()


def test_pickled_dataset_gives_the_same_batches(tmp_path: Path) -> None:
    data = world(tmp_path, WORLDS[1], block_size=3)
    wanted = first_tokens(data)
    assert first_tokens(pickle.loads(pickle.dumps(data))) == wanted


def test_forked_process_and_its_parent_read_the_same_open_files(tmp_path: Path) -> None:
    data, context = world(tmp_path, WORLDS[1], block_size=3), multiprocessing.get_context("fork")
    wanted = first_tokens(data)
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sender.send([first_tokens(data) for _ in range(50)]))
    child.start()
    mine, theirs = [first_tokens(data) for _ in range(50)], receiver.recv()
    child.join()
    assert mine == theirs == [wanted] * 50


def test_more_shards_than_descriptors_are_read(tmp_path: Path) -> None:
    data = world(tmp_path, (3,) * 1500, block_size=4, verify=False)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, soft), hard))
    try:
        assert [int(x[0]) for x, _ in data] == list(range(0, 4496, 4))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


SHARD = "train_000000.bin"
CORRUPTIONS: dict[str, tuple[Callable[[Path], object], str]] = {
    "manifest gone": (lambda f: (f / "manifest.json").unlink(), "not finished or not prepared"),
    "manifest cut": (lambda f: (f / "manifest.json").write_text("{"), r"manifest\.json: "),
    "magic": (lambda f: patch(f / SHARD, 0, b"\0"), r"train_000000\.bin: starts with 20240384, 1, no shard's magic"),
    "cut short": (lambda f: cut(f / SHARD, 1), r"bin: 1043 bytes, but its header promises 10 tokens \(1044 bytes\)"),
    "header cut": (lambda f: cut(f / SHARD, 1000), r"train_000000\.bin: 44 bytes, too short"),
    "too long": (lambda f: patch(f / SHARD, 1044, b"\0"), r"bin: 1045 bytes, but its header promises 10 tokens"),
    "other tokenizer": (lambda f: patch(f / SHARD, 50, b"\0"), "header says fingerprint"),
    "flipped token": (lambda f: patch(f / SHARD, 1030, b"\7"), "xxh3"),
    "flipped index": (lambda f: patch(f / "train_000000.idx", 0, b"\7"), r"train_000000\.idx: xxh3"),
    "index cut": (lambda f: cut(f / "train_000000.idx", 1), r"train_000000\.idx: 7 bytes"),
}


def patch(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def cut(path: Path, n_bytes: int) -> None:
    path.write_bytes(path.read_bytes()[:-n_bytes])


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corrupt_folder_is_refused_on_opening(tmp_path: Path, name: str) -> None:
    corrupt, message = CORRUPTIONS[name]
    folder = write_folder(tmp_path, {"train": [[list(range(10))]]})
    corrupt(folder)
    with pytest.raises(FormatError, match=message):
        TokenDataset(folder, block_size=4)


def test_verify_false_reads_no_checksum(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {"train": [[list(range(10))]]})
    patch(folder / SHARD, 1030, b"\7")
    assert TokenDataset(folder, block_size=4, verify=False)[0][0].tolist() == [0, 1, 2, 7]
    with pytest.raises(FormatError, match="xxh3"):
        TokenDataset(folder, block_size=4, verify=True)


def test_file_cut_short_after_opening_is_named_with_both_numbers(tmp_path: Path) -> None:
    data = world(tmp_path, (10,), block_size=4)
    cut(tmp_path / SHARD, 10)
    with pytest.raises(FormatError, match=r"train_000000\.bin: 2 bytes at offset 1032, but 10 were promised"):
        data[1]


def test_id_outside_the_vocabulary_is_named_with_its_file(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {"train": [[[1, 2, 3]], [[4, 500, 6]]]}, vocab_size=500, eot_id=None)
    with pytest.raises(FormatError, match=r"train_000001\.bin: token id 500 at place 4 .* vocab_size is 500"):
        TokenDataset(folder, block_size=5).batch(0, batch_size=1)
    np.save(tmp_path / "a.npy", np.array([1, -1, 2]))
    with pytest.raises(FormatError, match=r"a\.npy: token id -1 at place 1"):
        TokenDataset(tmp_path / "a.npy", block_size=2, vocab_size=5).batch(0, batch_size=1)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("", {"block_size": 10}, r"\(train\): 10 tokens, but a window of block_size 10 takes 11; take more text"),
        ("", {"block_size": 0}, "block_size must be at least 1, got 0"),
        ("", {"stride": 5}, r"stride must be from 1 to block_size \(4\), got 5"),
        ("", {"stride": 0}, "stride must be from 1"),
        ("", {"mode": "lines"}, "mode must be one of stream, documents, got 'lines'"),
        ("", {"split": "test"}, "no split 'test'; it has train, val"),
        ("", {"split": "val"}, r"\(val\): 0 tokens, but a window of block_size 4 takes 5"),
        ("", {"dtype": "uint16"}, "dtype='uint16' has no use"),
        ("", {"vocab_size": 5}, "vocab_size=5 has no use"),
        ("nowhere", {}, "nowhere is no folder"),
        ("a.txt", {}, r"a prepared folder or in a file ending in \.bin, \.npy, \.pt"),
        (SHARD, {"split": "train"}, "split='train' has no use"),
        (SHARD, {"verify": True}, "verify=True has no use"),
        (SHARD, {"dtype": "uint16"}, "dtype='uint16' has no use"),
        (SHARD, {"vocab_size": 5}, "its header says vocab_size 1000, got 5"),
        ("raw.bin", {}, "for raw tokens without a header give dtype= and vocab_size="),
        ("raw.bin", {"dtype": "uint16"}, "does not say its vocab_size"),
        ("raw.bin", {"dtype": "float32"}, "dtype must be one of uint8, uint16"),
        ("raw.bin", {"dtype": "uint32", "vocab_size": 5}, "2050 bytes, no whole number of uint32 tokens"),
        ("llm_c.bin", {}, "does not say its vocab_size"),
        ("llm_c.bin", {"vocab_size": 50, "mode": "documents"}, "nothing says where its documents end; give eot_id="),
        ("square.npy", {"vocab_size": 5}, r"must be integers in one dimension, got int64 of shape \(2, 2\)"),
        ("float.npy", {"vocab_size": 5}, "must be integers in one dimension, got float64"),
        ("pickle.npy", {"vocab_size": 5}, r"pickle\.npy: "),
        ("long.npy", {"vocab_size": 5}, r"long\.npy: 209 bytes, but its header promises 208"),
        ("torn.pt", {"vocab_size": 5}, r"torn\.pt: no file of torch\.save"),
    ],
)
def test_wrong_input_ends_in_one_clear_line(tmp_path: Path, name: str, options: dict[str, Any], message: str) -> None:
    write_folder(tmp_path, {"train": [[list(range(10))]], "val": []})
    write_llm_c(tmp_path / "llm_c.bin", range(10))
    (tmp_path / "raw.bin").write_bytes(bytes(2050))
    for file, array in {"square": np.ones((2, 2), int), "float": np.ones(9), "pickle": np.array([None] * 9)}.items():
        np.save(tmp_path / f"{file}.npy", array, allow_pickle=True)
    np.save(tmp_path / "long.npy", np.arange(10))
    (tmp_path / "long.npy").write_bytes((tmp_path / "long.npy").read_bytes() + b"\0")
    (tmp_path / "torn.pt").write_bytes(b"PK\3\4")
    with pytest.raises(ValueError, match=message) as caught:
        TokenDataset(tmp_path / name, **{"block_size": 4, **options})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": -1}, "k must be from 0"),
        ({"batch_size": 0}, "batch_size from 1"),
        ({"world_size": 4}, "multiple of world_size, got 6 and 4"),
        ({"world_size": 2, "rank": 2}, r"rank must be from 0 to world_size - 1 \(1\), got 2"),
        ({"world_size": 0}, "world_size"),
    ],
)
def test_wrong_batch_is_refused(options: dict[str, int], message: str) -> None:
    data = TokenDataset.from_tokens(range(9), vocab_size=9, block_size=2)
    with pytest.raises(ValueError, match=message):
        data.batch(**{"k": 0, "batch_size": 6, **options})


@pytest.mark.parametrize("tokens", [[1, 2, 9], [1, -2, 3], [[1, 2, 3]], [0.5, 1.0, 2.0], ["a", "b", "c"]])
def test_tokens_that_are_no_ids_are_refused(tokens: list[Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        TokenDataset.from_tokens(tokens, vocab_size=9, block_size=2)


def test_documents_without_any_target_are_refused() -> None:
    with pytest.raises(ValueError, match="3 tokens, but no document has the two tokens that a target takes"):
        TokenDataset.from_tokens([9, 9, 9], vocab_size=10, block_size=2, mode="documents", eot_id=9)


def test_index_that_falls_is_refused(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "a.bin", [[1, 2], [3, 4]], vocab_size=9, eot_id=4)
    path.with_suffix(".idx").write_bytes(np.array([4, 2], "<u8").tobytes())
    with pytest.raises(FormatError, match=r"a\.idx: document ends do not rise to at most 4 tokens"):
        TokenDataset(path, block_size=2, mode="documents")
    path.with_suffix(".idx").write_bytes(bytes(8))
    with pytest.raises(FormatError, match=r"a\.idx: 8 bytes, but a\.bin promises 2 documents"):
        TokenDataset(path, block_size=2)


def test_a_part_of_a_whole_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "data", {"train": [[[1, 2, 3]]]})
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"part": [1, 3]}))
    with pytest.raises(ValueError, match=r"data is part 2 of 3; join all of them with `tinygpt prepare --merge`"):
        TokenDataset(folder, block_size=2)
