import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from tinygpt.heldout import open_held_out
from tinygpt.reading import Reading
from tinygpt.tokenizer import Tokenizer

TEXTS = ["one two", "three", "four five six"]
TOKENIZER = Tokenizer.train(["a"], pattern="byte")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files of text, three documents, and JSON lines of the same texts with labels."""
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text(f"{TEXTS[0]}\n<|endoftext|>\n{TEXTS[1]}", encoding="utf-8")
    (tmp_path / "text" / "b.txt").write_text(TEXTS[2], encoding="utf-8")
    records = [{"text": TEXTS[i], "label": "xyx"[i], "meta": {"n": i}} for i in range(3)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records), encoding="utf-8")
    return tmp_path


def test_text_is_read_into_documents_and_its_folder_goes_away(folder: Path) -> None:
    with open_held_out([folder / "text"], TOKENIZER) as found:
        rows = [found.read(a, b - a).tolist() for a, b in zip(found.starts, found.ends, strict=True)]
        assert [TOKENIZER.decode(row[:-1]).strip() for row in rows] == TEXTS
        assert {row[-1] for row in rows} == {TOKENIZER.eot_id}
        place = found.opened.folder
        assert found.opened.name == str(folder / "text")
    assert place is not None
    assert not place.exists()


def test_documents_are_grouped_by_file(folder: Path) -> None:
    with open_held_out([folder / "text"], TOKENIZER, by="file") as found:
        assert [Path(name).name for name in found.names] == ["a.txt", "b.txt"]
        assert found.groups is not None
        assert found.groups.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("field", "names", "groups"), [("label", ("x", "y"), [0, 1, 0]), ("meta.n", ("0", "1", "2"), [0, 1, 2])]
)
def test_documents_are_grouped_by_label(folder: Path, field: str, names: tuple[str, ...], groups: list[int]) -> None:
    with open_held_out([folder / "a.jsonl"], TOKENIZER, by="label", label_field=field) as found:
        assert found.names == names
        assert found.groups is not None
        assert found.groups.tolist() == groups


def test_labels_stay_with_their_documents_through_filters_and_shuffling(folder: Path) -> None:
    TOKENIZER.write_shards(folder / "a.jsonl", folder / "data", val_fraction=0.0, shuffle=3, shard_tokens=9)
    with open_held_out([folder / "data"], TOKENIZER, split="train", by="label") as found:
        assert found.groups is not None
        got = {
            TOKENIZER.decode(found.read(int(a), int(b - a)).tolist()[:-1]): found.names[g]
            for a, b, g in zip(found.starts, found.ends, found.groups.tolist(), strict=True)
        }
    assert got == dict(zip(TEXTS, "xyx", strict=True))
    with open_held_out([folder / "a.jsonl"], TOKENIZER, by="label", reading=Reading(min_chars=6)) as found:
        assert found.groups is not None
        assert (found.names, found.groups.tolist()) == (("x",), [0, 0])


def test_the_first_tokens_alone_are_taken(folder: Path) -> None:
    with open_held_out([folder / "text"], TOKENIZER, max_tokens=10, by="file") as found:
        assert (found.n_tokens, found.ends.tolist()) == (10, [9, 10])
        assert found.groups is not None
        assert found.groups.tolist() == [0, 0]


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("count_separators", [False, True])
def test_scored_are_tokens_with_something_before_them(folder: Path, apart: bool, count_separators: bool) -> None:
    with open_held_out([folder / "a.jsonl"], TOKENIZER) as found:
        n = found.n_tokens
        whole = found.is_scored(0, n, apart=apart, count_separators=count_separators)
        parts = [found.is_scored(i, 1, apart=apart, count_separators=count_separators) for i in range(n)]
    separators = (np.cumsum([len(text) + 1 for text in TEXTS]) - 1).tolist()
    unscored = [0] * (not apart) + separators * (not count_separators)
    assert np.flatnonzero(~whole).tolist() == unscored
    assert np.concatenate(parts).tolist() == whole.tolist()


def test_rows_of_documents_apart_begin_with_a_separator(folder: Path) -> None:
    with open_held_out([folder / "a.jsonl"], TOKENIZER) as found:
        rows = [found.row(a, b).tolist() for a, b in found.bounds(apart=True)]
        assert list(found.bounds(apart=False)) == [(0, found.n_tokens)]
    eot = TOKENIZER.eot_id
    assert rows == [[eot, *TOKENIZER.encode(text), eot] for text in TEXTS]


def test_bytes_are_those_of_the_text_without_separators(folder: Path) -> None:
    with open_held_out([folder / "a.jsonl"], TOKENIZER) as found:
        assert found.text_of(found.read(0, found.n_tokens)) == "".join(TEXTS).encode()


def test_chats_are_judged_by_their_answers(tmp_path: Path) -> None:
    lines = [{"prompt": "2 + 2?", "completion": "4"}, {"prompt": "3 + 3?", "completion": "six"}]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines), encoding="utf-8")
    from tinygpt.chattemplate import CHAT_TOKENS

    tokenizer = TOKENIZER.with_special_tokens(CHAT_TOKENS)
    with open_held_out([tmp_path / "chats.jsonl"], tokenizer) as found:
        ids = found.read(0, found.n_tokens)
        kept = ids[found.is_scored(0, found.n_tokens, apart=False, count_separators=True)]
        assert found.text_of(kept) == b"4six"
        assert len(list(found.bounds(apart=False))) == 2


def refusals(folder: Path) -> dict[str, tuple[list[Path], dict[str, object], str]]:
    with gzip.open(folder / "a.jsonl.gz", "wb") as file:
        file.write((folder / "a.jsonl").read_bytes())
    (folder / "empty.txt").write_text("")
    (folder / "chats.jsonl").write_text('{"prompt": "a", "completion": "b"}')
    TOKENIZER.write_shards(folder / "text", folder / "data", val_fraction=0.0)
    other = Tokenizer.train(["b b"], vocab_size=257)
    other.write_shards(folder / "text", folder / "other", val_fraction=0.0)
    TOKENIZER.write_shards(["from a program"], folder / "program", val_fraction=0.0)
    return {
        "no split": ([folder / "data"], {"split": "test"}, "has no split 'test'; it has train"),
        "other tokenizer": ([folder / "other"], {"split": "train"}, "name the text itself"),
        "two folders": ([folder / "data", folder / "text"], {}, "is a prepared folder; name it alone"),
        "reading": ([folder / "data"], {"reading": Reading(documents="line")}, "is prepared already"),
        "no file": ([folder / "program"], {"split": "train", "by": "file"}, "came from a program"),
        "no jsonl": ([folder / "text"], {"by": "label"}, "a.txt: labels are read from .jsonl files"),
        "packed": ([folder / "a.jsonl.gz"], {"by": "label"}, "a.jsonl.gz: labels are read from .jsonl files"),
        "no label": ([folder / "a.jsonl"], {"by": "label", "label_field": "tag"}, "byte 0: no tag in the record"),
        "object": ([folder / "a.jsonl"], {"by": "label", "label_field": "meta"}, "meta must be a text, number or"),
        "no text": ([folder / "empty.txt"], {}, "empty.txt: no text to encode"),
        "chats": ([folder / "chats.jsonl"], {}, "holds chats, and the model knows none"),
        "by": ([folder / "text"], {"by": "folder"}, "by must be one of none, file, label, got folder"),
        "max": ([folder / "text"], {"max_tokens": 0}, "max_tokens must be at least 1, got 0"),
    }


CASES = ["no split", "other tokenizer", "two folders", "reading", "no file", "no jsonl", "packed", "no label"]
CASES += ["object", "no text", "chats", "by", "max"]


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_judged_on_is_refused(folder: Path, case: str) -> None:
    paths, options, message = refusals(folder)[case]
    with pytest.raises(ValueError) as caught, open_held_out(paths, TOKENIZER, **options):  # type: ignore[arg-type]  # noqa: PT011
        pass
    assert message in str(caught.value)
