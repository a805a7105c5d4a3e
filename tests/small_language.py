"""A made-up language: text of any length, whose words and whose order of words a tiny model learns in seconds."""

from pathlib import Path

import numpy as np
from tinygpt.tokenizer import Tokenizer

_SYLLABLES = [a + b for a in "bdfgklmnprstv" for b in "aeiou"]


def documents(n: int, *, seed: int = 0, language: int = 0, n_words: int = 40, sentences: int = 8) -> list[str]:
    """So many documents; those of another `language` have other words in another order."""
    rng = np.random.default_rng(language)
    words = ["".join(rng.choice(_SYLLABLES, rng.integers(1, 4))) for _ in range(n_words)]
    after = rng.integers(0, n_words, (n_words, 3))
    rng = np.random.default_rng([seed, language])
    return ["".join(_sentence(rng, words, after) for _ in range(sentences)) for _ in range(n)]


def noise(n: int, *, length: int = 100) -> list[str]:
    """So many documents of words in no order at all."""
    rng = np.random.default_rng(1)
    return [" ".join(rng.choice(_SYLLABLES, length)) + "\n" for _ in range(n)]


def prepared(
    folder: Path, texts: list[str], *, vocab_size: int = 340, val_fraction: float = 0.06, of: Path | None = None
) -> Path:
    """A prepared folder of the texts; its tokenizer is learnt from them, or taken from the folder `of`."""
    tokenizer = Tokenizer.train(texts, vocab_size=vocab_size) if of is None else Tokenizer.load(of)
    tokenizer.write_shards(texts, folder, val_fraction=val_fraction)
    return folder


def _sentence(
    rng: np.random.Generator, words: list[str], after: "np.ndarray[tuple[int, ...], np.dtype[np.int64]]"
) -> str:
    word, said = int(rng.integers(len(words))), []
    for _ in range(int(rng.integers(5, 12))):
        said.append(words[word])
        word = int(after[word][min(int(rng.geometric(0.5)) - 1, 2)])
    return " ".join(said) + ".\n"
