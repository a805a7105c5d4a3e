"""From text to a folder of shards: the tokenizer trained where none is given, and nothing done twice."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from tinygpt._core import FormatError
from tinygpt.corpus import Corpus, Progress
from tinygpt.foreigntokenizer import LoadedTokenizer, is_rank_file, load_tokenizer
from tinygpt.manifest import Manifest, check_replaceable
from tinygpt.specials import SPECIAL_SETS, check_ends_documents
from tinygpt.tokenizer import Tokenizer

Bar = Callable[[str], AbstractContextManager[Progress | None]]
"""Gives, for the name of a stage, what is told of its progress."""


@dataclass(frozen=True, kw_only=True)
class Preparation:
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

    documents: str = "file"
    """What a document is: file (or what stands between <|endoftext|> lines in it), or line."""
    include: tuple[str, ...] = ()
    """Globs that the files of a folder must match; none takes text, markdown and source code."""
    clean: tuple[str, ...] = ()
    """Cleaning rules, applied in order: newlines, whitespace, lowercase, drop-empty-lines."""
    invalid: str = "replace"
    """What becomes of bytes that are not UTF-8: replace (by U+FFFD, counted) or error."""
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
    val_fraction: float = 0.01
    """Share of the text set apart for validation, from 0 to below 1."""
    shard_tokens: int = 100_000_000
    """Most tokens in one file."""

    def __post_init__(self) -> None:
        if not 0 <= self.val_fraction < 1:
            raise ValueError(f"val_fraction must be at least 0 and below 1, got {self.val_fraction}")
        if not 0 < self.shard_tokens < 2**31:
            raise ValueError(f"shard_tokens must be from 1 to 2147483647, got {self.shard_tokens}")

    @property
    def special_names(self) -> tuple[str, ...]:
        """The names of the special tokens, a set spelled out."""
        if len(self.special_tokens) == 1:
            return SPECIAL_SETS.get(self.special_tokens[0], self.special_tokens)
        return self.special_tokens

    def corpus(self, paths: list[str | Path], *, threads: int | None = None) -> Corpus:
        """The text of these files and folders.

        Raises:
            FileNotFoundError: A path does not exist.
            ValueError: A folder without text files, or an unknown rule or choice.
        """
        return Corpus(
            paths,
            include=self.include or None,
            documents=self.documents,
            clean=self.clean,
            invalid=self.invalid,
            threads=threads,
        )

    def named_tokenizer(self) -> LoadedTokenizer | None:
        """The tokenizer that was named, if one was; a file of ranks gets pattern and special tokens from here."""
        if self.tokenizer is None:
            return None
        if is_rank_file(self.tokenizer):
            return load_tokenizer(self.tokenizer, pattern=self.pattern, special_tokens=self.special_names)
        return load_tokenizer(self.tokenizer)

    def tokenizer_for(
        self, corpus: Corpus, *, vocab_size: int, bar: Bar = lambda stage: nullcontext()
    ) -> LoadedTokenizer:
        """The tokenizer that was named, or one trained on the corpus."""
        named = self.named_tokenizer()
        if named is not None:
            return named
        with bar("tokenizer") as progress:
            return Tokenizer.train(
                corpus,
                vocab_size=vocab_size,
                pattern=self.pattern,
                special_tokens=self.special_names,
                max_bytes=self.max_bytes,
                max_documents=self.max_documents,
                progress=progress,
            )

    def prepare(
        self, corpus: Corpus, folder: str | Path, *, vocab_size: int, bar: Bar = lambda stage: nullcontext()
    ) -> tuple[Manifest, bool]:
        """Shards and tokenizer in `folder`, and whether they are new: `folder` is left alone if nothing changed.

        Args:
            corpus: What to encode.
            folder: Where it goes, whole or not at all.
            vocab_size: Ids of the tokenizer, if one is trained.
            bar: Called with the name of each stage; gives a context manager, which gives a function of the bytes
                done and the bytes there are.
        """
        check_replaceable(Path(folder))
        if self.tokenizer is None:  # before minutes are spent on training one
            check_ends_documents(self.special_names)
        found = self._current(corpus, Path(folder), vocab_size)
        if found is not None:
            return found, False
        tokenizer = self.tokenizer_for(corpus, vocab_size=vocab_size, bar=bar)
        with bar("shards") as progress:
            manifest = tokenizer.write_shards(
                corpus,
                folder,
                val_fraction=self.val_fraction,
                shard_tokens=self.shard_tokens,
                progress=progress,
                training=None if self.tokenizer else self._training(vocab_size),
            )
        return manifest, True

    def _training(self, vocab_size: int) -> dict[str, object]:
        """What a trained tokenizer depends on beside the text."""
        return {
            "vocab_size": vocab_size,
            "pattern": self.pattern,
            "special_tokens": list(self.special_names),
            "max_bytes": self.max_bytes,
            "max_documents": self.max_documents,
        }

    def _current(self, corpus: Corpus, folder: Path, vocab_size: int) -> Manifest | None:
        """The manifest of `folder` if what would be written there lies there, whole."""
        if not (folder / "manifest.json").is_file():
            return None
        manifest = Manifest.load(folder)
        if (manifest.val_fraction, manifest.shard_tokens) != (self.val_fraction, self.shard_tokens):
            return None
        named = self.named_tokenizer()
        if named is not None:
            is_same = manifest.fingerprint == named.fingerprint
        else:
            is_same = manifest.training == self._training(vocab_size)
        if not is_same or not corpus.unchanged_since(manifest.corpus):
            return None
        try:
            manifest.check(folder)
            is_whole = load_tokenizer(folder).fingerprint == manifest.fingerprint
        except (FormatError, OSError):
            return None
        return manifest if is_whole else None
