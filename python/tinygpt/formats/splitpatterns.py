r"""Patterns as the regular expressions of tokenizers (Oniguruma) and tiktoken (Rust), and back.

The same spelling may mean two things: after a brace, `+` repeats to Oniguruma and holds on to Rust, and `$` is the end
of a line to one and of the text to the other. So there is a table for each.

Source: huggingface/tokenizers `pre_tokenizers`, openai/tiktoken `tiktoken_ext/openai_public.py`, and the tokenizer.json
files of the models named.
"""

import re
from collections.abc import Mapping
from typing import Any

from tinygpt._core import pieces

_SUFFIXES = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = _SUFFIXES + r"|[^\r\n\p{L}\p{N}]?\p{L}+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"

WRITTEN = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "cl100k": _WORDS + r"|\p{N}{1,3}" + _REST,
    "cl100k-trailing": _WORDS + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s++$|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen2": _WORDS + r"|\p{N}" + _REST,
    "o200k": "|".join(
        [
            rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_SUFFIXES}?",
            rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_SUFFIXES}?",
            r"\p{N}{1,3}",
            r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
            r"\s*[\r\n]+",
            r"\s+(?!\S)",
            r"\s+",
        ]
    ),
    "char": r"[\S\s]",
    "byte": r"[\s\S]",
}
"""How each named pattern is written; both libraries read it alike. `byte` has no merges, so a character does for it."""

_EITHER = {expression: name for name, expression in WRITTEN.items()} | {
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+": "gpt2",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?[\p{L}]+| ?[\p{N}]+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+": "gpt2",
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s": "gpt2",
    # tiktoken 0.5 to 0.7
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+": (
        "cl100k"
    ),
}
_TIKTOKEN = _EITHER | {
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s": (  # noqa: E501
        "cl100k-trailing"
    ),
}

_CUSTOM = "regex:"
_OURS = "(?#tinygpt)"
"""A comment to Oniguruma, before an expression that means what it means to us."""
_UNLIKE = re.compile(r"\\[bBhHwWRXKGzZA]|\[:|&&|\(\?[a-z-]*[msx]")
_UNLIKE_OUTSIDE_CLASSES = re.compile(r"\$|\^|\}\+")
"""What engines read differently: ends of lines and words, what is a word, `+` after a brace."""
_ONE_CHARACTER = re.compile(r"\\[pP]\{[^}]*\}|\\.|\[(?:\\.|[^\]\\])*\]")

PROBE = "".join(map(chr, range(128))) + (
    "\xc0\xe0\u01c5\u02b0\xaa\u05d0\u01c3\u0903\u0301\u20dd\u0663\u2167\xbd\u203f\u2014\xab\xbb\u3001\u20a4\xb4\xa9"
    "\xa0\u2028\u2029\u200b\x85\ue000\U0010ffff\u5b57\ud55c\U0001f642"
)
"""A character of each general category that text can hold: an expression that matches none of one leaves text out."""


def of_tokenizers(expression: str) -> str:
    """The pattern that a `Split` of this expression is.

    Raises:
        ValueError: None that we know, and none that we could take as it stands.
    """
    if expression.startswith(_OURS):
        return _CUSTOM + expression.removeprefix(_OURS)
    return _EITHER.get(expression) or _custom(expression)


def of_tiktoken(expression: str) -> str:
    """The pattern of an encoding's `pat_str`.

    Raises:
        ValueError: As in `of_tokenizers`.
    """
    return _TIKTOKEN.get(expression) or _custom(expression)


def expression_of(pattern: str) -> str:
    """The expression that stands for a pattern in a file."""
    return pattern.removeprefix(_CUSTOM) if pattern.startswith(_CUSTOM) else WRITTEN[pattern]


def _custom(expression: str) -> str:
    if found := _unlike(expression):
        raise ValueError(
            f"the split {expression[:80]!r} holds {found!r}, which regular expressions read in different ways"
        )
    pieces("", _CUSTOM + expression)  # refuses what cannot be matched in linear time
    return _CUSTOM + expression


def _unlike(expression: str) -> str | None:
    found = _UNLIKE.search(expression) or _UNLIKE_OUTSIDE_CLASSES.search(_ONE_CHARACTER.sub("x", expression))
    return found and found.group()


def pre_tokenizer_of(pattern: str) -> dict[str, Any]:
    """What `tokenizer.json` says for a pattern."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    if pattern == "gpt2":
        return {**byte_level, "use_regex": True}
    expression = expression_of(pattern)
    if pattern.startswith(_CUSTOM) and (_unlike(expression) or expression in _EITHER):
        expression = _OURS + expression
    split = {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, {**byte_level, "use_regex": False}]}


def pattern_of(pre_tokenizer: Any) -> str:
    """The pattern that a `pre_tokenizer` of `tokenizer.json` is.

    Raises:
        ValueError: It is none of ours; the message says which part.
    """
    *splits, last = list(_steps(pre_tokenizer)) or [None]
    if not isinstance(last, Mapping) or last.get("type") != "ByteLevel":
        raise ValueError(f"pre_tokenizer {_kind(last)} does not end in ByteLevel, so this is no byte-level tokenizer")
    if last.get("add_prefix_space") is not False:
        raise ValueError("pre_tokenizer ByteLevel has add_prefix_space, which puts a space before every text")
    if last.get("use_regex", True):
        if splits:
            raise ValueError(f"pre_tokenizer {_kind(splits[0])} before the split of ByteLevel is not supported")
        return "gpt2"
    pattern = None
    for step in splits:
        pattern = _split(step) if pattern is None else _digits(pattern, step)
    if pattern is None:
        raise ValueError("pre_tokenizer ByteLevel without regex splits nothing, which is not supported")
    return pattern


def _steps(pre_tokenizer: Any) -> list[Any]:
    """The steps of a pre-tokenizer, sequences spelled out one level deep and no deeper."""
    if not isinstance(pre_tokenizer, Mapping) or pre_tokenizer.get("type") != "Sequence":
        return [pre_tokenizer]
    steps = pre_tokenizer.get("pretokenizers")
    if not isinstance(steps, list):
        raise ValueError("pre_tokenizer 'Sequence' has no list of pretokenizers")
    return steps


def _split(step: Any) -> str:
    """The pattern of a `Split`."""
    match step:
        case {"type": "Split", "pattern": {"Regex": str(expression)}, "behavior": "Isolated"}:
            return of_tokenizers(expression)
        case {"type": "Split", "pattern": {"Regex": str(expression)}, "behavior": "Removed", "invert": True}:
            # What lies between the matches is lost: nothing, as the named patterns match all text.
            pattern = of_tokenizers(expression)
            if not pattern.startswith(_CUSTOM):
                return pattern
    if isinstance(step, Mapping) and step.get("type") == "Split":
        how = f"pattern {step.get('pattern')!r}, behavior {step.get('behavior')!r}, invert {step.get('invert')!r}"
        raise ValueError(f"pre_tokenizer 'Split' with {how[:200]} is not supported")
    raise ValueError(f"pre_tokenizer {_kind(step)} is not supported")


def _digits(pattern: str, step: Any) -> str:
    """The pattern whose pieces are those of `pattern` with digits apart."""
    match step:
        case {"type": "Digits", "individual_digits": True} if pattern in ("cl100k", "qwen2"):
            return "qwen2"
        case {"type": "Digits"} if pattern in ("cl100k", "cl100k-trailing", "qwen2", "o200k", "char", "byte"):
            if step.get("individual_digits") is False or pattern in ("char", "byte"):
                return pattern
    raise ValueError(f"pre_tokenizer {_kind(step)} after {pattern} is not supported")


def _kind(part: Any) -> str:
    return repr(part.get("type")) if isinstance(part, Mapping) else repr(part)
