"""Chats: conversations in .jsonl files, read record by record and never held whole."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tinygpt._core import Files, xxh3_file
from tinygpt.chattemplate import ROLES

Message = tuple[str, str]
"""Role and text."""

Chat = tuple[Message, ...]
"""A conversation."""

Origin = tuple[int, int, int]
"""Where a conversation stands: number of its file, first byte and end of its line."""

MALFORMED = ("error", "skip")
_LONGEST_LINE = 64 << 20
_LOOKED_AT = 1 << 20
"""Bytes of a first record by which it is told whether it is a conversation."""


class Chats:
    """Conversations, one a line of JSON, as `messages` (each a `role` and a `content`) or `prompt` and `completion`.

    Roles are system, user and assistant; a prompt is the user's, a completion the assistant's. Other keys of a record
    are left alone. Every record is either used or refused, and counted.

    Args:
        paths: A .jsonl file, a folder (searched for them) or several of these.
        malformed: What is done with a record that is no conversation: "error", or "skip" and count it.

    Attributes:
        report: What the last pass saw: records, those used (documents) and refused, bytes read and used.
        first_refusal: What was wrong with the first record that the last pass refused.

    Raises:
        FileNotFoundError: A path does not exist.
        ValueError: A folder without .jsonl files, or an unknown choice.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.jsonl").write_text('{"prompt": "2 + 2?", "completion": "4"}')
        ...     list(Chats(folder))
        [(('user', '2 + 2?'), ('assistant', '4'))]
    """

    def __init__(self, paths: str | Path | Sequence[str | Path], *, malformed: str = "error") -> None:
        several = [paths] if isinstance(paths, str | Path) else list(paths)
        if malformed not in MALFORMED:
            raise ValueError(f"malformed must be one of {', '.join(MALFORMED)}, got {malformed!r}")
        self.malformed = malformed
        self.name = os.fspath(several[0]) + (f" and {len(several) - 1} more" if len(several) > 1 else "")
        self.files = [file for path in several for file in _files(Path(path))]
        self.report: dict[str, Any] = {}
        self.first_refusal: str | None = None
        self._n_used = [0] * len(self.files)

    @property
    def n_bytes(self) -> int:
        """Bytes of the files."""
        return sum(file.stat().st_size for file in self.files)

    @property
    def summary(self) -> str:
        """What became of every record in the last pass, in words."""
        counts = {name: f"{self.report.get(name, 0):,}" for name in ("records", "documents", "refused")}
        line = "{records} records = {documents} used + {refused} refused".format(**counts)
        first = f" (first {self.first_refusal})" if self.first_refusal else ""
        return f"{len(self.files):,} files, {line}{first}"

    def __iter__(self) -> Iterator[Chat]:
        return (chat for chat, _ in self.read())

    def read(self, progress: Callable[[int, int | None], object] | None = None) -> Iterator[tuple[Chat, Origin]]:
        """The conversations in order, and where each stands.

        Args:
            progress: Called now and then with the bytes done and the bytes there are.

        Raises:
            ValueError: A record is no conversation and `malformed` is "error"; the message names file and line.
        """
        self.report = dict.fromkeys(("records", "documents", "refused", "bytes_read", "bytes_used"), 0)
        self.first_refusal, total, report = None, self.n_bytes, self.report
        self._n_used = [0] * len(self.files)
        for i, file in enumerate(self.files):
            before, end = report["records"], 0
            for number, line in _lines(file):
                start, end = end, end + len(line)
                report["bytes_read"] += len(line)
                if not line.strip():
                    continue
                report["records"] += 1
                try:
                    chat = _conversation(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
                except ValueError as error:
                    if isinstance(error, _NoChatError) and report["records"] == before + 1:  # a file of something else
                        raise ValueError(f"{file}, line {number}: {error}; it is no file of chats") from None
                    self._refuse(f"{file}, line {number}: {error}")
                    continue
                report["documents"] += 1
                report["bytes_used"] += sum(len(text.encode()) for _, text in chat)
                if progress is not None and report["records"] % 1000 == 0:
                    progress(report["bytes_read"], total)
                self._n_used[i] += 1
                yield chat, (i, start, start + len(line.rstrip(b"\r\n")))
        if progress is not None:
            progress(total, total)

    def texts(self) -> Iterable[str]:
        """What is said in them, message by message, as often as it is asked for: what a tokenizer learns from."""
        return _Texts(self)

    def lineage(self) -> dict[str, Any]:
        """What the last pass read, for the manifest: settings, files, their lengths, checksums and conversations."""
        sources = [
            {"path": _spelled(file), "bytes": file.stat().st_size, "xxh3": xxh3_file(file), "documents": n_used}
            for file, n_used in zip(self.files, self._n_used, strict=True)
        ]
        return {"documents": "chat", "malformed": self.malformed, "sources": sources}

    def unchanged_since(self, lineage: Any) -> bool:
        """Whether files and settings are still those of a manifest's `corpus`; all bytes are compared by checksum."""
        return isinstance(lineage, dict) and _without_counts(lineage) == _without_counts(self.lineage())

    def _refuse(self, why: str) -> None:
        if self.malformed == "error":
            raise ValueError(f"{why}; correct it, or take --malformed skip")
        self.report["refused"] += 1
        self.first_refusal = self.first_refusal or why


class _NoChatError(ValueError):
    """A record with none of the keys of a conversation."""


class _Texts:
    def __init__(self, chats: Chats) -> None:
        self._chats = chats

    def __iter__(self) -> Iterator[str]:
        return (text for chat in self._chats for _, text in chat)


def _without_counts(lineage: dict[str, Any]) -> dict[str, Any]:
    """A lineage as it is known before the files are read."""
    sources = [{k: v for k, v in source.items() if k != "documents"} for source in lineage.get("sources") or ()]
    return {**lineage, "sources": sources}


def is_chats(path: Path) -> bool:
    """Whether a path is a .jsonl file, or a folder with these and no text, whose first record is a conversation."""
    if not path.is_dir():
        return path.suffix.lower() == ".jsonl" and _begins_with_chat(path)
    if (path / "manifest.json").is_file() or not any(path.rglob("*.jsonl")):
        return False
    try:
        found = [file for file, _ in Files([os.fspath(path)]).files()]
    except ValueError:
        return False
    return (
        bool(found) and all(file.endswith(".jsonl") for file in map(str, found)) and _begins_with_chat(Path(found[0]))
    )


def _begins_with_chat(file: Path) -> bool:
    """Whether the first record has the keys of one; what else is wrong with it is said when it is read."""
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        line = next((line for line in iter(lambda: opened.readline(_LOOKED_AT), b"") if line.strip()), b"")
    line = line.removeprefix(b"\xef\xbb\xbf")
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return b'"messages"' in line or (b'"prompt"' in line and b'"completion"' in line)
    return isinstance(record, dict) and ("messages" in record or {"prompt", "completion"} <= record.keys())


def _files(path: Path) -> list[Path]:
    """The files of a path, those of a folder by name."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.rglob("*.jsonl") if file.is_file() and not _is_hidden(file, path))
    if not found:
        raise ValueError(f"{path}: no .jsonl files in this folder")
    return found


def _is_hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """Number, from 1, and bytes of each line."""
    with file.open("rb") as opened:
        number = 0
        while line := opened.readline(_LONGEST_LINE + 1):
            number += 1
            if len(line) > _LONGEST_LINE:
                raise ValueError(f"{file}, line {number}: longer than {_LONGEST_LINE} bytes; write one record a line")
            yield number, line


def _conversation(line: bytes) -> Chat:
    """The conversation of a record; whatever is wrong with it is a ValueError."""
    try:
        record = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 (byte {line[error.start]:#04x} at {error.start})") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from None
    if not isinstance(record, dict):
        raise ValueError(f"a record must be an object, found {record!r:.40}")
    if "messages" in record:
        chat = _messages(record["messages"])
    elif "prompt" in record and "completion" in record:
        chat = tuple((role, _text(record[key], key)) for role, key in _PAIR.items())
    else:
        found = ", ".join(map(repr, list(record)[:5])) or "none"
        raise _NoChatError(f"neither messages nor prompt and completion among its keys, found {found:.80}")
    if not any(role == "assistant" and text for role, text in chat):
        raise ValueError("no text of the assistant, so there is nothing to learn")
    return chat


_PAIR = {"user": "prompt", "assistant": "completion"}


def _messages(found: Any) -> Chat:
    if not isinstance(found, list) or not all(isinstance(message, dict) for message in found):
        raise ValueError(f"messages must be a list of objects, found {found!r:.40}")
    chat = []
    for i, message in enumerate(found):
        role = message.get("role")
        if not isinstance(role, str) or role not in ROLES:
            raise ValueError(f"messages[{i}].role must be one of {', '.join(ROLES)}, found {role!r:.40}")
        chat.append((role, _text(message.get("content"), f"messages[{i}].content")))
    return tuple(chat)


def _text(found: Any, name: str) -> str:
    if not isinstance(found, str):
        raise ValueError(f"{name} must be text, found {found!r:.40}")
    try:
        found.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} holds a lone surrogate at character {error.start}") from None
    return found


def _spelled(path: Path) -> str:
    r"""A path as text; bytes of it that are no UTF-8, which JSON cannot hold, are shown as `\xe9`."""
    return os.fsencode(path).decode(errors="backslashreplace")
