"""plan: for a text and a time, what to train: some choices with what each takes and gives, and the command of each.

The text is surveyed (`textsurvey`), a few shapes are measured on this machine (`probe`, which remembers them), all
shapes are weighed by the law of `scaling` at the speed that `stepcost` foretells, and those that are offered are
measured themselves. What a measurement found is what the run then trains with.
"""

import math
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

from tinygpt.forecast import duration
from tinygpt.modelconfig import GPTConfig
from tinygpt.planningrules import heads
from tinygpt.planwish import Wish, shapes
from tinygpt.reading import Reading, folder_name
from tinygpt.runchoice import Choice, Plan, Size, choices, command, notes, size_of, with_measurement
from tinygpt.stepcost import MOST_WAITING, StepCost
from tinygpt.textsurvey import VOCABULARIES, Kind, TextSurvey, survey
from tinygpt.trainconfig import RECIPE, TrainConfig

LEAST_BYTES, LEAST_SECONDS = 100_000, 30
_EXIT_SECONDS = 1.0
_MOST_TRIED, _TRIED_SECONDS = 6, 100
"""Measurements in search of the best choice, of some ten seconds each the first time; one for so many seconds."""
REFERENCES = (
    # vocabulary, context, layers, width, windows: small and large in each, so that nothing is foretold far outside
    *((1024, 64, 2, 64, 12), (2048, 64, 4, 128, 12), (4096, 128, 4, 256, 12)),
    *((2048, 256, 8, 128, 24), (8192, 256, 6, 384, 12), (16384, 256, 6, 512, 24)),
)

Measure = Callable[[TrainConfig, GPTConfig], Mapping[str, Any]]
"""Settings and shape -> what a step of it takes here: "tokens_per_second", "memory_bytes", "compile_seconds", "dtype",
and "settings", the fields of `TrainConfig` that make a run take it so.

Raises ValueError or MemoryError where memory is too small."""


def plan(
    paths: Sequence[str | Path],
    *,
    seconds: float,
    ram: str | None = None,
    kind: Kind | None = None,
    reading: Reading | None = None,
    fixed: Mapping[str, Any] | None = None,
    out: Path | None = None,
    text: TextSurvey | None = None,
    measure: Measure | None = None,
    startup_seconds: float | None = None,
    say: Callable[[str], None] | None = None,
) -> Plan:
    """What to train on a text in a time.

    Args:
        paths: Text, chats, or one prepared folder.
        seconds: All the time there is, from the command to its end.
        ram: Most memory, as 8G; None takes what is free.
        kind: prose, code or chat; None finds out.
        reading: How text is read.
        fixed: Fields of `GPTConfig` and `TrainConfig` that are chosen already. With a limit (`max_steps`, `max_tokens`,
            `epochs`) the plan also says how long that would take.
        out: The run's folder; None takes runs/NAME.
        text: The survey, where it was made before.
        measure: Takes the place of the machine, in tests.
        startup_seconds: Seconds of starting Python and torch; None measures.
        say: Called with a line for each measurement.

    Raises:
        FileNotFoundError: A path does not exist.
        ValueError: Text, time or memory are too little for any model, or `fixed` does not go together.

    Example:
        >>> plan(["books/"], seconds=8 * 3600).best.command  # doctest: +SKIP
        'tinygpt train --data books/ --out runs/books ...'
    """
    if not seconds >= LEAST_SECONDS:
        raise ValueError(
            f"time must be at least {LEAST_SECONDS} seconds, for the smallest model to begin to learn, got {seconds:g}"
        )
    fixed = {**(fixed or {}), **({} if ram is None else {"ram": ram})}
    if "max_seconds" in fixed:
        raise ValueError("max_seconds follows from the time that a plan is for; leave it away")
    vocab_size = fixed.get("vocab_size")
    vocabularies = VOCABULARIES if vocab_size is None else (vocab_size,)
    text = text or survey(paths, reading=reading, kind=kind, vocabularies=vocabularies)
    if vocab_size is not None and vocab_size not in text.bytes_per_token:
        known = ", ".join(map(str, text.bytes_per_token))
        raise ValueError(f"vocab_size must be one that {text.name} is encoded with ({known}), got {vocab_size}")
    if text.n_bytes < LEAST_BYTES:
        raise ValueError(
            f"{text.name}: {text.n_bytes:,} bytes of text are too few to learn a language from; "
            f"{LEAST_BYTES:,} are the least, some megabytes are better"
        )
    measure = measure or Machine(device=fixed.get("device", "auto"), say=say)
    plain = Reading()
    given = {} if reading is None else {k: v for k in asdict(plain) if (v := getattr(reading, k)) != getattr(plain, k)}
    wish = Wish(
        paths=[str(path) for path in paths],
        seconds=seconds,
        text=text,
        reading=given,
        fixed=fixed,
        out=out or Path("runs") / folder_name(Path(paths[0]) if paths else Path("text")),
        startup_seconds=_startup_seconds() if startup_seconds is None else startup_seconds,
    )
    next(shapes(wish))  # what does not go together is said before minutes of measuring
    rows = reference_rows(measure)
    ram_bytes = TrainConfig(ram=ram).ram_bytes
    room = getattr(measure, "free_bytes", None) if ram_bytes is None else ram_bytes
    found = _offered(wish, rows, measure, room)
    best = min(range(len(found)), key=lambda i: found[i].bits_per_byte)
    return Plan(
        text=text,
        seconds=seconds,
        ram_bytes=ram_bytes,
        choices=tuple(replace(choice, command=command(wish, choice)) for choice in found),
        recommended=best,
        notes=(*_busy(max(row.get("waiting_share", 0.0) for row in rows)), *notes(wish, found[best])),
    )


def _busy(waiting_share: float) -> list[str]:
    if waiting_share <= MOST_WAITING:
        return []
    return [
        f"other programs took up to {waiting_share:.0%} of the time of measuring: these times are too long; plan again"
    ]


class Machine:
    """Measures on this machine, by `probe`; loads torch when it is first asked."""

    def __init__(self, *, device: Any = "auto", say: Callable[[str], None] | None = None) -> None:
        self._device, self._say = device, say
        self._engine: Any = None

    def __call__(self, config: TrainConfig, shape: GPTConfig) -> Mapping[str, Any]:
        """What a step takes, by `probe.measured_alone`."""
        from tinygpt import probe

        if self._engine is None:
            shape_of, config_of = _reference(*REFERENCES[2])
            config_of = replace(config_of, device=self._device)
            engine = probe.choose(config_of, shape_of, n_tokens=math.inf, say=self._say)
            if engine.device != "cpu":
                raise ValueError(f"device is {engine.device} here, and a plan is for training on a CPU; use device cpu")
            self._engine = engine
        row = probe.measured_alone(config, shape, self._engine, self._say)
        return {**row, "settings": probe.settings_of(probe.engine_of(row))}

    @property
    def free_bytes(self) -> int | None:
        """Memory that a run may take."""
        from tinygpt.probe import free_bytes

        return free_bytes()


@cache
def _startup_seconds() -> float:
    """Seconds from the command to where a trainer begins."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import tinygpt.train, tinygpt.trainer"], check=False)
    return time.perf_counter() - started + _EXIT_SECONDS


def _reference(
    vocab_size: int, block_size: int, n_layer: int, d_model: int, windows: int
) -> tuple[GPTConfig, TrainConfig]:
    shape = GPTConfig(
        vocab_size=vocab_size,
        block_size=block_size,
        n_layer=n_layer,
        n_head=heads(d_model),
        d_model=d_model,
        qk_norm=True,
    )
    return shape, TrainConfig(batch_size=windows, optimizer=RECIPE["optimizer"])


def reference_rows(measure: Measure) -> list[Mapping[str, Any]]:
    """What steps of the references take here: what every plan begins with."""
    return [_row(config, shape, measure(config, shape)) for shape, config in (_reference(*each) for each in REFERENCES)]


def _row(config: TrainConfig, shape: GPTConfig, found: Mapping[str, Any]) -> Mapping[str, Any]:
    """A measurement as `StepCost.fitted` takes it."""
    seconds = config.windows_per_step * shape.block_size / found["tokens_per_second"]
    size = {"shape": shape, "windows": config.windows_per_step, "passes": config.grad_accum}
    return {**found, **size, "seconds": seconds}


def _offered(wish: Wish, rows: Sequence[Mapping[str, Any]], measure: Measure, room: int | None) -> list[Choice]:
    """The best choice, the best of clearly smaller ones and the best of clearly larger ones, measured."""
    search = _Search(wish, rows, measure, room)
    best = search.best()
    if best is None:
        memory = "" if room is None else f" and {room / 1e9:.1f} GB"
        raise ValueError(
            f"{duration(wish.seconds)}{memory} are too little for any model here; more time or memory is needed"
        )
    smaller = search.first(lambda choice: choice.n_parameters < 0.6 * best.n_parameters)
    larger = search.first(lambda choice: choice.n_parameters > 1.6 * best.n_parameters)
    return [choice for choice in (smaller, best, larger) if choice is not None]


class _Search:
    """Choices foretold and measured in turn: what a measurement found makes the next forecast better."""

    def __init__(self, wish: Wish, rows: Sequence[Mapping[str, Any]], measure: Measure, room: int | None) -> None:
        self._wish, self._rows, self._measure, self._room = wish, list(rows), measure, room
        self._n_references = len(rows)
        self._tried: set[Size] = set()
        self._measured: list[Choice] = []

    def best(self) -> Choice | None:
        """The best that was measured, when no other is foretold to be better, or enough were tried."""
        most = min(_MOST_TRIED, 1 + int(self._wish.seconds / _TRIED_SECONDS))
        while len(self._tried) < (most if self._measured else _MOST_TRIED):  # one that does not fit makes room
            found = self._foretold()
            best = min((choice.bits_per_byte for choice in self._measured), default=math.inf)
            if not found or found[0].bits_per_byte >= best:
                break
            self._try(found[0])
        return min(self._measured, key=lambda choice: choice.bits_per_byte, default=None)

    def first(self, is_wanted: Callable[[Choice], bool]) -> Choice | None:
        """The best of some choices, measured; one that does not fit after all makes room for the next."""
        known = [choice for choice in self._measured if is_wanted(choice)]
        found = [choice for choice in self._foretold() if is_wanted(choice)]
        for choice in found[:3]:
            if (again := self._try(choice)) is not None:
                known.append(again)
                break
        return min(known, key=lambda choice: choice.bits_per_byte, default=None)

    def _foretold(self) -> list[Choice]:
        cost, paces = StepCost.fitted(self._rows), {}
        # Other windows of a shape go at the pace that it was found to have.
        for row in self._rows[self._n_references :]:
            foretold = cost.step_seconds(row["shape"], row["windows"], row["passes"])
            paces[size_of(row["shape"], 0)[:-1]] = row["seconds"] / foretold
        return choices(self._wish, cost, self._room, without=self._tried, paces=paces)

    def _try(self, choice: Choice) -> Choice | None:
        """The choice as it was measured; None where it does not fit."""
        self._tried.add(size_of(choice.shape, choice.config.windows_per_step))
        try:
            row = self._measure(choice.config, choice.shape)
        except (ValueError, MemoryError):
            return None
        if row.get("waiting_share", 0.0) <= MOST_WAITING:
            self._rows.append(_row(choice.config, choice.shape, row))
        again = with_measurement(self._wish, choice, row)
        if again is None or (self._room is not None and again.memory_bytes > self._room):
            return None
        self._measured.append(again)
        return again
