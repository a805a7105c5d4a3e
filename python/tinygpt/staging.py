"""Folders and files that are whole or absent, whatever kills the process that writes them.

Everything is written beside its place under a temporary name, flushed to the disk, and renamed into it.
What a killed process leaves behind bears one of three prefixes, so that `sweep` knows what to do with it:
`.tmp-` was being written and `.trash-` was being deleted (both go), `.old-` was being replaced (it comes back
when its successor never arrived).
"""

import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

_LEFTOVER = re.compile(r"\.(tmp|trash|old)-(.+)-[0-9a-f]{8}")


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
    if os.path.lexists(path) and (path.is_symlink() or not path.is_dir()):
        raise FileExistsError(f"{path} is not a folder, so no folder can replace it; remove it or choose another name")
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
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush(path.parent)


def sweep(parent: str | Path, name: str | None = None) -> None:
    """Clears what killed processes left in `parent`, and restores a folder whose replacement was cut short.

    Call it where no other process writes, which holding `lock_folder(parent)` assures.

    Args:
        parent: The folder that holds the leftovers; nothing happens when it does not exist.
        name: Clear only what was to become `parent/name`; None clears everything of ours.
    """
    parent = _absolute(parent)
    for entry in sorted(parent.iterdir()) if parent.is_dir() else []:
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
def lock_folder(path: str | Path) -> Iterator[None]:
    """Holds `path/.lock`, so that no second process works in this folder; the system frees it if this one dies.

    Args:
        path: The folder; it is made when missing.

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
        raise BlockingIOError(f"{path} is in use by {holder}; wait for it, stop it, or use another folder") from None
    try:
        owner.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


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
