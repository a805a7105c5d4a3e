"""`tinygpt encode`: text to ids, and ids to text."""

if __name__ == "__main__":  # Ctrl-C may come during the imports below
    from tinygpt.interruption import leave_on_interrupt

    leave_on_interrupt()

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import tyro

from tinygpt.command import run
from tinygpt.config import read
from tinygpt.foreigntokenizer import LoadedTokenizer, load_tokenizer
from tinygpt.textblocks import decoded, name_of, read_blocks, with_last
from tinygpt.tokenizer import Tokenizer
from tinygpt.tokenview import escaped

_NO_BRACKETS = bytes.maketrans(b"[],", b"   ")  # so that lists in JSON are read, too
_MAX_DIGITS = 10


@dataclass(frozen=True, kw_only=True)
class EncodeFlags:
    """What to encode or decode, and how to show it."""

    text: tyro.conf.Positional[tuple[str, ...]] = ()
    """Texts, or ids with --decode; none reads --file or standard input, as it comes."""
    tokenizer: Path
    """Folder with a tokenizer.json (also a prepared folder or a checkpoint), such a file, or a .tiktoken file."""
    file: Path | None = None
    """File to read, UTF-8; `-` is standard input."""
    decode: bool = False
    """From ids to text: exactly the bytes, and nothing after them."""
    special: tuple[str, ...] = ()
    """Special tokens whose strings become their ids: names, or all; every other one is text like any other."""
    format: Literal["ids", "json", "tokens", "count"] = "ids"
    """A line of ids for each text, the same as JSON, a line for each token, or the number of tokens."""
    pattern: str | None = None
    """For a .tiktoken file, which does not say how text is split into pieces; none takes gpt2."""

    def __post_init__(self) -> None:
        if self.text and self.file is not None:
            raise ValueError("file and TEXT are both given; keep one of them")
        if self.decode and (self.special or self.format != "ids"):
            raise ValueError("decode gives bytes; --special and --format are for encoding, leave them out")


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of `tinygpt encode`: ids, or with --decode text, go to standard output as they come."""
    return run(_encode, argv, verb="encode")


def _encode(argv: Sequence[str]) -> int:
    about = "Text to ids, and with --decode ids to text. `tinygpt encode | tinygpt encode --decode` changes no byte."
    flags = read(argv, {"": EncodeFlags}, prog="tinygpt encode", description=about).build(EncodeFlags)
    tokenizer = load_tokenizer(flags.tokenizer, pattern=flags.pattern)
    if flags.format == "tokens" and not isinstance(tokenizer, Tokenizer):
        raise ValueError(f"{flags.tokenizer}: its ids do not say which bytes they stand for; take another --format")
    if flags.decode:
        for name, blocks in _inputs(flags):
            for raw in _bytes_of(tokenizer, _read_ids(blocks, name), name):
                _write(raw)
        if sys.stdout.isatty():
            _write(b"\n")
        return 0
    allowed: Literal["all"] | tuple[str, ...] = "all" if flags.special == ("all",) else flags.special
    for name, blocks in _inputs(flags):
        _print(tokenizer, _ids_of(tokenizer, decoded(blocks, name), allowed), flags.format)
    return 0


def _ids_of(
    tokenizer: LoadedTokenizer, blocks: Iterable[str], allowed: Literal["all"] | tuple[str, ...]
) -> Iterator[npt.NDArray[np.uint32]]:
    """The ids of one text, as they come; a library's tokenizer takes it whole."""
    if isinstance(tokenizer, Tokenizer):
        yield from tokenizer.encode_blocks(blocks, allowed_special=allowed)
    else:
        yield np.array(tokenizer.encode("".join(blocks), allowed_special=allowed), dtype=np.uint32)


def _inputs(flags: EncodeFlags) -> Iterator[tuple[str, Iterator[bytes]]]:
    """(name, blocks of bytes) of each thing to read."""
    if flags.text and flags.decode:
        yield "TEXT", iter([" ".join(flags.text).encode("utf-8", "surrogateescape")])
    for i, text in enumerate(() if flags.decode else flags.text, start=1):
        yield f"TEXT {i}", iter([text.encode("utf-8", "surrogateescape")])
    if flags.text:
        return
    path = flags.file or Path("-")
    yield name_of(path), read_blocks(path)


def _read_ids(blocks: Iterable[bytes], name: str) -> Iterator[npt.NDArray[np.int64]]:
    """Whole numbers with white space, commas or square brackets between them.

    Raises:
        ValueError: Something else, with its place among the ids.
    """
    place, rest = 0, b""
    for block, is_last in with_last(blocks):
        plain = rest + block.translate(_NO_BRACKETS)
        words = plain.split()
        rest = words.pop() if words and not is_last and not plain[-1:].isspace() else b""
        unending = [rest] if len(rest) > 2 * _MAX_DIGITS else []
        for i, word in enumerate(words + unending):
            if len(word) > _MAX_DIGITS or not word.isdigit():
                raise ValueError(f"{name}: {_quoted(word)} at place {place + i} is no id; ids are whole numbers from 0")
        yield np.array([int(word) for word in words], dtype=np.int64)
        place += len(words)


def _bytes_of(tokenizer: LoadedTokenizer, rows: Iterable[npt.NDArray[np.int64]], name: str) -> Iterator[bytes]:
    """The bytes of ids.

    Raises:
        ValueError: An id that the vocabulary does not have, with its place among all of them.
    """
    if not isinstance(tokenizer, Tokenizer):
        try:
            yield tokenizer.decode(np.concatenate([*rows, np.zeros(0, dtype=np.int64)])).encode()
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        return
    place = 0
    for ids in rows:
        try:
            yield tokenizer.decode_bytes(ids)
        except ValueError:
            wrong = next(i for i, id in enumerate(ids) if not _is_known(tokenizer, int(id)))
            raise ValueError(
                f"{name}: id {ids[wrong]} at place {place + wrong} is not in the vocabulary of "
                f"{tokenizer.vocab_size} ids"
            ) from None
        place += len(ids)


def _is_known(tokenizer: Tokenizer, id: int) -> bool:
    try:
        tokenizer.token_bytes(id)
    except ValueError:
        return False
    return True


def _quoted(word: bytes) -> str:
    shown = ascii(word[: 2 * _MAX_DIGITS].decode(errors="replace"))
    return shown if len(word) <= 2 * _MAX_DIGITS else f"{shown}..."


def _print(tokenizer: LoadedTokenizer, rows: Iterable[npt.NDArray[np.uint32]], format: str) -> None:
    """The ids of one text, as they come."""
    count = 0
    separator = {"ids": " ", "json": ", "}.get(format, "")
    if format == "json":
        _write(b"[")
    for ids in rows:
        if format == "tokens" and isinstance(tokenizer, Tokenizer):
            _write("".join(f"{id}\t{escaped(tokenizer.token_bytes(id))}\n" for id in ids.tolist()).encode())
        elif format != "count" and len(ids):
            _write(((separator if count else "") + separator.join(map(str, ids.tolist()))).encode())
        count += len(ids)
    if format != "tokens":
        _write({"json": b"]\n", "count": b"%d\n" % count}.get(format, b"\n"))


def _write(raw: bytes) -> None:
    """Bytes to standard output, whatever the locale says."""
    stream = getattr(sys.stdout, "buffer", None)
    if stream is None:  # a notebook's or a test's
        sys.stdout.write(raw.decode("utf-8", "replace"))
    else:
        stream.write(raw)
        stream.flush()


if __name__ == "__main__":
    sys.exit(main())
