"""`tinygpt report`: pages written, and one line for every wrong input."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from run_folder import evaluation, metrics, written
from tinygpt import report


def test_a_run_gets_its_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = written(tmp_path / "run", metrics_jsonl=metrics(3))
    assert (report.main([str(run)]), capsys.readouterr().out) == (0, f"written: {run / 'report.html'}\n")
    assert (run / "report.html").read_text().startswith("<!doctype html>")


def test_several_runs_get_one_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        written(tmp_path / name, metrics_jsonl=metrics(3))
    assert report.main(["a", "b"]) == 0
    assert report.main(["a", "b", "--out", "deep.html"]) == 0
    assert (tmp_path / "report.html").read_bytes() == (tmp_path / "deep.html").read_bytes()


def test_an_evaluation_is_drawn_into_the_curves(tmp_path: Path) -> None:
    run = written(tmp_path / "run", metrics_jsonl=metrics(100))
    written(tmp_path, found_json=evaluation("held-out text"))
    assert report.main([str(run), "--evaluation", str(tmp_path / "found.json")]) == 0
    assert "zstd -19: 2.7." in (run / "report.html").read_text()


def test_what_doctor_finds_stands_on_the_page(tmp_path: Path) -> None:
    shape = {"vocab_size": 300, "block_size": 8, "n_layer": 1, "n_head": 1, "d_model": 8, "max_steps": 100}
    run = written(tmp_path / "run", metrics_jsonl=metrics(100, loss=9.0), config_yaml=shape)
    assert report.main([str(run)]) == 0
    assert "the first loss is higher than that of a model that guesses" in (run / "report.html").read_text()


def test_metrics_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = {"vocab_size": 300, "block_size": 8, "n_layer": 1, "n_head": 1, "d_model": 8, "max_steps": 100}
    run = written(tmp_path / "run", metrics_jsonl=metrics(100, loss=9.0), config_yaml=shape)
    opened, open_path = Counter[str](), Path.open

    def counted(path: Path, *args: Any, **options: Any) -> Any:
        opened[path.name] += 1
        return open_path(path, *args, **options)

    monkeypatch.setattr(Path, "open", counted)
    assert report.main([str(run)]) == 0
    assert opened["metrics.jsonl"] == 1
    assert "the first loss is higher than that of a model that guesses" in (run / "report.html").read_text()


def test_a_run_of_unknown_settings_is_not_looked_through_and_says_so(tmp_path: Path) -> None:
    run = written(tmp_path / "run", metrics_jsonl=metrics(3))
    assert report.main([str(run)]) == 0
    assert "faults: not looked for: " in (run / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "RUNS is missing: the folder of a run, or several to compare"),
        ("none", "none: no such folder"),
        ("file", "file: is a file, name its folder"),
        (".", "no metrics.jsonl, step-*/ or sessions.jsonl in it, so no run"),
        ("run --out run", "--out must be a file, and run is a folder; name a file in it"),
        ("run --evaluation none.json", "none.json"),
        ("run run2 --evaluation x.json", "--evaluation is of one run, and 2 are named"),
        ("run run", "is named twice"),
        ("run --evaluation file", "file: no evaluation of held-out text as JSON"),
    ],
)
def test_a_mistake_is_one_line(
    words: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "run", metrics_jsonl=metrics(3))
    (tmp_path / "file").write_text("")
    code, told = report.main(words.split()), capsys.readouterr().err
    assert (code, told.count("\n"), message in told) == (2, 1, True), told


def test_nothing_is_left_when_the_page_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = written(tmp_path / "run", metrics_jsonl=metrics(3))
    assert report.main([str(run), "--out", str(tmp_path / "none" / "page.html")]) == 2
    assert sorted(path.name for path in run.iterdir()) == ["metrics.jsonl"]
