"""Single files that hold tokens, by the end of their name: shards, raw `.bin` of nanoGPT, `.npy`, `.pt`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tinygpt._core import FormatError
from tinygpt.anytokenizer import tokenizer_file
from tinygpt.header import HEADER_BYTES, has_header, read_header
from tinygpt.targetbits import TARGETS_SUFFIX, TargetBits, Targets, n_bytes
from tinygpt.tokenstream import ArrayTokens, FileTokens, TokenFile, TokenStream

_RAW_TYPES = ("uint8", "uint16", "uint32", "int32", "int64")


@dataclass(frozen=True, kw_only=True)
class OpenTokens:
    """Tokens with what is known about them."""

    tokens: TokenStream
    name: str
    vocab_size: int
    eot_id: int | None = None
    fingerprint: str | None = None
    n_documents: int | None = None
    n_bytes: int | None = None
    folder: Path | None = None
    targets: Targets | None = None
    """Which tokens are to be learnt; None means all."""
    indices: tuple[tuple[Path, int], ...] = ()
    """The `.idx` files, each with the tokens of its shard."""


def _open_bin(path: Path, vocab_size: int | None, dtype: str | None, eot_id: int | None) -> OpenTokens:
    if dtype is not None:
        return _open_raw(path, vocab_size, dtype, eot_id)
    header = read_header(path)
    for name, given, found in (("vocab_size", vocab_size, header.vocab_size), ("eot_id", eot_id, header.eot_id)):
        if given is not None and header.vocab_size is not None and given != found:
            raise ValueError(f"{path}: its header says {name} {found}, got {given}; leave it away")
    index = path.with_suffix(".idx")
    has_index = header.n_documents is not None and index.is_file()
    if has_index and index.stat().st_size != 8 * (header.n_documents or 0):
        raise FormatError(
            f"{index}: {index.stat().st_size} bytes, but {path.name} promises {header.n_documents} documents "
            "of 8 bytes each; write the shards again"
        )
    file = TokenFile(path=path, n_tokens=header.n_tokens, offset=HEADER_BYTES)
    is_ours = header.fingerprint is not None
    return OpenTokens(
        tokens=FileTokens([file], np.dtype(header.dtype).newbyteorder("<")),
        name=str(path),
        vocab_size=_wanted_vocab_size(path, header.vocab_size or vocab_size),
        eot_id=eot_id if header.vocab_size is None else header.eot_id,
        fingerprint=header.fingerprint,
        n_documents=header.n_documents,
        n_bytes=header.n_bytes,
        folder=path.parent if is_ours and tokenizer_file(path.parent) is not None else None,
        indices=((index, header.n_tokens),) if has_index else (),
        targets=_targets_beside(path, header.n_tokens) if is_ours else None,
    )


def _targets_beside(path: Path, n_tokens: int) -> TargetBits | None:
    """The targets of a shard, if a file beside it holds them."""
    file = path.with_suffix(TARGETS_SUFFIX)
    if not file.is_file():
        return None
    if file.stat().st_size != n_bytes(n_tokens):
        found = f"{file.stat().st_size} bytes, but a bit for each of {n_tokens} tokens takes {n_bytes(n_tokens)}"
        raise FormatError(f"{file}: {found}; write the shards again")
    return TargetBits([(file, n_tokens)])


def _open_raw(path: Path, vocab_size: int | None, dtype: str, eot_id: int | None) -> OpenTokens:
    if dtype not in _RAW_TYPES:
        raise ValueError(f"dtype must be one of {', '.join(_RAW_TYPES)}, got {dtype!r}")
    kind = np.dtype(dtype).newbyteorder("<")
    if has_header(path):
        raise ValueError(f"{path} has the header of a shard, so dtype={dtype!r} has no use; leave it away")
    size = path.stat().st_size
    if size % kind.itemsize:
        raise FormatError(
            f"{path}: {size} bytes, no whole number of {dtype} tokens; give the dtype it was written with"
        )
    return OpenTokens(
        tokens=FileTokens([TokenFile(path=path, n_tokens=size // kind.itemsize)], kind),
        name=str(path),
        vocab_size=_wanted_vocab_size(path, vocab_size),
        eot_id=eot_id,
    )


def _open_npy(path: Path, vocab_size: int | None, dtype: str | None, eot_id: int | None) -> OpenTokens:
    refuse(path, "says the type of its tokens", dtype=dtype)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise FormatError(f"{path}: {error}; save it again with numpy.save") from None
    tokens = as_tokens(array, str(path))
    size, offset = path.stat().st_size, int(array.offset)
    if size != offset + tokens.nbytes:
        raise FormatError(f"{path}: {size} bytes, but its header promises {offset + tokens.nbytes}; save it again")
    return OpenTokens(
        tokens=FileTokens([TokenFile(path=path, n_tokens=len(tokens), offset=offset)], tokens.dtype),
        name=str(path),
        vocab_size=_wanted_vocab_size(path, vocab_size),
        eot_id=eot_id,
    )


def _open_pt(path: Path, vocab_size: int | None, dtype: str | None, eot_id: int | None) -> OpenTokens:
    refuse(path, "says the type of its tokens", dtype=dtype)
    with path.open("rb"):
        pass  # what cannot be read is an OSError, and what torch cannot load is damaged or foreign
    try:
        tensor = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise FormatError(f"{path}: no file of torch.save that holds tensors only; save the ids as .npy") from error
    tokens = ArrayTokens(as_tokens(tensor, str(path)), str(path))
    return OpenTokens(tokens=tokens, name=str(path), vocab_size=_wanted_vocab_size(path, vocab_size), eot_id=eot_id)


def _wanted_vocab_size(path: Path, vocab_size: int | None) -> int:
    if vocab_size is None:
        raise ValueError(f"{path} does not say its vocab_size; give vocab_size= (50257 for GPT-2's tokenizer)")
    return vocab_size


def as_tokens(array: Any, name: str) -> NDArray[Any]:
    """The array, tensor or sequence as integers of shape (n,), not copied where it need not be.

    Raises:
        ValueError: It is no row of integers.
    """
    try:
        tokens = np.asarray(array)
    except (TypeError, ValueError, RuntimeError):  # numpy has no bfloat16, nor rows of unequal length
        kind = (
            f"{array.dtype} of shape {tuple(array.shape)}" if isinstance(array, torch.Tensor) else type(array).__name__
        )
        raise ValueError(f"{name} must be integers in one dimension, got {kind}") from None
    if tokens.ndim != 1 or (tokens.dtype.kind not in "iu" and len(tokens)):
        raise ValueError(f"{name} must be integers in one dimension, got {tokens.dtype} of shape {tokens.shape}")
    return tokens


def refuse(path: Path, reason: str, **arguments: Any) -> None:
    """Nothing, when no argument was given.

    Raises:
        ValueError: One was, and it has no use here.
    """
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(f"{path} {reason}, so {name}={value!r} has no use; leave it away")


DOORS = {".bin": _open_bin, ".npy": _open_npy, ".pt": _open_pt}
