"""nanoGPT's `ckpt.pt`: a pickle, read by torch's reader of plain data, which runs no code of the file.

Source: karpathy/nanoGPT, `train.py` and `model.py`.
"""

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinygpt._core import FormatError
from tinygpt.formats.standardtensors import gpt2_tensors
from tinygpt.modelconfig import GPTConfig

_SHAPE = {"vocab_size": "vocab_size", "block_size": "block_size", "n_layer": "n_layer", "n_head": "n_head"}
_COMPILED = "_orig_mod."  # what torch.compile puts before each name
_BUFFER = ".attn.bias"  # the mask of versions without fused attention


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The fields of a GPTConfig and the state dict of a GPT, in float32.

    nanoGPT's GELU is the exact one and ours its tanh form, which a warning says: logits differ in the third place.

    Raises:
        FileNotFoundError: There is no such file.
        FormatError: It holds something else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError):
        found = "damaged, or with objects in it that would run code, which are never read"
        raise FormatError(f"{path}: no checkpoint of plain data: {found}") from None
    if not isinstance(content, dict) or not all(isinstance(content.get(key), dict) for key in ("model", "model_args")):
        raise FormatError(f"{path}: not a checkpoint of nanoGPT's, which holds model and model_args")
    if missing := [key for key in (*_SHAPE.values(), "n_embd") if key not in content["model_args"]]:
        raise FormatError(f"{path}: no {', '.join(missing)} in model_args, which nanoGPT's train.py writes")
    try:
        c = GPTConfig(**_fields(content["model_args"]))
        state = _state(content["model"], c)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise FormatError(f"{path}: {error}") from None
    warnings.warn(f"{path}: nanoGPT computes the exact GELU, here it is the tanh form of GPT-2", stacklevel=3)
    return {name: getattr(c, name) for name in c.__dataclass_fields__}, state


def _fields(args: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{ours: args[theirs] for ours, theirs in _SHAPE.items()},
        "d_model": args["n_embd"],
        "bias": bool(args.get("bias", True)),
        "dropout": float(args.get("dropout", 0.0)),
        **{"position": "learned", "norm": "layernorm", "mlp": "gelu"},
    }


def _state(model: Mapping[str, Tensor], c: GPTConfig) -> dict[str, Tensor]:
    """Our tensors; theirs have GPT-2's names, and linear layers as (out, in)."""
    found = {name.removeprefix(_COMPILED): tensor for name, tensor in model.items()}
    found = {name: tensor for name, tensor in found.items() if not name.endswith((_BUFFER, ".attn.masked_bias"))}
    head = found.pop("lm_head.weight", None)
    if head is not None and not torch.equal(head, found["transformer.wte.weight"]):
        raise ValueError("lm_head.weight is not the token embedding")
    state = {}
    for tensor in gpt2_tensors(c):
        name = tensor.theirs[0]
        if tensor.name.endswith(".bias") and not c.bias:
            continue
        if name not in found or found[name].shape != tensor.shape:
            shape = tuple(found[name].shape) if name in found else "none"
            raise ValueError(f"{name} must have the shape {tensor.shape}, found {shape}")
        state[tensor.name] = found.pop(name).float()
    if found:
        raise ValueError(f"no option of ours has a tensor {min(found)}")
    return state
