import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tinygpt.staging import (
    JOURNAL,
    WorkFolder,
    lock_folder,
    remove_folder,
    resumable_folder,
    staged_folder,
    sweep,
    write_file,
)


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


def work_a_little(work: WorkFolder, text: str, *, journal: bool = True) -> None:
    (work.folder / "a").write_text(text)
    if journal:
        (work.journal / JOURNAL).write_text("{}")


def interrupt(path: Path, key: str, *, journal: bool = True, error: type[BaseException] = KeyboardInterrupt) -> None:
    with pytest.raises(error), resumable_folder(path, key=key) as work:  # noqa: PT012
        work_a_little(work, "half", journal=journal)
        raise error


def test_a_resumable_folder_appears_whole_and_replaces_what_was_there(tmp_path: Path) -> None:
    for text in ["old", "new"]:
        with resumable_folder(tmp_path / "deep" / "run", key="1") as work:
            assert (work.is_continued, list(work.folder.iterdir())) == (False, [])
            work_a_little(work, text)
        assert (contents(tmp_path), os.listdir(tmp_path / "deep")) == ({"deep/run/a": text}, ["run"])


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, ValueError])
def test_interrupted_work_goes_on_with_the_same_key(tmp_path: Path, error: type[BaseException]) -> None:
    interrupt(tmp_path / "run", "1", error=error)
    assert not (tmp_path / "run").exists()
    with resumable_folder(tmp_path / "run", key="1") as work:
        assert (work.is_continued, (work.folder / "a").read_text()) == (True, "half")
        assert (work.journal / JOURNAL).is_file()
        (work.folder / "b").write_text("rest")
    assert (contents(tmp_path), os.listdir(tmp_path)) == ({"run/a": "half", "run/b": "rest"}, ["run"])


def test_a_file_that_was_being_written_is_no_part_of_what_goes_on(tmp_path: Path) -> None:
    interrupt(tmp_path / "run", "1")
    (tmp_path / ".part-run" / "data" / ".tmp-tokenizer.json-0123abcd").write_text("ha")
    with resumable_folder(tmp_path / "run", key="1") as work:
        assert work.is_continued
    assert contents(tmp_path) == {"run/a": "half"}


def test_work_of_another_key_is_removed(tmp_path: Path) -> None:
    interrupt(tmp_path / "run", "1")
    with resumable_folder(tmp_path / "run", key="2") as work:
        assert (work.is_continued, list(work.folder.iterdir())) == (False, [])
        assert not (work.journal / JOURNAL).exists()
    assert (os.listdir(tmp_path), contents(tmp_path)) == (["run"], {})


def test_interrupted_work_without_a_journal_leaves_no_trace(tmp_path: Path) -> None:
    interrupt(tmp_path / "run", "1", journal=False)
    assert os.listdir(tmp_path) == []


def test_sweep_leaves_work_that_can_go_on_and_clears_what_cannot(tmp_path: Path) -> None:
    interrupt(tmp_path / "run", "1")
    (tmp_path / ".part-empty").mkdir()
    (tmp_path / ".part-empty" / "key").write_text("1")
    sweep(tmp_path)
    assert os.listdir(tmp_path) == [".part-run"]


WORK = """
import sys, time
from tinygpt.staging import resumable_folder
with resumable_folder(sys.argv[1], key="1") as work:
    (work.folder / "a").write_text("half")
    print("half", flush=True)
    if sys.argv[2] == "journal":
        (work.journal / "journal.json").write_text("{}")
        print("journal", flush=True)
    time.sleep(60)
"""


def test_a_second_worker_is_refused_by_name_and_sweep_leaves_the_first_alone(tmp_path: Path) -> None:
    child = start(WORK, tmp_path / "run", "none")
    with (
        pytest.raises(BlockingIOError, match=rf"run is in use by process {child.pid} on "),
        resumable_folder(tmp_path / "run", key="1"),
    ):
        pass
    sweep(tmp_path)
    assert (tmp_path / ".part-run" / "data" / "a").read_text() == "half"
    kill(child)
    sweep(tmp_path)
    assert os.listdir(tmp_path) == []


def test_killed_work_with_a_journal_goes_on(tmp_path: Path) -> None:
    child = start(WORK, tmp_path / "run", "journal")
    assert child.stdout is not None
    child.stdout.readline()
    kill(child)
    with resumable_folder(tmp_path / "run", key="1") as work:
        assert work.is_continued
    assert (os.listdir(tmp_path), contents(tmp_path)) == (["run"], {"run/a": "half"})


WORK_KILLED_AT_CALL = (
    KILLED_AT_CALL[: KILLED_AT_CALL.index("with staged")].replace("staged", "resumable")
    + """
with resumable_folder(sys.argv[1], key="1") as work:
    (work.folder / "a").write_text("new")
    (work.journal / "journal.json").write_text("{}")
    (work.folder / "b").write_text("new")
"""
)


def test_work_killed_before_any_file_operation_is_done_by_the_next_try(tmp_path: Path) -> None:
    code, call = -signal.SIGKILL, 0
    while code == -signal.SIGKILL:
        call += 1
        run = tmp_path / str(call) / "run"
        run.mkdir(parents=True)
        (run / "a").write_text("old")
        code = subprocess.run([sys.executable, "-c", WORK_KILLED_AT_CALL, run, str(call)], check=False).returncode
        assert not run.exists() or contents(run) in ({"a": "old"}, {"a": "new", "b": "new"})
        with resumable_folder(run, key="1") as work:
            for name in "ab":
                (work.folder / name).write_text("new")
        assert (os.listdir(run.parent), contents(run)) == (["run"], {"a": "new", "b": "new"})
    assert (code, call > 15) == (0, True)
