import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tinygpt.staging import lock_folder, remove_folder, staged_folder, sweep, write_file


def contents(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    """A child that has printed its first line, hence stands where the program says."""
    child = subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    child.stdout.readline()
    return child


def kill(child: subprocess.Popen[str]) -> None:
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert child.stdout is not None
    child.stdout.close()


def test_staged_folder_appears_whole_with_all_it_holds(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "new" / "run") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "a.txt").write_text("a")
        assert not (tmp_path / "new" / "run").exists()
    assert contents(tmp_path) == {"new/run/deep/a.txt": "a"}


def test_an_exception_leaves_no_trace_and_keeps_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "a").write_text("old")
    with pytest.raises(UnicodeEncodeError), staged_folder(tmp_path / "run", replace=True) as folder:  # noqa: PT012
        (folder / "a").write_text("new")
        (folder / "b").write_text("\ud800", encoding="utf-8")
    assert (os.listdir(tmp_path), contents(tmp_path)) == (["run"], {"run/a": "old"})


def test_replacing_drops_every_file_of_the_old_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "only-old").write_text("old")
    with staged_folder(tmp_path / "run", replace=True) as folder:
        (folder / "only-new").write_text("new")
        assert contents(tmp_path / "run") == {"only-old": "old"}
    assert (os.listdir(tmp_path), contents(tmp_path)) == (["run"], {"run/only-new": "new"})


@pytest.mark.parametrize(("make", "replace"), [(Path.mkdir, False), (Path.touch, False), (Path.touch, True)])
def test_what_stands_there_is_refused(tmp_path: Path, make: object, replace: bool) -> None:
    make(tmp_path / "run")  # type: ignore[operator]
    with pytest.raises(FileExistsError, match="run"), staged_folder(tmp_path / "run", replace=replace):
        pass
    assert os.listdir(tmp_path) == ["run"]


def test_a_folder_that_appeared_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    with pytest.raises(OSError), staged_folder(tmp_path / "run") as folder:  # noqa: PT011, PT012
        (folder / "a").write_text("mine")
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "a").write_text("theirs")
    assert (os.listdir(tmp_path), contents(tmp_path)) == (["run"], {"run/a": "theirs"})


HALF_WRITTEN = """
import sys, time
from tinygpt.staging import staged_folder
with staged_folder(sys.argv[1], replace=True) as folder:
    (folder / "a").write_text("new")
    print("half", flush=True)
    time.sleep(60)
"""


def test_sigkill_in_the_middle_keeps_the_old_folder_and_sweep_clears_the_rest(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "a").write_text("old")
    kill(start(HALF_WRITTEN, tmp_path / "run"))
    assert len(os.listdir(tmp_path)) == 2
    sweep(tmp_path)
    assert (os.listdir(tmp_path), contents(tmp_path)) == (["run"], {"run/a": "old"})


KILLED_AT_CALL = """
import os, signal, sys
from tinygpt.staging import staged_folder
names = {"os.rename", "os.fsync", "os.mkdir", "open", "os.rmdir", "os.remove", "shutil.rmtree"}
calls = 0
def count(event, _):
    global calls
    if event in names:
        calls += 1
        if calls == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
with staged_folder(sys.argv[1], replace=True) as folder:
    (folder / "a").write_text("new")
    (folder / "b").write_text("new")
"""


def test_sigkill_before_any_file_operation_leaves_one_whole_folder_after_sweep(tmp_path: Path) -> None:
    seen, code, call = set(), -signal.SIGKILL, 0
    while code == -signal.SIGKILL:
        call += 1
        run = tmp_path / str(call) / "run"
        run.mkdir(parents=True)
        (run / "a").write_text("old")
        code = subprocess.run([sys.executable, "-c", KILLED_AT_CALL, run, str(call)], check=False).returncode
        sweep(run.parent)
        assert os.listdir(run.parent) == ["run"]
        assert contents(run) in ({"a": "old"}, {"a": "new", "b": "new"})
        seen.add(len(contents(run)))
    assert (code, seen, call > 8) == (0, {1, 2}, True)


def test_write_file_replaces_the_whole_text(tmp_path: Path) -> None:
    write_file(tmp_path / "a", "long old text")
    write_file(tmp_path / "a", "né\r\n")
    write_file(tmp_path / "b", b"\xff")
    assert ((tmp_path / "a").read_bytes(), (tmp_path / "b").read_bytes()) == ("né\r\n".encode(), b"\xff")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_write_file_that_fails_keeps_the_old_text(tmp_path: Path) -> None:
    write_file(tmp_path / "a", "old")
    with pytest.raises(UnicodeEncodeError):
        write_file(tmp_path / "a", "\ud800")
    assert (os.listdir(tmp_path), (tmp_path / "a").read_text()) == (["a"], "old")


def test_remove_folder_removes_it_all(tmp_path: Path) -> None:
    (tmp_path / "run" / "deep").mkdir(parents=True)
    remove_folder(tmp_path / "run")
    assert os.listdir(tmp_path) == []


def test_sweep_touches_only_our_leftovers_and_only_the_name_asked_for(tmp_path: Path) -> None:
    ours = [".tmp-run-01234567", ".trash-run-01234567", ".old-run-01234567"]
    others = [".tmp-other-01234567", ".tmp-notes", "run", "tmp-run-01234567"]
    for name in ours + others:
        (tmp_path / name).mkdir()
    sweep(tmp_path, "run")
    assert sorted(os.listdir(tmp_path)) == sorted(others)


def test_sweep_restores_a_folder_whose_successor_never_came(tmp_path: Path) -> None:
    (tmp_path / ".old-run-01234567").mkdir()
    (tmp_path / ".old-run-01234567" / "a").write_text("old")
    sweep(tmp_path)
    assert contents(tmp_path) == {"run/a": "old"}


HOLD = """
import sys, time
from tinygpt.staging import lock_folder
with lock_folder(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_second_lock_names_the_process_that_holds_the_first_and_its_death_frees_it(tmp_path: Path) -> None:
    child = start(HOLD, tmp_path)
    with pytest.raises(BlockingIOError, match=f"process {child.pid} on "), lock_folder(tmp_path):
        pass
    kill(child)
    with lock_folder(tmp_path):
        assert f"process {os.getpid()} " in (tmp_path / ".lock-owner").read_text()


def test_a_lock_is_free_again_after_its_block(tmp_path: Path) -> None:
    for _ in range(2):
        with lock_folder(tmp_path / "run"), pytest.raises(BlockingIOError), lock_folder(tmp_path / "run"):
            pass
