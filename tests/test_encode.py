"""`tinygpt encode`: text to ids and back, through arguments, files and pipes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from samples import HARD
from tinygpt import encode
from tinygpt.tokenizer import Tokenizer

TOKENIZER = Tokenizer.from_merges([(b"h", b"e"), (b"l", b"l")], special_tokens=["<|endoftext|>", "<|a b|>"])


@pytest.fixture(scope="module")
def tok(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tok")
    TOKENIZER.save(folder)
    return str(folder)


def piped(raw: bytes, *words: str) -> subprocess.CompletedProcess[bytes]:
    """The command in a process of its own, with `raw` on standard input."""
    line = [sys.executable, "-m", "tinygpt.encode", *words]
    return subprocess.run(line, input=raw, capture_output=True, check=False, timeout=60)


def test_there_and_back_changes_no_byte(tok: str, tmp_path: Path) -> None:
    text = "".join(HARD) * 3000 + "<|endoftext|>\n"
    (tmp_path / "hard.txt").write_bytes(text.encode())
    ids = piped(b"", "--tokenizer", tok, "--file", str(tmp_path / "hard.txt"))
    assert list(map(int, ids.stdout.split())) == TOKENIZER.encode(text)
    assert piped(ids.stdout, "--tokenizer", tok, "--decode").stdout == text.encode()
    in_json = piped(text.encode(), "--tokenizer", tok, "--format", "json", "--special", "all")
    assert json.loads(in_json.stdout) == TOKENIZER.encode(text, allowed_special="all")
    assert piped(in_json.stdout, "--tokenizer", tok, "--decode").stdout == text.encode()


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["a", "bb"], "97\n98 98\n"),
        (["", "a"], "\n97\n"),
        (["hello"], "256 257 111\n"),
        (["hello", "--format", "json"], "[256, 257, 111]\n"),
        (["hello", "he", "--format", "count"], "3\n1\n"),
        (["hell\n", "--format", "tokens"], "256\the\n257\tll\n10\t\\n\n"),
        (["<|a b|>", "--special", "<|a b|>"], "259\n"),
        (["--special", "all", "--", "<|endoftext|>he"], "258 256\n"),
        (["--", "-h"], "45 104\n"),
        (["--decode", "256", "257", "111"], "hello"),
        (["--decode", "256,257", "[111]"], "hello"),
    ],
)
def test_arguments(tok: str, words: list[str], shown: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert encode.main(["--tokenizer", tok, *words]) == 0
    assert capfd.readouterr().out == shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--decode", "1", "x2"], "TEXT: 'x2' at place 1 is no id; ids are whole numbers from 0"),
        (["--decode", "-5"], "TEXT: '-5' at place 0 is no id"),
        (["--decode", "1 2 260 3"], "TEXT: id 260 at place 2 is not in the vocabulary of 260 ids"),
        (["--decode", "9" * 5000], "TEXT: '99999999999999999999'... at place 0 is no id"),
        (["--decode", "--file", "nowhere"], "nowhere: no such file or directory"),
        (["a", "--file", "b"], "--file and TEXT are both given; keep one of them"),
        (["a", "--special", "<b>"], '"<b>" is no special token of this tokenizer'),
        (["1", "--decode", "--format", "json"], "--decode gives bytes"),
        (["a\udcff"], "TEXT 1: not UTF-8 text (byte 0xff at 1); convert it"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(
    tok: str, words: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert encode.main([*words, "--tokenizer", tok]) == 2
    shown = capfd.readouterr().err
    assert shown.startswith(f"tinygpt encode: error: {message}")
    assert shown.count("\n") == 1


def test_the_place_of_a_bad_id_counts_from_the_start_of_the_stream(tok: str) -> None:
    done = piped(b"97 " * 200_000 + b"\n999", "--tokenizer", tok, "--decode")
    assert (done.returncode, done.stdout) == (2, b"a" * 200_000)
    assert b"standard input: id 999 at place 200000 is not in the vocabulary" in done.stderr


def test_a_closed_pipe_is_quiet(tok: str, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("a word " * 1_000_000)
    line = [sys.executable, "-m", "tinygpt.encode", "--tokenizer", tok, "--file", str(tmp_path / "long.txt")]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1
