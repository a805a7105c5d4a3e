"""One side of a comparison is one Python process; sides run in turn, several rounds, and medians are compared."""

import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

RESULTS = Path(__file__).parent / "results"
LAST_LINE = """
import json
from benches.race import peak_mb
print(json.dumps({"seconds": seconds, "answer": answer, "rss_mb": peak_mb()}))
"""


def peak_mb() -> float:
    """Peak resident memory of this process in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the parent held when it forked
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1000
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one side did."""

    task: str
    side: str
    seconds: float
    """Median over the rounds, of the work alone: imports and loading are outside."""
    best_seconds: float
    rss_mb: float
    """Peak of the whole process."""
    amount: float
    """What was worked through, in `unit`s."""
    unit: str


def race(
    task: str, sides: Mapping[str, str], *, amount: float, unit: str, rounds: int, check: bool = True
) -> list[Row]:
    """Runs each side's code, which sets `seconds` and `answer`, in a process of its own.

    Raises:
        AssertionError: Two sides gave different answers, though `check` says that they must agree.
    """
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, code in sides.items():
            done = subprocess.run([sys.executable, "-c", code + LAST_LINE], capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"{task}, {side}: {done.stderr.strip().splitlines()[-1]}")
            runs[side].append(json.loads(done.stdout.splitlines()[-1]))
    answers = {side: results[0]["answer"] for side, results in runs.items()}
    assert not check or len(set(answers.values())) == 1, f"{task}: the sides disagree: {answers}"
    return [
        Row(
            task=task,
            side=side,
            seconds=median(result["seconds"] for result in results),
            best_seconds=min(result["seconds"] for result in results),
            rss_mb=median(result["rss_mb"] for result in results),
            amount=amount,
            unit=unit,
        )
        for side, results in runs.items()
    ]


def report(name: str, rows: list[Row]) -> None:
    """Prints the table and writes `benches/results/NAME.json`."""
    print(f"\n{'task':<28}{'side':<26}{'median s':>10}{'best s':>9}{'rate':>20}{'peak MB':>10}{'ours is':>10}")
    ours = {row.task: row for row in rows if row.side == "tinygpt"}
    for row in rows:
        ratio = "" if row.side == "tinygpt" else f"{row.seconds / ours[row.task].seconds:.1f}x"
        rate = f"{row.amount / row.seconds:,.1f} {row.unit}/s"
        seconds = f"{row.seconds:>10.2f}{row.best_seconds:>9.2f}"
        print(f"{row.task:<28}{row.side:<26}{seconds}{rate:>20}{row.rss_mb:>10.0f}{ratio:>10}")
    RESULTS.mkdir(exist_ok=True)
    content = {"date": date.today().isoformat(), "machine": machine(), "rows": [asdict(row) for row in rows]}
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"\n{content['machine']['processor']}, {content['machine']['cores']} cores; written: {path}")


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    import os

    packages = ["torch", "tokenizers", "tiktoken", "transformers", "numpy"]
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in packages},
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    extra = [flag for flag in ("amx_bf16", "avx512_bf16") if flag in flags]
    return ", ".join([names[0] if names else platform.processor() or platform.machine(), *extra])


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
