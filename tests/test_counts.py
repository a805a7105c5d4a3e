"""Counts: sums that may be made anywhere, and their files."""

from collections import Counter
from pathlib import Path

import numpy as np
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


@pytest.fixture(scope="module")
def many() -> str:
    """Ten megabytes of which nearly every piece is another one: more than memory is taken for."""
    letters = np.random.default_rng(0).integers(97, 123, size=(1_600_000, 7), dtype=np.uint8)
    letters[:, 0] = ord(" ")
    return letters.tobytes().decode()


def test_counts_beyond_memory_are_those_of_a_dictionary(many: str, tmp_path: Path) -> None:
    expected = Counter(b" " + word for word in many.encode().split())
    counts = Corpus.from_iterable([many, many[: 7 * 1000]]).count(threads=2, into=Counts(temporary=tmp_path))
    expected.update(b" " + word for word in many[: 7 * 1000].encode().split())
    assert (len(counts), counts.to_dict() == expected) == (len(expected), True)
    assert list(tmp_path.iterdir()) == []


def test_counts_beyond_memory_go_through_a_file(many: str, tmp_path: Path) -> None:
    counts = Corpus.from_iterable([many]).count()
    counts.save(tmp_path / "a")
    Counts(counts.to_dict()).save(tmp_path / "b")
    Counts.load(tmp_path / "b").save(tmp_path / "c")
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert (a[16:-8] == b[12:-8], b == c) == (True, True)  # all but the pattern's name and the checksum


def test_neither_threads_nor_the_way_of_counting_change_a_tokenizer_beyond_the_bound(many: str) -> None:
    how = {"vocab_size": 400, "max_pieces_bytes": 2_000_000}
    parts = Corpus.from_iterable([many[:3_500_000]]).count()
    parts.add(Corpus.from_iterable([many[3_500_000:]]).count())
    with pytest.warns(UserWarning, match="which are 1[0-9].[0-9]{2}% of the text"):
        found = [Tokenizer.from_counts(parts, **how)]  # type: ignore[arg-type]
    for threads in (1, 2, 3):
        with pytest.warns(UserWarning, match="which are 1[0-9].[0-9]{2}% of the text"):
            found.append(Tokenizer.train([many], threads=threads, **how))  # type: ignore[arg-type]
    assert len({tokenizer.fingerprint for tokenizer in found}) == 1


def test_a_folder_for_temporary_files_that_is_not_there_is_named(many: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"no/such/folder \(pieces that do not fit into memory\)"):
        Corpus.from_iterable([many]).count(into=Counts(temporary="no/such/folder"))


def test_counts_that_were_learnt_from_keep_their_folder_for_temporary_files(many: str) -> None:
    counts = Counts({b"ab": 1}, temporary="no/such/folder")
    Tokenizer.from_counts(counts, vocab_size=257, special_tokens=(), consume=True)
    assert not counts
    with pytest.raises(FileNotFoundError, match="no/such/folder"):
        Corpus.from_iterable([many]).count(into=counts)


def test_a_bound_without_room_is_refused_before_any_text_is_read() -> None:
    texts = iter(["a b"])
    with pytest.raises(ValueError, match="max_pieces_bytes must be at least 1, got 0"):
        Tokenizer.train(texts, max_pieces_bytes=0)
    assert next(texts) == "a b"


def test_the_most_frequent_pieces_are_learnt_from_and_a_warning_says_how_many() -> None:
    pieces = {b"ab": 5, b"cdef": 3, b"g": 2}
    with pytest.warns(UserWarning, match="learnt from") as said:
        tokenizer = Tokenizer.from_counts(pieces, vocab_size=257, special_tokens=(), max_pieces_bytes=7)
    assert (tokenizer.merges, str(said[0].message)) == (
        [(b"a", b"b")],
        "the tokenizer is learnt from 2 of 3 different pieces, which are 50.00% of the text: the most frequent, as "
        "max_pieces_bytes is 7",
    )


@pytest.mark.filterwarnings("error")
def test_a_bound_that_leaves_room_for_all_changes_nothing() -> None:
    pieces = {b"ab": 5, b"cdef": 3, b"g": 2}
    found = [Tokenizer.from_counts(pieces, vocab_size=260, max_pieces_bytes=n, special_tokens=()) for n in (8, None)]
    assert found[0].merges == found[1].merges == [(b"a", b"b"), (b"c", b"d"), (b"e", b"f"), (b"cd", b"ef")]


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
        (lambda: Tokenizer.from_counts({b"ab": 1}, max_pieces_bytes=0), ValueError, "must be at least 1, got 0"),
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
