"""GGUF: model and tokenizer in one file, as llama.cpp reads it; written with the library that owns the format.

llama.cpp turns neighbours where transformers (and we) turn halves, so the rows of a Llama's queries and keys are put in
another order; Qwen3 and GPT-2 are left as they are. Nothing in the file says how text is split but a name that
llama.cpp knows: `PRE` holds the names whose split is ours on any text.

Source: ggml-org/llama.cpp, `gguf-py/gguf/constants.py`, `src/llama-vocab.cpp`, `src/models/llama.cpp`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import torch
from torch import Tensor

from tinygpt.formats.bytealphabet import spell
from tinygpt.formats.plaintokenizer import PlainTokenizer
from tinygpt.formats.standardtensors import NamedTensor, gpt2_tensors, llama_tensors
from tinygpt.modelconfig import GPTConfig
from tinygpt.specials import LSTRIP, RSTRIP, SINGLE_WORD, SPECIAL

DTYPES = {"f32": "F32", "f16": "F16", "bf16": "BF16", "q8_0": "Q8_0"}
"""What weights can be, and ggml's name for it; vectors and learned positions stay in F32."""

ARCHITECTURES = {"LlamaForCausalLM": "llama", "Qwen3ForCausalLM": "qwen3", "GPT2LMHeadModel": "gpt2"}
"""llama.cpp's architecture for each class of transformers."""

PRE = {"gpt2": "gpt-2", "cl100k": "dbrx", "qwen2": "qwen2", "byte": "gpt-2", "char": "gpt-2"}
"""llama.cpp's name for each of our patterns.

Under `byte` nothing merges, and under `char` nothing merges across characters, so any split serves them. `llama-bpe`
splits as `dbrx` does, but takes a piece that is a token for that token whatever the merges.
"""

_NO_MERGE = ["!! !!"]  # llama.cpp demands a list that is not empty; no token is ever "!!" here, so this merges nothing


@dataclass(frozen=True, kw_only=True)
class Ends:
    """The ids and the template that a vocabulary carries beside its tokens."""

    eot_id: int
    """Ends a document."""
    bos_id: int | None = None
    """Begins one; it is never put in front of a text by itself."""
    pad_id: int | None = None
    """Fills up rows."""
    end_of_turn_id: int | None = None
    """Ends a message of a chat."""
    chat_template: str | None = None
    """How messages are laid out, in Jinja."""


def write(
    path: Path,
    *,
    architecture: str,
    config: GPTConfig,
    state: Mapping[str, Tensor],
    tokenizer: PlainTokenizer,
    pre: str,
    ends: Ends,
    dtype: str = "f16",
    name: str = "tinygpt",
) -> None:
    """Writes one file that llama.cpp opens.

    Args:
        path: The file.
        architecture: A value of `ARCHITECTURES`.
        config: The model's.
        state: The state dict of a GPT, in float32.
        tokenizer: The model's.
        pre: llama.cpp's name for how text is split.
        ends: Ids with a meaning.
        dtype: One of `DTYPES`. Rows that are no multiple of 32 wide cannot be Q8_0 and become F16.
        name: The model's name, for people.

    Raises:
        ValueError: A token cannot be written.
    """
    writer = gguf.GGUFWriter(path, architecture)
    try:
        writer.add_name(name)
        _add_shape(writer, architecture, config)
        kind = "ALL_F32" if dtype == "f32" else f"MOSTLY_{DTYPES[dtype]}"
        writer.add_file_type(gguf.LlamaFileType[kind])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        _add_vocabulary(writer, config.vocab_size, tokenizer, pre, ends)
        for theirs, tensor in _tensors(architecture, config, state):
            _add_tensor(writer, theirs, tensor, dtype)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _add_shape(writer: Any, architecture: str, c: GPTConfig) -> None:
    writer.add_vocab_size(c.vocab_size)
    writer.add_context_length(c.block_size)
    writer.add_embedding_length(c.d_model)
    writer.add_block_count(c.n_layer)
    writer.add_feed_forward_length(c.d_inner)
    writer.add_head_count(c.n_head)
    if architecture == "gpt2":
        writer.add_layer_norm_eps(c.norm_eps)
        return
    writer.add_head_count_kv(c.n_kv)
    writer.add_key_length(c.d_head)
    writer.add_value_length(c.d_head)
    writer.add_layer_norm_rms_eps(c.norm_eps)
    writer.add_rope_freq_base(c.rope_theta)
    writer.add_rope_dimension_count(c.d_head)


def _add_vocabulary(writer: Any, n_ids: int, tokenizer: PlainTokenizer, pre: str, ends: Ends) -> None:
    """Every row of the embedding has a token; those that are nobody's are told apart by their number."""
    kinds = gguf.TokenType
    tokens = [f"[unused{i}]" for i in range(n_ids)]
    types = [kinds.UNUSED] * n_ids
    for token, i in tokenizer.tokens:
        tokens[i], types[i] = spell(token), kinds.NORMAL
    for content, i, flags in tokenizer.added:
        if flags & (LSTRIP | RSTRIP | SINGLE_WORD):
            raise ValueError(
                f"token {content!r} takes white space with it or stands for whole words, which GGUF cannot say"
            )
        tokens[i], types[i] = content, kinds.CONTROL if flags & SPECIAL else kinds.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    merges = [f"{spell(left)} {spell(right)}" for left, right in tokenizer.merges or ()]
    writer.add_token_merges(merges or _NO_MERGE)
    # Without an id here, llama.cpp takes 11 for both.
    writer.add_bos_token_id(ends.eot_id if ends.bos_id is None else ends.bos_id)
    writer.add_eos_token_id(ends.eot_id)
    if ends.pad_id is not None:
        writer.add_pad_token_id(ends.pad_id)
    if ends.end_of_turn_id is not None:
        writer.add_eot_token_id(ends.end_of_turn_id)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    if ends.chat_template is not None:
        writer.add_chat_template(ends.chat_template)


def _tensors(architecture: str, c: GPTConfig, state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """llama.cpp's tensors by their names, each (out, in) as ours are."""
    kind = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == architecture)
    names = gguf.get_tensor_name_map(kind, c.n_layer)
    for tensor in gpt2_tensors(c) if architecture == "gpt2" else llama_tensors(c):
        ours = state.get(tensor.name)
        if ours is None:  # GPT-2 has biases always: a model without them is one whose biases are zero
            ours = torch.zeros(tensor.shape)
        parts = torch.split(ours.detach().float().cpu(), list(tensor.rows))
        for theirs, part in zip(tensor.theirs, parts, strict=True):
            name = names.get_name(theirs, try_suffixes=(".weight", ".bias"))
            assert name is not None, f"llama.cpp knows no {theirs}"
            yield name, _interleaved(part, _heads(tensor, theirs, c)) if architecture == "llama" else part


def _heads(tensor: NamedTensor, theirs: str, c: GPTConfig) -> int:
    """Heads whose rows turn in pairs; 0 for tensors that do not turn."""
    if ".q_proj." in theirs:
        return c.n_head
    return c.n_kv if ".k_proj." in theirs else 0


def _interleaved(rows: Tensor, n_head: int) -> Tensor:
    """Rows 0, D/2, 1, D/2 + 1, ... of each head: the two that turn together become neighbours."""
    if not n_head:
        return rows
    return rows.reshape(n_head, 2, -1, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)


def _kind(name: str, tensor: Tensor, dtype: str) -> Any:
    """Ggml's type of one tensor."""
    kind = DTYPES[dtype]
    if tensor.ndim == 1 or name.startswith("position"):
        kind = "F32"
    elif kind == "Q8_0" and tensor.shape[-1] % 32:
        kind = "F16"
    return gguf.GGMLQuantizationType[kind]


def rounded(name: str, tensor: Tensor, dtype: str) -> Tensor:
    """A tensor of ours with the numbers that the file holds for it."""
    quants, kind = gguf.quants, _kind(name, tensor, dtype)
    array = quants.dequantize(quants.quantize(tensor.detach().float().cpu().contiguous().numpy(), kind), kind)
    return torch.from_numpy(array.copy())


def tensors(architecture: str, c: GPTConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """llama.cpp's tensors by name, each (out, in), from the state dict of a GPT."""
    return dict(_tensors(architecture, c, state))


def _add_tensor(writer: Any, name: str, tensor: Tensor, dtype: str) -> None:
    type_of = _kind(name, tensor, dtype)
    writer.add_tensor(name, gguf.quants.quantize(tensor.contiguous().numpy(), type_of), raw_dtype=type_of)
