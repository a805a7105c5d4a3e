"""`tinygpt bench` and what it measures by."""

import json
from pathlib import Path

import pytest
from tinygpt import bench
from tinygpt.measurement import measure
from tinygpt.tokenizer import Tokenizer

TEXT = "".join(f"line {i} of a text, größer {i * 7919 % 1000}\n" for i in range(4000)) + "<|endoftext|>\nthe end\n"


@pytest.fixture(scope="module")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "lines.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_every_task_is_measured_and_agrees(text_file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert bench.main(f"--input {text_file} --iterations 1 --threads 2 --vocab-size 300 --json".split()) == 0
    rows = json.loads(capfd.readouterr().out)["rows"]
    shown = [(row["task"], row["threads"]) for row in rows]
    pairs = [("encode", 1), ("encode again", 1), ("encode", 2), ("encode again", 2), ("decode", 1), ("shards", 2)]
    assert shown == [("train", 2), *pairs]
    assert len({row["n_tokens"] for row in rows[1:-1]}) == 1
    assert all(min(row["seconds"]) > 0 and row["peak_mb"] > 5 for row in rows)


def test_a_tokenizer_of_ones_own_is_measured_on_the_beginning_of_a_text(
    text_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Tokenizer.from_merges([(b"t", b"h")]).save(tmp_path / "tok")
    words = f"--input {text_file} --iterations 1 --threads 1 --max-bytes 1000 --tokenizer {tmp_path / 'tok'}"
    assert bench.main(words.split()) == 0
    shown = capfd.readouterr().out
    assert [line.split()[0] for line in shown.splitlines()[3:6]] == ["encode", "encode", "decode"]
    assert "answers agree; 1 rounds" in shown


def test_a_peak_is_that_of_the_task_alone(text_file: Path, tmp_path: Path) -> None:
    Tokenizer.from_merges([]).save(tmp_path / "tok")
    ballast = b"x" * 300_000_000
    settings = {"paths": [str(text_file)], "tokenizer": str(tmp_path / "tok"), "max_bytes": 1000}
    rows, _ = measure("decode", rounds=1, threads=1, **settings)
    assert (rows[0].peak_mb or 0) < len(ballast) / 1e6


def test_ranks_are_measured_with_the_pattern_of_the_flag(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("x1234567890 " * 99)
    tokens = {}
    Tokenizer.train(tmp_path / "a.txt", vocab_size=266, special_tokens=[]).save(tmp_path / "a.tiktoken")
    for pattern in ("gpt2", "cl100k"):
        words = f"--input {tmp_path / 'a.txt'} --tokenizer {tmp_path / 'a.tiktoken'} --iterations 1 --json"
        assert bench.main([*words.split(), "--pattern", pattern]) == 0
        tokens[pattern] = json.loads(capfd.readouterr().out)["rows"][0]["n_tokens"]
    assert tokens["gpt2"] < tokens["cl100k"]
