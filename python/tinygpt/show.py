"""`tinygpt show`: say what a file or folder is, and verify it."""

if __name__ == "__main__":  # Ctrl-C may come during the imports below
    from tinygpt.interruption import leave_on_interrupt

    leave_on_interrupt()

import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from tinygpt.command import byte_bar, run
from tinygpt.config import read
from tinygpt.contents import Row, contents
from tinygpt.foreigntokenizer import LoadedTokenizer, load_tokenizer
from tinygpt.steptrace import tokens_around, windows_of
from tinygpt.textblocks import decoded, name_of, read_blocks
from tinygpt.tokenizer import Tokenizer
from tinygpt.tracing import Origin, ends_of, origin_of
from tinygpt.usage import Usage

_SHOWN_TOKENS = 400
_SHOWN_BYTES = 200
"""Bytes of a record that are shown from each end."""


@dataclass(frozen=True, kw_only=True)
class ShowFlags:
    """What to look at."""

    paths: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Prepared folders, shards and other files of tokens, tokenizers, checkpoints, runs, chats, metrics."""
    verify: bool = False
    """Read all of it and compare every checksum."""
    at: str | None = None
    """SPLIT:POSITION: of a prepared folder, which file, document and bytes the token at that place came from."""
    step: int | None = None
    """Of a run, the windows that this step was taken on, and where they came from."""
    on: str | None = None
    """How the tokenizer of each path serves this text: a file, `-` for standard input, or the text itself."""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of `tinygpt show`: 0 done and all is well, 2 for what is damaged or unknown."""
    return run(_show, argv, verb="show")


def _show(argv: Sequence[str]) -> int:
    flags = read(argv, {"": ShowFlags}, prog="tinygpt show", description="Says what a file or folder is.").build(
        ShowFlags
    )
    if not flags.paths:
        raise ValueError("PATHS is missing: a prepared folder, file of tokens, tokenizer, checkpoint, run or chats")
    if isinstance(sys.stdout, io.TextIOWrapper):  # a locale may lack characters that a token has
        sys.stdout.reconfigure(errors="backslashreplace")
    for path in flags.paths:
        if flags.at is not None or flags.step is not None:
            for line in _traced(path, flags):
                print(line)
            continue
        kind, rows = contents(path, verify=flags.verify)
        print(f"{path}: {kind}")
        _print(rows)
        if flags.verify:
            print("  verified        all of it")
        if flags.on is not None:
            _show_on(load_tokenizer(path), flags.on)
    return 0


def _traced(path: Path, flags: ShowFlags) -> Iterator[str]:
    """Where a token, or what a step saw, came from."""
    if flags.at is not None and flags.step is not None:
        raise ValueError("--at is for prepared folders and --step for runs; give one of them")
    if flags.step is not None:
        yield from windows_of(path, flags.step)
        return
    split, _, position = (flags.at or "").partition(":")
    if not position.replace(",", "").isdigit():
        raise ValueError(f"at must be SPLIT:POSITION, such as train:123456, got {flags.at!r}")
    origin = origin_of(path, split, int(position.replace(",", "")))
    yield f"{flags.at}: {origin}"
    yield f"tokens     {tokens_around(path, split, int(position.replace(',', '')))}"
    try:
        yield f"record     {_record(origin)}"
    except (ValueError, OSError) as error:
        yield f"record     not shown: {error}"


def _record(origin: Origin) -> str:
    """A document's record on one line, its middle left out where it is long."""
    head, between, tail = ends_of(origin, most_bytes=_SHOWN_BYTES)
    return f"{head!r} [{between:,} bytes] {tail!r}" if between else repr(head)


def _print(rows: Iterable[Row]) -> None:
    for name, value in rows:
        print(f"  {name:<15} {value}")


def _show_on(tokenizer: LoadedTokenizer, on: str) -> None:
    """How a tokenizer serves a text: figures of all of it, and the tokens of its beginning."""
    if not isinstance(tokenizer, Tokenizer):
        _show_on_whole(tokenizer, on)
        return
    usage, first = Usage(*tokenizer.token_lengths()), np.zeros(0, dtype=np.uint32)
    name, n_bytes, blocks = _text(on)
    with byte_bar("tokens") as progress:
        for ids in tokenizer.encode_blocks(blocks):
            usage.add(ids)
            first = first if len(first) else ids[:_SHOWN_TOKENS]
            progress(usage.n_bytes, n_bytes)
    if not usage.n_tokens:
        raise ValueError(f"{name}: no text to look at")
    _print(
        [
            ("on", f"{name}: {usage.n_bytes:,} bytes, {usage.n_characters:,} characters"),
            (
                "tokens",
                f"{usage.n_tokens:,}, each {usage.n_bytes / usage.n_tokens:.2f} bytes, "
                f"{usage.n_characters / usage.n_tokens:.2f} characters",
            ),
            ("single bytes", f"{usage.single_byte_fraction:.1%} of the tokens"),
            ("ids used", f"{usage.n_used:,} of {tokenizer.vocab_size:,}"),
        ]
    )
    print(tokenizer.view_of(first.tolist()), end="\n" if len(first) == usage.n_tokens else " ...\n")


def _show_on_whole(tokenizer: LoadedTokenizer, on: str) -> None:
    """The same of a library's tokenizer, whose ids do not say which bytes they stand for: figures alone."""
    name, _, blocks = _text(on)
    text = "".join(blocks)
    ids = tokenizer.encode(text)
    if not ids:
        raise ValueError(f"{name}: no text to look at")
    n_bytes = len(text.encode())
    _print(
        [
            ("on", f"{name}: {n_bytes:,} bytes, {len(text):,} characters"),
            ("tokens", f"{len(ids):,}, each {n_bytes / len(ids):.2f} bytes, {len(text) / len(ids):.2f} characters"),
            ("ids used", f"{len(set(ids)):,} of {tokenizer.vocab_size:,}"),
        ]
    )


def _text(on: str) -> tuple[str, int | None, Iterator[str]]:
    """Name, bytes if they are known, and blocks of a text: a file's, standard input's, or the words themselves."""
    path = Path(on)
    if on == "-" or _exists(path):
        return name_of(path), None if on == "-" else path.stat().st_size, decoded(read_blocks(path), name_of(path))
    if len(on.split()) == 1 and ("/" in on or path.suffix.lower() in (".txt", ".md")):
        raise FileNotFoundError(f"{on}: no such file")
    raw = on.encode("utf-8", "surrogateescape")
    return "the text", len(raw), decoded([raw], "--on")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # longer than a name may be, or a NUL in it
        return False


if __name__ == "__main__":
    sys.exit(main())
