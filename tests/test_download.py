import contextlib
import gzip
import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tinygpt import download
from tinygpt.download import COLLECTIONS, Remote, fetch, fetch_all, fetch_collection, urls_of

BOOK = b"".join(b"%06d It is a truth universally acknowledged\n" % i for i in range(20_000))


class Server(ThreadingHTTPServer):
    """One file at every path, handed out as the test says."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.tag = BOOK, '"one"'
        self.cut_after: list[int] = []
        self.ranges, self.promised = True, 0
        self.requests: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.close_connection = True
        if self.path.startswith("/moved"):
            self.answer(302, {"Location": self.headers_of_move()})
            return
        if self.path.startswith("/missing"):
            self.answer(404, {"Content-Length": "0"})
            return
        wanted = self.headers.get("Range")
        self.server.requests.append(wanted)
        resumes = wanted and self.server.ranges and self.headers.get("If-Range") == self.server.tag
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and resumes else 0
        content = self.server.content[start:]
        length = self.server.promised or len(content)
        headers = {"Content-Length": str(length), "ETag": self.server.tag}
        if resumes:
            headers["Content-Range"] = f"bytes {start}-{len(self.server.content) - 1}/{len(self.server.content)}"
        self.answer(206 if resumes else 200, headers)
        cut = self.server.cut_after.pop(0) if self.server.cut_after else len(content)
        with contextlib.suppress(OSError):
            self.wfile.write(content[:cut])

    def headers_of_move(self) -> str:
        return {"/moved": "/book.txt", "/moved-file": "file:///etc/hosts"}.get(self.path, self.path + "x")

    def answer(self, code: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_a_file_comes_whole_and_is_not_fetched_twice(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    path = fetch(f"{server.url}/a%20book.txt", tmp_path / "new", progress=lambda *done: seen.append(done))
    assert (path.name, path.read_bytes()) == ("a book.txt", BOOK)
    assert seen[-1] == (len(BOOK), len(BOOK))
    assert fetch(f"{server.url}/a%20book.txt", tmp_path / "new", sha256=hashlib.sha256(BOOK).hexdigest()) == path
    assert (len(server.requests), visible(tmp_path / "new")) == (1, ["a book.txt"])


def test_a_cut_download_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.cut_after = [100_000, 300_000]
    assert fetch(f"{server.url}/book.txt", tmp_path).read_bytes() == BOOK
    assert server.requests == [None, "bytes=100000-", "bytes=400000-"]


def test_a_later_call_goes_on_too(server: Server, tmp_path: Path) -> None:
    server.cut_after = [100_000, 0, 0, 0, 0]
    with pytest.raises(ConnectionError, match=r"book.txt: cut 5 times, 100,000 bytes are here; run it again to go on"):
        fetch(f"{server.url}/book.txt", tmp_path)
    assert visible(tmp_path) == ["book.txt.part"]
    assert fetch(f"{server.url}/book.txt", tmp_path).read_bytes() == BOOK
    assert server.requests[-1] == "bytes=100000-"


def test_a_server_that_knows_no_parts_is_asked_for_all(server: Server, tmp_path: Path) -> None:
    server.cut_after, server.ranges = [100_000], False
    assert fetch(f"{server.url}/book.txt", tmp_path).read_bytes() == BOOK


def test_a_file_that_changed_meanwhile_is_fetched_anew(server: Server, tmp_path: Path) -> None:
    server.cut_after = [100_000, 0, 0, 0, 0]
    with pytest.raises(ConnectionError):
        fetch(f"{server.url}/book.txt", tmp_path)
    server.content, server.tag = BOOK.upper(), '"two"'
    assert fetch(f"{server.url}/book.txt", tmp_path).read_bytes() == BOOK.upper()


def test_a_wrong_checksum_leaves_no_file(server: Server, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"book.txt: its sha256 is .*, not 000000000000.. as expected, so it was removed"):
        fetch(f"{server.url}/book.txt", tmp_path, sha256="0" * 64)
    assert visible(tmp_path) == []


def test_fewer_bytes_than_promised_are_no_file(server: Server, tmp_path: Path) -> None:
    server.promised, server.ranges = len(BOOK) + 10, False
    with pytest.raises(ConnectionError, match=r"book.txt: cut 5 times, 920,000 bytes are here"):
        fetch(f"{server.url}/book.txt", tmp_path)
    assert "book.txt" not in visible(tmp_path)


def test_refusals_name_the_address_and_what_would_do(server: Server, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"/missing.txt: the server answers 404 Not Found; check the address"):
        fetch(f"{server.url}/missing.txt", tmp_path)
    with pytest.raises(OSError, match=r"Redirection to url .file:///etc/hosts. is not allowed"):
        fetch(f"{server.url}/moved-file", tmp_path)
    with pytest.raises(OSError, match=r"the server answers 302"):
        fetch(f"{server.url}/moved-on", tmp_path)
    assert fetch(f"{server.url}/moved", tmp_path).read_bytes() == BOOK


@pytest.mark.parametrize("url", ["file:///etc/hosts", "ftp://127.0.0.1/a.txt", "book.txt", "https:///a.txt"])
def test_only_the_web_is_fetched_from(url: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no address of http or https; give one such as"):
        fetch(url, tmp_path)


@pytest.mark.parametrize("path", ["", "/", "/.hidden", "/a%2Fb", "/%2e%2e"])
def test_an_address_without_a_plain_name_is_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the address names no file"):
        fetch(f"http://127.0.0.1{path}", tmp_path)


def test_nothing_listening_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ConnectionError, match=r"cannot be reached \(.*\); check the connection, or fetch it by other"):
        fetch(f"http://127.0.0.1:{port}/book.txt", tmp_path)


def test_a_collection_comes_from_another_server_under_its_names(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = Remote("https://example.org/books/1.txt", "one.txt", hashlib.sha256(BOOK).hexdigest())
    monkeypatch.setitem(download.COLLECTIONS, "two", (remote, Remote("https://example.org/2.txt", "two.txt")))
    assert [path.name for path in fetch_collection("two", tmp_path, base_url=server.url)] == ["one.txt", "two.txt"]
    with pytest.raises(ValueError, match="no collection is called 'three'; there are tinyshakespeare, gutenberg-small"):
        fetch_collection("three", tmp_path)


def test_collections_are_of_https_and_names_that_differ() -> None:
    for remotes in COLLECTIONS.values():
        assert all(remote.url.startswith("https://") and remote.name.endswith(".txt") for remote in remotes)
        assert len({remote.name for remote in remotes}) == len(remotes)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_list_names_urls(pack: object, server: Server, tmp_path: Path) -> None:
    path = tmp_path / "wet.paths"
    path.write_bytes(pack(b"# one crawl\n\ncrawl/a.txt\r\nhttp://127.0.0.1/b.txt\n"))  # type: ignore[operator]
    assert urls_of(path, base=server.url + "/") == [f"{server.url}/crawl/a.txt", "http://127.0.0.1/b.txt"]
    with pytest.raises(ValueError, match=r"wet.paths, line 3: 'crawl/a.txt' is no URL; say what stands before it"):
        urls_of(path)


def test_two_urls_of_one_name_are_refused(server: Server, tmp_path: Path) -> None:
    assert [path.name for path in fetch_all([f"{server.url}/a.txt", f"{server.url}/a.txt"], tmp_path)] == ["a.txt"]
    with pytest.raises(ValueError, match="have the same name; fetch them into two folders"):
        fetch_all([f"{server.url}/a.txt", f"{server.url}/b/a.txt"], tmp_path)
