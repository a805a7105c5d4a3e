"""The server as a Starlette application: OpenAI's API and the chat page over one EngineThread."""

import asyncio
import hmac
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tinygpt import openairequest
from tinygpt.checkpoint import Checkpoint
from tinygpt.decoder import Decoder
from tinygpt.openairequest import Asked
from tinygpt.refusal import Refusal
from tinygpt.servermetrics import ServerMetrics
from tinygpt.service import Answering, Service

_DISCARDED_BYTES, _DISCARDED_SECONDS = 2**26, 5.0
_SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, kw_only=True)
class WebConfig:
    """What the application allows."""

    model_name: str
    """The name by which clients know the model."""
    max_queue: int = 128
    """Most answers that wait for a stream."""
    max_body_bytes: int = 2**20
    """Largest body of a request."""
    request_seconds: float = 300.0
    """Longest time for an answer, waiting included."""
    arrival_seconds: float = 30.0
    """Longest time for a body to arrive."""
    api_keys: tuple[str, ...] = ()
    """Any of these lets in; none lets everybody in."""
    cors: tuple[str, ...] = ()
    """Origins whose pages may call."""


def application(checkpoint: Checkpoint, decoder: Decoder, config: WebConfig, *, precision: str = "auto") -> Starlette:
    """The application; its `state.service` is the Service, there while it runs.

    Args:
        checkpoint: Model and tokenizer.
        decoder: What generates with it; one slot more than there may be streams.
        config: What is allowed.
        precision: How the decoder keeps weights, which decides what a seed gives.
    """
    doors = Doors(config)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        doors.service = app.state.service = Service(
            checkpoint,
            decoder,
            model_name=config.model_name,
            max_queue=config.max_queue,
            request_seconds=config.request_seconds,
            precision=precision,
        )
        yield
        await asyncio.to_thread(doors.service.engine.close)

    middleware = [Middleware(Gate, doors=doors)]
    if config.cors:
        middleware.insert(
            0, Middleware(CORSMiddleware, allow_origins=config.cors, allow_methods=["GET", "POST"], allow_headers=["*"])
        )
    return Starlette(
        routes=[
            Route("/", doors.page),
            Route("/health", doors.health),
            Route("/metrics", doors.show_metrics),
            Route("/v1/models", doors.models),
            Route("/v1/models/{name:path}", doors.model),
            Route("/v1/completions", doors.completions, methods=["POST"]),
            Route("/v1/chat/completions", doors.chats, methods=["POST"]),
        ],
        middleware=middleware,
        exception_handlers={Refusal: _refuse, HTTPException: _refuse_http, Exception: _fail},
        lifespan=lifespan,
    )


class Doors:
    """One method for each path."""

    def __init__(self, config: WebConfig) -> None:
        self.config = config
        self.metrics = ServerMetrics()
        self.service: Service

    async def page(self, _: Request) -> Response:
        """The chat page."""
        html = resources.files("tinygpt").joinpath("chatpage.html").read_text(encoding="utf-8")
        return HTMLResponse(html, headers=_SECURITY)

    async def health(self, _: Request) -> Response:
        """Whether answers are to be had."""
        is_well = self.service.engine.is_alive and not self.service.is_closing
        return JSONResponse({"status": "ok" if is_well else "unavailable"}, status_code=200 if is_well else 503)

    async def show_metrics(self, _: Request) -> Response:
        """The counts, for Prometheus."""
        engine = self.service.engine
        text = self.metrics.text(
            {"streams_active": engine.n_active, "streams": engine.n_streams, "answers_waiting": engine.n_waiting}
        )
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def models(self, _: Request) -> Response:
        """The one model there is."""
        return JSONResponse({"object": "list", "data": [self.service.about]})

    async def model(self, request: Request) -> Response:
        """What is known of it."""
        self.service.check_name(request.path_params["name"])
        return JSONResponse(self.service.about)

    async def completions(self, request: Request) -> Response:
        """Continues a text."""
        return await self._answer(request, openairequest.completion)

    async def chats(self, request: Request) -> Response:
        """Says the next message of a chat."""
        return await self._answer(request, openairequest.chat)

    async def _answer(self, request: Request, read: Any) -> Response:
        if self.service.is_closing:
            raise self.service.closing()
        kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind != "application/json":
            found = kind[:80] or "none"
            raise Refusal(f"content-type must be application/json, got {found}", status=415)
        asked: Asked = read(openairequest.parsed(await self._body(request)))
        self.service.check_name(asked.model)
        return AnswerResponse(self.service.answering(asked), self.metrics)

    async def _body(self, request: Request) -> bytes:
        """The body of a request, within bounds of size and time."""
        most = self.config.max_body_bytes
        length = request.headers.get("content-length", "")
        chunks, n_bytes = [], 0
        try:
            with anyio.fail_after(self.config.arrival_seconds):
                async for chunk in request.stream():
                    n_bytes += len(chunk)
                    if n_bytes > most or (length.isdecimal() and int(length[:20]) > most):
                        await _discard(request)
                        raise Refusal(f"the body must be at most {most} bytes; send less", status=413)
                    chunks.append(chunk)
        except TimeoutError:
            found = f"the body did not come within {self.config.arrival_seconds:g} s; send it at once"
            raise Refusal(found, status=408, headers={"Connection": "close"}) from None
        except ClientDisconnect:
            raise Refusal("the client left", status=499) from None
        return b"".join(chunks)


async def _discard(request: Request) -> None:
    """Reads on for a while: a client that is still sending when the connection closes never sees why."""
    n_bytes = 0
    try:
        with anyio.fail_after(_DISCARDED_SECONDS):
            while n_bytes < _DISCARDED_BYTES:
                message = await request.receive()
                n_bytes += len(message.get("body", b""))
                if not message.get("more_body"):
                    return
    except TimeoutError:
        return


class AnswerResponse(Response):
    """Sends answers, whole or as they come; lets go of their streams as soon as the client has left."""

    def __init__(self, answering: Answering, metrics: ServerMetrics) -> None:
        self._answering, self._metrics = answering, metrics
        self.status_code, self.background = 200, None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers."""
        answering, started = self._answering, time.monotonic()
        sending = asyncio.ensure_future(self._send(scope, receive, send))
        leaving = asyncio.ensure_future(_left(receive))
        try:
            # A reader that takes nothing blocks `send`; what was drawn meanwhile waits here, and ends with the time.
            seconds = answering.request_seconds + 2.0
            done, _ = await asyncio.wait({sending, leaving}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if sending in done:
                sending.result()
            else:
                self._metrics.add("answers_dropped_total", why="client left" if done else "slow reader")
        finally:
            answering.close()
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            self._metrics.add("prompt_tokens_total", answering.n_prompt)
            self._metrics.add("generated_tokens_total", answering.n_drawn)
            self._metrics.took("answer_seconds", time.monotonic() - started)
            if answering.first_token is not None:
                self._metrics.took("first_token_seconds", answering.first_token - answering.began)

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._answering.asked.stream:
            try:
                response: Response = _json(await self._answering.whole())
            except Refusal as refusal:
                response = _refusal(refusal)
            await response(scope, receive, send)
            return
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": 200, "headers": [*headers, (b"x-accel-buffering", b"no")]})
        try:
            async for events in self._answering.events():
                await send(_chunk("".join(f"data: {json.dumps(event, separators=(',', ':'))}\n\n" for event in events)))
            await send(_chunk("data: [DONE]\n\n"))
        except Refusal as refusal:
            await send(_chunk(f"data: {json.dumps(refusal.body)}\n\n"))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _chunk(text: str) -> Message:
    return {"type": "http.response.body", "body": text.encode(), "more_body": True}


async def _left(receive: Receive) -> None:
    """Returns when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


class Gate:
    """Lets in who has a key, and counts what becomes of every request."""

    def __init__(self, app: ASGIApp, doors: Doors) -> None:
        self._app, self._doors = app, doors
        self._keys = [key.encode() for key in doors.config.api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or refuses it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = scope["path"] if scope["path"] in ROUTES else "other"
                self._doors.metrics.add("requests_total", route=route, status=str(message["status"]))
            await send(message)

        if self._keys and scope["path"] not in OPEN and not self._has_key(scope):
            refusal = Refusal(
                "the API key is missing or wrong; send it as Authorization: Bearer KEY",
                status=401,
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
            await _refusal(refusal)(scope, receive, counted)
            return
        await self._app(scope, receive, counted)

    def _has_key(self, scope: Scope) -> bool:
        given = dict(scope["headers"]).get(b"authorization", b"")
        scheme, _, key = given.partition(b" ")
        return scheme.lower() == b"bearer" and any([hmac.compare_digest(key.strip(), each) for each in self._keys])


ROUTES = ("/", "/health", "/metrics", "/v1/models", "/v1/completions", "/v1/chat/completions")
"""Paths that are counted by name; others come from anybody and would grow without bound."""
OPEN = ("/", "/health")
"""Paths that need no key."""


def _json(content: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(json.dumps(content), status, headers, "application/json")


def _refusal(refusal: Refusal) -> Response:
    return _json(refusal.body, refusal.status, refusal.headers)


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return _refusal(error)


async def _refuse_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers, path = dict(error.headers or {}), request.url.path[:200]
    messages = {
        404: f"there is no {path}; there are {', '.join(ROUTES)}",
        405: f"{path} takes {headers.get('Allow', 'another method')}, got {request.method}",
    }
    return _refusal(Refusal(messages.get(error.status_code, error.detail), status=error.status_code, headers=headers))


async def _fail(_: Request, __: Exception) -> Response:
    return _refusal(Refusal("the server failed; its log says why", status=500))
