"""The rows of a suite: ours beside a peer's, the ratio, and whether it is what was aimed at."""

import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

from tinygpt.measurement import processor

from benches.race import SLOW_SECONDS, Run

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "transformers", "gigatoken", "rustbpe", "tiktoken", "tokenizers", "numpy")
HEADING = ("row", "task", "ours s", "rate", "peak MB", "peer", "peer s", "peer MB", "ratio", "target", "reached")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    id: str
    task: str
    ours: Run
    peer: Run | None = None
    amount: float = 0.0
    """What was worked through, in `unit`s."""
    unit: str = "MB"
    target: float | None = None
    kind: Literal["times as fast", "share at least", "times the memory", "times as long", "seconds", "MB", "share"] = (
        "times as fast"
    )
    """What the target is: a ratio to be reached, or one, seconds or MB not to be exceeded."""
    value: float | None = None
    """What is held against the target, where ours and the peer's do not say it."""

    @property
    def found(self) -> float | None:
        """What is held against the target."""
        if self.value is not None:
            return self.value
        if self.kind == "seconds":
            return self.ours.seconds
        if self.kind == "MB":
            return self.ours.rss_mb
        if self.peer is None:
            return None
        if self.kind == "times the memory":
            return self.ours.rss_mb / self.peer.rss_mb
        return self.peer.seconds / self.ours.seconds

    @property
    def is_reached(self) -> bool | None:
        if self.target is None or self.found is None:
            return None
        return self.found >= self.target if self.is_to_be_reached else self.found <= self.target

    @property
    def is_to_be_reached(self) -> bool:
        """Whether more is better."""
        return self.kind in ("times as fast", "share at least")


def cells(row: Row) -> list[str]:
    """A row as the words of a line."""
    sign = "" if row.is_to_be_reached else "<= "
    unit = {"seconds": " s", "MB": " MB", "share": "", "share at least": ""}.get(row.kind, "x")
    rate = f"{row.amount / row.ours.seconds:,.0f} {row.unit}/s" if row.amount and row.ours.seconds else ""
    peer = ["", "", ""] if row.peer is None else [row.peer.name, f"{row.peer.seconds:.3f}", f"{row.peer.rss_mb:.0f}"]
    return [
        *(row.id, row.task, f"{row.ours.seconds:.3f}", rate, f"{row.ours.rss_mb:.0f}", *peer),
        "" if row.found is None else f"{row.found:.2f}{unit}",
        "" if row.target is None else f"{sign}{row.target:g}{unit}",
        {True: "yes", False: "NO", None: ""}[row.is_reached],
    ]


def table(rows: list[Row]) -> str:
    """All rows, in columns as wide as they need."""
    lines = [list(HEADING), *map(cells, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADING))]
    left = {0, 1, 5}
    return "\n".join(
        "  ".join(
            word.ljust(width) if i in left else word.rjust(width)
            for i, (word, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def report(name: str, rows: list[Row], *, python: str = sys.executable, notes: list[str] | None = None) -> None:
    """Prints the table and writes `benches/results/NAME.json`.

    Args:
        name: Of the suite.
        rows: In the order to print them.
        python: The interpreter of the peers, asked for their versions.
        notes: What is to be said below.
    """
    print("\n" + table(rows))
    slow = sorted({row.peer.name for row in rows if row.peer and row.peer.seconds > SLOW_SECONDS})
    said = [
        *(notes or []),
        *([f"one round only, being slower than {SLOW_SECONDS} s: {', '.join(slow)}"] if slow else []),
    ]
    print("".join(f"\n{note}" for note in said))
    facts = machine(python)
    content = {"date": date.today().isoformat(), "machine": facts, "rows": [_plain(row) for row in rows], "notes": said}
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    reached = [row.is_reached for row in rows if row.is_reached is not None]
    print(f"\n{sum(reached)} of {len(reached)} targets reached; {facts['processor']}, {facts['cores']} cores; {path}")


def _plain(row: Row) -> dict[str, object]:
    sides = {"ours": row.ours, "peer": row.peer}
    runs = {
        side: {
            "name": run.name,
            "seconds": round(run.seconds, 5),
            "best_seconds": round(min(run.all_seconds), 5),
            "rounds": len(run.all_seconds),
            "rss_mb": round(run.rss_mb, 1),
        }
        for side, run in sides.items()
        if run is not None
    }
    found = None if row.found is None else round(row.found, 3)
    facts = {"amount": row.amount, "unit": row.unit, "found": found, "target": row.target, "kind": row.kind}
    return {"row": row.id, "task": row.task, **runs, **facts, "reached": row.is_reached}


def machine(python: str) -> dict[str, object]:
    """What the figures were measured on."""
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    extra = [flag for flag in ("amx_bf16", "avx512_bf16") if flag in flags]
    return {
        "processor": ", ".join([processor(), *extra]),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": _versions(python),
    }


def _versions(python: str) -> dict[str, str]:
    code = f"""
import importlib.metadata as packages, json
found = {{}}
for name in {PACKAGES!r}:
    try:
        found[name] = packages.version(name)
    except packages.PackageNotFoundError:
        pass
print(json.dumps(found))
"""
    shown = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout
    found: dict[str, str] = json.loads(shown)
    return found
