"""TensorBoard and Weights & Biases get each step once, over all sessions; what they lack is said before any work."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_trainer import CONFIG, model, stream
from tinygpt import train
from tinygpt.metrics import read_metrics
from tinygpt.trackers import Trackers
from tinygpt.trainer import Trainer

QUIET: dict[str, Any] = {"tensorboard": False, "wandb": None, "settings": {}, "step": 0, "logged": 0}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_tensorboard_has_each_step_once_after_a_run_went_back(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for step, logged in ((0, 0), (3, 5)):  # the first session got to step 5, its last checkpoint is of step 3
        trackers = Trackers(tmp_path, **{**QUIET, "tensorboard": True, "step": step, "logged": logged})
        for each in range(step + 1, step + 6):
            trackers.append({"step": each, "loss": each / 10, "skipped": False, "evaluation": {"loss": 2.0}})
        trackers.close()
    events = reader.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert events.Scalars("loss")[4].value == pytest.approx(0.5)
    assert {"loss", "skipped", "evaluation_loss"} == set(events.Tags()["scalars"])


class FakeRun:
    """Stands for a run of the package wandb, and keeps what it gets."""

    def __init__(self, **options: Any) -> None:
        self.options, self.steps = options, list[int]()

    def log(self, values: dict[str, Any], step: int) -> None:
        self.steps.append(step)

    def finish(self) -> None:
        self.steps.append(-1)


class FakeWandb:
    def __init__(self) -> None:
        self.runs: list[FakeRun] = []

    def init(self, **options: Any) -> FakeRun:
        self.runs.append(FakeRun(**options))
        return self.runs[-1]

    def Settings(self, **options: Any) -> dict[str, Any]:  # noqa: N802
        return options


def test_wandb_gets_no_step_twice_and_is_offline_without_a_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    for step, logged in ((0, 0), (3, 5)):
        trackers = Trackers(tmp_path, **{**QUIET, "wandb": "poems", "step": step, "logged": logged})
        for each in range(step + 1, step + 6):
            trackers.append({"step": each, "loss": 1.0})
        trackers.close()
    assert [run.steps for run in wandb.runs] == [[1, 2, 3, 4, 5, -1], [6, 7, 8, -1]]
    assert len({run.options["id"] for run in wandb.runs}) == 1
    assert [(run.options["mode"], run.options["project"]) for run in wandb.runs] == [("offline", "poems")] * 2
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    Trackers(tmp_path, **{**QUIET, "wandb": "poems"})
    assert wandb.runs[-1].options["mode"] == "online"


def test_wandb_itself_takes_an_offline_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    trackers = Trackers(tmp_path, **{**QUIET, "wandb": "poems", "settings": {"n_layer": 1}})
    trackers.append({"step": 1, "loss": 2.0, "sample": "a text"})
    trackers.close()
    assert len(list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))) == 1


def test_what_fails_there_is_said_once_and_the_rest_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    trackers = Trackers(tmp_path, **{**QUIET, "wandb": "poems"})

    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(wandb.runs[0], "log", fail)
    with pytest.warns(RuntimeWarning, match=r"Weights & Biases: no route; nothing more is written there"):
        trackers.append({"step": 1, "loss": 2.0})
    trackers.append({"step": 2, "loss": 2.0})
    trackers.close()


def test_a_refused_login_is_said_and_the_other_tracker_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)

    def refuse(**_: Any) -> None:
        raise PermissionError("API key is not valid")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.warns(RuntimeWarning, match=r"^Weights & Biases: API key is not valid; nothing more is written there"):
        trackers = Trackers(tmp_path, **{**QUIET, "wandb": "poems", "tensorboard": True})
    trackers.append({"step": 1, "loss": 2.0})
    trackers.close()
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1


@pytest.mark.parametrize(("words", "name"), [("--tensorboard", "tensorboard"), ("--wandb poems", "wandb")])
def test_missing_package_is_one_line_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str, name: str
) -> None:
    monkeypatch.setattr("tinygpt.trackers.find_spec", lambda _: None)
    (tmp_path / "text.txt").write_text("a text")
    line = f"--data {tmp_path / 'text.txt'} --out {tmp_path / 'run'} {words}"
    assert train.main(line.split()) == 2
    wanted = f'tinygpt train: error: {name} is asked for, but that package is missing; pip install "tinygpt[{name}]"\n'
    assert (capsys.readouterr().err, (tmp_path / "run").exists()) == (wanted, False)


def test_no_tracker_without_a_folder() -> None:
    trainer = Trainer(model(), stream(), config=replace(CONFIG, tensorboard=True))
    with pytest.raises(ValueError, match="write into the run's folder, and there is none; give folder="):
        next(trainer.steps())


def test_a_run_passes_its_lines_on(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = replace(CONFIG, tensorboard=True)
    for report in Trainer(model(), stream(), stream(90), config, folder=tmp_path).steps():
        if report.step == 5:
            break
    Trainer.resume(tmp_path, train=stream(), val=stream(90)).fit()
    events = reader.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [event.value for event in events.Scalars("loss")] == pytest.approx([line["loss"] for line in lines])
