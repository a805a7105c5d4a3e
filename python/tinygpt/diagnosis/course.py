"""Checks of a run's course: what its settings and its metrics alone give away. Each is a function of the record."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import median

from tinygpt.diagnosis.curves import at, highest_median, loss_spikes, smoothed, usual_difference
from tinygpt.diagnosis.finding import Finding
from tinygpt.diagnosis.record import Measured, Record
from tinygpt.scaling import LAW

# A fresh model's logits have a variance of 0.02^2 d_model, which costs half of that above ln(vocabulary); the rest is
# for the noise of one batch. 69 fresh models of widths 16 to 1,024 began from 0.08 below that to 0.10 above.
START_NATS, START_NATS_PER_WIDTH = 0.5, 0.0002
# A tenth and ten times of what the ladder of OLMo takes for a model of this size: 0.0047 (N / 108 M)^(-1/3) / 2
# (Groeneveld et al. 2024 and the ladder of Bhagia et al. 2024, arXiv:2412.04403). Muon here has AdamW's scale.
RATE_AT_108M, RATE_FACTOR = 0.0047 / 2, 10.0
# Rises of the training loss, a median of neighbours, above the lowest before: in 14 healthy runs of 0.03 to 4.3 M
# parameters at most 0.20 nats, 5 %, and 1.8 times the usual difference of two lines; 0.65 and 6.9 nats where AdamW's
# rate was 36 and 54 times the usual one.
RISE_NATS, RISE_FRACTION, RISE_TIMES = 0.3, 0.08, 3.0
# Share of the steps that were skipped, above which the run is not what its settings say.
SPIKES_MANY = 0.01
# Evaluations take the same windows each time, so what moves them is the model: in the healthy runs they end within
# 0.016 nats of their lowest, and that at a rate that stays up.
OVER_NATS, OVER_FRACTION, OVER_WRONG = 0.02, 0.01, 0.05
# About 20 tokens a parameter are the best use of the arithmetic (Hoffmann et al. 2022, arXiv:2203.15556). By their fit,
# for 40 M parameters and GPT-2's vocabulary, the second half of a run brings 4 % of all that was learnt there, 7 % at 5
# tokens a parameter, 8 % at 3, 13 % at 1.
TOKENS_PER_PARAMETER, STILL_FALLING = 20.0, 0.08
# Up to 4 passes bring something without dropout; what a later one is worth is said by `scaling`.
MANY_EPOCHS, PASSES_GAIN = 4.0, 0.005
# Nats of a token deviate by 2.1 to 2.9 from their mean (five models of 0.8 to 4.3 M parameters, English and source
# code). Tokens of one document are hard or easy together, which makes the true error 1.1 to 2.4 times as large.
TOKEN_DEVIATION, TRUSTED_NATS = 2.5, 0.1
# Validation above training within the first pass, when nothing has been seen twice.
OTHER_FRACTION, OTHER_NATS = 0.15, 0.3
# Another program on the same cores leaves half of the speed. Runs of less than a minute have no speed to speak of.
SLOW_FRACTION, SLOW_SECONDS, SLOW_LINES = 0.6, 60.0, 8
WARMUP_FRACTION, WARMUP_STEPS = 0.5, 20


def loss_at_start(record: Record) -> Finding | None:
    """A first loss above that of guessing among all tokens."""
    first, guess = record.first_loss, math.log(record.shape.vocab_size)
    if first is None or first <= guess + START_NATS + START_NATS_PER_WIDTH * record.shape.d_model:
        return None
    advice = "begin with a model as GPT(config) makes it: its weights were scaled, or loaded from something else"
    if record.starts_trained:
        advice = "prepare the text with the tokenizer of the model that --init-from names: these ids mean others to it"
    return Finding(
        name="loss-at-start",
        severity="wrong",
        what="the first loss is higher than that of a model that guesses",
        evidence=f"{first:.2f} nats at step 1; ln({record.shape.vocab_size}) = {guess:.2f} is that of guessing",
        advice=advice,
    )


def diverged(record: Record) -> Finding | None:
    """A loss or gradient that is finite no more, where the run ended."""
    tail = record.skipped[-2:]
    is_skipping = tail == [record.step - 1, record.step]
    lost = [each.step for each in record.evaluations if not math.isfinite(each.loss)]
    if not is_skipping and not lost:
        return None
    rate = record.config.learning_rate
    found = f"steps {tail[0]:,} and {tail[1]:,} were skipped, and nothing after them" if is_skipping else ""
    return Finding(
        name="diverged",
        severity="wrong",
        what=f"training diverged at step {tail[0] if is_skipping else lost[0]:,}",
        evidence=found or f"the validation loss of step {lost[0]:,} is not finite",
        advice=f"go on from the last checkpoint with --learning-rate {rate / 3:.2g}, a third, and more --warmup-steps",
    )


def learning_rate_high(record: Record) -> Finding | None:
    """A training loss that rises again, or a rate far above what models of this size take."""
    rate, usual = record.config.learning_rate, usual_rate(record.n_parameters)
    points = smoothed(record.losses)
    lowest = list(accumulate((loss for _, loss in points), min))
    rises = [(loss - low, step, low) for (step, loss), low in zip(points, lowest, strict=True)]
    rise, step, low = max(rises, default=(0.0, 0, 0.0))
    is_rising = rise > max(RISE_NATS, RISE_FRACTION * low, RISE_TIMES * usual_difference(record.losses))
    if not is_rising and (record.config.optimizer == "sgd" or rate <= RATE_FACTOR * usual):
        return None
    evidence = f"the training loss rose from {low:.2f} to {low + rise:.2f} nats up to step {step:,}"
    if not is_rising:
        evidence = f"it is {rate:.2g}; {usual:.1g} is usual for {record.n_parameters:,} parameters"
    return Finding(
        name="learning-rate-high",
        severity="wrong" if is_rising else "watch",
        what="the learning rate is too high",
        evidence=evidence,
        advice=f"--learning-rate {min(rate / 3, max(usual, rate / 30)):.2g}, and --grad-clip 1 where it is off",
    )


def learning_rate_low(record: Record) -> Finding | None:
    """A rate far below what models of this size take, and a loss that was still on its way down."""
    rate, usual = record.config.learning_rate, usual_rate(record.n_parameters)
    if record.config.optimizer == "sgd" or record.is_fine_tuned or rate * RATE_FACTOR >= usual:
        return None
    gain = second_half(record)
    if not record.is_ended or gain is None or gain.share < STILL_FALLING / 2:
        return None
    return Finding(
        name="learning-rate-low",
        severity="wrong",
        what="the learning rate is too low",
        evidence=f"it is {rate:.2g}, {usual:.1g} is usual for {record.n_parameters:,} parameters, and the loss was "
        f"still falling, from {gain.before:.2f} to {gain.after:.2f} nats over the second half",
        advice=f"--learning-rate {usual:.1g}",
    )


def spikes(record: Record) -> Finding | None:
    """Steps that were skipped, and losses that stand out."""
    skipped, high = record.skipped, loss_spikes(record.losses)
    if not skipped and not high:
        return None
    share = len(skipped) / record.step
    found = [f"{len(skipped)} of {record.step:,} steps were skipped, the first {skipped[0]:,}"] if skipped else []
    found += [f"the loss jumped at {len(high)} logged steps, the first {high[0]:,}"] if high else []
    return Finding(
        name="spikes",
        severity="wrong" if share > SPIKES_MANY else "watch",
        what="single steps stand out from their neighbours",
        evidence="; ".join(found),
        advice=f"see what the model read there: tinygpt show {record.folder} --step {(skipped or high)[0]}; "
        "where the text is sound, take a lower --learning-rate or more --warmup-steps",
    )


def overfitting(record: Record) -> Finding | None:
    """A validation loss that rises while the training loss falls."""
    if record.config.patience is not None or len(record.evaluations) < 2:
        return None
    best, last = min(record.evaluations, key=lambda each: each.loss), record.evaluations[-1]
    rise = last.loss - best.loss
    before, after = (_train_loss(record, each) for each in (best, last))
    if not math.isfinite(last.loss) or rise <= max(OVER_NATS, OVER_FRACTION * best.loss):
        return None
    if before is None or after is None or after >= before:
        return None
    return Finding(
        name="overfitting",
        severity="wrong" if rise > OVER_WRONG * best.loss else "watch",
        what=f"the model learns its text by heart since step {best.step:,}, pass {best.epoch:.1f}",
        evidence=f"from there to step {last.step:,} the validation loss rose from {best.loss:.3f} to {last.loss:.3f} "
        f"nats while the training loss fell from {before:.3f} to {after:.3f}",
        advice="use the checkpoint best, which is that step's; next time more text, a smaller model, --dropout 0.2, or "
        "--patience 5 to stop there",
    )


def undertrained(record: Record) -> Finding | None:
    """A loss that was still falling fast when the budget ended, with few tokens for the model's size."""
    gain, share = second_half(record), record.tokens / record.n_parameters
    if not record.is_ended or record.is_fine_tuned or gain is None or share >= TOKENS_PER_PARAMETER:
        return None
    if gain.share <= STILL_FALLING or record.epochs >= MANY_EPOCHS:
        return None
    return Finding(
        name="undertrained",
        severity="watch",
        what="the loss was still falling when the run ended",
        evidence=f"the second half took it from {gain.before:.2f} to {gain.after:.2f} nats; {share:.2g} tokens a "
        f"parameter were seen, about {TOKENS_PER_PARAMETER:g} are usual",
        advice="train longer, or take a smaller model, which gets further in the same time",
    )


def many_epochs(record: Record) -> Finding | None:
    """Passes over the same text that no longer bring anything."""
    gain = second_half(record)
    if record.epochs <= MANY_EPOCHS or gain is None or gain.share > PASSES_GAIN:
        return None
    worth = math.exp(-(record.epochs - 1) / LAW.repeats)
    return Finding(
        name="many-epochs",
        severity="watch",
        what="the last passes over the text brought nothing",
        evidence=f"{record.epochs:.1f} passes, the second half of which took the loss from {gain.before:.3f} to "
        f"{gain.after:.3f} nats; the last was worth {worth:.0%} of one over new text",
        advice="more text, or half as many steps",
    )


def long_warmup(record: Record) -> Finding | None:
    """A warm-up that takes most of the run."""
    warmup, total = record.config.warmup_steps, record.total_steps
    if total is None or total < WARMUP_STEPS or warmup <= WARMUP_FRACTION * total:
        return None
    return Finding(
        name="long-warmup",
        severity="watch",
        what="the learning rate rises for most of the run",
        evidence=f"{warmup:,} of {total:,} steps are warm-up",
        advice=f"--warmup-steps {max(1, total // 20)}, a twentieth",
    )


def no_validation(record: Record) -> Finding | None:
    """A run that nothing is held out from."""
    if record.evaluations or not (record.is_ended or record.step >= record.config.eval_every):
        return None
    return Finding(
        name="no-validation",
        severity="watch",
        what="no text is held out, so that learning by heart cannot be told from learning",
        evidence=f"no evaluation in {record.step:,} steps",
        advice="prepare the text again with --val-fraction 0.05, or name other text by --val-data",
    )


def small_validation(record: Record) -> Finding | None:
    """An evaluation on too few tokens to be trusted."""
    if not record.evaluations:
        return None
    found = record.evaluations[-1].n_tokens
    error, wanted = 1.96 * TOKEN_DEVIATION / math.sqrt(max(1, found)), (1.96 * TOKEN_DEVIATION / TRUSTED_NATS) ** 2
    if found >= wanted:
        return None
    return Finding(
        name="small-validation",
        severity="watch",
        what="the validation loss is measured on too few tokens to be trusted",
        evidence=f"{found:,} tokens, so about {error:.2f} nats to either side; {wanted:,.0f} make it {TRUSTED_NATS}",
        advice="a larger --val-fraction, or more --eval-batches where the validation text holds more than they take",
    )


def other_validation(record: Record) -> Finding | None:
    """A validation loss far above the training loss before any text has been seen twice."""
    early = [each for each in record.evaluations if each.epoch <= 1 and each.train_loss is not None]
    if not early or record.is_fine_tuned or not math.isfinite(early[-1].loss):
        return None
    last = early[-1]
    train = last.train_loss or 0.0
    if last.loss - train <= max(OTHER_NATS, OTHER_FRACTION * train):
        return None
    return Finding(
        name="other-validation",
        severity="watch",
        what="the validation text is of another kind than the training text",
        evidence=f"at step {last.step:,}, within the first pass, {last.loss:.2f} nats on it and {train:.2f} on "
        "training text, of which nothing had been seen twice",
        advice="choose documents of all the text by their hash (--split hash), or --val-data of the same kind",
    )


def slow(record: Record) -> Finding | None:
    """Steps that take far longer than was measured before the run, or than they did before."""
    rows = [line.get("resources") or {} for line in record.lines]
    speeds = [row["tokens_per_second"] for row in rows if row.get("tokens_per_second")]
    if len(speeds) < SLOW_LINES or (rows[-1].get("seconds") or 0.0) < SLOW_SECONDS:
        return None
    part = max(SLOW_LINES // 4, len(speeds) // 4)
    best, last = highest_median(speeds, part), median(speeds[-part:])
    measured = ((record.facts or {}).get("engine") or {}).get("tokens_per_second")
    promised = measured * record.target_share if measured else 0.0
    if last >= SLOW_FRACTION * max(best, promised):
        return None
    before = f"{best:,.0f} earlier in the run" if best >= promised else f"{promised:,.0f} measured before it"
    return Finding(
        name="slow",
        severity="watch",
        what="steps take far longer than they need",
        evidence=f"{last:,.0f} tokens/s of late, {before}{_swapped(rows)}",
        advice="see what else runs on these cores, and whether memory is short (--ram, a smaller --micro-batch); where "
        "it is a machine that others share, wait",
    )


def usual_rate(n_parameters: int) -> float:
    """The learning rate that a model of this size usually takes.

    Example:
        >>> round(usual_rate(108_000_000), 5)
        0.00235
    """
    return RATE_AT_108M * math.pow(n_parameters / 108e6, -1 / 3)


@dataclass(frozen=True)
class Gain:
    """What the second half of the steps taken brought, in nats per token."""

    before: float
    """The loss at half of the steps."""
    after: float
    """The loss now."""
    share: float
    """What that is of all that was learnt since guessing among the ids."""


def second_half(record: Record) -> Gain | None:
    """The gain of the second half, on validation data where there are evaluations around it; None where too short."""
    points = [(each.step, each.loss) for each in record.evaluations if math.isfinite(each.loss)]
    half = record.step / 2
    if len(points) < 2 or points[0][0] > half or points[-1][0] < 0.9 * record.step:
        points = smoothed(record.losses)
    if len(points) < 2 or points[0][0] > half:
        return None
    before, after = at(points, half), points[-1][1]
    learnt = math.log(record.shape.vocab_size) - after
    return Gain(before, after, (before - after) / learnt if learnt > 0 else 1.0)


def _train_loss(record: Record, measured: Measured) -> float | None:
    """The loss on training data at an evaluation, by the logged steps where it was not measured."""
    if measured.train_loss is not None:
        return measured.train_loss
    points = smoothed(record.losses)
    return at(points, measured.step) if points else None


def _swapped(rows: Sequence[dict[str, float]]) -> str:
    """What memory says of it, if anything: a process whose pages leave for the disk holds less than it did."""
    held, peak = rows[-1].get("memory_bytes"), rows[-1].get("peak_memory_bytes")
    is_less = held is not None and peak is not None and held < peak / 2
    return f"; it holds {held / 1e6:,.0f} MB of memory, and held {peak / 1e6:,.0f}" if is_less and held and peak else ""


COURSE_CHECKS: tuple[Callable[[Record], Finding | None], ...] = (
    *(loss_at_start, diverged, learning_rate_high, learning_rate_low, spikes, overfitting, undertrained, many_epochs),
    *(long_warmup, no_validation, small_validation, other_validation, slow),
)
