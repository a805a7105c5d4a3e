"""llm.c's checkpoint of a GPT-2 and its table of tokens, from which its C programs train on and write.

Both begin with 256 int32. Tensors follow kind by kind, each kind of all layers together, as (out, in); the token
embedding has rows of zeros up to a multiple of 128. The table gives each token its length in a byte, then its bytes.

Source: karpathy/llm.c, `train_gpt2.py` (`write_model`, `write_tokenizer`) and `llmc/tokenizer.h`.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from tinygpt._core import FormatError
from tinygpt.modelconfig import GPTConfig

MODEL_MAGIC, TOKENS_MAGIC, TOKENS_VERSION = 20240326, 20240328, 2
VERSIONS = {"f32": 3, "bf16": 5}
"""Version of a checkpoint for each type of weights."""
_LAYER = (
    *("attention_norm.weight", "attention_norm.bias", "attention.qkv.weight", "attention.qkv.bias"),
    *("attention.output.weight", "attention.output.bias", "feed_forward_norm.weight", "feed_forward_norm.bias"),
    *("feed_forward.up.weight", "feed_forward.up.bias", "feed_forward.down.weight", "feed_forward.down.bias"),
)
_MOST_BYTES = 255


def obstacles(c: GPTConfig) -> list[str]:
    """What keeps a GPT-2 from being llm.c's, as "name value (theirs)"."""
    fixed = {"tie_embeddings": True, "d_inner": 4 * c.d_model, "norm_eps": 1e-5}
    return [f"{name} {getattr(c, name)} ({value})" for name, value in fixed.items() if getattr(c, name) != value]


def write_model(path: Path, c: GPTConfig, state: Mapping[str, Tensor], *, dtype: str) -> None:
    """Writes the checkpoint.

    Args:
        path: The file.
        c: A GPT-2's, without obstacles.
        state: The state dict of a GPT; biases that it lacks are zero.
        dtype: One of `VERSIONS`.
    """
    header = [MODEL_MAGIC, VERSIONS[dtype], c.block_size, c.vocab_size, c.n_layer, c.n_head, c.d_model, padded(c)]
    with path.open("wb") as file:
        file.write(_header(header))
        for tensor in _in_order(c, state):
            if dtype == "bf16":
                file.write(tensor.bfloat16().contiguous().view(torch.int16).numpy().tobytes())
            else:
                file.write(tensor.contiguous().numpy().tobytes())


def write_tokens(path: Path, tokens: Sequence[bytes], eot_id: int) -> None:
    """Writes the table of tokens.

    Raises:
        ValueError: A token is longer than a byte can say.
    """
    if long := next((token for token in tokens if len(token) > _MOST_BYTES), None):
        raise ValueError(f"token {long[:20]!r}.. has {len(long)} bytes, and llm.c takes {_MOST_BYTES} at most")
    with path.open("wb") as file:
        file.write(_header([TOKENS_MAGIC, TOKENS_VERSION, len(tokens), eot_id]))
        file.writelines(bytes([len(token)]) + token for token in tokens)


def check(model: Path, tokens: Path) -> None:
    """Nothing, if both files have the layout that llm.c reads.

    Raises:
        FormatError: A header or a size is wrong.
    """
    head = np.fromfile(model, "<i4", 256)
    version, block_size, n_ids, n_layer, _, width, n_rows = (int(word) for word in head[1:8])
    n_bytes = {value: name for name, value in VERSIONS.items()}.get(version)
    if head[0] != MODEL_MAGIC or n_bytes is None:
        raise FormatError(f"{model}: magic {head[0]} and version {version} are not llm.c's")
    n_numbers = (n_rows + block_size) * width + n_layer * (12 * width**2 + 13 * width) + 2 * width
    wanted = 1024 + n_numbers * (2 if n_bytes == "bf16" else 4)
    if model.stat().st_size != wanted or n_rows % 128 or not 0 <= n_rows - n_ids < 128:
        raise FormatError(f"{model}: {model.stat().st_size} bytes, but its header promises {wanted}")
    raw = tokens.read_bytes()
    head, place, n_found = np.frombuffer(raw[:1024], "<i4"), 1024, 0
    while place < len(raw):
        place, n_found = place + 1 + raw[place], n_found + 1
    if [head[0], head[1], head[2], n_found, place] != [TOKENS_MAGIC, TOKENS_VERSION, n_ids, n_ids, len(raw)]:
        raise FormatError(f"{tokens}: {n_found} tokens, but the model has {n_ids}")


def padded(c: GPTConfig) -> int:
    """Rows of the token embedding in the file."""
    return -(-c.vocab_size // 128) * 128


def _header(words: Sequence[int]) -> bytes:
    header = np.zeros(256, "<i4")
    header[: len(words)] = words
    return header.tobytes()


def _in_order(c: GPTConfig, state: Mapping[str, Tensor]) -> Iterator[Tensor]:
    """The tensors as the file has them, in float32."""

    def of(name: str) -> Tensor:
        found = state.get(name)
        weight = state[name.replace("bias", "weight")]
        return (weight.new_zeros(len(weight)) if found is None else found).detach().float().cpu()

    embedding = of("token_embedding.weight")  # (V, C)
    yield F.pad(embedding, (0, 0, 0, padded(c) - c.vocab_size))  # (V', C)
    yield of("position.weight")
    for name in _LAYER:
        for i in range(c.n_layer):
            yield of(f"blocks.{i}.{name}")
    yield of("norm.weight")
    yield of("norm.bias")
