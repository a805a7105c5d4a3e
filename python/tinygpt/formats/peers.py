"""Tokenizers as objects of the libraries that own the formats: tiktoken and tokenizers, each needed only here."""

from typing import TYPE_CHECKING

from tinygpt.formats import splitpatterns, tiktoken, tokenizer_json
from tinygpt.formats.plaintokenizer import PlainTokenizer
from tinygpt.specials import special_ids

if TYPE_CHECKING:
    import tiktoken as tiktoken_library
    import tokenizers


def from_tiktoken(encoding: "tiktoken_library.Encoding") -> PlainTokenizer:
    """The values of an encoding.

    Raises:
        ValueError: Its pattern cannot be ours, or it leaves out text that its pattern does not match.
    """
    try:
        pattern = splitpatterns.of_tiktoken(encoding._pat_str)
        _check_covers(encoding)
    except ValueError as error:
        raise ValueError(f"encoding {encoding.name}: {error}") from None
    specials = special_ids(encoding._special_tokens, 0)
    ranks = list(encoding._mergeable_ranks.items())
    return PlainTokenizer(pattern=pattern, tokens=ranks, merges=None, added=specials)


def to_tiktoken(tokenizer: PlainTokenizer, *, name: str, fault: str | None) -> "tiktoken_library.Encoding":
    """A tokenizer as an encoding.

    Raises:
        ValueError: Ranks cannot hold it, for `fault` or another reason.
        ImportError: tiktoken is not installed.
    """
    tiktoken.check(tokenizer, fault)
    try:
        import tiktoken as library
    except ImportError:
        raise ImportError("tiktoken is needed for this; pip install tiktoken") from None
    encoding = library.Encoding(
        name,
        pat_str=splitpatterns.expression_of(tokenizer.pattern),
        mergeable_ranks=dict(tokenizer.tokens),
        special_tokens={content: i for content, i, _ in tokenizer.added},
    )
    _check_covers(encoding)
    return encoding


def to_tokenizers(tokenizer: PlainTokenizer) -> "tokenizers.Tokenizer":
    """A tokenizer as one of the tokenizers library.

    Raises:
        ImportError: tokenizers is not installed.
    """
    text = tokenizer_json.dumps(tokenizer)
    try:
        import tokenizers as library
    except ImportError:
        raise ImportError("tokenizers is needed for this; pip install 'tinygpt[tokenizers]'") from None
    return library.Tokenizer.from_str(text)


def _check_covers(encoding: "tiktoken_library.Encoding") -> None:
    for character in splitpatterns.PROBE:
        if encoding.decode_bytes(encoding.encode_ordinary(character)) != character.encode():
            raise ValueError(f"its pattern does not match {character!r}, and tiktoken leaves such text out")
