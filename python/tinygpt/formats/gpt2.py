"""GPT-2's pair of files, `vocab.json` and `merges.txt` (first called `encoder.json` and `vocab.bpe`).

The first holds each token's id, the second a merge in each line; both spell tokens in the byte alphabet. The pattern
is not in them. `added_tokens.json` and `special_tokens_map.json` beside them say which tokens were added.

Source: openai/gpt-2, `encoder.py`; huggingface/transformers, `GPT2Tokenizer`.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tinygpt.formats import limits
from tinygpt.formats.bytealphabet import is_spelled, spell, unspell
from tinygpt.formats.plaintokenizer import PlainTokenizer
from tinygpt.specials import END_OF_TEXT, SPECIAL, AddedTokens, special_names

_PAIRS = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
_ADDED, _SPECIALS = "added_tokens.json", "special_tokens_map.json"


def find(path: Path) -> tuple[Path, Path] | None:
    """The two files, if `path` is one of them or the folder that holds them."""
    folder = path if path.is_dir() else path.parent
    for vocab, merges in _PAIRS:
        if path.is_dir() or path.name in (vocab, merges):
            pair = folder / vocab, folder / merges
            if all(file.is_file() for file in pair):
                return pair
    return None


def load(
    vocab_file: Path, merges_file: Path, special_tokens: Sequence[str] | Mapping[str, int] | None = None
) -> PlainTokenizer:
    """A tokenizer out of the two files and what stands beside them.

    Args:
        vocab_file: The ids.
        merges_file: The merges.
        special_tokens: Names with ids, or names that stand in `vocab_file` or follow it; None takes those that the
            files beside name, or else `<|endoftext|>` where it is a token that no merge makes.

    Raises:
        ValueError: A file is damaged.
    """
    vocab = limits.parse_object(limits.read_file(vocab_file))
    limits.check_count(vocab, limits.MAX_TOKENS, f"tokens in {vocab_file.name}")
    for name, i in vocab.items():
        limits.check_token(name, f"token {name[:20]!r}..")
        if not isinstance(i, int) or isinstance(i, bool) or not 0 <= i < 2**31:
            raise ValueError(f"{vocab_file.name} gives {name[:60]!r} the id {str(i)[:60]}, which is no whole number")
    merges = _merges(limits.read_file(merges_file), merges_file.name)
    if special_tokens is None:
        added = _beside(vocab_file.parent, vocab)
        is_made = any(left + right == END_OF_TEXT.encode() for left, right in merges)
        if not added and END_OF_TEXT in vocab and not is_made:
            added = [(END_OF_TEXT, vocab[END_OF_TEXT], SPECIAL)]
    elif isinstance(special_tokens, Mapping):
        added = [(name, i, SPECIAL) for name, i in special_tokens.items()]
    else:
        names = special_names(special_tokens)
        after = max(vocab.values(), default=-1) + 1
        new = iter(range(after, after + len(names)))
        added = [(name, vocab[name] if name in vocab else next(new), SPECIAL) for name in names]
    apart = {name for name, _, flags in added if flags & SPECIAL or not is_spelled(name)}
    tokens = [(unspell(name), i) for name, i in vocab.items() if name not in apart]
    return PlainTokenizer(pattern="gpt2", tokens=tokens, merges=merges, added=added)


def dumps(tokenizer: PlainTokenizer) -> dict[str, str]:
    """The texts of the files by name.

    Raises:
        ValueError: They have no place for what this tokenizer does; the message says for what.
    """
    if tokenizer.pattern != "gpt2":
        raise ValueError(f"vocab.json and merges.txt go with the pattern gpt2, and this one is {tokenizer.pattern}")
    if tokenizer.whole_pieces or tokenizer.merges is None:
        raise ValueError("merges.txt cannot say that a piece that is a token stays whole, as this tokenizer has it")
    for name, _, flags in tokenizer.added:
        if flags & ~SPECIAL:
            raise ValueError(
                f"the added token {name!r} has flags (lstrip, single_word ..), and no file here holds them"
            )
    special = [name for name, _, flags in tokenizer.added if flags & SPECIAL]
    vocab = {spell(token): i for token, i in tokenizer.tokens}
    for name, i, flags in tokenizer.added:
        if flags & SPECIAL and name in vocab:
            raise ValueError(f"{name!r} is a special token and the token {vocab[name]}; vocab.json holds only one")
        if flags & SPECIAL and is_spelled(name):
            vocab[name] = i
    lines = ["#version: 0.2", *(f"{spell(left)} {spell(right)}" for left, right in tokenizer.merges)]
    files = {"vocab.json": json.dumps(vocab, ensure_ascii=False) + "\n", "merges.txt": "\n".join(lines) + "\n"}
    if tokenizer.added:
        ids = {name: i for name, i, _ in tokenizer.added}
        files[_ADDED] = json.dumps(ids, ensure_ascii=False, indent=1) + "\n"
        files[_SPECIALS] = json.dumps({"additional_special_tokens": special}, ensure_ascii=False, indent=1) + "\n"
    return files


def _merges(raw: bytes, name: str) -> list[tuple[bytes, bytes]]:
    found = []
    for number, line in limits.lines(raw):
        if number == 1 and line.startswith(b"#version"):
            continue
        try:
            parts = line.decode().split(" ")
        except UnicodeDecodeError:
            raise ValueError(f"{name}: line {number} is not UTF-8") from None
        if len(parts) != 2:
            raise ValueError(f"{name}: line {number} is not two tokens: {line[:60]!r}")
        found.append((unspell(parts[0]), unspell(parts[1])))
        if len(found) > limits.MAX_MERGES:
            raise ValueError(f"{name}: more than {limits.MAX_MERGES} merges")
    return found


def _beside(folder: Path, vocab: Mapping[str, int]) -> AddedTokens:
    """The added tokens that the files beside name; ids of those without come from the vocabulary."""
    ids: dict[str, Any] = {}
    if (folder / _ADDED).is_file():
        ids = limits.parse_object(limits.read_file(folder / _ADDED))
    special: list[str] = []
    if (folder / _SPECIALS).is_file():
        for value in limits.parse_object(limits.read_file(folder / _SPECIALS)).values():
            special += map(_content, value if isinstance(value, list) else [value])
    for name in dict.fromkeys(special):
        if name not in ids and name not in vocab:
            raise ValueError(f"{_SPECIALS} names {name!r}, which has no id in vocab.json or {_ADDED}")
    limits.check_count(ids, limits.MAX_ADDED_TOKENS, f"tokens in {_ADDED}")
    rows: dict[str, Any] = {name: ids.get(name, vocab.get(name)) for name in [*ids, *special]}
    for name, i in rows.items():
        if not isinstance(i, int) or isinstance(i, bool) or not 0 <= i < 2**31:
            raise ValueError(f"{_ADDED} gives {name[:60]!r} the id {str(i)[:60]}, which is no whole number from 0")
    return [(name, i, SPECIAL if name in set(special) else 0) for name, i in rows.items()]


def _content(value: Any) -> str:
    """The name in an entry, a string or an object with flags; flags that change what is found are refused."""
    if isinstance(value, Mapping):
        if set_flags := [flag for flag in ("lstrip", "rstrip", "single_word") if value.get(flag)]:
            raise ValueError(f"{_SPECIALS} gives {value.get('content')!r} {', '.join(set_flags)}; use a tokenizer.json")
        value = value.get("content")
    if not isinstance(value, str):
        raise ValueError(f"{_SPECIALS} holds {str(value)[:60]!r}, which is no name")
    return value
