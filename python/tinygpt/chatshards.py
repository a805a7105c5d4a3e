"""Chats into a folder of shards, with a file beside each that says which tokens are the assistant's.

The work is done here in Python, over `encode_batch`: chats are small beside corpora, and JSON is most of it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygpt._core import ShardSet
from tinygpt.anytokenizer import AnyTokenizer
from tinygpt.chats import Chat, Chats, Origin
from tinygpt.chattemplate import CHAT_TEMPLATE, CHAT_TOKENS, END, ROLES, laid_out
from tinygpt.corpus import Progress
from tinygpt.header import HEADER_BYTES
from tinygpt.manifest import Manifest, Shard
from tinygpt.shardfolder import ShardFolder
from tinygpt.staging import WorkFolder
from tinygpt.targetbits import TARGETS_SUFFIX, write_targets

_BATCH_CHARACTERS = 1 << 20
_BLOCK_TOKENS = 1 << 22  # a multiple of 8, so that blocks are whole bytes of bits


def write_chats(
    chats: Chats,
    tokenizer: AnyTokenizer,
    folder: str | Path,
    *,
    val_fraction: float = 0.01,
    shard_tokens: int = 100_000_000,
    split: str = "hash",
    shuffle: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    training: Mapping[str, Any] | None = None,
    work: WorkFolder | None = None,
) -> Manifest:
    """Encodes conversations into `folder`, each a document, by the chat template; targets are the assistant's tokens.

    A conversation goes whole to train or val, by a hash of what is said in it. Text is text: no string in it becomes
    a special token.

    Args:
        chats: What to encode.
        tokenizer: It has `CHAT_TOKENS` among its special tokens, and one that ends a document.
        folder: As in `Tokenizer.write_shards`, as are the rest.
        val_fraction: Share of the conversations to hold out.
        shard_tokens: Most tokens in one file.
        split: What is held out.
        shuffle: Seed by which conversations are shuffled.
        threads: None means one for each core.
        progress: Called now and then with the bytes done and the bytes there are.
        training: What this tokenizer was trained with, for the manifest.
        work: Where the folder is written, if the caller holds that already.

    Raises:
        FileExistsError: `folder` holds something else.
        ValueError: A special token is missing, a record is no conversation, or there is none.
    """
    check_knows_chats(tokenizer)
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
        lengths=_text_lengths(tokenizer),
        fingerprint=bytes.fromhex(tokenizer.fingerprint),
        eot_id=tokenizer.eot_id,
        shard_tokens=shard_tokens,
        val_fraction=val_fraction,
    )

    def fill(shards: ShardSet) -> None:
        first = 0
        for batch in _batches(chats.read(progress)):
            some, origins = [chat for chat, _ in batch], [origin for _, origin in batch]
            texts = ["".join(text for _, text in chat) for chat in some]
            shards.add_ids(texts, _encoded(some, tokenizer, threads), first=first, origins=origins)
            first += len(batch)

    mark = partial(_mark, special_tokens=tokenizer.special_tokens)
    return place.write(chats, open_shards, fill, mark, work=work)


def check_knows_chats(tokenizer: AnyTokenizer) -> None:
    """Nothing, if a tokenizer has the special tokens of chats.

    Raises:
        ValueError: It lacks some; the message names them.
    """
    if missing := [name for name in CHAT_TOKENS if name not in tokenizer.special_tokens]:
        raise ValueError(f"the tokenizer has no {', '.join(missing)}, which chats need; --add-chat-tokens adds them")


def _encoded(batch: Sequence[Chat], tokenizer: AnyTokenizer, threads: int | None) -> list[bytes]:
    """The ids of each conversation as the template puts them, little-endian uint32."""
    specials = tokenizer.special_tokens
    texts = iter(tokenizer.encode_batch([text for chat in batch for _, text in chat], threads=threads))
    rows = (laid_out(((role, next(texts)) for role, _ in chat), specials) for chat in batch)
    return [np.asarray(row, "<u4").tobytes() for row in rows]


def _batches(chats: Iterator[tuple[Chat, Origin]]) -> Iterator[list[tuple[Chat, Origin]]]:
    """Runs of conversations of about a million characters: enough to do, little to hold."""
    batch: list[tuple[Chat, Origin]] = []
    size = 0
    for chat, origin in chats:
        batch.append((chat, origin))
        size += sum(len(text) for _, text in chat)
        if size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _text_lengths(tokenizer: AnyTokenizer) -> list[int]:
    """Bytes of text of each id."""
    known = tokenizer.token_lengths()
    if known is not None:
        return [int(n) for n in known[0]]
    return [len(tokenizer.decode([i]).encode()) for i in range(tokenizer.vocab_size)]


def _mark(
    folder: Path, splits: Mapping[str, tuple[Shard, ...]], dtype: str, *, special_tokens: Mapping[str, int]
) -> dict[str, tuple[Shard, ...]]:
    """The shards with their targets written beside them, found by the special tokens, which no text can become.

    The split may have cut a conversation in two, val going on where train ends: what is open is carried along.
    """
    assistant, end = special_tokens[ROLES["assistant"]], special_tokens[END]
    marked: dict[str, list[Shard]] = {}
    is_open = False
    for name, shards in splits.items():
        marked[name] = []
        for shard in shards:
            path = folder / shard.file
            tokens = np.memmap(path, np.dtype(dtype).newbyteorder("<"), "r", HEADER_BYTES, (shard.tokens,))
            blocks = []
            for start in range(0, shard.tokens, _BLOCK_TOKENS):
                block, is_open = _targets(tokens[start : start + _BLOCK_TOKENS], assistant, end, is_open=is_open)
                blocks.append(np.packbits(block, bitorder="little"))
            n_targets, xxh3 = write_targets(path.with_suffix(TARGETS_SUFFIX), blocks)
            marked[name].append(replace(shard, targets=n_targets, targets_xxh3=xxh3))
    config = folder / "tokenizer_config.json"
    known = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    config.write_text(json.dumps({**known, "chat_template": CHAT_TEMPLATE}, indent=1) + "\n", encoding="utf-8")
    return {name: tuple(shards) for name, shards in marked.items()}


def _targets(tokens: NDArray[Any], assistant: int, end: int, *, is_open: bool) -> tuple[NDArray[np.bool_], bool]:
    """Which tokens follow the assistant's mark, up to and with the end of the message; and whether one is open."""
    marks = np.flatnonzero((tokens == assistant) | (tokens == end))
    opens = np.concatenate([[is_open], tokens[marks] == assistant])  # after each mark, and before the first
    lengths = np.diff(np.concatenate([[0], marks + 1, [len(tokens)]]))
    return np.repeat(opens, lengths), bool(opens[-1])
