"""Filters and reports through the doors of Python and the command; what each rule does is tested in Rust."""

import json
from pathlib import Path
from typing import Any

import pytest
from tinygpt import Corpus, Tokenizer
from tinygpt.corpusreport import report_lines

ENGLISH = "The quick brown fox jumps over the lazy dog, and then it goes home to sleep in the warm sun of the garden."
GERMAN = "Der schnelle braune Fuchs springt über den faulen Hund und geht dann nach Hause, um in der Sonne zu schlafen."
LONG = " ".join(f"sentence {i} tells of matter {i * 7} and of nothing else" for i in range(60))
NEARLY = LONG.replace("sentence 30", "paragraph 30")
DOCUMENTS = [ENGLISH, GERMAN, "short", ENGLISH, LONG, NEARLY, "a few words"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "a.jsonl"
    found.write_text("".join(json.dumps({"text": document}) + "\n" for document in DOCUMENTS))
    return found


@pytest.mark.parametrize(
    ("filters", "left_out"),
    [
        ({"min_chars": 20}, {2: "min-chars", 6: "min-chars"}),
        ({"max_chars": 500}, {4: "max-chars", 5: "max-chars"}),
        ({"language": "en", "min_chars": 20}, {1: "language", 2: "min-chars", 6: "min-chars"}),
        ({"dedup": "exact"}, {3: "exact-duplicate"}),
        ({"dedup": "near"}, {3: "exact-duplicate", 5: "near-duplicate"}),
    ],
)
def test_filters_leave_out_what_they_say(path: Path, filters: dict[str, Any], left_out: dict[int, str]) -> None:
    corpus = Corpus(path, **filters)
    assert list(corpus) == [text for i, text in enumerate(DOCUMENTS) if i not in left_out]
    removed = {rule: documents for rule, (documents, _) in corpus.report["removed"].items() if documents}
    assert removed == {rule: list(left_out.values()).count(rule) for rule in left_out.values()}


@pytest.mark.parametrize("threads", [1, 2])
def test_bytes_add_up_through_every_pass(path: Path, tmp_path: Path, threads: int) -> None:
    corpus = Corpus(path, dedup="near", min_chars=10, clean=["lowercase", "whitespace"], threads=threads)
    tokenizer = Tokenizer.train(corpus, vocab_size=300)
    seen = [dict(corpus.report)]
    tokenizer.write_shards(corpus, tmp_path / "data")
    list(corpus)
    seen.append(dict(corpus.report))
    for report in seen:
        removed = sum(n_bytes for _, n_bytes in report["removed"].values())
        assert report["bytes_read"] == report["bytes_used"] + removed + sum(report["cleaned"].values())
        assert report["bytes_read"] == sum(len(document.encode()) for document in DOCUMENTS)


def test_documents_with_damaged_bytes_may_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"good\nb\xffd\nfine\n" + b"long " * 100_000 + b"\xff" + b" long" * 100_000)
    corpus = Corpus(tmp_path / "a.txt", documents="line", invalid="skip")
    assert list(corpus) == ["good", "fine"]
    assert corpus.report["removed"]["invalid"][0] == 2


def test_quality_leaves_out_what_is_no_prose(tmp_path: Path) -> None:
    prose = " ".join(f"{ENGLISH[:-1]} and {name} looks on." for name in ("Anna", "Ben", "Clara", "Dan", "Eva", "Finn"))
    (tmp_path / "a.txt").write_text(f"{prose}\n{'buy now # ' * 80}\nlorem ipsum {prose}\n")
    for preset, n_kept in (("gopher", 2), ("c4", 1)):
        corpus = Corpus(tmp_path / "a.txt", documents="line", quality=preset)
        assert len(list(corpus)) <= n_kept
        assert all(rule.startswith("quality:") for rule in corpus.report["removed"])


def test_mistakes_in_filters_are_named_at_once(path: Path) -> None:
    for filters, message in [
        ({"language": "xx"}, "xx"),
        ({"quality": "good"}, 'quality must be one of gopher, c4, got "good"'),
        ({"dedup": "all"}, 'dedup must be one of exact, near, got "all"'),
        ({"min_chars": 9, "max_chars": 3}, "min_chars must be at most max_chars, got 9 and 3"),
    ]:
        with pytest.raises(ValueError, match=message):
            Corpus(path, **filters)  # type: ignore[arg-type]


def test_the_table_shows_what_became_of_everything(path: Path) -> None:
    corpus = Corpus(path, dedup="exact", clean=["lowercase"])
    list(corpus)
    rows = [line.split() for line in report_lines(corpus.report)[1:]]
    assert [(row[0], row[-2]) for row in rows if row[0] in ("read", "used")] == [("read", "7"), ("used", "6")]
    assert ["-", "exact-duplicate", "1", str(len(ENGLISH))] in rows
