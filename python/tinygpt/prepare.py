"""`tinygpt prepare`: turn text into a tokenizer and shards of tokens."""

if __name__ == "__main__":  # Ctrl-C may come during the imports below
    from tinygpt.interruption import leave_on_interrupt

    leave_on_interrupt()

import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from tinygpt.anytokenizer import tokenizer_file
from tinygpt.chats import Chats
from tinygpt.command import byte_bar, run
from tinygpt.config import read
from tinygpt.corpus import Corpus, Progress
from tinygpt.corpusreport import before_and_after, report_lines
from tinygpt.download import fetch_all, fetch_collection, urls_of
from tinygpt.joining import join_parts
from tinygpt.manifest import Manifest, Shard
from tinygpt.preparation import Bar, Preparation
from tinygpt.reading import folder_name

_COMMON_CRAWL = "https://data.commoncrawl.org"
"""Where the paths lie that Common Crawl's lists hold."""


@dataclass(frozen=True, kw_only=True)
class PrepareFlags:
    """What to prepare and where to."""

    paths: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Files, folders and globs of text or data, @list.txt for a file with a path a line, - for standard input."""
    out: Path | None = None
    """Folder to write; none takes data/NAME, NAME being that of the first path."""
    vocab_size: int = 8192
    """Ids of the tokenizer that is trained: 256 bytes, merges, special tokens."""
    tokenizer_only: bool = False
    """Train and save the tokenizer, write no shards."""
    show: int | None = None
    """Print so many documents before and after cleaning and filters, write nothing."""
    dry_run: bool = False
    """Read, clean and filter everything and print the counts, write nothing."""
    shard: str | None = None
    """I/N: write only the I-th of N parts of the whole, for --merge."""
    merge: bool = False
    """PATHS are the folders of all parts: put them together."""
    download: Literal["tinyshakespeare", "gutenberg-small"] | None = None
    """Fetch texts in the public domain and prepare these; they are kept beside --out."""
    urls: Path | None = None
    """File with an address a line: fetch these and prepare them; they are kept beside --out."""
    threads: int | None = None
    """Threads; none takes one for each core."""

    def __post_init__(self) -> None:
        for name in ("threads", "show"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        _part(self.shard)
        if self.shard and self.tokenizer_only:
            raise ValueError("--tokenizer-only trains one tokenizer for all parts; leave --shard to the calls after it")
        if self.merge and (
            self.shard or self.tokenizer_only or self.show or self.dry_run or self.download or self.urls
        ):
            raise ValueError("--merge puts parts together that are prepared already; leave other work to other calls")


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of `tinygpt prepare`: 0 done, 2 and 1 for errors, 130 stopped by Ctrl-C."""
    return run(_prepare, argv, verb="prepare")


def _prepare(argv: Sequence[str]) -> int:
    about = (
        "Turns text into a tokenizer and shards of tokens. A folder whose text has not changed is left as it is, and "
        "what was killed goes on where it was when it is called again."
    )
    options = read(argv, {"": PrepareFlags, "text": Preparation}, prog="tinygpt prepare", description=about)
    flags, preparation = options.build(PrepareFlags), options.build(Preparation)
    paths = _paths(flags)
    out = flags.out or Path("data") / _name_of(flags)
    if flags.merge:
        return _merged(flags, out)
    corpus = preparation.corpus(paths, exclude=out, threads=flags.threads)
    if flags.show is not None:
        return _shown(corpus, flags.show)
    begin = time.perf_counter()
    if flags.dry_run:
        return _counted(corpus, begin)
    if flags.tokenizer_only:
        return _tokenizer_alone(flags, preparation, corpus, out, begin)
    part = _part(flags.shard)
    how: dict[str, Any] = {"vocab_size": flags.vocab_size, "bar": _bar(corpus, part), "threads": flags.threads}
    manifest, is_new = preparation.prepare(corpus, out, part=part, **how)
    if not is_new:
        print(f"{out}: prepared already, and nothing has changed")
        return 0
    _say_corpus(corpus, time.perf_counter() - begin)
    _say_shards(manifest, out)
    return 0


def _paths(flags: PrepareFlags) -> list[Path]:
    """What is read: what was named, or what had to be fetched first."""
    if flags.download is None and flags.urls is None:
        if not flags.paths:
            raise ValueError("PATHS is missing: files or folders of text")
        return list(flags.paths)
    if flags.paths or (flags.download is not None and flags.urls is not None):
        raise ValueError("PATHS, --download and --urls each say what to prepare; give one of them")
    place = (flags.out or Path("data") / _name_of(flags)).with_name(f"{_name_of(flags)}-files")
    with byte_bar("download") as progress:
        if flags.urls is not None:
            return fetch_all(urls_of(flags.urls, base=_COMMON_CRAWL), place, progress=progress)
        assert flags.download is not None
        return fetch_collection(flags.download, place, progress=progress)


def _name_of(flags: PrepareFlags) -> str:
    """What prepared data are called unless --out says it."""
    if flags.download is not None:
        return flags.download
    first = flags.urls or (flags.paths[0] if flags.paths else Path("text"))
    return folder_name(first)


def _part(text: str | None) -> tuple[int, int] | None:
    """Number, from 0, and count of the parts of `I/N`."""
    if text is None:
        return None
    number, _, count = text.partition("/")
    if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise ValueError(f"shard must be I/N with I from 1 to N, such as 1/4, got {text!r}")
    return int(number) - 1, int(count)


def _bar(corpus: Corpus | Chats, part: tuple[int, int] | None) -> Bar:
    """The bars of a run; what training a tokenizer anew in each of several parts costs is said when it begins."""

    def bar(stage: str) -> AbstractContextManager[Progress | None]:
        if stage == "tokenizer" and part is not None and part[1] > 1:
            print(
                f"tokenizer  each of {part[1]} parts reads all {corpus.n_bytes or 0:,} bytes to train the same one; "
                "to read them once: this command with --tokenizer-only, not --shard, then every part with --tokenizer"
            )
        return byte_bar(stage)

    return bar


def _merged(flags: PrepareFlags, out: Path) -> int:
    if not flags.paths:
        raise ValueError("PATHS is missing: the folders of all parts")
    if flags.out is None:
        raise ValueError("--out is missing: where the whole goes")
    _say_shards(join_parts(flags.paths, out), out)
    return 0


def _shown(corpus: Corpus | Chats, n: int) -> int:
    if isinstance(corpus, Chats):
        raise ValueError(f"--show is for text, but {corpus.name} holds chats; tinygpt show does it")
    for line in before_and_after(corpus.pairs(), n):
        print(line)
    return 0


def _counted(corpus: Corpus | Chats, begin: float) -> int:
    for _ in corpus:
        pass
    _say_corpus(corpus, time.perf_counter() - begin)
    return 0


def _tokenizer_alone(
    flags: PrepareFlags, preparation: Preparation, corpus: Corpus | Chats, out: Path, begin: float
) -> int:
    if preparation.tokenizer is not None:
        raise ValueError("--tokenizer-only trains a tokenizer and --tokenizer names a trained one; leave one out")
    if (out / "manifest.json").is_file():
        raise FileExistsError(f"{out} holds shards, which need their own tokenizer.json; choose another --out")
    how: dict[str, Any] = {"vocab_size": flags.vocab_size, "bar": byte_bar, "threads": flags.threads}
    place = next(parent for parent in out.absolute().parents if parent.is_dir())
    tokenizer = preparation.tokenizer_for(corpus, temporary=place, **how)
    tokenizer.save(out)
    _say_corpus(corpus, time.perf_counter() - begin)
    print(f"tokenizer  {tokenizer.vocab_size:,} ids, fingerprint {tokenizer.fingerprint[:8]}: {out}/tokenizer.json")
    return 0


def _say_corpus(corpus: Corpus | Chats, seconds: float) -> None:
    if isinstance(corpus, Chats):
        print(f"chats      {corpus.summary}")
        return
    rate = (corpus.n_bytes or corpus.report["bytes_read"]) / 1e6 / max(seconds, 1e-9)
    print(f"text       {len(corpus.files):,} files, {corpus.n_bytes or 0:,} bytes in {seconds:.1f} s ({rate:.0f} MB/s)")
    for line in report_lines(corpus.report, corpus.skipped):
        print(line)
    if corpus.sample is not None:
        print(f"sample     {corpus.sample}, for the tokenizer")


def _say_shards(manifest: Manifest, out: Path) -> None:
    print(f"tokenizer  {manifest.vocab_size:,} ids, fingerprint {manifest.fingerprint[:8]}: {tokenizer_file(out)}")
    for name, shards in manifest.splits.items():
        print(_split_line(name, shards, out))
    if manifest.part is not None:
        number, count = manifest.part
        print(f"part       {number + 1} of {count}; next: tinygpt prepare --merge with the folders of all parts")
        return
    print(f"next: tinygpt train --data {out}")


def _split_line(name: str, shards: Sequence[Shard], out: Path) -> str:
    tokens, n_bytes = sum(shard.tokens for shard in shards), sum(shard.bytes for shard in shards)
    documents = sum(shard.documents for shard in shards)
    rate = f"{n_bytes / tokens:.2f} bytes a token" if tokens else "empty"
    return f"{name:<10} {tokens:,} tokens, {documents:,} documents, {rate}: {out}/{name}_*.bin ({len(shards)})"


if __name__ == "__main__":
    sys.exit(main())
