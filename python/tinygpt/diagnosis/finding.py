"""Finding: one thing that is wrong with a run."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What is wrong with a run, how that is known, and what to change: a line each, without a full stop."""

    name: str
    """Name of the check that found it; `docs/troubleshooting.md` has a heading for each."""
    severity: Literal["wrong", "watch"]
    """Wrong is what spoils the run or its figures; watch is what the next run could do better."""
    what: str
    """What is wrong."""
    evidence: str
    """How it is known: the numbers that were found, and those that would do."""
    advice: str
    """What to change."""
