"""Imports point down: the floors of docs/architecture.md hold for both languages."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
PACKAGE, CRATE = TOP / "python" / "tinygpt", TOP / "rust"
PAGE = (TOP / "docs" / "architecture.md").read_text(encoding="utf-8")


def floors(column: int) -> dict[str, int]:
    """Module -> floor, from the table of the page; 2 is the column of Python, 3 that of Rust."""
    verbs = re.findall(r"(\w+)\.py", next(line for line in PAGE.splitlines() if "the verbs, about" in line))
    table: dict[str, int] = {}
    for row in re.findall(r"^\| \d+ .*", PAGE, re.MULTILINE):
        cell = row.split("|")[column]
        names = verbs if "the verbs" in cell else re.findall(r"\w+", cell)
        table |= dict.fromkeys(names, int(row.split("|")[1]))
    return table


def python_arrows() -> Iterator[tuple[str, str]]:
    """(module, module that it imports), wherever in the file the import stands, as dotted names below `tinygpt`."""
    modules = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    for name, path in modules.items():
        if name == "__init__":  # its table of names is the face: it reaches everything, lazily
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((name, alias.name[8:]) for alias in node.names if alias.name.startswith("tinygpt."))
            elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tinygpt":
                inner = [(node.module or "").removeprefix("tinygpt").strip(".")]
                whole = [alias.name for alias in node.names if alias.name != "__version__"] if inner == [""] else inner
                yield from ((name, target) for target in whole)


def rust_arrows() -> Iterator[tuple[str, str]]:
    """(module, module that it names as `crate::module` or by a name that lib.rs raises), tests at the end left out."""
    face = (CRATE / "lib.rs").read_text(encoding="utf-8")
    reexports = re.findall(r"^pub use (\w+)(?:::\w+)*::(?:\{([^;]*)\}|(\w+));", face, re.MULTILINE)
    raised = {name: module for module, many, one in reexports for name in re.findall(r"\w+", many or one)}
    for path in CRATE.rglob("*.rs"):
        place = path.relative_to(CRATE).with_suffix("").parts
        if place[0] in ("fuzz", "benches"):
            continue
        code = re.sub(r"//.*", "", path.read_text(encoding="utf-8").split("#[cfg(test)]")[0])
        grouped = re.findall(r"crate::\{([^;]*)\};", code)
        names = re.findall(r"crate::(\w+)", code) + [n for g in grouped for n in re.findall(r"(?:^|,)\s*(\w+)", g)]
        yield from ((place[0], raised.get(name, name)) for name in names)


def unit(module: str) -> str:
    return module.removesuffix(".__init__").split(".")[0]


def wrong(arrows: Iterator[tuple[str, str]], table: dict[str, int]) -> list[str]:
    """The arrows between two units that do not point to a lower floor, in words."""
    found = []
    for source, target in sorted({(unit(a), unit(b)) for a, b in arrows if unit(a) != unit(b)}):
        if source not in table or target not in table:
            found.append(f"{source} -> {target}: {source if source not in table else target} has no floor in the table")
        elif table[target] >= table[source]:
            found.append(f"{source} (floor {table[source]}) -> {target} (floor {table[target]})")
    return found


def test_python_imports_point_down() -> None:
    assert wrong(python_arrows(), floors(2)) == []


def test_rust_imports_point_down() -> None:
    assert wrong(rust_arrows(), floors(3)) == []


def test_every_module_has_a_floor() -> None:
    here = {unit(".".join(path.relative_to(PACKAGE).with_suffix("").parts)) for path in PACKAGE.rglob("*.py")}
    assert sorted(here - set(floors(2))) == []
    here = {path.relative_to(CRATE).with_suffix("").parts[0] for path in CRATE.rglob("*.rs")} - {"fuzz", "benches"}
    assert sorted(here - set(floors(3))) == []


@pytest.mark.parametrize("arrows", [python_arrows, rust_arrows])
def test_no_module_reaches_itself(arrows: object) -> None:
    edges: dict[str, set[str]] = {}
    for source, target in arrows():  # type: ignore[operator]
        edges.setdefault(source.removesuffix(".__init__"), set()).add(target)
    for _ in edges:  # a circle is left when taking away, again and again, what points nowhere
        edges = {a: left for a, bs in edges.items() if (left := {b for b in bs if b in edges and b != a})}
    assert edges == {}


def test_an_arrow_that_points_up_is_found() -> None:
    table = {"config": 1, "dataset": 3, "model": 3}
    arrows = iter([("config", "dataset"), ("dataset", "model"), ("model", "config"), ("model", "attic")])
    assert [line.split(":")[0] for line in wrong(arrows, table)] == [
        "config (floor 1) -> dataset (floor 3)",
        "dataset (floor 3) -> model (floor 3)",
        "model -> attic",
    ]
