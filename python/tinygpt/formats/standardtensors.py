"""The tensors of transformers' Llama, Qwen3 and GPT-2, beside ours that hold the same numbers."""

from collections.abc import Iterator
from dataclasses import dataclass

from tinygpt.modelconfig import GPTConfig


@dataclass(frozen=True, kw_only=True)
class NamedTensor:
    """One of our tensors, and what it is called and made of in the standard class."""

    name: str
    shape: tuple[int, ...]
    theirs: tuple[str, ...]
    """Their tensors, which ours holds one under the other."""
    rows: tuple[int, ...]
    """Rows of each of them in ours."""
    is_transposed: bool = False


def llama_tensors(c: GPTConfig) -> Iterator[NamedTensor]:
    """The tensors of a Llama or, with norms of queries and keys, a Qwen3."""
    attention, gated = (c.d_model, c.n_kv * c.d_head, c.n_kv * c.d_head), (c.d_inner, c.d_inner)
    yield _single("token_embedding.weight", (c.vocab_size, c.d_model), "model.embed_tokens.weight")
    for i in range(c.n_layer):
        ours, theirs = f"blocks.{i}", f"model.layers.{i}"
        yield _single(f"{ours}.attention_norm.weight", (c.d_model,), f"{theirs}.input_layernorm.weight")
        qkv = tuple(f"{theirs}.self_attn.{part}_proj" for part in "qkv")
        yield from _linear(f"{ours}.attention.qkv", c.d_model, attention, qkv, has_bias=c.bias)
        if c.qk_norm:
            yield _single(f"{ours}.attention.q_norm.weight", (c.d_head,), f"{theirs}.self_attn.q_norm.weight")
            yield _single(f"{ours}.attention.k_norm.weight", (c.d_head,), f"{theirs}.self_attn.k_norm.weight")
        output = (f"{theirs}.self_attn.o_proj",)
        yield from _linear(f"{ours}.attention.output", c.d_model, (c.d_model,), output, has_bias=c.bias)
        yield _single(f"{ours}.feed_forward_norm.weight", (c.d_model,), f"{theirs}.post_attention_layernorm.weight")
        up = (f"{theirs}.mlp.gate_proj", f"{theirs}.mlp.up_proj")
        yield from _linear(f"{ours}.feed_forward.up", c.d_model, gated, up, has_bias=c.bias)
        down = (f"{theirs}.mlp.down_proj",)
        yield from _linear(f"{ours}.feed_forward.down", c.d_inner, (c.d_model,), down, has_bias=c.bias)
    yield _single("norm.weight", (c.d_model,), "model.norm.weight")
    if not c.tie_embeddings:
        yield _single("head.weight", (c.vocab_size, c.d_model), "lm_head.weight")


def gpt2_tensors(c: GPTConfig) -> Iterator[NamedTensor]:
    """The tensors of a GPT-2, whose linear layers are stored as (in, out)."""
    yield _single("token_embedding.weight", (c.vocab_size, c.d_model), "transformer.wte.weight")
    yield _single("position.weight", (c.block_size, c.d_model), "transformer.wpe.weight")
    norms = [("norm", "transformer.ln_f")]
    for i in range(c.n_layer):
        ours, theirs = f"blocks.{i}", f"transformer.h.{i}"
        norms += [(f"{ours}.attention_norm", f"{theirs}.ln_1"), (f"{ours}.feed_forward_norm", f"{theirs}.ln_2")]
        for name, n_in, n_out, their_name in (
            ("attention.qkv", c.d_model, 3 * c.d_model, "attn.c_attn"),
            ("attention.output", c.d_model, c.d_model, "attn.c_proj"),
            ("feed_forward.up", c.d_model, c.d_inner, "mlp.c_fc"),
            ("feed_forward.down", c.d_inner, c.d_model, "mlp.c_proj"),
        ):
            names = (f"{theirs}.{their_name}",)
            yield from _linear(f"{ours}.{name}", n_in, (n_out,), names, has_bias=True, is_transposed=True)
    for ours, theirs in norms:
        yield _single(f"{ours}.weight", (c.d_model,), f"{theirs}.weight")
        yield _single(f"{ours}.bias", (c.d_model,), f"{theirs}.bias")
    if not c.tie_embeddings:
        yield _single("head.weight", (c.vocab_size, c.d_model), "lm_head.weight")


def _single(name: str, shape: tuple[int, ...], theirs: str) -> NamedTensor:
    return NamedTensor(name=name, shape=shape, theirs=(theirs,), rows=shape[:1])


def _linear(
    name: str,
    n_in: int,
    rows: tuple[int, ...],
    theirs: tuple[str, ...],
    *,
    has_bias: bool,
    is_transposed: bool = False,
) -> Iterator[NamedTensor]:
    weights, biases = (tuple(f"{part}.{kind}" for part in theirs) for kind in ("weight", "bias"))
    n_out = sum(rows)
    yield NamedTensor(
        name=f"{name}.weight", shape=(n_out, n_in), theirs=weights, rows=rows, is_transposed=is_transposed
    )
    if has_bias:
        yield NamedTensor(name=f"{name}.bias", shape=(n_out,), theirs=biases, rows=rows)
