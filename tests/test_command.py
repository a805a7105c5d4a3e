"""How a command ends: exit codes, and one line for every error."""

import errno
import warnings
from collections.abc import Sequence

import pytest
from tinygpt.command import run

ENDS = {
    "ValueError": (ValueError("n_head must divide\nd_model"), 2, "tinygpt try: error: n_head must divide d_model\n"),
    "missing file": (FileNotFoundError(errno.ENOENT, "No such file or directory", "a.txt"), 2, "a.txt: no such file"),
    "our own OSError": (BlockingIOError("runs/x: used by process 7"), 2, "error: runs/x: used by process 7\n"),
    "full disk": (OSError(errno.ENOSPC, "No space left on device", "a.bin"), 1, "a.bin: no space left"),
    "memory": (MemoryError(), 1, "error: out of memory"),
    "failure": (RuntimeError("the loss is nan"), 1, "error: the loss is nan\n"),
    "bug": (KeyError("x"), 1, "KeyError: 'x'; this is a bug"),
}


def raising(error: BaseException, argv: Sequence[str] = ()) -> int:
    def command(argv: Sequence[str]) -> int:
        raise error

    return run(command, argv, verb="try")


@pytest.mark.parametrize("name", ENDS)
def test_an_error_is_one_line_and_an_exit_code(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    error, code, message = ENDS[name]
    assert raising(error) == code
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert message in shown


def test_ctrl_c_is_130_and_exit_codes_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert [raising(error) for error in (KeyboardInterrupt(), SystemExit(143), SystemExit(None))] == [130, 143, 0]


def test_the_traceback_is_there_for_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYGPT_TRACEBACK", "1")
    with pytest.raises(ValueError, match="why"):
        raising(ValueError("why"))


def test_a_warning_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def command(argv: Sequence[str]) -> int:
        warnings.warn("the prompt is\nlong", stacklevel=1)
        return 0

    assert run(command, [], verb="try") == 0
    assert capsys.readouterr().err == "tinygpt try: warning: the prompt is long\n"
