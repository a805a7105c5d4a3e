"""What a file or folder is, and what is in it: tokens, tokenizers, checkpoints, runs, chats, metrics."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tinygpt import runfolder, targetbits
from tinygpt._core import Counts, FormatError
from tinygpt.anytokenizer import TOKENIZER_FILES
from tinygpt.chats import Chats, is_chats
from tinygpt.foreigntokenizer import LoadedTokenizer, is_rank_file, load_tokenizer, tokenizer_in
from tinygpt.header import HEADER_BYTES, read_header
from tinygpt.librarytokenizers import SentencePieceTokenizer
from tinygpt.manifest import Manifest
from tinygpt.tokenizer import Tokenizer
from tinygpt.tokenview import escaped, shortened

_LONGEST = 5
_TOKENIZER_FILES = (*TOKENIZER_FILES, "merges.txt", "vocab.bpe")
_SCAN_TOKENS = 1 << 22

Row = tuple[str, object]
"""Name and value."""


def contents(path: Path, *, verify: bool = False) -> tuple[str, list[Row]]:
    """What a file or folder is, and what there is to say of it, each with its name.

    Args:
        path: A prepared folder, a file of tokens or what lies beside one, a tokenizer, a checkpoint, a run, chats or
            metrics.
        verify: Read all of it and compare every checksum.

    Raises:
        FileNotFoundError: There is no such path.
        FormatError: It is damaged, its parts do not belong together, or it is nothing of these.
        ValueError: A `.jsonl` of something else.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "metrics.jsonl").write_text('{"step": 1, "loss": 5.5}')
        ...     contents(Path(folder, "metrics.jsonl"))
        ('metrics', [('lines', 1), ('last line', '{"step": 1, "loss": 5.5}')])
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if path.is_dir():
        if (path / "manifest.json").is_file():
            return "prepared folder", list(_prepared(path, verify=verify))
        if runfolder.steps(path):
            return "run", list(_run(path, verify=verify))
        if (path / "config.json").is_file():
            return "checkpoint", list(_checkpoint(path, verify=verify))
        if any((path / name).is_file() for name in _TOKENIZER_FILES):
            return "tokenizer", list(_tokenizer(path))
        if is_chats(path):
            return "chats", list(_chats(path))
        raise FormatError(
            f"{path}: no manifest.json, step-*/, config.json, tokenizer.json or .jsonl in it, so nothing of ours"
        )
    if path.suffix == ".bin":
        return "shard", list(_shard(path, verify=verify))
    if path.suffix in (".json", ".tiktoken", ".model") or path.name in _TOKENIZER_FILES:
        return "tokenizer", list(_tokenizer(path))
    if path.suffix == ".counts":
        return "counts", list(_counts(path))
    if path.suffix in (".npy", ".pt"):
        return "tokens", list(_tokens(path, verify=verify))
    if path.suffix == targetbits.TARGETS_SUFFIX:
        return "targets", list(_targets(path))
    if path.suffix == ".jsonl":
        first = next(_json_lines(path), None)
        if first is None:
            raise FormatError(f"{path}: empty; metrics and chats have a JSON object on each line")
        return ("metrics", list(_metrics(path))) if "step" in first else ("chats", list(_chats(path)))
    raise FormatError(
        f"{path}: neither tokens (.bin, .npy, .pt), their .targets or .counts, a tokenizer (.json, .tiktoken, .model, "
        "merges.txt), nor metrics or chats (.jsonl)"
    )


def _prepared(path: Path, *, verify: bool) -> Iterator[Row]:
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


def _shard(path: Path, *, verify: bool) -> Iterator[Row]:
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
    for start in range(0, header.n_tokens, _SCAN_TOKENS):
        largest = int(tokens[start : start + _SCAN_TOKENS].max())
        if largest >= vocab_size:
            raise FormatError(f"{path}: id {largest}, but the vocabulary has {vocab_size} ids; write the shards again")
    if (path.parent / "manifest.json").is_file():
        Manifest.load(path.parent).check(path.parent, verify=True)


def _tokens(path: Path, *, verify: bool) -> Iterator[Row]:
    """A file of others, which does not say its vocabulary."""
    from tinygpt.tokenfiles import DOORS  # with torch, which nothing else here needs

    tokens = DOORS[path.suffix](path, 2**31, None, None).tokens
    yield "tokens", f"{tokens.n_tokens:,} of type {tokens.read(0, min(1, tokens.n_tokens)).dtype}"
    yield "vocab_size", "not said by the file; --vocab-size says it in training"
    if verify and tokens.n_tokens:
        n = tokens.n_tokens
        blocks = [tokens.read(start, min(_SCAN_TOKENS, n - start)) for start in range(0, n, _SCAN_TOKENS)]
        yield "ids", f"{min(int(block.min()) for block in blocks)} to {max(int(block.max()) for block in blocks)}"


def _targets(path: Path) -> Iterator[Row]:
    bits, shard = np.fromfile(path, np.uint8), path.with_suffix(".bin")
    blocks = range(0, len(bits), _SCAN_TOKENS)
    n_targets = sum(int(np.unpackbits(bits[start : start + _SCAN_TOKENS]).sum()) for start in blocks)
    if not shard.is_file():
        yield "targets", f"{n_targets:,} of at most {8 * len(bits):,} tokens; {shard.name} is not beside it"
        return
    n_tokens = read_header(shard).n_tokens
    if len(bits) != (wanted := targetbits.n_bytes(n_tokens)):
        raise FormatError(
            f"{path}: {len(bits)} bytes, but a bit for each of {n_tokens} tokens takes {wanted}; write the shards again"
        )
    yield "targets", f"{n_targets:,} of the {n_tokens:,} tokens of {shard.name}"


def _chats(path: Path) -> Iterator[Row]:
    chats = Chats(path, malformed="skip")
    n_messages = sum(map(len, chats))
    found, first = chats.report, f" (first {chats.first_refusal})" if chats.first_refusal else ""
    yield "records", f"{found['records']:,} in {len(chats.files):,} files"
    yield "conversations", f"{found['documents']:,}: {n_messages:,} messages, {found['bytes_used']:,} bytes of text"
    yield "refused", f"{found['refused']:,}{first}"


def _counts(path: Path) -> Iterator[Row]:
    counts = Counts.load(path)
    yield "pieces", f"{len(counts):,} different ones"
    yield "pattern", counts.pattern or "not known"


def _tokenizer(path: Path) -> Iterator[Row]:
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


def _checkpoint(path: Path, *, verify: bool) -> Iterator[Row]:
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
    facts = _object(path / "trainer.json") if (path / "trainer.json").is_file() else {}
    if facts:
        yield "step", f"{facts.get('step', 0)}; training can go on from here"
    yield "tokenizer", _kinship(path, config.get("vocab_size"), facts.get("tokenizer"))


def _kinship(path: Path, room: int | None, fingerprint: str | None) -> str:
    """A checkpoint's tokenizer, found to belong to its model.

    Args:
        path: The folder.
        room: Ids that the model has; None when it does not say.
        fingerprint: That of the tokenizer it was trained with; None when unknown.

    Raises:
        FormatError: It does not belong to the model.
    """
    tokenizer = tokenizer_in(path)
    if tokenizer is None:
        return "none"
    if fingerprint is not None and tokenizer.fingerprint != fingerprint:
        raise FormatError(
            f"{path}: its tokenizer has the fingerprint {tokenizer.fingerprint[:8]}.., but the model was trained with "
            f"{fingerprint[:8]}..; put that one back"
        )
    if room is not None and tokenizer.vocab_size > room:
        raise FormatError(
            f"{path}: its tokenizer has {tokenizer.vocab_size} ids, but the model {room}; put the model's own there"
        )
    known = "the one it was trained with" if fingerprint is not None else "they fit the model"
    return f"{tokenizer.vocab_size:,} ids, fingerprint {tokenizer.fingerprint[:16]}: {known}"


def _object(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not JSON: {error}") from None
    if not isinstance(found, dict):
        raise FormatError(f"{path}: no JSON object")
    return found


def _run(path: Path, *, verify: bool) -> Iterator[Row]:
    steps = runfolder.steps(path)
    yield "checkpoints", ", ".join(f"{step:,}" for step in steps)
    for name in ("best", "last"):
        target = runfolder.follow(path, name)
        yield name, "missing" if target is None else target.name
    if (path / "report.html").is_file():
        yield "report", path / "report.html"
    if verify:
        for step in steps:
            runfolder.verify(runfolder.step_folder(path, step))
    if (path / "metrics.jsonl").is_file():
        yield from _metrics(path / "metrics.jsonl")
    newest = runfolder.step_folder(path, steps[-1])
    if (newest / "config.json").is_file():
        yield from _checkpoint(newest, verify=False)


def _metrics(path: Path) -> Iterator[Row]:
    lines = list(_json_lines(path))
    yield "lines", len(lines)
    if lines:
        yield "last line", json.dumps({name: value for name, value in lines[-1].items() if name != "resources"})


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file, one a line; blank lines are none."""
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                found = None
            if not isinstance(found, dict):
                raise FormatError(
                    f"{path}: line {number} is no JSON object: {line.strip()[:60]!r}; correct or remove it"
                )
            yield found
