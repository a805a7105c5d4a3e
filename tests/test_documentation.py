"""What the pages say is true: Python blocks run, command lines parse, tables give the defaults that the fields have."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path

import pytest
from tinygpt import (
    bench,
    chat,
    doctor,
    encode,
    evaluate,
    export,
    generate,
    make,
    plan,
    prepare,
    report,
    serve,
    show,
    train,
)
from tinygpt.__main__ import VERBS
from tinygpt.samplingconfig import Sampling
from tinygpt.trainconfig import CHANGEABLE, TrainConfig

TOP = Path(__file__).parent.parent
PAGES = [TOP / "README.md", *sorted((TOP / "docs").rglob("*.md"))]
# The plan and the style show code that is not there to run.
QUOTING = {"architecture.md", "style.md"}
POSITIONAL = {"paths", "runs", "text"}
# Sizes that a page names, in sizes that a test can wait for.
SMALL = {"max_steps=2000": "max_steps=2", "vocab_size=8192": "vocab_size=400", "n_layer=6": "n_layer=1"}


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """(page and line, content) of each fenced block of a language."""
    for page in PAGES:
        if page.name in QUOTING:
            continue
        text = page.read_text(encoding="utf-8")
        for found in re.finditer(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            yield f"{page.name}:{text[: found.start()].count(chr(10)) + 1}", found[1]


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """(page and line, words) of each command of ours in a bash block or in backquotes."""
    for place, block in blocks("bash"):
        for line in block.replace("\\\n", " ").splitlines():
            yield from ((place, shlex.split(part, comments=True)) for part in line.split("&&"))
    text = (TOP / "README.md").read_text(encoding="utf-8")
    yield from (("README.md", found.split()) for found in re.findall(r"`((?:tinygpt|make) [^`]+)`", text))


@cache
def help_of(verb: str) -> str:
    done = subprocess.run([sys.executable, "-m", "tinygpt", verb, "--help"], capture_output=True, text=True, check=True)
    return done.stdout


def unknown_words(words: list[str]) -> list[str]:
    """The parts of a command line that this version does not know."""
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (TOP / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        return [word for word in words[1:] if word not in targets and "=" not in word]
    if words[:2] == ["python", "-m"] and words[2].startswith("tinygpt"):
        words = ["tinygpt", *words[2].split(".")[1:], *words[3:]]
    if words[0] != "tinygpt" or words[1].isupper():
        return []
    if words[1] not in VERBS:
        return [words[1]]
    flags = [word.split("=")[0] for word in words[2:] if word.startswith("--")]
    return [flag for flag in flags if not re.search(rf"{flag}[ ,]", help_of(words[1]))]  # a comma before its --no-


def headings(page: Path) -> set[str]:
    """The headings of a page, as links name them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in found}


@pytest.mark.parametrize(("place", "code"), list(blocks("python")), ids=lambda value: value.split("\n")[0])
def test_python_block_runs(place: str, code: str, tmp_path: Path) -> None:
    (tmp_path / "books").mkdir()
    for page in PAGES:
        shutil.copy(page, tmp_path / "books" / f"{page.stem}.txt")
    for large, small in SMALL.items():
        code = code.replace(large, small)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, env=environment
    )
    assert (done.returncode, done.stderr) == (0, ""), place


def test_command_lines_name_flags_that_exist() -> None:
    wrong = [(place, " ".join(words), unknown) for place, words in command_lines() if (unknown := unknown_words(words))]
    assert wrong == []


def test_option_tables_give_the_defaults_of_the_fields() -> None:
    verbs = [prepare.PrepareFlags, generate.GenerateFlags, encode.EncodeFlags, show.ShowFlags, bench.BenchFlags]
    verbs += [
        make.MakeFlags,
        chat.ChatFlags,
        export.ExportFlags,
        report.ReportFlags,
        serve.ServeFlags,
        doctor.DoctorFlags,
        plan.PlanFlags,
    ]
    classes = [*train.GROUPS.values(), *verbs, evaluate.EvaluateFlags, Sampling]
    declared: dict[str, set[str]] = {}
    for field in (field for cls in classes for field in fields(cls) if field.name not in POSITIONAL):
        default = train.DEFAULTS.get(field.name, field.default)
        default = " ".join(map(str, default)) if isinstance(default, tuple) and default else default
        default = default.replace("|", "¦") if isinstance(default, str) else default
        words: dict[object, str] = {None: "none", (): "none", MISSING: "required", "": "empty"}
        shown = ("off", "on")[default] if isinstance(default, bool) else words.get(default, str(default))
        declared.setdefault(field.name, set()).add(shown)
    text = PAGES[0].read_text(encoding="utf-8").replace("\\|", "¦")
    rows = re.findall(r"^\| `--([a-z-]+)`[^|]*\| ([^|]*) \|", text, re.MULTILINE)
    wrong = []
    for flag, default in rows:
        found = declared.get(flag.replace("-", "_"), {"no such flag"})
        is_words = " " in default or not default  # a sentence that says how None is decided
        if default not in found and not (is_words and "none" in found):
            wrong.append((flag, default, found))
    assert wrong == []
    named = set(re.findall(r"`--([a-z0-9-]+)`", "".join(re.findall(r"^\| (`--[^|]*)\|", text, re.MULTILINE))))
    assert sorted(set(declared) - {flag.replace("-", "_") for flag in named}) == []


def test_links_between_pages_lead_somewhere() -> None:
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            name, _, heading = target.partition("#")
            file = page.parent / name if name else page
            if not (target.startswith("https:") or (file.is_file() and heading in {"", *headings(file)})):
                broken.append((page.name, target))
    assert broken == []


def test_what_may_change_in_a_run_is_what_the_page_lists() -> None:
    text = (TOP / "docs" / "training.md").read_text(encoding="utf-8")
    part = text[text.index("**What may change**") : text.index("## Faults")]
    may, may_not = (set(re.findall(r"`([a-z_0-9]+)`", half)) for half in part.split("Everything else"))
    assert (may, may_not) == (set(CHANGEABLE), {field.name for field in fields(TrainConfig)} - CHANGEABLE)
