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
HELD_OUT, SLICES = 0.1, 60


def parts(text: str) -> tuple[Path, Path]:
    """Files to train on and to judge by: whole documents are held out where there are many, else slices of the text."""
    source = Path(os.environ.get("TINYGPT_SAMPLES", "../shared/data")) / TEXTS[text] if text in TEXTS else Path(text)
    if not source.exists():
        sys.exit(
            f"{source}: no such text; name one of {', '.join(TEXTS)} or a file, or the samples with TINYGPT_SAMPLES"
        )
    folder = Path(tempfile.gettempdir()) / "tinygpt-planning-texts"
    train, val = folder / f"{source.name.split('.')[0]}.train.txt", folder / f"{source.name.split('.')[0]}.val.txt"
    if train.exists() and val.exists():
        return train, val
    folder.mkdir(exist_ok=True)
    kept, held = parted(read(source))
    for path, content in ((train, kept), (val, held)):
        beside = path.with_suffix(".new")
        beside.write_bytes(content)
        beside.replace(path)
    return train, val


def parted(content: bytes) -> tuple[bytes, bytes]:
    """A text without what is held out of it, and that: 300 kB, or a tenth of a short text."""
    size = min(300_000, int(HELD_OUT * len(content)))
    documents = [each for each in content.split(SEPARATOR) if each.strip()]
    if len(documents) >= 100:
        held, step = documents[:: len(documents) // 10], len(documents) // 10
        kept = [each for i, each in enumerate(documents) if i % step]
        return SEPARATOR.join(kept), SEPARATOR.join(each[: size // len(held)] + b"\n" for each in held)
    stride, length = len(content) // SLICES, size // SLICES
    kept, held = [], []
    for start in range(0, stride * SLICES, stride):
        part = content[start : start + stride]
        cut = part.rfind(b"\n", 0, len(part) - length) + 1
        kept.append(part[:cut])
        held.append(part[cut:])
    return b"".join(kept), SEPARATOR.join(each + b"\n" for each in held)


def read(source: Path) -> bytes:
    """The bytes of a file, unpacked."""
    if source.suffix != ".zst":
        return source.read_bytes()
    import zstandard

    with source.open("rb") as file:
        found: bytes = zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(file).read()
        return found
