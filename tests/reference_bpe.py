"""The slow, obvious byte-pair encoding that the Rust one is held against: no cache, no heap, no thread.

The rule of ties: of the most frequent pairs the one with the smallest left id, then the smallest right id, where ids
are the bytes 0-255 and then the merges in order. Occurrences that overlap all count; merging goes from left to right.
"""

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

import regex

# With the Unicode property spelled out: Python's \s counts U+001C to U+001F as white space, which Unicode does not.
GPT2 = regex.compile(
    r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+"""
    r"""|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+"""
)


def pieces(text: str) -> list[bytes]:
    """The text split by the pattern of GPT-2."""
    return [piece.encode() for piece in GPT2.findall(text)]


def merge(ids: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """Every occurrence of the pair replaced, from left to right."""
    merged, i = [], 0
    while i < len(ids):
        if i + 1 < len(ids) and (ids[i], ids[i + 1]) == pair:
            merged.append(new)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


def train(texts: Iterable[str], n_merges: int) -> list[tuple[int, int]]:
    """The merges, most frequent pair first; fewer than asked for when no pair is left."""
    words = Counter(piece for text in texts for piece in pieces(text))
    spelled = {word: list(word) for word in words}
    merges: list[tuple[int, int]] = []
    while len(merges) < n_merges:
        pairs: Counter[tuple[int, int]] = Counter()
        for word, ids in spelled.items():
            for pair in pairwise(ids):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        spelled = {word: merge(ids, best, 256 + len(merges)) for word, ids in spelled.items()}
        merges.append(best)
    return merges


def encode(text: str, merges: list[tuple[int, int]]) -> list[int]:
    """The ids of a text: merges are applied one after the other, each wherever it fits."""
    result = []
    for piece in pieces(text):
        ids = list(piece)
        for i, pair in enumerate(merges):
            ids = merge(ids, pair, 256 + i)
        result += ids
    return result
