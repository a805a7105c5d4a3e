"""`.tiktoken` files: a line for each token, its bytes in base64 and its rank.

Source: openai/tiktoken, `tiktoken/load.py`. Neither the pattern nor the special tokens are in the file.
"""

import base64

from tinygpt.formats import limits
from tinygpt.formats.plaintokenizer import PlainTokenizer
from tinygpt.specials import SPECIAL


def loads(raw: bytes) -> dict[bytes, int]:
    """Ranks by token.

    Raises:
        ValueError: A line is not base64 and a whole number; the message names it.
    """
    ranks: dict[bytes, int] = {}
    for number, line in limits.lines(raw):
        fields = line.split()
        try:
            token, rank = base64.b64decode(fields[0], validate=True), int(fields[1])
        except (ValueError, IndexError):
            raise ValueError(f"line {number} is not a token in base64 and its rank: {line[:60]!r}") from None
        if len(fields) != 2 or not 0 <= rank < 2**31 or token in ranks:
            raise ValueError(f"line {number} is not a new token and its rank: {line[:60]!r}")
        limits.check_token(token, f"the token in line {number}")
        ranks[token] = rank
        if len(ranks) > limits.MAX_TOKENS:
            raise ValueError(f"more than {limits.MAX_TOKENS} tokens")
    return ranks


def are_ranks(start: bytes) -> bool:
    """Whether a file that starts so is one of ranks, whatever its name."""
    fields = start.split(b"\n", 1)[0].split()
    try:
        return len(fields) == 2 and len(base64.b64decode(fields[0], validate=True)) > 0 and int(fields[1]) >= 0
    except ValueError:
        return False


def dumps(ranks: dict[bytes, int]) -> str:
    """The text of a `.tiktoken` file, ascending by rank."""
    rows = sorted(ranks.items(), key=lambda row: row[1])
    return "".join(f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in rows)


def check(tokenizer: PlainTokenizer, fault: str | None) -> None:
    """Nothing, if ranks and the names of special tokens say all that there is.

    Args:
        tokenizer: Which is to become ranks.
        fault: Why its ids as ranks would give other ids.

    Raises:
        ValueError: They do not; the message says why.
    """
    if fault is not None:
        raise ValueError(f"ranks cannot hold this tokenizer: {fault}")
    for name, _, flags in tokenizer.added:
        if flags != SPECIAL:
            what = "is found in any text" if not flags & SPECIAL else "has flags (lstrip, single_word ..)"
            raise ValueError(f"ranks cannot hold this tokenizer: the added token {name!r} {what}")
