"""Hugging Face model folders: config.json and weights, between the classes of transformers and our own names.

The options decide the class. Where one computes what our model computes, the folder is written as that class writes it
and transformers opens it; where none does it is "native": our own names, for us alone. Either way config.json holds
our configuration under the key "tinygpt", which others ignore.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tinygpt._core import FormatError
from tinygpt.formats.standardconfigs import gpt2_config, gpt2_fields, llama_config, llama_fields, one_dropout
from tinygpt.formats.standardtensors import NamedTensor, gpt2_tensors, llama_tensors
from tinygpt.modelconfig import GPTConfig

LLAMA, QWEN3, GPT2 = "LlamaForCausalLM", "Qwen3ForCausalLM", "GPT2LMHeadModel"
NATIVE = "native"
OWN_CLASS, OWN_TYPE = "TinyGPTForCausalLM", "tinygpt"

_BUFFER = re.compile(r"\.attn\.(masked_)?bias$|rotary_emb\.inv_freq$")  # masks and angles, made anew by any program
_CLASSES = {"llama": LLAMA, "qwen3": QWEN3, "gpt2": GPT2}


def obstacles(config: Mapping[str, Any]) -> dict[str, list[str]]:
    """For each standard class the options that keep a model from being one, as "name value"; an empty list is a match.

    Args:
        config: The fields of a GPTConfig.

    Example:
        >>> obstacles(asdict(GPTConfig(vocab_size=256, qk_norm=True)))["LlamaForCausalLM"]
        ['qk_norm True']
    """
    c = GPTConfig(**config)
    gated = ("swiglu", "geglu")
    wanted: dict[str, dict[str, tuple[Any, ...]]] = {
        LLAMA: {"position": ("rope",), "norm": ("rmsnorm",), "mlp": gated, "qk_norm": (False,)},
        # Qwen3 has no bias in its feed-forward, whatever attention_bias says.
        QWEN3: {"position": ("rope",), "norm": ("rmsnorm",), "mlp": gated, "qk_norm": (True,), "bias": (False,)},
        GPT2: {
            "position": ("learned", "sinusoidal"),
            "norm": ("layernorm",),
            "mlp": ("gelu",),
            "qk_norm": (False,),
            "n_kv": (c.n_head,),
        },
    }
    return {
        name: [
            f"{option} {getattr(c, option)}" for option, values in options.items() if getattr(c, option) not in values
        ]
        for name, options in wanted.items()
    }


def architecture(config: Mapping[str, Any]) -> str:
    """The transformers class that computes what a model of these options computes, or "native".

    Args:
        config: The fields of a GPTConfig.

    Example:
        >>> architecture(asdict(GPTConfig(vocab_size=256)))
        'LlamaForCausalLM'
    """
    return next((name for name, found in obstacles(config).items() if not found), NATIVE)


def model_config_to_hf(
    config: Mapping[str, Any], *, eos_id: int | None = None, bos_id: int | None = None, pad_id: int | None = None
) -> dict[str, Any]:
    """The content of config.json.

    Args:
        config: The fields of a GPTConfig.
        eos_id: Id at which generation stops, the document separator.
        bos_id: Id that begins a text; None writes none, so that no class puts in its default.
        pad_id: Id of padding.
    """
    c = GPTConfig(**config)
    name = architecture(config)
    standard = {LLAMA: llama_config, QWEN3: llama_config, GPT2: gpt2_config}.get(name, _native_config)(c)
    return {
        "architectures": [OWN_CLASS if name == NATIVE else name],
        "model_type": next((key for key, value in _CLASSES.items() if value == name), OWN_TYPE),
        **standard,
        "initializer_range": 0.02,
        "tie_word_embeddings": c.tie_embeddings,
        "use_cache": True,
        "bos_token_id": bos_id,
        "eos_token_id": eos_id,
        "pad_token_id": pad_id,
        "torch_dtype": "float32",
        "dtype": "float32",
        "tinygpt": asdict(c),
    }


def generation_config(
    *,
    eos_id: int | None = None,
    bos_id: int | None = None,
    pad_id: int | None = None,
    stop_ids: Sequence[int] = (),
) -> dict[str, Any]:
    """The content of generation_config.json; ids as in `model_config_to_hf`, several that stop as a list."""
    stops = list(stop_ids) if len(stop_ids) > 1 else eos_id
    ids = {"bos_token_id": bos_id, "eos_token_id": stops, "pad_token_id": pad_id}
    return {"_from_model_config": True, **{name: i for name, i in ids.items() if i is not None}}


def _native_config(c: GPTConfig) -> dict[str, Any]:
    return {"vocab_size": c.vocab_size, "max_position_embeddings": c.block_size}


def model_config_from_hf(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a GPTConfig, from the content of config.json.

    Our own entry counts where the standard keys say the same; another program may have changed them since.

    Raises:
        FormatError: The model is of another class, or has a property that no option of ours stands for.
    """
    kind, own = config.get("model_type"), config.get("tinygpt")
    try:
        own = None if own is None else asdict(GPTConfig(**own))
        if kind == OWN_TYPE:
            if own is None:
                raise FormatError(f"a model of type {OWN_TYPE} needs the key tinygpt, found none")
            return own
        if kind not in _CLASSES:
            raise FormatError(f"model_type must be one of {', '.join(_CLASSES)}, got {kind!r}")
        expected = {_CLASSES[kind]}
        if not expected.intersection(config.get("architectures") or expected):
            raise FormatError(f"a model of type {kind} must be a {_CLASSES[kind]}, got {config['architectures']}")
        fields = _standard_fields(config)
        if own is None or architecture(own) != _CLASSES[kind] or _standard_fields(model_config_to_hf(own)) != fields:
            return {**asdict(GPTConfig(**fields)), "dropout": one_dropout(config)}
        return own
    except FormatError:
        raise
    except (TypeError, ValueError, KeyError) as error:  # of GPTConfig: a hand has been in the file
        raise FormatError(f"no model has this configuration: {error}") from None


def _standard_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our options from the keys that transformers reads, with its defaults for absent ones."""
    if config.get("quantization_config"):
        raise FormatError("quantization_config is set, and quantized weights cannot be read; use the unquantized model")
    return gpt2_fields(config) if config["model_type"] == "gpt2" else llama_fields(config)


def weights_to_hf(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights under the names and in the shapes of the standard class; as they are for a native model.

    Args:
        state: The state dict of a GPT.
        config: The fields of its GPTConfig.

    Returns:
        Contiguous tensors, some of them parts of those in `state`.
    """
    if architecture(config) == NATIVE:
        return dict(state)
    weights: dict[str, Tensor] = {}
    for tensor in _tensors(GPTConfig(**config)):
        # GPT-2 has biases always: a model without them is one whose biases are zero.
        ours = state[tensor.name] if tensor.name in state else state["norm.weight"].new_zeros(tensor.shape)
        for name, part in zip(tensor.theirs, torch.split(ours, list(tensor.rows)), strict=True):
            weights[name] = (part.T if tensor.is_transposed else part).contiguous()
    return weights


def weights_from_hf(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict of a GPT, in float32, from the weights of a standard class or from our own.

    Args:
        state: The tensors of model.safetensors.
        config: The fields of a GPTConfig, from `model_config_from_hf`.

    Raises:
        FormatError: A tensor is missing, is not known or has another shape than the configuration says.
    """
    c = GPTConfig(**config)
    if architecture(config) == NATIVE:
        return {name: tensor.to(torch.float32, copy=True) for name, tensor in state.items()}
    found = _without_buffers(state, c)
    weights: dict[str, Tensor] = {}
    for tensor in _tensors(c):
        parts = [_taken(found, name, rows, tensor) for name, rows in zip(tensor.theirs, tensor.rows, strict=True)]
        whole = torch.cat(parts) if len(parts) > 1 else parts[0].clone()
        if tensor.name.endswith(".bias") and not c.bias:
            if whole.any():
                raise FormatError(
                    f"{tensor.theirs[0]} is not zero, but bias is false; delete the key tinygpt of config.json"
                )
            continue
        weights[tensor.name] = whole
    if found:
        raise FormatError(f"no option of ours has a tensor {min(found)}")
    return weights


def _taken(found: dict[str, Tensor], name: str, rows: int, wanted: NamedTensor) -> Tensor:
    """The tensor of that name, out of `found`, in our shape and in float32."""
    if name not in found:
        raise FormatError(f"there is no tensor {name}")
    tensor = found.pop(name)
    shape = (rows, *wanted.shape[1:])
    theirs = shape[::-1] if wanted.is_transposed else shape
    if tensor.shape != theirs or not tensor.is_floating_point():
        kind = f"{tuple(tensor.shape)} of {tensor.dtype}"
        raise FormatError(f"{name} must have the shape {theirs} and be of floating point, got {kind}")
    return (tensor.T if wanted.is_transposed else tensor).float().contiguous()


def _without_buffers(state: Mapping[str, Tensor], c: GPTConfig) -> dict[str, Tensor]:
    """The weights alone, with the prefix that published GPT-2 files lack."""
    is_bare = architecture(asdict(c)) == GPT2 and "wte.weight" in state
    named = {f"transformer.{name}" if is_bare and name != "lm_head.weight" else name: t for name, t in state.items()}
    kept = {name: t for name, t in named.items() if not _BUFFER.search(name)}
    if c.tie_embeddings and "lm_head.weight" in kept:
        embedding = kept.get("transformer.wte.weight", kept.get("model.embed_tokens.weight"))
        if embedding is None or not torch.equal(embedding, kept.pop("lm_head.weight")):
            raise FormatError("tie_word_embeddings is true, but lm_head.weight is not the token embedding")
    return kept


def _tensors(c: GPTConfig) -> Iterator[NamedTensor]:
    """Every tensor of a standard model, with biases where the class has them."""
    return gpt2_tensors(c) if architecture(asdict(c)) == GPT2 else llama_tensors(c)


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The fields of a GPTConfig and the state dict of a GPT, in float32, from a Hugging Face folder.

    Raises:
        FileNotFoundError: The folder, its config.json or its safetensors weights are missing.
        FormatError: A file is damaged, or the model has a property that no option of ours stands for.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: {'is a file, name its folder' if folder.exists() else 'no such folder'}")
    try:
        fields = model_config_from_hf(_read_json(folder / "config.json"))
    except FormatError as error:
        raise FormatError(f"{folder / 'config.json'}: {error}") from None
    try:
        state = {name: tensor for file in _weight_files(folder) for name, tensor in load_file(file).items()}
        return fields, weights_from_hf(state, fields)
    except (SafetensorError, FormatError) as error:
        raise FormatError(f"{folder / 'model.safetensors'}: {error}") from None


def _weight_files(folder: Path) -> list[Path]:
    """model.safetensors, or the files that its index lists."""
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file() or not index.is_file():
        names = ["model.safetensors"]
    else:
        places = _read_json(index).get("weight_map")
        names = list(dict.fromkeys(places.values())) if isinstance(places, dict) else []
        if not names or any(not isinstance(name, str) or Path(name).name != name for name in names):
            raise FormatError(f"weight_map of {index.name} must name files of the same folder, got {places}")
    for name in names:
        if not (folder / name).is_file():
            pickled = sorted(file.name for file in folder.glob("*.bin"))
            hint = f"; {pickled[0]} is a pickle, which is never opened: save it as safetensors" if pickled else ""
            raise FileNotFoundError(f"{folder / name}: no such file{hint}")
    return [folder / name for name in names]


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        FileNotFoundError: There is no such file.
        FormatError: It is not JSON, or not an object.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; a model's folder has one")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FormatError(f"not JSON ({error})") from None
    if not isinstance(content, dict):
        raise FormatError(f"not a JSON object, but {type(content).__name__}")
    return content
