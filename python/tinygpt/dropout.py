"""Dropout for the CPU: which elements are kept follows from two random numbers, of an element's row and of its column.

Torch draws a number for each element, one after the other, and a mask of all is held for the backward pass. Here a few
numbers are drawn for a whole tensor, the rest is arithmetic that the compiler makes part of the loop around it, and the
backward pass does it again. docs/training.md has what that saves.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

_MULTIPLIERS = (0x6D2B, 0x5A4D, 0x4F35, 0x7A63)  # odd, and below 2^15: times 16 bits that is no overflow, on any CPU
_LOW, _BITS = 0xFFFF, 31


class Dropout(nn.Module):
    """Zeros a share of the elements while training and scales the rest, so that the mean stays.

    Source: Srivastava et al. 2014.

    Args:
        rate: The share, from 0 to below 1.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same."""
        if not self.training or not self.rate:
            return x
        if x.device.type != "cpu":  # where torch draws for all elements at once
            return F.dropout(x, self.rate)
        return dropped(x, *keys(x.shape, x.device), self.rate)  # like x

    def extra_repr(self) -> str:
        """What torch shows of it."""
        return f"rate={self.rate}"


def keys(shape: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Random numbers of the rows (..., 1) and of the columns (n,) of a tensor (..., n), int32.

    They are drawn from torch's global generator.
    """
    rows = torch.randint(-(2**31), 2**31, (*shape[:-1], 1), dtype=torch.int32, device=device)  # (..., 1)
    return rows, torch.randint(-(2**31), 2**31, (shape[-1],), dtype=torch.int32, device=device)  # (n,)


def dropped(x: Tensor, rows: Tensor, columns: Tensor, rate: float) -> Tensor:
    """`x` with a share of it zero and the rest divided by 1 - rate; the same keys drop the same elements.

    The numbers of a row and of a column, put together, are mixed by four rounds of a Feistel network (Luby and Rackoff
    1988); with two, masks of neighbouring rows and columns are bound to each other.
    """
    mixed = rows ^ columns  # like x
    low, high = mixed & _LOW, (mixed >> 16) & _LOW  # like x
    for first, second in (_MULTIPLIERS[:2], _MULTIPLIERS[2:]):
        high = high ^ ((low * first >> 6) & _LOW)
        low = low ^ ((high * second >> 6) & _LOW)
    number = ((high & (_LOW >> 1)) << 16) | low  # below 2^31
    return torch.where(number >= int(rate * 2**_BITS), x * (1 / (1 - rate)), 0.0)  # like x
