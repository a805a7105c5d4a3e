"""Position encodings behind one interface: each says what it adds to the embeddings and how it turns queries and keys.

`embed(x, positions)` returns the embeddings with positions in them, `rotation(positions, dtype)` the angles by which
`rotate` turns queries and keys, or None. An encoding does one of the two.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tinygpt.modelconfig import GPTConfig

Rotation = tuple[Tensor, Tensor]  # cos, sin: each (T, D / 2) or (B, 1, T, D / 2)

# The standard deviation that token embeddings begin with, so that neither drowns the other. (The original Transformer
# scales its embeddings up instead, which no standard class does.) With amplitude 1 a small GPT-2 on Shakespeare's bytes
# stood at 3.31 nats after 400 steps, with this at 2.35, with learned positions at 2.30.
SINUSOID_AMPLITUDE = 0.02


class Rotary(nn.Module):
    """Rotary embedding: pairs of a head's channels turn by an angle that grows with the position.

    Channel i is paired with i + D / 2, as in transformers' Llama (the paper pairs neighbours).
    The angles are computed when needed, in float32, so no cast of the model can blur them.

    Source: Su et al. 2021, section 3.2.2 (arXiv:2104.09864).
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.d_head, self.theta = config.d_head, config.rope_theta

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        """`x` (B, T, C) as it is."""
        return x

    def rotation(self, positions: Tensor, dtype: torch.dtype) -> Rotation | None:
        """Cosines and sines of the angles at `positions` (T,) or (B, T)."""
        channels = torch.arange(0, self.d_head, 2, dtype=torch.float32, device=positions.device)  # (D / 2,)
        angles = positions[..., None].float() * (1.0 / self.theta ** (channels / self.d_head))  # (T, D / 2)
        if positions.ndim == 2:
            angles = angles[:, None]  # (B, 1, T, D / 2): the same for each head
        return angles.cos().to(dtype), angles.sin().to(dtype)


class Learned(nn.Module):
    """A trained vector for each position, added to the embedding.

    Source: Radford et al. 2019 (GPT-2).
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(config.block_size, config.d_model))  # (block_size, C)

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        """`x` (B, T, C) plus the vectors at `positions` (T,) or (B, T)."""
        return x + self.weight[positions]

    def rotation(self, positions: Tensor, dtype: torch.dtype) -> Rotation | None:
        """None: queries and keys stay as they are."""
        return None


class Sinusoidal(nn.Module):
    """A fixed vector of sines and cosines for each position, added to the embedding.

    The table is a buffer that is saved: in a GPT-2 folder it stands where the learned one does.
    """

    weight: Tensor

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.register_buffer("weight", SINUSOID_AMPLITUDE * sinusoids(config.block_size, config.d_model))

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        """`x` (B, T, C) plus the vectors at `positions` (T,) or (B, T)."""
        return x + self.weight[positions]

    def rotation(self, positions: Tensor, dtype: torch.dtype) -> Rotation | None:
        """None: queries and keys stay as they are."""
        return None


def sinusoids(n_positions: int, d_model: int) -> Tensor:
    """Sines at even channels and cosines at odd ones, wavelengths from 2 pi to 10000 * 2 pi: (n_positions, d_model).

    Example:
        >>> sinusoids(2, 4)[0].tolist()
        [0.0, 1.0, 0.0, 1.0]

    Source: Vaswani et al. 2017, section 3.5 (arXiv:1706.03762).
    """
    channels = torch.arange(0, d_model, 2, dtype=torch.float64)  # (ceil(C / 2),)
    angles = torch.arange(n_positions, dtype=torch.float64)[:, None] / 10000.0 ** (channels / d_model)
    table = torch.empty(n_positions, d_model, dtype=torch.float64)  # (n_positions, C)
    table[:, 0::2] = angles.sin()
    table[:, 1::2] = angles.cos()[:, : d_model // 2]
    return table.float()


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Each pair of channels (i, i + D / 2) turned by its angle.

    Args:
        x: Queries or keys (B, H, T, D).
        rotation: What `Rotary.rotation` returned for the positions of x.

    Example:
        >>> quarter = (torch.zeros(1, 1), torch.ones(1, 1))
        >>> rotate(torch.tensor([[[[1.0, 0.0]]]]), quarter).flatten().tolist()
        [0.0, 1.0]
    """
    cos, sin = rotation
    a, b = x.chunk(2, dim=-1)  # each (B, H, T, D / 2)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)  # (B, H, T, D)


POSITIONS: dict[str, Callable[[GPTConfig], Rotary | Learned | Sinusoidal]] = {
    "rope": Rotary,
    "learned": Learned,
    "sinusoidal": Sinusoidal,
}
