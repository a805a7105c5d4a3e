"""Clients that keep a server waiting: it lets go of them by time, and their place is free."""

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tiny_server import checkpoint_of, serving

HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n"
ENDLESS = {"prompt": "a", "max_tokens": 10**6, "stream": True, "logit_bias": {"256": -100, "260": -100}}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of two streams and no queue, which waits a second for anything."""
    folder = tmp_path_factory.mktemp("serve") / "tiny"
    checkpoint_of().save(folder)
    limits = ("--max-streams", "2", "--max-queue", "0", "--request-seconds", "1.5", "--arrival-seconds", "0.5")
    with serving(folder, *limits) as (address, _):
        yield address


@contextmanager
def connected(address: str, *, buffer: int | None = None) -> Iterator[socket.socket]:
    host, _, port = address.removeprefix("http://").partition(":")
    with socket.socket() as client:
        if buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        client.settimeout(0.05)
        client.connect((host, int(port)))
        yield client


def waited(is_so: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Whether something came to be within a while."""
    deadline = time.monotonic() + seconds
    while not (found := is_so()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def n_active(address: str) -> int:
    text = httpx.get(f"{address}/metrics").text
    return int(re.findall(r"^tinygpt_streams_active (\d+)$", text, re.MULTILINE)[0])


def told(client: socket.socket, drip: bytes) -> bytes:
    """What a client is told that sends a byte now and then until the connection is closed."""
    heard = b""
    while True:
        try:
            piece = client.recv(4096)
            heard += piece
            if not piece:
                return heard
            client.sendall(drip)
        except TimeoutError:
            client.sendall(drip)
        except ConnectionError:
            return heard


@pytest.mark.parametrize(
    ("begun", "drip", "status"),
    [
        (b"", b"", b""),
        (b"POST /v1/comple", b"t", b""),
        (HEAD[:-2], b"x", b""),
        (HEAD, b" ", b"HTTP/1.1 408 "),
    ],
    ids=["nothing", "method", "headers", "body"],
)  # fmt: skip
def test_a_request_that_comes_byte_by_byte_is_let_go(served: str, begun: bytes, drip: bytes, status: bytes) -> None:
    with connected(served) as client:
        client.sendall(begun)
        began = time.monotonic()
        heard = told(client, drip)
        assert (heard[: len(status)], time.monotonic() - began < 10) == (status, True)


def test_a_refused_body_that_goes_on_byte_by_byte_is_let_go(served: str) -> None:
    with connected(served) as client:
        client.sendall(HEAD.replace(b"json", b"text"))
        assert told(client, b" ").startswith(b"HTTP/1.1 415 ")


def test_a_slow_sender_between_two_requests_of_one_connection_is_let_go(served: str) -> None:
    with connected(served) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        client.settimeout(60)
        heard = b""
        while not heard.endswith(b"}"):
            heard += client.recv(4096)
        client.settimeout(0.05)
        assert (told(client, b"G"), heard[:13]) == (b"", b"HTTP/1.1 200 ")


def test_who_asks_now_and_then_keeps_the_connection(served: str) -> None:
    with httpx.Client() as client:
        for _ in range(3):
            answer = client.get(f"{served}/health")
            first = answer.extensions["network_stream"].get_extra_info("client_addr")
            time.sleep(0.7)
        again = client.get(f"{served}/health").extensions["network_stream"].get_extra_info("client_addr")
    assert first == again


def test_readers_that_take_nothing_free_their_places(served: str) -> None:
    body = json.dumps({**ENDLESS, "logprobs": 20}).encode()
    head = HEAD.replace(b"900", str(len(body)).encode())
    with connected(served, buffer=4096) as first, connected(served, buffer=4096) as second:
        for client in (first, second):
            client.sendall(head + body)
        assert waited(lambda: n_active(served) == 2)
        asked: dict[str, Any] = {"prompt": "a", "max_tokens": 3}
        assert httpx.post(f"{served}/v1/completions", json=asked).status_code == 429
        assert waited(lambda: n_active(served) == 0)
        assert httpx.post(f"{served}/v1/completions", json=asked).status_code == 200


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs /proc")
def test_a_reader_that_takes_nothing_is_disconnected(tmp_path: Path) -> None:
    def n_connections(address: str) -> int:
        """Of the server, by its own end of each."""
        ends = [line.split()[1:4:2] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return ends.count([f"0100007F:{int(address.rpartition(':')[2]):04X}", "01"])  # established

    checkpoint_of().save(tmp_path / "tiny")
    body = json.dumps({**ENDLESS, "prompt": ["a"] * 16, "logprobs": 20}).encode()  # more than its buffers take
    with (
        serving(tmp_path / "tiny", "--request-seconds", "3") as (address, _),
        connected(address, buffer=4096) as client,
    ):
        client.sendall(HEAD.replace(b"900", str(len(body)).encode()) + body)
        assert waited(lambda: n_connections(address) == 1)
        assert waited(lambda: n_connections(address) == 0, seconds=60)
