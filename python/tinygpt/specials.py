"""Special tokens: the names that mean something to us, and how callers may give them."""

from collections.abc import Iterable, Mapping, Sequence

END_OF_TEXT = "<|endoftext|>"
SPECIAL_SETS = {
    "spm": ("<pad>", "<unk>", "<bos>", "<eos>"),
    "bert": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[BOS]"),
}
"""Sets of special tokens that go by one name."""

EOT_NAMES = (END_OF_TEXT, "<eos>", "</s>", "[SEP]", "<|end_of_text|>")
BOS_NAMES = ("<bos>", "<s>", "[BOS]", "<|begin_of_text|>", "<|startoftext|>")
PAD_NAMES = ("<pad>", "[PAD]", "<|pad|>")


def special_names(special_tokens: Sequence[str] | Mapping[str, int]) -> list[str]:
    """The names, whether they came with ids or without.

    Raises:
        TypeError: One string, where a list of names was meant.
    """
    if isinstance(special_tokens, str):
        raise TypeError(f"special_tokens must be a list of names, got the str {special_tokens!r}")
    return list(special_tokens)


AddedTokens = list[tuple[str, int, int]]
"""Content, id and flags of tokens beside the merges."""

SPECIAL, LSTRIP, RSTRIP, SINGLE_WORD, LATE = 1, 2, 4, 8, 16
"""Flags: no text; white space before it, or after it, is lost; a word by itself; looked for in what others leave."""


def special_ids(special_tokens: Sequence[str] | Mapping[str, int], first: int) -> AddedTokens:
    """Special tokens with their ids; names without follow one another from `first` on."""
    if isinstance(special_tokens, Mapping):
        return [(name, i, SPECIAL) for name, i in special_tokens.items()]
    return [(name, first + i, SPECIAL) for i, name in enumerate(special_names(special_tokens))]


def check_ends_documents(special_tokens: Iterable[str]) -> None:
    """Nothing, if one of these names ends documents.

    Raises:
        ValueError: None does, so nothing would stand between the documents of a shard.
    """
    names = list(special_tokens)
    if not any(name in EOT_NAMES for name in names):
        found = ", ".join(names) or "none"
        raise ValueError(f"special_tokens must hold one that ends a document ({', '.join(EOT_NAMES)}), found {found}")
