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
import json
import math
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from tinygpt.attention import FORMS
from tinygpt.engine import Engine, configure_process, settle
from tinygpt.measuredengines import key_of, remember, remembered
from tinygpt.modelconfig import GPTConfig
from tinygpt.stepclock import Clock, gemm_flops
from tinygpt.stepcost import MOST_WAITING
from tinygpt.trainconfig import ENGINE, TrainConfig

WORTH_SECONDS = 30
"""A run is measured for when it would take at least this long at `SLOW_FLOPS`."""
SLOW_FLOPS = 2e11
"""Operations per second of a slow processor, where nothing was measured."""
_MOST_ERROR = 2e-6  # relative, of a float32 product of 512 terms; float32 itself is at 4e-7, bfloat16 at 3e-3
_MOST_LOSS_ERROR = 5e-3  # relative, of the first loss
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
    key = key_of(config, shape, fixed)
    measured = remembered(key)  # a short run, too, is better off with what a longer one found out
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
    is_busy = bool(shares) and shares[len(shares) // 2] > MOST_WAITING
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
        remember(key, [{**asdict(fitting), "compile_seconds": compile_seconds, "in_part": False}, *rest])
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
    form = "fused" if shape.block_size > _LONGEST_EXPLICIT else engine.attention
    engine = replace(engine, attention=form, micro_batch=config.batch_size, loss_chunk=2 * shape.d_model)
    fixed = {name: getattr(config, name) for name in ENGINE}
    fixed |= {"compile": None if config.compile == "auto" else config.compile == "on"}
    engine = replace(engine, **{k: v for k, v in fixed.items() if v not in ("auto", None)})
    known = remembered(_own_key(config, shape, engine))
    if known and known[0]["memory_bytes"] is not None and _fits(engine_of(known[0]), config):
        return known[0]
    row = _fitting(config, shape, engine, say)
    if not row.get("tokens_per_second"):
        raise RuntimeError("how a step runs here could not be measured")
    if row["waiting_share"] <= MOST_WAITING:
        remember(_own_key(config, shape, engine_of(row)), [{**row, "in_part": False}])
    return row


def settings_of(engine: Engine) -> dict[str, Any]:
    """The fields of `TrainConfig` that name all of an engine, so that a run has nothing to measure.

    Example:
        >>> settings_of(Engine(compile=True, micro_batch=6))["compile"]
        'on'
    """
    named = {name: getattr(engine, name) for name in ENGINE if name not in ("device", "recompute")}
    return {**named, "compile": "on" if engine.compile else "off"}


def _own_key(config: TrainConfig, shape: GPTConfig, engine: Engine) -> str:
    config = replace(config, **settings_of(engine))
    return key_of(config, shape, {name: getattr(config, name) for name in ENGINE})


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
    explicit = shape.block_size <= _LONGEST_EXPLICIT
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
