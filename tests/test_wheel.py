"""The built wheel stands by itself: all that the commands read is in it."""

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parent.parent
SHAPE = "--vocab-size 300 --n-layer 1 --n-head 2 --d-model 16 --block-size 16 --batch-size 4 --max-steps 3 --threads 1"
Command = Callable[..., "subprocess.Popen[str]"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that TINYGPT_WHEEL names, or one built as fast as may be."""
    if named := os.environ.get("TINYGPT_WHEEL"):
        return Path(named)
    out = tmp_path_factory.mktemp("wheel")
    line = [sys.executable, "-m", "maturin", "build", "--quiet", "--profile", "release", "--out", str(out)]
    subprocess.run([*line, "--interpreter", sys.executable], cwd=ROOT, check=True)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def tinygpt(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Starts a command of the installed wheel in an empty folder."""
    site, place = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("empty")
    line = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(line, check=True)

    def start(*words: str) -> "subprocess.Popen[str]":
        environment = {**os.environ, "PYTHONPATH": str(site)}
        line = [sys.executable, "-m", "tinygpt", *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(line, cwd=place, env=environment, text=True, **pipes)  # type: ignore[call-overload, no-any-return]

    where = subprocess.run(
        [sys.executable, "-c", "import tinygpt; print(tinygpt.__file__)"],
        cwd=place, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert where.startswith(str(site))
    return start


def told(process: "subprocess.Popen[str]") -> str:
    shown, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return shown


def test_every_file_of_the_package_is_in_the_wheel(wheel: Path) -> None:
    package = ROOT / "python"
    files = {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()}
    wanted = {name for name in files if not re.search(r"__pycache__|\.(so|pyd)$", name)}
    held = set(zipfile.ZipFile(wheel).namelist())
    assert wanted - held == set()
    assert {"tinygpt/chatpage.html", "tinygpt/py.typed"} <= held


def test_a_folder_of_text_becomes_a_model_that_is_served(tinygpt: Command, tmp_path: Path) -> None:
    (tmp_path / "cats.txt").write_text("The cat sat on the mat. " * 500, encoding="utf-8")
    data, run = tmp_path / "data", tmp_path / "run"
    assert "serve" in told(tinygpt("--help"))
    told(tinygpt("prepare", str(tmp_path / "cats.txt"), "--out", str(data), "--vocab-size", "300"))
    told(tinygpt("train", "--data", str(data), "--out", str(run), *SHAPE.split()))
    assert told(tinygpt("generate", "--checkpoint", str(run), "--prompt", "The", "--cpu")).startswith("The")
    process = tinygpt("serve", "--checkpoint", str(run), "--port", "0", "--cpu")
    try:
        assert process.stdout is not None
        process.stdout.readline()
        page = httpx.get(process.stdout.readline().strip())
        assert (page.status_code, page.text) == (200, (ROOT / "python/tinygpt/chatpage.html").read_text("utf-8"))
    finally:
        process.kill()
        process.communicate()
