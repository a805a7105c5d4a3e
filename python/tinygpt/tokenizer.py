"""Tokenizer: text to ids and back. The work is done in Rust; this is its face."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinygpt._core import MAX_PIECES_BYTES, Bpe, Counts, FormatError, ShardSet
from tinygpt.chattemplate import CHAT_TEMPLATE, knows_chats
from tinygpt.corpus import Progress
from tinygpt.corpussource import Source, as_corpus
from tinygpt.encoder import Encoder
from tinygpt.formats import peers, tokenizerfiles
from tinygpt.formats.plaintokenizer import PlainTokenizer
from tinygpt.growth import kept_files
from tinygpt.manifest import Manifest, check_replaceable
from tinygpt.mergelearning import MergeLearning
from tinygpt.shardfolder import ShardFolder, check_ends, key_of
from tinygpt.specials import END_OF_TEXT, special_ids, special_names
from tinygpt.staging import WorkFolder
from tinygpt.tokenview import table

if TYPE_CHECKING:
    import tiktoken
    import tokenizers


class Tokenizer(Encoder):
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

    __slots__ = ("_post_processor",)

    def __init__(self, bpe: Bpe, *, post_processor: Mapping[str, Any] | None = None) -> None:
        super().__init__(bpe)
        self._post_processor = post_processor

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
        max_pieces_bytes: int | None = MAX_PIECES_BYTES,
        temporary: str | os.PathLike[str] | None = None,
        progress: Progress | None = None,
    ) -> "Tokenizer":
        """A tokenizer learnt from text: the most frequent pair of neighbours merges first, ties go to the smaller ids.

        The result depends on the text alone, not on threads. If no pair is left before `vocab_size` is reached, the
        tokenizer is smaller and a warning says so. Another one says what was left out where the text has more
        different pieces than `max_pieces_bytes` allows.

        Args:
            source: A `Corpus`, a path, a list of paths, or an iterable of str, one document each.
            vocab_size: Ids in all: 256 bytes, merges, special tokens. The pattern "byte" needs none.
            pattern: How text is split before merging: "gpt2", "cl100k", "cl100k-trailing", "qwen2", "o200k", "char",
                "byte" or "regex:EXPRESSION".
            special_tokens: Names, whose ids follow the merges, or names with their ids.
            threads: None means one for each core.
            max_bytes: Learn from a sample of at most so many bytes, spread over the files.
            max_documents: Learn from a sample of at most so many documents.
            max_pieces_bytes: Learn from the most frequent of the different pieces that have so many bytes together, one
                added for each; None takes all, and about 14 bytes of memory for each byte of them.
            temporary: A folder for the counts of pieces that do not fit into memory; None takes the system's.
            progress: Called now and then with the bytes counted and the bytes there are (None when unknown).

        Raises:
            FileNotFoundError: A path does not exist.
            ValueError: `vocab_size` has no room for the bytes and the special tokens, or is above 2,097,152; a special
                token's id is that of a byte or merge; or the text is empty.
        """
        wanted = MergeLearning(
            vocab_size=vocab_size, pattern=pattern, special_tokens=special_tokens, max_pieces_bytes=max_pieces_bytes
        )
        corpus = as_corpus(source)
        counts = corpus.count(
            pattern=pattern,
            special_tokens=wanted.names,
            max_bytes=max_bytes,
            max_documents=max_documents,
            into=Counts(temporary=temporary),
            threads=threads,
            progress=progress,
        )
        if not counts:
            raise ValueError(f"{corpus.name}: no text to learn a tokenizer from")
        return cls._learnt(wanted, counts, consume=True)

    @classmethod
    def from_counts(
        cls,
        counts: Counts | Mapping[bytes, int],
        *,
        vocab_size: int = 8192,
        pattern: str = "gpt2",
        special_tokens: Sequence[str] | Mapping[str, int] = (END_OF_TEXT,),
        max_pieces_bytes: int | None = MAX_PIECES_BYTES,
        consume: bool = False,
    ) -> "Tokenizer":
        """A tokenizer learnt from counted pieces: `Counts`, or `{piece: number of occurrences}` from any engine.

        As `train` does, with pieces that were counted before. `consume` gives the memory of `Counts` back before the
        learning needs some: they are empty afterwards.
        """
        wanted = MergeLearning(
            vocab_size=vocab_size, pattern=pattern, special_tokens=special_tokens, max_pieces_bytes=max_pieces_bytes
        )
        own = consume or not isinstance(counts, Counts)
        counted = counts if isinstance(counts, Counts) else Counts(dict(counts))
        return cls._learnt(wanted, counted, consume=own)

    @classmethod
    def _learnt(cls, wanted: MergeLearning, counts: Counts, *, consume: bool) -> "Tokenizer":
        learnt = cls(wanted.learn(counts, consume=consume))
        if isinstance(wanted.special_tokens, Mapping):
            return cls.from_merges(learnt.merges, pattern=wanted.pattern, special_tokens=wanted.special_tokens)
        return learnt

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
    def from_tiktoken(cls, encoding: "tiktoken.Encoding") -> "Tokenizer":
        """The tokenizer that a `tiktoken.Encoding` is.

        Raises:
            ValueError: Its pattern cannot be matched in linear time, or leaves some text out.
            FormatError: Its ranks leave out a byte.
        """
        return cls.from_plain(peers.from_tiktoken(encoding))

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        pattern: str | None = None,
        special_tokens: Sequence[str] | Mapping[str, int] | None = None,
    ) -> "Tokenizer":
        """The byte-level tokenizer of a file or folder; `load_tokenizer` opens those of other kinds, too.

        What a `tokenizer.json` puts around encoded text (its post-processor) is kept for `save` and never applied.

        Args:
            path: A `tokenizer.json`, ranks as tiktoken writes them, GPT-2's `vocab.json` or `merges.txt` with the other
                one beside it, or a folder that holds `tokenizer.json` or that pair.
            pattern: For files that do not say it, how text is split; None means "gpt2".
            special_tokens: For files of ranks, which name none, and for GPT-2's, which need not.

        Raises:
            FileNotFoundError: There is no such file.
            FormatError: It is damaged, or it is a kind of tokenizer that is not byte-level BPE.
        """
        try:
            return cls.from_plain(tokenizerfiles.load(Path(path), pattern=pattern, special_tokens=special_tokens))
        except ValueError as error:
            raise FormatError(str(error) if str(path) in str(error) else f"{path}: {error}") from None

    @classmethod
    def from_plain(cls, plain: PlainTokenizer) -> "Tokenizer":
        """The tokenizer that plain values are."""
        bpe = Bpe.from_tokens(plain.pattern, plain.tokens, plain.merges, plain.added, plain.whole_pieces)
        return cls(bpe, post_processor=plain.post_processor)

    def plain(self) -> PlainTokenizer:
        """The tokenizer as plain values, as writers of files take it."""
        return PlainTokenizer(
            pattern=self.pattern,
            tokens=self._bpe.model_tokens(),
            merges=self.merges,
            added=self._bpe.added_tokens(),
            whole_pieces=self._bpe.whole_pieces(),
            post_processor=self._post_processor,
        )

    def save(self, path: str | os.PathLike[str], *, format: str | None = None) -> None:
        """Writes the tokenizer as others read it.

        Args:
            path: A folder, or a file that ends in `.json` or `.tiktoken`.
            format: "tokenizer.json": that file and, in a folder, `tokenizer_config.json`, for tokenizers and
                transformers; "tiktoken": ranks, without pattern and special tokens; "gpt2": a folder with `vocab.json`
                and `merges.txt`. None goes by the ending of `path`; a folder gets the first.

        Raises:
            ValueError: The format is unknown, or cannot hold this tokenizer.
        """
        roles = {"eos_token": self.eot_id, "bos_token": self.bos_id, "pad_token": self.pad_id}
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            **{role: self.id_to_token(i) for role, i in roles.items() if i is not None},
            **({"chat_template": CHAT_TEMPLATE} if knows_chats(self._specials) else {}),
            "tinygpt": {"format": "tinygpt-tokenizer", "version": 1, "fingerprint": self.fingerprint},
        }
        tokenizerfiles.save(self.plain(), Path(path), format=format, config=config, rank_fault=self._bpe.rank_fault)

    def with_special_tokens(self, names: Sequence[str]) -> "Tokenizer":
        """The same with these special tokens, too: those that it lacks follow its ids, all others stay what they are.

        Example:
            >>> Tokenizer.from_merges([(b"a", b"b")]).with_special_tokens(["<|user|>"]).special_tokens
            {'<|user|>': 257}
        """
        plain, missing = self.plain(), [name for name in special_names(names) if name not in self._specials]
        return Tokenizer.from_plain(replace(plain, added=plain.added + special_ids(missing, self.vocab_size)))

    def to_tiktoken(self, name: str = "tinygpt") -> "tiktoken.Encoding":
        """The same as a `tiktoken.Encoding`.

        Raises:
            ValueError: Ranks cannot hold this tokenizer.
            ImportError: tiktoken is not installed.
        """
        return peers.to_tiktoken(self.plain(), name=name, fault=self._bpe.rank_fault())

    def to_tokenizers(self) -> "tokenizers.Tokenizer":
        """The same as a `tokenizers.Tokenizer`; unlike this one it finds special tokens in any text.

        Raises:
            ImportError: tokenizers is not installed.
        """
        return peers.to_tokenizers(self.plain())

    def write_shards(
        self,
        source: Source,
        folder: str | os.PathLike[str],
        *,
        val_fraction: float = 0.01,
        shard_tokens: int = 100_000_000,
        split: str = "hash",
        shuffle: int | None = None,
        part: tuple[int, int] | None = None,
        threads: int | None = None,
        progress: Progress | None = None,
        training: Mapping[str, Any] | None = None,
        work: WorkFolder | None = None,
    ) -> Manifest:
        """Encodes a corpus into `folder`: shards, `tokenizer.json` and, last, `manifest.json`.

        Memory does not grow with the corpus. The folder appears whole or not at all; a prepared folder that stands
        there already is replaced when the new one is complete, and what it holds of the same files is copied from it.
        The bytes depend on the corpus alone, not on threads nor on how often the process was killed: the same call
        goes on where the last one had got to.

        Args:
            source: As in `train`.
            folder: Where to write; any other folder that is not empty is refused.
            val_fraction: Share of the text to hold out.
            shard_tokens: Most tokens in one file.
            split: What is held out: "hash", documents by a hash of how they begin; "last", the end of the text.
            shuffle: Seed by which documents are shuffled; None leaves them in order.
            part: Write only the part of this number, from 0, of so many; `tinygpt.joining.join_parts` joins them.
            threads: None means one for each core.
            progress: Called now and then with the bytes done and the bytes there are (None when unknown).
            training: What this tokenizer was trained with, for the manifest.
            work: Where the folder is written, if the caller holds that already.

        Raises:
            FileExistsError: `folder` holds something else.
            BlockingIOError: Another process writes it.
            ValueError: The corpus holds no text, or the tokenizer has no token to end documents with.
        """
        corpus = as_corpus(source)
        place = ShardFolder(
            tokenizer=self,
            folder=Path(folder),
            val_fraction=val_fraction,
            shard_tokens=shard_tokens,
            split=split,
            shuffle=shuffle,
            part=part,
            training=training,
        )
        check_ends(self)
        check_replaceable(place.folder)
        kept = kept_files(place, corpus)
        facts = {"split": split, "shuffle": shuffle, "part": part, "kept": kept and kept.fingerprint}
        sizes = {"val_fraction": val_fraction, "shard_tokens": shard_tokens}
        identity = corpus.identity()
        key = None if identity is None else key_of(corpus=identity, tokenizer=self.fingerprint, **facts, **sizes)
        open_shards = partial(self.open_shards, shard_tokens=shard_tokens, val_fraction=val_fraction)
        fill = partial(corpus.write, part=part, kept=kept, threads=threads, progress=progress)
        return place.write(corpus, open_shards, fill, work=work, key=key)

    def open_shards(
        self,
        folder: str,
        *,
        shard_tokens: int,
        val_fraction: float,
        split: str = "hash",
        journal: tuple[str, str] | None = None,
    ) -> ShardSet:
        """Shards of this tokenizer's ids in an empty folder; with a `journal` (a folder, a key) what it tells of."""
        sizes: dict[str, Any] = {"shard_tokens": shard_tokens, "val_fraction": val_fraction}
        return ShardSet(folder, self._bpe, eot_id=self.eot_id, split=split, journal=journal, **sizes)

    def _repr_html_(self) -> str:
        names = ", ".join(f"{name} = {id}" for name, id in self._specials.items())
        rows = {"ids": f"{self.vocab_size:,}", "merges": f"{len(self._bpe.merges()):,}", "pattern": self.pattern}
        return table("Tokenizer", {**rows, "special tokens": names or "none", "fingerprint": self.fingerprint[:16]})

    def __reduce__(self) -> tuple[Any, ...]:
        return Tokenizer.from_plain, (self.plain(),)
