"""GPT: tokens in, logits, a loss or more tokens out. Read it from top to bottom: block, model, generation."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tinygpt._core import FormatError
from tinygpt.attention import FORMS
from tinygpt.crossentropy import IGNORED, cross_entropy
from tinygpt.decoder import Dtype, decoder_for
from tinygpt.dropout import Dropout
from tinygpt.formats import huggingface
from tinygpt.generation import Request, continuation
from tinygpt.kvcache import KVCache as KVCache
from tinygpt.modelconfig import GPTConfig as GPTConfig
from tinygpt.positions import POSITIONS, Rotation, rotate
from tinygpt.sampling import Sampling


class RMSNorm(nn.Module):
    """`x` over its root mean square, scaled per channel.

    Source: Zhang and Sennrich 2019, eq. 4 (arXiv:1910.07467).
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width), of the same type; the mean is taken in float32."""
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


class Attention(nn.Module):
    """Causal self-attention; several query heads may share one head of keys and values.

    Source: Vaswani et al. 2017, section 3.2 (arXiv:1706.03762); Ainslie et al. 2023 (arXiv:2305.13245) for the sharing.
    """

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.n_head, self.n_kv, self.dropout = layer, config.n_head, config.n_kv, config.dropout
        self.form = "fused"
        self.qkv = nn.Linear(config.d_model, (config.n_head + 2 * config.n_kv) * config.d_head, bias=config.bias)
        self.output = nn.Linear(config.d_model, config.d_model, bias=config.bias)
        self.q_norm = RMSNorm(config.d_head, config.norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(config.d_head, config.norm_eps) if config.qk_norm else nn.Identity()

    def forward(self, x: Tensor, rotation: Rotation | None, mask: Tensor | None, cache: KVCache | None) -> Tensor:
        """(B, T, C) -> (B, T, C); `mask` bool (B, 1, T, S), true where to look, None for the causal one."""
        heads = self.qkv(x).unflatten(-1, (self.n_head + 2 * self.n_kv, -1)).transpose(1, 2)  # (B, H + 2 H_kv, T, D)
        q, k, v = heads.split((self.n_head, self.n_kv, self.n_kv), dim=1)  # (B, H, T, D), (B, H_kv, T, D) twice
        q, k = self.q_norm(q), self.k_norm(k)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        if cache is not None:
            k, v = cache.extend(self.layer, k, v)  # each (B, H_kv, S, D)
        dropout = self.dropout if self.training else 0.0
        if mask is None and cache is None:
            shares = self.n_head // self.n_kv
            k, v = k.repeat_interleave(shares, 1), v.repeat_interleave(shares, 1)  # each (B, H, T, D)
            y = FORMS[self.form](q, k, v, dropout)  # (B, H, T, D)
        else:
            is_causal, is_shared = mask is None and q.shape[2] > 1, self.n_kv != self.n_head
            y = F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal, enable_gqa=is_shared)  # (B, H, T, D)
        return self.output(y.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]  # (B, T, C)


class FeedForward(nn.Module):
    """Two linear layers with GELU between, or with a gate: the first then makes gate and value side by side.

    Source: Shazeer 2020, eq. 5 and 6 (arXiv:2002.05202).
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.is_gated = config.mlp != "gelu"
        self.activation = ACTIVATIONS[config.mlp]
        self.up = nn.Linear(config.d_model, config.d_inner * (2 if self.is_gated else 1), bias=config.bias)
        self.down = nn.Linear(config.d_inner, config.d_model, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        if not self.is_gated:
            return self.down(self.activation(self.up(x)))  # type: ignore[no-any-return]
        gate, value = self.up(x).chunk(2, dim=-1)  # each (B, T, d_inner)
        return self.down(self.activation(gate) * value)  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention, then feed-forward, each on normalised input and added to it."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.attention_norm = NORMS[config.norm](config)
        self.attention = Attention(config, layer)
        self.feed_forward_norm = NORMS[config.norm](config)
        self.feed_forward = FeedForward(config)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, rotation: Rotation | None, mask: Tensor | None, cache: KVCache | None) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.dropout(self.attention(self.attention_norm(x), rotation, mask, cache))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))  # type: ignore[no-any-return]


class GPT(nn.Module):
    """A decoder-only transformer.

    Weights begin as in GPT-2: normal with deviation 0.02, the last layer of each branch 1 / sqrt(2 n_layer) of that,
    biases 0. They are drawn from torch's global generator: seed it for the same model twice.

    Args:
        config: Shape and options.

    Example:
        >>> model = GPT(GPTConfig(vocab_size=256, block_size=32, n_layer=2, n_head=2, d_model=32))
        >>> model(torch.zeros(1, 8, dtype=torch.int64)).shape
        torch.Size([1, 8, 256])
        >>> len(list(model.generate([72, 105], max_new_tokens=5, seed=1)))
        5

    Source: Radford et al. 2019 (GPT-2) and Touvron et al. 2023 (Llama, arXiv:2302.13971), by the options.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.loss_chunk: int | None = None  # how many rows of logits exist at once, as `cross_entropy` takes it
        self.recompute = False  # make a block's activations again in the backward pass instead of keeping them
        weight = torch.empty(config.vocab_size, config.d_model)  # (V, C)
        is_meta = weight.is_meta  # then nothing is drawn, for which torch would load its compiler, and take a second
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model, _weight=weight if is_meta else None)
        self.position = POSITIONS[config.position](config)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.norm = NORMS[config.norm](config)
        self.head = None if config.tie_embeddings else nn.Linear(config.d_model, config.vocab_size, bias=False)
        if not is_meta:
            self._initialise()

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "GPT":
        """The model of a Hugging Face folder with safetensors weights, ours or of a class that our options cover.

        Weights become float32, the model is in training mode as after `GPT(config)`, and torch's random state is not
        touched.

        Raises:
            FileNotFoundError: The folder, its config.json or its weights are missing.
            FormatError: A file is damaged, or the model has a property that no option of ours stands for.
        """
        fields, weights = huggingface.read_folder(Path(folder))
        with torch.device("meta"):
            model = cls(GPTConfig(**fields))
        try:
            model.load_state_dict(weights, assign=True)
        except RuntimeError as error:  # what only our own names can do: those of others are checked on reading
            raise FormatError(f"{folder}: {' '.join(str(error).split())}") from None
        return model

    def forward(self, x: Tensor, mask: Tensor | None = None, *, cache: KVCache | None = None) -> Tensor:
        """Logits (B, T, V) of the token after each.

        Args:
            x: Ids int64 (B, T).
            mask: bool (B, T), false for padding, on either side; tokens neither see it nor count it in their position.
            cache: The tokens before `x`; x is added to them. Not together with a mask.

        Raises:
            ValueError: Wrong shapes, or more tokens than the context holds.
        """
        return F.linear(self._hidden(x, mask, cache), self.head_weight)  # (B, T, V)

    def loss(self, x: Tensor, y: Tensor, *, scale: float | None = None, head_grad: Tensor | None = None) -> Tensor:
        """Cross-entropy in nats of the targets, a scalar; the logits of all positions never exist at once.

        Args:
            x: Ids int64 (B, T).
            y: Targets int64 (B, T); those of -100 do not count.
            scale: The sum over targets is multiplied by this, 1 for the sum itself; None gives the mean over the
                targets that count, 0 when there are none.
            head_grad: Where the gradient of the head's weight goes, as `cross_entropy` takes it; None leaves it to
                autograd.

        Raises:
            ValueError: Wrong shapes, or more tokens than the context holds.
        """
        if x.shape != y.shape:
            raise ValueError(f"x and y must have the same shape, got {tuple(x.shape)} and {tuple(y.shape)}")
        if scale is None:
            scale = 1 / max(1, int((y != IGNORED).sum()))
        hidden = self._hidden(x, None, None).flatten(0, 1)  # (B * T, C)
        return cross_entropy(
            hidden, self.head_weight, y.flatten(), scale=scale, chunk=self.loss_chunk, weight_grad=head_grad
        )

    def generate(
        self,
        ids: Sequence[int] | Tensor,
        *,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        typical_p: float = 1.0,
        repetition_penalty: float = 1.0,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        logit_bias: Mapping[int, float] | None = None,
        seed: int | None = None,
        stop: Sequence[int] = (),
        n_ids: int | None = None,
        dtype: Dtype | None = None,
    ) -> Iterator[int]:
        """The ids that follow, one at a time; drawn in evaluation mode, whatever mode the model is in.

        When the context is full the last half of it is kept. The global random state is neither read nor moved. On a
        CPU the weights are those at the call.

        Args:
            ids: The prompt, a list, array or tensor (T,), not empty. Its end is taken when it is longer than the
                context, with a warning.
            max_new_tokens: Most ids to draw.
            temperature: Divides the logits; 0 takes the likeliest id always.
            top_k: Draw from this many of the likeliest; 0 from all.
            top_p: Draw from the fewest of the likeliest that hold this share of the probability.
            min_p: Draw from those at least this share as likely as the likeliest.
            typical_p: Draw from those nearest to the expected surprise that hold this share of the probability.
            repetition_penalty: Above 1 makes ids rarer that occurred, in the prompt or since.
            presence_penalty: Taken from the logits of ids that were drawn already.
            frequency_penalty: The same, as often as they were.
            logit_bias: Added to the logits of single ids.
            seed: The same seed gives the same ids; None draws one.
            stop: Ids that end it; they are not given out.
            n_ids: Draw from the ids below this alone; None draws from all. A tokenizer may have fewer than the model.
            dtype: How weights are kept meanwhile, as `decoder_for` takes it; None as they are.

        Returns:
            An iterator of int.

        Raises:
            ValueError: An argument is out of range. Raised by the call, before the first id is drawn.
        """
        sampling = Sampling(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            typical_p=typical_p,
            repetition_penalty=repetition_penalty,
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
            logit_bias=logit_bias or {},
        )
        request = Request(
            ids=ids,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            seed=seed,
            stop=frozenset(stop),
            n_ids=n_ids,
        )
        return continuation(decoder_for(self, dtype=dtype), request)

    def logits(self, ids: Tensor, cache: KVCache, *, every: bool) -> Tensor:
        """Logits (T, V) after each of `ids` (1, T), or (1, V) after the last; in evaluation mode, without gradient."""
        # No mode outlives the call: between two ids the caller may train the model.
        with torch.no_grad(), _evaluating(self):
            hidden = self._hidden(ids, None, cache)[0]  # (T, C)
            return F.linear(hidden if every else hidden[-1:], self.head_weight)  # (T, V) or (1, V)

    @property
    def n_parameters(self) -> int:
        """Trained numbers, a tied matrix counted once."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def architecture(self) -> str:
        """The standard class that opens this model in transformers, or "native"."""
        return huggingface.architecture(asdict(self.config))

    @property
    def head_weight(self) -> Tensor:
        """What turns the last block's output into logits, (V, C); the token embedding when they are tied."""
        return self.token_embedding.weight if self.head is None else self.head.weight  # (V, C)

    def _hidden(self, x: Tensor, mask: Tensor | None, cache: KVCache | None) -> Tensor:
        """What the head sees, (B, T, C)."""
        n_past = 0 if cache is None else cache.n_tokens
        self._check_shapes(x, mask, cache)
        positions = torch.arange(n_past, n_past + x.shape[1], device=x.device)  # (T,)
        visible = None  # the causal mask, which attention makes itself
        if mask is not None:
            positions = (mask.cumsum(1) - 1).clamp(min=0)  # (B, T)
            # Padding sees itself: a row that sees nothing would be NaN.
            itself = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)  # (T, T)
            visible = (mask[:, None, None, :] | itself).tril()  # (B, 1, T, T)
        elif n_past and x.shape[1] > 1:
            ones = torch.ones(x.shape[1], n_past + x.shape[1], dtype=torch.bool, device=x.device)  # (T, S)
            visible = ones.tril(n_past)[None, None]  # (1, 1, T, S)
        h = self.dropout(self.position.embed(self.token_embedding(x), positions))  # (B, T, C)
        rotation = self.position.rotation(positions, h.dtype)
        for block in self.blocks:
            if self.recompute and torch.is_grad_enabled() and cache is None:
                h = checkpoint(block, h, rotation, visible, cache, use_reentrant=False)  # (B, T, C)
            else:
                h = block(h, rotation, visible, cache)  # (B, T, C)
        if cache is not None:
            cache.n_tokens += x.shape[1]
        return self.norm(h)  # type: ignore[no-any-return]

    def _check_shapes(self, x: Tensor, mask: Tensor | None, cache: KVCache | None) -> None:
        if x.ndim != 2:
            raise ValueError(f"ids must have the shape (B, T), got {tuple(x.shape)}")
        n_past = 0 if cache is None else cache.n_tokens
        if n_past + x.shape[1] > self.config.block_size:
            found = f"{n_past} + {x.shape[1]}" if n_past else f"{x.shape[1]}"
            raise ValueError(f"the context holds block_size {self.config.block_size} tokens, got {found}; cut them")
        if mask is not None and (cache is not None or mask.shape != x.shape or mask.dtype != torch.bool):
            found = f"{mask.dtype} {tuple(mask.shape)}{'' if cache is None else ' and a cache'}"
            raise ValueError(f"mask must be bool {tuple(x.shape)}, like the ids, without a cache; got {found}")

    def _initialise(self) -> None:
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                is_last = name.endswith(("attention.output.weight", "feed_forward.down.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * self.config.n_layer) if is_last else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; outside each module is in the mode it was in."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def gelu(x: Tensor) -> Tensor:
    """GELU in its tanh form, as everywhere here: (...) -> (...).

    Source: Hendrycks and Gimpel 2016, section 2 (arXiv:1606.08415).
    """
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"swiglu": F.silu, "geglu": gelu, "gelu": gelu}

NORMS: dict[str, Callable[[GPTConfig], nn.Module]] = {
    "rmsnorm": lambda config: RMSNorm(config.d_model, config.norm_eps),
    "layernorm": lambda config: nn.LayerNorm(config.d_model, config.norm_eps, bias=config.bias),
}
