"""Service: a model that answers requests of OpenAI's API, whatever carries them."""

import asyncio
import hashlib
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from typing import Any

import anyio
import torch

from tinygpt import openaireply
from tinygpt.anytokenizer import AnyTokenizer
from tinygpt.chattemplate import knows_chats
from tinygpt.checkpoint import Checkpoint
from tinygpt.decoder import Decoder
from tinygpt.enginethread import EngineThread, Job, Piece
from tinygpt.openaireply import AnswerText, Record
from tinygpt.openairequest import Asked
from tinygpt.refusal import Refusal
from tinygpt.textstream import TextStream

LEAST_CHAT_TOKENS = 16
"""Tokens of a chat's answer when neither the request nor the room left in the context gives more."""
_MOST_JUDGED = 8192


class Service:
    """Answers for one event loop; see `application` for its arguments."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        decoder: Decoder,
        *,
        model_name: str,
        max_queue: int,
        request_seconds: float,
        precision: str,
    ) -> None:
        if checkpoint.tokenizer is None:
            raise ValueError(f"{checkpoint.folder or 'the model'}: no tokenizer.json beside the model; put it there")
        self.checkpoint, self.tokenizer, self.model_name = checkpoint, checkpoint.tokenizer, model_name
        self.request_seconds = request_seconds
        self.context = decoder.config.block_size
        self.fingerprint = fingerprint(checkpoint, precision)
        self.is_chat = knows_chats(self.tokenizer.special_tokens)
        self.created = int(time.time())
        self.is_closing = False
        self.open: set[Answering] = set()
        """Answers on their way."""
        loop = asyncio.get_running_loop()
        self.engine = EngineThread(decoder, max_queue=max_queue, call_soon=loop.call_soon_threadsafe)

    @property
    def about(self) -> dict[str, Any]:
        """The model, as /v1/models tells of it."""
        about = {"id": self.model_name, "object": "model", "created": self.created, "owned_by": "tinygpt"}
        return {**about, "context_length": self.context, "max_model_len": self.context, "chat": self.is_chat}

    def check_name(self, name: str | None) -> None:
        """Nothing, if this is the model, or none is named."""
        if name not in (None, self.model_name):
            raise Refusal(
                f"there is no model {str(name)[:100]!r}; there is {self.model_name!r}",
                status=404,
                param="model",
                code="model_not_found",
            )

    def closing(self) -> Refusal:
        """What is said while the server ends."""
        return Refusal("the server is shutting down", status=503, code="shutting_down", headers={"Retry-After": "5"})

    def answering(self, asked: Asked) -> "Answering":
        """Begins to answer; `close` it at its end.

        Raises:
            Refusal: The prompt is too long, an id unknown, the model knows no chats, or the queue is full.
        """
        prompts = self._prompts(asked)
        answering = Answering(self, asked, prompts)
        self.engine.submit(answering.jobs)
        self.open.add(answering)
        return answering

    def cut(self) -> None:
        """Ends every answer on its way."""
        for answering in list(self.open):
            answering.tell(None)

    def _prompts(self, asked: Asked) -> list[list[int]]:
        if asked.messages:
            if not self.is_chat:
                found = f"{self.model_name!r} was not trained on chats, so its tokenizer lacks their special tokens"
                raise Refusal(f"{found}; use /v1/completions", param="messages", code="model_knows_no_chats")
            prompts = [self.checkpoint.chat_ids(asked.messages)]
        else:
            prompts = [self._prompt(prompt) for prompt in asked.prompts]
        for ids in prompts:
            if len(ids) > self.context:
                found = f"the context holds {self.context} tokens and the prompt has {len(ids)}; shorten it"
                param = "messages" if asked.messages else "prompt"
                raise Refusal(found, param=param, code="context_length_exceeded")
        for i in asked.sampling.logit_bias:
            self._check_id(i, "logit_bias")
        return prompts

    def _prompt(self, prompt: str | tuple[int, ...]) -> list[int]:
        if isinstance(prompt, str):
            try:
                return self.checkpoint.prompt_ids(prompt)
            except ValueError as error:
                raise Refusal(str(error), param="prompt") from None
        for i in prompt:
            self._check_id(i, "prompt")
        return list(prompt)

    def _check_id(self, i: int, param: str) -> None:
        if not 0 <= i < self.tokenizer.vocab_size:
            found = i if abs(i) < 10**18 else "a larger number"
            raise Refusal(f"{param} holds ids from 0 to {self.tokenizer.vocab_size - 1}, got {found}", param=param)


class Answering:
    """The answers to one request, on their way; belongs to the event loop."""

    def __init__(self, service: Service, asked: Asked, prompts: Sequence[Sequence[int]]) -> None:
        self.asked, self.request_seconds = asked, service.request_seconds
        self.began = time.monotonic()
        self.first_token: float | None = None
        """When it came."""
        self.n_prompt = sum(map(len, prompts))
        self._service = service
        self._pieces: asyncio.Queue[Piece | None] = asyncio.Queue()
        is_judging = asked.echo and asked.n_logprobs is not None
        if is_judging and self.n_prompt > _MOST_JUDGED:
            raise Refusal(f"echo with logprobs is for prompts of {_MOST_JUDGED} tokens in all at most", param="echo")
        self._texts = [
            AnswerText(service.tokenizer, echoed=_echoed(service.tokenizer, prompt, ids) if asked.echo else "")
            for prompt, ids in zip(asked.prompts or [""], prompts, strict=True)
            for _ in range(asked.n)
        ]
        most = asked.max_tokens
        self.jobs = [
            Job(
                index=k * asked.n + i,
                request=service.checkpoint.request(
                    ids,
                    max_new_tokens=max(LEAST_CHAT_TOKENS, service.context - len(ids)) if most is None else most,
                    sampling=asked.sampling,
                    seed=None if asked.seed is None else (asked.seed + i) % 2**64,
                    n_logprobs=asked.n_logprobs,
                ),
                text=TextStream(service.tokenizer, asked.stop),
                tell=self.tell,
                judge_prompt=is_judging and asked.prompts[k] != "",
            )
            for k, ids in enumerate(prompts)
            for i in range(asked.n)
        ]
        self._head = {
            "id": f"{'chatcmpl' if asked.messages else 'cmpl'}-{uuid.uuid4().hex}",
            "object": "chat.completion" if asked.messages else "text_completion",
            "created": int(time.time()),
            "model": service.model_name,
            "system_fingerprint": service.fingerprint,
        }

    @property
    def n_drawn(self) -> int:
        """Tokens drawn so far."""
        return sum(text.n_tokens for text in self._texts)

    def tell(self, piece: Piece | None) -> None:
        """Takes what the engine has drawn; None ends it."""
        if self.first_token is None and piece is not None and piece.tokens:
            self.first_token = time.monotonic()
        self._pieces.put_nowait(piece)

    def close(self) -> None:
        """Lets go of every stream."""
        self._service.engine.cancel(self.jobs)
        self._service.open.discard(self)

    async def whole(self) -> dict[str, Any]:
        """The answers when all are finished.

        Raises:
            Refusal: Time is over, the server ends, or the engine failed.
        """
        texts, records = [""] * len(self.jobs), [list[Record]() for _ in self.jobs]
        finishes: list[str | None] = [None] * len(self.jobs)
        async for pieces in self._arriving():
            for piece in pieces:
                text, given = self._texts[piece.index].take(piece)
                texts[piece.index] += text
                records[piece.index] += given
                finishes[piece.index] = piece.finish
        choices = []
        for i, (text, given, finish) in enumerate(zip(texts, records, finishes, strict=True)):
            said: dict[str, Any] = (
                {"message": {"role": "assistant", "content": text, "refusal": None}}
                if self.asked.messages
                else {"text": text}
            )
            choices.append({"index": i, **said, "logprobs": self._logprobs(given), "finish_reason": finish})
        return {**self._head, "choices": choices, "usage": openaireply.usage(self.n_prompt, self.n_drawn)}

    async def events(self) -> AsyncIterator[list[dict[str, Any]]]:
        """The answers as they come, in chunks of a stream.

        Raises:
            Refusal: As for `whole`.
        """
        head: dict[str, Any] = {
            **self._head,
            "object": "chat.completion.chunk" if self.asked.messages else "text_completion",
        }
        if self.asked.include_usage:
            head["usage"] = None
        if self.asked.messages:
            begin = {"delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
            yield [{**head, "choices": [{"index": job.index, **begin}]} for job in self.jobs]
        async for pieces in self._arriving():
            choices = [choice for piece in pieces for choice in self._chunks(piece)]
            yield [{**head, "choices": [choice]} for choice in choices]
        if self.asked.include_usage:
            yield [{**head, "choices": [], "usage": openaireply.usage(self.n_prompt, self.n_drawn)}]

    def _chunks(self, piece: Piece) -> list[dict[str, Any]]:
        """The choices of a stream that a piece becomes."""
        text, given = self._texts[piece.index].take(piece)
        common = {"index": piece.index, "logprobs": self._logprobs(given)}
        if not self.asked.messages:
            return [{**common, "text": text, "finish_reason": piece.finish}] if text or given or piece.finish else []
        said = [{**common, "delta": {"content": text}, "finish_reason": None}] if text or given else []
        ended = {"index": piece.index, "delta": {}, "logprobs": None, "finish_reason": piece.finish}
        return [*said, ended] if piece.finish else said

    async def _arriving(self) -> AsyncIterator[list[Piece]]:
        """Pieces in the lots in which they come, until every answer has ended."""
        n_open = len(self.jobs)
        while n_open:
            left = self.began + self.request_seconds - time.monotonic()
            try:
                # asyncio.wait_for loses a cancellation that comes together with a piece, before Python 3.12.
                with anyio.fail_after(max(left, 0)):
                    pieces = [await self._pieces.get()]
            except TimeoutError:
                found = f"the answer took longer than {self.request_seconds:g} s; ask for fewer tokens"
                raise Refusal(found, status=504, code="timeout") from None
            while not self._pieces.empty():
                pieces.append(self._pieces.get_nowait())
            known = [piece for piece in pieces if piece is not None]
            if len(known) < len(pieces):
                raise self._service.closing()
            if any(piece.finish == "error" for piece in known):
                raise Refusal("the engine failed; the server's log says why", status=500)
            n_open -= sum(piece.finish is not None for piece in known)
            yield known

    def _logprobs(self, records: Sequence[Record]) -> dict[str, Any] | None:
        if self.asked.n_logprobs is None:
            return None
        shown = openaireply.chat_logprobs if self.asked.messages else openaireply.completion_logprobs
        return shown(self._service.tokenizer, records)


def fingerprint(checkpoint: Checkpoint, precision: str) -> str:
    """A word that changes with whatever changes what a seed gives: weights, options, tokenizer, precision."""
    tokenizer = "" if checkpoint.tokenizer is None else checkpoint.tokenizer.fingerprint
    digest = hashlib.blake2b(f"{asdict(checkpoint.model.config)} {tokenizer} {precision}".encode(), digest_size=6)
    for tensor in checkpoint.model.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return f"fp_{digest.hexdigest()}"


def _echoed(tokenizer: AnyTokenizer, prompt: str | tuple[int, ...], ids: Sequence[int]) -> str:
    return prompt if isinstance(prompt, str) else tokenizer.decode(list(ids))
