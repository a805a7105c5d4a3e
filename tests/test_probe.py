"""Probe: what is chosen follows from what was measured; real measurements are remembered and can be deleted."""

import warnings
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from tinygpt import probe
from tinygpt.engine import Engine
from tinygpt.measuredengines import cache_file, key_of, remember, remembered
from tinygpt.modelconfig import GPTConfig
from tinygpt.trainconfig import ENGINE, TrainConfig

SHAPE = GPTConfig(vocab_size=64, block_size=16, n_layer=2, n_head=2, d_model=32)
CONFIG = TrainConfig(batch_size=4, grad_accum=3)
OPEN = {name: getattr(CONFIG, name) for name in ENGINE} | {"device": "cpu"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def measured(
    speeds: dict[tuple[str, Any], float], fixed: dict[str, Any] = OPEN, shape: GPTConfig = SHAPE
) -> list[dict[str, Any]]:
    """The rows of a machine on which each of these choices multiplies the speed."""

    def measure(engine: Engine, *, in_part: bool) -> dict[str, Any]:
        speed = 1000.0
        for (name, value), factor in speeds.items():
            speed *= factor if getattr(engine, name) == value else 1.0
        row = {
            "tokens_per_second": speed,
            "compile_seconds": 0.0,
            "memory_bytes": None,
            "loss": 4.0,
            "in_part": in_part,
        }
        return {**asdict(engine), **row}

    return list(probe.measure_all(CONFIG, shape, fixed, 2, measure=measure))


CHOICES = {
    ("dtype", "bfloat16"): 2.0,
    ("compile", True): 1.2,
    ("attention", "explicit"): 1.3,
    ("loss_chunk", 64): 1.1,
    ("micro_batch", 2): 1.15,
    ("threads", 1): 1.5,
}


def chosen(rows: list[dict[str, Any]]) -> Engine:
    return probe.best([row for row in rows if not row["in_part"]], n_tokens=1e9)


def test_the_fastest_of_every_choice_is_found_whatever_the_others_are() -> None:
    engine = chosen(measured(CHOICES))
    assert {(name, getattr(engine, name)) for name, _ in CHOICES} == set(CHOICES)


@pytest.mark.parametrize("choice", sorted(CHOICES, key=str), ids=str)
def test_a_choice_that_is_not_faster_is_not_made(choice: tuple[str, Any]) -> None:
    engine = chosen(measured({**CHOICES, choice: 0.9}))
    assert getattr(engine, choice[0]) != choice[1]
    assert {(name, getattr(engine, name)) for name, _ in CHOICES} >= set(CHOICES) - {choice}


def test_a_type_that_a_part_of_the_model_sees_behind_is_found_ahead() -> None:
    def measure(engine: Engine, *, in_part: bool) -> dict[str, Any]:
        factor = {True: 0.9, False: 2.0}[in_part] if engine.dtype == "bfloat16" else 1.0
        row = {"tokens_per_second": 1000.0 * factor, "compile_seconds": 0.0, "memory_bytes": None, "loss": 4.0}
        return {**asdict(engine), **row, "in_part": in_part}

    assert chosen(list(probe.measure_all(CONFIG, SHAPE, OPEN, 2, measure=measure))).dtype == "bfloat16"


def test_what_is_fixed_is_kept_and_never_measured_otherwise() -> None:
    fixed = {**OPEN, "dtype": "float32", "matmul": "highest", "compile": "off", "attention": "fused"}
    rows = measured(CHOICES, fixed)
    assert {(row["dtype"], row["compile"], row["attention"]) for row in rows} == {("float32", False, "fused")}


def test_both_forms_of_attention_are_candidates_for_a_model_with_dropout() -> None:
    rows = measured(CHOICES, shape=replace(SHAPE, dropout=0.1))
    assert {row["attention"] for row in rows} == {"fused", "explicit"}


def test_taking_the_winner_away_changes_the_choice() -> None:
    rows = [row for row in measured(CHOICES) if not row["in_part"]]
    winner = probe.best(rows, n_tokens=1e9)
    second = probe.best([row for row in rows if probe.engine_of(row) != winner], n_tokens=1e9)
    assert second != winner
    assert second.tokens_per_second == sorted(row["tokens_per_second"] for row in rows)[-2]


def test_a_short_run_does_not_wait_for_the_compiler() -> None:
    eager = {**asdict(Engine()), "tokens_per_second": 1000.0, "compile_seconds": 0.0}
    compiled = {**asdict(Engine(compile=True)), "tokens_per_second": 1250.0, "compile_seconds": 10.0}
    assert [probe.best([eager, compiled], n_tokens=n).compile for n in (40_000, 60_000)] == [False, True]
    limits = (9.0, 49.0, 51.0, 1e9)  # compiled: 50 s are 50,000 tokens, too
    assert [probe.best([eager, compiled], n_tokens=1e15, seconds=s).compile for s in limits] == [
        False,
        False,
        True,
        True,
    ]
    assert not probe.best([eager, compiled], n_tokens=40_000, seconds=1e6).compile


def test_a_type_whose_loss_strays_is_left_out() -> None:
    def measure(engine: Engine, *, in_part: bool) -> dict[str, Any]:
        loss = 4.03 if engine.dtype == "bfloat16" else 4.0
        speed = 9.0 if engine.dtype == "bfloat16" else 1.0
        row = {
            "tokens_per_second": speed,
            "compile_seconds": 0.0,
            "memory_bytes": None,
            "loss": loss,
            "in_part": in_part,
        }
        return {**asdict(engine), **row}

    rows = list(probe.measure_all(CONFIG, SHAPE, OPEN, 1, measure=measure))
    assert {row["dtype"] for row in rows} == {"float32"}


def test_a_run_too_short_to_gain_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_in_child", None)
    assert probe.choose(CONFIG, SHAPE, n_tokens=1000).tokens_per_second is None
    compiled = a_row(compile=True, tokens_per_second=99.0, compile_seconds=1000.0, memory_bytes=1)
    rows = [a_row(memory_bytes=None), compiled]
    remember(key_of(CONFIG, SHAPE, {name: getattr(CONFIG, name) for name in ENGINE}), rows)
    assert [probe.choose(CONFIG, SHAPE, n_tokens=n).compile for n in (1000, 1e9)] == [False, True]


@pytest.mark.parametrize(("share", "n_remembered"), [(0.0, 1), (0.5, 0)])
def test_what_was_measured_beside_other_programs_is_said_and_not_remembered(
    monkeypatch: pytest.MonkeyPatch, share: float, n_remembered: int
) -> None:
    row = {**asdict(Engine()), "tokens_per_second": 9.0, "compile_seconds": 0.0, "memory_bytes": None, "loss": 4.0}
    row |= {"in_part": False, "waiting_share": share}
    monkeypatch.setattr(probe, "_in_child", lambda *_: iter([row]))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        probe.choose(TrainConfig(batch_size=4, device="cpu"), SHAPE, n_tokens=1e12)
    assert ["threads waited 50% of the time for a core" in str(each.message) for each in told] == [True] * (share > 0)
    assert cache_file().exists() == bool(n_remembered)


def a_row(**changes: Any) -> dict[str, Any]:
    return {
        **asdict(Engine()),
        "tokens_per_second": 9.0,
        "compile_seconds": 0.0,
        "loss": 4.0,
        "in_part": False,
        **changes,
    }


def shrinking(monkeypatch: pytest.MonkeyPatch, alone: dict[str, Any]) -> list[int | None]:
    """Makes a process that measures one engine alone fit only with two windows at once; the numbers that are tried."""
    tried: list[int | None] = []

    def in_child(_config: object, _shape: object, task: dict[str, Any], _say: object) -> Iterator[dict[str, Any]]:
        if "engine" not in task:
            yield a_row()
            return
        tried.append(task["engine"]["micro_batch"])
        yield a_row(**{**task["engine"], "tokens_per_second": 9.0, "memory_bytes": 5}) if tried[-1] == 2 else alone

    monkeypatch.setattr(probe, "_in_child", in_child)
    return tried


@pytest.mark.parametrize("ram", [None, "1G"])
@pytest.mark.parametrize("alone", [{"out_of_memory": True}, a_row(memory_bytes=1 << 62)], ids=["killed", "too much"])
def test_fewer_windows_are_tried_until_they_fit(
    monkeypatch: pytest.MonkeyPatch, ram: str | None, alone: dict[str, Any]
) -> None:
    tried = shrinking(monkeypatch, alone)
    engine = probe.choose(TrainConfig(batch_size=4, device="cpu", ram=ram), SHAPE, n_tokens=1e12)
    assert (tried, engine.micro_batch, engine.memory_bytes) == ([None, 2], 2, 5)
    # What is free today is no fact about the machine; what the user allows is one about the run.
    assert cache_file().exists() == (ram is not None)


def test_memory_that_no_window_fits_into_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_in_child", lambda *_: iter([{"out_of_memory": True}]))
    with pytest.raises(MemoryError, match=r"GB are free, and a step with one window at a time does not fit"):
        probe.choose(TrainConfig(batch_size=4, device="cpu"), SHAPE, n_tokens=1e12)
    with pytest.raises(ValueError, match=r"ram 1\.00 GB is too little: a step with one window at a time does not fit"):
        probe.choose(TrainConfig(batch_size=4, device="cpu", ram="1G"), SHAPE, n_tokens=1e12)


def test_a_candidate_without_memory_is_left_out() -> None:
    def measure(engine: Engine, *, in_part: bool) -> dict[str, Any]:
        if engine.attention == "explicit":
            raise MemoryError
        return a_row(**{**asdict(engine), "tokens_per_second": 9.0}, in_part=in_part)

    rows = list(probe.measure_all(CONFIG, SHAPE, OPEN, 1, measure=measure))
    assert {row["attention"] for row in rows} == {"fused"}


def test_a_measurement_that_failed_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_in_child", lambda *_: iter([]))
    assert probe.choose(TrainConfig(batch_size=4, device="cpu"), SHAPE, n_tokens=1e12).tokens_per_second is None
    assert not cache_file().exists()


@pytest.mark.parametrize("content", ["[]", "no json", '{"KEY": [{"tokens_per_second": 1, "compile_seconds": 0}]}'])
def test_a_damaged_file_of_measurements_is_measured_over(monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    monkeypatch.setattr(probe, "key_of", lambda *_: "KEY")
    monkeypatch.setattr(probe, "_in_child", lambda *_: iter([a_row()]))
    cache_file().parent.mkdir(parents=True)
    cache_file().write_text(content)
    assert probe.choose(TrainConfig(batch_size=4, device="cpu"), SHAPE, n_tokens=1e12).tokens_per_second == 9.0
    assert remembered("KEY")


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_what_was_measured_alone_is_known_to_the_run_that_it_was_for(
    monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    tasks: list[Engine] = []

    def in_child(_config: object, _shape: object, task: dict[str, Any], _say: object) -> Iterator[dict[str, Any]]:
        tasks.append(Engine(**task["engine"]))
        yield a_row(**{**task["engine"], "tokens_per_second": 9.0, "memory_bytes": 5}, waiting_share=share)

    monkeypatch.setattr(probe, "_in_child", in_child)
    config = TrainConfig(batch_size=4, device="cpu", threads=1)
    row = probe.measured_alone(config, SHAPE, Engine(dtype="bfloat16", threads=2))
    engine = probe.engine_of(row)
    assert (engine.threads, engine.dtype, engine.micro_batch, engine.loss_chunk) == (1, "bfloat16", 4, 64)
    named = replace(config, **probe.settings_of(engine))
    assert probe.choose(named, SHAPE, n_tokens=1e12) == engine
    assert probe.measured_alone(named, SHAPE, engine)["memory_bytes"] == 5
    assert len(tasks) == (1 if share == 0 else 3)  # what other programs disturbed is not remembered


def test_what_could_not_be_measured_alone_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_in_child", lambda *_: iter([]))
    with pytest.raises(RuntimeError, match="how a step runs here could not be measured"):
        probe.measured_alone(TrainConfig(batch_size=4, device="cpu"), SHAPE, Engine())


@pytest.mark.slow
def test_real_measurements_are_remembered_until_they_are_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(probe, "MOST_WAITING", float("inf"))  # whatever else this machine does meanwhile
    config = TrainConfig(batch_size=4, device="cpu", compile="off")
    engine = probe.choose(config, SHAPE, n_tokens=1e12, say=told.append)
    assert len(told) >= 6
    assert engine.tokens_per_second
    assert engine.memory_bytes
    assert engine.gemm_flops
    assert probe.choose(config, SHAPE, n_tokens=1e12, say=told.append) == engine
    n = len(told)
    cache_file().unlink()
    probe.choose(config, SHAPE, n_tokens=1e12, say=told.append)
    assert len(told) > n


@pytest.mark.slow
def test_memory_that_is_too_little_for_the_batch_takes_fewer_windows_and_too_little_for_one_is_refused() -> None:
    shape = GPTConfig(vocab_size=256, block_size=256, n_layer=2, n_head=2, d_model=64)
    config: dict[str, Any] = {"batch_size": 64, "device": "cpu", "compile": "off", "attention": "explicit"}
    free = probe.choose(TrainConfig(**config, ram="20G"), shape, n_tokens=1)
    assert free.memory_bytes is not None
    tight = TrainConfig(**config, ram=f"{free.memory_bytes * 0.9 / 1e6:.0f}M")
    engine = probe.choose(tight, shape, n_tokens=1)
    assert (engine.micro_batch or 64) < 64
    assert (engine.memory_bytes or 0) <= free.memory_bytes * 0.9
    with pytest.raises(ValueError, match=r"ram 0\.10 GB is too little: a step with one window at a time"):
        probe.choose(TrainConfig(**config, ram="100M"), shape, n_tokens=1)
