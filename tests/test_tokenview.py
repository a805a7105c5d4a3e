"""Tokens made visible: nothing of a text acts on the terminal or the page that shows it."""

import html
import io
import re
from itertools import pairwise

import pytest
from hypothesis import given
from samples import hard_texts
from tinygpt.tokenizer import Tokenizer
from tinygpt.tokenview import TokenView, escaped, table, wants_colour

TOKENIZER = Tokenizer.from_merges([(b"h", b"e")], special_tokens=["<|endoftext|>"])
HOSTILE = "he <script>&\"'\x1b[31m\x9b2J\u202e\0\r🙂\n"


def without_colours(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]+m", "", text)


@given(text=hard_texts)
def test_only_line_ends_and_what_is_printable_reach_a_terminal(text: str) -> None:
    view = TOKENIZER.view(text)
    assert all(character == "\n" or character.isprintable() for character in view.plain())
    assert without_colours(view.coloured()) == view.plain().replace("│", "")


def test_nothing_of_a_text_is_markup() -> None:
    shown = TOKENIZER.view(HOSTILE)._repr_html_()
    tags = set(re.findall(r"<(\w+)", shown))
    inside = html.unescape("".join(re.findall(r"<span[^>]*>([^<]*)</span>", shown)))
    assert tags == {"div", "span"}
    assert inside == "".join(escaped(token) for _, token, _ in TOKENIZER.view(HOSTILE).tokens) + "\n"


def test_part_of_a_character_is_shown_by_its_bytes() -> None:
    assert TOKENIZER.view("é").plain() == r"\xc3│\xa9"


def test_special_tokens_are_marked() -> None:
    view = TOKENIZER.view("he<|endoftext|>", allowed_special="all")
    assert view.plain() == "he│<|endoftext|>"
    assert "special token" in view._repr_html_()
    assert "\x1b[1;" in view.coloured()


def test_neighbours_differ_in_colour() -> None:
    colours = re.findall(r"48;5;(\d+)m", TOKENIZER.view("a b c d e f g").coloured())
    assert len(colours) == 13
    assert all(a != b for a, b in pairwise(colours))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "colour"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colours_are_for_terminals_that_want_them(
    environment: dict[str, str], colour: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (wants_colour(Terminal()), wants_colour(io.StringIO())) == (colour, False)


def test_a_tokenizer_says_what_it_is_and_escapes_its_names() -> None:
    shown = Tokenizer.from_merges([], special_tokens=["<b>"])._repr_html_()
    assert "&lt;b&gt; = 256" in shown
    assert "<b>x" not in table("<b>x", {})


def test_a_long_view_is_cut_and_says_so() -> None:
    shown = TokenView([(97, b"a", False)] * 5003)._repr_html_()
    assert (shown.count("<span"), "3 more tokens are not shown" in shown) == (5000, True)
