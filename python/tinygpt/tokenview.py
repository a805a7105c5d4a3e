"""TokenView: how a text falls into tokens, for a terminal and for a notebook."""

import html
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import TextIO

# Black on these; two neighbours never look alike. Numbers are those of the 256 colours of a terminal.
_COLOURS = ((153, "#afd7ff"), (229, "#ffffaf"), (157, "#afffaf"), (217, "#ffafaf"), (183, "#d7afff"))
_SPECIAL = "1;97;48;5;24"
_SPECIAL_STYLE = "background:#005f87;color:#fff;font-weight:bold"
# A class by which notebooks know that `$` in a text is no formula.
_CLASSES = "tex2jax_ignore mathjax_ignore"
_MAX_HTML_TOKENS = 5000
# Control characters but tab and line feed, marks that turn the direction, separators, lone surrogates, what is no
# character, and format characters that hide. Joiners stay: some scripts need them.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufdd0-\ufdef\ufeff"
    "\ufff0-\ufffb\ufffe\uffff\ud800-\udfff\U000e0000-\U000e0fff"
    + "".join(f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(1, 17))
    + "]"
)


class TokenView:
    r"""Tokens in a row. `print` shows them one by one, in colours where the output is a terminal that wants them.

    What cannot be seen is escaped: control characters, and bytes that are no whole character, as `\xf0`.

    Args:
        tokens: (id, bytes, whether it is a special token) of each.

    Example:
        >>> view = TokenView([(116, b"t", False), (257, b"he\n", False), (300, b"<|end|>", True)])
        >>> view.plain()
        't│he\\n\n<|end|>'
    """

    def __init__(self, tokens: Iterable[tuple[int, bytes, bool]]) -> None:
        self.tokens = tuple(tokens)

    def plain(self) -> str:
        """The tokens with `│` between them."""
        return "│".join(escaped(token) + "\n" * _ends_line(token) for _, token, _ in self.tokens).replace("\n│", "\n")

    def coloured(self) -> str:
        """The tokens on backgrounds that alternate, in the escape sequences of terminals; special ones are bold."""
        shown = []
        for i, (_, token, is_special) in enumerate(self.tokens):
            style = _SPECIAL if is_special else f"30;48;5;{_COLOURS[i % len(_COLOURS)][0]}"
            shown.append(f"\x1b[{style}m{escaped(token)}\x1b[0m" + "\n" * _ends_line(token))
        return "".join(shown)

    def __str__(self) -> str:
        return self.coloured() if wants_colour(sys.stdout) else self.plain()

    def __repr__(self) -> str:
        return f"TokenView of {len(self.tokens)} tokens"

    def __len__(self) -> int:
        return len(self.tokens)

    def _repr_html_(self) -> str:
        n_bytes = sum(len(token) for _, token, _ in self.tokens)
        facts = f"{len(self.tokens):,} tokens, {n_bytes:,} bytes"
        facts += f", {n_bytes / len(self.tokens):.2f} bytes a token" if self.tokens else ""
        left_out = len(self.tokens) - _MAX_HTML_TOKENS
        more = f'<div style="color:#888">{left_out:,} more tokens are not shown</div>' if left_out > 0 else ""
        return (
            f'<div class="{_CLASSES}"><div style="color:#888">{facts}</div>'
            f'<div style="font-family:monospace;white-space:pre-wrap;line-height:1.6">{"".join(self._spans())}</div>'
            f"{more}</div>"
        )

    def _spans(self) -> Iterator[str]:
        for i, (id, token, is_special) in enumerate(self.tokens[:_MAX_HTML_TOKENS]):
            style = _SPECIAL_STYLE if is_special else f"background:{_COLOURS[i % len(_COLOURS)][1]};color:#000"
            kind = "special token" if is_special else f"{len(token)} byte{'s' * (len(token) != 1)}"
            shown = html.escape(escaped(token)) + "\n" * _ends_line(token)
            yield f'<span title="id {id}, {kind}" style="{style}">{shown}</span>'


def escaped(token: bytes) -> str:
    r"""A token as text in which all can be seen: what is not printable is escaped, a backslash stays as it is.

    Example:
        >>> print(escaped("a é\n\x1b[31m".encode() + b"\xf0\x9f"))
        a é\n\x1b[31m\xf0\x9f
    """
    text = token.decode("utf-8", "backslashreplace")
    shown = ("".join(run) if is_printable else _escapes(run) for is_printable, run in groupby(text, str.isprintable))
    return "".join(shown)


def visible(text: object, most: int | None = None) -> str:
    r"""A text in which nothing is hidden: what cannot be seen is escaped, and so is what turns the direction of text.

    Args:
        text: Anything; its `str` is taken.
        most: Characters; of a longer text the beginning and three dots.

    Example:
        >>> print(visible("a\x00b \u202ec"), visible("abcdef", 5))
        a\x00b \u202ec ab...
    """
    whole = str(text) if most is None else shortened(str(text), most)
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape", "backslashreplace").decode("ascii"), whole)


def shortened(text: str, length: int) -> str:
    """The text, or its beginning and three dots where it is longer than `length`."""
    return text if len(text) <= length else f"{text[: length - 3]}..."


def wants_colour(stream: TextIO) -> bool:
    """Whether a stream is a terminal, and nobody asked for no colours (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def table(heading: str, rows: Mapping[str, str]) -> str:
    """Names and values as HTML, whatever they hold."""
    cells = "".join(
        f'<tr><th style="text-align:left">{_text(name)}</th><td style="text-align:left">{_text(value)}</td></tr>'
        for name, value in rows.items()
    )
    return f'<div class="{_CLASSES}"><b>{_text(heading)}</b><table>{cells}</table></div>'


def _text(text: str) -> str:
    return html.escape(visible(text))


def _escapes(characters: Iterable[str]) -> str:
    return "".join(characters).encode("unicode_escape").decode("ascii")


def _ends_line(token: bytes) -> bool:
    return token.endswith(b"\n")
