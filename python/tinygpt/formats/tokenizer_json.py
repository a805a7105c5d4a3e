"""`tokenizer.json` of Hugging Face tokenizers: byte-level BPE to and from plain values.

Source: huggingface/tokenizers, the serialised form of its Rust structs.
"""

import json
from collections.abc import Mapping
from typing import Any

from tinygpt.formats import limits
from tinygpt.formats.bytealphabet import is_spelled, spell_all, unspell
from tinygpt.formats.plaintokenizer import PlainTokenizer
from tinygpt.formats.splitpatterns import pattern_of, pre_tokenizer_of
from tinygpt.specials import LATE, LSTRIP, RSTRIP, SINGLE_WORD, SPECIAL, AddedTokens

_FLAGS = {"single_word": SINGLE_WORD, "lstrip": LSTRIP, "rstrip": RSTRIP, "normalized": LATE, "special": SPECIAL}
_FIXED: dict[str, tuple[object, ...]] = {
    "dropout": (None, 0.0),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
    "byte_fallback": (None, False),
}


def dumps(tokenizer: PlainTokenizer) -> str:
    """The text of a `tokenizer.json`.

    Raises:
        ValueError: It has no place for what this tokenizer does; the message says for what.
    """
    if tokenizer.merges is None:
        raise ValueError("a tokenizer.json lists merges, and this tokenizer has none but ranks")
    if tokenizer.pattern == "byte" and tokenizer.merges:
        raise ValueError("the pattern byte merges nothing, and tokenizer.json has no word for that beside merges")
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    layout: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added_row(*row) for row in tokenizer.added],
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer_of(tokenizer.pattern),
        "post_processor": tokenizer.post_processor or {**byte_level, "trim_offsets": False},
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": tokenizer.whole_pieces,
            "vocab": {},
            "merges": [],
        },
    }
    # The two long parts by hand, a row a line: with an indent json is ten times slower and gives a merge four lines.
    rows = [f"   {_json(token)}: {i}" for token, i in _vocab(tokenizer).items()]
    parts = list({token for pair in tokenizer.merges for token in pair})
    spelled = dict(zip(parts, map(_json, spell_all(parts)), strict=True))
    pairs = [f"   [{spelled[left]}, {spelled[right]}]" for left, right in tokenizer.merges]
    head, _, tail = json.dumps(layout, ensure_ascii=False, indent=1).rpartition('"merges": []')
    head, _, between = head.rpartition('"vocab": {}')
    return "".join(
        (head, '"vocab": ', _lines("{", rows, "}"), between, '"merges": ', _lines("[", pairs, "]"), tail, "\n")
    )


_json = json.JSONEncoder(ensure_ascii=False).encode


def _lines(start: str, rows: list[str], end: str) -> str:
    return start + "\n" + ",\n".join(rows) + "\n  " + end if rows else start + end


def loads(raw: str | bytes) -> PlainTokenizer:
    """A tokenizer out of the text of a `tokenizer.json`.

    Raises:
        ValueError: It is damaged, or has a part that is not byte-level BPE with a known pattern; the message names it.
    """
    layout = limits.parse_object(raw)
    model = _object(layout, "model")
    kind = model.get("type", "BPE")  # files of early versions do not say
    if kind != "BPE":
        raise ValueError(f"model.type is {kind!r}; only BPE can be read")
    for name, allowed in _FIXED.items():
        if model.get(name) not in allowed:
            raise ValueError(f"model.{name} is {model[name]!r}, which changes ids in a way that is not supported")
    _check_surroundings(layout)
    added = _added(layout.get("added_tokens"))
    vocab = _object(layout, "model", "vocab")
    limits.check_count(vocab, limits.MAX_TOKENS, "tokens in model.vocab")
    tokens = _tokens(vocab, added)
    merges = model.get("merges")
    if not isinstance(merges, list):
        raise ValueError("model.merges is no list")
    limits.check_count(merges, limits.MAX_MERGES, "merges")
    return PlainTokenizer(
        pattern=pattern_of(layout.get("pre_tokenizer")),
        tokens=list(tokens.values()),
        merges=[_merge(i, merge, tokens) for i, merge in enumerate(merges)],
        added=added,
        whole_pieces=bool(model.get("ignore_merges")),
        post_processor=_post_processor(layout.get("post_processor")),
    )


def _check_surroundings(layout: Mapping[str, Any]) -> None:
    """Refuses what changes text or ids around the model."""
    normalizer = layout.get("normalizer")
    if normalizer is not None and normalizer != {"type": "Sequence", "normalizers": []}:
        raise ValueError(f"normalizer {_kind(normalizer)} is not supported: decoding must give the text back")
    for name in ("truncation", "padding"):
        if layout.get(name) is not None:
            raise ValueError(f"{name} is set, which changes ids; encode gives all of them and encode_padded pads")
    decoder = layout.get("decoder")
    if decoder is not None and not (isinstance(decoder, Mapping) and decoder.get("type") == "ByteLevel"):
        raise ValueError(f"decoder {_kind(decoder)} is not supported; only ByteLevel gives bytes back")


def _added(rows: Any) -> AddedTokens:
    if rows is None:
        return []
    if not isinstance(rows, list):
        raise ValueError("added_tokens is no list")
    limits.check_count(rows, limits.MAX_ADDED_TOKENS, "added tokens")
    found = []
    for token in rows:
        if not isinstance(token, Mapping) or not isinstance(token.get("content"), str):
            raise ValueError("added_tokens holds an entry without content")
        flags = sum(bit for name, bit in _FLAGS.items() if token.get(name))
        found.append((token["content"], _id(token.get("id"), "added_tokens"), flags))
    return found


def _added_row(content: str, id: int, flags: int) -> dict[str, Any]:
    return {"id": id, "content": content, **{name: bool(flags & bit) for name, bit in _FLAGS.items()}}


def _vocab(tokenizer: PlainTokenizer) -> dict[str, int]:
    """The vocabulary in the byte alphabet, and added tokens as they are.

    Those stand here, too, as in GPT-2's own file: tokenizers takes their ids from here, else it counts on. Where a
    piece could be looked up so, they are left out and must come next in the count.
    """
    vocab = dict(zip(spell_all(token for token, _ in tokenizer.tokens), (i for _, i in tokenizer.tokens), strict=True))
    counted = []
    for name, i, flags in tokenizer.added:
        is_text = not flags & SPECIAL
        if name in vocab and not (is_text and vocab[name] == i):
            kind = "an added token" if is_text else "a special token"
            raise ValueError(f"{name!r} is {kind} and the token {vocab[name]}; tokenizer.json holds only one")
        if name in vocab:
            continue
        if is_text and (tokenizer.whole_pieces or (is_spelled(name) and not name.isascii())):
            counted.append((name, i))
        else:
            vocab[name] = i
    for place, (name, i) in enumerate(counted, start=len(vocab)):
        if place != i:
            raise ValueError(f"the added token {name!r} has the id {i}, and tokenizer.json would give it {place}")
    return vocab


def _tokens(vocab: Mapping[str, Any], added: AddedTokens) -> dict[str, tuple[bytes, int]]:
    """Bytes and ids by spelling, without what only stands there to give an added token its id."""
    ids = {name: (i, flags) for name, i, flags in added}
    tokens = {}
    for name, i in vocab.items():
        limits.check_token(name, f"token {name[:20]!r}..")
        id = _id(i, "model.vocab")
        if name in ids:
            added_id, flags = ids[name]
            if added_id != id:
                raise ValueError(f"the added token {name!r} has the id {added_id}, and {id} in model.vocab")
            if flags & SPECIAL or not is_spelled(name):
                continue  # it stands there for its id alone: no piece is spelled so
        tokens[name] = (unspell(name), id)
    return tokens


def _merge(i: int, merge: Any, tokens: Mapping[str, tuple[bytes, int]]) -> tuple[bytes, bytes]:
    parts = merge.split(" ") if isinstance(merge, str) else merge  # files of early versions join the two by a space
    if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) for part in parts):
        raise ValueError(f"merge {i} is {str(merge)[:60]!r}, not two tokens")
    left, right = (tokens[part][0] if part in tokens else unspell(part) for part in parts)
    return left, right


def _post_processor(found: Any) -> Mapping[str, Any] | None:
    """What is to be kept of it: not what only moves offsets."""
    return found if isinstance(found, Mapping) and found.get("type") != "ByteLevel" else None


def _kind(part: Any) -> str:
    return repr(part.get("type")) if isinstance(part, Mapping) else repr(part)[:60]


def _object(layout: Any, *names: str) -> Mapping[str, Any]:
    for i, name in enumerate(names):
        layout = layout.get(name) if isinstance(layout, Mapping) else None
        if not isinstance(layout, Mapping):
            raise ValueError(f"{'.'.join(names[: i + 1])} is missing, so this is no tokenizer.json")
    return layout  # type: ignore[no-any-return]


def _id(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
        raise ValueError(f"{where} holds the id {str(value)[:60]}, which is no whole number from 0")
    return value
