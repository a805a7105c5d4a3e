"""Counts: sums that may be made anywhere, and their files."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import hard_texts
from tinygpt import Corpus, Counts, FormatError, Tokenizer


@given(st.lists(hard_texts, max_size=6), st.integers(0, 6))
def test_a_tokenizer_of_counts_added_up_is_that_of_the_whole(texts: list[str], cut: int) -> None:
    whole = Corpus.from_iterable(texts).count()
    parts = Corpus.from_iterable(texts[:cut]).count()
    parts.add(Corpus.from_iterable(texts[cut:]).count())
    assert parts.to_dict() == whole.to_dict()


def test_counts_go_through_a_file(tmp_path: Path) -> None:
    counts = Corpus.from_iterable(["the cat and the hat"]).count(pattern="cl100k")
    counts.save(tmp_path / "a.counts")
    found = Counts.load(tmp_path / "a.counts")
    assert (found.to_dict(), found.pattern) == (counts.to_dict(), "cl100k")
    assert [path.name for path in tmp_path.iterdir()] == ["a.counts"]


def test_equal_counts_are_equal_files(tmp_path: Path) -> None:
    pieces = {f"piece{i}".encode(): i + 1 for i in range(1000)}
    Counts(pieces).save(tmp_path / "a")
    Counts(dict(reversed(pieces.items()))).save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_count_beyond_32_bits_decides() -> None:
    counts = Counts({b"ab": 2**40, b"cd": 5, b"ef": 2**32 - 1})
    counts.add(Counts({b"cd": 2**40}))
    assert Tokenizer.from_counts(counts, vocab_size=258, special_tokens=()).merges == [(b"c", b"d"), (b"a", b"b")]


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: Counts({b"a": 2**64}), ValueError, r"the count of b'a' must be from 0 to 2\^64 - 1"),
        (lambda: Counts({b"a": -1}), ValueError, r"must be from 0 to 2\^64 - 1, got -1"),
        (lambda: Counts({"a": 1}), TypeError, "pieces must be bytes, got 'a'"),  # type: ignore[dict-item]
        (lambda: Counts({b"": 1}), ValueError, "a piece has from 1 to 1048576 bytes, got one of 0"),
        (lambda: Counts({b"a": 2**64 - 1}).add(Counts({b"a": 1})), ValueError, r"passes 2\^64 - 1"),
        (lambda: Tokenizer.from_counts({b"ab": 2**63, b"xab": 2**63}), ValueError, "counts of all pairs pass"),
        (
            lambda: Tokenizer.from_counts(Corpus.from_iterable(["a"]).count(pattern="char"), pattern="gpt2"),
            ValueError,
            "counts are of pieces by the pattern char, not gpt2",
        ),
        (lambda: Counts.load("no/such/file"), FileNotFoundError, "no/such/file"),
        (lambda: Corpus.from_iterable(["a"] * 9 + ["\ud800"]).count(), ValueError, r"texts\[9\] holds a lone"),
    ],
)  # fmt: skip
def test_mistakes_are_named(call, kind: type[Exception], message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(kind, match=message):
        call()


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    Counts({b"ab": 3}).save(tmp_path / "a")
    whole = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(whole[:-9] + b"c" + whole[-8:])
    with pytest.raises(FormatError, match="a: its checksum is not that of its content"):
        Counts.load(tmp_path / "a")
