"""What the pages say is true: Python blocks run, command lines parse, tables give the defaults that the fields have."""

import json
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
from pageblocks import (
    BEGINNINGS,
    NOTEBOOK,
    OTHERS,
    PAGES,
    PLAIN,
    RUN,
    SHOWN,
    TOP,
    Reader,
    blocks_of,
    commands_of,
    help_of,
    is_slow,
    of_tinygpt,
    refused,
    sized,
    text_of,
    write_texts,
)
from test_export import GPT2, nanogpt_file
from tinygpt import (
    __main__,
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
from tinygpt.model import GPT, GPTConfig
from tinygpt.samplingconfig import Sampling
from tinygpt.tokenizer import Tokenizer
from tinygpt.trainconfig import CHANGEABLE, TrainConfig

# The style shows code that is not there to run: it is compiled.
QUOTING = {"style.md"}
POSITIONAL = {"paths", "runs", "text"}
BLOCKS = [block for page in [*PAGES, NOTEBOOK] for block in blocks_of(page)]
RUNNING = [page for page in PAGES if page.name not in QUOTING and any(b.language in RUN for b in blocks_of(page))]
SLOWER = [page for page in RUNNING if any(is_slow(words) for b in blocks_of(page) for words in commands_of(b))]


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """(page, words) of each command of ours in backquotes."""
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        yield from ((page.name, found.split()) for found in re.findall(r"`((?:tinygpt|make) [^`]+)`", text))


@cache
def help_of_benches(suite: str) -> str:
    own = [suite] if suite in ("recipe", "serve", "planning") else []
    line = [sys.executable, "-m", "benches", *own, "--help"]
    return subprocess.run(line, capture_output=True, text=True, check=True, cwd=TOP).stdout


def unknown_words(words: list[str]) -> list[str]:
    """The parts of a command line that this version does not know."""
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (TOP / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        return [word for word in words[1:] if word not in targets and "=" not in word]
    if words[0] == "pip":
        extras = re.findall(r"^([a-z]+) = \[", (TOP / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
        return [name for name in re.findall(r"\[([a-z]+)\]", " ".join(words)) if name not in extras]
    if words[:3] == ["python", "-m", "benches"]:
        known = help_of_benches(words[3])
        return [word for word in words[4:] if re.match(r"--[a-z-]+$", word) and not re.search(rf"{word}[ ,\]]", known)]
    if words[0] != "tinygpt":
        return [] if words[0] in OTHERS or words[0] in PLAIN else [f"{words[0]}: a command that no table has"]
    if words[1].isupper():
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


def test_every_block_is_of_a_kind() -> None:
    assert [str(each) for each in BLOCKS if each.language not in RUN | set(SHOWN)] == []


def test_no_block_goes_without_a_fence() -> None:
    found = []
    for page in PAGES:
        text = re.sub(r"^( *)```.*?^\1```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        found += [(page.name, line) for line in re.findall(r"(?:^|\n\n)    (?![-*\d])(.*)", text)]
    assert found == []


def test_what_is_shown_can_be_read() -> None:
    for block in BLOCKS:
        if block.language == "json":
            assert [json.loads(line) for line in block.content.splitlines()], block
        elif block.language == "python":
            compile(block.content, str(block), "exec")


def test_every_command_of_a_block_is_one_that_its_parser_takes() -> None:
    wrong = []
    for block in BLOCKS:
        for words in commands_of(block):
            if ours := of_tinygpt(words):
                wrong += [(str(block), shlex.join(words), said) for said in [refused(ours)] if said]
            elif unknown := unknown_words(words):
                wrong.append((str(block), shlex.join(words), " ".join(unknown)))
    assert wrong == []


@pytest.fixture(scope="module")
def beginnings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared text and trained models that pages speak of, small ones."""
    folder = tmp_path_factory.mktemp("beginnings")
    write_texts(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in BEGINNINGS.split("\n"):
            assert not line or __main__.main(sized(line.split())) == 0, line
    Tokenizer.load(folder / "data" / "tok").save(folder / "T.json")
    shape = {**GPT2, "n_layer": 1, "n_head": 2, "d_model": 32, "block_size": 64, "vocab_size": 320, "bias": True}
    shutil.copytree(folder / "runs" / "books", folder / "books-model", symlinks=True)
    nanogpt_file(folder / "ckpt.pt", GPT(GPTConfig(**shape)))
    return folder


@pytest.fixture
def reader(beginnings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(beginnings.parent / "cache"))  # the machine is measured once for all pages
    reader = Reader(tmp_path, beginnings)
    yield reader
    reader.close()


@pytest.mark.parametrize("page", RUNNING, ids=lambda page: page.name)
def test_what_a_page_says_to_do_can_be_done(page: Path, reader: Reader) -> None:
    for block in blocks_of(page):
        if block.language in RUN:
            reader.run(block, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", SLOWER, ids=lambda page: page.name)
def test_what_takes_longer_can_be_done_too(page: Path, reader: Reader) -> None:
    for block in blocks_of(page):
        if block.language in RUN:
            reader.run(block, slow=True)


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
    for page in [*PAGES, NOTEBOOK]:
        for target in re.findall(r"\]\(([^)]+)\)", text_of(page)):
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
