"""The texts of the suite: the large samples, or the source files of this machine's Python."""

import os
import sysconfig
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

SAMPLES = {"english": "gutenberg-128mb.txt", "mixed": "mixed-50mb.txt"}
ENCODED_BYTES = 50_000_000


@dataclass(frozen=True)
class Text:
    """A corpus in one file."""

    name: str
    path: Path
    folder: Path
    """Where what is derived from it may be kept."""

    @property
    def mb(self) -> float:
        return self.path.stat().st_size / 1e6

    @cached_property
    def beginning(self) -> Path:
        """The first 50 MB, cut at a line end."""
        return self._part("beginning", 0, ENCODED_BYTES)

    @cached_property
    def probe(self) -> Path:
        """5 MB from its middle, to count tokens on."""
        return self._part("probe", self.path.stat().st_size // 2, 5_000_000)

    @cached_property
    def gigabyte(self) -> Path:
        """The text again and again, up to a gigabyte."""
        place = self.folder / f"{self.name}-gigabyte.txt"
        with place.open("wb") as out:
            while out.tell() < 10**9:
                out.write(self.path.read_bytes())
        return place

    def _part(self, name: str, start: int, length: int) -> Path:
        with self.path.open("rb") as file:
            file.seek(start)
            raw = file.read(length)
        begin = raw.index(b"\n") + 1 if start else 0
        place = self.folder / f"{self.name}-{name}.txt"
        place.write_bytes(raw[begin : raw.rindex(b"\n") + 1])
        return place


def texts(folder: Path, given: dict[str, Path]) -> list[Text]:
    """The corpora that were given, else the samples that are there, else the sources of Python."""
    if given:
        return [Text(name, path, folder) for name, path in given.items()]
    samples = Path(os.environ.get("TINYGPT_SAMPLES", "../shared/data")) / "large"
    found = {name: samples / f"{file}.zst" for name, file in SAMPLES.items() if (samples / f"{file}.zst").exists()}
    if not found:
        return [_sources(folder)]
    return [Text(name, _unpacked(path, folder / f"{name}.txt"), folder) for name, path in found.items()]


def gpt2_ranks() -> Path | None:
    """The vocabulary of GPT-2, if the samples are there."""
    path = Path(os.environ.get("TINYGPT_SAMPLES", "../shared/data")) / "gpt2.tiktoken"
    return path if path.exists() else None


def _unpacked(packed: Path, plain: Path) -> Path:
    import zstandard

    with packed.open("rb") as source, plain.open("wb") as out:
        zstandard.ZstdDecompressor(max_window_size=2**27).copy_stream(source, out)
    return plain


def _sources(folder: Path) -> Text:
    sources = sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py"))
    texts = [source.read_bytes().decode("utf-8", "ignore") for source in sources if "site-packages" not in source.parts]
    path = folder / "sources.txt"
    path.write_text("<|endoftext|>\n".join(texts), encoding="utf-8")
    return Text("sources", path, folder)
