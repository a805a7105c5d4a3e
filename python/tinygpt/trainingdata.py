"""What a run trains on: what `--data` names, prepared where it is text, opened as one dataset."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinygpt.anytokenizer import AnyTokenizer
from tinygpt.chats import Chats, is_chats
from tinygpt.corpus import Corpus
from tinygpt.foreigntokenizer import LoadedTokenizer, continues, tokenizer_in
from tinygpt.header import has_header, read_header
from tinygpt.manifest import Manifest
from tinygpt.preparation import Bar, Preparation
from tinygpt.targetbits import TARGETS_SUFFIX

if TYPE_CHECKING:
    from tinygpt.anydataset import AnyDataset
    from tinygpt.dataset import TokenDataset

TOKEN_FILES = (".bin", ".npy", ".pt")
"""Endings of files that hold tokens."""

Say = Callable[[str], object]
"""Told, line by line, what is done."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """One value of `--data`: a path and its weight."""

    path: Path
    """Prepared folder, file of tokens, text or chats."""
    weight: Fraction | None = None
    """Share of the windows, in any unit; None goes by size."""

    @staticmethod
    def parse(text: str) -> "Source":
        """The source of `PATH` or `PATH:WEIGHT`; what exists by its whole name is a path.

        Example:
            >>> Source.parse("books:0.7")
            Source(path=PosixPath('books'), weight=Fraction(7, 10))
        """
        path, colon, weight = text.rpartition(":")
        if not colon or not path or Path(text).exists():
            return Source(path=Path(text))
        try:
            return Source(path=Path(path), weight=Fraction(weight))
        except (ValueError, ZeroDivisionError):  # a path with a colon of its own
            return Source(path=Path(text))

    @property
    def is_tokens(self) -> bool:
        """Whether it holds tokens already."""
        return self.path.suffix in TOKEN_FILES or (self.path / "manifest.json").is_file()


def parse_sources(texts: Sequence[str], flag: str) -> list[Source]:
    """The sources of a flag.

    Raises:
        ValueError: Some have weights and others none, or a weight is not above 0.
        FileNotFoundError: A path does not exist.
    """
    sources = [Source.parse(text) for text in texts]
    for source in sources:
        if not source.path.exists():
            kinds = "a prepared folder, a file of tokens (.bin, .npy, .pt), text or chats (.jsonl)"
            raise FileNotFoundError(f"{source.path}: no such file or folder; {flag} takes {kinds}")
        if source.weight is not None and source.weight <= 0:
            raise ValueError(f"{flag} {source.path}: the weight must be above 0, got {source.weight}")
    bare = [source.path for source in sources if source.weight is None]
    if bare and len(bare) < len(sources):
        raise ValueError(f"{flag} {bare[0]} has no weight, but others have; give {bare[0]}:WEIGHT, or none to any")
    return sources


def places(sources: Sequence[Source], folder: Path) -> list[Path]:
    """Where the tokens of each source lie once they are prepared: there, or in `folder`, numbered for several."""
    names = [folder if len(sources) == 1 else folder.with_name(f"{folder.name}-{i + 1}") for i in range(len(sources))]
    return [source.path if source.is_tokens else name for source, name in zip(sources, names, strict=True)]


def refuse_text_settings(sources: Sequence[Source], how: Preparation) -> None:
    """Nothing, if any source is text or chats, or nothing was set for them.

    Raises:
        ValueError: A setting for text was given, and there is none.
    """
    if all(source.is_tokens for source in sources):
        plain = Preparation(tokenizer=how.tokenizer)
        for name in (f.name for f in fields(how) if getattr(how, f.name) != getattr(plain, f.name)):
            flag = f"--{name.replace('_', '-')}"
            raise ValueError(f"{flag} is for text, but {sources[0].path} is prepared already; leave it away")


def refuse_useless_validation(sources: Sequence[Source], val_sources: Sequence[Source], how: Preparation) -> None:
    """Nothing, if there are no sources for validation, or they are the validation and none of them is trained on.

    Raises:
        ValueError: A part of the text was to be set apart besides, or a prepared folder is named for both.
    """
    if not val_sources:
        return
    if how.val_fraction not in (0.0, Preparation().val_fraction):
        raise ValueError(
            f"--val-fraction sets apart a part of --data, but --val-data {val_sources[0].path} takes its place; "
            "leave one of them away"
        )
    trained_on = [source.path.resolve() for source in sources]
    for path in (source.path for source in val_sources if source.path.is_dir() and source.is_tokens):
        if path.resolve() in trained_on:
            raise ValueError(
                f"--val-data {path} is in --data, too, and would give what is trained on; leave it away: the val split "
                "of a prepared folder is taken by itself"
            )


def tokenizer_place(places: Iterable[Path]) -> Path | None:
    """The folder with the tokenizer of prepared tokens; None if none of them lies beside one.

    Of several it is the first tokenizer, or the one that this grew into by special tokens.
    """
    found: tuple[Path, LoadedTokenizer] | None = None
    for place in places:
        is_shard = place.suffix == ".bin" and has_header(place) and read_header(place).fingerprint is not None
        folder = place.parent if is_shard else place
        tokenizer = tokenizer_in(folder)
        if tokenizer is not None and (found is None or continues(tokenizer, found[1])):
            found = folder, tokenizer
    return None if found is None else found[0]


def common_tokenizer(*tokenizers: AnyTokenizer | None) -> AnyTokenizer | None:
    """The first tokenizer of these, or the one of the others that it grew into by special tokens."""
    found: AnyTokenizer | None = None
    for each in tokenizers:
        if each is not None and (found is None or continues(each, found)):
            found = each
    return found


def prepare_sources(
    sources: Sequence[Source], folder: Path, how: Preparation, *, vocab_size: int, bar: Bar, say: Say
) -> list[Path]:
    """`places` of the sources, after what is text or chats there was prepared with one tokenizer for all.

    Args:
        sources: What was named.
        folder: Where prepared data go.
        how: How to prepare. Without a tokenizer that of a prepared source is taken, with the special tokens of chats
            if any of these are chats, or one is trained on all of them.
        vocab_size: Ids of a tokenizer that is trained.
        bar: As in `Preparation.prepare`.
        say: Told what was done.
    """
    found, raw = places(sources, folder), [source for source in sources if not source.is_tokens]
    if how.tokenizer is None and 0 < len(raw) < len(sources):
        kin = tokenizer_place(source.path for source in sources if source.is_tokens)
        grows = kin is not None and any(is_chats(source.path) for source in raw)
        how = replace(how, tokenizer=kin, add_chat_tokens=how.add_chat_tokens or grows)
    if how.tokenizer is None and len(raw) > 1:
        how = replace(how, tokenizer=_shared_tokenizer(raw, folder, how, vocab_size, bar))
    for source, place in zip(sources, found, strict=True):
        if source.is_tokens:
            continue
        corpus = how.corpus([source.path], exclude=place)
        if isinstance(corpus, Corpus) and corpus.skipped:
            path, why = corpus.skipped[0]
            say(f"{source.path}: {len(corpus.skipped):,} files are not read, the first {path}: {why}")
        manifest, is_new = how.prepare(corpus, place, vocab_size=vocab_size, bar=bar)
        n_tokens = sum(shard.tokens for shards in manifest.splits.values() for shard in shards)
        end = "" if is_new else ", prepared already and unchanged"
        say(f"{place}: {n_tokens:,} tokens of {manifest.vocab_size:,} kinds from {source.path}{end}")
        if isinstance(corpus, Chats) and is_new:
            say(f"{place}: {corpus.summary}")
    return found


def _shared_tokenizer(raw: Sequence[Source], folder: Path, how: Preparation, vocab_size: int, bar: Bar) -> Path:
    """A tokenizer trained on all sources together, saved beside their folders."""
    kinds: dict[bool, list[Path]] = {}
    for source in raw:
        kinds.setdefault(is_chats(source.path), []).append(source.path)
    corpora = [how.corpus(paths) for paths in kinds.values()]  # all the text is one corpus, and all chats are
    path = folder.with_name("tokenizer")
    how.shared_tokenizer(corpora, vocab_size=vocab_size, bar=bar).save(path)
    return path


@dataclass(frozen=True, kw_only=True)
class Opening:
    """How tokens become windows."""

    block_size: int
    """Tokens of a window."""
    stride: int | None = None
    """Tokens from one window's start to the next."""
    vocab_size: int | None = None
    """Ids in files that do not say."""
    token_dtype: str | None = None
    """Type of a token in .bin files without a header."""
    tokenizer: AnyTokenizer | None = None
    """That of the run: tokens of what it grew from are opened as its own."""

    def check_token_dtype(self, found: Sequence[Path]) -> None:
        """Nothing, if no `token_dtype` was given, or some file needs it.

        Args:
            found: Where the tokens of all sources lie, those for validation too.

        Raises:
            ValueError: It has no use.
        """
        if self.token_dtype is not None and not any(path.suffix == ".bin" and not has_header(path) for path in found):
            raise ValueError("--token-dtype is for .bin files without a header, and none was named; leave it away")

    def train(self, found: Sequence[Path], sources: Sequence[Source]) -> "AnyDataset":
        """The windows to train on, mixed by the weights where there are several sources.

        Raises:
            ValueError: Too few tokens, sources that do not go together, or a file that does not say what is needed.
        """
        return _mixed([self._open(path) for path in found], found, [source.weight for source in sources])

    def validation(
        self, found: Sequence[Path], sources: Sequence[Source], split: str | None, say: Say
    ) -> "AnyDataset | None":
        """The windows to evaluate on, mixed likewise; None when there are no tokens for that.

        Args:
            found: Where the sources' tokens lie; files have no split.
            sources: Their weights.
            split: Split of prepared folders; None takes what is there for training.
            say: Told what is left out or shorter.
        """
        rows = [
            (path, self._n_tokens(path, split), source.weight)
            for path, source in zip(found, sources, strict=True)
            if split is None or path.is_dir()
        ]
        whole = [row for row in rows if row[1] > (1 if _mode(row[0]) == "documents" else self.block_size)]
        if whole:
            for path, n_tokens, _ in (row for row in rows if row not in whole):
                few = "no answers" if _mode(path) == "documents" else f"{n_tokens} tokens, fewer than a window takes,"
                say(f"{path}: {few} for validation; left out")
            opened = [self._open(path, split) for path, _, _ in whole]
            return _mixed(opened, [row[0] for row in whole], [row[2] for row in whole])
        if not rows:
            say(f"{found[0]}: tokens in a file, with no part for validation; --val-data gives some")
        for path, n_tokens, _ in sorted(rows, key=lambda row: -row[1])[:1]:
            if n_tokens > 1:
                say(f"{path}: {n_tokens} tokens for validation, so its windows are of {n_tokens - 1}")
                return replace(self, block_size=n_tokens - 1, stride=None)._open(path, split)
            kind = "answers" if _mode(path) == "documents" else "text"
            say(f"{path}: no {kind} for validation; --val-fraction or --val-data gives some")
        return None

    def _open(self, path: Path, split: str | None = None) -> "TokenDataset":
        from tinygpt.dataset import TokenDataset

        options = {} if path.is_dir() else self._needed(path)
        mode, stride = _mode(path), self.stride
        data = TokenDataset(path, split, block_size=self.block_size, stride=stride, mode=mode, **options)
        if self.tokenizer is None or data.folder is None or data.vocab_size >= self.tokenizer.vocab_size:
            return data
        own = tokenizer_in(data.folder)
        is_own = own is not None and data.fingerprint is not None and own.fingerprint.startswith(data.fingerprint)
        if own is None or not is_own or not continues(self.tokenizer, own):
            return data
        return data.in_vocabulary(self.tokenizer.vocab_size, self.tokenizer.fingerprint)

    def _needed(self, path: Path) -> Mapping[str, Any]:
        """What must be said of a single file."""
        dtype = None
        if path.suffix == ".bin" and not has_header(path):
            if self.token_dtype is None:
                raise ValueError(
                    f"{path}: no header of a shard; for raw tokens say their type, as --token-dtype uint16"
                )
            dtype = self.token_dtype
        elif path.suffix == ".bin" and read_header(path).vocab_size is not None:
            return {}
        if self.vocab_size is None:
            raise ValueError(f"{path} does not say its vocab_size; give --vocab-size (50257 for GPT-2's tokenizer)")
        return {"vocab_size": self.vocab_size, **({} if dtype is None else {"dtype": dtype})}

    def _n_tokens(self, path: Path, split: str | None) -> int:
        """Tokens there are; none where nothing in them can be learnt, as in the end of a few short chats."""
        if path.is_dir():
            from tinygpt.tokenfolder import n_learnable

            manifest, name = Manifest.load(path), split or "train"
            if name in manifest.splits and manifest.has_targets and not n_learnable(path, name):
                return 0
            return sum(shard.tokens for shard in manifest.splits.get(name, ()))
        return replace(self, block_size=1, stride=None)._open(path).n_tokens


def _mode(path: Path) -> str:
    """Documents for chats, whose targets are not all tokens, else one stream."""
    if path.is_dir():
        return "documents" if Manifest.load(path).has_targets else "stream"
    return "documents" if path.with_suffix(TARGETS_SUFFIX).is_file() else "stream"


def _mixed(opened: "Sequence[TokenDataset]", found: Sequence[Path], weights: Sequence[Fraction | None]) -> "AnyDataset":
    if len(opened) == 1:
        return opened[0]
    from tinygpt.mixeddataset import MixedDataset

    known = [weight for weight in weights if weight is not None]
    return MixedDataset(opened, known or None, names=[str(path) for path in found])
