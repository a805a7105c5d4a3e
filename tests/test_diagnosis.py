"""Diagnosis: runs that are broken in one way are named by it, and healthy ones of every kind by nothing."""

import html
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diagnosed_runs import BROKEN, FLAGS, HEALTHY, RECIPE, SLOW, Place
from tinygpt import doctor, report, train
from tinygpt.diagnosis import CHECKS, diagnose, examine

PAGE = Path(__file__).parent.parent / "docs" / "troubleshooting.md"


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads of a tensor this small wait for each other longer than they work."""
    before, is_exact = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    torch.use_deterministic_algorithms(is_exact)


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def healthy(place: Place) -> Path:
    return place.of("adamw")


def kinds(table: dict[str, object]) -> list[object]:
    return [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in table]


@pytest.mark.parametrize("name", kinds({**BROKEN}))
def test_a_broken_run_is_named_by_what_is_wrong_alone(name: str, place: Place) -> None:
    assert [each.name for each in diagnose(place.of(name))] == [BROKEN[name][0]]


@pytest.mark.parametrize("name", kinds({**HEALTHY}))
def test_a_healthy_run_has_no_finding(name: str, place: Place) -> None:
    assert diagnose(place.of(name)) == []


def test_every_finding_has_its_part_of_the_page_and_no_other_has() -> None:
    headings = re.findall(r"^### (.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(headings) == sorted(CHECKS)
    assert len(set(CHECKS)) == len(CHECKS)


def test_every_finding_has_a_broken_run() -> None:
    assert {finding for finding, _ in BROKEN.values()} == set(CHECKS)


def test_healthy_ends_with_0(healthy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main([str(healthy)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith(f"{healthy}: 200 of 200 steps, 0.6")
    assert shown[1:] == ["  nothing wrong found"]


def test_wrong_ends_with_1_and_what_is_to_be_watched_with_strict(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong, watched = (str(place.of(name)) for name in ("too-slow-to-learn", "no-validation"))
    assert [doctor.main([wrong]), doctor.main([watched]), doctor.main([watched, "--strict"])] == [1, 0, 1]
    assert "\n  wrong  learning-rate-low: the learning rate is too low\n         known by: " in capsys.readouterr().out


def test_json_holds_what_the_lines_say(healthy: Path, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(healthy), str(place.of("no-validation"))]
    assert doctor.main([*runs, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(each["run"], each["step"], [f["name"] for f in each["findings"]]) for each in found] == [
        (runs[0], 200, []),
        (runs[1], 200, ["no-validation"]),
    ]
    assert set(found[1]["findings"][0]) == {"name", "severity", "what", "evidence", "advice"}


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda run: shutil.rmtree(run), "no such folder; name a run's, as `tinygpt train` writes it"),
        (lambda run: (run / "metrics.jsonl").unlink(), "no metrics.jsonl in it, so no run; name a run's folder"),
        (lambda run: (run / "metrics.jsonl").write_text(""), "no whole line in it; a run has one after its first step"),
        (lambda run: (run / "metrics.jsonl").write_text('{"step": 1, "lo'), "no whole line in it"),
        (lambda run: shutil.rmtree(run / "step-0000200"), "no checkpoint and no config.yaml in it"),
        (lambda run: (run / "step-0000200" / "trainer.json").write_text("{"), "trainer.json: not JSON"),
        (
            lambda run: (run / "step-0000200" / "trainer.json").write_text(
                '{"format": "tinygpt-trainer", "version": 1, "model": {"depth": 9}}'
            ),
            "its checkpoint is of another version (model: ",
        ),
    ],
    ids=[
        "no folder",
        "no metrics",
        "empty metrics",
        "torn metrics",
        "no settings",
        "damaged checkpoint",
        "unknown field",
    ],
)
def test_no_run_to_judge_is_one_line(
    break_it: object, message: str, healthy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(healthy, run, symlinks=True)
    break_it(run)  # type: ignore[operator]
    assert doctor.main([str(run)]) == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert message in shown.err


def test_no_path_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main([]) == 2
    assert "PATHS is missing: the folder of a run" in capsys.readouterr().err


def test_a_torn_last_line_is_passed_over(healthy: Path, tmp_path: Path) -> None:
    shutil.copytree(healthy, tmp_path / "run", symlinks=True)
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 205, "loss": 9')
    assert diagnose(tmp_path / "run") == []


def test_a_checkpoint_judges_the_course_up_to_it(place: Place) -> None:
    run = place.of("continued")
    assert examine(run / "step-0000100").record.step == 100


def test_text_that_is_gone_or_changed_is_left_out_and_said(
    healthy: Path, place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(healthy, tmp_path / "run", symlinks=True)
    facts = tmp_path / "run" / "step-0000200" / "trainer.json"
    known = facts.read_text()
    facts.write_text(known.replace(str(place.text), str(tmp_path / "gone")))
    assert doctor.main([str(tmp_path / "run")]) == 0
    names = "not-learning, little-text, large-vocabulary, long-context, duplicates, worse-than-zstd"
    assert f"  left out: {names} ({tmp_path / 'gone'} is no longer there)\n" in capsys.readouterr().out
    shutil.copytree(place.text, tmp_path / "gone")
    with (tmp_path / "gone" / "manifest.json").open("a") as file:
        file.write("\n")
    assert set(examine(tmp_path / "run").left_out.values()) == {f"{tmp_path / 'gone'} holds other text now"}


def test_a_command_that_diverges_before_its_first_save_is_judged_by_its_settings(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"--data {place.folder / 'text.txt'} --out {place.folder / 'burst'} {FLAGS} --max-steps 100"
    flags = words.replace("--lr 0.02", "--lr 300").split()
    assert train.main([*flags, "--optimizer", "sgd", "--grad-clip", "0"]) == 1
    assert doctor.main([str(place.folder / "burst")]) == 1
    shown = capsys.readouterr().out
    assert "  wrong  diverged: training diverged at step " in shown
    assert "(no checkpoint yet, which says where the text lies)" in shown


def test_looking_changes_nothing(healthy: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in sorted(healthy.rglob("*"))}
    diagnose(healthy)
    assert {path: path.stat().st_mtime_ns for path in sorted(healthy.rglob("*"))} == before


def test_a_run_that_goes_on_is_judged_at_every_step(place: Place) -> None:
    out = place.folder / "going-on"
    found = []

    def look(trainer: object) -> None:
        for each in trainer.steps():  # type: ignore[attr-defined]
            if each.step in (10, 55, 130):
                found.append([finding.name for finding in diagnose(out)])

    place.run("going-on", hook=look, save_every=5)
    assert found == [[], [], []]
    assert os.path.isdir(out)
    assert RECIPE["max_steps"] == 200


def test_the_report_of_a_run_shows_its_findings(place: Place, tmp_path: Path) -> None:
    run = place.of("by-heart")
    page = tmp_path / "page.html"
    assert report.main([str(run), "--out", str(page)]) == 0
    assert diagnose(run)[0].what in html.unescape(page.read_text(encoding="utf-8"))
