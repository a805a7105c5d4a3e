"""Special tokens: the names that mean something to us, and how callers may give them."""

from collections.abc import Iterable, Mapping, Sequence

END_OF_TEXT = "<|endoftext|>"
SPECIAL_SETS = {
    "spm": ("<pad>", "<unk>", "<bos>", "<eos>"),
    "bert": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[BOS]"),
}
"""Sets of special tokens that go by one name."""

EOT_NAMES = (END_OF_TEXT, "<eos>", "</s>", "[SEP]")
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


def special_ids(special_tokens: Sequence[str] | Mapping[str, int], first: int) -> list[tuple[str, int]]:
    """Names with their ids; names without follow one another from `first` on."""
    if isinstance(special_tokens, Mapping):
        return list(special_tokens.items())
    return [(name, first + i) for i, name in enumerate(special_names(special_tokens))]


def check_ends_documents(special_tokens: Iterable[str]) -> None:
    """Nothing, if one of these names ends documents.

    Raises:
        ValueError: None does, so nothing would stand between the documents of a shard.
    """
    names = list(special_tokens)
    if not any(name in EOT_NAMES for name in names):
        found = ", ".join(names) or "none"
        raise ValueError(f"special_tokens must hold one that ends a document ({', '.join(EOT_NAMES)}), found {found}")
