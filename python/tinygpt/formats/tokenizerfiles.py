"""Files and folders that hold a byte-level tokenizer, whichever of the formats: which one it is, read and written."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tinygpt._core import FormatError
from tinygpt.formats import gpt2, limits, tiktoken, tokenizer_json
from tinygpt.formats.plaintokenizer import PlainTokenizer
from tinygpt.specials import special_ids
from tinygpt.staging import write_file

FORMATS = ("tokenizer.json", "tiktoken", "gpt2")
"""What can be written: Hugging Face's file, tiktoken's ranks, GPT-2's pair."""


def load(
    path: Path, *, pattern: str | None = None, special_tokens: Sequence[str] | Mapping[str, int] | None = None
) -> PlainTokenizer:
    """The tokenizer in a file or folder; see `Tokenizer.load`.

    Raises:
        FileNotFoundError: There is none.
        FormatError: It is damaged, or not byte-level BPE.
    """
    pair = gpt2.find(path) if not (path / "tokenizer.json").is_file() else None
    if path.is_dir() and pair is None:
        path = path / "tokenizer.json"
        if not path.exists():
            raise FileNotFoundError(f"{path.parent}: no tokenizer.json in this folder, nor vocab.json and merges.txt")
    try:
        if pair is not None:
            plain = gpt2.load(*pair, special_tokens)
            return _with_pattern(plain, pattern)
        raw = limits.read_file(path)
        if path.suffix != ".json" and tiktoken.are_ranks(raw[:1024]):
            return _ranks(raw, pattern, special_tokens)
        if path.suffix == ".tiktoken":
            return _ranks(raw, pattern, special_tokens)  # says which line is wrong
        if path.suffix == ".model":
            raise ValueError("a SentencePiece model, not byte-level BPE; load_tokenizer reads it")
        found = tokenizer_json.loads(raw)
        if pattern not in (None, found.pattern) or special_tokens is not None:
            raise ValueError("a tokenizer.json says its own pattern and special tokens; leave both out")
        return found
    except ValueError as error:
        raise FormatError(f"{path}: {error}") from None


def save(
    tokenizer: PlainTokenizer,
    path: Path,
    *,
    format: str | None = None,
    config: Mapping[str, Any],
    rank_fault: Callable[[], str | None],
) -> None:
    """Writes a tokenizer.

    Args:
        tokenizer: What to write.
        path: A file that ends in `.json` or `.tiktoken`, or a folder.
        format: One of `FORMATS`; None goes by the ending, and a folder gets tokenizer.json.
        config: The content of `tokenizer_config.json`, which goes into a folder beside `tokenizer.json`.
        rank_fault: Says why ids as ranks would not give the same ids.

    Raises:
        ValueError: The format is unknown, or cannot hold this tokenizer.
    """
    is_file = path.suffix in (".json", ".tiktoken") and not path.is_dir()
    found = format or ("tiktoken" if is_file and path.suffix == ".tiktoken" else "tokenizer.json")
    if found not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {found!r}")
    if found == "tiktoken":
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, _ranks_text(tokenizer, rank_fault()))
        return
    files = gpt2.dumps(tokenizer) if found == "gpt2" else {"tokenizer.json": tokenizer_json.dumps(tokenizer)}
    if found == "tokenizer.json" and is_file:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, files["tokenizer.json"])
        return
    if found == "tokenizer.json":
        files["tokenizer_config.json"] = json.dumps(config, indent=1) + "\n"
    path.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        write_file(path / name, text)


def _ranks(raw: bytes, pattern: str | None, special_tokens: Sequence[str] | Mapping[str, int] | None) -> PlainTokenizer:
    ranks = tiktoken.loads(raw)
    after = max(ranks.values(), default=-1) + 1
    return PlainTokenizer(
        pattern=pattern or "gpt2",
        tokens=list(ranks.items()),
        merges=None,
        added=special_ids(special_tokens or (), after),
    )


def _ranks_text(tokenizer: PlainTokenizer, fault: str | None) -> str:
    tiktoken.check(tokenizer, fault)
    return tiktoken.dumps(dict(tokenizer.tokens))


def _with_pattern(plain: PlainTokenizer, pattern: str | None) -> PlainTokenizer:
    if pattern in (None, plain.pattern):
        return plain
    return PlainTokenizer(
        pattern=str(pattern), tokens=plain.tokens, merges=plain.merges, added=plain.added, whole_pieces=False
    )
