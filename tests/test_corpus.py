import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tinygpt import Corpus, Tokenizer
from tinygpt._core import CLEANING_RULES, clean


def write(folder: Path, **files: str | bytes) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        path = folder / name.replace("_", ".")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def test_a_folder_gives_its_documents_in_order_of_name(tmp_path: Path) -> None:
    folder = write(tmp_path / "text", b_txt="two\n<|endoftext|>\nthree", a_md="one", c_png=b"\0")
    corpus = Corpus(folder)
    assert list(corpus) == ["one", "two\n", "three"]
    seen = {name: corpus.report[name] for name in ("documents", "bytes_read", "bytes_used", "invalid_sequences")}
    assert seen == {"documents": 3, "bytes_read": 12, "bytes_used": 12, "invalid_sequences": 0}
    assert [path.name for path in corpus.files] == ["a.md", "b.txt"]


def test_lines_are_documents_when_asked_for(tmp_path: Path) -> None:
    folder = write(tmp_path / "text", a_txt="one\n\ntwo\r\nthree")
    assert list(Corpus(folder, documents="line")) == ["one", "two", "three"]


def test_globs_choose_other_files(tmp_path: Path) -> None:
    folder = write(tmp_path / "text", a_txt="one", b_log="two")
    assert list(Corpus(folder, include=["*.log"])) == ["two"]


def test_damaged_bytes_are_replaced_and_counted_or_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "text", a_txt=b"caf\xe9 \xff")
    corpus = Corpus(folder)
    assert (list(corpus), corpus.report["invalid_sequences"]) == (["caf\ufffd \ufffd"], 2)
    with pytest.raises(ValueError, match=r"a.txt: byte 0xe9 at offset 3 is not UTF-8"):
        list(Corpus(folder, invalid="error"))


@pytest.mark.parametrize("rules", [[rule] for rule in CLEANING_RULES] + [CLEANING_RULES])
def test_a_long_document_is_cleaned_as_a_whole(tmp_path: Path, rules: list[str]) -> None:
    text = "Ein Satz,  und \t noch einer.\r\n\r\n   \n\nΣΑΣ \u3000 ΑΣ\n" * 60_000
    folder = write(tmp_path / "text", a_txt=text)
    assert list(Corpus(folder, clean=rules)) == [clean(text, rules)]


@given(texts=st.lists(st.text(alphabet="aB \n\r\t\u3000Σ", max_size=40), max_size=6))
@settings(max_examples=100, deadline=None)
def test_an_iterable_gives_its_texts_cleaned(texts: list[str]) -> None:
    assert list(Corpus.from_iterable(texts, clean=["newlines"])) == [clean(text, ["newlines"]) for text in texts]


def test_a_generator_serves_for_one_pass_and_says_so_at_the_second() -> None:
    corpus = Corpus.from_iterable(text for text in ["a", "b"])
    assert list(corpus) == ["a", "b"]
    with pytest.raises(ValueError, match="come only once"):
        list(corpus)


def test_an_object_that_starts_anew_serves_for_every_pass(tmp_path: Path) -> None:
    class Endless:
        def __iter__(self) -> Iterator[str]:
            return (f"document {i}" for i in range(1000))

    corpus = Corpus.from_iterable(Endless())
    tokenizer = Tokenizer.train(corpus, vocab_size=270)
    assert tokenizer.write_shards(corpus, tmp_path / "data").report["documents"] == 1000


def test_a_sample_is_as_small_as_asked_for_and_reported(tmp_path: Path) -> None:
    folder = write(tmp_path / "text", **{f"{i:03}_txt": f"number {i} " * 500 for i in range(100)})
    corpus = Corpus(folder)
    corpus.count(max_bytes=50_000)
    assert 40_000 < corpus.report["bytes_read"] <= 50_000
    corpus.count(max_documents=10)
    assert corpus.report["documents"] == 10
    texts = Corpus.from_iterable(list(corpus))
    texts.count(max_bytes=50_000)
    assert texts.report["bytes_read"] == 50_000
    with pytest.raises(ValueError, match="max_bytes must be at least 1, got 0"):
        corpus.count(max_bytes=0)


def test_a_sample_of_texts_is_spread_and_reported() -> None:
    texts = [f"{i:03}" for i in range(100)]
    listed, once = Corpus.from_iterable(texts), Corpus.from_iterable(iter(texts))
    assert sorted(listed.count(max_documents=4).to_dict()) == [b"000", b"025", b"050", b"075"]
    assert listed.sample == "12 bytes, from 4 of 100 documents"
    once.count(max_bytes=10)
    assert once.sample == "10 bytes, from the first 4 documents"
    listed.count(max_documents=100, max_bytes=300)
    assert not listed.sample


def test_a_change_of_files_or_settings_is_seen(tmp_path: Path) -> None:
    folder = write(tmp_path / "text", a_txt="one one one", b_txt="two two two")
    tokenizer = Tokenizer.from_merges([], special_tokens=["<|endoftext|>"])
    lineage = tokenizer.write_shards(Corpus(folder), tmp_path / "data").corpus
    assert Corpus(folder).unchanged_since(lineage)
    assert not Corpus(folder, clean=["lowercase"]).unchanged_since(lineage)
    (folder / "a.txt").write_text("ONE one one")
    assert not Corpus(folder).unchanged_since(lineage)
    (folder / "a.txt").write_text("one one one")
    (folder / "c.txt").write_text("three")
    assert not Corpus(folder).unchanged_since(lineage)


def test_progress_is_told_in_bytes(tmp_path: Path) -> None:
    folder = write(tmp_path / "text", a_txt="some words " * 3_000_000)
    seen: list[tuple[int, int | None]] = []
    Corpus(folder).count(threads=1, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (33_000_000, 33_000_000)


def test_a_progress_that_raises_stops_the_pass(tmp_path: Path) -> None:
    def stop(done: int, total: int | None) -> None:
        raise InterruptedError(f"enough after {done}")

    folder = write(tmp_path / "text", a_txt="some words " * 10_000_000)
    with pytest.raises(InterruptedError, match="enough after"):
        Corpus(folder).count(threads=1, progress=stop)


def test_mistakes_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "text", a_txt=b"ab\0", b_txt="\ufeffok")
    with pytest.raises(FileNotFoundError, match="missing.txt"):
        Corpus(tmp_path / "missing.txt")
    with pytest.raises(ValueError, match=r"a\.txt: a binary file \(zero byte at offset 2\), not text"):
        list(Corpus(folder / "a.txt"))
    with pytest.raises(ValueError, match='documents must be one of file, line, blank, got "page"'):
        Corpus(folder, documents="page")
    with pytest.raises(ValueError, match="no text files found in this folder"):
        Corpus(write(tmp_path / "empty"))
    with pytest.raises(ValueError, match="at least one file or folder, got none"):
        Corpus([])
    with pytest.raises(TypeError, match="one for each document, got one str"):
        Corpus.from_iterable("one text")
    assert list(Corpus(folder / "b.txt")) == ["ok"]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_text(tmp_path: Path) -> None:
    """Peak memory of training and encoding, one document of 50 MB and of 400 MB without a separator in it."""
    script = """
import sys
from tinygpt import Tokenizer
Tokenizer.train(sys.argv[1], vocab_size=1000, threads=2).write_shards(sys.argv[1], sys.argv[2], threads=2)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    peaks = []
    for n_megabytes in (50, 400):
        path = tmp_path / f"{n_megabytes}.txt"
        with path.open("w") as file:
            for i in range(n_megabytes):
                file.write("".join(f"line {j * 7919 % 1000} of part {i % 50}\n" for j in range(47_000)))
        words = [sys.executable, "-c", script, str(path), str(tmp_path / f"shards-{n_megabytes}")]
        peaks.append(int(subprocess.run(words, capture_output=True, text=True, check=True).stdout) / 1000)
    assert peaks[1] - peaks[0] < 20, peaks
    assert peaks[1] < 150, peaks
