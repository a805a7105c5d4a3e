"""Folders and files that are whole or absent, whatever kills the process that writes them.

Everything is written beside its place under a temporary name, flushed to the disk, and renamed into it.
What a killed process leaves behind bears one of four prefixes, so that `sweep` knows what to do with it:
`.tmp-` was being written and `.trash-` was being deleted (both go), `.old-` was being replaced (it comes back
when its successor never arrived), `.part-` is work that can be continued (it stays until it is).
"""

import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import filelock

JOURNAL = "journal.json"
"""Name of the file that says how far work has got."""

_LEFTOVER = re.compile(r"\.(tmp|trash|old)-(.+)-[0-9a-f]{8}")
_PART = re.compile(r"\.part-(.+)")


@contextmanager
def staged_folder(path: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """A temporary folder to fill, which becomes `path` when the block ends and vanishes when it raises.

    Args:
        path: Where the folder is to stand; missing parents are made.
        replace: Let an existing folder stand until the new one is complete, then put the new one in its place.

    Raises:
        FileExistsError: `path` exists and `replace` is false, or it is not a folder.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     with staged_folder(f"{parent}/poems") as folder:
        ...         _ = (folder / "ode.txt").write_text("O wild West Wind")
        ...     print(sorted(os.listdir(parent)))
        ['poems']

    Source: Pillai et al. 2014, "All File Systems Are Not Created Equal", section 3: data, then name, then parent.
    """
    path = _absolute(path)
    if os.path.lexists(path) and not replace:
        raise FileExistsError(f"{path} exists; choose another name or replace it")
    _check_folder(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path, "tmp")
    temporary.mkdir(exist_ok=False)
    try:
        yield temporary
        _flush_tree(temporary)
        _rename_folder(temporary, path, replace=replace)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@dataclass(frozen=True, kw_only=True)
class WorkFolder:
    """Where a long piece of work is done."""

    folder: Path
    """To fill; it becomes the target."""
    journal: Path
    """A folder for `journal.json`, which says how far the work has got, and for what else the target is not to hold."""
    is_continued: bool
    """Whether there is a journal to go on from; else `folder` is empty."""


@contextmanager
def resumable_folder(path: str | Path, *, key: str) -> Iterator[WorkFolder]:
    """A folder to fill over several tries, which becomes `path` when the block ends.

    It lies beside `path` as `.part-NAME`. When the block raises, or the process is killed, it stays if there is a
    journal in it, for the next call with the same key to go on with; with another key it is made anew.

    Args:
        path: Where the folder is to stand, replacing what stands there; missing parents are made.
        key: Says what the work is, such as a checksum of all that is asked for.

    Raises:
        BlockingIOError: Another process works on the same; the message names it.
        FileExistsError: `path` is not a folder.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     with resumable_folder(f"{parent}/poems", key="1") as work:
        ...         _ = (work.folder / "ode.txt").write_text("O wild West Wind")
        ...     print(sorted(os.listdir(parent)), work.is_continued)
        ['poems'] False
    """
    path = _absolute(path)
    _check_folder(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    shell = path.with_name(f".part-{path.name}")
    with lock_folder(shell, called=path):
        if not (shell / ".lock").exists():
            raise BlockingIOError(f"{path} was finished by another process just now; look at it, or start again")
        sweep(path.parent, path.name)
        work = WorkFolder(folder=shell / "data", journal=shell, is_continued=_is_continued(shell, key))
        try:
            if work.is_continued:
                sweep(work.folder)  # a file that was being written when the process was killed
            else:
                _start_anew(shell, key)
            yield work
            _flush_tree(work.folder)
            _rename_folder(work.folder, path, replace=True)
        except BaseException:
            if not (shell / JOURNAL).is_file():
                shutil.rmtree(shell, ignore_errors=True)
            raise
        shutil.rmtree(shell, ignore_errors=True)


def _is_continued(shell: Path, key: str) -> bool:
    is_there = (shell / "data").is_dir() and (shell / JOURNAL).is_file() and (shell / "key").is_file()
    return is_there and (shell / "key").read_text(encoding="utf-8") == key


def _start_anew(shell: Path, key: str) -> None:
    """Empties a work folder, all but its lock; what makes it one that can be continued goes first."""
    (shell / JOURNAL).unlink(missing_ok=True)
    for entry in shell.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif not entry.name.startswith(".lock"):
            entry.unlink()
    write_file(shell / "key", key)
    (shell / "data").mkdir()


def remove_folder(path: str | Path) -> None:
    """Deletes a folder such that no reader ever finds half of it.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    path = _absolute(path)
    trash = _beside(path, "trash")
    path.rename(trash)
    _flush(path.parent)
    shutil.rmtree(trash)


def move(path: str | Path, target: str | Path) -> None:
    """Renames a file or folder within a file system, such that a power cut leaves it in one of the two places."""
    path, target = _absolute(path), _absolute(target)
    path.rename(target)
    _flush(target.parent)
    _flush(path.parent)


def write_file(path: str | Path, data: bytes | str) -> None:
    """Writes a file whole, replacing what stood there; text is UTF-8 and its line ends are kept."""
    path = _absolute(path)
    temporary = _beside(path, "tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        raise
    _flush(path.parent)


def sweep(parent: str | Path, name: str | None = None) -> None:
    """Clears what killed processes left in `parent`, and restores a folder whose replacement was cut short.

    Work that can be continued stays, as does that of a process that is at it.

    Call it where no other process writes, which holding `lock_folder(parent)` assures.

    Args:
        parent: The folder that holds the leftovers; nothing happens when it does not exist.
        name: Clear only what was to become `parent/name`; None clears everything of ours.
    """
    parent = _absolute(parent)
    for entry in sorted(parent.iterdir()) if parent.is_dir() else []:
        part = _PART.fullmatch(entry.name)
        if part is not None and name in (None, part[1]):
            _sweep_part(entry)
            continue
        leftover = _LEFTOVER.fullmatch(entry.name)
        if leftover is None or name not in (None, leftover[2]):
            continue
        place = parent / leftover[2]
        if leftover[1] == "old" and not os.path.lexists(place):
            entry.rename(place)
            _flush(parent)
        elif entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


@contextmanager
def lock_folder(path: str | Path, *, called: Path | None = None) -> Iterator[None]:
    """Holds `path/.lock`, so that no second process works in this folder; the system frees it if this one dies.

    Args:
        path: The folder; it is made when missing.
        called: What a message calls it; None takes `path`.

    Raises:
        BlockingIOError: Another process holds it; the message names that process and its machine.
    """
    path = _absolute(path)
    path.mkdir(parents=True, exist_ok=True)
    # The holder's name stands in a second file: some filelock versions empty the lock file when they try it,
    # and Windows lets nobody read a locked one.
    owner = path / ".lock-owner"
    lock = filelock.FileLock(path / ".lock", blocking=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        holder = owner.read_text(encoding="utf-8") if owner.exists() else "another process"
        raise BlockingIOError(
            f"{called or path} is in use by {holder}; wait for it, stop it, or use another folder"
        ) from None
    try:
        owner.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def _sweep_part(shell: Path) -> None:
    """Removes a work folder that nobody holds, if nothing in it could be continued."""
    if shell.is_symlink() or not shell.is_dir() or ((shell / JOURNAL).is_file() and (shell / "data").is_dir()):
        return
    with suppress(BlockingIOError), lock_folder(shell):
        shutil.rmtree(shell, ignore_errors=True)


def _check_folder(path: Path) -> None:
    if os.path.lexists(path) and (path.is_symlink() or not path.is_dir()):
        raise FileExistsError(f"{path} is not a folder, so no folder can replace it; remove it or choose another name")


def _absolute(path: str | Path) -> Path:
    """`path` without `..` tricks on its last part: `.` has no name to put a temporary one beside."""
    return Path(os.path.abspath(path))


def _beside(path: Path, prefix: str) -> Path:
    return path.with_name(f".{prefix}-{path.name}-{secrets.token_hex(4)}")


def _rename_folder(temporary: Path, path: Path, *, replace: bool) -> None:
    if not (replace and path.exists()):
        temporary.rename(path)
        _flush(path.parent)
        return
    old = _beside(path, "old")
    path.rename(old)
    try:
        temporary.rename(path)
    except BaseException:
        with suppress(OSError):
            old.rename(path)
        raise
    _flush(path.parent)
    shutil.rmtree(old)


def _flush_tree(folder: Path) -> None:
    """Flushes every file, then the folders from the inside out, so that a name never precedes what it names."""
    for where, _, names in os.walk(folder, topdown=False):
        for name in names:
            _flush(Path(where, name))
        _flush(Path(where))


def _flush(path: Path) -> None:
    if path.is_symlink() or (os.name == "nt" and path.is_dir()):
        return  # a link has no data of its own; Windows cannot open a folder
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
