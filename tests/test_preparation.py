import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tinygpt import Corpus, Manifest, Tokenizer
from tinygpt.chats import Chats
from tinygpt.chattemplate import CHAT_TOKENS
from tinygpt.preparation import Preparation


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "poem.txt"
    path.write_text("The rose is red, the violet's blue,\nThe honey's sweet, and so are you.\n" * 20)
    return path


def prepare(text: Path, folder: Path, vocab_size: int = 270, **settings: object) -> tuple[Manifest, bool]:
    how = Preparation(**settings)  # type: ignore[arg-type]
    return how.prepare(how.corpus([text]), folder, vocab_size=vocab_size)


def test_nothing_is_done_twice(text: Path, tmp_path: Path) -> None:
    first = prepare(text, tmp_path / "data")
    written = (tmp_path / "data/train_000000.bin").stat().st_mtime_ns
    assert prepare(text, tmp_path / "data") == (first[0], False)
    assert (tmp_path / "data/train_000000.bin").stat().st_mtime_ns == written


@pytest.mark.parametrize(
    "change",
    [
        {"vocab_size": 280},
        {"val_fraction": 0.5},
        {"clean": ("lowercase",)},
        {"special_tokens": ("<eos>",)},
        {"pattern": "byte"},
    ],
)
def test_another_setting_prepares_anew(text: Path, tmp_path: Path, change: dict[str, object]) -> None:
    prepare(text, tmp_path / "data")
    assert prepare(text, tmp_path / "data", **change)[1]  # type: ignore[arg-type]


def test_ranks_take_pattern_and_special_tokens_from_the_flags(text: Path, tmp_path: Path) -> None:
    trained = Tokenizer.train(text, vocab_size=280, pattern="cl100k", special_tokens=[])
    trained.save(tmp_path / "a.tiktoken")
    how = {"tokenizer": tmp_path / "a.tiktoken", "pattern": "cl100k", "special_tokens": ("<eos>",)}
    assert prepare(text, tmp_path / "data", **how)[1]  # type: ignore[arg-type]
    found = Tokenizer.load(tmp_path / "data")
    assert (found.pattern, found.special_tokens, found.merges) == ("cl100k", {"<eos>": 280}, trained.merges)
    assert not prepare(text, tmp_path / "data", **how)[1]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["train_000000.bin", "train_000000.idx", "tokenizer.json"])
def test_what_was_damaged_is_prepared_anew(text: Path, tmp_path: Path, name: str) -> None:
    manifest, _ = prepare(text, tmp_path / "data")
    (tmp_path / "data" / name).write_bytes(b"{")
    assert prepare(text, tmp_path / "data") == (manifest, True)
    (tmp_path / "data" / name).unlink()
    assert prepare(text, tmp_path / "data") == (manifest, True)


def test_what_an_older_version_wrote_without_origins_is_prepared_anew(text: Path, tmp_path: Path) -> None:
    manifest, _ = prepare(text, tmp_path / "data")
    listed = json.loads((tmp_path / "data/manifest.json").read_text())
    for source in listed["corpus"]["sources"]:
        source["documents"] = 0
    (tmp_path / "data/manifest.json").write_text(json.dumps(listed))
    assert (Manifest.load(tmp_path / "data").has_origins, prepare(text, tmp_path / "data")) == (False, (manifest, True))


@pytest.mark.skipif(sys.platform != "linux", reason="names that are no UTF-8 exist on Linux alone")
def test_a_name_that_is_no_utf8_can_be_prepared(text: Path, tmp_path: Path) -> None:
    odd = text.rename(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt"))
    manifest, _ = prepare(odd, tmp_path / "data")
    assert manifest.corpus is not None
    assert manifest.corpus["sources"][0]["path"].endswith(r"caf\xe9.txt")
    assert not prepare(odd, tmp_path / "data")[1]


def test_another_text_prepares_anew(text: Path, tmp_path: Path) -> None:
    prepare(text, tmp_path / "data")
    text.write_text(text.read_text().replace("red", "rot"))
    assert prepare(text, tmp_path / "data")[1]


def test_a_tokenizer_that_is_given_is_used(text: Path, tmp_path: Path) -> None:
    Tokenizer.from_merges([(b"t", b"h")], special_tokens=["<|endoftext|>"]).save(tmp_path / "tok")
    manifest, _ = prepare(text, tmp_path / "data", tokenizer=tmp_path / "tok")
    assert (manifest.vocab_size, manifest.fingerprint) == (258, Tokenizer.load(tmp_path / "tok").fingerprint)
    assert not prepare(text, tmp_path / "data", tokenizer=tmp_path / "tok")[1]


def chats_file(path: Path, words: str) -> Path:
    path.write_text("".join(json.dumps({"prompt": words, "completion": words}) + "\n" for _ in range(50)))
    return path


def test_a_shared_tokenizer_is_that_of_all_texts_in_a_row(text: Path, tmp_path: Path) -> None:
    chats, how = chats_file(tmp_path / "chats.jsonl", "violets are not blue"), Preparation()
    shared = how.shared_tokenizer([how.corpus([text]), how.corpus([chats])], vocab_size=300)
    texts = [*Corpus(text), *Chats(chats).texts()]
    wanted = Tokenizer.train(
        Corpus.from_iterable(texts), vocab_size=300, special_tokens=["<|endoftext|>", *CHAT_TOKENS]
    )
    assert shared == wanted


def test_a_sample_for_a_shared_tokenizer_is_of_each_and_bounded(text: Path, tmp_path: Path) -> None:
    path, how = chats_file(tmp_path / "chats.jsonl", "tiger " * 8), Preparation(max_bytes=1000)
    with path.open("a") as file:
        file.write(json.dumps({"prompt": "zebra " * 800, "completion": "zebra"}))
    shared = how.shared_tokenizer([how.corpus([text]), how.corpus([path])], vocab_size=285)
    lengths = [len(shared.encode(word)) for word in (" tiger", "zebra")]
    assert lengths[0] <= 2, lengths
    assert lengths[1] == 5, lengths
    assert len(shared.encode(" honey's")) < 8


def test_a_set_of_special_tokens_goes_by_one_name(text: Path, tmp_path: Path) -> None:
    prepare(text, tmp_path / "data", special_tokens=("spm",))
    tokenizer = Tokenizer.load(tmp_path / "data")
    assert list(tokenizer.special_tokens) == ["<pad>", "<unk>", "<bos>", "<eos>"]
    assert tokenizer.eot_id == tokenizer.special_tokens["<eos>"]


def test_what_could_not_be_written_is_refused_before_any_work(text: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="mine exists and is no prepared folder"):
        prepare(text, tmp_path / "mine", vocab_size=0)
    with pytest.raises(ValueError, match="must hold one that ends a document .*, found <pad>"):
        prepare(text, tmp_path / "data", vocab_size=0, special_tokens=("<pad>",))


def test_values_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="val_fraction must be at least 0 and below 1, got 1"):
        Preparation(val_fraction=1)
    with pytest.raises(ValueError, match="shard_tokens must be from 1 to 2147483647, got 0"):
        Preparation(shard_tokens=0)


@pytest.mark.skipif(os.name == "nt", reason="signals are those of POSIX")
@pytest.mark.parametrize("stage", ["count", "learn", "look ahead", "write"])
def test_ctrl_c_answers_within_a_second_and_leaves_only_what_goes_on(tmp_path: Path, stage: str) -> None:
    body = {
        "count": "Corpus('big.txt').count()",
        "learn": "Tokenizer.from_counts(counts, vocab_size=10**6)",
        "look ahead": "Tokenizer.from_merges([], special_tokens=['<|endoftext|>']).write_shards('big.txt', 'data')",
        "write": "Tokenizer.from_merges([], special_tokens=['<|endoftext|>']).write_shards('big.txt', 'data')",
    }[stage]
    script = f"""
import random, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is born deaf to Ctrl-C
from tinygpt import Corpus, Counts, Tokenizer
if {stage!r} == "learn":
    letters = random.Random(0).randbytes(6_000_000).hex()
    counts = Counts({{letters[i:i + 40].encode(): 1 for i in range(0, len(letters), 40)}})
elif {stage!r} == "look ahead":  # where a document of 30 GB ends is looked for before any of it is encoded
    with open("big.txt", "w") as file:
        file.write("a line\\n" * 2000)
        file.truncate(30 << 30)
else:
    with open("big.txt", "w") as file:
        for _ in range(60):
            file.write("some words, in which nothing comes twice in a row; " * 200_000)
print("ready", flush=True)
{body}
"""
    child = subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    time.sleep(0.4)
    begin = time.monotonic()
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=60)
    assert b"KeyboardInterrupt" in errors
    assert time.monotonic() - begin < 1.5  # a second, and the interpreter's own end
    left = [path for path in tmp_path.iterdir() if path.name != "big.txt"]
    assert [path.name for path in left if not (path / "journal.json").is_file()] == []  # with one it goes on
