"""Tokenizer: text to ids and back. The work is done in Rust; this is its face."""

import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tinygpt._core import Bpe, Counts, FormatError, ShardSet
from tinygpt.corpus import Progress, Source, as_corpus
from tinygpt.formats import tiktoken, tokenizer_json
from tinygpt.manifest import Manifest, Shard, check_replaceable
from tinygpt.specials import (
    BOS_NAMES,
    END_OF_TEXT,
    EOT_NAMES,
    PAD_NAMES,
    AddedTokens,
    check_ends_documents,
    special_ids,
    special_names,
)
from tinygpt.staging import staged_folder, sweep, write_file
from tinygpt.textblocks import text_parts
from tinygpt.tokenids import Ids, as_uint32, single
from tinygpt.tokenview import TokenView, table


class Tokenizer:
    """Byte-level BPE. Immutable: it may be shared between threads, pickled and forked.

    Every text can be encoded and `decode(encode(text)) == text`. Text is text: the string of a special token becomes
    its id only where the caller allows it.

    Example:
        >>> from tinygpt.corpus import Corpus
        >>> tokenizer = Tokenizer.train(Corpus.from_iterable(["low lower lowest"]), vocab_size=260)
        >>> tokenizer.encode("lower")
        [257, 101, 114]
        >>> tokenizer.decode([257, 101, 114])
        'lower'

    Source: Sennrich et al. 2016 (arXiv:1508.07909); byte-level as in Radford et al. 2019 (GPT-2).
    """

    __slots__ = ("_bpe", "_fingerprint", "_specials")

    def __init__(self, bpe: Bpe) -> None:
        self._bpe = bpe
        self._specials = dict(bpe.special_tokens())
        self._fingerprint = bpe.fingerprint()

    @classmethod
    def train(
        cls,
        source: Source,
        *,
        vocab_size: int = 8192,
        pattern: str = "gpt2",
        special_tokens: Sequence[str] | Mapping[str, int] = (END_OF_TEXT,),
        threads: int | None = None,
        max_bytes: int | None = None,
        max_documents: int | None = None,
        progress: Progress | None = None,
    ) -> "Tokenizer":
        """A tokenizer learnt from text: the most frequent pair of neighbours merges first, ties go to the smaller ids.

        The result depends on the text alone, not on threads. If no pair is left before `vocab_size` is reached, the
        tokenizer is smaller and a warning says so.

        Args:
            source: A `Corpus`, a path, a list of paths, or an iterable of str, one document each.
            vocab_size: Ids in all: 256 bytes, merges, special tokens. The pattern "byte" needs none.
            pattern: How text is split before merging: "gpt2" or "byte".
            special_tokens: Names, whose ids follow the merges, or names with their ids.
            threads: None means one for each core.
            max_bytes: Learn from a sample of at most so many bytes, spread over the files.
            max_documents: Learn from a sample of at most so many documents.
            progress: Called now and then with the bytes counted and the bytes there are (None when unknown).

        Raises:
            FileNotFoundError: A path does not exist.
            ValueError: `vocab_size` has no room for the bytes and the special tokens, or the text is empty.
        """
        names = special_names(special_tokens)
        _check_vocab_size(vocab_size, names, pattern)
        corpus = as_corpus(source)
        counts = corpus.count(
            pattern=pattern,
            special_tokens=names,
            max_bytes=max_bytes,
            max_documents=max_documents,
            threads=threads,
            progress=progress,
        )
        if len(counts) == 0:
            raise ValueError(f"{corpus.name}: no text to learn a tokenizer from")
        return cls._learnt(counts, vocab_size, pattern, special_tokens, consume=True)

    @classmethod
    def from_counts(
        cls,
        counts: Counts | Mapping[bytes, int],
        *,
        vocab_size: int = 8192,
        pattern: str = "gpt2",
        special_tokens: Sequence[str] | Mapping[str, int] = (END_OF_TEXT,),
    ) -> "Tokenizer":
        """A tokenizer learnt from counted pieces: `Counts`, or `{piece: number of occurrences}` from any engine."""
        names = special_names(special_tokens)
        _check_vocab_size(vocab_size, names, pattern)
        own = not isinstance(counts, Counts)
        counted = counts if isinstance(counts, Counts) else Counts(dict(counts))
        return cls._learnt(counted, vocab_size, pattern, special_tokens, consume=own)

    @classmethod
    def _learnt(
        cls,
        counts: Counts,
        vocab_size: int,
        pattern: str,
        special_tokens: Sequence[str] | Mapping[str, int],
        *,
        consume: bool,
    ) -> "Tokenizer":
        """A tokenizer learnt from counts, whose memory is given back first where they are not wanted any longer."""
        names = special_names(special_tokens)
        wanted = 0 if pattern == "byte" else vocab_size - 256 - len(names)
        bpe = Bpe.learn(counts, n_merges=wanted, pattern=pattern, special_tokens=names, consume=consume)
        found = len(bpe.merges())
        if found < wanted and pattern != "char":  # where every character is one id, there is nothing more to learn
            warnings.warn(
                f"no pair of tokens is left after {found} merges, so the vocabulary has {len(bpe)} ids, not "
                f"{vocab_size}: the text is small for it",
                stacklevel=3,
            )
        if isinstance(special_tokens, Mapping):
            merges = cls(bpe).merges
            return cls.from_merges(merges, pattern=pattern, special_tokens=special_tokens)
        return cls(bpe)

    @classmethod
    def from_merges(
        cls,
        merges: Iterable[tuple[bytes, bytes]],
        *,
        pattern: str = "gpt2",
        special_tokens: Sequence[str] | Mapping[str, int] = (),
    ) -> "Tokenizer":
        """A tokenizer with these merges, first to be applied first; ids are the bytes, then the merges in order.

        Raises:
            ValueError: A merge joins tokens that no earlier merge has made, or makes one that exists.

        Example:
            >>> Tokenizer.from_merges([(b"a", b"b")]).encode("abc")
            [256, 99]
        """
        rows = list(merges)
        tokens = [(bytes([byte]), byte) for byte in range(256)]
        tokens += [(left + right, 256 + i) for i, (left, right) in enumerate(rows)]
        return cls(Bpe.from_tokens(pattern, tokens, rows, special_ids(special_tokens, len(tokens)), False))

    @classmethod
    def from_ranks(
        cls,
        ranks: Mapping[bytes, int],
        *,
        pattern: str = "gpt2",
        special_tokens: Sequence[str] | Mapping[str, int] = (),
    ) -> "Tokenizer":
        """A tokenizer as tiktoken knows it: ids are ranks, and the lowest rank merges first.

        Raises:
            FormatError: A byte is missing, or an id or token is given twice.
        """
        rows = [(bytes(token), int(rank)) for token, rank in ranks.items()]
        after = max((rank for _, rank in rows), default=-1) + 1
        return cls(Bpe.from_tokens(pattern, rows, None, special_ids(special_tokens, after), False))

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        pattern: str | None = None,
        special_tokens: Sequence[str] | Mapping[str, int] | None = None,
    ) -> "Tokenizer":
        """The tokenizer of a folder, a `tokenizer.json` or a `.tiktoken` file.

        Args:
            path: A folder that holds `tokenizer.json`, such a file, or ranks as tiktoken writes them.
            pattern: For `.tiktoken`, which does not say it: how text is split; None means "gpt2".
            special_tokens: For `.tiktoken`, likewise; None means none.

        Raises:
            FileNotFoundError: There is no such file.
            FormatError: It is damaged, or it is a kind of tokenizer that is not byte-level BPE.
        """
        file = Path(path)
        if file.is_dir():
            file = file / "tokenizer.json"
            if not file.exists():
                raise FileNotFoundError(f"{file.parent}: no tokenizer.json in this folder")
        raw = file.read_bytes()
        try:
            if file.suffix == ".tiktoken":
                ranks = tiktoken.loads(raw.decode("ascii"))
                return cls.from_ranks(ranks, pattern=pattern or "gpt2", special_tokens=special_tokens or ())
            plain = tokenizer_json.loads(raw)
            if pattern not in (None, plain["pattern"]) or special_tokens is not None:
                raise ValueError("a tokenizer.json says its own pattern and special tokens; leave both out")
            added = [(name, i, 1) for name, i in plain["special_tokens"]]
            return cls(Bpe.from_tokens(plain["pattern"], plain["tokens"], plain["merges"], added, False))
        except ValueError as error:
            raise FormatError(f"{file}: {error}") from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes `tokenizer.json` and `tokenizer_config.json` into a folder, as tokenizers and transformers read them.

        A path that ends in `.json` gets the first alone.
        """
        place = Path(path)
        pairs = [(token, i) for i, token in enumerate(self._bpe.tokens()) if token]
        layout: tokenizer_json.PlainTokenizer = {
            "pattern": self.pattern,
            "tokens": pairs,
            "merges": self.merges,
            "special_tokens": list(self._specials.items()),
        }
        if place.suffix == ".json" and not place.is_dir():
            place.parent.mkdir(parents=True, exist_ok=True)
            write_file(place, tokenizer_json.dumps(layout))
            return
        place.mkdir(parents=True, exist_ok=True)
        write_file(place / "tokenizer.json", tokenizer_json.dumps(layout))
        names = {"eos_token": self.eot_id, "bos_token": self.bos_id, "pad_token": self.pad_id}
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            **{role: self.id_to_token(i) for role, i in names.items() if i is not None},
            "tinygpt": {"format": "tinygpt-tokenizer", "version": 1, "fingerprint": self.fingerprint},
        }
        write_file(place / "tokenizer_config.json", json.dumps(config, indent=1) + "\n")

    def encode(self, text: str, *, allowed_special: Literal["all"] | Iterable[str] = ()) -> list[int]:
        """The ids of a text.

        Args:
            text: Any text without lone surrogates.
            allowed_special: "all" or the names of special tokens whose strings become their ids, the longest where
                several start; all others are ordinary text.

        Raises:
            ValueError: A lone surrogate, with its place; or a name that is no special token.
        """
        return self._bpe.encode(text, self._allowed(allowed_special))

    def encode_to_numpy(
        self, text: str, *, allowed_special: Literal["all"] | Iterable[str] = ()
    ) -> npt.NDArray[np.uint32]:
        """The ids of a text as an array, which costs a third of the time of a list: uint32 (n,)."""
        return self._bpe.encode_to_numpy(text, self._allowed(allowed_special))

    def encode_batch(
        self,
        texts: Sequence[str],
        *,
        threads: int | None = None,
        allowed_special: Literal["all"] | Iterable[str] = (),
    ) -> list[list[int]]:
        """The ids of each text, worked out on several threads."""
        return self._bpe.encode_batch(list(texts), self._allowed(allowed_special), threads)

    def encode_batch_to_numpy(
        self,
        texts: Sequence[str],
        *,
        threads: int | None = None,
        allowed_special: Literal["all"] | Iterable[str] = (),
    ) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint64]]:
        """The ids of all texts in a row, uint32 (n,), and where each text's end, uint64 (len(texts),)."""
        return self._bpe.encode_batch_to_numpy(list(texts), self._allowed(allowed_special), threads)

    def encode_padded(
        self,
        texts: Sequence[str],
        *,
        max_length: int | None = None,
        side: Literal["left", "right"] = "right",
        threads: int | None = None,
        allowed_special: Literal["all"] | Iterable[str] = (),
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Texts as one rectangle: ids int64 (B, T), and where they are text and not padding, bool (B, T).

        Args:
            texts: One for each row.
            max_length: Longer texts lose their end; None makes T the longest text's length.
            side: Where the padding goes.
            threads: None means one for each core.
            allowed_special: As in `encode`.

        Raises:
            ValueError: The tokenizer has no pad token, or `side` or `max_length` is out of range.
        """
        if self.pad_id is None:
            raise ValueError(f"this tokenizer has no pad token; train it with one of {', '.join(PAD_NAMES)}")
        if side not in ("left", "right"):
            raise ValueError(f"side must be left or right, got {side!r}")
        if max_length is not None and max_length < 1:
            raise ValueError(f"max_length must be at least 1, got {max_length}")
        rows = self.encode_batch(texts, threads=threads, allowed_special=allowed_special)
        rows = [row[:max_length] for row in rows]
        width = max(map(len, rows), default=0)
        ids = np.full((len(rows), width), self.pad_id, dtype=np.int64)  # (B, T)
        mask = np.zeros((len(rows), width), dtype=np.bool_)  # (B, T)
        for i, row in enumerate(rows):
            place = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
            ids[i, place] = row
            mask[i, place] = True
        return ids, mask

    def encode_iterable(
        self, texts: Iterable[str], *, allowed_special: Literal["all"] | Iterable[str] = ()
    ) -> Iterator[int]:
        """The ids of all texts in a row, one at a time; no more than one text is held."""
        allowed = self._allowed(allowed_special)
        for text in texts:
            yield from self._bpe.encode(text, allowed)

    def encode_blocks(
        self, blocks: Iterable[str], *, allowed_special: Literal["all"] | Iterable[str] = ()
    ) -> Iterator[npt.NDArray[np.uint32]]:
        """The ids of one text that comes in blocks cut anywhere, as arrays that follow one another.

        They are the ids of the blocks joined; memory does not grow with the text.

        Example:
            >>> tokenizer = Tokenizer.from_merges([(b"a", b"b")])
            >>> [ids.tolist() for ids in tokenizer.encode_blocks(["a", "b", "c"])]
            [[256, 99]]
        """
        allowed = self._allowed(allowed_special)
        for text in text_parts(blocks, pattern=self.pattern, whole=list(self._specials)):
            yield self.encode_to_numpy(text, allowed_special=allowed)

    def decode(self, ids: Ids, errors: str = "replace") -> str:
        """The text of ids, special tokens by name.

        Args:
            ids: A list or an array of whole numbers.
            errors: What becomes of bytes that are no UTF-8, as in `bytes.decode`; ids may end within a character.

        Raises:
            ValueError: An id that the vocabulary does not have, with its place.
        """
        return self.decode_bytes(ids).decode("utf-8", errors)

    def decode_bytes(self, ids: Ids) -> bytes:
        """The bytes of ids, exactly."""
        return self._bpe.decode(as_uint32(ids))

    def decode_batch(self, batch: Iterable[Ids], errors: str = "replace") -> list[str]:
        """The text of each row of ids."""
        return [self.decode(ids, errors) for ids in batch]

    def write_shards(
        self,
        source: Source,
        folder: str | os.PathLike[str],
        *,
        val_fraction: float = 0.01,
        shard_tokens: int = 100_000_000,
        threads: int | None = None,
        progress: Progress | None = None,
        training: Mapping[str, Any] | None = None,
    ) -> Manifest:
        """Encodes a corpus into `folder`: shards, `tokenizer.json` and, last, `manifest.json`.

        Memory does not grow with the corpus. The folder appears whole or not at all; a prepared folder that stands
        there already is replaced when the new one is complete. The bytes depend on the corpus alone, not on threads.

        Args:
            source: As in `train`.
            folder: Where to write; any other folder that is not empty is refused.
            val_fraction: Share of the text to hold out. A document longer than 256 KiB gives its end, cut at a line
                end; a shorter one goes to one side by a hash of its content.
            shard_tokens: Most tokens in one file.
            threads: None means one for each core.
            progress: Called now and then with the bytes done and the bytes there are (None when unknown).
            training: What this tokenizer was trained with, for the manifest.

        Raises:
            FileExistsError: `folder` holds something else.
            ValueError: The corpus holds no text, or the tokenizer has no token to end documents with.
        """
        check_ends_documents(self._specials)
        place = Path(folder)
        check_replaceable(place)
        corpus = as_corpus(source)
        sweep(place.absolute().parent, place.absolute().name)
        with staged_folder(place, replace=True) as staging:
            shards = ShardSet(
                str(staging), self._bpe, eot_id=self.eot_id, shard_tokens=shard_tokens, val_fraction=val_fraction
            )
            corpus.write(shards, threads=threads, progress=progress)
            dtype = shards.dtype()
            train, val = ([Shard(**facts) for facts in split] for split in shards.finish())  # type: ignore[arg-type]
            if not train and not val:
                raise ValueError(f"{corpus.name}: no text to encode")
            self.save(staging)
            manifest = Manifest(
                vocab_size=self.vocab_size,
                eot_id=self.eot_id,
                dtype=dtype,
                fingerprint=self.fingerprint,
                val_fraction=val_fraction,
                shard_tokens=shard_tokens,
                corpus=corpus.lineage(),
                report=corpus.report,
                training=training,
                splits={name: tuple(split) for name, split in [("train", train), ("val", val)] if split},
            )
            manifest.save(staging)
        return manifest

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return len(self._bpe)

    @property
    def merges(self) -> list[tuple[bytes, bytes]]:
        """Pairs of byte strings, first to be applied first."""
        tokens = self._bpe.tokens()
        return [(tokens[left], tokens[right]) for left, right in self._bpe.merges()]

    @property
    def special_tokens(self) -> dict[str, int]:
        """Ids of the special tokens, by name."""
        return dict(self._specials)

    @property
    def pattern(self) -> str:
        """Name of the split."""
        return self._bpe.pattern()

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all that decides ids, 64 hex digits; equal fingerprints give equal ids."""
        return self._fingerprint

    @property
    def eot_id(self) -> int | None:
        """Id of the token that ends a document, if there is one."""
        return self._first_special(EOT_NAMES)

    @property
    def bos_id(self) -> int | None:
        """Id of the token that begins a document, if there is one; it is never added unasked."""
        return self._first_special(BOS_NAMES)

    @property
    def pad_id(self) -> int | None:
        """Id of the token that fills up rows, if there is one."""
        return self._first_special(PAD_NAMES)

    def token_bytes(self, id: int) -> bytes:
        """The bytes that an id stands for; a special token's name."""
        return self._bpe.token_bytes(single(id))

    def token_lengths(self) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
        """Bytes and characters of text of each id, uint32 (V,) each; special tokens are no text.

        A character counts where its first byte stands, so the sum over a text's ids is the text's length.
        """
        tokens = self._bpe.tokens()
        n_bytes = np.fromiter(map(len, tokens), dtype=np.uint32, count=len(tokens))  # (V,)
        starts = (sum(byte & 0xC0 != 0x80 for byte in token) for token in tokens)
        return n_bytes, np.fromiter(starts, dtype=np.uint32, count=len(tokens))  # (V,)

    def token_to_id(self, token: str | bytes) -> int | None:
        """The id of a token given by its text, its bytes or, as str, its special name; None if there is none."""
        if isinstance(token, str):
            return self._specials.get(token, self._bpe.token_to_id(token.encode(errors="surrogatepass")))
        return self._bpe.token_to_id(token)

    def id_to_token(self, id: int) -> str:
        r"""The text of an id; bytes that are no character are shown as `\xe2`."""
        return self.token_bytes(id).decode(errors="backslashreplace")

    def view(self, text: str, *, allowed_special: Literal["all"] | Iterable[str] = ()) -> TokenView:
        """How a text falls into tokens: coloured when printed to a terminal, and as the last line of a notebook's cell.

        Example:
            >>> print(Tokenizer.from_merges([(b"a", b"b")]).view("abba"))
            ab│b│a
        """
        return self.view_of(self.encode(text, allowed_special=allowed_special))

    def view_of(self, ids: Iterable[int]) -> TokenView:
        """The same of ids."""
        specials = set(self._specials.values())
        return TokenView([(id, self.token_bytes(id), id in specials) for id in ids])

    def _repr_html_(self) -> str:
        names = ", ".join(f"{name} = {id}" for name, id in self._specials.items())
        rows = {"ids": f"{self.vocab_size:,}", "merges": f"{len(self._bpe.merges()):,}", "pattern": self.pattern}
        return table("Tokenizer", {**rows, "special tokens": names or "none", "fingerprint": self.fingerprint[:16]})

    def __len__(self) -> int:
        return self.vocab_size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and self._fingerprint == other._fingerprint

    def __hash__(self) -> int:
        return hash(self._fingerprint)

    def __repr__(self) -> str:
        return (
            f"Tokenizer(vocab_size={self.vocab_size}, pattern={self.pattern!r}, fingerprint={self.fingerprint[:8]!r})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        bpe = self._bpe
        return _restore, (self.pattern, bpe.model_tokens(), self.merges, bpe.added_tokens(), bpe.whole_pieces())

    def _first_special(self, names: Iterable[str]) -> int | None:
        return next((self._specials[name] for name in names if name in self._specials), None)

    def _allowed(self, allowed: Literal["all"] | Iterable[str]) -> list[str]:
        if isinstance(allowed, str):
            if allowed != "all":
                raise ValueError(f'allowed_special must be "all" or a set of names, got the str {allowed!r}')
            return list(self._specials)
        return sorted(allowed)


def _restore(
    pattern: str,
    tokens: list[tuple[bytes, int]],
    merges: list[tuple[bytes, bytes]],
    added: AddedTokens,
    whole_pieces: bool,
) -> Tokenizer:
    return Tokenizer(Bpe.from_tokens(pattern, tokens, merges, added, whole_pieces))


def _check_vocab_size(vocab_size: int, names: Sequence[str], pattern: str) -> None:
    least = 256 + len(names)
    if pattern != "byte" and vocab_size < least:
        extra = f" and {', '.join(names)}" if names else ""
        raise ValueError(f"vocab_size must be at least {least} (256 bytes{extra}), got {vocab_size}")
