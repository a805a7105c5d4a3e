"""The pages of runs in a real browser; skipped where playwright or Chromium are missing."""

from pathlib import Path
from typing import Any

import pytest
from run_folder import metrics, prepared, whole, written
from tinygpt.runcomparison import write_comparison
from tinygpt.runreport import write_report

HOSTILE = "<img src=https://example.org/x onerror=alert(1)></script><script>alert(2)</script>" + "w" * 300


@pytest.fixture(scope="module", params=["one", "several", "hostile"])
def page_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    words = HOSTILE if request.param == "hostile" else "tinygpt train --data books"
    run = whole(folder / "a-run-with-a-rather-long-name", words, data=prepared(folder / "data"))
    if request.param != "several":
        return write_report(run)
    others = [written(folder / f"run-{i}", metrics_jsonl=metrics(100 * i)) for i in range(2, 6)]
    write_comparison([run, *others], folder / "report.html")
    return folder / "report.html"


def opened(browser: Any, file: Path, width: int, **more: Any) -> tuple[Any, list[str]]:
    page, seen = browser.new_page(viewport={"width": width, "height": 800}, **more), list[str]()
    page.on("console", lambda message: seen.append(message.text))
    page.on("pageerror", lambda error: seen.append(str(error)))
    page.on("dialog", lambda dialog: seen.append(dialog.message))
    page.on("request", lambda request: seen.append(request.url) if request.url != file.as_uri() else None)
    page.goto(file.as_uri())
    return page, seen


@pytest.mark.parametrize("width", [360, 820, 1400])
def test_nothing_scrolls_sideways_runs_or_is_fetched(browser: Any, page_file: Path, width: int) -> None:
    page, seen = opened(browser, page_file, width)
    page.locator("summary").evaluate_all("all => all.forEach(each => each.click())")
    assert (page.evaluate("document.documentElement.scrollWidth"), seen) == (width, [])


OVERLAPS = """() => [...document.querySelectorAll('figure > svg')].flatMap(svg => {
  const outer = svg.getBoundingClientRect(), texts = [...svg.querySelectorAll('text')];
  const boxes = texts.map(each => [each.textContent, each.getBoundingClientRect()]);
  const cut = boxes.filter(([, b]) => b.left < outer.left - 1 || b.right > outer.right + 1 || b.top < outer.top - 1
    || b.bottom > outer.bottom + 1).map(([text]) => `cut: ${text}`);
  const over = boxes.flatMap(([text, a], i) => boxes.slice(i + 1).filter(([, b]) =>
    a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 3 && b.top < a.bottom - 3)
    .map(([other]) => `${text} over ${other}`));
  return [...cut, ...over].map(words => `${svg.getAttribute('aria-label').slice(0, 40)}: ${words}`);
})"""


@pytest.mark.parametrize("width", [360, 1400])
def test_no_label_is_cut_or_overlaps_another(browser: Any, page_file: Path, width: int) -> None:
    page, _ = opened(browser, page_file, width)
    found = page.evaluate(OVERLAPS)
    assert [each for each in found if "www" not in each] == []


CONTRAST = """() => {
  const light = colour => { const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(n => n / 255)
    .map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = element => { for (let e = element; e; e = e.parentElement) {
    const colour = getComputedStyle(e).backgroundColor; if (!colour.includes(', 0)')) return colour; } };
  return [...document.querySelectorAll('p, th, td, dt, dd, small, a, summary, li, pre, .tokens span, h1, h2, h3')]
    .filter(each => each.textContent.trim() && each.getClientRects().length).map(each => {
      const [a, b] = [light(getComputedStyle(each).color), light(ground(each))].sort((x, y) => y - x);
      return [(a + 0.05) / (b + 0.05), each.outerHTML.slice(0, 80)]; }).filter(([ratio]) => ratio < 4.5);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_enough_contrast(browser: Any, page_file: Path, scheme: str) -> None:
    page, _ = opened(browser, page_file, 820, color_scheme=scheme)
    assert page.evaluate(CONTRAST) == []


def test_it_prints_on_few_pages(browser: Any, page_file: Path) -> None:
    page, _ = opened(browser, page_file, 820)
    assert page.pdf(format="A4").count(b"/Type /Page\n") in range(1, 13)
