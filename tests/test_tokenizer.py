import json
import multiprocessing
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference_bpe
import tiktoken
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import assigned_texts, hard_texts, sample
from tinygpt import Corpus, Counts, FormatError, Manifest, Tokenizer
from tinygpt._core import pieces, xxh3_file

GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
TEXT = "It's the tale of a tailor's tale, told 1234 times; the tall tale's tail.\n\n  The end — 終わり。\n" * 3
SMALL = Tokenizer.train(Corpus.from_iterable([TEXT]), vocab_size=300)


@given(assigned_texts)
@settings(max_examples=1000, deadline=None)
def test_pieces_are_those_of_the_regular_expression(text: str) -> None:
    assert pieces(text) == reference_bpe.pieces(text)


@pytest.mark.filterwarnings("ignore:no pair of tokens is left")
@given(st.lists(st.text(alphabet="ab c'\n", max_size=30) | assigned_texts, max_size=6), st.integers(0, 30))
@settings(max_examples=300, deadline=None)
def test_learnt_merges_are_those_of_the_reference(texts: list[str], n_merges: int) -> None:
    counts = Counts()
    counts.add_texts(texts)
    learnt = Tokenizer.from_counts(counts, vocab_size=257 + n_merges) if counts.to_dict() else None
    expected = reference_bpe.train(texts, n_merges)
    assert (learnt._bpe.merges() if learnt else []) == expected


@given(assigned_texts)
@settings(max_examples=500, deadline=None)
def test_ids_are_those_of_the_reference(text: str) -> None:
    assert SMALL.encode(text) == reference_bpe.encode(text, SMALL._bpe.merges())


@given(hard_texts)
@settings(max_examples=500, deadline=None)
def test_decoding_gives_the_text_back(text: str) -> None:
    assert SMALL.decode(SMALL.encode(text)) == text
    assert SMALL.decode(SMALL.encode(text, allowed_special="all")) == text


@given(st.lists(hard_texts, max_size=8), st.sampled_from([1, 2, 3]))
@settings(max_examples=100, deadline=None)
def test_every_door_gives_the_same_ids(texts: list[str], threads: int) -> None:
    expected = [SMALL.encode(text) for text in texts]
    flat = [i for ids in expected for i in ids]
    ids, ends = SMALL.encode_batch_to_numpy(texts, threads=threads)
    assert [SMALL.encode_to_numpy(text).tolist() for text in texts] == expected
    assert SMALL.encode_batch(texts, threads=threads) == expected
    assert (ids.tolist(), ends.tolist()) == (flat, np.cumsum([len(ids) for ids in expected], dtype=int).tolist())
    assert list(SMALL.encode_iterable(texts)) == flat
    assert SMALL.decode_batch(expected) == texts


def test_gpt2_ids_equal_the_530_cases() -> None:
    gpt2 = Tokenizer.load(sample("gpt2.tiktoken"), special_tokens=["<|endoftext|>"])
    cases = [
        json.loads(line)
        for line in sample("encodings/cases.jsonl").read_text(encoding="utf-8").rstrip("\n").split("\n")
    ]
    assert len(cases) == 530
    for case in cases:
        assert gpt2.encode(case["text"]) == case["gpt2"]
        if "gpt2/special" in case:
            assert gpt2.encode(case["text"], allowed_special="all") == case["gpt2/special"]
    assert len(gpt2.encode(sample("tinyshakespeare.txt").read_text(encoding="utf-8"))) == 338_025


def as_tiktoken(tokenizer: Tokenizer) -> tiktoken.Encoding:
    special = tokenizer.special_tokens
    ranks = {tokenizer.token_bytes(i): i for i in range(tokenizer.vocab_size) if i not in special.values()}
    return tiktoken.Encoding("ours", pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens=special)


PEER = as_tiktoken(SMALL)


@given(hard_texts)
@settings(max_examples=500, deadline=None)
def test_ids_equal_those_of_tiktoken(text: str) -> None:
    assert SMALL.encode(text) == PEER.encode_ordinary(text)
    assert SMALL.encode(text, allowed_special="all") == PEER.encode(text, allowed_special="all")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    SMALL.save(folder)
    return folder


def test_ids_equal_those_of_tokenizers_on_a_saved_file(saved: Path) -> None:
    theirs = tokenizers.Tokenizer.from_file(str(saved / "tokenizer.json"))

    @given(hard_texts)
    @settings(max_examples=500, deadline=None)
    def check(text: str) -> None:
        assert theirs.encode(text).ids == SMALL.encode(text, allowed_special="all")
        assert theirs.decode(theirs.encode(text).ids, skip_special_tokens=False) == text

    check()


def test_transformers_opens_a_saved_folder(saved: Path) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(saved)
    assert theirs(TEXT)["input_ids"] == SMALL.encode(TEXT)
    assert theirs.eos_token_id == SMALL.eot_id


def test_saving_and_loading_changes_nothing(saved: Path) -> None:
    loaded = Tokenizer.load(saved)
    assert loaded == SMALL
    assert (loaded.merges, loaded.special_tokens, loaded.pattern) == (SMALL.merges, SMALL.special_tokens, "gpt2")


def test_a_byte_tokenizer_has_256_ids_and_its_specials(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(Corpus.from_iterable(["abc"]), pattern="byte")
    tokenizer.save(tmp_path / "byte.json")
    assert (tokenizer.vocab_size, tokenizer.encode("é a")) == (257, [0xC3, 0xA9, 32, 97])
    assert Tokenizer.load(tmp_path / "byte.json") == tokenizer
    assert tokenizers.Tokenizer.from_file(str(tmp_path / "byte.json")).encode("é a").ids == [0xC3, 0xA9, 32, 97]


def test_a_tokenizer_survives_pickling_threads_and_forks() -> None:
    assert pickle.loads(pickle.dumps(SMALL)) == SMALL  # our own object, on its way to another process
    expected = SMALL.encode(TEXT)
    with ThreadPoolExecutor(8) as threads:
        assert all(ids == expected for ids in threads.map(SMALL.encode, [TEXT] * 64))
    SMALL.encode_batch([TEXT] * 8)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(SMALL.encode, [TEXT] * 4) == [expected] * 4
        assert pool.map(SMALL.encode_batch, [[TEXT]] * 4) == [[expected]] * 4


def test_constructors_agree() -> None:
    special = ["<|endoftext|>"]
    counts = Counts()
    counts.add_texts([TEXT], special_tokens=special)
    ranks = {SMALL.token_bytes(i): i for i in range(299)}
    assert Tokenizer.from_counts(counts, vocab_size=300) == SMALL
    assert Tokenizer.from_counts(counts.to_dict(), vocab_size=300) == SMALL
    assert Tokenizer.from_merges(SMALL.merges, special_tokens=special) == SMALL
    assert Tokenizer.from_ranks(ranks, special_tokens=special) == SMALL
    assert Tokenizer.from_merges(SMALL.merges, special_tokens={"<|endoftext|>": 299}) == SMALL


def test_counts_of_parts_add_up() -> None:
    parts, whole = [Counts(), Counts()], Counts()
    for counts, text in zip(parts, [TEXT, "another text"], strict=True):
        counts.add_texts([text])
    whole.add_texts([TEXT, "another text"])
    parts[0].add(parts[1])
    assert parts[0].to_dict() == whole.to_dict()


def test_special_tokens_are_cut_out_of_training_text() -> None:
    counts = Counts()
    counts.add_texts(["a<|endoftext|>a"], special_tokens=["<|endoftext|>"])
    assert counts.to_dict() == {b"a": 2}


def test_a_special_token_may_have_an_id_of_its_own() -> None:
    tokenizer = Tokenizer.train(Corpus.from_iterable([TEXT]), vocab_size=300, special_tokens={"<pad>": 500})
    assert (tokenizer.vocab_size, tokenizer.pad_id, tokenizer.decode([500])) == (501, 500, "<pad>")


def test_ids_of_special_tokens_are_the_same_to_tokenizers(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_merges([(b"a", b"b")], special_tokens={"<pad>": 500, "<eos>": 300})
    tokenizer.save(tmp_path / "a.json")
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "a.json"))
    assert theirs.encode("ab<eos><pad>").ids == tokenizer.encode("ab<eos><pad>", allowed_special="all")
    assert Tokenizer.load(tmp_path / "a.json") == tokenizer


def test_a_special_token_spelled_as_another_token_is_not_saved(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_merges([(b"<", b"s"), (b"<s", b">")], special_tokens=["<s>"])
    with pytest.raises(ValueError, match="'<s>' is a special token and the token 257"):
        tokenizer.save(tmp_path / "a.json")


def test_padding_stands_on_the_side_asked_for() -> None:
    tokenizer = Tokenizer.from_merges([], special_tokens=["<pad>"])
    ids, mask = tokenizer.encode_padded(["ab", "c", ""])
    left, left_mask = tokenizer.encode_padded(["abc", "d"], max_length=2, side="left")
    assert (ids.tolist(), mask.tolist()) == (
        [[97, 98], [99, 256], [256, 256]],
        [[True, True], [True, False], [False] * 2],
    )
    assert (left.tolist(), left_mask.tolist()) == ([[97, 98], [256, 100]], [[True, True], [False, True]])


@given(hard_texts)
@settings(deadline=None)
def test_token_lengths_add_up_to_the_text(text: str) -> None:
    n_bytes, n_characters = SMALL.token_lengths()
    ids = SMALL.encode(text)
    assert (n_bytes[ids].sum(), n_characters[ids].sum()) == (len(text.encode()), len(text))


def test_tokens_are_found_by_text_bytes_and_name() -> None:
    tokens: list[str | bytes] = ["a", b"\xe7", "<|endoftext|>", "zzz"]
    assert [SMALL.token_to_id(token) for token in tokens] == [97, 0xE7, 299, None]
    assert [SMALL.id_to_token(i) for i in (97, 0xE7, 299)] == ["a", "\\xe7", "<|endoftext|>"]


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: SMALL.encode("ab\ud800"), ValueError, "text holds a lone surrogate at character 2"),
        (lambda: SMALL.encode_batch(["a", "\udfff"]), ValueError, r"texts\[1\] holds a lone surrogate at character 0"),
        (lambda: SMALL.encode(b"ab"), TypeError, "text"),  # type: ignore[arg-type]
        (lambda: SMALL.encode("a", allowed_special={"<x>"}), ValueError, '"<x>" is no special token'),
        (lambda: SMALL.encode("a", allowed_special="<|endoftext|>"), ValueError, 'must be "all" or a set'),
        (lambda: SMALL.decode([1, 300]), ValueError, "id 300 at place 1 is not in the vocabulary of 300 ids"),
        (lambda: SMALL.decode([1, -1]), ValueError, "id -1 at place 1"),
        (lambda: SMALL.decode([1, 2**40]), ValueError, "id 1099511627776 at place 1"),
        (lambda: SMALL.decode([1, 2.5]), TypeError, "got 2.5 at place 1"),  # type: ignore[list-item]
        (lambda: SMALL.token_bytes(300), ValueError, "id 300"),
        (lambda: SMALL.encode_padded(["a"]), ValueError, "no pad token"),
        (lambda: Tokenizer.train(["some text"], vocab_size=100), ValueError, "at least 257 .256 bytes and .*, got 100"),
        (lambda: Tokenizer.train(Corpus.from_iterable([])), ValueError, "no text"),
        (lambda: Tokenizer.train("no/such/file.txt"), FileNotFoundError, "no/such/file.txt"),
        (lambda: Tokenizer.train(["no/such/file.txt"]), FileNotFoundError, "no/such/file.txt"),
        (lambda: Tokenizer.train(["some text"], pattern="gtp2"), ValueError, '"gtp2"; the patterns are gpt2, cl100k'),
        (lambda: Tokenizer.train(["some text"], special_tokens=["<a b>"]), ValueError, "holds white space"),
        (lambda: Tokenizer.train(["some text"], special_tokens=[""]), ValueError, "empty"),
        (lambda: Tokenizer.train(["some text"], special_tokens=["<a>", "<a>"]), ValueError, "named twice"),
        (lambda: Tokenizer.train(["some text"], threads=0), ValueError, "threads must be at least 1, got 0"),
        (lambda: SMALL.encode_batch(["some text"], threads=-1), ValueError, "threads must be at least 1, got -1"),
        (lambda: SMALL.encode_batch(["a"], threads=10**5), ValueError, "threads must be at most 1024, got 100000"),
        (lambda: Corpus.from_iterable(["a"], clean=["lower"]), ValueError, 'unknown cleaning rule "lower"'),
    ],
)  # fmt: skip
def test_mistakes_are_named(call, kind: type[Exception], message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda layout: layout.update(normalizer={"type": "NFC"}), "normalizer 'NFC' is not supported"),
        (lambda layout: layout["model"].update(type="WordPiece"), "model.type is 'WordPiece'"),
        (lambda layout: layout["model"].update(byte_fallback=True), "model.byte_fallback is True"),
        (lambda layout: layout["model"]["vocab"].pop("!"), "byte 0x21 has no id"),
        (lambda layout: layout["model"]["vocab"].update({"\n": 999}), "which is no byte in the byte-level alphabet"),
        (lambda layout: layout["model"]["merges"].append(["zz", "q"]), 'needs the token "zz", which has no id'),
        (lambda layout: layout["pre_tokenizer"].update(type="Whitespace"), "pre_tokenizer 'Whitespace'"),
        (lambda layout: layout.pop("model"), "model is missing"),
        (lambda layout: layout.update(added_tokens=5), "added_tokens is no list"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_byte_level_bpe_is_refused(saved: Path, tmp_path: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    layout = json.loads((saved / "tokenizer.json").read_text(encoding="utf-8"))
    change(layout)
    (tmp_path / "tokenizer.json").write_text(json.dumps(layout), encoding="utf-8")
    with pytest.raises(FormatError, match=message):
        Tokenizer.load(tmp_path)


def test_old_dialects_of_tokenizer_json_are_read(saved: Path, tmp_path: Path) -> None:
    layout = json.loads((saved / "tokenizer.json").read_text(encoding="utf-8"))
    del layout["model"]["type"]
    layout["model"]["merges"] = [" ".join(pair) for pair in layout["model"]["merges"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(layout), encoding="utf-8")
    assert Tokenizer.load(tmp_path) == SMALL


@pytest.mark.filterwarnings("error")
def test_a_text_too_small_for_the_vocabulary_gives_a_warning() -> None:
    with pytest.raises(UserWarning, match="after 1 merges, so the vocabulary has 258 ids, not 1000"):
        Tokenizer.train(Corpus.from_iterable(["ab"]), vocab_size=1000)


def test_shards_hold_each_document_and_its_end(tmp_path: Path) -> None:
    texts = [f"document {i}\n" for i in range(20)]
    manifest = SMALL.write_shards(Corpus.from_iterable(texts), tmp_path / "data", val_fraction=0.0)
    tokens = np.fromfile(tmp_path / "data/train_000000.bin", "<u2", offset=1024)
    ends = np.fromfile(tmp_path / "data/train_000000.idx", "<u8")
    found = [SMALL.decode(part) for part in np.split(tokens, ends.astype(int))[:-1]]
    assert found == [text + "<|endoftext|>" for text in texts]
    assert manifest == Manifest.load(tmp_path / "data")
    assert manifest.splits["train"][0].xxh3 == xxh3_file(tmp_path / "data/train_000000.bin")


def test_shards_of_files_and_of_their_texts_are_equal(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    texts = ["a b c\n" * 100_000, "short", "x" * 300_000]
    for i, text in enumerate(texts):
        (tmp_path / f"text/{i}.txt").write_text(text)
    SMALL.write_shards(tmp_path / "text", tmp_path / "files", threads=2)
    SMALL.write_shards(Corpus.from_iterable(texts), tmp_path / "texts", threads=1)
    names = ["train_000000.bin", "train_000000.idx", "val_000000.bin", "val_000000.idx"]
    for name in names:
        assert (tmp_path / "files" / name).read_bytes() == (tmp_path / "texts" / name).read_bytes()


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    SMALL.write_shards(Corpus.from_iterable(["good"]), tmp_path / "data")
    before = (tmp_path / "data/manifest.json").read_bytes()
    with pytest.raises(TypeError, match="document 1 must be a str, got int"):
        SMALL.write_shards(Corpus.from_iterable(["bad", 1]), tmp_path / "data")  # type: ignore[list-item]
    assert (tmp_path / "data/manifest.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_folder_with_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="is no prepared folder"):
        SMALL.write_shards(Corpus.from_iterable(["text"]), tmp_path)
    (tmp_path / "manifest.json").write_text('{"manifest_version": 3, "name": "an extension"}')
    with pytest.raises(FileExistsError, match="is no prepared folder"):
        SMALL.write_shards(Corpus.from_iterable(["text"]), tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_a_damaged_tiktoken_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tiktoken").write_text(f"YQ== {10**30}\n")
    with pytest.raises(FormatError, match=r"a\.tiktoken: line 1 is not a new token and its rank"):
        Tokenizer.load(tmp_path / "a.tiktoken")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocab_size": 2**21 + 1}, "vocab_size must be at most 2097152, got 2097153"),
        ({"vocab_size": 300, "special_tokens": {"<a>": 0}}, "the id of <a> must be from 299 .* got 0"),
        ({"vocab_size": 300, "special_tokens": {"<a>": 300, "<b>": 297}}, "the id of <b> must be from 298 .* got 297"),
        ({"vocab_size": 300, "special_tokens": {"<a>": 2**21}}, "the id of <a> must be .* to 2097151, got 2097152"),
        ({"pattern": "byte", "special_tokens": {"<a>": 255}}, "the id of <a> must be from 256 .* got 255"),
    ],
)
def test_what_cannot_be_is_refused_before_the_text_is_read(settings: dict[str, Any], message: str) -> None:
    def unread() -> Iterator[str]:
        pytest.fail("read")
        yield ""

    with pytest.raises(ValueError, match=message):
        Tokenizer.train(unread(), **settings)
    with pytest.raises(ValueError, match=message):
        Tokenizer.from_counts({b"ab": 1}, **settings)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: t.encode(b"ab"), "text must be a str, got bytes"),
        (lambda t: t.encode_to_numpy(None), "text must be a str, got NoneType"),
        (lambda t: t.encode_batch(["a", b"b"]), "texts[1] must be a str, got bytes"),
        (lambda t: t.encode_batch("ab"), "texts must be a list of str, got the str 'ab'"),
        (lambda t: t.encode_batch(3), "texts must be a list of str, got int"),
        (lambda t: t.encode_batch_to_numpy("ab" * 99), f"texts must be a list of str, got the str '{'ab' * 20}'..."),
        (lambda t: t.encode_padded(["a", 1]), "texts[1] must be a str, got int"),
        (lambda t: list(t.encode_iterable("ab")), "texts must be a list of str, got the str 'ab'"),
        (lambda t: list(t.encode_iterable(["a", b"b"])), "texts[1] must be a str, got bytes"),
        (lambda t: t.decode([5, 2**70]), f"id {2**70} at place 1 is not in the vocabulary"),
        (lambda t: t.decode([True, 5]), "ids must be whole numbers, got True at place 0"),
        (lambda t: t.decode([1, "a"]), "ids must be whole numbers, got 'a' at place 1"),
        (lambda t: t.decode([1, [2, 3]]), "ids must be whole numbers, got [2, 3] at place 1"),
        (lambda t: t.decode([-1, 2**63]), "id -1 at place 0 is not in the vocabulary"),
        (lambda t: t.decode("ab"), "ids must be one row of whole numbers, got str"),
        (lambda t: t.decode_batch("ab"), "batch must be a list of rows of ids, got the str 'ab'"),
        (lambda t: t.decode_batch([[1], [2, "a"]]), "batch[1]: ids must be whole numbers, got 'a' at place 1"),
        (lambda t: t.decode_batch([1]), "batch[0]: ids must be one row of whole numbers, got int"),
    ],
)
def test_what_is_no_text_and_no_id_is_named_with_its_place(call: Callable[[Tokenizer], object], message: str) -> None:
    with pytest.raises(ValueError if message.startswith("id ") else TypeError) as caught:
        call(Tokenizer.from_merges([], special_tokens=["<pad>"]))
    assert str(caught.value) == message
