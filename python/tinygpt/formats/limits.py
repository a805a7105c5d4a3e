"""Limits on tokenizer files, checked before what they ask for is made: far above any real one, far below the memory."""

import json
from collections.abc import Iterator, Sized
from io import BytesIO
from pathlib import Path
from typing import Any

MAX_FILE_BYTES = 1 << 27
MAX_TOKENS = 1 << 21
MAX_MERGES = 1 << 21
MAX_ADDED_TOKENS = 1 << 16
MAX_TOKEN_BYTES = 1 << 16
MAX_LINE_BYTES = 1 << 17


def read_file(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        ValueError: It is larger than any tokenizer.
    """
    with path.open("rb") as file:
        raw = file.read(MAX_FILE_BYTES + 1)
    if len(raw) > MAX_FILE_BYTES:
        raise ValueError(f"more than {MAX_FILE_BYTES} bytes, which no tokenizer has")
    return raw


def parse_object(raw: bytes | str) -> dict[str, Any]:
    """The JSON object in a file's bytes.

    Raises:
        ValueError: They are not JSON, nest too deep, or hold something else.
    """
    try:
        found = json.loads(raw)
    except RecursionError:
        raise ValueError("JSON nested too deep to be a tokenizer") from None
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"no JSON object but {type(found).__name__}")
    return found


def lines(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, without their ends, and their numbers from 1.

    Raises:
        ValueError: A line is longer than any token.
    """
    for number, line in enumerate(BytesIO(raw), start=1):
        if len(line) > MAX_LINE_BYTES:
            raise ValueError(f"line {number} has {len(line)} bytes, and the longest may have {MAX_LINE_BYTES}")
        if stripped := line.strip():
            yield number, stripped


def check_count(rows: Sized, most: int, name: str) -> None:
    """Nothing, if there are not too many rows.

    Raises:
        ValueError: There are.
    """
    if len(rows) > most:
        raise ValueError(f"{len(rows)} {name}, and the most there may be is {most}")


def check_token(token: bytes | str, name: str) -> None:
    """Nothing, if a token is not too long.

    Raises:
        ValueError: It is.
    """
    if len(token) > MAX_TOKEN_BYTES:
        raise ValueError(f"{name} has {len(token)} bytes, and the longest token may have {MAX_TOKEN_BYTES}")
