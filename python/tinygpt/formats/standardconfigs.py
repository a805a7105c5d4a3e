"""Our options in the words of the config.json of transformers' Llama, Qwen3 and GPT-2, and back."""

import warnings
from collections.abc import Mapping
from typing import Any

from tinygpt._core import FormatError
from tinygpt.modelconfig import GPTConfig

_TANH_GELU = ("gelu_pytorch_tanh", "gelu_new", "gelu_fast")  # three names and roundings of one function
_ACTIVATIONS = {"silu": "swiglu", "swish": "swiglu", **dict.fromkeys(_TANH_GELU, "geglu")}


def llama_config(c: GPTConfig) -> dict[str, Any]:
    """What Llama and Qwen3 call our options."""
    return {
        "vocab_size": c.vocab_size,
        "max_position_embeddings": c.block_size,
        "hidden_size": c.d_model,
        "intermediate_size": c.d_inner,
        "num_hidden_layers": c.n_layer,
        "num_attention_heads": c.n_head,
        "num_key_value_heads": c.n_kv,
        "head_dim": c.d_head,
        "hidden_act": "silu" if c.mlp == "swiglu" else "gelu_pytorch_tanh",
        "rms_norm_eps": c.norm_eps,
        "rope_theta": c.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": c.rope_theta},
        "attention_bias": c.bias,
        "attention_dropout": c.dropout,
        **({"use_sliding_window": False} if c.qk_norm else {"mlp_bias": c.bias}),
    }


def gpt2_config(c: GPTConfig) -> dict[str, Any]:
    """What GPT-2 calls our options."""
    return {
        "vocab_size": c.vocab_size,
        "n_positions": c.block_size,
        "n_embd": c.d_model,
        "n_inner": c.d_inner,
        "n_layer": c.n_layer,
        "n_head": c.n_head,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": c.norm_eps,
        "resid_pdrop": c.dropout,
        "embd_pdrop": c.dropout,
        "attn_pdrop": c.dropout,
    }


def llama_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our options from a Llama's or Qwen3's config."""
    is_qwen3 = config["model_type"] == "qwen3"
    activation = config.get("hidden_act", "silu")
    _require("hidden_act", activation, *_ACTIVATIONS)
    sliding = [kind for kind in config.get("layer_types") or () if kind != "full_attention"]
    _require("layer_types", sliding[0] if sliding else "full_attention", "full_attention")
    _require("use_sliding_window", bool(config.get("use_sliding_window", False)), False)
    n_head, d_model = _number(config, "num_attention_heads"), _number(config, "hidden_size")
    d_head = config.get("head_dim") or (128 if is_qwen3 else d_model // n_head)
    _require("head_dim", d_head, d_model // n_head)
    bias = bool(config.get("attention_bias", False))
    # One option of ours gives all linear layers a bias; Qwen3 never has one in its feed-forward.
    _require("attention_bias", bias, False if is_qwen3 else bool(config.get("mlp_bias", False)))
    return {
        "vocab_size": _number(config, "vocab_size"),
        "block_size": _number(config, "max_position_embeddings"),
        "n_layer": _number(config, "num_hidden_layers"),
        "n_head": n_head,
        "d_model": d_model,
        "n_kv_head": config.get("num_key_value_heads") or n_head,
        "d_ff": _number(config, "intermediate_size"),
        "mlp": _ACTIVATIONS[activation],
        "bias": bias,
        "qk_norm": is_qwen3,
        "tie_embeddings": bool(config.get("tie_word_embeddings", False)),
        "dropout": float(config.get("attention_dropout") or 0.0),
        "rope_theta": _rope_theta(config),
        "norm_eps": float(config.get("rms_norm_eps", 1e-6)),
    }


def _rope_theta(config: Mapping[str, Any]) -> float:
    """The base of rope, from either spelling; scaled kinds of rope are refused."""
    for key in ("rope_scaling", "rope_parameters"):
        rope = config.get(key) or {}
        _require(f"{key}.rope_type", rope.get("rope_type", rope.get("type", "default")), "default")
    rope = config.get("rope_parameters") or {}
    rotated = rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0))
    _require("partial_rotary_factor", 1.0 if rotated is None else rotated, 1.0)
    return float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0)


def gpt2_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our options from a GPT-2's config."""
    _require("activation_function", config.get("activation_function", "gelu_new"), *_TANH_GELU)
    _require("scale_attn_weights", config.get("scale_attn_weights", True), True)
    _require("scale_attn_by_inverse_layer_idx", config.get("scale_attn_by_inverse_layer_idx", False), False)
    _require("add_cross_attention", config.get("add_cross_attention", False), False)
    return {
        "vocab_size": _number(config, "vocab_size"),
        "block_size": _number(config, "n_positions"),
        "n_layer": _number(config, "n_layer"),
        "n_head": _number(config, "n_head"),
        "d_model": _number(config, "n_embd"),
        "d_ff": config.get("n_inner") or 4 * _number(config, "n_embd"),
        "position": "learned",
        "norm": "layernorm",
        "mlp": "gelu",
        "bias": True,
        "tie_embeddings": bool(config.get("tie_word_embeddings", True)),
        "dropout": float(config.get("embd_pdrop", 0.1)),
        "norm_eps": float(config.get("layer_norm_epsilon", 1e-5)),
    }


def one_dropout(config: Mapping[str, Any]) -> float:
    """Our one rate of dropout. It only matters to training, so a rate that we cannot keep is no reason to refuse."""
    names = ("resid_pdrop", "embd_pdrop", "attn_pdrop") if config["model_type"] == "gpt2" else ("attention_dropout",)
    rates = {name: float(config.get(name, 0.1 if len(names) == 3 else 0.0) or 0.0) for name in names}
    if len(set(rates.values())) == 1 and (len(names) == 3 or not any(rates.values())):
        return next(iter(rates.values()))
    found = ", ".join(f"{name} {rate}" for name, rate in rates.items())
    warnings.warn(f"{found}: one dropout for all is what there is here; it is set to 0", stacklevel=5)
    return 0.0


def _number(config: Mapping[str, Any], key: str) -> int:
    if not isinstance(config.get(key), int):
        raise FormatError(f"{key} must be a whole number, got {config.get(key)!r}")
    return int(config[key])


def _require(key: str, found: object, *wanted: object) -> None:
    if found not in wanted:
        raise FormatError(f"{key} must be {' or '.join(map(str, wanted))} for a model of ours, got {found}")
