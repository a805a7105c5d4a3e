"""The byte alphabet: each byte as a printable character, so that files of text can hold any token.

Source: openai/gpt-2, `encoder.py`.
"""

from collections.abc import Iterable

_PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
_OTHERS = [byte for byte in range(256) if byte not in set(_PRINTABLE)]
_TO_CHARACTER = {byte: chr(byte) for byte in _PRINTABLE} | {byte: chr(256 + i) for i, byte in enumerate(_OTHERS)}
_OUTSIDE = "\U0010ffff"
_BETWEEN = "\U0010fffe"
# Characters below 256 that stand for no byte must not pass for the byte of their number.
_TO_LATIN = {byte: _OUTSIDE for byte in _OTHERS} | {ord(c): chr(byte) for byte, c in _TO_CHARACTER.items()}


def spell(token: bytes) -> str:
    """A token in the byte alphabet."""
    return token.decode("latin-1").translate(_TO_CHARACTER)


def spell_all(tokens: Iterable[bytes]) -> list[str]:
    """The same of many: one pass over all of them is several times faster than one over each."""
    joined = _BETWEEN.join(token.decode("latin-1") for token in tokens)
    return joined.translate(_TO_CHARACTER).split(_BETWEEN) if joined else []


def unspell(token: str) -> bytes:
    """The bytes of a token that is spelled in the byte alphabet.

    Raises:
        ValueError: A character of it stands for no byte.
    """
    try:
        return token.translate(_TO_LATIN).encode("latin-1")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"token {token[:60]!r} holds {token[error.start]!r}, which is no byte in the byte-level alphabet"
        ) from None


def is_spelled(token: str) -> bool:
    """Whether every character stands for a byte."""
    return max(token.translate(_TO_LATIN), default="") <= "\xff"
