"""`tinygpt prepare`: turn text into a tokenizer and shards of tokens."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from tinygpt.anytokenizer import tokenizer_file
from tinygpt.chats import Chats
from tinygpt.command import byte_bar, run
from tinygpt.config import read
from tinygpt.corpus import Corpus
from tinygpt.manifest import Shard
from tinygpt.preparation import Preparation


@dataclass(frozen=True, kw_only=True)
class PrepareFlags:
    """What to prepare and where to."""

    paths: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Files and folders of text, or of chats in .jsonl files."""
    out: Path | None = None
    """Folder to write; none takes data/NAME, NAME being that of the first path."""
    vocab_size: int = 8192
    """Ids of the tokenizer that is trained: 256 bytes, merges, special tokens."""
    tokenizer_only: bool = False
    """Train and save the tokenizer, write no shards."""
    threads: int | None = None
    """Threads; none takes one for each core."""

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}")


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of `tinygpt prepare`: 0 done, 2 and 1 for errors, 130 stopped by Ctrl-C."""
    return run(_prepare, argv, verb="prepare")


def _prepare(argv: Sequence[str]) -> int:
    about = "Turns text into a tokenizer and shards of tokens. A folder whose text has not changed is left as it is."
    options = read(argv, {"": PrepareFlags, "text": Preparation}, prog="tinygpt prepare", description=about)
    flags, preparation = options.build(PrepareFlags), options.build(Preparation)
    if not flags.paths:
        raise ValueError("PATHS is missing: files or folders of text")
    out = flags.out or Path("data") / flags.paths[0].resolve().stem
    corpus = preparation.corpus(list(flags.paths), threads=flags.threads)
    for line in preparation.left_out(flags.paths):
        print(line)
    begin = time.perf_counter()
    if flags.tokenizer_only:
        if preparation.tokenizer is not None:
            raise ValueError("--tokenizer-only trains a tokenizer and --tokenizer names a trained one; leave one out")
        if (out / "manifest.json").is_file():
            raise FileExistsError(f"{out} holds shards, which need their own tokenizer.json; choose another --out")
        tokenizer = preparation.tokenizer_for(corpus, vocab_size=flags.vocab_size, bar=byte_bar, threads=flags.threads)
        tokenizer.save(out)
        _say_corpus(corpus, time.perf_counter() - begin)
        print(f"tokenizer  {tokenizer.vocab_size:,} ids, fingerprint {tokenizer.fingerprint[:8]}: {out}/tokenizer.json")
        return 0
    how: dict[str, Any] = {"vocab_size": flags.vocab_size, "bar": byte_bar, "threads": flags.threads}
    manifest, is_new = preparation.prepare(corpus, out, **how)
    if not is_new:
        print(f"{out}: prepared already, and nothing has changed")
        return 0
    _say_corpus(corpus, time.perf_counter() - begin)
    print(f"tokenizer  {manifest.vocab_size:,} ids, fingerprint {manifest.fingerprint[:8]}: {tokenizer_file(out)}")
    for name, shards in manifest.splits.items():
        print(_split_line(name, shards, out))
    print(f"next: tinygpt train --data {out}")
    return 0


def _say_corpus(corpus: Corpus | Chats, seconds: float) -> None:
    report = corpus.report
    if isinstance(corpus, Chats):
        print(f"chats      {corpus.summary}")
        return
    rate = (corpus.n_bytes or report["bytes_read"]) / 1e6 / max(seconds, 1e-9)
    print(
        f"text       {len(corpus.files):,} files, {report['documents']:,} documents, {report['bytes_read']:,} bytes "
        f"in {seconds:.1f} s ({rate:.0f} MB/s)"
    )
    if corpus.sample is not None:
        print(f"sample     {corpus.sample}, for the tokenizer")
    if report["bytes_used"] != report["bytes_read"]:
        print(f"cleaned    {report['bytes_used']:,} bytes are left")
    if report["invalid_sequences"]:
        print(f"damaged    {report['invalid_sequences']:,} sequences are not UTF-8 and became U+FFFD")


def _split_line(name: str, shards: Sequence[Shard], out: Path) -> str:
    tokens, n_bytes = sum(shard.tokens for shard in shards), sum(shard.bytes for shard in shards)
    documents = sum(shard.documents for shard in shards)
    rate = f"{n_bytes / tokens:.2f} bytes a token" if tokens else "empty"
    return f"{name:<10} {tokens:,} tokens, {documents:,} documents, {rate}: {out}/{name}_*.bin ({len(shards)})"


if __name__ == "__main__":
    sys.exit(main())
