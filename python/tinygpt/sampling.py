"""From logits to the next token: pure functions, applied in the order of this file."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tinygpt.samplingconfig import Sampling as Sampling


def penalise_repetition(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Logits (..., V) of the tokens in `seen` lowered: positive ones divided by `penalty`, others multiplied by it.

    Args:
        logits: (..., V).
        seen: bool (..., V), true for tokens that occurred.
        penalty: Above 1 lowers, below 1 raises.

    Example:
        >>> penalise_repetition(torch.tensor([2.0, -1.0, 3.0]), torch.tensor([True, True, False]), 2.0).tolist()
        [1.0, -2.0, 3.0]

    Source: Keskar et al. 2019, section 4.1 (arXiv:1909.05858), with the sign of the logit as in transformers.
    """
    lowered = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(seen, lowered, logits)


def scale(logits: Tensor, temperature: float) -> Tensor:
    """Logits (..., V) below their maximum, divided by `temperature`; safe for the smallest one above 0."""
    temperature = max(temperature, torch.finfo(logits.dtype).tiny)
    return (logits - logits.amax(dim=-1, keepdim=True)) / temperature


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Logits (..., V) with all but the k highest at -inf; 0, or V and more, keeps all.

    Example:
        >>> keep_top_k(torch.tensor([1.0, 3.0, 2.0]), 2).tolist()
        [-inf, 3.0, 2.0]

    Source: Fan et al. 2018, section 5.4 (arXiv:1805.04833).
    """
    if k == 0 or k >= logits.shape[-1]:
        return logits
    values, ids = logits.topk(k, dim=-1)  # each (..., k)
    return torch.full_like(logits, -math.inf).scatter(-1, ids, values)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Logits (..., V) with all at -inf but the fewest of the highest that hold a share `p` of the probability.

    Example:
        >>> keep_top_p(torch.tensor([0.5, 0.3, 0.2]).log(), 0.6).isinf().tolist()
        [False, False, True]

    Source: Holtzman et al. 2019, section 3.1 (arXiv:1904.09751).
    """
    if p >= 1:
        return logits
    probabilities = logits.softmax(dim=-1)  # (..., V)
    # Most often the few likeliest are enough, and to find those of 32,000 takes a tenth of the time of sorting all.
    for n in (min(TOP_P_FIRST, logits.shape[-1]), logits.shape[-1]):
        descending, ids = logits.topk(n, dim=-1)  # each (..., n)
        shares = probabilities.gather(-1, ids)  # (..., n)
        before = shares.cumsum(dim=-1, dtype=torch.float64) - shares  # (..., n): what the likelier ones hold already
        if n == logits.shape[-1] or bool((before[..., -1] >= p).all()):
            break
    kept = descending.masked_fill(before >= p, -math.inf)
    return torch.full_like(logits, -math.inf).scatter(-1, ids, kept)


def keep_typical(logits: Tensor, p: float) -> Tensor:
    """Logits (..., V) with all at -inf but those whose surprise is nearest to the expected one, up to a share `p`.

    Example:
        >>> keep_typical(torch.tensor([0.5, 0.25, 0.25]).log(), 0.6).isinf().tolist()  # 1, 2 and 2 bits, expected 1.5
        [False, False, True]

    Source: Meister et al. 2022, section 3 (arXiv:2202.00666).
    """
    if p >= 1:
        return logits
    surprise = -logits.log_softmax(dim=-1)  # (..., V)
    probabilities = (-surprise).exp()  # (..., V)
    expected = torch.where(probabilities > 0, probabilities * surprise, 0.0).sum(dim=-1, keepdim=True)  # (..., 1)
    ids = (surprise - expected).abs().argsort(dim=-1, stable=True)  # (..., V)
    sorted_probabilities = probabilities.gather(-1, ids)  # (..., V)
    before = sorted_probabilities.cumsum(dim=-1, dtype=torch.float64) - sorted_probabilities  # (..., V)
    dropped = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, ids, before >= p)
    return logits.masked_fill(dropped, -math.inf)


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Logits (..., V) with those at -inf whose probability is below `p` times the highest.

    Example:
        >>> keep_min_p(torch.tensor([0.6, 0.35, 0.05]).log(), 0.5).isinf().tolist()
        [False, False, True]

    Source: Nguyen et al. 2024, section 3 (arXiv:2407.01082).
    """
    if p <= 0:
        return logits
    return logits.masked_fill(logits < logits.amax(dim=-1, keepdim=True) + math.log(p), -math.inf)


@dataclass(frozen=True, kw_only=True)
class History:
    """What a stream has seen, as far as its settings ask; None where they do not."""

    seen: Tensor | None = None
    """bool (..., V), true for tokens in the prompt or drawn since: those of the repetition penalty."""
    drawn: Tensor | None = None
    """How often each token was drawn, (..., V): what the presence and frequency penalties count."""


def distribution(logits: Tensor, sampling: Sampling, *, history: History | None = None) -> Tensor:
    """Probabilities (..., V) that a token is drawn with; temperature 0 gives the likeliest 1.

    Args:
        logits: (..., V), of any floating type; computed in float32 at least.
        sampling: The settings.
        history: For the penalties.

    Example:
        >>> distribution(torch.tensor([0.0, 1.0, 0.0]), Sampling(top_k=1)).tolist()
        [0.0, 1.0, 0.0]
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    logits = penalise(logits, sampling, history or History())
    if sampling.temperature == 0:
        return torch.zeros_like(logits).scatter(-1, logits.argmax(dim=-1, keepdim=True), 1.0)
    logits = scale(logits, sampling.temperature)
    logits = keep_top_k(logits, sampling.top_k)
    logits = keep_top_p(logits, sampling.top_p)
    logits = keep_min_p(logits, sampling.min_p)
    return keep_typical(logits, sampling.typical_p).softmax(dim=-1)


def penalise(logits: Tensor, sampling: Sampling, history: History) -> Tensor:
    """Logits (..., V) after all penalties and biases.

    Source: OpenAI's API reference for presence, frequency and bias: the first two look at what was drawn alone.
    """
    if history.seen is not None and sampling.repetition_penalty != 1:
        logits = penalise_repetition(logits, history.seen, sampling.repetition_penalty)
    if history.drawn is not None and (sampling.presence_penalty or sampling.frequency_penalty):
        drawn = history.drawn.to(logits.dtype)
        logits = logits - sampling.presence_penalty * (drawn > 0) - sampling.frequency_penalty * drawn
    if sampling.logit_bias:
        ids = torch.tensor([i for i in sampling.logit_bias if i < logits.shape[-1]], device=logits.device)
        biases = logits.new_tensor([bias for i, bias in sampling.logit_bias.items() if i < logits.shape[-1]])
        logits = logits.index_add(-1, ids, biases.expand(*logits.shape[:-1], -1)) if len(ids) else logits
    return logits


def sample(
    logits: Tensor,
    sampling: Sampling,
    *,
    history: History | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Ids int64 (...) drawn from logits (..., V): each row by one random number, where it falls in the summed row.

    Args:
        logits: (..., V).
        sampling: The settings.
        history: For the penalties.
        generator: Source of randomness, on the CPU; None takes torch's own.

    Example:
        >>> sample(torch.tensor([0.0, 1.0, 0.0]), Sampling(temperature=0.0)).item()
        1
    """
    shape = logits.shape[:-1]
    if sampling.temperature == 0:
        logits = logits if logits.dtype == torch.float64 else logits.float()
        return likeliest(penalise(logits, sampling, history or History()))
    sums = distribution(logits, sampling, history=history).cumsum(dim=-1, dtype=torch.float64)  # (..., V)
    rows = sums.reshape(-1, sums.shape[-1])  # (rows, V)
    places = torch.rand(len(rows), dtype=torch.float64, generator=generator)  # (rows,)
    wanted = places.to(rows.device)[:, None] * rows[:, -1:]  # (rows, 1)
    # Strictly below the sum, so an id of no probability is never met; rounding may bring the product up to the sum.
    ids = torch.searchsorted(rows, torch.minimum(wanted, rows[:, -1:].nextafter(torch.zeros_like(wanted))), right=True)
    return ids.view(shape)


def likeliest(logits: Tensor) -> Tensor:
    """Ids int64 (...) of the largest of logits (..., V), the first among equals."""
    if logits.device.type != "cpu":
        return logits.argmax(dim=-1)
    # numpy looks at 32,000 numbers in 3 us, torch in 29.
    return torch.from_numpy(np.asarray(logits.detach().numpy().argmax(axis=-1)))


TOP_P_FIRST = 512
"""Of how many of the likeliest the share is looked at before all are sorted."""
