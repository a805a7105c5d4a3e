"""A corpus that grows, is cut into parts, shuffled or killed on the way: the bytes are those of one run."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tinygpt import Corpus, FormatError, Manifest, TokenDataset, Tokenizer
from tinygpt.joining import join_parts
from tinygpt.tracing import origin_of, text_of

WORDS = ["the", "rose", "is", "red", "violet", "blue", "honey", "sweet", "and", "so", "are", "you", "stones"]


def text(seed: int, n_documents: int = 30) -> str:
    rng = random.Random(seed)
    return "<|endoftext|>\n".join(
        " ".join(rng.choices(WORDS, k=rng.randrange(3, 60))) + f" {seed}-{i}\n" for i in range(n_documents)
    )


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "text"
    folder.mkdir()
    for i in range(6):
        (folder / f"{i}.txt").write_text(text(i))
    return folder


@pytest.fixture
def tokenizer(files: Path) -> Tokenizer:
    return Tokenizer.train(files, vocab_size=300)


def content(folder: Path) -> dict[str, bytes]:
    """All that a prepared folder holds, but for what tells how it came about."""
    found = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "manifest.json"}
    facts = json.loads((folder / "manifest.json").read_text())
    del facts["report"]
    return found | {"manifest": json.dumps(facts).encode()}


def write(tokenizer: Tokenizer, files: Path, folder: Path, **how: Any) -> Manifest:
    return tokenizer.write_shards(Corpus(files), folder, val_fraction=0.2, shard_tokens=500, **how)


def test_a_corpus_that_has_changed_is_as_one_from_nothing(tokenizer: Tokenizer, files: Path, tmp_path: Path) -> None:
    write(tokenizer, files, tmp_path / "data")
    (files / "2.txt").unlink()
    (files / "0a.txt").write_text(text(77))
    (files / "4.txt").write_text(text(78, 5))
    os.rename(files / "5.txt", files / "0b.txt")
    grown = write(tokenizer, files, tmp_path / "data")
    assert grown.report["kept_files"] == 4
    write(tokenizer, files, tmp_path / "anew")
    assert content(tmp_path / "data") == content(tmp_path / "anew")
    assert {**grown.report, "kept_files": 4} == {**Manifest.load(tmp_path / "anew").report, "kept_files": 4}


@pytest.mark.parametrize("how", [{}, {"split": "last"}, {"shuffle": 7}])
@pytest.mark.parametrize("n_parts", [1, 3, 8])
def test_parts_joined_are_the_whole(
    tokenizer: Tokenizer, files: Path, tmp_path: Path, n_parts: int, how: dict[str, Any]
) -> None:
    whole = write(tokenizer, files, tmp_path / "whole", **how)
    parts = [tmp_path / f"part{i}" for i in range(n_parts)]
    for i, part in enumerate(parts):
        write(tokenizer, files, part, part=(i, n_parts), **how)
    joined = join_parts(parts[::-1], tmp_path / "joined")
    assert content(tmp_path / "joined") == content(tmp_path / "whole")
    assert joined.report == whole.report


def test_a_part_is_no_data_to_train_on(tokenizer: Tokenizer, files: Path, tmp_path: Path) -> None:
    write(tokenizer, files, tmp_path / "part", part=(0, 2))
    with pytest.raises(ValueError, match="part"):
        TokenDataset(tmp_path / "part", "train", block_size=8)
    with pytest.raises(ValueError, match="missing: 2"):
        join_parts([tmp_path / "part"], tmp_path / "joined")


def test_a_shuffle_is_another_order_of_the_same_documents(tokenizer: Tokenizer, files: Path, tmp_path: Path) -> None:
    documents = {}
    for seed in (None, 1, 2):
        write(tokenizer, files, tmp_path / f"{seed}", shuffle=seed)
        data = TokenDataset(tmp_path / f"{seed}", "train", block_size=8)
        documents[seed] = tokenizer.decode(np.concatenate(data.memmap())).split("<|endoftext|>")
    assert documents[None] != documents[1] != documents[2]
    assert sorted(documents[None]) == sorted(documents[1]) == sorted(documents[2])


def test_every_document_is_traced_to_its_text(tokenizer: Tokenizer, files: Path, tmp_path: Path) -> None:
    for how in ({}, {"shuffle": 3}):
        folder = tmp_path / f"{how}"
        manifest = write(tokenizer, files, folder, **how)
        for split, shards in manifest.splits.items():
            position = 0
            data = np.concatenate(TokenDataset(folder, split, block_size=2).memmap())
            while position < sum(shard.tokens for shard in shards):
                origin = origin_of(folder, split, position)
                ids = tokenizer.encode(text_of(origin))
                assert list(data[position : position + len(ids)]) == ids
                position += len(ids) + 1


COMMAND = [sys.executable, "-m", "tinygpt.prepare"]


def run(*words: object, **how: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, words)], capture_output=True, text=True, **how)


def test_a_killed_prepare_goes_on(files: Path, tmp_path: Path) -> None:
    kill_at_random(files, tmp_path, n_kills=4)


@pytest.mark.slow
def test_fifty_kills_leave_no_trace(files: Path, tmp_path: Path) -> None:
    kill_at_random(files, tmp_path, n_kills=50)


def kill_at_random(files: Path, tmp_path: Path, *, n_kills: int) -> None:
    for i in range(20):  # some megabytes, so that there is something to kill
        (files / f"big{i}.txt").write_text(text(1000 + i, 4000))
    words = [files, "--vocab-size", 400, "--shard-tokens", 20_000, "--val-fraction", 0.1]
    begin = time.monotonic()
    whole = run(*words, "--out", tmp_path / "whole")
    seconds = time.monotonic() - begin
    assert whole.returncode == 0, whole.stderr
    rng, killed, continued = random.Random(5), 0, 0
    while killed < n_kills or (continued == 0 and killed < 5 * n_kills):
        child = subprocess.Popen(
            [*COMMAND, *map(str, words), "--out", str(tmp_path / "data")], stdout=subprocess.DEVNULL
        )
        try:
            child.wait(rng.uniform(0.3, 1.0) * seconds)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.wait()
            killed += 1
            continued += (tmp_path / ".part-data/journal.json").exists()
            continue
        assert content(tmp_path / "data") == content(tmp_path / "whole")
        subprocess.run(["rm", "-r", str(tmp_path / "data")], check=True)
    assert run(*words, "--out", tmp_path / "data").returncode == 0
    assert content(tmp_path / "data") == content(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "text", "whole"]
    assert continued > 0  # else all kills came before there was anything to go on with


def test_a_second_prepare_into_the_same_folder_is_refused(files: Path, tmp_path: Path) -> None:
    from tinygpt.staging import lock_folder

    with lock_folder(tmp_path / ".part-data"):
        done = run(files, "--out", tmp_path / "data")
    assert (done.returncode, "is in use by process" in done.stderr) == (2, True)


def test_the_output_may_lie_in_the_input(files: Path) -> None:
    for _ in range(2):
        done = run(files, "--out", files / "data", "--vocab-size", 300)
        assert done.returncode == 0, done.stderr
    assert "prepared already" in done.stdout


def test_parts_without_a_tokenizer_say_what_that_costs_and_are_the_same_bytes(files: Path, tmp_path: Path) -> None:
    n_bytes = sum(path.stat().st_size for path in files.iterdir())
    how = ["--vocab-size", 300, "--shard-tokens", 500]
    costs = f"tokenizer  each of 2 parts reads all {n_bytes:,} bytes to train the same one; to read them once: "
    parts = [run(files, *how, "--shard", f"{i}/2", "--out", tmp_path / f"part{i}") for i in (1, 2)]
    assert [done.stdout.startswith(costs) for done in parts] == [True, True]
    assert "each of" not in run(files, *how, "--out", tmp_path / "whole").stdout
    assert run("--merge", tmp_path / "part1", tmp_path / "part2", "--out", tmp_path / "joined").returncode == 0
    assert content(tmp_path / "joined") == content(tmp_path / "whole")


def test_a_tokenizer_trained_once_for_all_parts_gives_the_same_shards(files: Path, tmp_path: Path) -> None:
    how = ["--vocab-size", 300, "--shard-tokens", 500]
    assert run(files, *how, "--tokenizer-only", "--out", tmp_path / "tok").returncode == 0
    words = [files, "--tokenizer", tmp_path / "tok", "--shard-tokens", 500]
    parts = [run(*words, "--shard", f"{i}/2", "--out", tmp_path / f"part{i}") for i in (1, 2)]
    assert ["each of" in done.stdout for done in parts] == [False, False]
    run("--merge", tmp_path / "part1", tmp_path / "part2", "--out", tmp_path / "joined")
    run(files, *how, "--out", tmp_path / "whole")
    joined, whole = (content(tmp_path / name) for name in ("joined", "whole"))
    facts = [json.loads(found.pop("manifest")) for found in (joined, whole)]
    assert joined == whole
    assert {name for name in facts[0] if facts[0][name] != facts[1][name]} == {"training"}


def test_a_tokenizer_alone_has_no_parts(files: Path, tmp_path: Path) -> None:
    done = run(files, "--tokenizer-only", "--shard", "1/2", "--out", tmp_path / "tok")
    said = "--tokenizer-only trains one tokenizer for all parts; leave --shard to the calls after it\n"
    assert (done.returncode, done.stderr) == (2, f"tinygpt prepare: error: {said}")


@pytest.mark.parametrize(
    ("how", "n_kept"),  # what is removed of 3.txt as a duplicate of a new file is not what it was
    [({}, 5), ({"clean": ["gutenberg", "whitespace"]}, 5), ({"min_chars": 60, "dedup": "exact"}, 4)],
)
def test_the_report_of_a_grown_folder_is_that_of_one_from_nothing(
    tokenizer: Tokenizer, files: Path, tmp_path: Path, how: dict[str, Any], n_kept: int
) -> None:
    (files / "6.txt").write_bytes(b"a  damaged \xff line\n" * 3)
    before = grown_report(tokenizer, files, tmp_path / "data", how)
    (files / "2.txt").unlink()
    (files / "0a.txt").write_text(text(77) + "<|endoftext|>\n" + text(3))
    os.rename(files / "6.txt", files / "0.damaged.txt")
    (files / "5.txt").write_bytes((files / "5.txt").read_bytes() + b"and \xfe more\n")
    grown, anew = (grown_report(tokenizer, files, tmp_path / name, how) for name in ("data", "anew"))
    assert (before.get("kept_files"), grown.pop("kept_files")) == (None, n_kept)
    assert grown == anew
    assert adds_up(grown)


def grown_report(tokenizer: Tokenizer, files: Path, folder: Path, how: dict[str, Any]) -> dict[str, Any]:
    corpus = Corpus(files, **how)
    return dict(tokenizer.write_shards(corpus, folder, val_fraction=0.2, shard_tokens=500).report)


def adds_up(report: dict[str, Any]) -> bool:
    """Whether every byte that was read is used, was taken by a rule, or left out with its document."""
    taken = sum(report["cleaned"].values()) + report["repaired_bytes"] + report["refused"][1]
    left_out = sum(n_bytes for _, n_bytes in report["removed"].values())
    return bool(report["bytes_read"] == report["bytes_used"] + taken + left_out)


def test_the_table_of_a_grown_folder_counts_all_of_it(files: Path, tmp_path: Path) -> None:
    run(files, "--tokenizer-only", "--vocab-size", 300, "--out", tmp_path / "tok")
    words = [files, "--tokenizer", tmp_path / "tok", "--clean", "whitespace"]
    (files / "6.txt").write_text("a  spaced   line\n" * 9)
    assert run(*words, "--out", tmp_path / "data").returncode == 0
    (files / "7.txt").write_text(text(7))
    grown, anew = (run(*words, "--out", tmp_path / name).stdout.splitlines() for name in ("data", "anew"))
    assert grown.pop(next(i for i, line in enumerate(grown) if line.startswith("kept"))) == (
        "kept       7 files are the same; their tokens were copied"
    )
    table = [[line for line in lines if line.startswith((" ", "read", "- ", "used"))] for lines in (grown, anew)]
    assert (table[0], len(table[0])) == (table[1], 4)


def test_a_folder_of_before_files_had_counts_is_encoded_anew(tokenizer: Tokenizer, files: Path, tmp_path: Path) -> None:
    write(tokenizer, files, tmp_path / "data")
    manifest = json.loads((tmp_path / "data/manifest.json").read_text())
    for source in manifest["corpus"]["sources"]:
        del source["report"]
    (tmp_path / "data/manifest.json").write_text(json.dumps(manifest))
    (files / "7.txt").write_text(text(7))
    grown = write(tokenizer, files, tmp_path / "data")
    assert ("kept_files" in grown.report, grown.report) == (False, write(tokenizer, files, tmp_path / "anew").report)


@pytest.mark.parametrize("report", [{"documents": 1, "bytes_read": 5}, {"documents": "one"}, {"pages": 1}])
def test_counts_that_are_none_are_refused(
    tokenizer: Tokenizer, files: Path, tmp_path: Path, report: dict[str, Any]
) -> None:
    write(tokenizer, files, tmp_path / "data")
    manifest = json.loads((tmp_path / "data/manifest.json").read_text())
    manifest["corpus"]["sources"][3]["report"] = report
    (tmp_path / "data/manifest.json").write_text(json.dumps(manifest))
    (files / "7.txt").write_text(text(7))
    with pytest.raises(FormatError, match=r"manifest\.json: the report of source 3 .*; write the shards again"):
        write(tokenizer, files, tmp_path / "data")
