"""`tinygpt bench`: measure the tokenizer on a text of one's own."""

if __name__ == "__main__":  # Ctrl-C may come during the imports below
    from tinygpt.interruption import leave_on_interrupt

    leave_on_interrupt()

import json
import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tinygpt import __version__
from tinygpt.command import run
from tinygpt.config import read
from tinygpt.corpus import Corpus
from tinygpt.foreigntokenizer import is_rank_file
from tinygpt.measurement import Measurement, measure, processor, usable_cores
from tinygpt.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class BenchFlags:
    """What to measure."""

    input: tuple[Path, ...]
    """Files or folders of text."""
    tokenizer: Path | None = None
    """Tokenizer to measure, a folder or tokenizer.json; none trains one on the text and measures that, too."""
    vocab_size: int = 8192
    """Ids of the tokenizer that is trained."""
    pattern: str = "gpt2"
    """How it splits text, as in `tinygpt prepare`; also for a .tiktoken file as --tokenizer, which does not say it."""
    iterations: int = 3
    """Times that each task runs, in a new process each time."""
    threads: int | None = None
    """Threads; none takes one for each core."""
    max_bytes: int = 50_000_000
    """Bytes of text to encode and decode in memory; training and shards take all of it."""
    json: bool = False
    """Print JSON instead of a table."""

    def __post_init__(self) -> None:
        for name in ("iterations", "threads", "max_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of `tinygpt bench`: 0 done and all answers agree, 2 and 1 for errors, 130 stopped by Ctrl-C."""
    return run(_bench, argv, verb="bench")


def _bench(argv: Sequence[str]) -> int:
    about = (
        "Speed and memory of the tokenizer on your text. The answers are checked: decoding gives the text back, any "
    )
    about += "number of threads gives the same ids, shards hold as many tokens."
    flags = read(argv, {"": BenchFlags}, prog="tinygpt bench", description=about).build(BenchFlags)
    corpus = Corpus(list(flags.input))  # refuses what does not exist before anything runs
    if flags.tokenizer is not None:
        _named(flags, flags.tokenizer)
    n_bytes = corpus.n_bytes or 0
    if not flags.json:
        part = f"; encode and decode take {flags.max_bytes / 1e6:,.1f} MB of it" if n_bytes > flags.max_bytes else ""
        print(f"text: {len(corpus.files):,} files, {n_bytes / 1e6:,.1f} MB{part}")
        print(f"\n{'task':<14}{'threads':>8}{'tokens/s':>14}{'MB/s':>9}{'median s':>11}{'best s':>9}{'peak MB':>9}")
    rows = []
    for measurement in _measurements(flags, n_bytes):
        rows.append(measurement)
        if not flags.json:
            print(_line(measurement), flush=True)
    machine = {"processor": processor(), "cores": usable_cores()}
    if flags.json:
        facts = {"version": __version__, "python": platform.python_version(), "machine": machine, "text_bytes": n_bytes}
        print(json.dumps({**facts, "rows": [asdict(row) for row in rows]}, indent=1))
    else:
        where = f"{machine['processor']}, {machine['cores']} cores"
        print(f"\nanswers agree; {flags.iterations} rounds, tinygpt {__version__}, {where}")
    return 0


def _measurements(flags: BenchFlags, n_bytes: int) -> Iterator[Measurement]:
    """Every task; those that must agree are compared.

    Raises:
        RuntimeError: They do not.
    """
    threads, paths = flags.threads or usable_cores(), [str(path) for path in flags.input]
    with tempfile.TemporaryDirectory(prefix="tinygpt-bench-") as folder:
        tokenizer = str(flags.tokenizer or Path(folder, "tokenizer"))
        if flags.tokenizer is not None and is_rank_file(flags.tokenizer):
            tokenizer = str(Path(folder, "tokenizer"))
            _named(flags, flags.tokenizer).save(tokenizer)
        common: dict[str, Any] = {"rounds": flags.iterations, "paths": paths, "tokenizer": tokenizer}
        if flags.tokenizer is None:
            settings: dict[str, Any] = {"vocab_size": flags.vocab_size, "pattern": flags.pattern}
            yield from measure("train", threads=threads, **common, **settings)[0]
        digests, text_tokens = {}, 0
        for task, n in dict.fromkeys([("encode", 1), ("encode", threads), ("decode", 1)]):
            rows, digests[task, n] = measure(task, threads=n, **common, max_bytes=flags.max_bytes)
            text_tokens = rows[0].n_tokens or 0
            yield from rows
        if len(set(digests.values())) > 1:
            raise RuntimeError(f"the ids depend on the number of threads: {digests}; this is a bug in tinygpt")
        if Tokenizer.load(tokenizer).eot_id is None:
            return  # nothing to end documents with, so no shards
        rows, found = measure("shards", threads=threads, **common)
        yield from rows
        if n_bytes <= flags.max_bytes and found != str(text_tokens):
            raise RuntimeError(f"shards hold {found} tokens of text, but encoding gives {text_tokens}; this is a bug")


def _named(flags: BenchFlags, path: Path) -> Tokenizer:
    """The tokenizer that was named; a file of ranks is read with the pattern of the flags."""
    return Tokenizer.load(path, pattern=flags.pattern if is_rank_file(path) else None)


def _line(row: Measurement) -> str:
    per_second = f"{row.n_tokens / row.median_seconds:,.0f}" if row.n_tokens is not None else "-"
    rate, peak = row.n_bytes / 1e6 / row.median_seconds, "-" if row.peak_mb is None else f"{row.peak_mb:,.0f}"
    seconds = f"{row.median_seconds:>11.3f}{row.best_seconds:>9.3f}"
    return f"{row.task:<14}{row.threads:>8}{per_second:>14}{rate:>9.1f}{seconds}{peak:>9}"


if __name__ == "__main__":
    sys.exit(main())
