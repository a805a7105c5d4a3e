"""Faults that happen to a real process: what it says, its exit code, and that its run goes on as if nothing was."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from kill_loop import differences, kill_loop
from small_run import small_run
from tinygpt import runfolder
from tinygpt.metrics import read_metrics

SMALL_RUN = [sys.executable, str(Path(__file__).parent / "small_run.py")]
ON_DISK_OF = """
mount -t tmpfs -o size={size} tmpfs "$room" || exit 99
$train "$room" 100000
code=$?
cp -a "$room"/. "$out"
exit $code
"""
BACKWARDS = """
import time
now = [2e9]
def step_back():
    now[0] -= 3600
    return now[0]
time.time, time.time_ns = step_back, lambda: int(step_back() * 1e9)
"""


def finish(*words: object, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The run of `tests/small_run.py` to its end, in a process of its own."""
    line = [*SMALL_RUN, *map(str, words)]
    env = None if env is None else {**os.environ, **env}
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=120, env=env)


@contextmanager
def training(folder: Path, steps: int = 100_000, **env: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that has taken its first step; it is killed at the end, if it runs still."""
    line, environment = [*SMALL_RUN, str(folder), str(steps)], {**os.environ, **env}
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield child
        child.kill()


def in_a_small_disk(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A shell script in which `$room` is an empty folder that a small file system can be mounted on, seen by it alone.

    What it leaves in `$out` stays.
    """
    if subprocess.run(["unshare", "-Urm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here: unshare -Urm is not allowed")
    (folder / "room").mkdir()
    (folder / "out").mkdir()
    environment = {**os.environ, "room": str(folder / "room"), "out": str(folder / "out"), "train": " ".join(SMALL_RUN)}
    line = ["unshare", "-Urm", "sh", "-c", script]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=120, env=environment)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 300 steps that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert finish(folder, 300).returncode == 0
    return folder


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_finishes_the_step_and_saves(tmp_path: Path, number: int, code: int) -> None:
    with training(tmp_path) as child:
        child.send_signal(number)
        assert child.wait(60) == code
    assert small_run(tmp_path, 100).step == read_metrics(tmp_path / "metrics.jsonl")[-1]["step"]


def test_second_signal_ends_the_process_at_once() -> None:
    code = (
        "import os, signal, time; from tinygpt.interruption import stop_on_signals\n"
        "with stop_on_signals(print):\n"
        "    os.kill(os.getpid(), signal.SIGTERM); print('still here', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGINT); time.sleep(60)\n"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False)
    assert (child.returncode, child.stdout) == (130, "SIGTERM\nstill here\n")


def test_second_run_in_the_folder_is_refused_by_the_name_of_the_first(tmp_path: Path) -> None:
    with training(tmp_path) as first:
        second = finish(tmp_path, 50)
        assert first.poll() is None
    assert (second.returncode, second.stderr.count("\n")) == (2, 1)
    assert f"error: {tmp_path} is in use by process {first.pid} on " in second.stderr


def test_full_disk_keeps_the_old_checkpoints_and_stops_at_the_third_save(tmp_path: Path) -> None:
    # Room for two checkpoints of 1.3 MB, not for a third beside them.
    child = in_a_small_disk(ON_DISK_OF.format(size="3400k"), tmp_path)
    assert (child.returncode, "No space left on device" in child.stderr.splitlines()[-1]) == (1, True)
    assert child.stderr.count("no room on the disk; the old checkpoints stay") == 2
    newest = runfolder.newest(tmp_path / "out")
    assert (newest and newest.name, list(tmp_path.glob("out/.tmp-*"))) == ("step-0000010", [])


def test_disk_too_small_for_one_checkpoint_is_found_before_the_first_step(tmp_path: Path) -> None:
    child = in_a_small_disk(ON_DISK_OF.format(size="900k"), tmp_path)
    assert (child.returncode, child.stdout, child.stderr.count("\n")) == (1, "", 1)
    assert "no room for one checkpoint of about 1." in child.stderr
    assert "B are free; make room or name another folder" in child.stderr
    assert not (tmp_path / "out" / "metrics.jsonl").exists()


def test_folder_that_cannot_be_written_is_found_before_the_first_step(tmp_path: Path) -> None:
    script = 'mount -t tmpfs tmpfs "$room" && mount -o remount,ro "$room" && exec $train "$room/run" 100'
    child = in_a_small_disk(script, tmp_path)
    assert (child.returncode, child.stdout) == (2, "")
    assert child.stderr == f"tinygpt train: error: {tmp_path}/room/run: read-only file system\n"


def test_damaged_newest_checkpoint_is_said_and_the_one_before_it_taken(undisturbed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run, symlinks=True)
    weights = run / "step-0000300" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    child = finish(run, 300)
    assert (child.returncode, child.stderr.count("warning: ")) == (0, 1)
    assert f"{weights}: damaged, its SHA-256 is not the one in checksums.json" in child.stderr
    assert differences(undisturbed, run) == []


def test_killed_under_a_clock_that_runs_backwards_the_run_ends_the_same(undisturbed: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BACKWARDS)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    with training(tmp_path / "run", 300, PYTHONPATH=path) as child:
        assert child.stdout is not None
        while not child.stdout.readline().startswith("step 12/"):
            assert child.poll() is None
        child.kill()
    assert finish(tmp_path / "run", 300, env={"PYTHONPATH": path}).returncode == 0
    assert differences(undisturbed, tmp_path / "run") == []


def test_third_fault_in_a_row_ends_the_run_and_the_old_checkpoint_is_whole(tmp_path: Path) -> None:
    child = finish(tmp_path, 50, "nan@37", "spike@38", "spike@41", "nan@42", "spike@43")
    *warnings, error = child.stderr.splitlines()
    assert [line.split(":")[2].strip() for line in warnings] == [f"step {step}" for step in (37, 38, 41, 42, 43)]
    assert ["are not both finite" in line for line in warnings] == [True, False, False, True, False]
    assert ["is a spike, above " in line for line in warnings] == [False, True, True, False, True]
    assert (child.returncode, "error: training diverged: 3 steps up to step 43 " in error) == (1, True)
    newest = runfolder.newest(tmp_path)
    assert newest is not None
    assert newest.name == "step-0000040"


def test_run_killed_inside_a_save_ends_as_the_run_never_killed(undisturbed: Path, tmp_path: Path) -> None:
    with training(tmp_path, 300) as child:
        while not any(tmp_path.glob(".tmp-step-*")):
            assert child.poll() is None
        child.kill()
    assert any(tmp_path.glob(".tmp-step-*"))
    assert finish(tmp_path, 300).returncode == 0
    assert (differences(undisturbed, tmp_path), list(tmp_path.glob(".tmp-*"))) == ([], [])


@pytest.mark.slow
def test_run_killed_at_fifty_random_instants_ends_as_the_run_never_killed(tmp_path: Path) -> None:
    kills, found = kill_loop([*SMALL_RUN, "{folder}", "3000"], tmp_path, kills=50, inside_saves=15)
    assert (len(kills), found) == (50, [])
    assert sum(kill.inside_save for kill in kills) >= 15
