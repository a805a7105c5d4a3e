"""`tinygpt serve`: answer requests of OpenAI's API with a trained model, and give a page to chat on."""

import asyncio
import errno
import os
import re
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from tinygpt.command import run
from tinygpt.config import read
from tinygpt.interruption import stop_on_signals
from tinygpt.modelflags import ModelFlags

GRACE_SECONDS = 3.0
"""How long answers on their way may go on after the first signal."""


@dataclass(frozen=True, kw_only=True)
class ServeFlags(ModelFlags):
    """The model, where it answers, and what it allows."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets other machines in."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    model_name: str | None = None
    """Name by which clients know the model; none takes the folder's."""
    api_key_file: Path | None = None
    """File with a key a line, any of which lets in; without it TINYGPT_API_KEY in the environment, if set."""
    cors: tuple[str, ...] = ()
    """Origins whose pages may call, such as https://example.org, or *."""
    max_streams: int = 16
    """Answers that are written at once."""
    max_queue: int = 128
    """Most answers that wait for one of these; others are refused with 429."""
    max_body_bytes: int = 2**20
    """Largest body of a request."""
    request_seconds: float = 300.0
    """Longest time for an answer, waiting included."""
    arrival_seconds: float = 30.0
    """Longest time for the headers of a request to arrive, and again for its body."""
    dtype: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    """How weights are kept: auto is bfloat16 on a CPU."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("max_streams", 1), ("max_queue", 0), ("max_body_bytes", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        for origin in self.cors:
            if origin != "*" and not re.fullmatch(r"https?://[^/\s]+", origin):
                raise ValueError(
                    f"cors takes origins such as https://example.org, without a path, or *, got {origin!r}"
                )
        if not 0 <= self.port < 2**16:
            raise ValueError(f"port must be from 0 to {2**16 - 1}, got {self.port}")
        for name in ("request_seconds", "arrival_seconds"):
            seconds = getattr(self, name)
            if not 0 < seconds < 10**6:
                raise ValueError(f"{name} must be above 0 and below 1000000, got {seconds}")


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of `tinygpt serve`: 130 after Ctrl-C, 143 after SIGTERM."""
    return run(_serve, argv, verb="serve")


def _serve(argv: Sequence[str]) -> int:
    about = "Answers requests of OpenAI's API with a trained model; a browser finds a page to chat on."
    flags = read(argv, {"": ServeFlags}, prog="tinygpt serve", description=about).build(ServeFlags)
    if missing := [name for name in ("starlette", "uvicorn") if find_spec(name) is None]:
        raise ImportError(f"{' and '.join(missing)} must be installed: pip install 'tinygpt[serve]'")
    keys = _keys(flags)
    with _listening(flags) as listener:
        app, summary = _application(flags, keys)
        host, port = listener.getsockname()[:2]
        print(f"{summary}\nhttp://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
        if not keys and host not in ("127.0.0.1", "::1"):
            print("tinygpt serve: warning: everybody who reaches this address may ask; --api-key-file FILE asks for a "
                  "key", file=sys.stderr, flush=True)  # fmt: skip
        with stop_on_signals(lambda _: None) as interruption:
            asyncio.run(_run(app, listener, flags.arrival_seconds))
    return interruption.exit_code


async def _run(app: Any, listener: socket.socket, arrival_seconds: float) -> None:
    """Serves until a signal; then answers on their way have a while to end, and are cut."""
    import uvicorn

    from tinygpt.timedconnection import TimedConnection

    config = uvicorn.Config(
        app,
        http=partial(TimedConnection, seconds=arrival_seconds),  # type: ignore[arg-type]  # called, and no more
        ws="none",
        loop="asyncio",
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=int(GRACE_SECONDS) + 2,
    )
    server = uvicorn.Server(config)  # it takes the signals, and hands them on to `stop_on_signals` when it has ended

    async def close() -> None:
        while not server.should_exit:
            await asyncio.sleep(0.1)
        app.state.service.is_closing = True
        await asyncio.sleep(GRACE_SECONDS)
        app.state.service.cut()

    closing = asyncio.ensure_future(close())
    await server.serve(sockets=[listener])
    closing.cancel()


def _application(flags: ServeFlags, keys: tuple[str, ...]) -> tuple[Any, str]:
    """The application, and a line about it."""
    checkpoint = flags.load_to_write()

    from tinygpt.webapp import WebConfig, application

    if checkpoint.tokenizer is None:
        raise ValueError(f"{checkpoint.folder}: no tokenizer.json beside the model; put it there")
    name = flags.model_name or flags.checkpoint.resolve().name
    # One slot more than there are streams: the engine judges prompts in it.
    decoder = checkpoint.decoder(n_slots=flags.max_streams + 1, dtype=flags.dtype, threads=flags.threads)
    config = WebConfig(
        model_name=name,
        max_queue=flags.max_queue,
        max_body_bytes=flags.max_body_bytes,
        request_seconds=flags.request_seconds,
        arrival_seconds=flags.arrival_seconds,
        api_keys=keys,
        cors=flags.cors,
    )
    device = checkpoint.model.head_weight.device
    summary = f"{name}: {checkpoint.model.n_parameters:,} parameters, context {decoder.config.block_size}, on {device}"
    return application(checkpoint, decoder, config, precision=flags.dtype), summary


def _listening(flags: ServeFlags) -> socket.socket:
    """A socket that listens, before anything is loaded."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            flags.host, flags.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        reason = (error.strerror or str(error)).lower()
        raise ValueError(f"--host {flags.host}: {reason}; give a name or address of this machine") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # a reader that takes nothing for so long is dropped by the kernel
            milliseconds = int(flags.request_seconds * 1000)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        listener.close()
        reason = (error.strerror or str(error)).lower()
        is_elsewhere = error.errno == errno.EADDRNOTAVAIL
        hint = "--host takes an address of this machine" if is_elsewhere else "--port takes another, 0 a free one"
        raise OSError(f"{flags.host} port {flags.port}: {reason}; {hint}") from None
    return listener


def _keys(flags: ServeFlags) -> tuple[str, ...]:
    """The keys that let in; none lets everybody in."""
    if flags.api_key_file is None:
        key = os.environ.get("TINYGPT_API_KEY", "").strip()
        return (key,) if key else ()
    try:
        lines = flags.api_key_file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{flags.api_key_file}: not UTF-8 text; write a key a line") from None
    keys = tuple(key for line in lines if (key := line.strip()) and not key.startswith("#"))
    if not keys:
        raise ValueError(f"{flags.api_key_file}: no key in it; write one a line")
    return keys


if __name__ == "__main__":
    sys.exit(main())
