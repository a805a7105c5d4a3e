"""EngineThread: the one thread that owns a model's streams; requests wait for it in a bounded row."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tinygpt.decoder import Decoder
from tinygpt.generation import Drawn, Request, Stream, Streams, token_logprobs
from tinygpt.modelconfig import GPTConfig
from tinygpt.refusal import Refusal
from tinygpt.textstream import TextStream

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Token:
    """A token of an answer or of its prompt."""

    id: int
    """The token."""
    logprob: float | None = None
    """Natural logarithm of its probability, where asked for."""
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest ids at its place and theirs."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What has become of a job since the last piece."""

    index: int
    """Which answer of its request."""
    text: str = ""
    """Text that is certain now."""
    tokens: tuple[Token, ...] = ()
    """Tokens drawn."""
    prompt: tuple[Token, ...] = ()
    """The prompt's tokens, judged, where asked for."""
    finish: str | None = None
    """None: it goes on. "stop", "length", or "error": the engine failed."""


@dataclass(eq=False, kw_only=True)
class Job:
    """One answer on its way."""

    index: int
    request: Request
    text: TextStream
    tell: Callable[[Piece], None]
    """Called with every piece, through `call_soon`."""
    judge_prompt: bool = False
    """Say how likely each token of the prompt is."""
    is_over: bool = field(default=False, init=False)


class EngineThread:
    """Draws tokens for all jobs at once, in a thread of its own.

    Args:
        decoder: The model; its last slot judges prompts, the others are streams.
        max_queue: Most jobs that wait for a stream.
        call_soon: Runs a function where the jobs' `tell` may be called; an event loop's `call_soon_threadsafe`.
    """

    def __init__(self, decoder: Decoder, *, max_queue: int, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._decoder, self._call_soon = decoder, call_soon
        self._streams = Streams(_Slots(decoder, decoder.n_slots - 1))
        self._active: dict[Stream, Job] = {}
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._cancelled: list[Job] = []
        self._is_closed = False
        self.max_jobs = self._streams.capacity + max_queue
        """Most jobs at once, waiting ones and others."""
        self.n_jobs = 0
        """Jobs that have not ended."""
        self._thread = threading.Thread(target=self._run, name="tinygpt-engine", daemon=True)
        self._thread.start()

    @property
    def n_streams(self) -> int:
        """Jobs that may have one at once."""
        return self._streams.capacity

    @property
    def n_active(self) -> int:
        """Jobs that have a stream."""
        return len(self._active)

    @property
    def n_waiting(self) -> int:
        """Jobs that wait for one."""
        return len(self._waiting)

    @property
    def is_alive(self) -> bool:
        """Whether jobs are worked on."""
        return self._thread.is_alive()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Puts jobs into the row, all or none.

        Raises:
            Refusal: The row is full, for now or for ever.
        """
        if len(jobs) > self.max_jobs:
            raise Refusal(
                f"prompts times n must be at most {self.max_jobs} answers, got {len(jobs)}; ask in parts", param="n"
            )
        with self._changed:
            if self.n_jobs + len(jobs) > self.max_jobs:
                found = f"{self.n_jobs} answers are on their way and {self.max_jobs} may be"
                raise Refusal(f"{found}; try again soon", status=429, code="queue_full", headers={"Retry-After": "1"})
            self.n_jobs += len(jobs)
            self._waiting.extend(jobs)
            self._changed.notify()

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Takes jobs away, wherever they are; nothing happens to those that have ended."""
        with self._changed:
            for job in (job for job in jobs if not job.is_over):
                job.is_over = True
                self.n_jobs -= 1
                if job in self._waiting:
                    self._waiting.remove(job)
                else:
                    self._cancelled.append(job)
            self._changed.notify()

    def close(self) -> None:
        """Ends the thread after the step in hand."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while (begun := self._next()) is not None:
            pieces: list[tuple[Job, Piece]] = []
            try:
                for job in begun:
                    if job.judge_prompt:
                        pieces.append((job, Piece(index=job.index, prompt=self._judged(job.request))))
                    self._active[self._streams.add(job.request)] = job
                pieces += [
                    (self._active[d.stream], self._piece(self._active[d.stream], d)) for d in self._streams.step()
                ]
            except Exception:
                _LOG.exception("the engine failed")
                lost = dict.fromkeys([*begun, *self._active.values()])
                pieces = [(job, Piece(index=job.index, finish="error")) for job in lost]
            self._settle(pieces)
            self._call_soon(lambda pieces=pieces: _deliver(pieces))  # type: ignore[misc]

    def _next(self) -> list[Job] | None:
        """The jobs that begin now, when there is something to do; None when there never will be."""
        with self._changed:
            while not (self._waiting or self._active or self._cancelled or self._is_closed):
                self._changed.wait()
            gone, self._cancelled = set(self._cancelled), []
            for stream in [stream for stream, job in self._active.items() if job in gone]:
                self._streams.remove(stream)
                del self._active[stream]
            n_free = self._streams.capacity - self._streams.n_active
            return (
                None if self._is_closed else [self._waiting.popleft() for _ in range(min(n_free, len(self._waiting)))]
            )

    def _piece(self, job: Job, drawn: Drawn) -> Piece:
        text = "" if drawn.id is None else job.text.push(drawn.id)
        finish = "stop" if job.text.is_stopped else drawn.finish
        if finish is not None and not job.text.is_stopped:
            text += job.text.close()
            finish = "stop" if job.text.is_stopped else finish
        tokens = () if drawn.id is None else (Token(id=drawn.id, logprob=drawn.logprob, top=drawn.top),)
        return Piece(index=job.index, text=text, tokens=tokens, finish=finish)

    def _settle(self, pieces: Sequence[tuple[Job, Piece]]) -> None:
        """Frees what finished jobs held."""
        over = {job for job, piece in pieces if piece.finish is not None}
        for stream in [stream for stream, job in self._active.items() if job in over]:
            self._streams.remove(stream)
            del self._active[stream]
        with self._changed:
            for job in (job for job in over if not job.is_over):
                job.is_over = True
                self.n_jobs -= 1

    def _judged(self, request: Request) -> tuple[Token, ...]:
        """The tokens of a prompt, each with its probability after those before it; the first has none."""
        ids, slot = [*request.ids], self._decoder.n_slots - 1
        self._decoder.cut(slot, 0)
        logits = self._decoder.extend([(slot, ids)], every=True)  # (T, V)
        judged = [Token(id=ids[0])]
        for row, i in zip(logits, ids[1:], strict=False):
            logprob, top = token_logprobs(row[: request.n_ids], i, request.n_logprobs)
            judged.append(Token(id=i, logprob=logprob, top=top))
        return tuple(judged)


class _Slots:
    """The first slots of a decoder, as one."""

    def __init__(self, decoder: Decoder, n_slots: int) -> None:
        self.n_slots, self._decoder = n_slots, decoder
        self.config: GPTConfig = decoder.config
        self.n_seen, self.cut, self.extend = decoder.n_seen, decoder.cut, decoder.extend


def _deliver(pieces: Sequence[tuple[Job, Piece]]) -> None:
    for job, piece in pieces:
        job.tell(piece)
