"""Tokenizers of the libraries sentencepiece and tokenizers, with the doors of ours.

They encode and decode as the library does. A special token's string is ordinary text here, too, unless it is allowed,
so `encode` of a text that holds one may differ from what the library does by itself.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tinygpt._core import FormatError, ShardSet
from tinygpt.corpus import Progress
from tinygpt.corpussource import Source, as_corpus
from tinygpt.formats import limits
from tinygpt.manifest import Manifest
from tinygpt.shardfolder import ShardFolder
from tinygpt.specials import BOS_NAMES, EOT_NAMES, PAD_NAMES
from tinygpt.staging import WorkFolder, write_file
from tinygpt.tokenids import Ids, as_uint32, given_text, given_texts

if TYPE_CHECKING:
    import tokenizers

Allowed = Literal["all"] | Iterable[str]


class SentencePieceTokenizer:
    """A SentencePiece model, unigram or BPE.

    Args:
        path: The `.model` file.

    Raises:
        FormatError: It is no such file.
        ImportError: sentencepiece is not installed.

    Source: Kudo and Richardson 2018 (arXiv:1808.06226).
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        try:
            import sentencepiece
        except ImportError:
            raise ImportError(
                f"{path}: a SentencePiece model needs a library; pip install 'tinygpt[sentencepiece]'"
            ) from None
        try:
            self._proto = limits.read_file(Path(path))
            self._model = sentencepiece.SentencePieceProcessor(model_proto=self._proto)
        except (RuntimeError, ValueError) as error:
            raise FormatError(f"{path}: no SentencePiece model: {str(error)[:200]}") from None
        model = self._model
        self._vocab_size = int(model.get_piece_size())
        self._special = {model.id_to_piece(i): i for i in range(self.vocab_size) if model.is_control(i)}

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return self._vocab_size

    @property
    def special_tokens(self) -> dict[str, int]:
        """Ids of the control tokens, by name."""
        return dict(self._special)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the model, 64 hex digits."""
        return hashlib.sha256(b"sentencepiece" + self._proto).hexdigest()

    @property
    def eot_id(self) -> int | None:
        """Id of the model's end of sentence, if there is one."""
        return _at_least_0(self._model.eos_id())

    @property
    def bos_id(self) -> int | None:
        """Id of the model's beginning of sentence, if there is one; it is never added unasked."""
        return _at_least_0(self._model.bos_id())

    @property
    def pad_id(self) -> int | None:
        """Id of the model's padding, if there is one."""
        return _at_least_0(self._model.pad_id())

    def encode(self, text: str, *, allowed_special: Allowed = ()) -> list[int]:
        """The ids of a text, nothing put around them; control tokens are never parsed.

        Raises:
            ValueError: `allowed_special` names any: SentencePiece has no way to find them.
        """
        return self.encode_batch([given_text(text)], threads=1, allowed_special=allowed_special)[0]

    def encode_batch(
        self, texts: Sequence[str], *, threads: int | None = None, allowed_special: Allowed = ()
    ) -> list[list[int]]:
        """The ids of each text, on the library's threads."""
        if allowed_special:
            raise ValueError("a SentencePiece model finds no special tokens in text; leave allowed_special out")
        _check_texts(texts)
        ids: list[list[int]] = self._model.encode(list(texts), num_threads=threads or -1)
        return ids

    def decode(self, ids: Ids, errors: str = "replace") -> str:
        """The text of ids; control tokens are no text."""
        rows = _checked(ids, self.vocab_size)
        return str(self._model.decode(rows))

    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of ids as they come, in pieces of whole characters."""
        return _stream(self.decode, ids)

    def token_lengths(self) -> None:
        """None: the model normalises text, so ids do not say what it was."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes `tokenizer.model` into a folder."""
        Path(path).mkdir(parents=True, exist_ok=True)
        write_file(Path(path) / "tokenizer.model", self._proto)

    def write_shards(self, source: Source, folder: str | os.PathLike[str], **options: Any) -> Manifest:
        """Encodes a corpus into `folder`, as `Tokenizer.write_shards` does; see `_write_shards`."""
        return _write_shards(self, source, folder, **options)


class HuggingFaceTokenizer:
    """Any `tokenizer.json`, by the tokenizers library.

    Args:
        path: The file.
        refusal: Why it is none of ours, for the message where the library is missing.

    Raises:
        FormatError: It is no such file.
        ImportError: tokenizers is not installed.
    """

    def __init__(self, path: str | os.PathLike[str], *, refusal: Exception | None = None) -> None:
        try:
            import tokenizers
        except ImportError:
            why = f"{refusal or path}; the library that owns the format reads it"
            raise ImportError(f"{why}: pip install 'tinygpt[tokenizers]'") from None
        try:
            text = limits.read_file(Path(path)).decode()
            self._model = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises nothing narrower
            raise FormatError(f"{path}: {refusal or error}") from None
        self._model.no_truncation()
        self._model.no_padding()
        self._model.encode_special_tokens = True
        self._config = _config_beside(Path(path))
        self._vocab_size = max(self._model.get_vocab().values(), default=-1) + 1  # a copy of the vocabulary
        added = self._model.get_added_tokens_decoder()
        self._special = {token.content: i for i, token in added.items() if token.special}

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return self._vocab_size

    @property
    def special_tokens(self) -> dict[str, int]:
        """Ids of the special tokens, by name."""
        return dict(self._special)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the tokenizer as the library writes it, 64 hex digits."""
        return hashlib.sha256(b"tokenizers" + self._model.to_str().encode()).hexdigest()

    @property
    def eot_id(self) -> int | None:
        """Id of the token that ends a document, by `tokenizer_config.json` or by name."""
        return self._role("eos_token", EOT_NAMES)

    @property
    def bos_id(self) -> int | None:
        """Id of the token that begins a document, likewise; it is never added unasked."""
        return self._role("bos_token", BOS_NAMES)

    @property
    def pad_id(self) -> int | None:
        """Id of the token that fills up rows, likewise."""
        return self._role("pad_token", PAD_NAMES)

    def encode(self, text: str, *, allowed_special: Allowed = ()) -> list[int]:
        """The ids of a text, nothing put around them.

        Raises:
            ValueError: Some special tokens are allowed and others are not: the library knows all or none.
        """
        return self.encode_batch([given_text(text)], allowed_special=allowed_special)[0]

    def encode_batch(
        self, texts: Sequence[str], *, threads: int | None = None, allowed_special: Allowed = ()
    ) -> list[list[int]]:
        """The ids of each text, on the library's threads."""
        _check_texts(texts)
        names = set(self._special) if allowed_special == "all" else set(allowed_special)
        if names and names != set(self._special):
            raise ValueError('this tokenizer finds all special tokens or none; allowed_special must be "all" or empty')
        found = self._parsing(bool(names)).encode_batch(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in found]

    def decode(self, ids: Ids, errors: str = "replace") -> str:
        """The text of ids, special tokens by name."""
        return str(self._model.decode(_checked(ids, self.vocab_size), skip_special_tokens=False))

    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of ids as they come, in pieces of whole characters."""
        return _stream(self.decode, ids)

    def token_lengths(self) -> None:
        """None: the tokenizer may normalise text, so ids do not say what it was."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes `tokenizer.json` and `tokenizer_config.json` into a folder."""
        Path(path).mkdir(parents=True, exist_ok=True)
        write_file(Path(path) / "tokenizer.json", self._model.to_str())
        write_file(Path(path) / "tokenizer_config.json", json.dumps(self._config, indent=1) + "\n")

    def write_shards(self, source: Source, folder: str | os.PathLike[str], **options: Any) -> Manifest:
        """Encodes a corpus into `folder`, as `Tokenizer.write_shards` does; see `_write_shards`."""
        return _write_shards(self, source, folder, **options)

    def _parsing(self, is_parsing: bool) -> "tokenizers.Tokenizer":
        """The library's tokenizer, finding special tokens in text or not."""
        if not is_parsing:
            return self._model
        import tokenizers

        return tokenizers.Tokenizer.from_str(self._model.to_str())

    def _role(self, role: str, names: Sequence[str]) -> int | None:
        found = self._config.get(role)
        content = found.get("content") if isinstance(found, Mapping) else found
        candidates = [content] if isinstance(content, str) else names
        return next((self._special[name] for name in candidates if name in self._special), None)


def _write_shards(
    tokenizer: SentencePieceTokenizer | HuggingFaceTokenizer,
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
    """Shards of a corpus; a document is held whole while it is encoded."""
    if part is not None:
        raise ValueError(
            "parts of a whole are for byte-level BPE, and a library reads this tokenizer; prepare it whole"
        )
    corpus = as_corpus(source)
    place = ShardFolder(
        tokenizer=tokenizer,
        folder=Path(folder),
        val_fraction=val_fraction,
        shard_tokens=shard_tokens,
        split=split,
        shuffle=shuffle,
        training=training,
    )
    open_shards = partial(
        ShardSet.of_ids,
        lengths=[len(tokenizer.decode([i]).encode()) for i in range(tokenizer.vocab_size)],
        fingerprint=bytes.fromhex(tokenizer.fingerprint),
        eot_id=tokenizer.eot_id,
        shard_tokens=shard_tokens,
        val_fraction=val_fraction,
    )

    def encode(texts: list[str]) -> list[bytes]:
        return [np.asarray(ids, "<u4").tobytes() for ids in tokenizer.encode_batch(texts, threads=threads)]

    fill = partial(corpus.write_ids, encode=encode, progress=progress)
    return place.write(corpus, open_shards, fill, work=work)


def _stream(decode: Callable[[list[int]], str], ids: Iterable[int]) -> Iterator[str]:
    """What each id adds to the text: a token's text may depend on the one before it, so a few are decoded together."""
    held: list[int] = []
    said = ""
    for i in ids:
        held.append(i)
        text = decode(held)
        if text.endswith("\ufffd"):
            continue  # within a character, or else its end will come with the next id
        yield text[len(said) :]
        held = held[-_CONTEXT_TOKENS:]
        said = decode(held)
    yield decode(held)[len(said) :]


_CONTEXT_TOKENS = 8


def _at_least_0(id: int) -> int | None:
    return None if id < 0 else id


def _check_texts(texts: Sequence[str]) -> None:
    for i, text in enumerate(given_texts(texts)):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"texts[{i}] holds a lone surrogate at character {error.start}") from None


def _checked(ids: Ids, vocab_size: int) -> list[int]:
    """Ids as a list, each known to be one."""
    array = as_uint32(ids)
    if wrong := np.flatnonzero(array >= vocab_size).tolist():
        raise ValueError(f"id {array[wrong[0]]} at place {wrong[0]} is not in the vocabulary of {vocab_size} ids")
    return [int(i) for i in array]


def _config_beside(path: Path) -> dict[str, Any]:
    """The `tokenizer_config.json` beside a file; empty where there is none."""
    file = path.parent / "tokenizer_config.json"
    try:
        return limits.parse_object(limits.read_file(file)) if file.is_file() else {}
    except ValueError as error:
        raise FormatError(f"{file}: {error}") from None
