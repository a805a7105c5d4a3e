"""GPTConfig: every option of the model, with its default, unit and range. Needs no torch."""

import math
from dataclasses import dataclass, fields
from typing import Literal, get_args, get_type_hints


@dataclass(frozen=True, kw_only=True)
class GPTConfig:
    """Shape and options of a GPT.

    Raises:
        ValueError: A value is out of its range, or two do not go together.

    Example:
        >>> config = GPTConfig(vocab_size=8192, d_model=384, n_head=6)
        >>> config.d_head, config.n_kv, config.d_inner
        (64, 6, 1024)
    """

    vocab_size: int
    """Tokens of the vocabulary, special ones included."""
    block_size: int = 256
    """Context: the most tokens that the model sees at once."""
    n_layer: int = 6
    """Blocks, each attention and feed-forward."""
    n_head: int = 6
    """Attention heads; divides d_model."""
    d_model: int = 384
    """Width of the model."""
    n_kv_head: int | None = None
    """Heads of keys and values, shared among the attention heads; divides n_head, none takes n_head."""
    d_ff: int | None = None
    """Inner width of the feed-forward; none takes 4 d_model for gelu, else 8/3 d_model up to a multiple of 64."""
    position: Literal["rope", "learned", "sinusoidal"] = "rope"
    """How a token knows its place: rotated queries and keys, a trained vector added, or a fixed one added."""
    norm: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    """Normalisation before attention, before the feed-forward, and at the end."""
    mlp: Literal["swiglu", "geglu", "gelu"] = "swiglu"
    """Feed-forward: gated by SiLU, gated by GELU, or plain with GELU (its tanh form)."""
    bias: bool = False
    """Give linear layers (the head excepted) and layer norms a bias."""
    qk_norm: bool = False
    """Normalise queries and keys of each head by RMSNorm."""
    tie_embeddings: bool = True
    """Use the token embedding as the head's weight, too."""
    dropout: float = 0.0
    """Share of activations dropped in training, from 0 to below 1: embedding, attention, end of each branch."""
    rope_theta: float = 10000.0
    """Base of the wavelengths of rope."""
    norm_eps: float = 1e-5
    """Added to the mean square (or variance) in a norm."""

    def __post_init__(self) -> None:
        _check_types(self)
        for name in ("vocab_size", "block_size", "n_layer", "n_head", "d_model", "n_kv_head", "d_ff"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.d_model % self.n_head:
            raise ValueError(f"n_head must divide d_model ({self.d_model}), got {self.n_head}")
        if self.n_head % self.n_kv:
            raise ValueError(f"n_kv_head must divide n_head ({self.n_head}), got {self.n_kv}")
        if self.position == "rope" and self.d_head % 2:
            raise ValueError(
                f"position rope needs an even head width, and d_model {self.d_model} / n_head {self.n_head} is "
                f"{self.d_head}; change one of them, or use position learned"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be from 0 to below 1, got {self.dropout}")
        for name in ("rope_theta", "norm_eps"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")

    @property
    def d_head(self) -> int:
        """Width of one head."""
        return self.d_model // self.n_head

    @property
    def n_kv(self) -> int:
        """Heads of keys and values, `n_kv_head` or what stands for it."""
        return self.n_head if self.n_kv_head is None else self.n_kv_head

    @property
    def d_inner(self) -> int:
        """Inner width of the feed-forward, `d_ff` or what stands for it.

        Source: Shazeer 2020, section 3 (arXiv:2002.05202): two thirds, so that a gate costs no parameters.
        """
        if self.d_ff is not None:
            return self.d_ff
        return 4 * self.d_model if self.mlp == "gelu" else 64 * math.ceil(8 * self.d_model / (3 * 64))

    @property
    def flops_per_token(self) -> int:
        """Floating-point operations of the matrix products to train on one token, in a window of `block_size`.

        6 (L (q, k, v, output + feed-forward) + head) + 6 L d_model (T + 1): two for each weight and token going
        forward, twice that going back; a token looks at (T + 1) / 2 tokens in the mean, once for its scores and once
        for the values. The head counts, tied or not; looking up an embedding multiplies nothing. What a kernel
        computes beyond (the masked half of attention, things computed again) is not useful work and not counted.

        Example:
            >>> GPTConfig(vocab_size=32000, n_layer=8, n_head=8, d_model=512, mlp="gelu").flops_per_token
            255614976

        Source: Chowdhery et al. 2022, appendix B (arXiv:2204.02311), which counts the masked half, too.
        """
        attention = self.d_model * (self.n_head + 2 * self.n_kv) * self.d_head + self.d_model**2
        feed_forward = self.d_model * self.d_inner * (2 if self.mlp == "gelu" else 3)
        scores = self.d_model * (self.block_size + 1)
        return 6 * (self.n_layer * (attention + feed_forward + scores) + self.d_model * self.vocab_size)


def _check_types(config: GPTConfig) -> None:
    """Refuses a value of the wrong type, as a hand-written config.json may hold."""
    hints = get_type_hints(GPTConfig)
    for name, hint in ((f.name, hints[f.name]) for f in fields(config)):
        value = getattr(config, name)
        if choices := [choice for choice in get_args(hint) if isinstance(choice, str)]:
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        elif hint is bool:
            if not isinstance(value, bool):
                raise ValueError(f"{name} must be true or false, got {value!r}")
        elif hint is float:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{name} must be a number, got {value!r}")
        elif isinstance(value, bool) or not isinstance(value, int if hint is int else int | None):
            raise ValueError(f"{name} must be a whole number, got {value!r}")
