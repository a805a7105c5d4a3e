"""One side of a comparison is one Python process; sides run in turn, several rounds, and medians are compared."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

TOP = Path(__file__).parent.parent
SLOW_SECONDS = 20
"""A side that takes longer runs once only: what it is compared with is not close."""
LAST_LINE = """
import json
print(json.dumps({"seconds": took.seconds, "answer": answer, "rss_mb": took.rss_mb}))
"""


def peak_mb() -> float:
    """Peak resident memory of this process in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the parent held when it forked
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1000
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


@dataclass
class Took:
    """What a clock has measured."""

    seconds: float = 0.0
    rss_mb: float = 0.0


@contextmanager
def clock() -> Iterator[Took]:
    """Measures its block; the peak is that of the process up to the block's end, so that checks come after it."""
    took = Took()
    begin = time.perf_counter()
    yield took
    took.seconds = time.perf_counter() - begin
    took.rss_mb = peak_mb()


@dataclass(frozen=True, kw_only=True)
class Side:
    """One way to do a task."""

    name: str
    code: str
    """Does the work under `with clock() as took:` and sets `answer`."""
    python: str = sys.executable
    """The interpreter that has what `code` imports."""
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one side did, over the rounds."""

    name: str
    all_seconds: tuple[float, ...]
    """Of the work alone: imports and loading are outside."""
    rss_mb: float
    """Median peak of the whole process."""
    answer: object

    @property
    def seconds(self) -> float:
        return median(self.all_seconds)


def race(task: str, sides: list[Side], *, rounds: int, check: bool = True) -> list[Run]:
    """Runs each side's code in a process of its own, in turn.

    Raises:
        AssertionError: Two sides gave different answers, though `check` says that they must agree; or one gave
            different answers in two rounds.
    """
    results: dict[str, list[dict[str, float]]] = {side.name: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            before = results[side.name]
            if not before or before[0]["seconds"] < SLOW_SECONDS:
                before.append(_run(task, side))
    for name, rows in results.items():
        assert all(row["answer"] == rows[0]["answer"] for row in rows), f"{task}, {name}: rounds disagree: {rows}"
    answers = {name: rows[0]["answer"] for name, rows in results.items()}
    assert not check or all(answer == answers[sides[0].name] for answer in answers.values()), (
        f"{task}: the sides disagree: {answers}"
    )
    return [
        Run(
            name=name,
            all_seconds=tuple(row["seconds"] for row in rows),
            rss_mb=median(row["rss_mb"] for row in rows),
            answer=rows[0]["answer"],
        )
        for name, rows in results.items()
    ]


def _run(task: str, side: Side) -> dict[str, float]:
    code = f"from benches.race import clock\n{side.code}{LAST_LINE}"
    environment = {**os.environ, **side.environment}
    done = subprocess.run(
        [side.python, "-c", code], capture_output=True, text=True, check=False, cwd=TOP, env=environment
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise RuntimeError(f"{task}, {side.name}: {said[0]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result
