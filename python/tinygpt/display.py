"""What `Trainer.fit` shows while it trains: a bar on a terminal, plain lines elsewhere."""

import sys
from typing import Any

from tqdm import tqdm


class Display:
    """A bar on standard error when that is a terminal, else lines on standard output; a context manager.

    Args:
        is_shown: False shows nothing: of the processes that train together one tells.
    """

    def __init__(self, *, is_shown: bool = True) -> None:
        self._is_shown = is_shown
        self._bar: tqdm[Any] | None = None
        if is_shown and sys.stderr.isatty():
            self._bar = tqdm(unit="step", dynamic_ncols=True)

    def __enter__(self) -> "Display":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, step: int, total_steps: int | None, status: str) -> None:
        """Moves the bar to `step`, with `status` beside it; shows nothing where there is no bar."""
        if self._bar is None:
            return
        if self._bar.n == 0 and step > 1:  # a continued run: the steps before it must not count as speed
            self._bar.initial = self._bar.n = self._bar.last_print_n = step - 1
        self._bar.total = total_steps
        self._bar.set_postfix_str(status, refresh=False)
        self._bar.update(step - self._bar.n)

    def line(self, text: str, *, above_bar: bool = True) -> None:
        """Prints a line; with `above_bar` false only where there is no bar."""
        if not self._is_shown:
            return
        if self._bar is None:
            print(text, flush=True)
        elif above_bar:
            self._bar.write(text)
