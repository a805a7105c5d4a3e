"""Which engine is fastest here: one real micro-batch of each candidate, timed in a process of its own.

The child process sets threads and memory as a training command does, so that its clock and its peak memory are those
of the run to come; what runs out of memory or kills it costs nothing but the candidate. A part of the model tells which
types and precisions of products are hopeless, and the threads. The other types are tried with each form of attention,
those near the fastest with the compiler, too, then the size of a chunk of logits and the windows at once with the best
so far. What was measured is remembered for this machine, these versions and this shape in a file that may be deleted
at any time.

There is no table of processors: `best` looks at the measurements alone.
"""

import contextlib
import gc
import hashlib
import json
import math
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

from tinygpt.attention import FORMS
from tinygpt.engine import Engine, configure_process, settle
from tinygpt.learner import Learner
from tinygpt.measurement import processor
from tinygpt.model import GPT, GPTConfig
from tinygpt.staging import write_file
from tinygpt.trainconfig import ENGINE, TrainConfig

WORTH_SECONDS = 30
"""A run is measured for when it would take at least this long at `SLOW_FLOPS`."""
SLOW_FLOPS = 2e11
"""Operations per second of a slow processor, where nothing was measured."""
_NUMERIC_WINDOWS = 4  # the first choices are the slowest; a part of a micro-batch tells them apart
_MOST_ERROR = 2e-6  # relative, of a float32 product of 512 terms; float32 itself is at 4e-7, bfloat16 at 3e-3
_MOST_LOSS_ERROR = 5e-3  # relative, of the first loss
_WAY_OF_MEASURING = 3  # one more whenever figures of before would not be measured so again
_MOST_WAITING = 0.1
_NEAR_IN_PART = 0.4  # 2 layers of 6 had bfloat16 at 0.94 of float32, all of them at 1.2 to 1.4
_NEAR = 0.8  # of the fastest before compiling, which gives bfloat16 more than float32
_UNTOUCHED_BYTES = 1 << 30
_LONGEST_EXPLICIT = 1024  # tokens; the weights of all pairs grow with the square


def choose(
    config: TrainConfig, shape: GPTConfig, *, n_tokens: float, say: Callable[[str], None] | None = None
) -> Engine:
    """The engine for a run: what `config` fixes as it says, the rest as measured where the run is long enough for it.

    Args:
        config: The run's settings.
        shape: The model's.
        n_tokens: Tokens that the run will train on, if `config.max_seconds` does not end it before; may be infinite.
        say: Called with a line for each candidate measured.

    Raises:
        ValueError: This machine cannot do what `config` asks, or `ram` is too small for one window.
        MemoryError: What is free is too small for one window.
    """
    fixed = {name: getattr(config, name) for name in ENGINE}
    engine = settle(**fixed)
    seconds = config.max_seconds or math.inf
    is_long = min(n_tokens * shape.flops_per_token / SLOW_FLOPS, seconds) >= WORTH_SECONDS
    if engine.device != "cpu" and config.ram:
        raise ValueError(
            f"ram is for runs on the CPU, and this one is on {engine.device}, where fewer windows are taken at once "
            "when memory runs out; leave it away, or use device cpu"
        )
    if engine.device != "cpu":
        return engine
    key = _key(config, shape, fixed)
    measured = _remembered(key)  # a short run, too, is better off with what a longer one found out
    if not measured and not (is_long or config.ram):
        return engine
    if say is not None and not measured:
        say("measuring how a step runs best here, once for this machine and shape:")
    if not measured:
        task = {"fixed": fixed, "threads": engine.threads}
        is_open = any(fixed[name] in ("auto", None) for name in ENGINE if name != "device")
        found = _in_child(config, shape, task, say) if is_long and is_open else iter(())
        measured = [row for row in found if "out_of_memory" not in row]
    shares = sorted(row.get("waiting_share", 0.0) for row in measured)
    is_busy = bool(shares) and shares[len(shares) // 2] > _MOST_WAITING
    if is_busy:
        message = (
            f"threads waited {shares[len(shares) // 2]:.0%} of the time for a core while the engine was measured: "
            "other programs run here; the choice is for this run alone"
        )
        warnings.warn(message, RuntimeWarning, stacklevel=3)
    whole = [row for row in measured if not row["in_part"]]
    engine = best(whole, n_tokens=n_tokens, seconds=seconds) if whole else engine
    is_known = engine.memory_bytes is not None and _fits(engine, config)
    if is_known or not (is_long or config.ram):
        return engine
    alone = _fitting(config, shape, engine, say)
    fitting = engine_of(alone)
    # Less memory than usual is free at times; what --ram says is a setting, and a part of the key.
    is_usual = fitting.micro_batch == engine.micro_batch
    if whole and not is_busy and (is_usual or config.ram):
        # Where fewer windows fit, that is what there is to choose from; the rest would be tried in vain again.
        rest = [row for row in whole if engine_of(row) != engine] if is_usual else []
        faster = max(engine.tokens_per_second or 0.0, fitting.tokens_per_second or 0.0)
        # Who has compiled before, as the process that measured all, compiles faster.
        same = (engine, fitting)
        compile_seconds = max(row["compile_seconds"] for row in (alone, *whole) if engine_of(row) in same)
        fitting = replace(fitting, tokens_per_second=faster) if rest else fitting
        _remember(key, [{**asdict(fitting), "compile_seconds": compile_seconds, "in_part": False}, *rest])
    return fitting


def with_room(
    config: TrainConfig, shape: GPTConfig, engine: Engine, say: Callable[[str], None] | None = None
) -> Engine:
    """The engine with its peak memory, of a process that does nothing else, and with as few windows at once as fit.

    Args:
        config: The run's settings; the room is what `ram` says, or what is free.
        shape: The model's.
        engine: On the CPU.
        say: Called with a line for each number of windows that was tried.

    Raises:
        ValueError: `ram` is too small for one window.
        MemoryError: What is free is.
    """
    return engine_of(_fitting(config, shape, engine, say))


def measured_alone(
    config: TrainConfig, shape: GPTConfig, engine: Engine, say: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """What one engine gives in a process of its own; remembered for a run whose settings name all of that engine.

    Args:
        config: The settings of the run that may follow; what they fix is not the engine's to say.
        shape: The model's.
        engine: On the CPU; form of attention, windows at once and rows of logits are those that go with the shape.
        say: Called with a line for each number of windows that was tried.

    Returns:
        The fields of the `Engine`, "compile_seconds" and, where it was measured now, "waiting_share".

    Raises:
        ValueError: `ram` is too small for one window.
        MemoryError: What is free is.
        RuntimeError: Nothing could be measured.
    """
    form = "fused" if shape.dropout or shape.block_size > _LONGEST_EXPLICIT else engine.attention
    engine = replace(engine, attention=form, micro_batch=config.batch_size, loss_chunk=2 * shape.d_model)
    fixed = {name: getattr(config, name) for name in ENGINE}
    fixed |= {"compile": None if config.compile == "auto" else config.compile == "on"}
    engine = replace(engine, **{k: v for k, v in fixed.items() if v not in ("auto", None)})
    known = _remembered(_key_of(config, shape, engine))
    if known and known[0]["memory_bytes"] is not None and _fits(engine_of(known[0]), config):
        return known[0]
    row = _fitting(config, shape, engine, say)
    if not row.get("tokens_per_second"):
        raise RuntimeError("how a step runs here could not be measured")
    if row["waiting_share"] <= _MOST_WAITING:
        _remember(_key_of(config, shape, engine_of(row)), [{**row, "in_part": False}])
    return row


def settings_of(engine: Engine) -> dict[str, Any]:
    """The fields of `TrainConfig` that name all of an engine, so that a run has nothing to measure.

    Example:
        >>> settings_of(Engine(compile=True, micro_batch=6))["compile"]
        'on'
    """
    named = {name: getattr(engine, name) for name in ENGINE if name not in ("device", "recompute")}
    return {**named, "compile": "on" if engine.compile else "off"}


def _key_of(config: TrainConfig, shape: GPTConfig, engine: Engine) -> str:
    config = replace(config, **settings_of(engine))
    return _key(config, shape, {name: getattr(config, name) for name in ENGINE})


def _fitting(
    config: TrainConfig, shape: GPTConfig, engine: Engine, say: Callable[[str], None] | None
) -> dict[str, Any]:
    """`with_room`, with what else was measured there."""
    n, limit = engine.micro_batch or config.batch_size, _limit_bytes(config)
    while True:
        rows = list(_in_child(config, shape, {"engine": asdict(engine)}, say))
        if not rows:  # it failed, and said of what
            return {**asdict(engine), "compile_seconds": 0.0}
        fits = "out_of_memory" not in rows[0]
        if fits and _fits(engine_of(rows[0]), config):
            return rows[0]
        if n == 1:
            takes = f"takes {rows[0]['memory_bytes'] / 1e9:.2f} GB" if fits else "does not fit"
            room, step = f"{(limit or 0) / 1e9:.2f} GB", f"a step with one window at a time {takes}"
            if config.ram:
                raise ValueError(f"ram {room} is too little: {step}; use a smaller block_size or model")
            raise MemoryError(f"{room} are free, and {step}")
        n = max(m for m in range(1, n) if config.windows_per_step % m == 0)
        engine = replace(engine, micro_batch=n)


def engine_of(row: Mapping[str, Any]) -> Engine:
    """The engine that a measurement is of."""
    return Engine(**{name: value for name, value in row.items() if name in Engine.__dataclass_fields__})


def _fits(engine: Engine, config: TrainConfig) -> bool:
    limit = _limit_bytes(config)
    return limit is None or (engine.memory_bytes or 0) <= limit


def _limit_bytes(config: TrainConfig) -> int | None:
    return config.ram_bytes or free_bytes()


def best(measured: Iterable[Mapping[str, Any]], *, n_tokens: float, seconds: float = math.inf) -> Engine:
    """The engine whose measurements promise most tokens within the time, or the shortest run; compiling counts.

    Args:
        measured: Rows as the probe makes them: the fields of an `Engine`, "tokens_per_second" and "compile_seconds".
        n_tokens: Tokens of the run.
        seconds: Seconds that the run has at most.

    Example:
        >>> rows = [{**asdict(Engine(dtype="float32")), "tokens_per_second": 500.0, "compile_seconds": 0.0}]
        >>> rows += [{**asdict(Engine(dtype="bfloat16")), "tokens_per_second": 900.0, "compile_seconds": 0.0}]
        >>> best(rows, n_tokens=1e6).dtype, best(rows[:1], n_tokens=1e6).dtype
        ('bfloat16', 'float32')
    """
    n = min(n_tokens, 1e15)

    def cost(row: Mapping[str, Any]) -> tuple[float, float]:
        speed, compiling = row["tokens_per_second"], row["compile_seconds"]
        return -min(n, max(0.0, seconds - compiling) * speed), n / speed + compiling

    return engine_of(min(measured, key=cost))


def cache_file() -> Path:
    """Where measurements are remembered: `tinygpt/engines.json` in the user's folder for caches."""
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "tinygpt" / "engines.json"


def _key(config: TrainConfig, shape: GPTConfig, fixed: Mapping[str, Any]) -> str:
    facts = {
        "machine": [
            processor(),
            os.cpu_count(),
            sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
        ],
        "versions": [version("torch"), version("tinygpt"), platform.python_version(), _WAY_OF_MEASURING],
        "shape": asdict(shape),
        "batch": [config.batch_size, config.grad_accum, config.optimizer],
        "fixed": [dict(fixed), config.ram],
        "threads": torch.get_num_threads(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _remembered(key: str) -> list[dict[str, Any]] | None:
    try:
        rows = json.loads(cache_file().read_text(encoding="utf-8"))[key]
        return [row for row in rows if row["tokens_per_second"] > 0 and row["compile_seconds"] >= 0 <= row["in_part"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(key: str, rows: list[dict[str, Any]]) -> None:
    try:
        content = dict(json.loads(cache_file().read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        content = {}
    try:
        cache_file().parent.mkdir(parents=True, exist_ok=True)
        write_file(cache_file(), json.dumps({**content, key: rows}, indent=1) + "\n")
    except OSError:
        pass  # a machine without a place for caches measures again


def _in_child(
    config: TrainConfig, shape: GPTConfig, task: Mapping[str, Any], say: Callable[[str], None] | None
) -> Iterator[dict[str, Any]]:
    """The rows that a child process measures, as far as it comes; {"out_of_memory": True} where that ended it."""
    task = {"config": asdict(config), "shape": asdict(shape), "limit": _limit_bytes(config), **task}
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(
            [sys.executable, "-m", "tinygpt.probe"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(json.dumps(task))
            child.stdin.close()
            for line in child.stdout:
                if not line.startswith("{"):  # libraries talk, too, when they are asked to
                    continue
                row = json.loads(line)
                if say is not None and "out_of_memory" not in row:
                    say(describe(row))
                yield row
            if child.wait() == -signal.SIGKILL:  # what Linux does to who takes the last of the memory
                yield {"out_of_memory": True}
            elif child.returncode:
                errors.seek(0)
                said = errors.read().strip().splitlines() or [f"exit code {child.returncode}"]
                message = f"measuring how a step runs ended early ({said[-1]})"
                warnings.warn(message, RuntimeWarning, stacklevel=2)
        finally:
            child.kill()
            child.wait()


def describe(row: Mapping[str, Any]) -> str:
    """A measurement as a line."""
    engine = engine_of(row)
    compiled = f" after {row['compile_seconds']:.0f} s of compiling" if engine.compile else ""
    memory = f", {row['memory_bytes'] / 1e9:.2f} GB" if row["memory_bytes"] else ""
    memory += " (2 layers, 4 windows)" if row["in_part"] else ""
    return f"{row['tokens_per_second']:>9,.0f} tokens/s{memory}{compiled}: {engine}"


def measure_all(
    config: TrainConfig,
    shape: GPTConfig,
    fixed: Mapping[str, Any],
    threads: int,
    *,
    measure: Callable[..., dict[str, Any] | None] | None = None,
) -> Iterator[dict[str, Any]]:
    """Measurements of the candidates, choice by choice, in this process.

    Args:
        config: The run's settings; those of the engine are in `fixed`.
        shape: The model's.
        fixed: What the user has fixed, by the names in `ENGINE`; "auto" and None are open.
        threads: CPU threads to begin with.
        measure: Takes the place of the clock, in tests: an `Engine`, and whether in part, to a row or None.
    """
    measure = measure or Clock(config, shape)
    open_ends: dict[str, Any] = {**fixed, "threads": threads}
    rows: list[dict[str, Any]] = []

    def measured(*, in_part: bool, **changes: Any) -> dict[str, Any] | None:
        try:
            return measure(settle(**{**open_ends, **changes}), in_part=in_part)
        except MemoryError:
            return None

    def tried(**changes: Any) -> Iterator[dict[str, Any]]:
        row = measured(in_part=False, **changes)
        if row is not None:
            rows.append(row)
            yield row

    def fastest() -> dict[str, Any]:
        row = max(rows, key=lambda row: row["tokens_per_second"])
        return {**{name: row[name] for name in ENGINE}, "compile": "on" if row["compile"] else "off"}

    in_part: list[dict[str, Any]] = []

    def tried_in_part(**changes: Any) -> Iterator[dict[str, Any]]:
        row = measured(in_part=True, **{**changes, "compile": "off"})
        if row is not None and abs(row["loss"] / (in_part or [row])[0]["loss"] - 1) <= _MOST_LOSS_ERROR:
            in_part.append(row)
            yield row

    for dtype, matmul in _numerics(fixed):
        yield from tried_in_part(dtype=dtype, matmul=matmul)
    if not in_part:
        return
    numbers = [(row["tokens_per_second"], {"dtype": row["dtype"], "matmul": row["matmul"]}) for row in in_part]
    fastest_in_part, fastest_numbers = max(numbers, key=lambda pair: pair[0])
    numbers = [pair for pair in numbers if pair[0] >= _NEAR_IN_PART * fastest_in_part]
    open_ends |= fastest_numbers
    if fixed["threads"] is None and threads > 1:
        yield from tried_in_part(threads=threads // 2)
        open_ends["threads"] = max(in_part, key=lambda row: row["tokens_per_second"])["threads"]
    explicit = shape.block_size <= _LONGEST_EXPLICIT and not shape.dropout
    forms = [fixed["attention"]] if fixed["attention"] != "auto" else FORMS if explicit else ["fused"]
    for compiled in ("off", "on") if fixed["compile"] == "auto" else (fixed["compile"],):
        for _, choice in numbers:
            for form in forms:
                yield from tried(**choice, attention=form, compile=compiled)
        speeds = [
            max((row["tokens_per_second"] for row in rows if choice.items() <= row.items()), default=0.0)
            for _, choice in numbers
        ]
        numbers = [pair for pair, speed in zip(numbers, speeds, strict=True) if speed >= _NEAR * max(speeds)]
    for changes in _changes(config, shape, fixed) if rows else ():
        yield from tried(**{**fastest(), **changes})


def _numerics(fixed: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Types and precisions of products that are open and exact enough here; float32 as it is comes first."""
    dtypes = ("float32", "bfloat16") if fixed["dtype"] == "auto" else (fixed["dtype"],)
    for dtype in dtypes:
        matmuls = ("highest", "medium") if fixed["matmul"] == "auto" and dtype == "float32" else (fixed["matmul"],)
        for matmul in matmuls:
            if matmul != "medium" or fixed["matmul"] == "medium" or _product_error("medium") <= _MOST_ERROR:
                yield dtype, "highest" if matmul == "auto" else matmul


def _product_error(matmul: str) -> float:
    """The relative error of a float32 product under a precision."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(256, 512, generator=generator) for _ in range(2))  # each (256, 512)
    exact = a.double() @ b.double().T  # (256, 256)
    with Engine(matmul=matmul).products():
        return float((a @ b.T - exact).norm() / exact.norm())


def _changes(config: TrainConfig, shape: GPTConfig, fixed: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What is tried with the fastest so far, one after the other."""
    if fixed["loss_chunk"] is None:
        yield {"loss_chunk": 2 * shape.d_model}
    if fixed["micro_batch"] is None:
        for n in (config.batch_size // 2, config.batch_size * 2):
            if 0 < n <= config.windows_per_step and config.windows_per_step % n == 0:
                yield {"micro_batch": n}


class Clock:
    """Measures candidates on random tokens.

    Args:
        config: The run's settings.
        shape: The model's.
        is_alone: Whether one candidate is all that this process will measure, so that the peak memory is its own.
    """

    def __init__(self, config: TrainConfig, shape: GPTConfig, *, is_alone: bool = False) -> None:
        torch.manual_seed(0)
        self._threads = torch.get_num_threads()
        self._first_pace = self._pace()
        self._config = config
        self._model = GPT(shape)
        # The choice of type and precision has the slowest candidates; a part of model and batch tells them apart.
        self._part = None if is_alone else GPT(replace(shape, n_layer=min(2, shape.n_layer)))
        self._is_alone = is_alone

    def __call__(self, engine: Engine, *, in_part: bool) -> dict[str, Any] | None:
        """One candidate: an optimiser step to warm up and for the memory, then micro-batches and a step by the clock.

        Returns:
            The measurement; None where the compiler fails or the loss is no number.

        Raises:
            MemoryError: There is too little.
        """
        windows = engine.micro_batch or self._config.batch_size
        windows = min(windows, _NUMERIC_WINDOWS) if in_part else windows
        model = self._part if in_part and self._part is not None else self._model
        generator = torch.Generator().manual_seed(1)
        ids = torch.randint(model.config.vocab_size, (windows, model.config.block_size + 1), generator=generator)
        x, y = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()  # each (B, T)
        pace = self._pace()
        torch.set_num_threads(engine.threads)
        config = replace(self._config, batch_size=windows, grad_accum=1, micro_batch=None, learning_rate=1e-12)
        try:
            learner = Learner(model, config, replace(engine, micro_batch=windows))
            started = time.perf_counter()
            loss, _ = learner.learn(x, y, 1e-12)
            first = time.perf_counter() - started
            if learner.engine.compile != engine.compile or not math.isfinite(loss):
                return None
            seconds: list[float] = []
            waited, began = _waiting_seconds(), time.perf_counter()
            while len(seconds) < 2 or (sum(seconds) < 0.5 and len(seconds) < 20):
                started = time.perf_counter()
                learner.accumulate(x, y)
                seconds.append(time.perf_counter() - started)
            # What the clock read while threads waited for a core is worth little.
            waiting = (_waiting_seconds() - waited) / (time.perf_counter() - began) / engine.threads
            started = time.perf_counter()
            learner.learn(x, y, 1e-12)
            rest = max(0.0, time.perf_counter() - started - min(seconds))  # of a step, whatever its size
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
                raise
            raise MemoryError(str(error)) from None  # torch says it otherwise
        # A part of the model is there to tell types apart, and has no steps to come.
        n_passes = 1.0 if in_part else self._config.windows_per_step / windows
        tokens_per_second = n_passes * x.numel() / (n_passes * min(seconds) + (0.0 if in_part else rest))
        tokens_per_second *= (pace + self._pace()) / 2 / self._first_pace
        memory = _peak_bytes()
        del learner
        torch.compiler.reset()
        gc.collect()
        return {
            **asdict(engine),
            "tokens_per_second": tokens_per_second,
            "memory_bytes": memory if self._is_alone else None,
            "compile_seconds": max(0.0, first - min(seconds)) if engine.compile else 0.0,
            "loss": loss,
            "in_part": in_part,
            "waiting_share": waiting,
        }

    def _pace(self) -> float:
        """Seconds of some fixed work: what a virtual machine gives drifts by a half within minutes.

        Candidates are measured one after the other; held against this work they compare, whenever their turn was.
        Without it a compiled engine whose turn came in a slow minute lost: 10,956 tokens a second against 14,012, where
        side by side it did 18,203 against 14,668.
        """
        torch.set_num_threads(self._threads)
        a, b = torch.ones(768, 512), torch.ones(512, 2048)
        return min(_seconds(lambda: (a @ b).clone()) for _ in range(6))


def _waiting_seconds() -> float:
    """Seconds that this process's threads were ready to run and had no core; 0 where the system does not say."""
    found = 0
    for file in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError, ValueError, IndexError):  # a thread that has ended
            found += int(file.read_text(encoding="ascii").split()[1])
    return found / 1e9


def _peak_bytes() -> int | None:
    """Most memory that this process has held; None where nobody knows."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return Engine().peak_memory_bytes()
    # getrusage counts what the parent held when it forked
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), None)


def free_bytes() -> int | None:
    """Memory that a new process may take, of the machine and of the group that this process is in."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")]
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8")))
    except (OSError, ValueError):  # another system, or no limit, which is spelt "max"
        pass
    return min(found, default=None)


def gemm_flops(shape: GPTConfig, engine: Engine, *, n_rows: int) -> float:
    """Operations per second of a model's matrix products alone: the peak that a training step is held against.

    Args:
        shape: The model's.
        engine: Type and precision of the products.
        n_rows: Tokens of a micro-batch.
    """
    dtype, c = getattr(torch, engine.dtype), shape.d_model
    up = shape.d_inner * (1 if shape.mlp == "gelu" else 2)
    layers = [(c, (shape.n_head + 2 * shape.n_kv) * shape.d_head), (c, c), (c, up), (shape.d_inner, c)]
    n_operations, seconds = 0.0, 0.0
    with engine.products():
        for n_in, n_out, n_times in [*((*layer, shape.n_layer) for layer in layers), (c, shape.vocab_size, 1)]:
            x, w = torch.randn(n_rows, n_in, dtype=dtype), torch.randn(n_out, n_in, dtype=dtype)
            dy = torch.randn(n_rows, n_out, dtype=dtype)  # (N, n_out)
            products: list[Callable[[], torch.Tensor]] = [
                partial(F.linear, x, w),
                partial(torch.mm, dy, w),
                partial(torch.mm, dy.T, x),
            ]
            for product in products:
                seconds += n_times * min(_seconds(product) for _ in range(4))
                n_operations += n_times * 2.0 * n_rows * n_in * n_out
    return n_operations / seconds


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Reads a task from standard input and writes one measurement a line."""
    task = json.load(sys.stdin)
    config, shape = TrainConfig(**task["config"]), GPTConfig(**task["shape"])
    if task["limit"] is not None:
        with contextlib.suppress(ImportError):  # Windows
            import resource

            # What is mapped and never touched counts here, too, such as the stacks of threads.
            limit = task["limit"] + _UNTOUCHED_BYTES
            _, most = resource.getrlimit(resource.RLIMIT_DATA)
            resource.setrlimit(resource.RLIMIT_DATA, (limit if most < 0 else min(limit, most), most))
    if "engine" not in task:
        configure_process(Engine(threads=task["threads"]))
        for row in measure_all(config, shape, task["fixed"], task["threads"]):
            print(json.dumps(row), flush=True)
        return
    engine = Engine(**task["engine"])
    configure_process(engine)
    try:
        alone = Clock(config, shape, is_alone=True)(engine, in_part=False)
        if alone is not None:
            n_rows = shape.block_size * (engine.micro_batch or config.batch_size)
            print(json.dumps({**alone, "gemm_flops": gemm_flops(shape, engine, n_rows=n_rows)}), flush=True)
    except MemoryError:
        print(json.dumps({"out_of_memory": True}), flush=True)


if __name__ == "__main__":
    main()
