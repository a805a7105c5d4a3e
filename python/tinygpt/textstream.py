"""TextStream: ids to text as they come, in whole characters, up to a stop string."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol


class _Decodes(Protocol):
    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:
        """One piece of text for each id, and a last one."""


class TextStream:
    """The text of one stream of ids, as far as it is certain.

    Args:
        tokenizer: Whose ids they are.
        stop: Strings before which the text ends; they may begin in one token and end in another.

    Raises:
        ValueError: A stop string is empty.

    Example:
        >>> from tinygpt.tokenizer import Tokenizer
        >>> text = TextStream(Tokenizer.train(["a"], pattern="byte"), stop=["END"])
        >>> [text.push(i) for i in "aE é".encode()], text.close()
        (['a', '', 'E ', '', 'é'], '')
    """

    def __init__(self, tokenizer: _Decodes, stop: Sequence[str] = ()) -> None:
        if "" in stop:
            raise ValueError("a stop string must hold at least one character, got an empty one")
        self.is_stopped = False
        """Whether a stop string was met: the text is over."""
        self._stop = tuple(stop)
        self._held = ""
        self._unread: deque[int] = deque()
        self._pieces = tokenizer.decode_stream(iter(self._next, None))

    def push(self, i: int) -> str:
        """What an id makes certain; text that may yet become a stop string is held back."""
        if self.is_stopped:
            return ""
        self._unread.append(i)
        return self._certain(next(self._pieces, ""))

    def close(self) -> str:
        """What was held back, when no id comes any more."""
        if self.is_stopped:
            return ""
        certain = self._certain("".join(self._pieces))
        held, self._held = self._held, ""
        return certain + ("" if self.is_stopped else held)

    def _next(self) -> int | None:
        return self._unread.popleft() if self._unread else None

    def _certain(self, piece: str) -> str:
        held = self._held + piece
        found = [(held.find(stop) + len(stop), held.find(stop)) for stop in self._stop if stop in held]
        if found:  # the one that is complete first, so that it does not matter how the text was cut into tokens
            self.is_stopped, self._held = True, ""
            return held[: min(found)[1]]
        n_kept = max((n for stop in self._stop for n in range(1, len(stop)) if held.endswith(stop[:n])), default=0)
        n_certain = len(held) - n_kept
        self._held = held[n_certain:]
        return held[:n_certain]
