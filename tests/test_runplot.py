"""What a notebook shows of a run: axes of matplotlib, and HTML."""

from pathlib import Path

import pytest
from run_folder import metrics, written
from test_runreport import parsed
from tinygpt import TokenDataset, Tokenizer, TrainResult


def result(folder: Path | None) -> TrainResult:
    return TrainResult(
        step=200, tokens=19_200, seconds=50.0, reason="steps", loss=2.3, evaluation=None, evaluation_train=None,
        best_loss=2.4, best_step=200, skipped=1, folder=folder,
    )  # fmt: skip


def test_a_result_is_drawn_with_the_values_that_were_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed").use("Agg")
    lines = metrics(200)
    axes = result(written(tmp_path, metrics_jsonl=lines)).plot()
    titles = [axis.get_title() for axis in axes]
    assert titles[:4] == ["Loss", "Bits per byte", "Learning rate", "Gradient norm"]
    assert (axes[0].get_xlabel(), axes[0].get_ylabel()) == ("steps", "nats per token")
    assert axes[0].get_lines()[0].get_ydata().tolist() == [line["loss"] for line in lines]


def test_a_run_that_kept_nothing_cannot_be_drawn(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the run has no folder, so its measurements were not kept; give the trainer"):
        result(None).plot()
    with pytest.raises(ValueError, match="nothing is measured yet"):
        result(tmp_path).plot()


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'plot needs matplotlib, which is missing; pip install "tinygpt\[plot\]"'):
        result(written(tmp_path, metrics_jsonl=metrics(3))).plot()


def shown(value: TrainResult | TokenDataset | Tokenizer) -> str:
    return "".join(parsed(f"<!doctype html><title>cell</title>{value._repr_html_()}").itertext())


def test_a_notebook_shows_results_datasets_and_tokenizers(tmp_path: Path) -> None:
    data = TokenDataset.from_tokens(range(90), vocab_size=90, block_size=8)
    found = [shown(result(written(tmp_path, metrics_jsonl=metrics(200)))), shown(result(None)), shown(data)]
    found.append(shown(Tokenizer.train(["a text"], pattern="byte")))
    wanted = ["nats per token over steps", "step 200 (steps)", "11 of 8 tokens", "<|endoftext|> = 256"]
    assert [words for words, text in zip(wanted, found, strict=True) if words not in text] == []
