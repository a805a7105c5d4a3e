"""A run's folder: which checkpoints are whole, where best and last lead, what is kept."""

import json
import os
from pathlib import Path

import pytest
from tinygpt import runfolder
from tinygpt._core import FormatError
from tinygpt.metrics import MetricsLog, read_metrics


def checkpoint(run: Path, step: int) -> Path:
    folder = runfolder.step_folder(run, step)
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(range(100)))
    (folder / "config.json").write_text(json.dumps({"step": step}))
    runfolder.write_checksums(folder)
    return folder


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_newest_is_the_highest_step_whatever_the_clock_says(tmp_path: Path) -> None:
    first, second = checkpoint(tmp_path, 5), checkpoint(tmp_path, 10_000_000)
    os.utime(second, (0, 0))
    assert (runfolder.newest(tmp_path), runfolder.steps(tmp_path)) == (second, [5, 10_000_000])
    assert first.name == "step-0000005"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "checksums.json"])
def test_any_flipped_byte_is_found_and_the_one_before_taken(tmp_path: Path, name: str) -> None:
    first, second = checkpoint(tmp_path, 5), checkpoint(tmp_path, 6)
    if name == "checksums.json":
        (second / name).write_text((second / name).read_text()[:-20])
    else:
        flip(second / name, 3)
    with pytest.warns(RuntimeWarning, match=rf"step-0000006.*{name}"):
        assert runfolder.newest(tmp_path) == first


def test_missing_short_and_unfinished_are_told_apart(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, 1)
    (folder / "model.safetensors").write_bytes(b"short")
    with pytest.raises(FormatError, match="5 bytes, but 100 were written"):
        runfolder.verify(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(FormatError, match="missing"):
        runfolder.verify(folder)
    (folder / "checksums.json").unlink()
    with pytest.raises(FormatError, match="its saving never ended"):
        runfolder.verify(folder)


def test_prune_spares_the_newest_best_and_last(tmp_path: Path) -> None:
    folders = {step: checkpoint(tmp_path, step) for step in range(1, 7)}
    runfolder.point(tmp_path, "best", folders[2])
    runfolder.point(tmp_path, "last", folders[4])
    runfolder.prune(tmp_path, keep=1)
    assert runfolder.steps(tmp_path) == [2, 4, 6]


def test_pointer_is_a_relative_link_that_moves_with_the_run(tmp_path: Path) -> None:
    runfolder.point(tmp_path, "best", checkpoint(tmp_path, 1))
    runfolder.point(tmp_path, "best", checkpoint(tmp_path, 2))
    moved = tmp_path.parent / (tmp_path.name + "-moved")
    tmp_path.rename(moved)
    assert (os.readlink(moved / "best"), runfolder.follow(moved, "best")) == ("step-0000002", moved / "step-0000002")


def test_pointer_is_a_file_where_links_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("links are not supported")

    monkeypatch.setattr(os, "symlink", refuse)
    target = checkpoint(tmp_path, 3)
    runfolder.point(tmp_path, "last", target)
    assert ((tmp_path / "last").read_text(), runfolder.follow(tmp_path, "last")) == ("step-0000003\n", target)


@pytest.mark.parametrize("target", ["../elsewhere", "step-0000009", "", "/etc"])
def test_pointer_leads_to_a_checkpoint_of_the_run_or_nowhere(tmp_path: Path, target: str) -> None:
    (tmp_path / "best").write_text(target)
    assert runfolder.follow(tmp_path, "best") is None


def test_metrics_are_cut_back_to_a_step_and_at_a_torn_line(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        log.append({"step": step, "sample": "two\u2028lines"})
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    (tmp_path / "metrics.jsonl").write_bytes(whole + b'{"step": 4, "lo')
    log.cut_back(9)
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole
    log.cut_back(2)
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2]
