"""A run's folder: which checkpoints lie in it, which of them are whole, and what `best` and `last` point at.

    runs/books/  config.yaml  metrics.jsonl  step-0000250/  step-0000500/  best -> step-0000250  last -> step-0000500

A checkpoint is known by its name and trusted by its `checksums.json`, never by a time stamp.
"""

import hashlib
import json
import os
import re
import secrets
import warnings
from collections.abc import Callable, Collection
from pathlib import Path

from tinygpt._core import FormatError
from tinygpt.staging import move, remove_folder, write_file

CHECKSUMS = "checksums.json"
PROJECT, RUN = "project.json", "run"
"""What says that a folder is that of a project, and the run in it."""
_STEP = re.compile(r"step-(\d{7,})")


def step_folder(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step stands.

    Example:
        >>> step_folder(Path("runs/books"), 250).name
        'step-0000250'
    """
    return folder / f"step-{step:07d}"


def steps(folder: Path) -> list[int]:
    """The steps that have a checkpoint folder, whole or not, ascending."""
    names = (_STEP.fullmatch(entry.name) for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else ()
    return sorted(int(name[1]) for name in names if name)


def run_and_step(path: Path) -> tuple[Path, int | None]:
    """The run's folder, and the step if `path` names a checkpoint in it: by its own name, or as best or last.

    Example:
        >>> run_and_step(Path("runs/books"))[1]
    """
    if path.name in ("best", "last"):
        path = follow(path.parent, path.name) or path
    found = _STEP.fullmatch(path.name)
    if found and path.is_dir() and not steps(path):
        return path.parent, int(found[1])
    return path, None


def set_aside(folder: Path, step: int) -> Path | None:
    """Moves the checkpoints after `step` into a new folder `aside-N` of the run, which it returns; None if none are.

    metrics.jsonl is copied there as it is, and the id under which Weights & Biases knows the run goes along: what
    is trained from `step` on is another run.
    """
    later = [each for each in steps(folder) if each > step]
    if not later:
        return None
    n = 1 + max((int(p.name[6:]) for p in folder.glob("aside-*") if p.name[6:].isdigit()), default=0)
    aside = folder / f"aside-{n}"
    aside.mkdir()
    if (folder / "metrics.jsonl").is_file():
        write_file(aside / "metrics.jsonl", (folder / "metrics.jsonl").read_bytes())
    for each in reversed(later):  # the last first: whatever ends this, what stays is a run that went less far
        move(step_folder(folder, each), step_folder(aside, each))
    if (folder / "wandb-id").is_file():
        move(folder / "wandb-id", aside / "wandb-id")
    return aside


def write_checksums(folder: Path) -> None:
    """Writes size and SHA-256 of every file in `folder` into its `checksums.json`: the last act of saving."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in sorted(folder.iterdir())
    }  # fmt: skip
    content = {"format": "tinygpt-checkpoint", "version": 1, "files": files}
    write_file(folder / CHECKSUMS, json.dumps(content, indent=1) + "\n")


def verify(folder: Path, *, skip: Collection[str] = ()) -> None:
    """Holds a checkpoint's files against its checksums; returns when all agree.

    Args:
        folder: The checkpoint.
        skip: Files whose content the caller does not need; their size is looked at all the same.

    Raises:
        FormatError: A file is missing, cut off or changed, or the checksums themselves are.
    """
    try:
        content = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
        wanted = {str(name): (int(row["bytes"]), str(row["sha256"])) for name, row in content["files"].items()}
    except FileNotFoundError:
        raise FormatError(
            f"{folder}: no {CHECKSUMS} in it, so its saving never ended; use another checkpoint"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise FormatError(f"{folder / CHECKSUMS}: damaged; use another checkpoint") from None
    for name, (n_bytes, digest) in wanted.items():
        path = folder / name
        if not path.is_file():
            raise FormatError(f"{path}: missing, but {CHECKSUMS} lists it; use another checkpoint")
        if path.stat().st_size != n_bytes:
            found = path.stat().st_size
            raise FormatError(f"{path}: {found} bytes, but {n_bytes} were written; use another checkpoint")
        if name not in skip and _sha256(path) != digest:
            raise FormatError(f"{path}: damaged, its SHA-256 is not the one in {CHECKSUMS}; use another checkpoint")


def newest(folder: Path, accept: Callable[[Path], None] = verify) -> Path | None:
    """The checkpoint of the highest step that is whole; None when there is none. A damaged one is warned of.

    Args:
        folder: The run.
        accept: Raises FormatError for a folder that is not to be taken.
    """
    for step in reversed(steps(folder)):
        candidate = step_folder(folder, step)
        try:
            accept(candidate)
        except (FormatError, OSError) as error:
            warnings.warn(f"{error} (the one before it is tried)", RuntimeWarning, stacklevel=2)
        else:
            return candidate
    return None


def point(folder: Path, name: str, target: Path) -> None:
    """Makes `folder/name` lead to a checkpoint in the same folder, replacing in one instant what it led to."""
    temporary = folder / f".tmp-{name}-{secrets.token_hex(4)}"
    try:
        os.symlink(target.name, temporary, target_is_directory=True)
    except OSError:  # Windows without the privilege, FAT, some network drives
        write_file(folder / name, target.name + "\n")
        return
    os.replace(temporary, folder / name)


def follow(folder: Path, name: str) -> Path | None:
    """The checkpoint that `folder/name` leads to, by link or by pointer file; None when it leads nowhere."""
    pointer = folder / name
    if pointer.is_symlink():
        target = Path(os.readlink(pointer)).name
    elif pointer.is_file():
        target = pointer.read_text(encoding="utf-8").strip()
    else:
        return None
    return folder / target if _STEP.fullmatch(target) and (folder / target).is_dir() else None


def prune(folder: Path, keep: int) -> None:
    """Removes all checkpoints but the `keep` of the highest steps, and never the one that best or last leads to."""
    spared = {follow(folder, name) for name in ("best", "last")}
    for step in steps(folder)[:-keep]:
        if step_folder(folder, step) not in spared:
            remove_folder(step_folder(folder, step))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
