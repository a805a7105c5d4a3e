"""Tokenizer files with anything wrong in them: each is refused as a FormatError, or is a tokenizer that works."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import hard_texts
from tinygpt import FormatError, Tokenizer

MERGES = [(b"a", b"b"), (b" ", b"ab"), (b"\xc3", b"\xa9"), (b"ab", b"ab"), (b" ab", b"ab"), (b"'", b"s")]
SPECIALS = ["<|endoftext|>", "<pad>"]
FILES = ["tokenizer.json", "ranks.tiktoken", "vocab.json", "merges.txt"]
EDITS = st.lists(st.tuples(st.integers(0), st.integers(0, 9), st.binary(max_size=6)), min_size=1, max_size=4)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from(["Regex", "BPE", "Ġ"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
budget = pytest.mark.parametrize("n", [100, pytest.param(5000, marks=pytest.mark.slow)])


@pytest.fixture(scope="module", params=["gpt2", "o200k"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = Tokenizer.from_merges(MERGES, pattern=request.param, special_tokens=SPECIALS)
    tokenizer.save(folder)
    tokenizer.save(folder / "ranks.tiktoken")
    Tokenizer.from_merges(MERGES, special_tokens=SPECIALS).save(folder, format="gpt2")
    return folder


def works_or_is_refused(path: Path, damaged: bytes, text: str) -> None:
    sound = path.read_bytes()
    path.write_bytes(damaged)
    try:
        tokenizer = Tokenizer.load(path)
    except FormatError:
        return
    finally:
        path.write_bytes(sound)
    decoded = tokenizer.decode(tokenizer.encode(text))
    assert decoded == text or b'strip": true' in damaged  # such a token takes white space away


@budget
@pytest.mark.parametrize("name", FILES)
def test_a_file_of_damaged_bytes_works_or_is_refused(folder: Path, name: str, n: int) -> None:
    sound = (folder / name).read_bytes()

    @given(EDITS, hard_texts)
    @settings(max_examples=n, deadline=None)
    def check(edits: list[tuple[int, int, bytes]], text: str) -> None:
        damaged = sound
        for at, removed, inserted in edits:
            at %= len(damaged) + 1
            damaged = damaged[:at] + inserted + damaged[at + removed :]
        works_or_is_refused(folder / name, damaged, text)

    check()


def places(value: Any) -> list[tuple[Any, Any]]:
    """Each list or dict inside with each key of it; of a vocabulary the first few."""
    found: list[tuple[Any, Any]] = []
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value))[:12]:
        found.append((value, key))
        found += places(inner) if isinstance(inner, dict | list) else []
    return found


@budget
def test_a_tokenizer_json_with_other_values_works_or_is_refused(folder: Path, n: int) -> None:
    sound = (folder / "tokenizer.json").read_bytes()

    @given(st.lists(st.tuples(st.integers(0), VALUES), min_size=1, max_size=3), hard_texts)
    @settings(max_examples=n, deadline=None)
    def check(changes: list[tuple[int, Any]], text: str) -> None:
        damaged = json.loads(sound)
        for at, value in changes:
            found = places(damaged)
            inside, key = found[at % len(found)]
            inside[key] = value
        works_or_is_refused(folder / "tokenizer.json", json.dumps(damaged).encode(), text)

    check()
