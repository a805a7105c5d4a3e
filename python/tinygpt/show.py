"""`tinygpt show`: say what a file or folder is, and verify it."""

import io
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from tinygpt import runfolder
from tinygpt._core import Counts, FormatError
from tinygpt.anytokenizer import TOKENIZER_FILES, tokenizer_file
from tinygpt.command import byte_bar, run
from tinygpt.config import read
from tinygpt.foreigntokenizer import LoadedTokenizer, is_rank_file, load_tokenizer
from tinygpt.header import HEADER_BYTES, read_header
from tinygpt.librarytokenizers import SentencePieceTokenizer
from tinygpt.manifest import Manifest
from tinygpt.textblocks import decoded, name_of, read_blocks
from tinygpt.tokenizer import Tokenizer
from tinygpt.tokenview import escaped, shortened
from tinygpt.usage import Usage

_LONGEST = 5
_TOKENIZER_FILES = (*TOKENIZER_FILES, "merges.txt", "vocab.bpe")
_SHOWN_TOKENS = 400

Rows = Iterator[tuple[str, object]]


@dataclass(frozen=True, kw_only=True)
class ShowFlags:
    """What to look at."""

    paths: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Prepared folders, shards, tokenizers, checkpoints, runs."""
    verify: bool = False
    """Read all of it and compare every checksum."""
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
        raise ValueError("PATHS is missing: a prepared folder, shard, tokenizer, checkpoint or run")
    if isinstance(sys.stdout, io.TextIOWrapper):  # a locale may lack characters that a token has
        sys.stdout.reconfigure(errors="backslashreplace")
    for path in flags.paths:
        kind, rows = _look(path, verify=flags.verify)
        print(f"{path}: {kind}")
        _print(rows)
        if flags.verify:
            print("  verified        all of it")
        if flags.on is not None:
            _show_on(load_tokenizer(path), flags.on)
    return 0


def _print(rows: Iterable[tuple[str, object]]) -> None:
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


def _look(path: Path, *, verify: bool) -> tuple[str, Iterable[tuple[str, object]]]:
    """What a path is, and what there is to say of it."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if path.is_dir():
        if (path / "manifest.json").is_file():
            return "prepared folder", list(_prepared(path, verify=verify))
        if runfolder.steps(path):
            return "run", list(_run(path, verify=verify))
        if (path / "config.json").is_file():
            return "checkpoint", list(_checkpoint(path, verify=verify))
        if tokenizer_file(path) is not None:
            return "tokenizer", list(_tokenizer(path))
        raise FormatError(f"{path}: no manifest.json, step-*/, config.json or tokenizer.json in it, so nothing of ours")
    if path.suffix == ".bin":
        return "shard", list(_shard(path, verify=verify))
    if path.suffix in (".json", ".tiktoken", ".model") or path.name in _TOKENIZER_FILES:
        return "tokenizer", list(_tokenizer(path))
    if path.suffix == ".counts":
        return "counts", list(_counts(path))
    if path.suffix == ".jsonl":
        return "metrics", list(_metrics(path))
    raise FormatError(
        f"{path}: neither a .bin shard nor a tokenizer (.json, .tiktoken, .model, merges.txt), .counts or metrics.jsonl"
    )


def _prepared(path: Path, *, verify: bool) -> Rows:
    manifest = Manifest.load(path)
    manifest.check(path, verify=verify)
    tokenizer = load_tokenizer(path)
    if tokenizer.fingerprint != manifest.fingerprint:
        raise FormatError(
            f"{path}: its tokenizer has the fingerprint {tokenizer.fingerprint[:8]}.., but the shards were written "
            f"with {manifest.fingerprint[:8]}..; write the shards again"
        )
    kind = f"pattern {tokenizer.pattern}" if isinstance(tokenizer, Tokenizer) else f"read by {_library(tokenizer)}"
    yield "tokenizer", f"{manifest.vocab_size:,} ids, {kind}, fingerprint {manifest.fingerprint[:16]}"
    for name, shards in manifest.splits.items():
        tokens, n_bytes = sum(shard.tokens for shard in shards), sum(shard.bytes for shard in shards)
        documents = sum(shard.documents for shard in shards)
        yield name, f"{tokens:,} tokens in {len(shards)} shards, {documents:,} documents, {n_bytes:,} bytes of text"
    if manifest.has_targets:
        n_targets = sum(shard.targets or 0 for shards in manifest.splits.values() for shard in shards)
        yield "targets", f"{n_targets:,} of the tokens, those of the assistant"
    if manifest.corpus is not None:
        sources = manifest.corpus.get("sources", [])
        total = sum(source.get("bytes", 0) for source in sources)
        yield (
            "text",
            f"{len(sources):,} files, {total:,} bytes, the first {sources[0]['path'] if sources else 'missing'}",
        )
        yield "cleaning", ", ".join(manifest.corpus.get("clean", [])) or "none"


def _shard(path: Path, *, verify: bool) -> Rows:
    header = read_header(path)
    yield "tokens", f"{header.n_tokens:,} of type {header.dtype}"
    if header.fingerprint is None:
        yield "written by", "llm.c or modded-nanogpt: its header says no more"
        return
    yield "vocab_size", f"{header.vocab_size:,}"
    yield "end of text", "none" if header.eot_id is None else header.eot_id
    yield "documents", f"{header.n_documents:,}"
    yield "text", f"{header.n_bytes:,} bytes"
    yield "tokenizer", f"fingerprint {header.fingerprint[:16]}"
    if verify:
        _verify_shard(path, header.vocab_size or 0)


def _verify_shard(path: Path, vocab_size: int) -> None:
    """Compares a shard with the manifest beside it, and every id with the vocabulary."""
    header = read_header(path)
    tokens = np.memmap(path, header.dtype, "r", HEADER_BYTES, (header.n_tokens,)) if header.n_tokens else np.zeros(0)
    for start in range(0, header.n_tokens, 1 << 22):
        largest = int(tokens[start : start + (1 << 22)].max())
        if largest >= vocab_size:
            raise FormatError(f"{path}: id {largest}, but the vocabulary has {vocab_size} ids; write the shards again")
    if (path.parent / "manifest.json").is_file():
        Manifest.load(path.parent).check(path.parent, verify=True)


def _counts(path: Path) -> Rows:
    counts = Counts.load(path)
    yield "pieces", f"{len(counts):,} different ones"
    yield "pattern", counts.pattern or "not known"


def _tokenizer(path: Path) -> Rows:
    tokenizer = load_tokenizer(path)
    yield "vocab_size", f"{tokenizer.vocab_size:,}"
    if isinstance(tokenizer, Tokenizer):
        yield "merges", f"{len(tokenizer.merges):,}"
        yield "pattern", "not said by the file; read as gpt2" if is_rank_file(path) else tokenizer.pattern
    else:
        yield "read by", _library(tokenizer)
    special = ", ".join(f"{name} = {i}" for name, i in tokenizer.special_tokens.items())
    yield "special tokens", special or "none"
    yield "fingerprint", tokenizer.fingerprint[:16]
    if not isinstance(tokenizer, Tokenizer):
        return
    n_bytes, _ = tokenizer.token_lengths()
    specials = set(tokenizer.special_tokens.values())
    unused = tokenizer.vocab_size - int(np.count_nonzero(n_bytes)) - len(specials)
    yield "unused ids", f"{unused:,}"
    longest = np.argsort(-n_bytes.astype(np.int64), kind="stable")[:_LONGEST]
    yield (
        "longest tokens",
        ", ".join(f"'{shortened(escaped(tokenizer.token_bytes(int(i))), 40)}' ({n_bytes[i]} bytes)" for i in longest),
    )


def _library(tokenizer: LoadedTokenizer) -> str:
    return "sentencepiece" if isinstance(tokenizer, SentencePieceTokenizer) else "tokenizers"


def _checkpoint(path: Path, *, verify: bool) -> Rows:
    config = _object(path / "config.json")
    if verify:
        runfolder.verify(path)
    yield "class", ", ".join(config.get("architectures") or ["not said"])
    for name in (
        "vocab_size",
        "max_position_embeddings",
        "n_positions",
        "num_hidden_layers",
        "n_layer",
        "hidden_size",
        "n_embd",
    ):
        if name in config:
            yield name, config[name]
    weights = sum(file.stat().st_size for file in path.glob("*.safetensors") if file.name != "optimizer.safetensors")
    yield "weights", f"{weights:,} bytes"
    if (path / "trainer.json").is_file():
        facts = _object(path / "trainer.json")
        yield "step", f"{facts.get('step', 0)}; training can go on from here"
    file = tokenizer_file(path)
    yield "tokenizer", "none" if file is None else file.name


def _object(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not JSON: {error}") from None
    if not isinstance(found, dict):
        raise FormatError(f"{path}: no JSON object")
    return found


def _run(path: Path, *, verify: bool) -> Rows:
    steps = runfolder.steps(path)
    yield "checkpoints", ", ".join(f"{step:,}" for step in steps)
    for name in ("best", "last"):
        target = runfolder.follow(path, name)
        yield name, "missing" if target is None else target.name
    if verify:
        for step in steps:
            runfolder.verify(runfolder.step_folder(path, step))
    if (path / "metrics.jsonl").is_file():
        yield from _metrics(path / "metrics.jsonl")
    newest = runfolder.step_folder(path, steps[-1])
    if (newest / "config.json").is_file():
        yield from _checkpoint(newest, verify=False)


def _metrics(path: Path) -> Rows:
    last = None
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                last = json.loads(line)
            except ValueError:
                raise FormatError(f"{path}: line {number} is not JSON: {line[:60]!r}") from None
    if last is None:
        yield "lines", 0
        return
    yield "last line", json.dumps({name: value for name, value in last.items() if name != "resources"})


if __name__ == "__main__":
    sys.exit(main())
