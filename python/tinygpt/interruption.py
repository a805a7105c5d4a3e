"""Ctrl-C and SIGTERM end a run after the step in hand, saved, and imports at once: for commands alone."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


def leave_on_interrupt() -> None:
    """Ctrl-C ends the process at once with exit code 130, until `raise_on_interrupt`.

    For what a command imports before it can catch anything. A handler that somebody else has set stays.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def raise_on_interrupt() -> None:
    """Ends `leave_on_interrupt`: Ctrl-C raises KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(number: int, _: FrameType | None) -> None:
    os.write(2, b"tinygpt: stopped: by Ctrl-C\n")
    os._exit(128 + number)


class Interruption:
    """Which signal, if any, ended a run under `stop_on_signals`."""

    number: int | None = None

    @property
    def exit_code(self) -> int:
        """130 for Ctrl-C, 143 for SIGTERM, 0 for none."""
        return 0 if self.number is None else 128 + self.number


@contextmanager
def stop_on_signals(stop: Callable[[str], None]) -> Iterator[Interruption]:
    """Ctrl-C and SIGTERM finish the step in hand and save; a second one ends the process at once. For commands.

    Args:
        stop: Called with the signal's name; `Trainer.stop`.

    Example:
        >>> with stop_on_signals(trainer.stop) as interruption:  # doctest: +SKIP
        ...     trainer.fit()
        >>> raise SystemExit(interruption.exit_code)  # doctest: +SKIP
    """
    interruption = Interruption()

    def on_signal(number: int, _: FrameType | None) -> None:
        if interruption.number is not None:
            os._exit(128 + number)
        interruption.number = number
        stop(signal.Signals(number).name)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
