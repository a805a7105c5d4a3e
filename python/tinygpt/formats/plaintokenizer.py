"""PlainTokenizer: a byte-level BPE tokenizer as plain values, between files and the Rust part."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tinygpt.specials import AddedTokens


@dataclass(frozen=True, kw_only=True)
class PlainTokenizer:
    """A tokenizer as plain values."""

    pattern: str
    """Name of the split."""
    tokens: list[tuple[bytes, int]]
    """What merging or looking up a piece may give, with ids."""
    merges: list[tuple[bytes, bytes]] | None
    """First to be applied first; None where ids are ranks."""
    added: AddedTokens
    """Content, id and flags of the tokens beside them."""
    whole_pieces: bool = False
    """A piece that is a token is that token, whatever the merges."""
    post_processor: Mapping[str, Any] | None = None
    """What tokenizers puts around encoded text, in its own words: kept, never applied."""
