"""Faults that happen to a real `tinygpt.prepare`: what it says, its exit code, and how the same command ends it."""

import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from tinygpt import TokenDataset
from tinygpt._core import FormatError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="children are watched through /proc")

PREPARE = [sys.executable, "-m", "tinygpt.prepare"]
SMALL_DISK = """
mount -t tmpfs -o size={size}k tmpfs "$room" || exit 99
$prepare "$text" --out "$room/data" {words}
code=$?
ls -iR "$room/.part-data" > "$out/left" 2> /dev/null
echo freed >&2
mount -o remount,size=64m "$room" || exit 99
$prepare "$text" --out "$room/data" {words} || exit 98
ls -iA "$room" "$room/data" > "$out/whole"
cp -a "$room/data" "$out"
exit $code
"""


def text(seed: int, n_lines: int) -> str:
    """Lines of words out of 2,000."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefghijklm", k=rng.randrange(2, 9))) for _ in range(2000)]
    return "".join(" ".join(rng.choices(words, k=12)) + "\n" for _ in range(n_lines))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three files of text, a tokenizer, and what an undisturbed run makes of them."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "text").mkdir()
    for i, n_lines in enumerate((500, 500, 20_000)):
        (folder / f"text/{i}.txt").write_text(text(i, n_lines))
    assert (
        finish(folder / "text", "--tokenizer-only", "--out", folder / "tokenizer", "--vocab-size", 300).returncode == 0
    )
    done = finish(*words(folder), "--out", folder / "whole")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def files(world: Path, tmp_path: Path) -> Path:
    """A copy of the text that a test may change."""
    shutil.copytree(world / "text", tmp_path / "text")
    return tmp_path / "text"


def words(world: Path, files: Path | None = None) -> list[object]:
    """The command, all but `--out`."""
    how = ["--documents", "line", "--shard-tokens", 50_000, "--threads", 1]
    return [files or world / "text", "--tokenizer", world / "tokenizer", *how]


def finish(*words: object, **how: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*PREPARE, *map(str, words)], capture_output=True, text=True, timeout=60, check=False, **how)


@contextmanager
def started(*words: object) -> Iterator["subprocess.Popen[str]"]:
    """The command at work; it is killed at the end, if it runs still."""
    line = [*PREPARE, *map(str, words)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        yield child
        child.kill()


def reach(child: "subprocess.Popen[str]", holds: Callable[[], object]) -> bool:
    """Halts a child once something holds; false if it ended before."""
    while not holds():
        if child.poll() is not None:
            return False
        time.sleep(0.0002)
    child.send_signal(signal.SIGSTOP)
    while child.poll() is None:
        if Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T":
            return True
    return False


def is_reading(child: "subprocess.Popen[str]", out: Path, path: Path) -> bool:
    """Whether the child holds the folder that it writes, and a file open of which more than half is to come."""
    try:
        if not out.with_name(f".part-{out.name}").joinpath("data").is_dir():
            return False
        found = [entry.name for entry in os.scandir(f"/proc/{child.pid}/fd") if os.readlink(entry.path) == str(path)]
        at = [int(Path(f"/proc/{child.pid}/fdinfo/{name}").read_text().split()[1]) for name in found]
        return any(offset < path.stat().st_size // 2 for offset in at)
    except OSError:
        return False


def go_on(child: "subprocess.Popen[str]") -> tuple[int, str]:
    """Exit code and errors of a child that was halted."""
    child.send_signal(signal.SIGCONT)
    errors = child.communicate(timeout=60)[1]
    return child.returncode, errors


def content(folder: Path) -> dict[str, object]:
    """All that a prepared folder holds, but for where its text lies."""
    found: dict[str, object] = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".json"}
    facts = json.loads((folder / "manifest.json").read_text())
    paths = [source.pop("path") for source in facts["corpus"]["sources"]]
    return found | {"manifest": facts, "paths": [Path(path).name for path in paths]}


def flip(path: Path, at: int) -> None:
    """Changes one bit of a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "text")


# Room for no tokenizer, for no shard, for some shards.
@pytest.mark.parametrize(("size", "n_kept"), [(12, 0), (60, 0), (900, 1)])
def test_a_full_disk_is_said_and_the_same_command_goes_on_when_there_is_room(
    world: Path, tmp_path: Path, size: int, n_kept: int
) -> None:
    if subprocess.run(["unshare", "-Urm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here: unshare -Urm is not allowed")
    (tmp_path / "room").mkdir()
    how = {"room": tmp_path / "room", "out": tmp_path, "text": world / "text", "prepare": " ".join(PREPARE)}
    script = SMALL_DISK.format(size=size, words=" ".join(map(str, words(world)[1:])))
    environment = {**os.environ, **{name: str(value) for name, value in how.items()}}
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script], capture_output=True, text=True, check=False, env=environment
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 2), done.stderr
    assert done.stderr.startswith("tinygpt prepare: error: "), done.stderr
    assert done.stderr.endswith(": no space left on device\nfreed\n"), done.stderr
    assert content(tmp_path / "data") == content(world / "whole")
    before, after = ((tmp_path / name).read_text().split() for name in ("left", "whole"))
    assert before.count("train_000000.bin") == n_kept
    if n_kept:  # the same file, by its number
        assert before[before.index("train_000000.bin") - 1] == after[after.index("train_000000.bin") - 1]
    assert done.stderr.startswith(f"tinygpt prepare: error: {tmp_path}/room/"), done.stderr


def test_a_disk_without_room_for_the_counts_of_a_tokenizer_is_said(tmp_path: Path) -> None:
    if subprocess.run(["unshare", "-Urm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here: unshare -Urm is not allowed")
    (tmp_path / "room").mkdir()
    rng = random.Random(0)
    (tmp_path / "a.txt").write_text(" ".join("".join(rng.choices(LETTERS, k=6)) for _ in range(1_500_000)))
    how = {"room": tmp_path / "room", "out": tmp_path, "text": tmp_path / "a.txt", "prepare": " ".join(PREPARE)}
    environment = {**os.environ, **{name: str(value) for name, value in how.items()}}
    script = SMALL_DISK.format(size=100, words="--vocab-size 300 --max-pieces-bytes 1000000")
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script], capture_output=True, text=True, check=False, env=environment
    )
    said = f"tinygpt prepare: error: {tmp_path}/room/.part-data (pieces that do not fit into memory): no space left on "
    assert (done.returncode, done.stderr.splitlines()[:2]) == (1, [f"{said}device", "freed"])
    assert (tmp_path / "left").read_text() == ""


def test_ctrl_c_stops_at_once_and_the_same_command_goes_on(world: Path, tmp_path: Path) -> None:
    with started(*words(world), "--out", tmp_path / "data") as child:
        assert reach(child, (tmp_path / ".part-data/journal.json").exists)
        child.send_signal(signal.SIGINT)
        begin = time.monotonic()
        found = go_on(child)
    assert found == (130, "tinygpt prepare: stopped: by Ctrl-C\n")
    assert (time.monotonic() - begin < 2, left(tmp_path)) == (True, [".part-data"])
    assert finish(*words(world), "--out", tmp_path / "data").returncode == 0
    assert (content(tmp_path / "data") == content(world / "whole"), left(tmp_path)) == (True, ["data"])


def test_ctrl_c_before_there_is_anything_to_go_on_with_leaves_nothing(world: Path, tmp_path: Path) -> None:
    work = tmp_path / ".part-data/data"
    with started(world / "text", "--vocab-size", 300, "--out", tmp_path / "data") as child:
        assert reach(child, lambda: work.is_dir() and time.time() - work.stat().st_mtime > 0.01)
        child.send_signal(signal.SIGINT)
        found = go_on(child)
    assert (found, left(tmp_path)) == ((130, "tinygpt prepare: stopped: by Ctrl-C\n"), [])


def grow(path: Path) -> None:
    with path.open("a") as file:
        file.write("more\n")


def shrink(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1000)


def rewrite(path: Path) -> None:
    """As many bytes, and other ones."""
    data = path.read_bytes().upper()
    with path.open("r+b") as file:
        file.write(data)


CHANGES: dict[str, Callable[[Path], None]] = {
    "grown": grow,
    "shrunk": shrink,
    "rewritten": rewrite,
    "gone": Path.unlink,
}


def disturbed(line: list[object], out: Path, path: Path, change: str, *, at_once: bool) -> tuple[int, str]:
    """Exit code and errors of a command whose input changes while it reads it, or `at_once` after the pass before."""
    before = path.read_bytes()
    for _ in range(10):  # a child may be past it before it is halted
        with started(*line, "--out", out) as child:
            between = out.with_name(f".part-{out.name}") / "tokenizer"
            holds = between.exists if at_once else partial(is_reading, child, out, path)
            if reach(child, holds) and holds():  # still
                CHANGES[change](path)
                return go_on(child)
        shutil.rmtree(out, ignore_errors=True)
        path.write_bytes(before)
    pytest.fail("the child was never halted in time")


@pytest.mark.parametrize("change", ["grown", "shrunk", "rewritten"])
@pytest.mark.parametrize("filters", [[], ["--dedup", "exact"]])
def test_text_that_changes_while_it_is_read_is_refused(
    world: Path, files: Path, tmp_path: Path, change: str, filters: list[str]
) -> None:
    path = files / "2.txt"
    n_bytes = path.stat().st_size
    code, errors = disturbed([*words(world, files), *filters], tmp_path / "data", path, change, at_once=False)
    assert (code, errors.count("\n"), left(tmp_path) in ([], [".part-data"])) == (2, 1, True)
    assert f"error: {path}: " in errors
    if path.stat().st_size != n_bytes:
        assert f"{path.stat().st_size} bytes when it was read, {n_bytes} when it was found" in errors
    assert finish(*words(world, files), *filters, "--out", tmp_path / "data").returncode == 0


@pytest.mark.parametrize("change", ["grown", "shrunk", "rewritten", "gone"])
def test_text_that_changes_between_two_passes_is_refused(world: Path, files: Path, tmp_path: Path, change: str) -> None:
    path = files / "2.txt"
    line = [files, "--vocab-size", 300, "--threads", 1]
    code, errors = disturbed(line, tmp_path / "data", path, change, at_once=True)
    assert (code, errors.count("\n"), f"error: {path}: " in errors, left(tmp_path)) == (2, 1, True, [])


def test_text_that_vanishes_while_it_is_read_is_read_to_its_end(world: Path, files: Path, tmp_path: Path) -> None:
    code, errors = disturbed(words(world, files), tmp_path / "data", files / "2.txt", "gone", at_once=False)
    assert (code, errors) == (0, "")
    assert content(tmp_path / "data") == content(world / "whole")


def without_power(line: list[object]) -> "subprocess.CompletedProcess[str]":
    """The command by a user whom permissions bind: of root, that power is taken away."""
    powers = "-dac_override,-dac_read_search"
    taken = ["setpriv", f"--bounding-set={powers}", f"--inh-caps={powers}"] if os.geteuid() == 0 else []
    if taken and (not shutil.which("setpriv") or subprocess.run([*taken, "true"], check=False).returncode):
        pytest.skip("root may read everything, and setpriv cannot take that away here")
    return subprocess.run([*taken, *PREPARE, *map(str, line)], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("name", "mode", "said"), [("text/1.txt", 0, "text/1.txt"), ("text/more", 0, "text/more"), ("out", 0o555, "out/")]
)
def test_what_may_not_be_read_or_written_is_named(
    world: Path, files: Path, tmp_path: Path, name: str, mode: int, said: str
) -> None:
    for folder in (tmp_path / "text/more", tmp_path / "out"):
        folder.mkdir()
    (tmp_path / name).chmod(mode)
    done = without_power([*words(world, files), "--out", tmp_path / "out/data"])
    (tmp_path / name).chmod(0o755)
    assert (done.returncode, done.stderr.count("\n"), done.stdout) == (2, 1, "")
    assert done.stderr.startswith(f"tinygpt prepare: error: {tmp_path}/{said}"), done.stderr
    assert done.stderr.endswith(": permission denied\n"), done.stderr


def test_a_second_prepare_is_refused_by_the_name_of_the_first(world: Path, tmp_path: Path) -> None:
    with started(*words(world), "--out", tmp_path / "data") as first:
        assert reach(first, (tmp_path / ".part-data/data").is_dir)
        second = finish(*words(world), "--out", tmp_path / "data")
        assert go_on(first) == (0, "")
    assert (second.returncode, second.stderr.count("\n")) == (2, 1)
    assert f"is in use by process {first.pid} on " in second.stderr
    assert (content(tmp_path / "data") == content(world / "whole"), left(tmp_path)) == (True, ["data"])


@pytest.mark.parametrize("attempt", range(2))
def test_of_two_prepares_at_once_one_wins_and_the_folder_is_whole(world: Path, tmp_path: Path, attempt: int) -> None:
    with started(*words(world), "--out", tmp_path / "data") as one:
        time.sleep(attempt * 0.02)
        with started(*words(world), "--out", tmp_path / "data") as other:
            errors = [child.communicate(timeout=60)[1] for child in (one, other)]
    codes = sorted([one.returncode, other.returncode])
    assert codes in ([0, 0], [0, 2]), errors
    assert [error.count("\n") for error in errors] in ([0, 0], [0, 1], [1, 0])
    assert (content(tmp_path / "data") == content(world / "whole"), left(tmp_path)) == (True, ["data"])


@pytest.fixture
def half(world: Path, tmp_path: Path) -> Path:
    """The work folder of a prepare that was killed when it had finished some shards."""
    with started(*words(world), "--out", tmp_path / "data") as child:
        assert reach(child, (tmp_path / ".part-data/journal.json").exists)
    return tmp_path / ".part-data"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("data/train_000000.bin", cut),
        ("data/train_000000.idx", Path.unlink),
        ("data/train_000000.map", cut),
        ("journal.json", cut),
        ("data/train_000000.bin", lambda path: flip(path, 5000)),
    ],
)
def test_half_done_work_that_was_damaged_is_begun_anew_with_a_warning(
    world: Path, half: Path, name: str, damage: Callable[[Path], None]
) -> None:
    damage(half / name)
    done = finish(*words(world), "--out", half.parent / "data")
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)
    said = "tinygpt prepare: warning: half-done work was damaged and is begun anew ("
    assert done.stderr.startswith(f"{said}{half / name}"), done.stderr
    assert (content(half.parent / "data") == content(world / "whole"), left(half.parent)) == (True, ["data"])


@pytest.mark.parametrize("module", ["tinygpt", "tinygpt.prepare"])
def test_ctrl_c_during_the_imports_ends_without_a_traceback(world: Path, tmp_path: Path, module: str) -> None:
    words_of = [sys.executable, "-X", "importtime", "-m", module, *(["prepare"] if module == "tinygpt" else [])]
    line = [*words_of, *map(str, words(world)), "--out", str(tmp_path / "data")]
    for last in ("numpy", "tinygpt.corpus", "tinygpt.download"):
        with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
            assert child.stderr is not None
            lines = iter(child.stderr.readline, "")
            assert any(said.split()[-1] == last for said in lines), last
            child.send_signal(signal.SIGINT)
            errors = [said for said in lines if not said.startswith("import time:")]
        assert (child.returncode, "".join(errors).count("\n")) == (130, 1), (last, errors)
        assert errors[0].endswith("stopped: by Ctrl-C\n"), errors


@pytest.fixture
def prepared(world: Path, tmp_path: Path) -> Path:
    """A copy of the prepared folder that a test may damage."""
    shutil.copytree(world / "whole", tmp_path / "data")
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (
            "train_000001.map",
            cut,
            r"train_000001\.map: \d+ bytes, but manifest.json promises \d+ documents \(\d+ bytes\)",
        ),
        (
            "train_000001.map",
            grow,
            r"train_000001\.map: \d+ bytes, but manifest.json promises \d+ documents \(\d+ bytes\)",
        ),
        (
            "train_000001.map",
            lambda path: flip(path, 9),
            r"train_000001\.map: xxh3 [0-9a-f]{16}, but manifest.json says",
        ),
        (
            "train_000001.idx",
            grow,
            r"train_000001\.idx: \d+ bytes, but manifest.json promises \d+ documents \(\d+ bytes\)",
        ),
        (
            "train_000001.bin",
            grow,
            r"train_000001\.bin: \d+ bytes, but its header promises 50000 tokens \(101024 bytes\)",
        ),
    ],
)
def test_a_damaged_shard_is_refused_on_opening(
    prepared: Path, name: str, damage: Callable[[Path], None], message: str
) -> None:
    damage(prepared / name)
    with pytest.raises(FormatError, match=message):
        TokenDataset(prepared, "train", block_size=8)


@pytest.mark.parametrize("damage", [cut, lambda path: flip(path, 5000)])
def test_a_damaged_shard_is_written_again(world: Path, prepared: Path, damage: Callable[[Path], None]) -> None:
    damage(prepared / "train_000001.bin")
    assert finish(*words(world), "--out", prepared).returncode == 0
    assert content(prepared) == content(world / "whole")


def test_no_damaged_token_is_copied_when_a_corpus_grows(world: Path, files: Path, prepared: Path) -> None:
    (files / "3.txt").write_text("one line more\n")
    flip(prepared / "train_000001.bin", 5000)
    assert finish(*words(world, files), "--out", prepared).returncode == 0
    assert finish(*words(world, files), "--out", prepared.parent / "anew").returncode == 0
    assert (prepared / "train_000001.bin").read_bytes() == (prepared.parent / "anew/train_000001.bin").read_bytes()


LETTERS = "abcdefghijklmnopqrstuvwxyz"
PEAK = """
import os, subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, used = os.wait4(child.pid, 0)
print(used.ru_maxrss * 1024)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def large(path: Path, n_megabytes: int) -> Path:
    """A file of that form and so many megabytes before packing, the same hundred thousand lines over and over."""
    lines = text(0, 100_000).splitlines()
    form = path.name.partition(".")[2]
    if form == "line.txt":
        unit = " ".join(lines).encode() + b" "
    elif form in ("jsonl", "jsonl.zst"):
        unit = "".join(json.dumps({"text": line}) + "\n" for line in lines).encode()
    elif form == "csv":
        unit = "".join(f'{i},"{line}",x\n' for i, line in enumerate(lines)).encode()
    elif form == "wet.gz":
        head = "WARC/1.0\r\nWARC-Type: conversion\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{}\r\n\r\n"
        unit = "".join(head.format(len(line), line) for line in lines).encode()
    elif form == "tar":
        unit = b"".join(member(line.encode()) for line in lines)
    else:
        unit = "\n".join(lines).encode() + b"\n"
    packed = (
        zstandard.compress(unit) if form.endswith("zst") else gzip.compress(unit, 1) if form.endswith("gz") else unit
    )
    start, end = (b'{"text": "a"}\n{"text": "', b'"}\n') if form == "record.jsonl" else (b"", b"")
    end = bytes(1024) if form == "tar" else end
    packed = unit.replace(b"\n", b"\\n") if start else packed
    with path.open("wb") as file:
        file.write(start)
        for _ in range(-(-n_megabytes * 10**6 // len(unit))):
            file.write(packed)
        file.write(end)
    return path


def member(data: bytes) -> bytes:
    """A file in a tar."""
    facts = tarfile.TarInfo("a/b.txt")
    facts.size = len(data)
    return facts.tobuf() + data + bytes(-len(data) % 512)


@pytest.mark.slow
@pytest.mark.parametrize("how", [["tokenizer"], ["vocab-size"], ["tokenizer", "--dedup", "near"]], ids=" ".join)
@pytest.mark.parametrize(
    ("name", "n_megabytes"),
    [
        ("a.txt", 4000),
        ("a.line.txt", 1000),
        ("a.jsonl", 2000),
        ("a.jsonl.zst", 4000),
        ("a.record.jsonl", 300),
        ("a.csv", 1000),
        ("a.tar", 500),
        ("a.wet.gz", 1000),
    ],
)
def test_memory_stays_within_its_bound(
    world: Path, tmp_path: Path, name: str, n_megabytes: int, how: list[str], record_property: Callable[..., None]
) -> None:
    if "--dedup" in how and not name.endswith(".txt"):
        n_megabytes //= 4
    if shutil.disk_usage(tmp_path).free < 3 * n_megabytes * 10**6:
        pytest.skip(f"no room for a file of {n_megabytes} MB and its shards")
    path = large(tmp_path / name, n_megabytes)
    value = world / "tokenizer" if how[0] == "tokenizer" else 1000
    line = [*PREPARE, path, f"--{how[0]}", value, *how[1:], "--threads", 2, "--out", tmp_path / "data"]
    done = subprocess.run([sys.executable, "-c", PEAK, *map(str, line)], capture_output=True, text=True, check=False)
    path.unlink()
    shutil.rmtree(tmp_path / "data", ignore_errors=True)
    assert done.returncode == 0, done.stderr
    record_property("peak_bytes", int(done.stdout))
    assert int(done.stdout) <= (150 + 2 * 30) * 10**6


def strange(path: Path, n_megabytes: int) -> Path:
    """A file of so many megabytes in which no piece comes twice, or hardly any."""
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for _ in range(n_megabytes):
            letters = rng.integers(97, 123, size=1_000_000, dtype=np.uint8)
            if path.stem == "words":
                letters[:: rng.integers(7, 12)] = ord(" ")
            elif path.stem == "lines":
                letters[np.cumsum(rng.integers(20, 20_000, size=40))] = ord("\n")
            file.write(letters.tobytes())
    return path


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("words", []),
        ("words", ["--vocab-size", 100_000]),
        ("lines", ["--pattern", "regex:[^\\n]+|\\n"]),
        ("letters", []),
    ],
)
def test_memory_stays_within_its_bound_where_every_piece_is_new(
    tmp_path: Path, name: str, how: list[object], threads: int
) -> None:
    if shutil.disk_usage(tmp_path).free < 3 * 10**9:
        pytest.skip("no room for a file of 600 MB, its counts and its shards")
    path = strange(tmp_path / f"{name}.txt", 600)
    line = [*PREPARE, path, *how, "--threads", threads, "--out", tmp_path / "data"]
    done = subprocess.run([sys.executable, "-c", PEAK, *map(str, line)], capture_output=True, text=True, check=False)
    path.unlink()
    shutil.rmtree(tmp_path / "data", ignore_errors=True)
    assert (done.returncode, "different pieces, which are" in done.stderr) == (0, True), done.stderr
    assert int(done.stdout) <= (150 + threads * 30) * 10**6
