"""A text of any length that comes in blocks: read, and cut anew where its ids are not changed by it."""

import codecs
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tinygpt._core import last_cut

_BLOCK_BYTES = 1 << 18
PART_CHARACTERS = 1 << 20
# No scanner looks further ahead from the start of a piece: the longest piece (1 MiB) and the character after it.


def name_of(path: Path) -> str:
    """What to call a path in a message; `-` is standard input."""
    return "standard input" if str(path) == "-" else str(path)


def read_blocks(path: Path) -> Iterator[bytes]:
    """The bytes of a file as they come; `-` is standard input."""
    if str(path) == "-":
        while block := sys.stdin.buffer.read1(_BLOCK_BYTES):  # type: ignore[union-attr]
            yield block
        return
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            yield block


def with_last(blocks: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Each block, and whether the input ends with it: an empty one comes last."""
    yield from ((block, False) for block in blocks)
    yield b"", True


def decoded(blocks: Iterable[bytes], name: str) -> Iterator[str]:
    r"""UTF-8 as text, whatever the locale says and however characters fall on blocks.

    Raises:
        ValueError: Bytes that are not UTF-8, with their place.

    Example:
        >>> list(decoded([b"\xc3", b"\xa9!"], "a.txt"))
        ['', 'é!', '']
    """
    decoder, done = codecs.getincrementaldecoder("utf-8")(), 0
    for block, is_last in with_last(blocks):
        waiting = len(decoder.getstate()[0])
        try:
            yield decoder.decode(block, final=is_last)
        except UnicodeDecodeError as error:
            found = f"byte {error.object[error.start]:#04x} at {done - waiting + error.start}"
            raise ValueError(f"{name}: not UTF-8 text ({found}); convert it") from None
        done += len(block)


def text_parts(
    blocks: Iterable[str], *, pattern: str, whole: Sequence[str] = (), part_characters: int = PART_CHARACTERS
) -> Iterator[str]:
    """The text of `blocks` in parts of about `part_characters`, none of which ends within a token.

    A part ends before a space that follows a character which is no white space: every named pattern splits there.
    Where there is no such place, the pieces are scanned and a part ends between two of them.

    Args:
        blocks: The text, cut anywhere.
        pattern: How the tokenizer splits text.
        whole: Strings that become one id wherever they stand; no part ends in one or beside one.
        part_characters: Characters from which on a part may end.

    Example:
        >>> list(text_parts(["the cat s", "at on the mat"], pattern="gpt2", part_characters=8))
        ['the cat', ' sat on the', ' mat']
    """
    held, length, due = list[str](), 0, part_characters
    for block in blocks:
        held.append(block)
        length += len(block)
        if length < due:
            continue
        text = "".join(held)
        cut = last_cut(text, pattern, list(whole))
        if cut:
            yield text[:cut]
        held, length = [text[cut:]], length - cut
        due = part_characters if cut else 2 * length
    if length:
        yield "".join(held)
