"""The rules of a plan: which sizes there are to choose from, and what follows from a size without choosing.

docs/planning.md has the source of each.
"""

import math

from tinygpt.trainconfig import RECIPE

WIDTHS = (64, 96, 128, 192, 256, 320, 384, 512, 640, 768)
LAYERS = (2, 3, 4, 5, 6, 8, 10, 12)
CONTEXTS = (64, 128, 256, 512)
STEP_TOKENS = (512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768)
PASS_TOKENS = 6144
"""Tokens of one pass at most: more make it no faster and take memory."""
EPOCHS = (4.0, 8.0, 16.0)
"""Passes over the text at most, each with a dropout of its own."""


def heads(d_model: int) -> int:
    """Attention heads of a model of this width: of 64, narrow ones of 32, wider ones where that does not divide it.

    Example:
        >>> [heads(width) for width in (64, 96, 128, 256, 768, 100, 30)]
        [2, 3, 4, 4, 12, 2, 1]
    """
    most = d_model // (64 if d_model >= 256 else 32)
    return next((n for n in range(most, 1, -1) if d_model % (2 * n) == 0), 1)


def learning_rate(n_parameters: int, *, optimizer: str = "muon") -> float:
    """Highest rate for a model of this size, in two digits; other optimisers than Muon want a fifth of its rate.

    Example:
        >>> learning_rate(1_000_000), learning_rate(42_000_000)
        (0.005, 0.0031)
    """
    rate = RECIPE["learning_rate"] * min(1.0, (10e6 / n_parameters) ** (1 / 3))
    return float(f"{rate if optimizer == 'muon' else rate / 5:.2g}")


def dropout(epochs: float) -> float:
    """Share to drop in a run of so many passes over its text.

    Example:
        >>> dropout(4), dropout(6), dropout(16)
        (0.0, 0.05, 0.1)
    """
    return 0.0 if epochs <= EPOCHS[0] else 0.05 if epochs <= EPOCHS[1] else 0.1


def passes_of(windows: int, block_size: int) -> tuple[int, int]:
    """Windows of one pass, and passes of a step."""
    most = max(1, PASS_TOKENS // block_size)
    passes = next(n for n in range(math.ceil(windows / most), windows + 1) if windows % n == 0)
    return windows // passes, passes
