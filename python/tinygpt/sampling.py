"""From logits to the next token: pure functions, applied in the order of this file."""

import math

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
    descending, ids = logits.sort(dim=-1, descending=True, stable=True)  # each (..., V)
    probabilities = descending.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities  # what the likelier ones hold already
    return torch.empty_like(logits).scatter(-1, ids, descending.masked_fill(before >= p, -math.inf))


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


def distribution(logits: Tensor, sampling: Sampling, *, seen: Tensor | None = None) -> Tensor:
    """Probabilities (..., V) that a token is drawn with; temperature 0 gives the likeliest 1.

    Args:
        logits: (..., V), of any floating type; computed in float32 at least.
        sampling: The settings.
        seen: bool (..., V), tokens that the repetition penalty is for; None for none.

    Example:
        >>> distribution(torch.tensor([0.0, 1.0, 0.0]), Sampling(top_k=1)).tolist()
        [0.0, 1.0, 0.0]
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    if seen is not None and sampling.repetition_penalty != 1:
        logits = penalise_repetition(logits, seen, sampling.repetition_penalty)
    if sampling.temperature == 0:
        return torch.zeros_like(logits).scatter(-1, logits.argmax(dim=-1, keepdim=True), 1.0)
    logits = scale(logits, sampling.temperature)
    logits = keep_top_k(logits, sampling.top_k)
    logits = keep_top_p(logits, sampling.top_p)
    return keep_min_p(logits, sampling.min_p).softmax(dim=-1)


def sample(
    logits: Tensor, sampling: Sampling, *, seen: Tensor | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """Ids int64 (...) drawn from logits (..., V).

    Args:
        logits: (..., V).
        sampling: The settings.
        seen: bool (..., V), tokens that occurred; only the repetition penalty looks at it.
        generator: Source of randomness, on the device of the logits; None takes torch's own.

    Example:
        >>> sample(torch.tensor([0.0, 1.0, 0.0]), Sampling(temperature=0.0)).item()
        1
    """
    probabilities = distribution(logits, sampling, seen=seen)
    if sampling.temperature == 0:
        return probabilities.argmax(dim=-1)
    rows = probabilities.reshape(-1, probabilities.shape[-1])  # (rows, V)
    return torch.multinomial(rows, 1, generator=generator).view(probabilities.shape[:-1])
