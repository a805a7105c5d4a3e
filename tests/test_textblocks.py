"""A text in parts has the ids of the whole."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import hard_texts
from tinygpt._core import PATTERNS, pieces
from tinygpt.textblocks import decoded, text_parts
from tinygpt.tokenizer import Tokenizer

MERGES = [(b"t", b"h"), (b"th", b"e"), (b" ", b"the"), (b" ", b" "), (b"e", b" ")]
SPECIALS = ["<|endoftext|>", "<a b>", " x ", "b> the"]
spaced_texts = st.lists(st.sampled_from([*SPECIALS, " ", "  ", "\n", "the", "x", "<a", "字", "\x1c"]), max_size=60)


def blocks_of(text: str, size: int) -> list[str]:
    return [text[i : i + size] for i in range(0, len(text), size)]


@pytest.mark.parametrize("pattern", [*PATTERNS, r"regex:\p{L}+|\s+|[^\p{L}\s]+"])
@settings(max_examples=60)
@given(text=hard_texts | spaced_texts.map("".join), size=st.integers(1, 9), least=st.integers(1, 20))
def test_parts_split_into_the_pieces_of_the_whole(pattern: str, text: str, size: int, least: int) -> None:
    parts = list(text_parts(blocks_of(text, size), pattern=pattern, part_characters=least))
    assert [piece for part in parts for piece in pieces(part, pattern)] == pieces(text, pattern)


@given(text=spaced_texts.map("".join), size=st.integers(1, 9))
def test_no_part_ends_within_a_special_token(text: str, size: int) -> None:
    tokenizer = Tokenizer.from_merges(MERGES, special_tokens=SPECIALS)
    parts = text_parts(blocks_of(text, size), pattern="gpt2", whole=SPECIALS, part_characters=5)
    found = [id for part in parts for id in tokenizer.encode(part, allowed_special="all")]
    assert found == tokenizer.encode(text, allowed_special="all")


LONG = {
    "one letter": "a" * 3_000_000,
    "spaces": " " * 3_000_000,
    "a script without spaces": "字幕" * 700_000,
    "white space before a space": "a\n " * 900_000,
    "line ends": "a\n" * 1_500_000,
}


@pytest.mark.parametrize("name", LONG)
def test_a_text_without_a_place_to_cut_is_not_held_whole(name: str) -> None:
    parts = list(text_parts(blocks_of(LONG[name], 250_000), pattern="gpt2"))
    assert "".join(parts) == LONG[name]
    assert max(map(len, parts)) < 2_600_000
    assert [piece for part in parts for piece in pieces(part)] == pieces(LONG[name])


@given(text=hard_texts, size=st.integers(1, 5))
def test_characters_may_fall_on_several_blocks(text: str, size: int) -> None:
    raw = text.encode()
    assert "".join(decoded((raw[i : i + size] for i in range(0, len(raw), size)), "x")) == text


@pytest.mark.parametrize(("blocks", "place"), [([b"ab", b"c\xff"], 3), ([b"a\xe5", b"b"], 1), ([b"abc\xe5\xad"], 3)])
def test_bytes_that_are_no_text_are_named_with_their_place(blocks: list[bytes], place: int) -> None:
    with pytest.raises(ValueError, match=rf"a.txt: not UTF-8 text \(byte 0x\w\w at {place}\); convert it"):
        list(decoded(blocks, "a.txt"))
