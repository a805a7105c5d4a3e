"""What both sides' code shares: how answers are made comparable. Imports nothing that a side may lack."""

import base64
import zlib
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

PART_CHARACTERS = 1_000_000
SEPARATOR = "<|endoftext|>\n"


def save_ranks(path: str, tokens: Iterable[bytes]) -> None:
    """Writes a vocabulary as tiktoken reads it, ranks in order of the tokens; one that comes twice counts once."""
    lines = (f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(dict.fromkeys(tokens)))
    Path(path).write_text("".join(lines), encoding="ascii")


def load_ranks(path: str) -> dict[bytes, int]:
    """The vocabulary of such a file."""
    rows = (line.split() for line in Path(path).read_text(encoding="ascii").splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in rows}


def digest(ids: Any) -> str:
    """A checksum of ids, whatever array or list holds them."""
    import numpy as np

    plain = np.asarray(ids, dtype=np.uint32)
    return f"{len(plain)} ids, {zlib.crc32(plain.tobytes()):08x}"


def documents(path: str) -> Iterator[str]:
    """The documents of a file, which lines of `<|endoftext|>` part; a long one in parts, so that threads share it.

    A part ends before a line end that follows no white space, where every pattern splits: the ids stay the same.
    """
    lines, length = list[str](), 0
    with open(path, encoding="utf-8", newline="") as file:
        for line in file:
            if line == SEPARATOR:
                yield "".join(lines)
                lines, length = [], 0
                continue
            lines.append(line)
            length += len(line)
            if length > PART_CHARACTERS and line.endswith("\n") and not line[-2:-1].isspace() and len(line) > 1:
                yield "".join(lines)[:-1]
                lines, length = ["\n"], 1
    if lines:
        yield "".join(lines)


def slices(text: str, n_bytes: int) -> list[str]:
    """The text in slices of about so many bytes."""
    raw = text.encode()
    ends = [0]
    while ends[-1] < len(raw):
        end = min(ends[-1] + n_bytes, len(raw))
        while end < len(raw) and raw[end] & 0xC0 == 0x80:
            end += 1
        ends.append(end)
    return [raw[a:b].decode() for a, b in pairwise(ends)]
