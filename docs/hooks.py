"""Pages that are made when the site is built: of the parsers, the names of the library, README and the tutorial."""

import re
from base64 import b64decode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import nbformat
import tinygpt
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from tinygpt.__main__ import VERBS
from tinygpt.config import Flag, flags_of

TOP = Path(__file__).parent.parent
NOTEBOOK = TOP / "docs" / "tutorial.ipynb"
RUN_NOTEBOOK = TOP / "target" / "tutorial" / "tutorial.ipynb"
# Modules that are named in the pages and are public beside the classes of `tinygpt` itself.
MODULES = {
    "evaluation": "Figures of a model on held-out text.",
    "heldout": "The documents that a model is judged on.",
    "baselines": "What compressors and n-grams reach on the same text.",
    "choices": "Questions with choices.",
    "memorisation": "What a model has by heart.",
    "diagnosis": "What is wrong with a run.",
    "project": "From a text to a model in one folder.",
    "planning": "What to train on a text in the time there is.",
    "exporting": "A model for another program.",
    "foreigntokenizer": "Tokenizers of others.",
    "runreport": "The page of a run.",
    "runcomparison": "Several runs on one page.",
    "generation": "Many texts that come and go.",
    "distributed": "Several processes that train together.",
    "engine": "How a step runs here.",
    "probe": "Which engine is fastest here.",
}

# What a link in docs/ names -> the page that is made of it.
MADE_OF = {
    r"\.\./README\.md": "overview.md",
    r"\.\./python/tinygpt/__main__\.py": "commands/index.md",
    r"\.\./python/tinygpt/__init__\.py": "python/index.md",
    r"tutorial\.ipynb": "tutorial.md",
}
WORDS = {"none", "required", "empty", "on", "off"}


@dataclass(frozen=True, kw_only=True)
class Command:
    """A verb as its own parser describes it."""

    verb: str
    about: str
    flags: list[Flag]


def command(verb: str) -> Command:
    """What a verb asks its parser for, which is found out by letting it ask."""
    module: Any = import_module(f"tinygpt.{verb}")
    found: list[Command] = []

    def described(argv: object, groups: Mapping[str, type], **words: Any) -> None:
        flags = flags_of(groups, defaults=words.get("defaults"))
        found.append(Command(verb=verb, about=words.get("description", ""), flags=flags))
        raise SystemExit(0)

    read, module.read = module.read, described
    try:
        module.main(["--help"])
    finally:
        module.read = read
    return found[0]


def command_page(found: Command) -> str:
    """The page of a verb: its flags in tables, one for each heading of its help."""
    lines = [f"# tinygpt {found.verb}", "", found.about, ""]
    for group in dict.fromkeys(flag.group for flag in found.flags):
        lines += [f"## {group[:1].upper()}{group[1:]} options" if group else "## Options", ""]
        lines += ['<div class="flags" markdown>', ""]
        lines += ["| flag | value | default | what it does |", "|---|---|---|---|"]
        lines += [_row(flag) for flag in found.flags if flag.group == group]
        lines += ["", "</div>", ""]
    return "\n".join(lines)


def _row(flag: Flag) -> str:
    """A row of the table; the flag can be linked to by its name."""
    names = "<br>".join(f"`{name}`" for name in flag.names)
    words = [word.strip() for word in flag.values.split("|")] if flag.values else []
    values = ", ".join(word if word.isupper() or word.endswith("...") else f"`{word}`" for word in words)
    default = flag.default if flag.default in WORDS else f"`{_cell(flag.default)}`"
    anchor = f'<span id="{flag.names[0].lstrip("-").lower()}"></span>'
    return f"| {anchor}{names} | {values} | {default} | {_prose(flag.help)} |"


def _prose(text: str) -> str:
    """A help text: names of flags as code, everything else as it stands."""
    escaped = re.sub(r"([<>*_\\])", r"\\\1", text).replace("|", "&#124;")
    return re.sub(r"(?<![\w`-])(--[a-z][a-z-]*)", r"`\1`", escaped)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def commands_page(commands: list[Command]) -> str:
    """The list of all verbs."""
    lines = ["# Commands", "", "Every flag of every verb, made from the parsers themselves: what `--help` prints.", ""]
    lines += ["| command | what it does |", "|---|---|"]
    lines += [f"| [`tinygpt {each.verb}`]({each.verb}.md) | {VERBS[each.verb]} |" for each in commands]
    lines += [
        "",
        "Every flag is also a key of a `--config` file, YAML or JSON: `n_layer: 6` for `--n-layer 6`. A flag wins over "
        "the file, the file over the default. `-` and `_` are the same in names.",
        "",
        "**Exit codes**: 0 done; 2 something in flags, files or data to correct; 1 a failure (disk, memory, "
        "divergence); 130 and 143 stopped by Ctrl-C and SIGTERM, after saving.",
        "",
    ]
    return "\n".join(lines)


def python_pages() -> Iterator[tuple[str, str]]:
    """(file, text) of the pages of the library: the classes of `tinygpt`, then modules that are public, too."""
    rows = []
    for name in tinygpt.__all__:
        rows.append(f"| [`tinygpt.{name}`]({name}.md) | {_first_line(getattr(tinygpt, name))} |")
        bare = "    options:\n      show_if_no_docstring: true\n" if name == "Counts" else ""  # of the stub
        yield f"{name}.md", f"::: tinygpt.{name}\n{bare}"
    modules = [f"| [`tinygpt.{name}`]({name}.md) | {about} |" for name, about in MODULES.items()]
    for name in MODULES:
        yield f"{name}.md", f"::: tinygpt.{name}\n    options:\n      show_root_full_path: true\n"
    head = ["# Python", "", "Everything that the commands do is in the library, made for notebooks and scripts.", ""]
    table = ["|---|---|"]
    whole = [
        *head,
        "| class | what it is |",
        *table,
        *rows,
        "",
        "Further modules:",
        "",
        "| module | what it is |",
        *table,
        *modules,
    ]
    yield "index.md", "\n".join(whole) + "\n"


def _first_line(thing: object) -> str:
    return (thing.__doc__ or "").strip().split("\n")[0].replace("|", "\\|")


def overview_page() -> str:
    """README.md as a page of the site."""
    text = (TOP / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")
    text = re.sub(r"^# tinygpt$", "# Overview", text, count=1, flags=re.MULTILINE)
    return re.sub(
        r"^## How it flows\n.*?^```\n\n", "## How it flows\n\n", text, count=1, flags=re.MULTILINE | re.DOTALL
    )


def tutorial_page(notebook: Any) -> tuple[str, dict[str, bytes]]:
    """The notebook as a page, and its pictures by file."""
    parts, pictures = [], dict[str, bytes]()
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        said = "".join(output.text for output in cell.outputs if output.get("name") == "stdout")
        parts += [_said(said)] if said else []
        for data in (output.data for output in cell.outputs if "data" in output):
            if "text/html" in data:
                parts.append(f'<div class="output">{_one_block(data["text/html"])}</div>')
            elif "image/png" in data:
                name = f"tutorial-{len(pictures) + 1}.png"
                pictures[name] = b64decode(data["image/png"])
                parts.append(f"![What the cell above draws]({name})")
            elif "text/plain" in data:
                parts.append(_said(data["text/plain"]))
    note = "The notebook itself: [tutorial.ipynb](tutorial.ipynb)."
    return "\n\n".join([parts[0], note, *parts[1:]]) + "\n", pictures


def _said(text: str) -> str:
    return f"```` {{ .text .output .no-copy }}\n{text.rstrip()}\n````"


def _one_block(html: str) -> str:
    """HTML without the empty lines at which Markdown would end it."""
    return re.sub(r"\n\s*\n", "\n", html.strip())


def run_notebook() -> Any:
    """The tutorial with what its cells gave, where `make docs` has run these cells; else as it is."""
    notebook = _read(NOTEBOOK)
    if RUN_NOTEBOOK.is_file():
        cells, run = _code_cells(notebook), _code_cells(_read(RUN_NOTEBOOK))
        if [cell.source for cell in cells] == [cell.source for cell in run]:
            for cell, done in zip(cells, run, strict=True):
                cell.outputs = done.outputs
    return notebook


def _read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def _code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The navigation with the pages that are made."""
    reference = next(entry["Reference"] for entry in config.nav or [] if "Reference" in entry)
    names = {"Commands": [{f"tinygpt {verb}": f"commands/{verb}.md"} for verb in VERBS]}
    names["Python"] = [{name: f"python/{name}.md"} for name in [*tinygpt.__all__, *MODULES]]
    for entry in reference:
        for heading, pages in names.items():
            if heading in entry:
                entry[heading] = [*entry[heading], *pages]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The files of the site with the pages that are made."""
    commands = [command(verb) for verb in VERBS]
    made: dict[str, str | bytes] = {"overview.md": overview_page(), "commands/index.md": commands_page(commands)}
    made |= {f"commands/{each.verb}.md": command_page(each) for each in commands}
    made |= {f"python/{name}": text for name, text in python_pages()}
    page, pictures = tutorial_page(run_notebook())
    made |= {"tutorial.md": page, **pictures}
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: object) -> str:
    """Links that hold where the project is read as files lead to the pages that are made of these."""
    up = "../" * page.file.src_uri.count("/")
    for target, made in MADE_OF.items():
        markdown = re.sub(rf"\]\({up}{target}", f"]({up}{made}", markdown)
    return markdown
