"""Sample texts that are not part of the repository, and hard texts made up on the spot."""

import os
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import strategies as st


def sample(name: str) -> Path:
    """Path of a file of the sample data; the test that asks is skipped when it is not there."""
    path = Path(os.environ.get("TINYGPT_SAMPLES", "../shared/data")) / name
    if not path.exists():
        pytest.skip(f"no sample data: {path} is missing (set TINYGPT_SAMPLES)")
    return path


HARD = [
    *[
        "'s",
        "'ll",
        "'",
        "a",
        "B",
        "the",
        " the",
        "é",
        "ß",
        "字",
        "한",
        "🙂",
        "👩‍👩‍👧",
        "\u0301",
        "\ufe0f",
        "Ⅷ",
        "٣",
        "½",
        "1",
        "42",
    ],
    *[
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "\x0b",
        "\x1c",
        "\x85",
        "\xa0",
        "\u1680",
        "\u180e",
        "\u2003",
        "\u2028",
        "\u200b",
        "\u3000",
    ],
    *["\ufeff", "\0", "!", "...", "-", "<|endoftext|>", "<|endof", "\ufffd", "\U0010ffff", "ﬁ", "𝒳", "ا", "हि"],
]


def _texts(*excluded: Literal["Cs", "Cn"]) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(HARD) | st.characters(exclude_categories=excluded), max_size=40).map("".join)


hard_texts = _texts("Cs")
"""Text with the hard cases of splitting and encoding close together."""
assigned_texts = _texts("Cs", "Cn")
"""The same without unassigned code points, of whose kind libraries of other Unicode versions think otherwise."""
