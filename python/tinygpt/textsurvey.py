"""TextSurvey: what a text is for who plans a model of it: bytes, documents, tokens by vocabulary, surprise."""

import re
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tinygpt._core import Counts
from tinygpt.chats import Chats
from tinygpt.corpus import Corpus
from tinygpt.foreigntokenizer import tokenizer_in
from tinygpt.manifest import Manifest
from tinygpt.reading import Reading
from tinygpt.tokenfolder import document_ends, open_folder
from tinygpt.tokenizer import Tokenizer

Kind = Literal["prose", "code", "chat"]
SAMPLE_BYTES = 32_000_000
"""Text that is counted at most; what is longer is counted in samples spread over its files."""
VOCABULARIES = (512, 1024, 2048, 4096, 8192, 16384, 32768)
_SURPRISE_VOCABULARY = 1024  # even a small text has each of its tokens often enough for their shares to be known
_MOST_TOKENS = 2_000_000  # of a prepared folder, which are turned into text and counted
# Rarer pieces are many and long in text of many scripts; a part of them stands for all.
_FREQUENT, _RARE_PIECES = 8, 50_000
_LENGTHS = 64  # that stand for those of all chats
_CODE = re.compile(r"\.(py|rs|c|h|cc|cpp|hpp|java|js|ts|tsx|go|rb|sh|sql|lua|swift|kt|cs|php)")


@dataclass(frozen=True, kw_only=True)
class TextSurvey:
    """What a plan has to know of a text."""

    name: str
    """What was looked at."""
    n_bytes: int
    """Bytes of text."""
    n_documents: int
    """Documents; of a sample, as many as the whole should have."""
    kind: Kind
    """What the text is."""
    bytes_per_token: Mapping[int, float]
    """Vocabulary size -> mean bytes of a token; one entry where the text is prepared already."""
    surprise: float
    """Bits per byte for who knows how often each token occurs and nothing else: how hard the text is."""
    target_share: float = 1.0
    """Share of its tokens that a model learns to say: what the assistant says, in chats."""
    chat_bytes: tuple[float, ...] = ()
    """Bytes of chats, from short to long, each for as many; empty where windows are cut from one stream of text."""
    seconds: float = 0.0
    """Seconds of reading and encoding all of it, as a run that begins with text does."""
    is_prepared: bool = False
    """Whether it is tokens already, whose vocabulary is fixed."""

    def fill(self, block_size: int, vocab_size: int) -> float:
        """Share of the tokens of a window that are text; the rest is padding, since no window holds two chats.

        Example:
            >>> known = {"name": "a", "n_bytes": 9, "n_documents": 1, "kind": "chat", "surprise": 3.0}
            >>> TextSurvey(**known, bytes_per_token={512: 2.0}, chat_bytes=(64.0, 320.0)).fill(128, 512)
            0.5
        """
        if not self.chat_bytes:
            return 1.0
        tokens = np.array(self.chat_bytes) / self.bytes_per_token[vocab_size]
        return float(tokens.sum() / (block_size * np.ceil(tokens / block_size).sum()))


def survey(
    paths: Sequence[str | Path],
    *,
    reading: Reading | None = None,
    kind: Kind | None = None,
    vocabularies: Sequence[int] = VOCABULARIES,
) -> TextSurvey:
    """The survey of files and folders of text, of chats, or of one prepared folder.

    Args:
        paths: What `tinygpt train --data` takes.
        reading: How text is read.
        kind: What the text is; None finds out by the names of the files.
        vocabularies: Sizes to encode a sample with; those that the text is too small for are left out.

    Raises:
        FileNotFoundError: A path does not exist.
        ValueError: There is nothing to read, or several paths of which one is prepared already.
    """
    prepared = [path for path in paths if (Path(path) / "manifest.json").is_file()]
    if prepared and len(paths) > 1:
        raise ValueError(
            f"{prepared[0]} is prepared already, and a plan is for one such folder or for text; name it alone"
        )
    if prepared:
        return _of_folder(Path(prepared[0]), kind)
    return _of_text(paths, reading or Reading(), kind, vocabularies)


def _of_text(
    paths: Sequence[str | Path], reading: Reading, kind: Kind | None, vocabularies: Sequence[int]
) -> TextSurvey:
    corpus = reading.corpus(paths)
    started = time.perf_counter()
    readable = Corpus.from_iterable(corpus.texts()) if isinstance(corpus, Chats) else corpus
    counts = readable.count(special_tokens=["<|endoftext|>"], max_bytes=SAMPLE_BYTES)
    took = time.perf_counter() - started
    pieces = counts.to_dict()
    if not pieces:
        raise ValueError(f"{corpus.name}: no text to plan a model of")
    sampled = sum(len(piece) * n for piece, n in pieces.items())
    sizes = [size for size in vocabularies if size <= max(vocabularies[0], len(pieces))]
    tokens = _tokens_under(sizes, counts, _some(pieces))
    if isinstance(corpus, Chats):
        found, marks = _of_chats(corpus)
    else:
        marks = 0.0
        n_documents, all_bytes = max(1, readable.report.get("documents", 1)), corpus.n_bytes or sampled
        # What rules and filters leave of a sample is what they leave of the whole.
        n_bytes = sampled if sampled <= all_bytes < SAMPLE_BYTES else all_bytes
        found = {"n_bytes": n_bytes, "n_documents": round(n_documents * max(1.0, n_bytes / sampled))}
        found["kind"] = _kind_of(corpus.files)
    # Counting is the first of two passes; the second encodes and writes, and takes a little longer.
    seconds = 2.5 * took * max(1.0, found["n_bytes"] / sampled)
    return TextSurvey(
        name=corpus.name,
        bytes_per_token={size: 1 / (float(n.sum()) / sampled + marks) for size, n in tokens.items()},
        surprise=_surprise(counts, pieces),
        seconds=seconds,
        **{**found, **({} if kind is None else {"kind": kind})},
    )


def _of_chats(chats: Chats) -> tuple[dict[str, Any], float]:
    """What tells chats from other text, by as many as a sample holds; special tokens for each byte of theirs."""
    lengths: list[int] = []
    answered = n_marks = 0
    for chat in chats:
        said = [(role, len(text.encode())) for role, text in chat]
        lengths.append(sum(n for _, n in said))
        answered += sum(n for role, n in said if role == "assistant")
        n_marks += 2 * len(said) + 1  # before and behind a message, and behind them all
        if chats.report["bytes_used"] >= SAMPLE_BYTES:
            break
    all_of_it = chats.n_bytes / chats.report["bytes_read"]
    found = {
        "n_bytes": round(all_of_it * sum(lengths)),
        "n_documents": round(all_of_it * len(lengths)),
        "kind": "chat",
        "target_share": answered / sum(lengths),
        "chat_bytes": _in_short(np.array(lengths)),
    }
    return found, n_marks / sum(lengths)


def _in_short(lengths: NDArray[Any]) -> tuple[float, ...]:
    """The means of lengths from short to long, in equal parts."""
    parts = np.array_split(np.sort(lengths), min(len(lengths), _LENGTHS))
    return tuple(float(part.mean()) for part in parts)


def _some(pieces: Mapping[bytes, int]) -> dict[bytes, float]:
    """Pieces and how often they occur: all frequent ones, and of the rest a few that stand for all."""
    rare = sorted(piece for piece, n in pieces.items() if n < _FREQUENT)
    some: dict[bytes, float] = {piece: n for piece, n in pieces.items() if n >= _FREQUENT}
    taken = rare[:: max(1, len(rare) // _RARE_PIECES)]
    # Scaled by bytes, of which all have to be there.
    share = sum(len(piece) * pieces[piece] for piece in rare) / max(1, sum(len(p) * pieces[p] for p in taken))
    return some | {piece: pieces[piece] * share for piece in taken}


def _tokens_under(
    sizes: Sequence[int], counts: Counts, pieces: Mapping[bytes, float]
) -> dict[int, NDArray[np.float64]]:
    """Vocabulary size -> how often each id occurs in text of these pieces, under the tokenizer that it would get."""
    # The merges of a small vocabulary are the first ones of a large one.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a text is too small for a vocabulary is what the figures tell
        merges = Tokenizer.from_counts(counts, vocab_size=max(sizes)).merges
    texts = [piece.decode("utf-8", "replace") for piece in pieces]
    occurrences = np.fromiter(pieces.values(), np.float64, len(pieces))
    found = {}
    for size in sizes:
        tokenizer = Tokenizer.from_merges(merges[: size - 257], special_tokens=["<|endoftext|>"])
        ids, ends = tokenizer.encode_batch_to_numpy(texts)
        lengths = np.diff(np.concatenate([[0], ends]).astype(np.int64)).astype(np.intp)
        found[size] = np.bincount(ids, weights=np.repeat(occurrences, lengths), minlength=size).astype(np.float64)
    return found


def _surprise(counts: Counts, pieces: Mapping[bytes, int]) -> float:
    """Bits per byte for who knows the shares of the tokens of a small vocabulary."""
    size = min(_SURPRISE_VOCABULARY, max(300, len(pieces)))
    occurrences = _tokens_under([size], counts, _some(pieces))[size]
    n_bytes = sum(len(piece) * n for piece, n in pieces.items())
    return _entropy(occurrences) * float(occurrences.sum()) / n_bytes


def _entropy(occurrences: NDArray[Any]) -> float:
    """Bits per token of who knows the share of each."""
    shares = occurrences[occurrences > 0] / occurrences.sum()
    return float(-(shares * np.log2(shares)).sum())


def _kind_of(files: Sequence[Path]) -> Kind:
    n_code = sum(_CODE.fullmatch(file.suffix.lower()) is not None for file in files)
    return "code" if 2 * n_code > len(files) else "prose"


def _of_folder(folder: Path, kind: Kind | None) -> TextSurvey:
    manifest = Manifest.load(folder)
    shards = manifest.splits.get("train", ())
    n_tokens, n_bytes = sum(shard.tokens for shard in shards), sum(shard.bytes for shard in shards)
    if not n_tokens or not n_bytes:
        raise ValueError(f"{folder}: no tokens to train on")
    opened = open_folder(folder, "train", verify=False)
    ids = opened.tokens.read(0, min(n_tokens, _MOST_TOKENS))
    tokenizer = tokenizer_in(folder)
    if tokenizer is None:
        raise ValueError(f"{folder}: no tokenizer.json, without which nobody knows what its tokens stand for")
    counts = Corpus.from_iterable([tokenizer.decode(ids.tolist())]).count()
    return TextSurvey(
        name=str(folder),
        n_bytes=n_bytes,
        n_documents=sum(shard.documents for shard in shards),
        kind=kind or ("chat" if manifest.has_targets else "prose"),
        bytes_per_token={manifest.vocab_size: n_bytes / n_tokens},
        surprise=_surprise(counts, counts.to_dict()),
        target_share=sum(shard.targets or 0 for shard in shards) / n_tokens if manifest.has_targets else 1.0,
        chat_bytes=_in_short(np.diff(document_ends(opened), prepend=0) * n_bytes / n_tokens)
        if manifest.has_targets
        else (),
        is_prepared=True,
    )
