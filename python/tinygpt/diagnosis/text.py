"""Checks of a run's text: what its tokens give away beside the course. Each is a function of record and figures."""

import math
from collections.abc import Callable
from statistics import median

from tinygpt.diagnosis.course import usual_rate
from tinygpt.diagnosis.curves import smoothed
from tinygpt.diagnosis.finding import Finding
from tinygpt.diagnosis.record import Record
from tinygpt.diagnosis.textfigures import RARE, TextFigures

# What is learnt first is how often each token occurs; a model that is not past it after so many steps learns nothing.
PAST_FRACTION, PAST_STEPS = 0.03, 100
# A model holds about 2 bits a parameter (Allen-Zhu and Li 2024, arXiv:2404.05405). Recipes that work with dropout have
# room for their text 1.2 times (the README's for one book) and 3.5 times (nanoGPT's for Shakespeare's characters).
BITS_PER_PARAMETER, HELD_TIMES = 2.0, 4.0
RARE_FRACTION = 0.5
LONG_TIMES = 2.0
REPEATED_WRONG, REPEATED_WATCH = 0.05, 0.02


def not_learning(record: Record, text: TextFigures) -> Finding | None:
    """A model that knows no more than how often each token occurs."""
    points = smoothed(record.losses)
    warmup = min(record.config.warmup_steps, record.total_steps or record.config.warmup_steps)
    if not points or record.step < warmup + PAST_STEPS or points[-1][1] < (1 - PAST_FRACTION) * text.guess_loss:
        return None
    norms = [line["grad_norm"] for line in record.lines if isinstance(line.get("grad_norm"), int | float)]
    norm, usual = median(norms) if norms else math.nan, usual_rate(record.n_parameters)
    return Finding(
        name="not-learning",
        severity="wrong",
        what="the model learns nothing of the order of the tokens",
        evidence=f"{points[-1][1]:.2f} nats after {record.step:,} steps; who knows how often each token occurs, and "
        f"nothing else, has {text.guess_loss:.2f}; the gradient's norm is {norm:.2g}",
        advice=f"look at the text (tinygpt show {record.folder} --step 1); if it is sound, take --learning-rate "
        f"{usual:.1g}, --grad-clip 1 and --weight-decay 0.1",
    )


def little_text(record: Record, text: TextFigures) -> Finding | None:
    """A model that has room for its whole text, several times over."""
    room = BITS_PER_PARAMETER * record.n_parameters
    size = text.n_tokens * math.log2(record.shape.vocab_size)
    if record.is_fine_tuned or room <= HELD_TIMES * size:
        return None
    return Finding(
        name="little-text",
        severity="watch",
        what="there is too little text for a model of this size",
        evidence=f"{record.n_parameters:,} parameters hold {room / size:.0f} times the {text.n_tokens:,} tokens of the "
        f"text, at {BITS_PER_PARAMETER:g} bits each",
        advice="more text, or a smaller model, as in the recipes of the README",
    )


def large_vocabulary(record: Record, text: TextFigures) -> Finding | None:
    """A vocabulary most of whose ids hardly occur."""
    if record.is_fine_tuned or not text.n_longer or text.rare_fraction <= RARE_FRACTION:
        return None
    return Finding(
        name="large-vocabulary",
        severity="watch",
        what="the vocabulary is too large for the text",
        evidence=f"{text.rare_fraction:.0%} of its {text.n_longer:,} longer ids come fewer than {RARE} times in the "
        f"{text.n_tokens:,} tokens, {text.unseen_fraction:.0%} never",
        advice=f"prepare the text again with --vocab-size {_smaller(record, text)}",
    )


def long_context(record: Record, text: TextFigures) -> Finding | None:
    """A context that is longer than most documents."""
    if text.half_length is None or LONG_TIMES * text.half_length >= record.shape.block_size:
        return None
    return Finding(
        name="long-context",
        severity="watch",
        what="the context is longer than most documents",
        evidence=f"half of the tokens stand in documents of at most {text.half_length:,}; the context is "
        f"{record.shape.block_size:,}{_padded(record)}",
        advice=f"--block-size {2 ** max(3, math.ceil(math.log2(max(1, text.half_length))))}, with as many more windows "
        "in --batch-size",
    )


def duplicates(record: Record, text: TextFigures) -> Finding | None:
    """Validation text that stands in the training text."""
    found = text.repeated
    if found is None or found.n_found <= REPEATED_WATCH * found.n_asked:
        return None
    return Finding(
        name="duplicates",
        severity="wrong" if found.n_found > REPEATED_WRONG * found.n_asked else "watch",
        what="validation text stands word for word in the training text, so its loss says too little",
        evidence=f"{found.n_found:,} of {found.n_asked:,} stretches of {found.length} tokens, the first in "
        f"{found.example}",
        advice="prepare all text together with --dedup near; --val-data must not name a part of --data",
    )


def worse_than_zstd(record: Record, text: TextFigures) -> Finding | None:
    """A model that predicts its validation text worse than a compressor that knows nothing."""
    bits = [each.bits_per_byte for each in record.evaluations if each.bits_per_byte is not None]
    if (
        not record.is_ended
        or record.step < PAST_STEPS
        or not bits
        or text.compressed_bits is None
        or min(bits) <= text.compressed_bits
    ):
        return None
    return Finding(
        name="worse-than-zstd",
        severity="wrong",
        what="the model predicts the validation text worse than a general compressor",
        evidence=f"{min(bits):.2f} bits per byte at best; {text.compressor} makes {text.compressed_bits:.2f} of the "
        "same text without having read any other",
        advice="train longer, with a larger model, or on more text of the same kind; tinygpt evaluate says which part "
        "of the text is hard",
    )


def _smaller(record: Record, text: TextFigures) -> int:
    """A vocabulary of the single bytes and the ids that are not rare, up to a power of 2 where that is smaller, too."""
    size = 257 + round((1 - text.rare_fraction) * text.n_longer)
    power = 2 ** math.ceil(math.log2(size))
    return power if power < record.shape.vocab_size else size


def _padded(record: Record) -> str:
    """How much of a window counts, where documents are padded."""
    return "" if record.target_share > 0.99 else f", of which {record.target_share:.0%} count"


TEXT_CHECKS: tuple[Callable[[Record, TextFigures], Finding | None], ...] = (
    *(not_learning, little_text, large_vocabulary, long_context, duplicates, worse_than_zstd),
)
