"""Where each pattern splits, held against the libraries that published it.

Patterns and their tables are of Unicode 16, as tiktoken's and tokenizers' are; `regex` is of a later one, so texts are
made of code points that Python's own tables know, whose kind no later version has changed.
"""

import functools
import random
import unicodedata

import pytest
import regex
import tiktoken
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import HARD, assigned_texts, sample
from tinygpt import Tokenizer
from tinygpt._core import pieces
from tinygpt.formats.bytealphabet import spell
from tokenizers import pre_tokenizers

SPACE = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
PREFIX = r"[^\r\n\p{L}\p{N}]"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
PUBLISHED = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "cl100k": CONTRACTION + "|" + PREFIX + r"?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + SPACE,
    "cl100k-trailing": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
    "qwen2": CONTRACTION + "|" + PREFIX + r"?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*" + SPACE,
    "o200k": f"{PREFIX}?{UPPER}*{LOWER}+{CONTRACTION}?|{PREFIX}?{UPPER}+{LOWER}*{CONTRACTION}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + SPACE,
    "char": r"[\s\S]",
}
DENSE = [*"asAS字ª7 !/'\r\n\t\u0301\u3000ǅʰſ", "ll", "RE", "'S", "'ſ", "'Ve"]
ASSIGNED = [chr(i) for i in range(0x110000) if unicodedata.category(chr(i)) not in ("Cs", "Cn")]

texts = assigned_texts | st.lists(st.sampled_from(DENSE), max_size=40).map("".join)
every_pattern = pytest.mark.parametrize("name", PUBLISHED)


def random_texts(seed: int, n: int) -> list[str]:
    """Texts of up to 40 parts: of hard ones, of dense ones, of any characters."""
    rng = random.Random(seed)
    return [
        "".join(rng.choices(rng.choice([HARD, DENSE, HARD + DENSE, ASSIGNED]), k=rng.randrange(40))) for _ in range(n)
    ]


def pieces_by_regex(text: str, name: str) -> list[bytes]:
    # Python's \s counts U+001C to U+001F as white space, which Unicode does not, and its $ looks over a last line feed.
    spelled = PUBLISHED[name].replace(r"(?!\S)", r"(?!\P{White_Space})").replace(r"\s", r"\p{White_Space}")
    return [piece.encode() for piece in regex.findall(spelled.replace("$", r"\Z"), text)]


@functools.cache
def learnt(name: str) -> Tokenizer:
    """A tokenizer whose merges reach across pieces, so that another boundary is another id."""
    text = "".join(random_texts(0, 2000))
    return Tokenizer.from_counts({text.encode(): 1}, vocab_size=3000, pattern=name, special_tokens=[])


@functools.cache
def as_tiktoken(name: str) -> tiktoken.Encoding:
    ranks = {learnt(name).token_bytes(i): i for i in range(3000)}
    return tiktoken.Encoding(name, pat_str=PUBLISHED[name], mergeable_ranks=ranks, special_tokens={})


@functools.cache
def as_tokenizers(name: str) -> tokenizers.Tokenizer:
    vocab = {spell(learnt(name).token_bytes(i)): i for i in range(3000)}
    merges = [(spell(left), spell(right)) for left, right in learnt(name).merges]
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, merges))
    # To Oniguruma $ is the end of a line, and {1,3}+ repeats a repetition.
    spelled = PUBLISHED[name].replace("$", r"\z").replace("{1,3}+", "{1,3}")
    split = pre_tokenizers.Split(tokenizers.Regex(spelled), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    theirs.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    return theirs


@every_pattern
@given(text=texts)
@settings(max_examples=500, deadline=None)
def test_pieces_are_those_of_the_published_expression(name: str, text: str) -> None:
    assert pieces(text, name) == pieces_by_regex(text, name)


@every_pattern
@given(text=texts)
@settings(max_examples=300, deadline=None)
def test_ids_equal_those_of_tiktoken(name: str, text: str) -> None:
    assert learnt(name).encode(text) == as_tiktoken(name).encode_ordinary(text)


@every_pattern
@given(text=texts)
@settings(max_examples=300, deadline=None)
def test_ids_equal_those_of_tokenizers(name: str, text: str) -> None:
    assert learnt(name).encode(text) == as_tokenizers(name).encode(text).ids


@every_pattern
@pytest.mark.parametrize("file", ["tinyshakespeare.txt", "wikitext-2/valid.txt"])
def test_pieces_of_a_whole_file_are_those_of_the_published_expression(name: str, file: str) -> None:
    text = sample(file).read_text(encoding="utf-8")
    assert pieces(text, name) == pieces_by_regex(text, name)


@pytest.mark.slow
@every_pattern
def test_a_hundred_thousand_texts_are_split_as_everyone_splits_them(name: str) -> None:
    texts = random_texts(1, 100_000)
    by_tiktoken = as_tiktoken(name).encode_ordinary_batch(texts)
    by_tokenizers = [theirs.ids for theirs in as_tokenizers(name).encode_batch_fast(texts)]
    for text, ids, their_ids in zip(texts, by_tiktoken, by_tokenizers, strict=True):
        assert (pieces(text, name), ids, their_ids) == (pieces_by_regex(text, name), *[learnt(name).encode(text)] * 2)


@pytest.mark.slow
@every_pattern
def test_every_code_point_is_split_as_by_tiktoken(name: str) -> None:
    code_points = [chr(i) for i in range(0x110000) if unicodedata.category(chr(i)) != "Cs"]
    for frame in ["{}", "A{}a", "!{}!", " {}\n", "'{} x", "\u0301{}A"]:
        texts = ["\0".join(map(frame.format, code_points[i : i + 50])) for i in range(0, len(code_points), 50)]
        ids = [learnt(name).encode(text) for text in texts]
        assert ids == as_tiktoken(name).encode_ordinary_batch(texts)


@given(text=texts)
@settings(max_examples=100, deadline=None)
def test_bytes_and_expressions_split_as_named_patterns_do(text: str) -> None:
    assert pieces(text, "byte") == [bytes([byte]) for byte in text.encode()]
    for name, expression in PUBLISHED.items():
        if name != "cl100k-trailing":  # possessive
            assert pieces(text, "regex:" + expression) == pieces(text, name)


@pytest.mark.parametrize(
    "expression",
    ["a", r"\p{L}+", r"[a-zA-Z]+?S|\p{N}", r"\s+(?!\S)", r"\s+(?!\S)|\s\S", r"l+|'\p{Lu}|\s+(?!\S)| s", r"[^\r\n]{3}"],
)
def test_what_an_expression_does_not_match_is_pieces_as_to_tokenizers(expression: str) -> None:
    theirs = pre_tokenizers.Split(tokenizers.Regex(expression), "isolated")

    @given(texts)
    @settings(max_examples=300, deadline=None)
    def check(text: str) -> None:
        expected = [piece.encode() for piece, _ in theirs.pre_tokenize_str(text)] if text else []
        assert pieces(text, "regex:" + expression) == expected

    check()


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("cl100k_base", r'unknown pattern "cl100k_base"; the patterns are gpt2, cl100k, .*, regex:EXPRESSION'),
        (r"regex:a(?=b)", r'"\(\?=" at character 1 looks around'),
        (r"regex:\p{L}++", r'"\+\+" at character 5 is possessive, which needs backtracking; write \+'),
        (r"regex:\bword", "at character 0 looks around"),
        (r"regex:x*", "matches the empty text"),
    ],
)
def test_a_pattern_that_cannot_be_is_refused_by_name(pattern: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pieces("text", pattern)
