"""Choice: a run that could be trained in a time, what it takes and gives, and its command; which runs there are.

docs/planning.md has the source of every rule here.
"""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from tinygpt.forecast import Forecast, duration
from tinygpt.modelconfig import GPTConfig
from tinygpt.planningrules import EPOCHS, dropout, learning_rate, passes_of
from tinygpt.planwish import Wish, batch_of, shapes, windows_of
from tinygpt.progress import planned_steps
from tinygpt.scaling import LAW
from tinygpt.stepcost import MOST_WAITING, StepCost, block_parameters, n_parameters
from tinygpt.textsurvey import TextSurvey
from tinygpt.traincommand import train_command
from tinygpt.trainconfig import LIMITS, RECIPE, TrainConfig

LEAST_STEPS = 20
_COMPILE_SECONDS = 5.0  # of a choice that is not measured
_USED = 0.90  # of the time; the rest is for evaluations, saves, and a machine that is slower then
_EVALUATIONS = 0.05  # of the time
_EVAL_TOKENS, _EVAL_COST = 50_000, 0.45  # of an evaluation; of training on as many
_EVAL_BATCH_SECONDS = 0.015  # of each batch besides, uncompiled
_STEP_SECONDS = 0.0035  # what a trainer does in a step beside what the probe measures: batch, norms, report
_SAVE_SECONDS, _SAVED_BYTES_PER_SECOND = 0.3, 4e8
# 100 tokens took 0.06 to 0.16 s at 1.9 million parameters, 0.24 to 0.8 at 27 million beside other programs.
_MOST_SAMPLES, _SECONDS_PER_SAMPLE, _SAMPLE_SECONDS = 10, 30, 0.3
_TRAIN_BYTES = 130_000_000  # beside what the probe's process holds: tokenizer, data, evaluation, checkpoint


Size = tuple[int, int, int, int, int]
"""Vocabulary, context, layers, width, windows of a step."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What could be trained, and what that takes and gives."""

    shape: GPTConfig
    config: TrainConfig
    """With `max_steps` and `max_seconds`."""
    n_parameters: int
    n_tokens: int
    """Tokens of the whole run, with padding where there is some."""
    epochs: float
    """Passes over the text."""
    tokens_per_second: float
    """Of whole steps."""
    seconds: float
    """Of everything: reading text, tokenizer, compiling, steps, evaluations, saves."""
    memory_bytes: int
    """Peak memory of the run."""
    bits_per_byte: float
    """What to expect on held-out text."""
    dtype: str
    """Numbers of activations and products."""
    is_measured: bool = False
    """Whether a step of this very choice was measured, and not foretold from others."""
    waiting_share: float = 0.0
    """Of the time of measuring, that threads waited because other programs ran."""
    command: str = ""
    """What trains it."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Choices for a text and a time, from the smallest to the largest."""

    text: TextSurvey
    seconds: float
    """The time there is."""
    ram_bytes: int | None
    choices: tuple[Choice, ...]
    recommended: int
    """Which of the choices."""
    notes: tuple[str, ...] = ()
    """What cannot be done, and what would help, each a line."""

    @property
    def best(self) -> Choice:
        """The recommended choice."""
        return self.choices[self.recommended]

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self) | {"best": self.best.command}


def size_of(shape: GPTConfig, windows: int) -> Size:
    """What tells a choice from others of the same plan."""
    return shape.vocab_size, shape.block_size, shape.n_layer, shape.d_model, windows


def choices(
    wish: Wish,
    cost: StepCost,
    room: int | None,
    *,
    without: Collection[Size] = (),
    paces: Mapping[tuple[int, int, int, int], float] | None = None,
) -> list[Choice]:
    """What is best among models of each size, the best first, with foretold speed and memory.

    Args:
        wish: What is asked for.
        cost: What a step takes.
        room: Bytes of memory at most.
        without: Sizes to leave out.
        paces: Vocabulary, context, layers and width -> seconds of a step as a share of what `cost` says.
    """
    paces = paces or {}
    best: dict[int, tuple[float, GPTConfig, int, float, float, float]] = {}
    for shape in shapes(wish):
        group, n_block = round(2 * math.log2(n_parameters(shape))), block_parameters(shape)
        per_token, per_pass, per_step = cost.step_parts(shape)
        room_per_token, room_besides = cost.memory_parts(shape)
        pace = paces.get(size_of(shape, 0)[:-1], 1.0)
        for windows in windows_of(wish, shape.block_size):
            if size_of(shape, windows) in without:
                continue
            batch_size, passes = batch_of(wish, windows, shape.block_size)
            at_once = min(batch_size, passes_of(windows, shape.block_size)[0])  # the engine takes no more than fit
            memory = at_once * shape.block_size * room_per_token + room_besides + _TRAIN_BYTES
            if room is not None and memory > room:
                continue
            seconds = pace * (windows * shape.block_size * per_token + passes * per_pass + per_step) + _STEP_SECONDS
            for most_epochs in EPOCHS:
                steps, is_all = _steps(wish, shape, windows, seconds, _COMPILE_SECONDS, most_epochs)
                if steps < LEAST_STEPS:
                    break
                bits = _bits(wish, shape, n_block, windows, steps)
                if group not in best or bits < best[group][0]:
                    best[group] = bits, shape, windows, most_epochs, seconds, memory
                if is_all:  # the time ends the run before the text does
                    break
    return [_foretold(wish, *found[1:]) for found in sorted(best.values(), key=lambda each: each[0])]


def _foretold(
    wish: Wish, shape: GPTConfig, windows: int, most_epochs: float, step_seconds: float, memory: float
) -> Choice:
    shape, config = _with_dropout(wish, shape, most_epochs), _config(wish, shape, windows)
    found = _choice(wish, shape, config, step_seconds, _COMPILE_SECONDS, int(memory), "", most_epochs)
    assert found is not None  # as many steps as before
    return found


def _with_dropout(wish: Wish, shape: GPTConfig, most_epochs: float) -> GPTConfig:
    """The model for so many passes over the text."""
    return replace(shape, dropout=wish.fixed.get("dropout", dropout(most_epochs)))


def _steps(
    wish: Wish, shape: GPTConfig, windows: int, step_seconds: float, compile_seconds: float, most_epochs: float
) -> tuple[int, bool]:
    """Steps that time and text allow, and whether it is the time that ends them."""
    by_time = int((_USED * wish.seconds - wish.ready_seconds - compile_seconds) / step_seconds)
    by_text = int(most_epochs * _windows_of_text(wish, shape) / windows)
    return min(by_time, by_text), by_time <= by_text


def _windows_of_text(wish: Wish, shape: GPTConfig) -> float:
    """Windows of one pass over the text."""
    text_tokens = wish.train_bytes / wish.text.bytes_per_token[shape.vocab_size]
    return text_tokens / (shape.block_size * wish.text.fill(shape.block_size, shape.vocab_size))


def _bits(wish: Wish, shape: GPTConfig, n_block: int, windows: int, steps: int) -> float:
    # A token that is no target teaches nothing, and padding is no token.
    in_window = shape.block_size * wish.text.fill(shape.block_size, shape.vocab_size)
    targets = windows * in_window * wish.text.target_share
    return LAW.bits_per_byte(
        surprise=wish.text.surprise,
        n_parameters=n_block,
        vocab_size=shape.vocab_size,
        n_tokens=steps * targets,
        bytes_per_token=wish.text.bytes_per_token[shape.vocab_size],
        text_bytes=wish.train_bytes * wish.text.target_share,
        tokens_per_step=targets,
        block_size=in_window,
    )


def _config(wish: Wish, shape: GPTConfig, windows: int) -> TrainConfig:
    """The settings of a run but for its length."""
    known = {name: value for name, value in wish.fixed.items() if name in TrainConfig.__dataclass_fields__}
    known = {name: value for name, value in known.items() if name not in LIMITS}
    batch_size, passes = batch_of(wish, windows, shape.block_size)
    recipe = {name: value for name, value in RECIPE.items() if name in TrainConfig.__dataclass_fields__}
    rate = learning_rate(n_parameters(shape), optimizer=known.get("optimizer", recipe["optimizer"]))
    own = {"batch_size": batch_size, "grad_accum": passes, "learning_rate": rate}
    return TrainConfig(**{**recipe, **own, **known})


def _choice(
    wish: Wish,
    shape: GPTConfig,
    config: TrainConfig,
    step_seconds: float,
    compile_seconds: float,
    memory_bytes: int,
    dtype: str,
    most_epochs: float,
) -> Choice | None:
    """A run as long as time and text allow; None where the time is too short to begin."""
    windows = config.windows_per_step
    tokens_per_step = windows * shape.block_size
    steps, _ = _steps(wish, shape, windows, step_seconds, compile_seconds, most_epochs)
    if steps < LEAST_STEPS:
        return None
    size = n_parameters(shape)
    config, seconds = _with_course(wish, config, steps, tokens_per_step, step_seconds, size)
    return Choice(
        shape=shape,
        config=config,
        n_parameters=size,
        n_tokens=steps * tokens_per_step,
        epochs=steps * windows / _windows_of_text(wish, shape),
        tokens_per_second=tokens_per_step / step_seconds,
        seconds=wish.ready_seconds + compile_seconds + seconds,
        memory_bytes=memory_bytes,
        bits_per_byte=_bits(wish, shape, block_parameters(shape), windows, steps),
        dtype=dtype,
    )


def _with_course(
    wish: Wish, config: TrainConfig, steps: int, tokens_per_step: int, step_seconds: float, size: int
) -> tuple[TrainConfig, float]:
    """The settings with limits, evaluations and saves in their share of the time; seconds from step 1 on."""
    n = max(1, min(50, int(wish.seconds / 120)))
    save = _SAVE_SECONDS + 12 * size / _SAVED_BYTES_PER_SECOND
    batch = 2 * (_EVAL_COST * step_seconds / config.grad_accum + _EVAL_BATCH_SECONDS)  # of both splits
    batches = int(
        min(_EVAL_TOKENS * config.grad_accum / tokens_per_step, (_EVALUATIONS * wish.seconds / n - save) / batch)
    )
    each = max(1, batches) * batch + save
    n = max(1, min(n, int(_EVALUATIONS * wish.seconds / each)))
    every = math.ceil(steps / n)
    course = {
        "max_steps": steps,
        "max_seconds": max(1.0, round(wish.seconds - wish.ready_seconds - each, 1)),
        "warmup_steps": min(RECIPE["warmup_steps"], max(1, steps // 10)),
        "eval_every": every,
        "eval_batches": max(1, batches),
        "save_every": every,
    }
    seconds = steps * step_seconds + math.ceil(steps / every) * each
    if not wish.text.is_prepared:  # a foreign tokenizer may know no start of a document
        n_samples = max(1, min(_MOST_SAMPLES, int(wish.seconds / _SECONDS_PER_SAMPLE)))
        course["sample_every"] = math.ceil(steps / n_samples)
        seconds += n_samples * _SAMPLE_SECONDS
    known = {name: value for name, value in wish.fixed.items() if name in course and name not in LIMITS}
    return replace(config, **{**course, **known}), seconds


def with_measurement(wish: Wish, choice: Choice, row: Mapping[str, Any]) -> Choice | None:
    """The choice with what a step of it takes in truth; None where the time is too short then.

    What was measured while other programs ran says how much memory it takes, and nothing of its speed.
    """
    tokens_per_step = choice.config.windows_per_step * choice.shape.block_size
    waiting_share = row.get("waiting_share", 0.0)
    is_busy = waiting_share > MOST_WAITING
    speed = choice.tokens_per_second if is_busy else row["tokens_per_second"]
    found = []
    for most_epochs in EPOCHS:
        again = _choice(
            wish,
            _with_dropout(wish, choice.shape, most_epochs),
            replace(choice.config, **row.get("settings", {})),
            tokens_per_step / speed + (0.0 if is_busy else _STEP_SECONDS),
            _COMPILE_SECONDS if is_busy else row["compile_seconds"],
            row["memory_bytes"] + _TRAIN_BYTES,
            row["dtype"],
            most_epochs,
        )
        found += [] if again is None else [again]
    best = min(found, key=lambda each: each.bits_per_byte, default=None)
    return None if best is None else replace(best, is_measured=not is_busy, waiting_share=waiting_share)


def command(wish: Wish, choice: Choice) -> str:
    """What trains a choice, as one types it."""
    text: dict[str, Any] = {}
    if not wish.text.is_prepared:
        text = {**wish.reading, "val_fraction": wish.val_fraction}
        # So few documents do not fall apart by their hashes in any given share.
        text |= {"split": "last"} if wish.text.n_documents < 200 else {}
    return train_command(wish.paths, out=wish.out, shape=choice.shape, config=choice.config, text=text)


def notes(wish: Wish, best: Choice) -> Iterator[str]:
    """What cannot be done, and what would help."""
    asked = {name: wish.fixed[name] for name in LIMITS if name in wish.fixed}
    if asked:
        forecast = Forecast(
            steps=planned_steps(
                replace(best.config, **{**dict.fromkeys(LIMITS), **asked}),
                n_windows=int(_windows_of_text(wish, best.shape)),
                tokens_per_window=best.shape.block_size,
            ),
            tokens_per_step=best.config.windows_per_step * best.shape.block_size,
            tokens_per_second=best.tokens_per_second,
        )
        is_longer = (forecast.seconds or 0.0) > wish.seconds
        yield f"{forecast}{f'; in {duration(wish.seconds)}: {best.config.max_steps:,} steps' if is_longer else ''}"
    if best.waiting_share > MOST_WAITING:
        share = f"{best.waiting_share:.0%}"
        yield f"other programs took {share} of the time of measuring: its speed is foretold; plan again when they ended"
    if best.epochs > 4:
        yield f"the text is read {best.epochs:.0f} times; beyond about 4 more text helps, and more time hardly does"
    if best.seconds < 0.8 * wish.seconds:
        yield f"more than {duration(best.seconds)} are of no use to this text: further passes would learn it by heart"
