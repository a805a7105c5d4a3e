"""Sampling: every knob of drawing a token, with its default and range."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How to draw a token.

    Raises:
        ValueError: A setting is out of its range.
    """

    temperature: float = 1.0
    """Divides the logits: below 1 safer, above 1 wilder, 0 takes the likeliest token always."""
    top_k: int = 0
    """Draw from this many of the likeliest tokens; 0 from all."""
    top_p: float = 1.0
    """Draw from the fewest of the likeliest tokens that hold this share of the probability."""
    min_p: float = 0.0
    """Draw from tokens at least this share as likely as the likeliest."""
    repetition_penalty: float = 1.0
    """Above 1 makes tokens rarer that occurred already."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature must be 0 (always the likeliest token) or above, got {self.temperature}")
        if isinstance(self.top_k, bool) or not isinstance(self.top_k, int) or self.top_k < 0:
            raise ValueError(f"top_k must be a whole number, 0 (all tokens) or above, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1 (all tokens), got {self.top_p}")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p must be from 0 (all tokens) to 1, got {self.min_p}")
        if not 0 < self.repetition_penalty < math.inf:
            raise ValueError(f"repetition_penalty must be above 0 (1 is none), got {self.repetition_penalty}")
