"""Streams: many texts written at once, each by its own settings; requests come and go between two tokens."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tinygpt.decoder import Decoder
from tinygpt.sampling import History, Sampling, sample

PROMPT_TOKENS = 128
"""Tokens of a prompt that are read in one step, so that a long prompt does not keep other streams waiting."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """A text to continue, in ids."""

    ids: Sequence[int] | Tensor
    """The prompt, not empty; its end is taken where it is longer than the context, with a warning."""
    max_new_tokens: int
    """Most ids to draw."""
    sampling: Sampling = Sampling()  # noqa: RUF009
    """How to draw."""
    seed: int | None = None
    """The same seed gives the same ids; None draws one."""
    stop: frozenset[int] = frozenset()
    """Ids that end it; they are not given out."""
    n_ids: int | None = None
    """Draw from the ids below this alone; None draws from all."""
    n_logprobs: int | None = None
    """None: no scores. 0: the drawn id's. k: those of the k likeliest, too."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 0:
            raise ValueError(f"max_new_tokens must be 0 or more, got {self.max_new_tokens}")
        if self.seed is not None and not 0 <= self.seed < 2**64:
            raise ValueError(f"seed must be from 0 to {2**64 - 1}, got {self.seed}")
        if self.n_logprobs is not None and self.n_logprobs < 0:
            raise ValueError(f"n_logprobs must be 0 or more, got {self.n_logprobs}")


class Stream:
    """A request on its way; made by `Streams.add`."""

    def __init__(self, request: Request, slot: int, ids: list[int], vocab_size: int) -> None:
        self.request = request
        self.slot = slot
        self.context = ids
        """What the model is to have seen: the ids of the present context."""
        self.n_drawn = 0
        self.generator = torch.Generator()
        if request.seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(request.seed)
        sampling = request.sampling
        self._seen = self._drawn = None
        if sampling.repetition_penalty != 1:
            self._seen = torch.zeros(vocab_size, dtype=torch.bool)  # (V,)
            self._seen[ids] = True
        if sampling.presence_penalty or sampling.frequency_penalty:
            self._drawn = torch.zeros(vocab_size)  # (V,)

    @property
    def history(self) -> History:
        """What the penalties look at."""
        return History(seen=self._seen, drawn=self._drawn)

    def note(self, i: int) -> None:
        """Writes down an id that was drawn."""
        self.context.append(i)
        self.n_drawn += 1
        if self._seen is not None:
            self._seen[i] = True
        if self._drawn is not None:
            self._drawn[i] += 1


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What a step brought a stream."""

    stream: Stream
    id: int | None
    """None where a stop id ended it."""
    finish: str | None
    """None: it goes on. "stop": a stop id was drawn. "length": this was the last of `max_new_tokens`."""
    logprob: float | None
    """Natural logarithm of the id's probability in the model's own distribution, before the settings."""
    top: tuple[tuple[int, float], ...]
    """The likeliest ids and theirs, best first."""


class Streams:
    """Requests that share a decoder, each in a slot of its own.

    A stream's ids depend on its request alone, not on its company or on when it came. One thread owns a `Streams`.

    Args:
        decoder: The model, with as many slots as there may be streams.

    Example:
        >>> from tinygpt.decoder import decoder_for
        >>> from tinygpt.model import GPT, GPTConfig
        >>> model = GPT(GPTConfig(vocab_size=9, block_size=4, n_layer=1, n_head=1, d_model=64))
        >>> streams = Streams(decoder_for(model, n_slots=2))
        >>> for prompt in ([1, 2], [3]):
        ...     _ = streams.add(Request(ids=prompt, max_new_tokens=5))
        >>> len(streams.step())
        2
    """

    def __init__(self, decoder: Decoder) -> None:
        self.capacity = decoder.n_slots
        self._decoder = decoder
        self._free = list(range(decoder.n_slots))[::-1]
        self._active: dict[int, Stream] = {}

    @property
    def n_active(self) -> int:
        """Streams on their way."""
        return len(self._active)

    def add(self, request: Request) -> Stream:
        """Begins a stream.

        Raises:
            ValueError: The prompt is empty, or has an id that the model has not.
            RuntimeError: All slots are taken.
        """
        config = self._decoder.config
        ids = _checked(request.ids, config.vocab_size)
        if (n_left_out := len(ids) - config.block_size) > 0:
            warnings.warn(
                f"the prompt has {len(ids)} tokens and the context {config.block_size}: "
                f"the first {n_left_out} are left out",
                stacklevel=3,
            )
        if not self._free:
            raise RuntimeError(f"all {self.capacity} streams are taken")
        slot = self._free.pop()
        self._decoder.cut(slot, 0)
        stream = self._active[slot] = Stream(request, slot, ids[-config.block_size :], config.vocab_size)
        return stream

    def remove(self, stream: Stream) -> None:
        """Ends a stream; nothing happens if it has ended."""
        if self._active.get(stream.slot) is stream:
            del self._active[stream.slot]
            self._free.append(stream.slot)

    def run(self, requests: Iterable[Request]) -> Iterator[tuple[int, Drawn]]:
        """All requests, as many at once as there are slots: number of the request and what it drew, as they come.

        Between two of them a stream may be removed, which ends it. Requests are asked for as slots become free.
        """
        waiting = iter(enumerate(requests))
        numbers: dict[Stream, int] = {}
        while True:
            while self.n_active < self.capacity and (following := next(waiting, None)) is not None:
                numbers[self.add(following[1])] = following[0]
            if not self.n_active:
                return
            for drawn in self.step():
                yield numbers[drawn.stream], drawn

    def step(self) -> list[Drawn]:
        """One id for each stream whose prompt has been read; finished streams leave."""
        over = [stream for stream in self._active.values() if stream.n_drawn >= stream.request.max_new_tokens]
        results = [Drawn(stream=stream, id=None, finish="length", logprob=None, top=()) for stream in over]
        for stream in over:
            self.remove(stream)
        feeds, reading = [], []
        for slot, stream in self._active.items():
            unread = stream.context[self._decoder.n_seen(slot) :]
            feeds.append((slot, unread[:PROMPT_TOKENS]))
            if len(unread) <= PROMPT_TOKENS:
                reading.append((len(feeds) - 1, stream))
        if not feeds:
            return results
        logits = self._decoder.extend(feeds)  # (streams, V)
        # Row by row: torch shares larger work among threads that go on spinning, and the decoder's find no core then.
        # With all rows in one call a model of 41.7 M parameters took 11.8 ms a token, not 3.9 (two cores, an AMD EPYC).
        return results + [self._drawn(stream, logits[row]) for row, stream in reading]

    def _drawn(self, stream: Stream, logits: Tensor) -> Drawn:
        """What a stream draws from logits (V,)."""
        request = stream.request
        history, n_ids = stream.history, request.n_ids
        known = History(
            seen=None if history.seen is None else history.seen[:n_ids],
            drawn=None if history.drawn is None else history.drawn[:n_ids],
        )
        i = int(sample(logits[:n_ids], request.sampling, history=known, generator=stream.generator))
        return self._noted(stream, i, logits)

    def _noted(self, stream: Stream, i: int, logits: Tensor) -> Drawn:
        """The result of a stream that drew `i` from logits (V,)."""
        request = stream.request
        if i in request.stop:
            self.remove(stream)
            return Drawn(stream=stream, id=None, finish="stop", logprob=None, top=())
        logprob, top = token_logprobs(logits[: request.n_ids], i, request.n_logprobs)
        stream.note(i)
        block_size = self._decoder.config.block_size
        if len(stream.context) > block_size:
            stream.context = stream.context[-max(1, block_size // 2) :]
            self._decoder.cut(stream.slot, 0)
        finish = "length" if stream.n_drawn >= request.max_new_tokens else None
        if finish:
            self.remove(stream)
        return Drawn(stream=stream, id=i, finish=finish, logprob=logprob, top=top)


def token_logprobs(
    logits: Tensor, i: int, n_logprobs: int | None
) -> tuple[float | None, tuple[tuple[int, float], ...]]:
    """The logarithm of an id's probability under logits (V,), and the likeliest ids with theirs."""
    if n_logprobs is None:
        return None, ()
    logprobs = logits.float().log_softmax(dim=-1)  # (V,)
    values, ids = logprobs.topk(min(n_logprobs, len(logprobs)))  # each (n_logprobs,)
    return float(logprobs[i]), tuple(zip(ids.tolist(), values.tolist(), strict=True))


def continuation(decoder: Decoder, request: Request) -> Iterator[int]:
    """The ids that follow one prompt; what can be refused is refused at the call."""
    streams = Streams(decoder)
    streams.add(request)
    return _ids(streams)


def _ids(streams: Streams) -> Iterator[int]:
    while streams.n_active:
        yield from (drawn.id for drawn in streams.step() if drawn.id is not None)


def _checked(ids: Sequence[int] | Tensor, vocab_size: int) -> list[int]:
    """The prompt as a list of ids that the model has."""
    prompt = ids.tolist() if hasattr(ids, "tolist") else list(ids)
    if not prompt:
        raise ValueError("the prompt is empty; begin with the document separator, or with any id")
    for i in prompt:
        if isinstance(i, bool) or not isinstance(i, int) or not 0 <= i < vocab_size:
            raise ValueError(f"ids must be whole numbers from 0 to {vocab_size - 1}, got {i!r}")
    return prompt
