"""ServerMetrics: what a server has done, as Prometheus reads it."""

import os
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Upper ends of the ranges into which durations are counted."""


class ServerMetrics:
    """Counts, and durations in ranges; belongs to one thread.

    Example:
        >>> metrics = ServerMetrics()
        >>> metrics.add("requests_total", route="/health", status="200")
        >>> print(metrics.text({}).splitlines()[1])
        tinygpt_requests_total{route="/health",status="200"} 1
    """

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._ranges = {name: [0] * (len(SECONDS) + 1) for name in DURATIONS}
        self._sums = dict.fromkeys(DURATIONS, 0.0)
        self._started = time.monotonic()

    def add(self, name: str, n: int = 1, **labels: str) -> None:
        """Counts `n` more of something."""
        self._counts[name, ",".join(f'{key}="{value}"' for key, value in labels.items())] += n

    def took(self, name: str, seconds: float) -> None:
        """Notes a duration."""
        self._ranges[name][bisect_left(SECONDS, seconds)] += 1
        self._sums[name] += seconds

    def text(self, gauges: Mapping[str, float]) -> str:
        """Everything in Prometheus' text format, with `gauges` as they are now."""
        return "\n".join(self._lines(gauges)) + "\n"

    def _lines(self, gauges: Mapping[str, float]) -> Iterator[str]:
        for name in sorted({name for name, _ in self._counts}):
            yield f"# TYPE tinygpt_{name} counter"
            for labels in sorted(labels for each, labels in self._counts if each == name):
                yield f"tinygpt_{name}{'{' + labels + '}' if labels else ''} {self._counts[name, labels]}"
        for name in DURATIONS:
            yield f"# TYPE tinygpt_{name} histogram"
            below = 0
            for end, n in zip([*map(str, SECONDS), "+Inf"], self._ranges[name], strict=True):
                below += n
                yield f'tinygpt_{name}_bucket{{le="{end}"}} {below}'
            yield f"tinygpt_{name}_sum {self._sums[name]:.6f}"
            yield f"tinygpt_{name}_count {below}"
        now = {"uptime_seconds": time.monotonic() - self._started, **gauges}
        for name, value in now.items():
            yield f"# TYPE tinygpt_{name} gauge"
            yield f"tinygpt_{name} {value:g}"
        if (resident := _resident_bytes()) is not None:
            yield "# TYPE process_resident_memory_bytes gauge"
            yield f"process_resident_memory_bytes {resident}"


def _resident_bytes() -> int | None:
    """Memory of this process, where the system says it."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


DURATIONS = ("first_token_seconds", "answer_seconds")
"""From the arrival of a request to its first token, and to its end."""
