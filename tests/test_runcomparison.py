"""Several runs on one page."""

from pathlib import Path

import pytest
from run_folder import ended, metrics, session, whole, written
from test_runreport import parsed, references, skeleton
from tinygpt.chart import MOST_STYLES
from tinygpt.runcomparison import comparison_page, write_comparison
from tinygpt.runfacts import run_facts


def page_of(*folders: Path) -> str:
    return comparison_page([run_facts(folder) for folder in folders])


def rows(page: str, part: str) -> dict[str, list[str]]:
    section = next(each for each in parsed(page).iter("section") if each.get("id") == part)
    cells = [["".join(cell.itertext()) for cell in row] for row in section.iter("tr")]
    return {first: rest for first, *rest in cells}


def test_figures_stand_beside_one_another(tmp_path: Path) -> None:
    one = written(tmp_path / "one", metrics_jsonl=metrics(100), sessions_jsonl=[session(), ended(100)])
    two = written(tmp_path / "two", metrics_jsonl=metrics(200), sessions_jsonl=[session(), ended(200)])
    found = rows(page_of(one, two), "figures")
    assert (found[""], found["steps"], found["tokens trained on"]) == (
        ["one", "two"],
        ["100", "200"],
        ["9.6 k", "19.2 k"],
    )


def test_settings_that_differ_are_listed_and_no_others(tmp_path: Path) -> None:
    facts, other = session(), session()
    other["config"] = {**other["config"], "learning_rate": 0.02, "compile": "on"}
    one = written(tmp_path / "one", metrics_jsonl=metrics(9), sessions_jsonl=[facts])
    two = written(tmp_path / "two", metrics_jsonl=metrics(9), sessions_jsonl=[other])
    found = rows(page_of(one, two), "settings")
    assert found == {
        "": ["one", "two"],
        "training: learning_rate": ["0.001", "0.02"],
        "training: compile": ["auto", "on"],
    }


def test_curves_run_over_tokens_and_over_time(tmp_path: Path) -> None:
    folders = [written(tmp_path / name, metrics_jsonl=metrics(400)) for name in ("one", "two")]
    labels = [each.get("aria-label") or "" for each in parsed(page_of(*folders)).iter("*")]
    told = [label for label in labels if label.startswith("Validation loss")]
    assert [label.split(" over ")[1].split(".")[0] for label in told] == ["tokens trained on", "seconds"]
    assert ["one: from" in label and "two: from" in label for label in told] == [True, True]


def test_what_does_not_compare_is_said(tmp_path: Path) -> None:
    one = written(tmp_path / "one", sessions_jsonl=[session()])
    two = written(tmp_path / "two", sessions_jsonl=[{**session(), "tokenizer": "1" * 64}])
    assert "The tokenizers differ: losses in nats per token do not compare" in page_of(one, two)
    assert "The tokenizers differ" not in page_of(one, one)


def test_names_of_runs_are_text(tmp_path: Path) -> None:
    hostile = whole(tmp_path / "<svg onload=x>\u202e" / "run", "<script>")
    tree = parsed(page_of(hostile, whole(tmp_path / "run", "</style>")))
    assert [name for _, names in skeleton(tree) for name in names if name.startswith("on")] == []
    assert {each for each in references(tree) if not each.startswith("#")} == {"data:,"}


def test_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    folders = [written(tmp_path / name / "run", metrics_jsonl=metrics(3)) for name in ("a", "b")]
    assert list(rows(page_of(*folders), "figures")[""]) == [str(folder) for folder in folders]


def test_more_than_can_be_told_apart_and_one_twice_are_refused(tmp_path: Path) -> None:
    run = written(tmp_path / "run", metrics_jsonl=metrics(3))
    with pytest.raises(ValueError, match=f"at most {MOST_STYLES} runs can be told apart on a page, got 13"):
        write_comparison([run] * 13, tmp_path / "out.html")
    with pytest.raises(ValueError, match="is named twice"):
        write_comparison([run, tmp_path / "." / "run"], tmp_path / "out.html")
