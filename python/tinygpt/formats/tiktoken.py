"""`.tiktoken` files: a line for each token, its bytes in base64 and its rank.

Source: openai/tiktoken, `tiktoken/load.py`. Neither the pattern nor the special tokens are in the file.
"""

import base64


def loads(text: str) -> dict[bytes, int]:
    """Ranks by token.

    Raises:
        ValueError: A line is not base64 and a whole number; the message names it.
    """
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        fields = line.split()
        try:
            token, rank = base64.b64decode(fields[0], validate=True), int(fields[1])
        except (ValueError, IndexError):
            raise ValueError(f"line {number} is not a token in base64 and its rank: {line[:60]!r}") from None
        if len(fields) != 2 or not 0 <= rank < 2**31 or token in ranks:
            raise ValueError(f"line {number} is not a new token and its rank: {line[:60]!r}")
        ranks[token] = rank
    return ranks


def dumps(ranks: dict[bytes, int]) -> str:
    """The text of a `.tiktoken` file, ascending by rank."""
    rows = sorted(ranks.items(), key=lambda row: row[1])
    return "".join(f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in rows)
