"""Choice: a run that could be trained in a time, what it takes and gives, and its command; which runs there are.

docs/planning.md has the source of every rule here.
"""

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tinygpt.forecast import count, duration
from tinygpt.modelconfig import GPTConfig
from tinygpt.planningrules import (
    CONTEXTS,
    EPOCHS,
    LAYERS,
    STEP_TOKENS,
    WIDTHS,
    dropout,
    heads,
    learning_rate,
    passes_of,
)
from tinygpt.scaling import Law
from tinygpt.stepcost import StepCost, block_parameters, n_parameters
from tinygpt.textsurvey import TextSurvey
from tinygpt.trainconfig import LIMITS, RECIPE, TrainConfig

LEAST_STEPS = 20
MOST_WAITING = 0.1
"""Share of the time of a measurement that threads may wait for a core: beyond it, its speed is worth nothing."""
_COMPILE_SECONDS = 5.0  # of a choice that is not measured
_USED = 0.90  # of the time; the rest is for evaluations, saves, and a machine that is slower then
_EVALUATIONS = 0.05  # of the time
_EVAL_TOKENS, _EVAL_COST = 50_000, 0.45  # of an evaluation; of training on as many
_EVAL_BATCH_SECONDS = 0.015  # of each batch besides, uncompiled
_STEP_SECONDS = 0.0035  # what a trainer does in a step beside what the probe measures: batch, norms, report
_SAVE_SECONDS, _SAVED_BYTES_PER_SECOND = 0.3, 4e8
_TRAIN_BYTES = 130_000_000  # beside what the probe's process holds: tokenizer, data, evaluation, checkpoint


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What could be trained, and what that takes and gives."""

    shape: GPTConfig
    config: TrainConfig
    """With `max_steps` and `max_seconds`."""
    n_parameters: int
    n_tokens: int
    """Tokens of the whole run."""
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
    most_epochs: float
    """Passes over the text that its dropout is for."""
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
    law: Law

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


def choices(wish: Wish, cost: StepCost, room: int | None) -> list[Choice]:
    """What is best among models of each size, the best first, with foretold speed and memory."""
    best: dict[int, tuple[float, GPTConfig, int, float]] = {}
    for shape in _shapes(wish):
        size, n_block = n_parameters(shape), block_parameters(shape)
        per_token, per_pass, per_step = cost.step_parts(shape)
        room_per_token, room_besides = cost.memory_parts(shape)
        for windows in _windows(wish, shape.block_size):
            batch_size, passes = passes_of(windows, shape.block_size)
            memory = batch_size * shape.block_size * room_per_token + room_besides + _TRAIN_BYTES
            if room is not None and memory > room:
                continue
            step_seconds = windows * shape.block_size * per_token + passes * per_pass + per_step + _STEP_SECONDS
            for most_epochs in EPOCHS:
                steps, is_all = _steps(wish, shape, windows, step_seconds, _COMPILE_SECONDS, most_epochs)
                if steps < LEAST_STEPS:
                    break
                bits = _bits(wish, shape, n_block, windows, steps)
                group = round(2 * math.log2(size))
                if group not in best or bits < best[group][0]:
                    best[group] = bits, shape, windows, most_epochs
                if is_all:  # the time ends the run before the text does
                    break
    return [_foretold(wish, cost, *found[1:]) for found in sorted(best.values(), key=lambda each: each[0])]


def _foretold(wish: Wish, cost: StepCost, shape: GPTConfig, windows: int, most_epochs: float) -> Choice:
    shape = replace(shape, dropout=wish.fixed.get("dropout", dropout(most_epochs)))
    config = _config(wish, shape, windows)
    seconds = cost.step_seconds(shape, windows, config.grad_accum) + _STEP_SECONDS
    memory = cost.memory_bytes(shape, config.batch_size) + _TRAIN_BYTES
    found = _choice(wish, shape, config, seconds, _COMPILE_SECONDS, int(memory), "", most_epochs)
    assert found is not None  # as many steps as before
    return found


def _steps(
    wish: Wish, shape: GPTConfig, windows: int, step_seconds: float, compile_seconds: float, most_epochs: float
) -> tuple[int, bool]:
    """Steps that time and text allow, and whether it is the time that ends them."""
    text_tokens = wish.train_bytes / wish.text.bytes_per_token[shape.vocab_size]
    by_time = int((_USED * wish.seconds - wish.ready_seconds - compile_seconds) / step_seconds)
    by_text = int(most_epochs * text_tokens / (windows * shape.block_size))
    return min(by_time, by_text), by_time <= by_text


def _bits(wish: Wish, shape: GPTConfig, n_block: int, windows: int, steps: int) -> float:
    return wish.law.bits_per_byte(
        surprise=wish.text.surprise,
        n_parameters=n_block,
        vocab_size=shape.vocab_size,
        n_tokens=steps * windows * shape.block_size,
        bytes_per_token=wish.text.bytes_per_token[shape.vocab_size],
        text_bytes=wish.train_bytes,
        tokens_per_step=windows * shape.block_size,
        block_size=shape.block_size,
    )


def _shapes(wish: Wish) -> Iterator[GPTConfig]:
    fixed = {name: value for name, value in wish.fixed.items() if name in GPTConfig.__dataclass_fields__}
    is_llama = not fixed.keys() & {"position", "norm", "bias", "mlp"}  # no standard class has another form and qk_norm
    contexts = [t for t in CONTEXTS if t <= 256 or wish.text.kind != "prose"]
    for vocab_size in [fixed["vocab_size"]] if "vocab_size" in fixed else wish.text.bytes_per_token:
        for block_size in [fixed["block_size"]] if "block_size" in fixed else contexts:
            for d_model in [fixed["d_model"]] if "d_model" in fixed else WIDTHS:
                for n_layer in [fixed["n_layer"]] if "n_layer" in fixed else LAYERS:
                    if "n_layer" not in fixed and not 24 <= d_model / n_layer <= 128:
                        continue
                    options = {"n_head": heads(d_model), "qk_norm": RECIPE["qk_norm"] and is_llama, **fixed}
                    options |= {"vocab_size": vocab_size, "block_size": block_size}
                    yield GPTConfig(**{**options, "d_model": d_model, "n_layer": n_layer})


def _windows(wish: Wish, block_size: int) -> list[int]:
    """Windows of a step, those that make about the same number of tokens whatever the context is."""
    if {"batch_size", "grad_accum"} & set(wish.fixed):
        return [wish.fixed.get("batch_size", TrainConfig().batch_size) * wish.fixed.get("grad_accum", 1)]
    return sorted({max(1, tokens // block_size) for tokens in STEP_TOKENS})


def _config(wish: Wish, shape: GPTConfig, windows: int) -> TrainConfig:
    """The settings of a run but for its length."""
    known = {name: value for name, value in wish.fixed.items() if name in TrainConfig.__dataclass_fields__}
    known = {name: value for name, value in known.items() if name not in LIMITS}
    batch_size, passes = passes_of(windows, shape.block_size)
    recipe = {name: value for name, value in RECIPE.items() if name in TrainConfig.__dataclass_fields__}
    if "batch_size" in known:  # the engine takes fewer at once where they do not fit
        batch_size, passes = known["batch_size"], windows // known["batch_size"]
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
        epochs=steps * tokens_per_step * wish.text.bytes_per_token[shape.vocab_size] / wish.train_bytes,
        tokens_per_second=tokens_per_step / step_seconds,
        seconds=wish.ready_seconds + compile_seconds + seconds,
        memory_bytes=memory_bytes,
        bits_per_byte=_bits(wish, shape, block_parameters(shape), windows, steps),
        dtype=dtype,
        most_epochs=most_epochs,
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
    known = {name: value for name, value in wish.fixed.items() if name in course and name not in LIMITS}
    return replace(config, **{**course, **known}), steps * step_seconds + math.ceil(steps / every) * each


def with_measurement(wish: Wish, choice: Choice, row: Mapping[str, Any]) -> Choice | None:
    """The choice with what a step of it takes in truth; None where the time is too short then.

    What was measured while other programs ran says how much memory it takes, and nothing of its speed.
    """
    tokens_per_step = choice.config.windows_per_step * choice.shape.block_size
    waiting_share = row.get("waiting_share", 0.0)
    is_busy = waiting_share > MOST_WAITING
    speed = choice.tokens_per_second if is_busy else row["tokens_per_second"]
    again = _choice(
        wish,
        choice.shape,
        replace(choice.config, **row.get("settings", {})),
        tokens_per_step / speed + (0.0 if is_busy else _STEP_SECONDS),
        _COMPILE_SECONDS if is_busy else row["compile_seconds"],
        row["memory_bytes"] + _TRAIN_BYTES,
        row["dtype"],
        choice.most_epochs,
    )
    return None if again is None else replace(again, is_measured=not is_busy, waiting_share=waiting_share)


def command(wish: Wish, choice: Choice) -> str:
    """What trains a choice, as one types it."""
    words = ["tinygpt", "train", "--data", *wish.paths, "--out", str(wish.out)]
    if not wish.text.is_prepared:
        words += _flags({**wish.reading, "val_fraction": wish.val_fraction})
        # So few documents do not fall apart by their hashes in any given share.
        words += ["--split", "last"] if wish.text.n_documents < 200 else []
    shape, plain = asdict(choice.shape), {f.name: f.default for f in GPTConfig.__dataclass_fields__.values()}
    always = ("vocab_size", "n_layer", "n_head", "d_model", "block_size", "dropout")
    recipe = {**plain, **RECIPE, "vocab_size": None}
    words += _flags({n: shape[n] for n in shape if n in always or shape[n] != recipe[n]})
    defaults = {f.name: f.default for f in TrainConfig.__dataclass_fields__.values()} | RECIPE
    settings = asdict(choice.config)
    named = ("batch_size", "grad_accum", "learning_rate")
    words += _flags({n: v for n, v in settings.items() if n in named or v != defaults[n]})
    return shlex.join(words)


def _flags(values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            yield f"--{flag}" if value else f"--no-{flag}"
        elif value is not None:
            yield f"--{flag}"
            yield from (
                [str(part) for part in value]
                if isinstance(value, tuple | list)
                else [f"{value:g}" if isinstance(value, float) else str(value)]
            )


def notes(wish: Wish, best: Choice) -> Iterator[str]:
    """What cannot be done, and what would help."""
    asked = {name: wish.fixed[name] for name in LIMITS if name in wish.fixed and name != "max_seconds"}
    tokens_per_step = best.config.windows_per_step * best.shape.block_size
    if asked:
        steps = min(
            math.ceil(
                {"max_steps": value, "max_tokens": value / tokens_per_step}.get(
                    name, value * wish.train_bytes / wish.text.bytes_per_token[best.shape.vocab_size] / tokens_per_step
                )
            )
            for name, value in asked.items()
        )
        n, seconds = steps * tokens_per_step, steps * tokens_per_step / best.tokens_per_second
        line = f"{steps:,} steps of {tokens_per_step:,} tokens = {count(n)} tokens: {duration(seconds)} here"
        if seconds > wish.seconds:
            line += f"; in {duration(wish.seconds)}: {best.config.max_steps:,} steps"
        yield line
    if best.waiting_share > MOST_WAITING:
        share = f"{best.waiting_share:.0%}"
        yield f"other programs took {share} of the time of measuring: its speed is foretold; plan again when they ended"
    if best.epochs > 4:
        yield f"the text is read {best.epochs:.0f} times; beyond about 4 more text helps, and more time hardly does"
    if best.seconds < 0.8 * wish.seconds:
        yield f"more than {duration(best.seconds)} are of no use to this text: further passes would learn it by heart"
