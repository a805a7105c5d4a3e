"""sessions.jsonl: when a run was worked on, by which command, on which machine, with what before it; and how it ended.

Each session is a line when it begins and a line when it ends: one without the second was killed, or still goes on.
"""

import json
import os
import re
import socket
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tinygpt.staging import write_file
from tinygpt.values import finite

SESSIONS = "sessions.jsonl"
_REASONS = {"steps": "all steps", "seconds": "the time was over", "patience": "patience was over"}
_FORMAT = {"format": "tinygpt-session", "version": 1}


@dataclass(frozen=True, kw_only=True)
class Session:
    """One stretch of a run, in one process."""

    facts: Mapping[str, Any]
    """What was known when it began: "began" (UTC), "command", "from_step", "forecast" and what the trainer adds."""
    end: Mapping[str, Any] | None
    """What was known when it ended: "ended" (UTC), "step", "seconds", "reason"; None where nothing is."""

    @property
    def began(self) -> str:
        """When it began, UTC."""
        return str(self.facts.get("began")).removesuffix("+00:00").replace("T", " ")

    @property
    def command(self) -> str | None:
        """The command line; None where it began in Python."""
        found = self.facts.get("command")
        return found if isinstance(found, str) else None

    @property
    def from_step(self) -> int:
        """The step that the run stood at."""
        return int(finite(self.facts.get("from_step")) or 0)

    @property
    def from_seconds(self) -> float:
        """The seconds that the run had taken."""
        return finite(self.facts.get("from_seconds")) or 0.0

    @property
    def forecast(self) -> Mapping[str, Any]:
        """What was said before it, as `Forecast` has it."""
        found = self.facts.get("forecast")
        return found if isinstance(found, Mapping) else {}

    @property
    def end_step(self) -> int | None:
        """The step that it ended at, where known."""
        found = None if self.end is None else finite(self.end.get("step"))
        return None if found is None else int(found)

    @property
    def end_seconds(self) -> float | None:
        """The run's seconds then."""
        return None if self.end is None else finite(self.end.get("seconds"))

    @property
    def reason(self) -> str:
        """Why it ended, in words."""
        reason = "" if self.end is None else str(self.end.get("reason"))
        return _REASONS.get(reason, reason)


@contextmanager
def recorded(folder: Path, facts: Mapping[str, Any], ending: Callable[[], Mapping[str, Any]]) -> Iterator[None]:
    """Records a session while the block runs; a folder that cannot be written is warned of, and the block runs.

    Args:
        folder: The run.
        facts: What is known as it begins.
        ending: Asked what is known as it ends; an error that ends the block is recorded as its reason.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as run:
        ...     with recorded(Path(run), {"from_step": 0}, lambda: {"step": 9, "reason": "steps"}):
        ...         pass
        ...     [(each.facts["from_step"], each.end["step"]) for each in read_sessions(Path(run))]
        [(0, 9)]
    """
    _append(folder, {**_FORMAT, "began": _now(), **facts})
    failed: dict[str, Any] = {}
    try:
        yield
    except Exception as error:
        failed["reason"] = f"{type(error).__name__}: {error}"
        raise
    finally:
        _append(folder, {"ended": _now(), **ending(), **failed})


def read_sessions(folder: Path) -> list[Session]:
    """The sessions of a run, oldest first; none where there is no such file, and none from the first torn line on."""
    path, found = folder / SESSIONS, list[Session]()
    for text in path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else ():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            break
        if not isinstance(line, dict):
            break
        if "began" in line:
            found.append(Session(facts=line, end=None))
        elif found and found[-1].end is None:
            found[-1] = Session(facts=found[-1].facts, end=line)
    return found


def is_held(folder: Path) -> bool:
    """Whether a process of this machine that lives holds the run's folder; of other machines' nothing is known."""
    try:
        owner = (folder / ".lock-owner").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
    found = re.fullmatch(r"process (\d+) on (.*)", owner)
    if found is None or found[2] != socket.gethostname() or os.name != "posix":  # elsewhere a signal 0 is a real one
        return False
    try:
        os.kill(int(found[1]), 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def _append(folder: Path, line: Mapping[str, Any]) -> None:
    path = folder / SESSIONS
    try:
        before = path.read_bytes() if path.is_file() else b""
        whole = before[: before.rfind(b"\n") + 1]
        write_file(path, whole + json.dumps(line, ensure_ascii=True, allow_nan=False).encode() + b"\n")
    except (OSError, ValueError) as error:
        warnings.warn(f"{path}: not written: {error}", RuntimeWarning, stacklevel=4)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
