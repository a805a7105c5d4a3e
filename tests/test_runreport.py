"""report.html: parsed by html5lib, of hostile texts and of runs of every shape."""

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element

import html5lib
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from run_folder import ended, evaluation, metrics, prepared, session, setting, whole, written
from tinygpt import FormatError
from tinygpt.curves import Curves
from tinygpt.runfacts import run_facts
from tinygpt.runreport import LiveReport, report_page, write_report

HOSTILE = [
    "</script><script>alert(1)</script>", "<svg onload=alert(1)>", "</pre></td></table></title></style><h1>", "-->",
    "\u202egnp.exe\u2066", "a\x00b\x1b[31m\r\n", "\ud800", '" onmouseover="x', "' style='x", "{{ 7 * 7 }}{% raw %}",
    "&lt;&#x3c;script", "javascript:alert(1)", "https://example.org/x.png", "<!--", "]]>", "\ufffe\ufdd0", "url(x)",
]  # fmt: skip
WORDS = st.lists(st.one_of(st.sampled_from(HOSTILE), st.text(max_size=8)), min_size=1, max_size=4).map("".join)


class Finding(NamedTuple):
    name: str
    severity: str
    what: str
    evidence: str
    advice: str


def parsed(page: str) -> Element:
    page.encode()  # a lone surrogate cannot be written
    parser = html5lib.HTMLParser(namespaceHTMLElements=False)
    tree: Element = parser.parse(page)
    assert parser.errors == []
    return tree


def skeleton(tree: Element) -> list[tuple[str, list[str]]]:
    """Elements and names of attributes: all that is not a value or a text."""
    return [(str(each.tag), sorted(map(str, each.attrib))) for each in tree.iter()]


def references(tree: Element) -> Iterator[str]:
    """What a browser could fetch, follow or run."""
    for each in tree.iter():
        for name, value in each.attrib.items():
            if str(name).split("}")[-1] in ("src", "href", "srcset", "data", "action", "poster", "background"):
                yield value
            if str(name).startswith("on") or (name == "style" and "url" in value):
                yield f"{name}={value}"
        tag = str(each.tag).split("}")[-1]
        if tag == "style":
            yield from re.findall(r"url\(.*?\)|@import.*", each.text or "")
        if tag in ("script", "iframe", "object", "embed", "img", "image", "use", "foreignObject"):
            yield tag


def page_of(words: str, data: Path) -> str:
    with tempfile.TemporaryDirectory() as folder:
        run = run_facts(whole(Path(folder) / "run", words, data=data))
        finding = Finding(words, words, words, words, words)
        return report_page(run, findings=[finding])


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, list[str]]]]:
    data = prepared(tmp_path_factory.mktemp("data") / "data")
    return data, skeleton(parsed(page_of("a", data)))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(WORDS)
def test_no_element_or_attribute_comes_from_a_text(
    harmless: tuple[Path, list[tuple[str, list[str]]]], words: str
) -> None:
    data, wanted = harmless
    tree = parsed(page_of(words.strip() or "a", data))
    found = skeleton(tree)
    assert [a for a, b in zip(found, wanted, strict=False) if a != b] == []
    assert len(found) == len(wanted)
    assert [each for each in references(tree) if not re.fullmatch(r"#[a-z]+|data:,", each)] == []


def test_names_of_files_rules_and_tokens_are_text(tmp_path: Path) -> None:
    words = "<svg/onload=alert(1)>\u202e"
    page = report_page(run_facts(whole(tmp_path / "run", data=prepared(tmp_path / "data", words))))
    tree = parsed(page)
    assert {name for _, names in skeleton(tree) for name in names if name.startswith("on")} == set()
    assert ("\u202e" in page, page.count("&lt;svg/onload=alert(1)&gt;\\u202e") >= 4) == (False, True)


def test_the_page_forbids_scripts_and_the_network(tmp_path: Path) -> None:
    tree = parsed(report_page(run_facts(whole(tmp_path))))
    policy = next(each for each in tree.iter("meta") if each.get("http-equiv") == "Content-Security-Policy")
    assert (policy.get("content") or "").startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")


def headings(page: str) -> list[str]:
    return ["".join(each.itertext()) for each in parsed(page).iter("h2")]


def lead(page: str) -> str:
    return " ".join("".join(next(parsed(page).iter("header")).itertext()).split())


PARTS = ["Curves", "On a scale", "Samples", "Data", "Forecast and what happened", "Settings", "Machine and versions"]


def test_a_whole_run_tells_everything(tmp_path: Path) -> None:
    data = prepared(tmp_path / "data")
    page = report_page(run_facts(whole(tmp_path / "run", "tinygpt train", data=data)))
    text = " ".join(" ".join(parsed(page).itertext()).split())
    assert headings(page) == [*PARTS[:3], "Tokenizer", *PARTS[3:]]
    wanted = [
        "200 of 200 steps", "Best validation loss", "zstd -19", "After step 200", "bytes per token",
        "1, forecast 200 40 seconds 500 700.0 MB", "1, happened 200 50 seconds 400 800.0 MB", "12,345",
    ]  # fmt: skip
    assert [words for words in wanted if words not in text] == []


@pytest.mark.parametrize(
    ("files", "told"),
    [
        pytest.param({"metrics_jsonl": metrics(1)}, "how it ended is not recorded; 1 steps", id="one-step"),
        pytest.param({"metrics_jsonl": ""}, "how it ended is not recorded; 0 steps", id="empty-metrics"),
        pytest.param(
            {"metrics_jsonl": metrics(9, every=99), "sessions_jsonl": [session(), ended(9)]},
            "ended: all steps; 9 of 200 steps", id="no-validation",
        ),
        pytest.param(
            {"metrics_jsonl": metrics(9), "sessions_jsonl": [session()]},
            "stopped without a word: killed, or another machine is at it; 9 of 200 steps", id="killed",
        ),
        pytest.param({"sessions_jsonl": [session()]}, "stopped without a word", id="no-step-yet"),
        pytest.param(
            {"metrics_jsonl": metrics(60), "sessions_jsonl": [session(), ended(50), session(from_step=50), ended(60)]},
            "ended: all steps; 60 of 250 steps", id="continued",
        ),
        pytest.param(
            {"metrics_jsonl": metrics(9, loss=None, grad_norm=None, skipped=True),
             "sessions_jsonl": [session(), ended(9, "RuntimeError: training diverged")]},
            "ended: RuntimeError: training diverged; 9 of 200 steps", id="diverged",
        ),
        pytest.param(
            {"metrics_jsonl": metrics(9), "sessions_jsonl": [{"began": 1, **dict.fromkeys(setting(None), 7)}]},
            "stopped without a word", id="facts-of-other-kinds",
        ),
    ],
)  # fmt: skip
def test_a_run_of_any_shape_has_a_page(tmp_path: Path, files: dict[str, Any], told: str) -> None:
    page = report_page(run_facts(written(tmp_path, **files)))
    assert told in lead(page)
    assert set(PARTS) <= set(headings(page))


def test_sources_of_a_mixture_are_told_one_by_one(tmp_path: Path) -> None:
    facts = session(prepared(tmp_path / "data"))
    one = facts["data"]["train"]
    bare = {**one, "folder": None}
    facts["data"]["train"] = {"sources": [one, bare], "weights": ["7/10", "3/10"], "n_tokens": 9}
    page = report_page(run_facts(written(tmp_path / "run", sessions_jsonl=[facts])))
    assert ("Training: bare tokens" in page, "70.0%" in page, "30.0%" in page) == (True, True, True)


def test_what_is_damaged_is_said_and_the_rest_is_told(tmp_path: Path) -> None:
    run = whole(tmp_path / "run", data=prepared(tmp_path / "data"))
    (tmp_path / "data" / "manifest.json").write_text("{")
    (run / "config.yaml").write_text("{")
    page = report_page(run_facts(run))
    assert ("What could not be read" in headings(page), "manifest.json" in page, "200 of 200" in page) == (True,) * 3


def test_a_page_stays_small(tmp_path: Path) -> None:
    lines = metrics(20_000, every=10, sample="many words " * 2000)
    facts = {**session(), "config": {"sample_prompt": ""}}
    run = written(tmp_path, metrics_jsonl=lines, sessions_jsonl=[facts, ended(1)] * 300)
    assert len(report_page(run_facts(run)).encode()) < 500_000


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"no metrics\.jsonl, step-\*/ or sessions\.jsonl in it"):
        run_facts(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        run_facts(tmp_path / "none")


@pytest.mark.parametrize("content", ["", "[]", "{}", json.dumps({**evaluation(), "text": None}), '{"format": 1}'])
def test_a_file_that_is_no_evaluation_is_refused(tmp_path: Path, content: str) -> None:
    run = written(tmp_path / "run", metrics_jsonl=metrics(1))
    (tmp_path / "found.json").write_text(content)
    with pytest.raises(FormatError, match=r"found\.json: no evaluation of held-out text as JSON"):
        write_report(run, evaluation=tmp_path / "found.json")


def test_a_live_page_grows_with_its_run_and_keeps_its_pace(tmp_path: Path) -> None:
    written(tmp_path, metrics_jsonl=metrics(3))
    with LiveReport(tmp_path) as live:
        live.refresh()
        first = (tmp_path / "report.html").read_text()
        written(tmp_path, metrics_jsonl=metrics(5))
        live.refresh()  # too soon
        assert (tmp_path / "report.html").read_text() == first
    assert "5 steps" in lead((tmp_path / "report.html").read_text())


def test_a_page_that_cannot_be_written_is_one_warning(tmp_path: Path) -> None:
    written(tmp_path, metrics_jsonl=metrics(3))
    (tmp_path / "report.html").mkdir()
    with (
        pytest.warns(RuntimeWarning, match=r"report\.html: not written: .*; the run goes on") as caught,
        LiveReport(tmp_path) as live,
    ):
        live.refresh()
    assert len(caught) == 1


def test_no_folder_is_no_page() -> None:
    with LiveReport(None) as live:
        live.refresh()


def test_curves_are_read_on_between_two_pages(tmp_path: Path) -> None:
    curves = Curves()
    write_report(written(tmp_path, metrics_jsonl=metrics(3)), curves=curves)
    write_report(written(tmp_path, metrics_jsonl=metrics(5)), curves=curves)
    assert curves.n_lines == 5


def test_a_run_that_was_refused_has_no_page_and_no_warning(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    with pytest.raises(OSError, match="no room"), LiveReport(tmp_path):
        raise OSError("no room")
    assert (len(recwarn), list(tmp_path.iterdir())) == (0, [])
