"""From text to a folder of shards: the tokenizer trained where none is given, and nothing done twice."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from tinygpt._core import MAX_PIECES_BYTES, Counts, FormatError, xxh3_file
from tinygpt.chats import Chats
from tinygpt.chatshards import write_chats
from tinygpt.chattemplate import CHAT_TOKENS, knows_chats
from tinygpt.corpus import Corpus, Progress
from tinygpt.foreigntokenizer import LoadedTokenizer, is_rank_file, load_tokenizer
from tinygpt.manifest import Manifest, check_replaceable
from tinygpt.reading import Reading
from tinygpt.shardfolder import key_of
from tinygpt.specials import SPECIAL_SETS, check_ends_documents
from tinygpt.staging import WorkFolder, resumable_folder, sweep
from tinygpt.tokenizer import Tokenizer

Bar = Callable[[str], AbstractContextManager[Progress | None]]
"""Gives, for the name of a stage, what is told of its progress."""


@dataclass(frozen=True, kw_only=True)
class Preparation(Reading):
    """How text becomes shards. What is prepared already from the same text in the same way is left as it is.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "poem.txt").write_text("the rose is red, the violet's blue, " * 9)
        ...     how = Preparation(val_fraction=0.2)
        ...     manifest, is_new = how.prepare(how.corpus([f"{folder}/poem.txt"]), f"{folder}/data", vocab_size=270)
        ...     again = how.prepare(how.corpus([f"{folder}/poem.txt"]), f"{folder}/data", vocab_size=270)
        >>> is_new, again == (manifest, False)
        (True, True)
    """

    tokenizer: Path | None = None
    """Tokenizer to use, a folder, tokenizer.json or .tiktoken file (which takes --pattern and --special-tokens, since
    it names neither); none trains one on the text."""
    pattern: str = "gpt2"
    """How text is split into pieces before merging: gpt2, cl100k, cl100k-trailing, qwen2, o200k, char, byte, or
    regex:EXPRESSION."""
    special_tokens: tuple[str, ...] = ("<|endoftext|>",)
    """Names of special tokens, or one set of them: spm or bert."""
    max_bytes: int | None = None
    """Train the tokenizer on a sample of at most so many bytes, spread over the files."""
    max_documents: int | None = None
    """Train the tokenizer on a sample of at most so many documents, spread over the files."""
    max_pieces_bytes: int | None = MAX_PIECES_BYTES
    """Train the tokenizer on the most frequent of the different pieces of text that have so many bytes together, one
    added for each; none takes all, in about 14 bytes of memory for each byte of them."""
    val_fraction: float = 0.01
    """Share of the text set apart for validation, from 0 to below 1; not with --val-data."""
    split: Literal["hash", "last"] = "hash"
    """What is set apart: hash, documents by a hash of their text; last, the end of the text."""
    shuffle: int | None = None
    """Seed by which documents are shuffled; none leaves them in order."""
    shard_tokens: int = 100_000_000
    """Most tokens in one file."""
    add_chat_tokens: bool = False
    """Add the special tokens of chats to --tokenizer where it lacks them."""

    def __post_init__(self) -> None:
        if not 0 <= self.val_fraction < 1:
            raise ValueError(f"val_fraction must be at least 0 and below 1, got {self.val_fraction}")
        if not 0 < self.shard_tokens < 2**31:
            raise ValueError(f"shard_tokens must be from 1 to 2147483647, got {self.shard_tokens}")
        if self.max_pieces_bytes is not None and self.max_pieces_bytes < 1:
            raise ValueError(f"max_pieces_bytes must be at least 1 or none, got {self.max_pieces_bytes}")
        if self.shuffle is not None and not 0 <= self.shuffle < 2**64:
            raise ValueError(f"shuffle must be a seed from 0 to 2^64 - 1, got {self.shuffle}")

    @property
    def special_names(self) -> tuple[str, ...]:
        """The names of the special tokens, a set spelled out."""
        if len(self.special_tokens) == 1:
            return SPECIAL_SETS.get(self.special_tokens[0], self.special_tokens)
        return self.special_tokens

    def named_tokenizer(self) -> LoadedTokenizer | None:
        """The tokenizer that was named, if one was; a file of ranks gets pattern and special tokens from here."""
        if self.tokenizer is None:
            return None
        if is_rank_file(self.tokenizer):
            named: LoadedTokenizer = load_tokenizer(
                self.tokenizer, pattern=self.pattern, special_tokens=self.special_names
            )
        else:
            named = load_tokenizer(self.tokenizer)
        return with_chat_tokens(named, self.tokenizer) if self.add_chat_tokens else named

    def tokenizer_for(
        self,
        corpus: Corpus | Chats,
        *,
        vocab_size: int,
        bar: Bar = lambda stage: nullcontext(),
        threads: int | None = None,
        temporary: Path | None = None,
    ) -> LoadedTokenizer:
        """The tokenizer that was named, or one trained on the corpus; `temporary` is as in `Tokenizer.train`."""
        named = self.named_tokenizer()
        if named is not None:
            return named
        with bar("tokenizer") as progress:
            return Tokenizer.train(
                _readable(corpus),
                vocab_size=vocab_size,
                pattern=self.pattern,
                special_tokens=self._names_for(corpus),
                max_bytes=self.max_bytes,
                max_documents=self.max_documents,
                max_pieces_bytes=self.max_pieces_bytes,
                temporary=temporary,
                threads=threads,
                progress=progress,
            )

    def shared_tokenizer(
        self, corpora: Sequence[Corpus | Chats], *, vocab_size: int, bar: Bar = lambda stage: nullcontext()
    ) -> Tokenizer:
        """One tokenizer trained on several corpora: each is counted by itself, and counts add up.

        A sample (`max_bytes`, `max_documents`) is taken from each by its share of all bytes.

        Raises:
            ValueError: They hold no text, or `vocab_size` has no room for the bytes and the special tokens.
        """
        names = list(dict.fromkeys(name for corpus in corpora for name in self._names_for(corpus)))
        sizes, counts = [corpus.n_bytes or 0 for corpus in corpora], Counts()
        with bar("tokenizer") as progress:
            for i, corpus in enumerate(corpora):
                share = Fraction(sizes[i], max(1, sum(sizes)))
                _readable(corpus).count(
                    pattern=self.pattern,
                    special_tokens=names,
                    max_bytes=_part(self.max_bytes, share),
                    max_documents=_part(self.max_documents, share),
                    into=counts,
                    progress=None if progress is None else _from(progress, sum(sizes[:i]), sum(sizes)),
                )
        if not counts:
            raise ValueError(f"{' and '.join(corpus.name for corpus in corpora)}: no text to learn a tokenizer from")
        how: dict[str, Any] = {"pattern": self.pattern, "special_tokens": names, "consume": True}
        return Tokenizer.from_counts(counts, vocab_size=vocab_size, max_pieces_bytes=self.max_pieces_bytes, **how)

    def prepare(
        self,
        corpus: Corpus | Chats,
        folder: str | Path,
        *,
        vocab_size: int,
        part: tuple[int, int] | None = None,
        bar: Bar = lambda stage: nullcontext(),
        threads: int | None = None,
    ) -> tuple[Manifest, bool]:
        """Shards and tokenizer in `folder`, and whether they are new: `folder` is left alone if nothing changed.

        Args:
            corpus: What to encode.
            folder: Where it goes, whole or not at all.
            vocab_size: Ids of the tokenizer, if one is trained.
            part: Write only the part of this number, from 0, of so many.
            bar: Called with the name of each stage; gives a context manager, which gives a function of the bytes
                done and the bytes there are.
            threads: None means one for each core.
        """
        check_replaceable(Path(folder))
        if self.tokenizer is None:  # before minutes are spent on training one
            check_ends_documents(self.special_names)
        found = self._current(corpus, Path(folder), vocab_size, part)
        if found is not None:
            place = Path(folder).absolute()
            sweep(place.parent, place.name)
            return found, False
        training = None if self.tokenizer else self._training(corpus, vocab_size)
        with resumable_folder(folder, key=self._key(corpus, Path(folder), training, part)) as work:
            tokenizer = self._tokenizer_in(work, corpus, vocab_size=vocab_size, bar=bar, threads=threads)
            with bar("shards") as progress:
                how: dict[str, Any] = {
                    "val_fraction": self.val_fraction,
                    "shard_tokens": self.shard_tokens,
                    "split": self.split,
                    "shuffle": self.shuffle,
                    "threads": threads,
                    "progress": progress,
                    "training": training,
                    "work": work,
                }
                if isinstance(corpus, Chats):
                    if part is not None:
                        raise ValueError("--shard is for text; chats are prepared whole")
                    return write_chats(corpus, tokenizer, folder, **how), True
                return tokenizer.write_shards(corpus, folder, part=part, **how), True

    def _tokenizer_in(
        self, work: WorkFolder, corpus: Corpus | Chats, *, vocab_size: int, bar: Bar, threads: int | None
    ) -> LoadedTokenizer:
        """The tokenizer that an earlier process has trained for this, or that was named, or a new one."""
        place = work.journal / "tokenizer"
        if self.tokenizer is not None:
            return self.tokenizer_for(corpus, vocab_size=vocab_size, bar=bar, threads=threads)
        if work.is_continued and place.is_dir():
            return load_tokenizer(place)
        if isinstance(corpus, Corpus):
            with bar("filters") as progress:
                corpus.judge(threads=threads, progress=progress)
        how: dict[str, Any] = {"bar": bar, "threads": threads, "temporary": work.journal}
        tokenizer = self.tokenizer_for(corpus, vocab_size=vocab_size, **how)
        tokenizer.save(place)
        return tokenizer

    def _key(
        self, corpus: Corpus | Chats, folder: Path, training: Mapping[str, object] | None, part: tuple[int, int] | None
    ) -> str:
        """Says what is done: another process may go on with the same alone."""
        identity = corpus.identity() if isinstance(corpus, Corpus) else None
        tokenizer = training if self.tokenizer is None else getattr(self.named_tokenizer(), "fingerprint", None)
        old = folder / "manifest.json"
        sizes = (self.val_fraction, self.shard_tokens, self.split, self.shuffle, part)
        return key_of(corpus=identity, tokenizer=tokenizer, sizes=sizes, old=xxh3_file(old) if old.is_file() else None)

    def _names_for(self, corpus: Corpus | Chats) -> list[str]:
        """The special tokens of a tokenizer that is trained."""
        wanted = (*self.special_names, *(CHAT_TOKENS if isinstance(corpus, Chats) or self.add_chat_tokens else ()))
        return list(dict.fromkeys(wanted))

    def _training(self, corpus: Corpus | Chats, vocab_size: int) -> dict[str, object]:
        """What a trained tokenizer depends on beside the text."""
        return {
            "vocab_size": vocab_size,
            "pattern": self.pattern,
            "special_tokens": self._names_for(corpus),
            "max_bytes": self.max_bytes,
            "max_documents": self.max_documents,
            "max_pieces_bytes": self.max_pieces_bytes,
        }

    def _current(
        self, corpus: Corpus | Chats, folder: Path, vocab_size: int, part: tuple[int, int] | None
    ) -> Manifest | None:
        """The manifest of `folder` if what would be written there lies there, whole."""
        if not (folder / "manifest.json").is_file():
            return None
        manifest = Manifest.load(folder)
        found = (manifest.val_fraction, manifest.shard_tokens, manifest.split, manifest.shuffle, manifest.part)
        if part is not None or found != (self.val_fraction, self.shard_tokens, self.split, self.shuffle, part):
            return None
        named = self.named_tokenizer()
        if named is not None:
            is_same = manifest.fingerprint == named.fingerprint
        else:
            is_same = manifest.training == self._training(corpus, vocab_size)
        if not is_same or not manifest.has_origins or not corpus.unchanged_since(manifest.corpus):
            return None
        try:
            manifest.check(folder, verify=True)
            is_whole = load_tokenizer(folder).fingerprint == manifest.fingerprint
        except (FormatError, OSError):
            return None
        return manifest if is_whole else None


def with_chat_tokens(tokenizer: LoadedTokenizer, name: str | Path) -> LoadedTokenizer:
    """A tokenizer with the special tokens of chats after its other ids, where it lacks them.

    Raises:
        ValueError: It lacks some and is a library's, to which none can be added.
    """
    if knows_chats(tokenizer.special_tokens):
        return tokenizer
    if not isinstance(tokenizer, Tokenizer):
        raise ValueError(f"{name}: special tokens can be added to byte-level BPE only, and a library reads this one")
    return tokenizer.with_special_tokens(CHAT_TOKENS)


def _readable(corpus: Corpus | Chats) -> Corpus:
    """What a tokenizer learns from."""
    return Corpus.from_iterable(corpus.texts()) if isinstance(corpus, Chats) else corpus


def _part(most: int | None, share: Fraction) -> int | None:
    """That share of a limit; a corpus of next to nothing still gives something, and what is no limit stays none."""
    return None if most is None else max(min(most, 1), int(most * share))


def _from(progress: Progress, before: int, total: int) -> Progress:
    """Progress of one of several corpora, told as that of all."""
    return lambda done, _: progress(before + done, total)
