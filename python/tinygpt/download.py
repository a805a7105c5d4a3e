"""Files fetched from the web, on request only: resumed, checked, whole or absent."""

import gzip
import hashlib
import http.client
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinygpt.staging import lock_folder

Progress = Callable[[int, "int | None"], object]
"""Told the bytes that are here and, where the server says, the bytes there are."""

_CHUNK_BYTES = 256 << 10
_MAX_REDIRECTS = 5
_MAX_CUTS = 5


@dataclass(frozen=True)
class Remote:
    """A file on the web."""

    url: str
    """Where it is."""
    name: str
    """What it is called here."""
    sha256: str | None = None
    """Its checksum, where one is known."""


def _gutenberg(number: int, name: str) -> Remote:
    # No checksum: Project Gutenberg corrects its books.
    return Remote(f"https://www.gutenberg.org/cache/epub/{number}/pg{number}.txt", f"{name}.txt")


_TINYSHAKESPEARE = Remote(
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    "tinyshakespeare.txt",
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
)

COLLECTIONS: dict[str, tuple[Remote, ...]] = {
    "tinyshakespeare": (_TINYSHAKESPEARE,),
    "gutenberg-small": (
        _gutenberg(11, "carroll_alice"),
        _gutenberg(74, "twain_tom_sawyer"),
        _gutenberg(76, "twain_huckleberry_finn"),
        _gutenberg(84, "shelley_frankenstein"),
        _gutenberg(98, "dickens_two_cities"),
        _gutenberg(120, "stevenson_treasure_island"),
        _gutenberg(174, "wilde_dorian_gray"),
        _gutenberg(345, "stoker_dracula"),
        _gutenberg(1342, "austen_pride_and_prejudice"),
        _gutenberg(1400, "dickens_great_expectations"),
        _gutenberg(1661, "doyle_sherlock_holmes"),
        _gutenberg(2701, "melville_moby_dick"),
    ),
}
"""Texts in the public domain, by name."""


def fetch(
    url: str,
    folder: str | Path,
    *,
    name: str | None = None,
    sha256: str | None = None,
    progress: Progress | None = None,
    timeout_seconds: float = 60.0,
) -> Path:
    """The file of a URL in `folder`; what is there whole is not fetched again.

    A download that was cut goes on where it stopped, in this call or in a later one, if the server can and the file did
    not change meanwhile. Until it is whole it is called `NAME.part`.

    Args:
        url: An http or https address.
        folder: Where it goes; made when missing.
        name: What it is called there; the last part of the address by default.
        sha256: Its checksum in hexadecimal. A file that differs is removed.
        progress: Called after every 256 KiB.
        timeout_seconds: Silence of the server after which it is given up.

    Raises:
        ValueError: The address is none of http or https, or names no file.
        ConnectionError: The server cannot be reached, or ends too soon again and again.
        OSError: The server refuses, the checksum differs, or the disk refuses.
    """
    name = _name_of(url) if name is None else name
    folder = Path(folder)
    with lock_folder(folder):
        path = folder / name
        if not path.exists():
            part = _Part(url, path)
            part.fetch(progress, timeout_seconds)
            _check(part.path, sha256, url)
            part.finish()
        else:
            _check(path, sha256, url)
    return path


def fetch_collection(
    name: str, folder: str | Path, *, base_url: str | None = None, progress: Progress | None = None
) -> list[Path]:
    """The files of one of `COLLECTIONS`, in `folder`.

    Args:
        name: A key of `COLLECTIONS`.
        folder: Where they go; made when missing.
        base_url: A server that holds the same paths, in place of theirs.
        progress: As for `fetch`, for each file.

    Raises:
        ValueError: There is no such collection.
        OSError: As `fetch`.
    """
    if name not in COLLECTIONS:
        raise ValueError(f"no collection is called {name!r}; there are {', '.join(COLLECTIONS)}")
    paths = []
    for remote in COLLECTIONS[name]:
        url = remote.url if base_url is None else base_url.rstrip("/") + urllib.parse.urlsplit(remote.url).path
        paths.append(fetch(url, folder, name=remote.name, sha256=remote.sha256, progress=progress))
    return paths


def fetch_all(urls: Iterable[str], folder: str | Path, *, progress: Progress | None = None) -> list[Path]:
    """The files of several URLs, in `folder`, in their order.

    Raises:
        ValueError: Two of them would have the same name.
        OSError: As `fetch`.
    """
    names: dict[str, str] = {}
    for url in urls:
        other = names.setdefault(_name_of(url), url)
        if other != url:
            raise ValueError(f"{url} and {other} have the same name; fetch them into two folders")
    return [fetch(url, folder, name=name, progress=progress) for name, url in names.items()]


def urls_of(path: str | Path, *, base: str | None = None) -> list[str]:
    """The URLs that a file lists, one a line, such as Common Crawl's `wet.paths.gz`; lines with `#` are left out.

    Args:
        path: The list, as it is or packed by gzip.
        base: What stands before lines that are only paths, such as `https://data.commoncrawl.org`.

    Raises:
        ValueError: A line is no URL, and there is no `base`.
        OSError: The list cannot be read.
    """
    raw = Path(path).read_bytes()
    try:
        text = (gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a list of URLs ({error}); write one a line") from None
    urls = []
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if "://" not in line:
            if base is None:
                raise ValueError(f"{path}, line {number}: {line!r} is no URL; say what stands before it")
            line = f"{base.rstrip('/')}/{line.lstrip('/')}"
        urls.append(line)
    return urls


class _Part:
    """A file on its way: `NAME.part`, and beside it what the server said of it."""

    def __init__(self, url: str, path: Path):
        self.url, self.target = url, path
        self.path = path.with_name(f"{path.name}.part")
        # Hidden, so that nobody who searches the folder takes it for a text.
        self._facts_path = path.with_name(f".{path.name}.part.json")

    def fetch(self, progress: Progress | None, timeout_seconds: float) -> None:
        """Gets all of it, going on after cuts as long as each brought something."""
        cuts = 0
        while not self._get(progress, timeout_seconds):
            cuts += 1
            if cuts == _MAX_CUTS:
                here = self.path.stat().st_size
                raise ConnectionError(f"{self.url}: cut {cuts} times, {here:,} bytes are here; run it again to go on")

    def finish(self) -> None:
        os.replace(self.path, self.target)
        self._facts_path.unlink(missing_ok=True)

    def _get(self, progress: Progress | None, timeout_seconds: float) -> bool:
        """Gets what is missing; whether that was all."""
        facts = self._facts()
        here = self.path.stat().st_size if facts else 0
        headers = {"Range": f"bytes={here}-", "If-Range": facts["validator"]} if here else {}
        try:
            response = _open(self.url, headers, timeout_seconds, self.target)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != 416:
                raise OSError(
                    f"{self.url}: the server answers {error.code} {error.reason}; {_advice(error.code)}"
                ) from None
            # What is here is no start of what is there now.
            self._facts_path.unlink(missing_ok=True)
            return False
        with response:
            start, total = _place(response, self.url)
            changed = start > 0 and _validator(response.headers) not in (None, facts.get("validator"))
            if start not in (0, here) or changed:
                self._facts_path.unlink(missing_ok=True)
                return False
            if start == 0:
                self._write_facts(_validator(response.headers))
            return self._take(response, start, total, progress)

    def _take(self, response: Any, start: int, total: int | None, progress: Progress | None) -> bool:
        """Writes what comes; whether the file is whole."""
        here, cut = start, False
        with open(self.path, "ab" if start else "wb") as file:
            while chunk := _next_chunk(response):
                file.write(chunk)
                here += len(chunk)
                if progress is not None:
                    progress(here, total)
            cut = chunk is None
            file.flush()
            os.fsync(file.fileno())
        if total is not None and here > total:
            self._facts_path.unlink(missing_ok=True)
            raise OSError(f"{self.url}: {here:,} bytes came but {total:,} were promised; fetch it again")
        return not cut and total in (None, here)

    def _facts(self) -> dict[str, str]:
        """What is known of the part that is here; nothing when it cannot be gone on with."""
        with suppress(OSError, ValueError):
            facts = json.loads(self._facts_path.read_text(encoding="utf-8"))
            if self.path.exists() and facts["url"] == self.url and isinstance(facts["validator"], str):
                return dict(facts)
        return {}

    def _write_facts(self, validator: str | None) -> None:
        self._facts_path.unlink(missing_ok=True)
        if validator is not None:
            self._facts_path.write_text(json.dumps({"url": self.url, "validator": validator}), encoding="utf-8")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Redirects within http and https only, not many, and none from the safe to the open."""

    max_redirections = _MAX_REDIRECTS
    max_repeats = 2

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        scheme = urllib.parse.urlsplit(newurl).scheme
        if scheme != "https" and (scheme != "http" or req.type == "https"):
            raise OSError(f"{req.full_url}: leads to {newurl}, which is not safe to follow; give the address itself")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, headers: dict[str, str], timeout_seconds: float, target: Path) -> Any:
    # Without "identity" a length may be that of a packed form.
    request = urllib.request.Request(url, headers={"User-Agent": "tinygpt", "Accept-Encoding": "identity", **headers})
    try:
        return urllib.request.build_opener(_Redirects).open(request, timeout=timeout_seconds)
    except urllib.error.HTTPError:
        raise
    except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise ConnectionError(
            f"{url}: cannot be reached ({reason}); check the connection, or fetch it by other means to {target}"
        ) from None


def _next_chunk(response: Any) -> bytes | None:
    """The next bytes, none at the end; `None` when the connection was cut."""
    try:
        return bytes(response.read(_CHUNK_BYTES))
    except (OSError, http.client.HTTPException):
        return None


def _place(response: Any, url: str) -> tuple[int, int | None]:
    """The byte at which an answer starts, and the length of the whole file."""
    if response.status != 206:
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdigit() else None
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    first, _, total = rest.partition("/")
    start = first.partition("-")[0]
    if unit != "bytes" or not start.isdigit():
        raise OSError(f"{url}: the server answers with a part that it does not name; fetch it by other means")
    return int(start), int(total) if total.isdigit() else None


def _validator(headers: Any) -> str | None:
    """What tells one state of the file from another; a weak tag does not, to the byte."""
    tag: str | None = headers.get("ETag")
    modified: str | None = headers.get("Last-Modified")
    return tag if tag and not tag.startswith("W/") else modified


def _check(path: Path, sha256: str | None, url: str) -> None:
    if sha256 is None:
        return
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != sha256.lower():
        path.unlink()
        raise OSError(
            f"{url}: its sha256 is {digest.hexdigest()[:12]}.., not {sha256[:12]}.. as expected, so it was removed; "
            "fetch it again, or check the sum"
        )


def _name_of(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no address of http or https; give one such as https://example.org/books.txt")
    name = urllib.parse.unquote(parts.path.rpartition("/")[2])
    if not name or name.startswith(".") or "/" in name or "\\" in name or "\0" in name:
        raise ValueError(f"{url}: the address names no file; say what it is to be called")
    return name


def _advice(code: int) -> str:
    return "try again later" if code == 429 or code >= 500 else "check the address"
