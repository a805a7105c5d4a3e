"""Wish: what is asked of a plan, and the sizes that leaves to choose from.

docs/planning.md has the source of every rule here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from tinygpt.modelconfig import GPTConfig
from tinygpt.planningrules import CONTEXTS, LAYERS, STEP_TOKENS, WIDTHS, heads, passes_of
from tinygpt.textsurvey import TextSurvey
from tinygpt.trainconfig import RECIPE, TrainConfig


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is asked for."""

    paths: Sequence[str]
    seconds: float
    text: TextSurvey
    reading: Mapping[str, Any]
    """Fields of `Reading` that differ from its defaults."""
    fixed: Mapping[str, Any]
    """Fields of `GPTConfig` and `TrainConfig` that were chosen already."""
    out: Path
    startup_seconds: float

    @property
    def val_fraction(self) -> float:
        """Share that is set apart, so that there are 200 kB or a tenth, and a hundredth at least."""
        if self.text.is_prepared:
            return 0.0
        return round(min(0.1, max(0.01, 200_000 / self.text.n_bytes)), 2)

    @property
    def train_bytes(self) -> float:
        """Bytes of text to train on."""
        return self.text.n_bytes * (1 - self.val_fraction)

    @property
    def ready_seconds(self) -> float:
        """Seconds before the first step but for compiling."""
        return self.startup_seconds + self.text.seconds


def shapes(wish: Wish) -> Iterator[GPTConfig]:
    """The models to choose from.

    Raises:
        ValueError: What is fixed goes together with no other sizes, or with none at all.
    """
    fixed = {name: value for name, value in wish.fixed.items() if name in GPTConfig.__dataclass_fields__}
    is_llama = not fixed.keys() & {"position", "norm", "bias", "mlp"}  # no standard class has another form and qk_norm
    sizes = {
        "vocab_size": wish.text.bytes_per_token,
        "block_size": [t for t in CONTEXTS if t <= 256 or wish.text.kind != "prose"],
        "d_model": WIDTHS,
        "n_layer": LAYERS,
    }
    ladders = [[fixed[name]] if name in fixed else ladder for name, ladder in sizes.items()]
    refused, is_any = None, False
    for found in product(*ladders):
        *_, d_model, n_layer = found
        if "n_layer" not in fixed and not 24 <= d_model / n_layer <= 128:
            continue
        options = {"n_head": heads(d_model), "qk_norm": RECIPE["qk_norm"] and is_llama, **fixed}
        try:
            shape = GPTConfig(**{**options, **dict(zip(sizes, found, strict=True))})
        except ValueError as error:  # heads that do not divide this width divide another
            refused = error
            continue
        is_any = True
        yield shape
    if not is_any:
        among = ", ".join(map(str, LAYERS))
        raise refused or ValueError(
            f"d_model {fixed['d_model']} suits no number of layers among {among}; fix n_layer, too"
        )


def windows_of(wish: Wish, block_size: int) -> list[int]:
    """Windows of a step, those that make about the same number of tokens whatever the context is."""
    if {"batch_size", "grad_accum"} & set(wish.fixed):
        return [wish.fixed.get("batch_size", TrainConfig().batch_size) * wish.fixed.get("grad_accum", 1)]
    return sorted({max(1, tokens // block_size) for tokens in STEP_TOKENS})


def batch_of(wish: Wish, windows: int, block_size: int) -> tuple[int, int]:
    """Windows of one pass, and passes of a step, as the settings say them."""
    batch_size, _ = passes_of(windows, block_size)
    if "batch_size" in wish.fixed:
        batch_size = wish.fixed["batch_size"]
    elif "grad_accum" in wish.fixed:
        batch_size = windows // wish.fixed["grad_accum"]
    return batch_size, windows // batch_size
