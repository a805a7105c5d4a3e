"""The site of the documentation: no warning, every flag and class, and no network or server to read it."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tinygpt
from pageblocks import TOP, help_of
from tinygpt.__main__ import VERBS

LONG = [
    "index.html",
    "commands/train.html",
    "python/Tokenizer.html",
    "recipes/chats.html",
    "tutorial.html",
    "text.html",
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("material", reason="mkdocs-material is not installed")
    pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed")
    folder = tmp_path_factory.mktemp("site")
    line = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(line, cwd=TOP, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return folder


def test_every_page_of_docs_is_a_page_of_the_site(site: Path) -> None:
    pages = [path.relative_to(TOP / "docs").with_suffix(".html") for path in (TOP / "docs").rglob("*.md")]
    assert [page for page in pages if not (site / page).is_file()] == []
    navigation = (site / "index.html").read_text(encoding="utf-8")
    assert [page for page in pages if f'href="{page.as_posix()}"' not in navigation and page.name != "index.html"] == []


@pytest.mark.parametrize("verb", VERBS)
def test_the_page_of_a_verb_has_every_flag_of_its_help(site: Path, verb: str) -> None:
    page = (site / "commands" / f"{verb}.html").read_text(encoding="utf-8")
    flags = set(re.findall(r"--[a-z][a-z0-9-]*", help_of(verb))) - {"--help"}
    assert sorted(flag for flag in flags if not re.search(rf"{flag}\b(?!-)", page)) == []


def test_every_public_class_has_a_page_with_its_members(site: Path) -> None:
    missing = []
    for name in tinygpt.__all__:
        page = (site / "python" / f"{name}.html").read_text(encoding="utf-8")
        members = [member for member in vars(getattr(tinygpt, name)) if not member.startswith("_")]
        missing += [f"{name}.{each}" for each in members if f'id="tinygpt.{name}.{each}"' not in page]
    assert missing == []


def test_modules_that_pages_name_are_in_the_reference(site: Path) -> None:
    words = "".join(path.read_text(encoding="utf-8") for path in (TOP / "docs").rglob("*.md"))
    named = {name for name in re.findall(r"(?:from |`)tinygpt\.([a-z]+)\b(?!/)", words) if name not in VERBS}
    assert sorted(name for name in named - {"in"} if not (site / "python" / f"{name}.html").is_file()) == []


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    found = []
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        found += [
            (page.name, url)
            for url in re.findall(r'<(?:script|link|img|iframe)[^>]*(?:src|href)="(https?:[^"]*)', text)
        ]
    assert found == []


@pytest.mark.parametrize("width", [400, 820, 1400])
def test_no_page_scrolls_sideways_or_complains(browser: Any, site: Path, width: int) -> None:
    page, seen = browser.new_page(viewport={"width": width, "height": 900}), list[str]()
    page.on("console", lambda message: seen.append(message.text))
    page.on("pageerror", lambda error: seen.append(str(error)))
    page.on("request", lambda request: seen.append(request.url) if request.url.startswith("http") else None)
    for name in LONG:
        page.goto((site / name).as_uri())
        page.wait_for_load_state()
        if (found := page.evaluate("document.documentElement.scrollWidth")) > width:
            seen.append(f"{name} is {found} wide")
    assert seen == []


def test_search_finds_a_flag_without_a_server(browser: Any, site: Path) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto((site / "index.html").as_uri())
    page.locator(".md-search__input").fill("spike-factor")
    page.wait_for_selector(".md-search-result__item", timeout=30_000)
    assert "train" in page.locator(".md-search-result__list").inner_text()
