"""The tutorial: committed without outputs, and, run from top to bottom, a model that has learnt something."""

import re
from typing import Any

import pytest
from pageblocks import NOTEBOOK

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")


def code_cells() -> list[Any]:
    return [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]


def test_it_is_a_valid_notebook_of_at_most_ten_cells_of_code() -> None:
    nbformat.validate(nbformat.read(NOTEBOOK, as_version=4))
    assert len(code_cells()) <= 10


def test_it_is_committed_without_outputs() -> None:
    assert [(cell.outputs, cell.execution_count) for cell in code_cells() if cell.outputs or cell.execution_count] == []


def test_its_code_is_narrow_enough_for_a_page() -> None:
    lines = [line for cell in code_cells() for line in cell.source.splitlines()]
    assert [line for line in lines if len(line) > 88] == []


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What each cell of code shows, text and HTML."""
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    notebook, folder = nbformat.read(NOTEBOOK, as_version=4), tmp_path_factory.mktemp("tutorial")
    nbclient.NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return ["".join(map(_text, cell.outputs)) for cell in cells]


def _text(output: Any) -> str:
    return output.text if "text" in output else "".join(map(str, output.data.values()))


@pytest.mark.slow
def test_the_loss_falls_from_guessing(shown: list[str]) -> None:
    before = float(re.findall(r"loss before training ([\d.]+)", shown[4])[0])
    losses = [float(found) for found in re.findall(r"held-out ([\d.]+)", shown[5])]
    assert (abs(before - 6.93) < 0.1, losses == sorted(losses, reverse=True), losses[-1] < 3.8) == (True, True, True)


@pytest.mark.slow
def test_tokens_and_curves_are_drawn(shown: list[str]) -> None:
    assert ("<span" in shown[2], shown[6].count("<figure")) == (True, 2)


@pytest.mark.slow
def test_samples_are_words_and_differ_by_temperature(shown: list[str]) -> None:
    texts = re.split(r"--- temperature .*\n", shown[7])[1:]
    words = [re.findall(r"[A-Za-z]{3,}", text) for text in texts]
    assert (len(set(texts)), all(words), sum(map(len, words)) > 20) == (3, True, True)


@pytest.mark.slow
def test_it_needs_fewer_bits_than_zlib(shown: list[str]) -> None:
    ours, theirs = re.findall(r"([\d.]+) bits per byte; zlib ([\d.]+)", shown[8])[0]
    assert float(ours) < 0.8 * float(theirs)


@pytest.mark.slow
def test_what_is_exported_is_a_folder_for_transformers(shown: list[str]) -> None:
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= set(shown[9].split())
