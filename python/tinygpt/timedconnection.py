"""TimedConnection: a connection of uvicorn's whose client has bounded time to send a request."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_CLOSING_SECONDS = 6.0  # the application has refused the body by then, and the client may have read why


class TimedConnection(asyncio.Protocol):
    """Passes everything on to uvicorn's own protocol, and closes the connection where a request does not come.

    uvicorn bounds the time between two requests alone: who sends one byte a second of a header, or of a body that was
    refused already, would keep the connection for as long as it likes.

    Args:
        seconds: Longest time for the headers to arrive, from the connection's or the request's first byte on; a body
            has as long again, and a while more in which the application may say why it waits no longer.
        options: What uvicorn gives a protocol.
    """

    def __init__(self, *, seconds: float, **options: Any) -> None:
        self._seconds = seconds
        self._inner = H11Protocol(**options)
        self._timer: asyncio.TimerHandle | None = None
        self._awaited: object = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins to wait for headers."""
        self._transport = transport
        self._inner.connection_made(transport)  # type: ignore[arg-type]
        self._await(("headers", None), self._seconds)

    def data_received(self, data: bytes) -> None:
        """Passes bytes on, and looks what of a request is still to come."""
        self._inner.data_received(data)
        connection = self._inner.conn
        if connection.their_state is h11.SEND_BODY:
            self._await(("body", self._inner.cycle), self._seconds + _CLOSING_SECONDS)
        elif connection.their_state is h11.IDLE and connection.trailing_data[0]:
            self._await(("headers", self._inner.cycle), self._seconds)
        else:
            self._await(None, 0.0)

    def eof_received(self) -> None:
        """Passes it on."""
        self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Passes it on, and waits no longer."""
        self._await(None, 0.0)
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """Passes it on."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Passes it on."""
        self._inner.resume_writing()

    def _await(self, awaited: object, seconds: float) -> None:
        """Closes in so many seconds, unless something else is awaited by then."""
        if awaited == self._awaited:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._awaited = awaited
        self._timer = None if awaited is None else self._inner.loop.call_later(seconds, self._transport.close)
