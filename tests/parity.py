"""How far our model and trainer are from independent implementations: the plain reference, and transformers."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import reference_gpt
import torch
from tinygpt.dataset import TokenDataset
from tinygpt.model import GPT, GPTConfig
from tinygpt.trainer import TrainConfig, Trainer
from torch import Tensor

OPTIONS: dict[str, tuple[Any, ...]] = {
    "position": ("rope", "learned", "sinusoidal"),
    "norm": ("rmsnorm", "layernorm"),
    "mlp": ("swiglu", "geglu", "gelu"),
    "n_kv_head": (None, 2),
    "bias": (False, True),
    "qk_norm": (False, True),
    "tie_embeddings": (False, True),
}
MIXTURES = [dict(zip(OPTIONS, values, strict=True)) for values in itertools.product(*OPTIONS.values())]
TINY: dict[str, Any] = {"vocab_size": 13, "block_size": 8, "n_layer": 2, "n_head": 4, "d_model": 16, "d_ff": 24}

BLOCK, STEPS = 32, 12
LLAMA: dict[str, Any] = {"vocab_size": 211, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3}
LLAMA |= {"num_attention_heads": 4, "max_position_embeddings": BLOCK + 1}
GPT2: dict[str, Any] = {"vocab_size": 211, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": BLOCK + 1}
GPT2 |= dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
CLASSES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", {**LLAMA, "tie_word_embeddings": True}),
    "llama untied": ("LlamaForCausalLM", "LlamaConfig", LLAMA),
    "llama grouped": ("LlamaForCausalLM", "LlamaConfig", {**LLAMA, "num_key_value_heads": 2}),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", {**LLAMA, "head_dim": 16, "num_key_value_heads": 2}),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", GPT2),
}
"""Name -> transformers' class, its configuration's class, and the shape."""


@dataclass(frozen=True)
class Deviation:
    """The largest differences that were met."""

    logits: float
    loss: float
    """Of one loss, or of any of the losses of a run."""
    gradient: float | None = None


def loud(model: Any) -> Any:
    """The model, its weights so large that a slip in any of them moves the logits far beyond the tolerance."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def from_reference(options: Mapping[str, Any], dtype: torch.dtype) -> Deviation:
    """Between our model and the plain reference: logits, loss with some targets left out, and its gradient."""
    torch.manual_seed(0)
    model = loud(GPT(GPTConfig(**{**TINY, "norm_eps": 1e-4, **options}))).to(dtype)
    x, y = torch.randint(13, (2, 8)), torch.randint(13, (2, 8))  # each (B, T)
    y[0, 5:] = -100
    names, ours = zip(*model.named_parameters(), strict=True)
    theirs = [parameter.detach().clone().requires_grad_() for parameter in ours]
    weights = dict(zip(names, theirs, strict=True))
    losses = model.loss(x, y), reference_gpt.loss(model.config, weights, x, y)
    gradients = zip(torch.autograd.grad(losses[0], ours), torch.autograd.grad(losses[1], theirs), strict=True)
    return Deviation(
        logits=_apart(model(x), reference_gpt.logits(model.config, weights, x)),
        loss=_apart(*losses),
        gradient=max(_apart(a, b) for a, b in gradients),
    )


def from_transformers(name: str, folder: Path) -> Deviation:
    """Between a class of transformers and our model opened from its folder, both in float32.

    Logits with loud weights, and the losses of steps taken from transformers' own initial weights: ours by `Trainer`,
    theirs by its own loss, torch's AdamW and clipping.
    """
    import transformers

    model_class, config_class, shape = CLASSES[name]
    torch.manual_seed(0)
    theirs = getattr(transformers, model_class)(getattr(transformers, config_class)(**shape))
    theirs.save_pretrained(folder / "initial")
    losses = zip(_our_losses(folder / "initial"), _their_losses(theirs), strict=True)
    largest_loss = max(abs(a - b) for a, b in losses)
    loud(theirs).save_pretrained(folder / "loud")
    x = torch.randint(211, (4, BLOCK))  # (B, T)
    with torch.no_grad():
        logits = _apart(GPT.from_pretrained(folder / "loud").eval()(x), theirs(x).logits)
    return Deviation(logits=logits, loss=largest_loss)


def _data() -> TokenDataset:
    """Tokens of which each follows from the one before, so that there is something to learn."""
    tokens = (torch.arange(4000) ** 2 // 7) % 211
    return TokenDataset.from_tokens(tokens, vocab_size=211, block_size=BLOCK)


def _our_losses(folder: Path) -> list[float]:
    config = TrainConfig(
        max_steps=STEPS, batch_size=4, grad_accum=2, learning_rate=3e-3, schedule="constant", warmup_steps=0,
        optimizer="adamw", device="cpu", dtype="float32", compile="off",
    )  # fmt: skip
    return [report.loss for report in Trainer(GPT.from_pretrained(folder), _data(), config=config).steps()]


def _their_losses(model: Any) -> list[float]:
    matrices, vectors = ([p for p in model.parameters() if (p.ndim >= 2) is kind] for kind in (True, False))
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer, losses = torch.optim.AdamW(groups, lr=3e-3, betas=(0.9, 0.95)), []
    for k in range(STEPS):
        x, y = _data().batch(k, batch_size=8)  # each (B, T)
        windows = torch.cat((x, y[:, -1:]), dim=1)  # (B, T + 1): their loss shifts the targets itself
        loss = model(windows, labels=windows).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def _apart(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()
