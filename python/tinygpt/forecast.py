"""Forecast: what a run will take of time, memory and disk, said before its first step."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What lies before a run. `str` gives it as one line; what is not known is left out.

    Example:
        >>> print(Forecast(steps=500_000, tokens_per_step=61_440, tokens_per_second=5829.0, memory_bytes=1_900_000_000))
        500,000 steps x 61,440 tokens = 30.7 G tokens: about 61 days on this machine, 1.9 GB of memory
    """

    steps: int | None
    """Steps still to take; none while a limit of seconds alone has not been turned into steps."""
    tokens_per_step: int
    """Target tokens of a step, in the mean."""
    target_share: float = 1.0
    """Of the tokens that a step computes on; below 1 where documents are padded or questions do not count."""
    tokens_per_second: float | None = None
    """Tokens computed on in a second of whole steps, evaluations and saves left out, where it was measured."""
    memory_bytes: int | None = None
    """Peak of memory, where it was measured."""
    max_seconds: float | None = None
    """Seconds still to go at most."""

    @property
    def seconds(self) -> float | None:
        """Seconds of these steps; None where the speed is not known."""
        if self.steps is None or self.tokens_per_second is None:
            return self.max_seconds
        seconds = self.steps * self.tokens_per_step / self.target_share / self.tokens_per_second
        return seconds if self.max_seconds is None else min(seconds, self.max_seconds)

    def __str__(self) -> str:
        """The forecast in words."""
        tokens = f"{self.tokens_per_step:,} tokens"
        line = f"as many steps of {tokens} as fit" if self.steps is None else f"{self.steps:,} steps x {tokens}"
        if self.steps is not None:
            line += f" = {count(self.steps * self.tokens_per_step)} tokens"
        facts = [] if self.seconds is None else [f"about {duration(self.seconds)} on this machine"]
        facts += [] if self.memory_bytes is None else [f"{count(self.memory_bytes)}B of memory"]
        return f"{line}: {', '.join(facts)}" if facts else line


def count(number: float) -> str:
    """A number in a few characters, with a letter for its thousands.

    Example:
        >>> [count(n) for n in (950, 61_440, 9_999_999, 30_720_000_000, 4e15)]
        ['950', '61.4 k', '10.0 M', '30.7 G', '4000.0 T']
    """
    for letter, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= 0.99995 * size:
            return f"{number / size:.1f} {letter}"
    return f"{number:.0f}"


def duration(seconds: float) -> str:
    """Seconds in the unit that a person would take.

    Example:
        >>> [duration(s) for s in (0.4, 90, 119.9, 5000, 200_000, 5_300_000, 9e7)]
        ['1 second', '90 seconds', '2 minutes', '83 minutes', '56 hours', '61 days', '2.9 years']
    """
    if seconds >= 730 * 86400:
        return f"{seconds / 86400 / 365.25:.1f} years"
    for size, unit, at_least in ((86400, "days", 3), (3600, "hours", 2), (60, "minutes", 1.99)):
        if seconds >= at_least * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds" if seconds >= 1.5 else "1 second"
