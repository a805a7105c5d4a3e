"""How much of what a model writes stands word for word in its training text, and whether it tells planted secrets."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tinygpt.anytokenizer import AnyTokenizer
from tinygpt.continuations import likelihoods
from tinygpt.decoder import decoder_for
from tinygpt.generation import Request, Streams
from tinygpt.heldout import HeldOut
from tinygpt.ngramsearch import find, longest, queries_of
from tinygpt.samplingconfig import Sampling
from tinygpt.tokenfiles import OpenTokens

if TYPE_CHECKING:
    from tinygpt.model import GPT

NGRAMS = (8, 16, 32)
RIVALS = 255
_TEXTS_AT_ONCE = 16
_DRAWS = 50  # for each rival that is wanted
Progress = Callable[[int, int | None], object]


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """The longest run of tokens that a text shares with the training text."""

    n_tokens: int
    """Its length."""
    text: str
    """What it says."""
    sample: int
    """Number of the text that holds it, from 0."""
    folder: str
    """The prepared folder in which it stands."""
    position: int
    """Place of its first token in the train split there: `tinygpt show FOLDER --at train:POSITION` says its file."""


@dataclass(frozen=True, kw_only=True)
class Memorisation:
    """How much of some texts stands in the training text."""

    shares: dict[int, float | None]
    """Length of n-grams -> share of the texts' n-grams that stand there; None where the texts are shorter."""
    longest: Overlap | None
    """The longest run that they share; None where there is not even one token."""
    n_texts: int
    """Texts looked for."""
    n_tokens: int
    """Tokens of them."""
    n_searched: int
    """Tokens of the training text."""


@dataclass(frozen=True, kw_only=True)
class Canary:
    """What became of a planted line: whether the model, given its first half, goes on with the second."""

    text: str
    """The line."""
    prompt: str
    """Its first half."""
    is_found: bool
    """Whether the model at temperature 0 writes the rest."""
    log_likelihood: float
    """Of the rest after the first half, in nats."""
    rank: int | None
    """Place of the line among lines with other digits in the second half, from 1; None where there are none such."""
    n_ranked: int | None
    """How many lines were ranked, the canary among them."""
    exposure: float | None
    """log2 of `n_ranked` less log2 of the rank: 0 is nothing known, log2 of `n_ranked` all that this can show."""


def write_samples(
    model: "GPT",
    tokenizer: AnyTokenizer,
    *,
    n_samples: int = 20,
    n_tokens: int = 200,
    prompt: str = "",
    sampling: Sampling | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[NDArray[np.uint32]]:
    """The ids of some texts that the model writes, without the prompt; each ends at the separator or at `n_tokens`.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        n_samples: Texts.
        n_tokens: Most tokens of each.
        prompt: Text to continue; an empty one stands for the beginning of a document.
        sampling: How tokens are drawn.
        seed: That of the first text; the next ones count up.
        progress: Told the texts done and the texts there are.

    Raises:
        ValueError: A number is below 1, or an empty prompt has no separator to stand for.
    """
    for name, value in (("n_samples", n_samples), ("n_tokens", n_tokens)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    eot = tokenizer.eot_id
    ids = tokenizer.encode(prompt) or ([] if eot is None else [eot])
    if not ids:
        raise ValueError("an empty prompt needs a tokenizer with a document separator; give at least one character")
    requests = [
        Request(
            ids=ids,
            max_new_tokens=n_tokens,
            sampling=sampling or Sampling(),
            seed=seed + i,
            stop=frozenset([] if eot is None else [eot]),
            n_ids=tokenizer.vocab_size,
        )
        for i in range(n_samples)
    ]
    texts: list[list[int]] = [[] for _ in requests]
    n_done = 0
    for i, drawn in Streams(decoder_for(model, n_slots=min(n_samples, _TEXTS_AT_ONCE))).run(requests):
        texts[i] += [] if drawn.id is None else [drawn.id]
        if drawn.finish is not None:
            n_done += 1
            if progress is not None:
                progress(n_done, n_samples)
    return [np.array(text, np.uint32) for text in texts]


def stretches(held_out: HeldOut, *, n_samples: int, n_tokens: int) -> list[NDArray[np.uint32]]:
    """Runs of held-out tokens, evenly spread, of which none holds a separator: what people write, to compare with."""
    n_samples = max(1, min(n_samples, held_out.n_tokens // n_tokens))
    found = []
    for i in range(n_samples):
        start = i * max(0, held_out.n_tokens - n_tokens) // max(1, n_samples - 1)
        ids = held_out.read(start, min(n_tokens, held_out.n_tokens - start)).astype(np.uint32)
        edges = (
            [-1] if held_out.opened.eot_id is None else [-1, *np.flatnonzero(ids == held_out.opened.eot_id), len(ids)]
        )
        found += [ids[a + 1 : b] for a, b in zip(edges, [*edges[1:], len(ids)], strict=True) if b > a + 1]
    return found


def memorisation(
    texts: Sequence[NDArray[np.uint32]],
    training: Sequence[OpenTokens],
    tokenizer: AnyTokenizer,
    *,
    ngrams: Sequence[int] = NGRAMS,
    progress: Progress | None = None,
) -> Memorisation:
    """How much of the texts stands in the training tokens, which are read in blocks, a few times over.

    Memory is that of the texts' n-grams and of some blocks, whatever the size of the training text. Hashes only choose
    what is compared token by token: the answer is exact.

    Args:
        texts: Ids, each (n,).
        training: The rows of tokens that the model was trained on.
        tokenizer: What made the tokens, to say what the longest run is.
        ngrams: Lengths, in tokens.
        progress: Told the bytes of each pass done and there are.

    Raises:
        ValueError: A length is below 1, or there is none.
    """
    if not ngrams or min(ngrams) < 1:
        raise ValueError(f"ngrams must be lengths from 1, got {', '.join(map(str, ngrams)) or 'none'}")
    lengths = sorted(set(ngrams))
    queries = [queries_of(texts, length) for length in lengths]
    rows = [each.tokens for each in training]
    found = [places[:, 0] >= 0 for places in find(queries, rows, progress=progress)]
    shares = {
        each.length: float(each.counts[is_found].sum() / each.counts.sum()) if len(each.rows) else None
        for each, is_found in zip(queries, found, strict=True)
    }
    known = [length for length, is_found in zip(lengths, found, strict=True) if is_found.any()]
    unknown = [length for length, is_found in zip(lengths, found, strict=True) if not is_found.any()]
    run = longest(texts, rows, at_least=max(known, default=0), below=min(unknown, default=None), progress=progress)
    overlap = None
    if run is not None:
        length, (i, j), (row, place) = run
        text = tokenizer.decode(texts[i][j : j + length].tolist())
        folder = str(training[row].folder)
        overlap = Overlap(n_tokens=length, text=text, sample=i, folder=folder, position=place)
    return Memorisation(
        shares=shares,
        longest=overlap,
        n_texts=len(texts),
        n_tokens=sum(map(len, texts)),
        n_searched=sum(row.n_tokens for row in rows),
    )


def read_canaries(path: str | Path) -> list[str]:
    """The lines of a file of canaries, empty ones left out.

    Raises:
        ValueError: It is not UTF-8, holds none, or one of a single character.
        OSError: The file cannot be read.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text (byte {error.start}); convert it") from None
    for number, line in enumerate(lines, start=1):
        if line and len(line.strip()) < 2:
            found = f"a canary needs two characters at least, some to give and some to tell, got {line!r}"
            raise ValueError(f"{path}, line {number}: {found}")
    if not any(lines):
        raise ValueError(f"{path}: no canaries in it; write one a line")
    return [line for line in lines if line]


def find_canaries(
    model: "GPT",
    tokenizer: AnyTokenizer,
    canaries: Sequence[str],
    *,
    n_rivals: int = RIVALS,
    seed: int = 0,
    batch_size: int = 12,
    progress: Progress | None = None,
) -> list[Canary]:
    """Whether the model tells the second half of each line when it is given the first, and how the line ranks.

    A line is cut at the space nearest to its middle, or in its middle where it has none. Where its second half holds
    digits, it is ranked by log-likelihood among `n_rivals` lines that have other digits in their places, drawn evenly
    from those of as many tokens: a number that is fewer tokens is likelier to any model.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        canaries: Lines of two characters or more.
        n_rivals: Other lines that each is ranked among.
        seed: That of their digits.
        batch_size: Lines in a forward pass.
        progress: Told the lines scored and the lines there are.

    Raises:
        ValueError: A line is longer than the model's context.

    Source: Carlini et al. 2019, The Secret Sharer (arXiv:1802.08232), section 4.3, with a sample for the whole space.
    """
    pairs: list[tuple[str, str]] = []
    edges = [0]
    for canary in canaries:
        cut = _cut(canary)
        endings = [canary[cut:], *_rivals(tokenizer, canary[:cut], canary[cut:], n_rivals, seed)]
        pairs += [(canary[:cut], ending) for ending in endings]
        edges.append(len(pairs))
    found = likelihoods(model, tokenizer, pairs, batch_size=batch_size, progress=progress)
    result = []
    for canary, first, last in zip(canaries, edges, edges[1:], strict=False):
        own, rivals = found[first], found[first + 1 : last]
        rank = 1 + sum(rival.log_likelihood >= own.log_likelihood for rival in rivals) if rivals else None
        result.append(
            Canary(
                text=canary,
                prompt=pairs[first][0],
                is_found=own.is_greedy,
                log_likelihood=own.log_likelihood,
                rank=rank,
                n_ranked=last - first if rivals else None,
                exposure=None if rank is None else math.log2(last - first) - math.log2(rank),
            )
        )
    return result


def _cut(line: str) -> int:
    """Where the second half begins: at the space nearest to the middle that has text on both sides."""
    spaces = [found.start() for found in re.finditer(r" (?=\S)", line) if line[: found.start()].strip()]
    return min(spaces, key=lambda place: abs(2 * place - len(line)), default=len(line) // 2)


def _rivals(tokenizer: AnyTokenizer, beginning: str, ending: str, n: int, seed: int) -> list[str]:
    """The ending with other digits, of as many tokens, in as many different ways as are found up to n."""
    places = [i for i, character in enumerate(ending) if character in "0123456789"]
    draw, found, n_tokens = np.random.default_rng(seed), dict[str, None](), len(tokenizer.encode(beginning + ending))
    for _ in range(_DRAWS * n if places else 0):
        if len(found) == min(n, 10 ** len(places) - 1):
            break
        characters = list(ending)
        for place, digit in zip(places, draw.integers(0, 10, len(places)).tolist(), strict=True):
            characters[place] = str(digit)
        rival = "".join(characters)
        if rival != ending and rival not in found and len(tokenizer.encode(beginning + rival)) == n_tokens:
            found[rival] = None
    return list(found)
