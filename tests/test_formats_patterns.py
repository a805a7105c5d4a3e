"""Every pattern through the formats: the libraries split as we do."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from samples import assigned_texts
from tinygpt import Tokenizer
from tinygpt._core import PATTERNS

TEXT = (
    "It's THE tale of a TAILOR'S tale, told 1234 times; the tall Tale's tail's.\n\n  The end — 終わり。 \r\n\n /// \n"
    * 3
)
CUSTOM = [
    r"regex:\p{L}+|\p{N}{1,2}|[^\p{L}\p{N}]",
    r"regex:[a-z]+",
    r"regex:\w+",
    r"regex: ?\p{L}+|\s+(?!\S)|\s+|[^\s\p{L}]+",
]


def tokenizer(pattern: str) -> Tokenizer:
    return Tokenizer.train([TEXT], vocab_size=320, pattern=pattern)


@pytest.mark.filterwarnings("ignore:no pair of tokens is left")
@pytest.mark.parametrize("pattern", [*PATTERNS, *CUSTOM])
def test_a_pattern_survives_saving_and_splits_as_in_tokenizers(pattern: str, tmp_path: Path) -> None:
    ours = tokenizer(pattern)
    ours.save(tmp_path)
    assert Tokenizer.load(tmp_path) == ours
    theirs = ours.to_tokenizers()

    @given(assigned_texts)
    @settings(max_examples=300, deadline=None)
    def check(text: str) -> None:
        assert ours.encode(text, allowed_special="all") == theirs.encode(text).ids

    if pattern != r"regex:\w+":  # a word is another thing to Oniguruma
        check()


@pytest.mark.filterwarnings("ignore:no pair of tokens is left")
@pytest.mark.parametrize("pattern", [*PATTERNS, CUSTOM[0], CUSTOM[3]])
def test_a_pattern_splits_as_in_tiktoken(pattern: str) -> None:
    ours = tokenizer(pattern)
    theirs = ours.to_tiktoken()
    assert Tokenizer.from_tiktoken(theirs) == ours

    @given(assigned_texts)
    @settings(max_examples=300, deadline=None)
    def check(text: str) -> None:
        assert ours.encode(text) == theirs.encode_ordinary(text)

    check()
