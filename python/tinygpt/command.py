"""What every command does alike: end with an exit code, one line for every error, a bar while bytes pass."""

import errno
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from tinygpt.interruption import raise_on_interrupt


def run(command: Callable[[Sequence[str]], int], argv: Sequence[str] | None, *, verb: str) -> int:
    """The exit code of `command(argv)`: every error becomes one line on standard error, never a traceback.

    0 done; 2 the user's mistake (ValueError, OSError); 1 a failure (disk, memory, anything else); 130 Ctrl-C. With
    TINYGPT_TRACEBACK=1 in the environment errors are raised as they are. Warnings are shown as one line, too.

    Args:
        command: Takes the words after the verb and returns its exit code.
        argv: Those words; None stands for `sys.argv[1:]`.
        verb: The name that stands before the message.
    """
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: _say(verb, "warning", str(message))
        try:
            raise_on_interrupt()
            return command(sys.argv[1:] if argv is None else argv)
        except SystemExit as stop:
            return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except BrokenPipeError:
            # The reader left. The interpreter flushes at exit and would complain: let it flush into nothing.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except KeyboardInterrupt:
            _say(verb, "stopped", "by Ctrl-C")
            return 130
        except Exception as error:
            if os.environ.get("TINYGPT_TRACEBACK") == "1":
                raise
            code, message = _verdict(error)
            _say(verb, "error", message)
            return code


def write_now(text: str) -> None:
    """`text` to standard output at once, as UTF-8 whatever the locale says."""
    stream = getattr(sys.stdout, "buffer", None)
    if stream is None:
        sys.stdout.write(text)
    else:
        sys.stdout.flush()
        stream.write(text.encode("utf-8", "replace"))
    sys.stdout.flush()


@contextmanager
def byte_bar(label: str, unit: str = "B") -> Iterator[Callable[[int, int | None], None]]:
    """A function to call with the bytes, or what `unit` says, done and there are; on a terminal it moves a bar."""
    from tqdm import tqdm

    with tqdm(desc=label, unit=unit, unit_scale=True, leave=False, disable=not sys.stderr.isatty()) as bar:

        def move(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield move


def _verdict(error: Exception) -> tuple[int, str]:
    """Exit code and message of an error."""
    if isinstance(error, OSError):
        text = str(error)
        if error.strerror:
            reason = error.strerror[:1].lower() + error.strerror[1:]
            text = reason if error.filename is None else f"{error.filename}: {reason}"
        return (1 if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG) else 2), text
    if isinstance(error, ValueError):
        return 2, str(error)
    if isinstance(error, MemoryError):
        return (
            1,
            f"out of memory{f' ({error})' if str(error) else ''}; a smaller --batch-size or --block-size needs less",
        )
    if isinstance(error, RuntimeError | ImportError):
        return 1, str(error)
    return 1, f"{type(error).__name__}: {error}; this is a bug in tinygpt: TINYGPT_TRACEBACK=1 shows where"


def _say(verb: str, kind: str, message: str) -> None:
    """One line on standard error, whatever the message holds."""
    line = " ".join(message.split()) or "no message"
    print(f"tinygpt {verb}: {kind}: {line[:1000]}", file=sys.stderr, flush=True)
