"""Sampling: every knob of drawing a token, with its default and range."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


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
    typical_p: float = 1.0
    """Draw from the tokens nearest to the expected surprise that hold this share of the probability."""
    repetition_penalty: float = 1.0
    """Above 1 makes tokens rarer that occurred already, in the prompt or since."""
    presence_penalty: float = 0.0
    """Taken from the logit of each token that was drawn already, from -2 to 2."""
    frequency_penalty: float = 0.0
    """Taken from the logit of each token as often as it was drawn already, from -2 to 2."""
    logit_bias: Mapping[int, float] = field(default_factory=dict, metadata={"flag": False})
    """Added to the logits of single ids; -inf never draws one."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature must be 0 (always the likeliest token) or above, got {self.temperature}")
        if isinstance(self.top_k, bool) or not isinstance(self.top_k, int) or self.top_k < 0:
            raise ValueError(f"top_k must be a whole number, 0 (all tokens) or above, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1 (all tokens), got {self.top_p}")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p must be from 0 (all tokens) to 1, got {self.min_p}")
        if not 0 < self.typical_p <= 1:
            raise ValueError(f"typical_p must be above 0 and at most 1 (all tokens), got {self.typical_p}")
        if not 0 < self.repetition_penalty < math.inf:
            raise ValueError(f"repetition_penalty must be above 0 (1 is none), got {self.repetition_penalty}")
        for name in ("presence_penalty", "frequency_penalty"):
            if not -2 <= getattr(self, name) <= 2:
                raise ValueError(f"{name} must be from -2 to 2 (0 is none), got {getattr(self, name)}")
        for i, bias in self.logit_bias.items():
            if isinstance(i, bool) or not isinstance(i, int) or i < 0 or math.isnan(bias) or bias == math.inf:
                raise ValueError(f"logit_bias must map ids to numbers below infinity, got {i!r}: {bias!r}")
