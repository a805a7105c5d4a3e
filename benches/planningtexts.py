"""The texts of the planning suite, each parted into what is trained on and what is held out, once."""

import os
import sys
import tempfile
from pathlib import Path

SEPARATOR = b"<|endoftext|>\n"
TEXTS = {
    "shakespeare": "tinyshakespeare.txt",
    "gutenberg": "large/gutenberg-128mb.txt.zst",
    "mixed": "large/mixed-50mb.txt.zst",
}
"""Name -> file of the samples."""
FOLDER = Path(tempfile.gettempdir()) / "tinygpt-planning-texts"
BOOKS, SLICES = 6, 60
HELD_OUT_BYTES, MOST_BYTES = 300_000, 42_000_000


def parts(text: str) -> tuple[Path, Path]:
    """Files to train on and to judge by."""
    source = Path(os.environ.get("TINYGPT_SAMPLES", "../shared/data")) / TEXTS[text] if text in TEXTS else Path(text)
    if not source.exists():
        sys.exit(
            f"{source}: no such text; name one of {', '.join(TEXTS)} or a file, or the samples with TINYGPT_SAMPLES"
        )
    train, val = FOLDER / f"{source.name.split('.')[0]}.train.txt", FOLDER / f"{source.name.split('.')[0]}.val.txt"
    if train.exists() and val.exists():
        return train, val
    FOLDER.mkdir(exist_ok=True)
    kept, held = parted(read(source))
    for path, content in ((train, kept), (val, held)):
        beside = path.with_suffix(".new")
        beside.write_bytes(content)
        beside.replace(path)
    return train, val


def parted(content: bytes) -> tuple[bytes, bytes]:
    """What of a text is trained on, and what is held out: 300 kB, of a short text its last tenth.

    Of many documents it is the beginnings of the last six, of a long text without documents slices from all over it.
    """
    documents = [each for each in content.split(SEPARATOR) if each.strip()]
    if len(documents) >= 100:
        held = [each[: HELD_OUT_BYTES // BOOKS] + b"\n" for each in documents[-BOOKS:]]
        return SEPARATOR.join(documents[:-BOOKS])[:MOST_BYTES], SEPARATOR.join(held)
    if len(content) < 10 * HELD_OUT_BYTES:
        cut = len(content) - len(content) // 10
        return content[:cut], content[cut:]
    kept, held = [], []
    for start in range(0, len(content) // SLICES * SLICES, len(content) // SLICES):
        part = content[start : start + len(content) // SLICES]
        cut = part.rfind(b"\n", 0, len(part) - HELD_OUT_BYTES // SLICES) + 1
        kept.append(part[:cut])
        held.append(part[cut:])
    return (SEPARATOR.join(each + b"\n" for each in kept)), SEPARATOR.join(each + b"\n" for each in held)


def read(source: Path) -> bytes:
    """The bytes of a file, unpacked."""
    if source.suffix != ".zst":
        return source.read_bytes()
    import zstandard

    with source.open("rb") as file:
        found: bytes = zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(file).read()
        return found
