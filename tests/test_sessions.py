"""sessions.jsonl: what is recorded when a session begins, ends, fails or is killed."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tinygpt.sessions import is_held, read_sessions, recorded


def ending() -> dict[str, object]:
    return {"step": 7, "seconds": 1.5, "reason": "steps"}


def test_sessions_follow_one_another(tmp_path: Path) -> None:
    for step in (0, 7):
        with recorded(tmp_path, {"from_step": step, "command": "tinygpt train"}, ending):
            pass
    found = read_sessions(tmp_path)
    assert [(each.from_step, each.end_step, each.reason, each.command) for each in found] == [
        (0, 7, "all steps", "tinygpt train"),
        (7, 7, "all steps", "tinygpt train"),
    ]


def test_an_error_is_the_reason(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), recorded(tmp_path, {}, ending):
        raise RuntimeError("diverged")
    assert read_sessions(tmp_path)[0].reason == "RuntimeError: diverged"


def test_a_killed_session_has_no_end_and_the_next_one_is_its_own(tmp_path: Path) -> None:
    code = f"""
import os
from pathlib import Path
from tinygpt.sessions import recorded
with recorded(Path({str(tmp_path)!r}), {{"from_step": 0}}, dict):
    os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    with recorded(tmp_path, {"from_step": 5}, ending):
        pass
    assert [(each.from_step, each.end_step) for each in read_sessions(tmp_path)] == [(0, None), (5, 7)]


def test_a_torn_line_is_written_over(tmp_path: Path) -> None:
    with recorded(tmp_path, {"from_step": 0}, ending):
        pass
    with (tmp_path / "sessions.jsonl").open("a") as file:
        file.write('{"began": "20')
    with recorded(tmp_path, {"from_step": 3}, ending):
        pass
    assert [each.from_step for each in read_sessions(tmp_path)] == [0, 3]


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "sessions.jsonl").mkdir()
    ran = []
    with pytest.warns(RuntimeWarning, match=r"sessions\.jsonl: not written"), recorded(tmp_path, {}, ending):
        ran.append(True)
    assert ran == [True]


@pytest.mark.parametrize("value", [None, "x", [], {}, 1e400, -1, True])
def test_facts_of_other_kinds_are_none(tmp_path: Path, value: object) -> None:
    facts = {"began": value, "from_step": value, "from_seconds": value, "forecast": value, "command": value}
    lines = [facts, {"ended": value, "step": value, "seconds": value, "reason": value}]
    (tmp_path / "sessions.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    (found,) = read_sessions(tmp_path)
    assert isinstance(found.from_step, int)
    assert isinstance(found.reason, str)


def test_a_run_is_held_by_a_process_that_lives(tmp_path: Path) -> None:
    assert not is_held(tmp_path)
    for owner, is_alive in ((f"process {os.getpid()} on {socket.gethostname()}", True), ("process 1 on mars", False)):
        (tmp_path / ".lock-owner").write_text(owner)
        assert is_held(tmp_path) == is_alive
    (tmp_path / ".lock-owner").write_text(f"process {10**30} on {socket.gethostname()}")
    assert not is_held(tmp_path)
