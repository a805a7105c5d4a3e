"""Tokenizers in the formats of others: what goes in comes out, with the ids of the libraries that own them."""

import base64
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import tokenizers
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from samples import assigned_texts, sample
from tinygpt import FormatError, Tokenizer
from tinygpt._core import Bpe
from tinygpt.formats import limits
from tinygpt.formats.splitpatterns import WRITTEN, of_tiktoken, of_tokenizers, pattern_of

TEXT = "It's the tale of a tailor's tale, told 1234 times; the tall tale's tail.\n\n  The end — 終わり。\n" * 3
PLAIN = Tokenizer.train([TEXT], vocab_size=300, special_tokens=["<|endoftext|>", "<s>"])
ADDED = [("<|endoftext|>", 298, 1), ("<tool>", 299, 0), ("  \n", 300, 0), ("tale", 301, 8), ("<mask>", 302, 3)]
SPECIAL, LATE = 1, 16


def with_added(added: list[tuple[str, int, int]], whole_pieces: bool = False) -> Tokenizer:
    tokens, merges = PLAIN._bpe.model_tokens(), PLAIN.merges
    return Tokenizer(Bpe.from_tokens("gpt2", tokens, merges, added, whole_pieces))


def shuffled() -> Tokenizer:
    """Ids that do not ascend with the merges, as they need not in files of merges."""
    ids = {token: 297 - i for token, i in PLAIN._bpe.model_tokens()}
    return Tokenizer(Bpe.from_tokens("gpt2", list(ids.items()), PLAIN.merges, [("<|endoftext|>", 298, 1)], False))


def whole() -> Tokenizer:
    """With tokens that no merge makes, looked up as whole pieces."""
    ranks = dict(PLAIN._bpe.model_tokens()) | {b" tailors": 400, b"1234": 401}
    return Tokenizer.from_ranks(ranks, special_tokens={"<|endoftext|>": 402})


TOKENIZERS = {"plain": PLAIN, "added": with_added(ADDED), "shuffled": shuffled(), "whole": whole()}
texts = st.lists(
    st.sampled_from([*[name for name, _, _ in ADDED], " tailors", "1234", "<s>", "tales"]) | assigned_texts
)
mixed_texts = texts.map("".join)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_ids_are_those_of_tokenizers(name: str) -> None:
    ours, theirs = TOKENIZERS[name], TOKENIZERS[name].to_tokenizers()

    @given(mixed_texts)
    @settings(max_examples=300, deadline=None)
    def check(text: str) -> None:
        assert ours.encode(text, allowed_special="all") == theirs.encode(text, add_special_tokens=False).ids

    check()


@pytest.mark.parametrize("name", ["plain", "whole"])
def test_ids_are_those_of_tiktoken(name: str) -> None:
    ours, theirs = TOKENIZERS[name], TOKENIZERS[name].to_tiktoken()

    @given(mixed_texts)
    @settings(max_examples=300, deadline=None)
    def check(text: str) -> None:
        assert ours.encode(text, allowed_special="all") == theirs.encode(text, allowed_special="all")
        assert ours.encode(text) == theirs.encode_ordinary(text)

    check()
    assert Tokenizer.from_tiktoken(theirs) == ours


@pytest.mark.parametrize(
    ("name", "format", "path"),
    [
        *[(name, "tokenizer.json", "folder") for name in TOKENIZERS],
        *[(name, None, "a.json") for name in TOKENIZERS],
        *[(name, None, "a.tiktoken") for name in ("plain", "whole")],
        *[(name, "gpt2", "pair") for name in ("plain", "shuffled")],
    ],
)
def test_what_goes_out_comes_in(name: str, format: str | None, path: str, tmp_path: Path) -> None:
    tokenizer = TOKENIZERS[name]
    tokenizer.save(tmp_path / path, format=format)
    special = tokenizer.special_tokens if path.endswith(".tiktoken") else None
    assert Tokenizer.load(tmp_path / path, special_tokens=special) == tokenizer


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_pickled_tokenizer_is_the_same(name: str) -> None:
    copy = pickle.loads(pickle.dumps(TOKENIZERS[name]))  # our own object, on its way to another process
    assert (copy, copy.encode(TEXT + " tailors<tool>")) == (
        TOKENIZERS[name],
        TOKENIZERS[name].encode(TEXT + " tailors<tool>"),
    )


@pytest.mark.parametrize(
    ("name", "format", "message"),
    [
        ("added", "tiktoken", "the added token '<tool>' is found in any text"),
        ("shuffled", "tiktoken", "ids as ranks would put the merge of"),
        ("added", "gpt2", "the added token 'tale' has flags"),
        ("whole", "gpt2", "cannot say that a piece that is a token stays whole"),
        ("plain", "csv", "format must be one of tokenizer.json, tiktoken, gpt2, got 'csv'"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(name: str, format: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        TOKENIZERS[name].save(tmp_path / "a", format=format)
    assert list(tmp_path.iterdir()) == []


def test_gpt2_files_mean_what_tokenizers_reads_in_them(tmp_path: Path) -> None:
    TOKENIZERS["shuffled"].save(tmp_path, format="gpt2")
    pair = str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt")
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE.from_file(*pair))
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert theirs.encode(TEXT).ids == Tokenizer.load(tmp_path / "merges.txt").encode(TEXT)


def test_gpt2_files_written_by_tokenizers_are_read(tmp_path: Path) -> None:
    theirs = PLAIN.to_tokenizers()
    theirs.model.save(str(tmp_path))
    loaded = Tokenizer.load(tmp_path, special_tokens=["<|endoftext|>", "<s>"])
    assert (loaded, loaded.special_tokens) == (PLAIN, PLAIN.special_tokens)
    assert Tokenizer.load(tmp_path / "vocab.json").special_tokens == {"<|endoftext|>": 298}


def test_transformers_finds_the_same_added_tokens(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    TOKENIZERS["added"].save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    text = "a <tool> tale, tales <mask>  \n<|endoftext|>"
    assert theirs(text)["input_ids"] == TOKENIZERS["added"].encode(text, allowed_special="all")


contents = st.text(alphabet="ab< \n", min_size=1, max_size=4)


@given(st.dictionaries(contents, st.integers(0, 31), max_size=4), st.text(alphabet="ab< \nc", max_size=30))
@settings(max_examples=1500, deadline=None)
def test_added_tokens_are_found_as_tokenizers_finds_them(flags: dict[str, int], text: str) -> None:
    try:
        ours = with_added([(name, 300 + i, bits) for i, (name, bits) in enumerate(flags.items())])
        expected = ours.to_tokenizers().encode(text, add_special_tokens=False).ids
    except ValueError:
        assume(False)
    except BaseException as error:  # white space that two tokens take makes the library panic
        assume(type(error).__name__ != "PanicException")
        raise
    assert ours.encode(text, allowed_special="all") == expected


@given(st.lists(st.text(alphabet="abc", min_size=2, max_size=5), unique=True, max_size=14), st.text("abc", max_size=60))
@settings(max_examples=500, deadline=None)
def test_any_ranks_mean_what_they_mean_to_tiktoken(tokens: list[str], text: str) -> None:
    ranks = {bytes([i]): i for i in range(256)} | {token.encode(): 256 + i for i, token in enumerate(tokens)}
    theirs = tiktoken.Encoding("random", pat_str=WRITTEN["gpt2"], mergeable_ranks=ranks, special_tokens={})
    assert Tokenizer.from_ranks(ranks).encode(text) == theirs.encode_ordinary(text)


def test_every_split_of_every_token_may_be_a_merge(tmp_path: Path) -> None:
    ranks = dict(TOKENIZERS["whole"]._bpe.model_tokens())
    rows = sorted(ranks, key=ranks.__getitem__)
    merges = [(t[:i], t[i:]) for t in rows for i in range(1, len(t)) if t[:i] in ranks and t[i:] in ranks]
    ours = Tokenizer(Bpe.from_tokens("gpt2", list(ranks.items()), merges, [("<|endoftext|>", 402, 1)], True))
    theirs = ours.to_tokenizers()
    assert len(merges) > len(PLAIN.merges)
    assert ours.encode(TEXT) == theirs.encode(TEXT).ids == TOKENIZERS["whole"].encode(TEXT)
    ours.save(tmp_path / "a.tiktoken")
    assert Tokenizer.load(tmp_path / "a.tiktoken", special_tokens={"<|endoftext|>": 402}) == TOKENIZERS["whole"]


def test_a_post_processor_is_kept_and_not_applied(tmp_path: Path) -> None:
    layout = json.loads(PLAIN.to_tokenizers().to_str())
    pieces = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    special = {"<s>": {"id": "<s>", "ids": [299], "tokens": ["<s>"]}}
    template = {"type": "TemplateProcessing", "single": pieces, "pair": pieces, "special_tokens": special}
    layout["post_processor"] = template
    (tmp_path / "a.json").write_text(json.dumps(layout), encoding="utf-8")
    loaded = pickle.loads(pickle.dumps(Tokenizer.load(tmp_path / "a.json")))
    assert (loaded, loaded.encode("a")) == (PLAIN, [97])
    assert loaded.to_tokenizers().encode("a").ids == [299, 97]


LEVEL: dict[str, Any] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
SPLIT: dict[str, Any] = {
    "type": "Split",
    "pattern": {"Regex": WRITTEN["cl100k"]},
    "behavior": "Isolated",
    "invert": False,
}
DIGITS: dict[str, Any] = {"type": "Digits", "individual_digits": True}


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(steps)}


@pytest.mark.parametrize(
    ("pre_tokenizer", "pattern"),
    [
        ({**LEVEL, "use_regex": True}, "gpt2"),
        (sequence({**LEVEL, "use_regex": True}), "gpt2"),
        *[(sequence({**SPLIT, "pattern": {"Regex": regex}}, LEVEL), name) for name, regex in WRITTEN.items()],
        (sequence({**SPLIT, "behavior": "Removed", "invert": True}, LEVEL), "cl100k"),
        (sequence({**SPLIT, "invert": True}, LEVEL), "cl100k"),
        (sequence(SPLIT, DIGITS, LEVEL), "qwen2"),
        (sequence(SPLIT, {**DIGITS, "individual_digits": False}, LEVEL), "cl100k"),
    ],
)
def test_a_split_has_the_pattern_that_it_is(pre_tokenizer: dict[str, Any], pattern: str) -> None:
    assert pattern_of(pre_tokenizer) == pattern


@pytest.mark.parametrize(
    ("pre_tokenizer", "message"),
    [
        (None, "pre_tokenizer None does not end in ByteLevel"),
        ({"type": "Metaspace"}, "pre_tokenizer 'Metaspace' does not end in ByteLevel"),
        ({**LEVEL, "use_regex": True, "add_prefix_space": True}, "has add_prefix_space"),
        (LEVEL, "ByteLevel without regex splits nothing"),
        (sequence(SPLIT, {**LEVEL, "use_regex": True}), "'Split' before the split of ByteLevel is not supported"),
        (sequence(DIGITS, {**LEVEL, "use_regex": True}), "'Digits' before the split of ByteLevel is not supported"),
        (sequence({"type": "Whitespace"}, LEVEL), "pre_tokenizer 'Whitespace' is not supported"),
        (sequence({**SPLIT, "behavior": "Removed"}, LEVEL), "'Split' with pattern .* behavior 'Removed', invert False"),
        (sequence({**SPLIT, "pattern": {"String": " "}}, LEVEL), "'Split' with pattern {'String': ' '}"),
        (sequence(SPLIT, SPLIT, LEVEL), "'Split' after cl100k is not supported"),
        (sequence({**SPLIT, "pattern": {"Regex": r"\w+|\W"}}, LEVEL), r"holds '\\\\\w'|holds"),
        (sequence({**SPLIT, "pattern": {"Regex": r"\p{N}{1,3}+|[^a]$"}}, LEVEL), r"holds '}\+'"),
    ],
)
def test_a_split_that_we_do_not_have_is_refused(pre_tokenizer: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pattern_of(pre_tokenizer)


def test_tiktoken_and_tokenizers_read_one_spelling_in_two_ways() -> None:
    newest = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"  # noqa: E501
    assert of_tiktoken(newest) == "cl100k-trailing"
    with pytest.raises(ValueError, match=r"holds '}\+'"):
        of_tokenizers(newest)


def test_an_encoding_that_leaves_text_out_is_refused() -> None:
    ranks = {bytes([i]): i for i in range(256)}
    letters = tiktoken.Encoding("letters", pat_str=r"\p{L}+", mergeable_ranks=ranks, special_tokens={})
    with pytest.raises(ValueError, match="encoding letters: its pattern does not match '.*', and tiktoken leaves"):
        Tokenizer.from_tiktoken(letters)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x["added_tokens"][0].update(lstrip=True, special=False), "takes white space away .lstrip or rstrip"),
        (lambda x: x["added_tokens"][0].update(content="a b", special=False), '"a b" holds a space or line feed'),
        (lambda x: x["added_tokens"].append({"content": "<x>", "id": 97}), 'has the id 97, which is the token "a"'),
        (lambda x: x["added_tokens"][0].update(content="é", id=233, special=False), "which is the token"),
        (lambda x: x["added_tokens"][0].update(content="!", special=False), "has the id 298, and 33 in model.vocab"),
        (lambda x: x["added_tokens"][0].update(content=""), "the name of special token 298 is empty"),
        (lambda x: x["added_tokens"].append({"content": "<x>", "id": 2**21}), "the id 2097152, larger than 2097151"),
        (lambda x: x["model"]["vocab"].update({"!!": 2**21}), "id 2097152 is larger than any vocabulary's"),
        (lambda x: x["model"]["merges"].append(x["model"]["merges"][0]), "which an earlier one does"),
        (lambda x: x["model"].update(dropout=0.1), "model.dropout is 0.1"),
        (lambda x: x["model"].update(continuing_subword_prefix="##"), "model.continuing_subword_prefix is '##'"),
        (lambda x: x["model"].update(end_of_word_suffix="</w>"), "model.end_of_word_suffix is '</w>'"),
        (lambda x: x.update(truncation={"max_length": 5}), "truncation is set"),
        (lambda x: x.update(decoder={"type": "Metaspace"}), "decoder 'Metaspace' is not supported"),
    ],
)  # fmt: skip
def test_a_part_that_we_cannot_represent_is_named(change: Callable[[Any], Any], message: str, tmp_path: Path) -> None:
    layout = json.loads(PLAIN.to_tokenizers().to_str())
    change(layout)
    (tmp_path / "tokenizer.json").write_text(json.dumps(layout), encoding="utf-8")
    with pytest.raises(FormatError, match=message) as caught:
        Tokenizer.load(tmp_path)
    assert str(caught.value).startswith(str(tmp_path))


def rows(n: int) -> str:
    return ",".join(f'"{i}":0' for i in range(n))


def model(vocab: str = '"a":0', merges: str = "") -> str:
    return f'{{"model":{{"vocab":{{{vocab}}},"merges":[{merges}]}}}}'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", lambda: "[" * 10**6, "JSON nested too deep"),
        ("a.json", lambda: '{"a":' * 10**5, "JSON nested too deep"),
        ("a.json", lambda: '{"model": ', "not JSON"),
        ("a.json", lambda: "[]", "no JSON object but list"),
        ("a.json", lambda: model(rows(limits.MAX_TOKENS + 1)), "2097153 tokens in model.vocab, and the most"),
        ("a.json", lambda: model(merges="0," * limits.MAX_MERGES + "0"), "2097153 merges, and the most"),
        ("a.json", lambda: '{"added_tokens":[' + "0," * limits.MAX_ADDED_TOKENS + '0],"model":{}}', "65537 added tok"),
        ("a.json", lambda: model(f'"{"a" * 70_000}":0'), r"token 'aaaaaaaaaaaaaaaaaaaa'.. has 70000 bytes, and"),
        ("a.json", lambda: model(f'"a":{10**400}'), "holds the id 1000000.*, which is no whole number"),
        ("a.tiktoken", lambda: base64.b64encode(b"a" * 70_000).decode() + " 0", "the token in line 1 has 70000 bytes"),
        ("a.tiktoken", lambda: "A" * 200_000, "line 1 has 200000 bytes, and the longest"),
        ("a.tiktoken", lambda: "YQ== 0\nYQ== 1", "line 2 is not a new token and its rank"),
        ("a.model", lambda: "\n\x0d\x0a<unk>", "a SentencePiece model, not byte-level BPE; load_tokenizer reads it"),
    ],
)
def test_hostile_files_are_refused(name: str, content: Callable[[], str], message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content(), encoding="utf-8")
    with pytest.raises(FormatError, match=message):
        Tokenizer.load(tmp_path / name)


@pytest.mark.parametrize("name", ["a.json", "a.tiktoken", "a.model", "vocab.json"])
def test_a_file_larger_than_any_tokenizer_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "merges.txt").touch()
    with (tmp_path / name).open("wb") as file:
        file.truncate(limits.MAX_FILE_BYTES + 1)
    with pytest.raises(FormatError, match="more than 134217728 bytes, which no tokenizer has"):
        Tokenizer.load(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("merges.txt", "#version: 0.2\na b c\n", "merges.txt: line 2 is not two tokens: b'a b c'"),
        ("merges.txt", "a \xff\n", "merges.txt: line 1 is not UTF-8"),
        ("merges.txt", "a" * 200_000, "line 1 has 200000 bytes"),
        ("merges.txt", "q zz\n", 'merge 0 needs the token "zz"'),
        ("vocab.json", '{"a": -1}', "vocab.json gives 'a' the id -1"),
        ("added_tokens.json", '{"<x>": "y"}', "added_tokens.json gives '<x>' the id y"),
        ("special_tokens_map.json", '{"unk_token": "<u>"}', "special_tokens_map.json names '<u>', which has no id"),
        ("special_tokens_map.json", '{"a": {"content": "<s>", "lstrip": true}}', "gives '<s>' lstrip"),
    ],
)
def test_damaged_gpt2_files_are_refused(name: str, content: str, message: str, tmp_path: Path) -> None:
    PLAIN.save(tmp_path, format="gpt2")
    (tmp_path / name).write_text(content, encoding="latin-1")
    with pytest.raises(FormatError, match=message):
        Tokenizer.load(tmp_path)


def test_gpt2_itself_goes_through_every_format(tmp_path: Path) -> None:
    gpt2 = Tokenizer.load(sample("gpt2.tiktoken"), special_tokens=["<|endoftext|>"])
    gpt2.save(tmp_path / "pair", format="gpt2")
    gpt2.save(tmp_path / "a.json")
    gpt2.save(tmp_path / "a.tiktoken")
    assert Tokenizer.load(tmp_path / "pair") == Tokenizer.load(tmp_path / "a.json") == gpt2
    assert (tmp_path / "a.tiktoken").read_bytes() == sample("gpt2.tiktoken").read_bytes()
    assert Tokenizer.from_tiktoken(gpt2.to_tiktoken()) == gpt2
