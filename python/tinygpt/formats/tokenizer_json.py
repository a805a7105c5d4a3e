"""`tokenizer.json` of Hugging Face tokenizers: byte-level BPE to and from plain values.

Source: huggingface/tokenizers, the serialised form of its Rust structs; the byte alphabet is openai/gpt-2 `encoder.py`.
"""

import json
from collections.abc import Mapping
from typing import Any, TypedDict

PATTERNS: dict[str, str] = {
    "gpt2": "",  # built into ByteLevel
    "byte": r"[\s\S]",
}
"""Regular expression of each named pattern, as `Split` takes it."""

_PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
_OTHERS = [byte for byte in range(256) if byte not in set(_PRINTABLE)]
BYTE_TO_CHARACTER = {byte: chr(byte) for byte in _PRINTABLE} | {byte: chr(256 + i) for i, byte in enumerate(_OTHERS)}
"""The byte alphabet: each byte as a printable character."""
_CHARACTER_TO_BYTE = {character: byte for byte, character in BYTE_TO_CHARACTER.items()}


class PlainTokenizer(TypedDict):
    """A tokenizer as plain values."""

    pattern: str
    tokens: list[tuple[bytes, int]]
    merges: list[tuple[bytes, bytes]]
    special_tokens: list[tuple[str, int]]


def dumps(tokenizer: PlainTokenizer) -> str:
    """The text of a `tokenizer.json`.

    Raises:
        ValueError: A special token is spelled as another token is, and the file has one place for both.
    """
    specials = dict(tokenizer["special_tokens"])
    vocab = {_spell(token): i for token, i in tokenizer["tokens"]}
    if both := sorted(specials.keys() & vocab.keys()):
        raise ValueError(
            f"{both[0]!r} is a special token and the token {vocab[both[0]]}; tokenizer.json holds only one"
        )
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    if tokenizer["pattern"] == "gpt2":
        pre_tokenizer: dict[str, Any] = {**byte_level, "use_regex": True}
    else:
        split = {
            "type": "Split",
            "pattern": {"Regex": PATTERNS[tokenizer["pattern"]]},
            "behavior": "Isolated",
            "invert": False,
        }
        pre_tokenizer = {"type": "Sequence", "pretokenizers": [split, {**byte_level, "use_regex": False}]}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    layout = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": name, **flags} for name, i in tokenizer["special_tokens"]],
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": {**byte_level, "trim_offsets": False, "use_regex": True},
        "decoder": {**byte_level, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            # Specials stand here, too, as in GPT-2's own file: tokenizers takes their ids from here, else it counts on.
            "vocab": vocab | specials,
            "merges": [[_spell(left), _spell(right)] for left, right in tokenizer["merges"]],
        },
    }
    return json.dumps(layout, ensure_ascii=False, indent=1) + "\n"


def loads(text: str | bytes) -> PlainTokenizer:
    """A tokenizer out of the text of a `tokenizer.json`.

    Raises:
        ValueError: It is damaged, or has a part that is not byte-level BPE with a known pattern; the message names it.
    """
    try:
        layout = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    model = _object(layout, "model")
    kind = model.get("type", "BPE")  # files of early versions do not say
    if kind != "BPE":
        raise ValueError(f"model.type is {kind!r}; only BPE can be read")
    for name, allowed in _FIXED.items():
        if model.get(name) not in allowed:
            raise ValueError(f"model.{name} is {model[name]!r}, which changes ids in a way that is not supported")
    if layout.get("normalizer") is not None:
        raise ValueError(f"normalizer {_kind(layout['normalizer'])} is not supported: decoding must give the text back")
    added = layout.get("added_tokens") or []
    if not isinstance(added, list):
        raise ValueError("added_tokens is no list")
    specials = [(_special_name(token), _id(token.get("id"), "added_tokens")) for token in added]
    names = {name for name, _ in specials}
    vocab = _object(layout, "model", "vocab")
    tokens = [(_unspell(token), _id(i, "model.vocab")) for token, i in vocab.items() if token not in names]
    merges = model.get("merges")
    if not isinstance(merges, list):
        raise ValueError("model.merges is no list")
    return {
        "pattern": _pattern(layout.get("pre_tokenizer")),
        "tokens": tokens,
        "merges": [_merge(i, merge) for i, merge in enumerate(merges)],
        "special_tokens": specials,
    }


_FIXED: dict[str, tuple[object, ...]] = {
    "dropout": (None, 0.0),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
    "byte_fallback": (None, False),
    "ignore_merges": (None, False),
}


def _pattern(pre_tokenizer: Any) -> str:
    for candidate in PATTERNS:
        if _shape(pre_tokenizer) == candidate:
            return candidate
    raise ValueError(f"pre_tokenizer {_kind(pre_tokenizer)} is not one of the known patterns ({', '.join(PATTERNS)})")


def _shape(pre_tokenizer: Any) -> str | None:
    """Name of the pattern that this pre-tokenizer is, if any."""
    if not isinstance(pre_tokenizer, Mapping):
        return None
    if pre_tokenizer.get("type") == "Sequence":
        match pre_tokenizer.get("pretokenizers"):
            case [
                {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated"},
                {"type": "ByteLevel"} as level,
            ] if level.get("use_regex") is False and not level.get("add_prefix_space"):
                return next((name for name, known in PATTERNS.items() if known and known == regex), None)
            case [single]:
                return _shape(single)
        return None
    plain = pre_tokenizer.get("type") == "ByteLevel" and not pre_tokenizer.get("add_prefix_space")
    return "gpt2" if plain and pre_tokenizer.get("use_regex", True) else None


def _kind(part: Any) -> str:
    return repr(part.get("type")) if isinstance(part, Mapping) else repr(part)


def _object(layout: Any, *names: str) -> Mapping[str, Any]:
    for i, name in enumerate(names):
        layout = layout.get(name) if isinstance(layout, Mapping) else None
        if not isinstance(layout, Mapping):
            raise ValueError(f"{'.'.join(names[: i + 1])} is missing, so this is no tokenizer.json")
    return layout  # type: ignore[no-any-return]


def _special_name(token: Any) -> str:
    if not isinstance(token, Mapping) or not isinstance(token.get("content"), str):
        raise ValueError("added_tokens holds an entry without content")
    for flag in ("single_word", "lstrip", "rstrip"):
        if token.get(flag):
            raise ValueError(f"added token {token['content']!r} has {flag}, which is not supported")
    return str(token["content"])


def _id(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
        raise ValueError(f"{where} holds the id {value!r}, which is no whole number from 0")
    return value


def _merge(i: int, merge: Any) -> tuple[bytes, bytes]:
    parts = merge.split(" ") if isinstance(merge, str) else merge  # files of early versions join the two by a space
    if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) for part in parts):
        raise ValueError(f"merge {i} is {merge!r}, not two tokens")
    return _unspell(parts[0]), _unspell(parts[1])


def _spell(token: bytes) -> str:
    return "".join(map(BYTE_TO_CHARACTER.__getitem__, token))


def _unspell(token: str) -> bytes:
    try:
        return bytes(map(_CHARACTER_TO_BYTE.__getitem__, token))
    except KeyError as error:
        raise ValueError(
            f"token {token!r} holds {error.args[0]!r}, which is no byte in the byte-level alphabet"
        ) from None
