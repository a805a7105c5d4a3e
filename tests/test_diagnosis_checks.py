"""Each check of a diagnosis on made-up courses and texts, and the figures that they are made from."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_writer import write_folder
from tinygpt.diagnosis import course, curves, text, textfigures
from tinygpt.diagnosis.examination import EXPLAINS, findings_of
from tinygpt.diagnosis.record import Record
from tinygpt.diagnosis.textfigures import Repeated, TextFigures
from tinygpt.modelconfig import GPTConfig
from tinygpt.tokenfolder import open_folder
from tinygpt.trainconfig import TrainConfig

SHAPE = GPTConfig(vocab_size=8192)  # 13.8 million parameters, whose usual rate is 0.0047
LN_V = math.log(8192)


def falling(step: float) -> float:
    """A loss that has nearly reached what it can reach after 2,000 steps."""
    return 3.0 + (LN_V - 3.0) * math.exp(-step / 150)


def made_up(
    loss: Callable[[int], float] = falling,
    *,
    val: Callable[[int], float] | None = None,
    train: Callable[[int], float] | None = None,
    steps: int = 2000,
    epochs: float = 1.0,
    n_tokens: int = 60_000,
    changes: Sequence[dict[str, Any]] = (),
    **record: Any,
) -> Record:
    """A run of which every tenth step was logged, with eight evaluations; changes are laid over its lines by step."""
    config = record.pop("config", TrainConfig(max_steps=2000, learning_rate=5e-3, optimizer="muon"))
    lines: list[dict[str, Any]] = []
    for step in [1, *range(10, steps + 1, 10)]:
        line = {"step": step, "epoch": epochs * step / 2000, "tokens": step * 3072, "loss": loss(step)}
        line |= {"grad_norm": 0.5, "skipped": False, "resources": {"tokens_per_second": 2000.0, "seconds": step * 1.5}}
        if step % 250 == 0:
            line["evaluation"] = {"loss": (val or loss)(step), "bits_per_byte": 1.9, "n_tokens": n_tokens}
            line["evaluation_train"] = {"loss": (train or loss)(step)}
        lines.append(line)
    for change in changes:
        at = next(i for i, line in enumerate(lines) if line["step"] >= change["step"])
        lines[at : at + 1] = [{**lines[at], **change}]
    return Record(folder=Path("runs/books"), lines=lines, shape=SHAPE, config=config, **record)


def read_text(**changes: Any) -> TextFigures:
    """The figures of 50 MB of English."""
    figures: dict[str, Any] = {"n_tokens": 12_000_000, "n_longer": 7935, "rare_fraction": 0.1, "unseen_fraction": 0.01}
    figures |= {"guess_loss": 6.9, "half_length": 2000, "compressor": "zstd -19", "compressed_bits": 2.2}
    return TextFigures(**{**figures, **changes})


def names(record: Record, figures: TextFigures | None = None) -> list[str]:
    return [each.name for each in findings_of(record, figures)]


def config(**changes: Any) -> TrainConfig:
    return TrainConfig(**{"max_steps": 2000, "learning_rate": 5e-3, "optimizer": "muon", **changes})


HEARTY = {"epochs": 3.0, "loss": lambda n: falling(n) - n / 2000, "val": lambda n: max(falling(n), 2.5 + n / 1000)}
COURSES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "healthy": ({}, []),
    "half done": ({"steps": 1000}, []),
    "one step": ({"steps": 1}, []),
    "started too high": ({"changes": [{"step": 1, "loss": 12.0}]}, ["loss-at-start"]),
    "started trained": ({"loss": lambda n: 3.2 - n / 10_000, "starts_trained": True}, []),
    "trained on other ids": (
        {"loss": lambda n: falling(n) + 2 * math.exp(-n / 100), "starts_trained": True},
        ["loss-at-start"],
    ),
    "two skipped at the end": (
        {"steps": 500, "changes": [{"step": 490, "skipped": True}, {"step": 500, "skipped": True}]},
        ["spikes"],
    ),
    "no finite evaluation": (
        {"changes": [{"step": 1000, "evaluation": {"loss": None, "n_tokens": 60_000}}]},
        ["diverged"],
    ),
    "rising": ({"loss": lambda n: falling(n) + max(0, n - 800) / 1000}, ["learning-rate-high"]),
    "far too high a rate": ({"config": config(learning_rate=0.1)}, ["learning-rate-high"]),
    "high rate of sgd": ({"config": config(learning_rate=0.1, optimizer="sgd")}, []),
    "crawling": ({"loss": lambda n: LN_V - n / 2000, "config": config(learning_rate=1e-5)}, ["learning-rate-low"]),
    "crawling, half done": (
        {"loss": lambda n: LN_V - n / 2000, "config": config(learning_rate=1e-5), "steps": 1000},
        [],
    ),
    "low rate that sufficed": ({"config": config(learning_rate=3e-4)}, []),
    "a skipped step": ({"changes": [{"step": 700, "skipped": True, "loss": None, "grad_norm": None}]}, ["spikes"]),
    "a jump": ({"changes": [{"step": 700, "loss": 6.0}]}, ["spikes"]),
    "by heart": (HEARTY, ["overfitting"]),
    "by heart with patience": ({**HEARTY, "config": config(patience=3)}, []),
    "by heart, its training loss not measured": (
        {**HEARTY, "changes": [{"step": 2000, "evaluation_train": None}]}, ["overfitting"]),
    "both rising": ({"val": lambda n: falling(n) + n / 4000, "train": lambda n: falling(n) + n / 4000}, []),
    "still falling": ({"loss": lambda n: LN_V - 2.5 * (n / 2000) ** 0.5}, ["undertrained"]),
    "stopped while falling": ({"loss": lambda n: LN_V - 2.5 * (n / 2000) ** 0.5, "steps": 1800}, []),
    "many passes for nothing": ({"epochs": 12.0}, ["many-epochs"]),
    "many passes that pay": ({"epochs": 12.0, "loss": lambda n: falling(n) - n / 10_000}, []),
    "slow warm-up": ({"config": config(warmup_steps=1500)}, ["long-warmup"]),
    "few tokens judged": ({"n_tokens": 900}, ["small-validation"]),
    "other text judged": ({"val": lambda n: falling(n) + 1.0}, ["other-validation"]),
    "other text, many passes": ({"val": lambda n: falling(n) + 1.0, "epochs": 9.0}, ["many-epochs"]),
}  # fmt: skip


@pytest.mark.parametrize("case", COURSES)
def test_course_is_named(case: str) -> None:
    options, wanted = COURSES[case]
    assert names(made_up(**options)) == wanted


TEXTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "healthy": ({}, []),
    "no order": ({"guess_loss": 3.05}, ["not-learning"]),
    "little": ({"n_tokens": 300_000}, ["little-text"]),
    "many rare ids": ({"rare_fraction": 0.7}, ["large-vocabulary"]),
    "single bytes alone": ({"rare_fraction": 0.7, "n_longer": 0}, []),
    "short documents": ({"half_length": 40}, ["long-context"]),
    "nothing says where documents end": ({"half_length": None}, []),
    "copies": ({"repeated": Repeated(n_found=90, n_asked=1000, length=50, example="")}, ["duplicates"]),
    "a common phrase": ({"repeated": Repeated(n_found=5, n_asked=1000, length=50, example="")}, []),
    "easily compressed": ({"compressed_bits": 1.5}, ["worse-than-zstd"]),
    "not compressed": ({"compressed_bits": None}, []),
}


@pytest.mark.parametrize("case", TEXTS)
def test_text_is_named(case: str) -> None:
    changes, wanted = TEXTS[case]
    assert names(made_up(), read_text(**changes)) == wanted


def test_text_of_a_fine_tuned_model_is_not_asked_to_fill_it() -> None:
    record = made_up(lambda n: 3.2 - n / 10_000, starts_trained=True)
    assert names(record, read_text(n_tokens=3000, rare_fraction=0.9)) == []


@pytest.mark.parametrize(("late", "wanted"), [(900.0, ["slow"]), (1500.0, [])])
def test_steps_that_become_slow_are_named(late: float, wanted: list[str]) -> None:
    record = made_up()
    lines = [
        {**line, "resources": {**line["resources"], "tokens_per_second": late if line["step"] > 1400 else 2000.0}}
        for line in record.lines
    ]
    assert names(Record(folder=record.folder, lines=lines, shape=SHAPE, config=record.config)) == wanted


@pytest.mark.parametrize(("measured", "wanted"), [(4000.0, ["slow"]), (2500.0, []), (None, [])])
def test_steps_that_are_slower_than_was_measured_are_named(measured: float | None, wanted: list[str]) -> None:
    assert names(made_up(facts={"engine": {"tokens_per_second": measured}})) == wanted


def test_steps_by_which_float16_finds_its_scale_are_no_spikes() -> None:
    change = {"step": 20, "skipped": True, "grad_norm": None}
    found = [names(made_up(changes=[change], config=config(dtype=dtype))) for dtype in ("float16", "bfloat16")]
    assert found == [[], ["spikes"]]


def test_a_million_lines_are_smoothed_in_time() -> None:
    points = curves.smoothed([(i, float(i % 7)) for i in range(1_000_000)])
    assert (len(points), points[-1][0], {value for _, value in points}) == (4000, 999_999, {3.0})


def test_no_validation_is_named_once_one_was_due() -> None:
    found = [
        names(made_up(steps=steps, changes=[{"step": n, "evaluation": None} for n in range(250, steps + 1, 250)]))
        for steps in (240, 250, 2000)
    ]
    assert found == [[], ["no-validation"], ["no-validation"]]


@settings(max_examples=60, deadline=None)
@given(best=st.integers(1, 6), rise=st.floats(0.2, 3.0), fall=st.floats(0.05, 2.0))
def test_overfitting_names_the_step_of_the_lowest_validation_loss(best: int, rise: float, fall: float) -> None:
    turn = 250 * best
    record = made_up(val=lambda n: 3.0 + rise * abs(n - turn) / 2000, train=lambda n: 3.0 - fall * n / 2000)
    found = course.overfitting(record)
    assert found is not None
    assert f"since step {turn:,}, " in found.what


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_noise_of_a_batch_is_an_alarm(data: st.DataObject) -> None:
    seed, spread = data.draw(st.integers(0, 10_000)), data.draw(st.floats(0, 0.08))
    noise = np.random.default_rng(seed).normal(0, spread, 2001)
    assert names(made_up(lambda n: falling(n) + noise[n], val=falling, train=falling), read_text()) == []


NUMBERS = ("loss", "epoch", "tokens", "grad_norm")
maps = st.dictionaries(st.sampled_from(["loss", "n_tokens", "bits_per_byte"]), st.none() | st.floats(0, 9), max_size=3)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                **{name: st.none() | st.just(0.0) | st.floats(1e-6, 1e6) for name in NUMBERS},
                **{name: st.none() | maps for name in ("evaluation", "evaluation_train", "resources")},
                "skipped": st.none() | st.booleans(),
            },
        ),
        min_size=1,
        max_size=40,
    )
)
def test_whatever_lines_hold_is_judged_without_an_error(lines: list[dict[str, Any]]) -> None:
    numbered = [{"step": i + 1, **line} for i, line in enumerate(lines)]
    record = Record(folder=Path("runs/books"), lines=numbered, shape=SHAPE, config=TrainConfig(max_steps=20))
    assert all(each.what and each.evidence and each.advice for each in findings_of(record, read_text()))


def test_what_a_finding_explains_is_known() -> None:
    known = {each.__name__.replace("_", "-") for each in (*course.COURSE_CHECKS, *text.TEXT_CHECKS)}
    assert {*EXPLAINS, *(name for explained in EXPLAINS.values() for name in explained)} <= known


@given(st.lists(st.floats(0, 20), min_size=1, max_size=60))
def test_a_smoothed_curve_stays_within_its_neighbours(values: list[float]) -> None:
    points = list(enumerate(values))
    reach = max(2, len(values) // 40)
    assert all(
        min(values[max(0, i - reach) : i + reach + 1]) <= value <= max(values[max(0, i - reach) : i + reach + 1])
        for i, value in curves.smoothed(points)
    )


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=20), st.floats(0, 19))
def test_a_curve_between_its_points_is_a_line(values: list[float], step: float) -> None:
    places = np.arange(len(values))
    assert curves.at(list(enumerate(values)), step) == pytest.approx(np.interp(step, places, values), abs=1e-9)


@given(st.lists(st.floats(0, 20), min_size=1, max_size=30), st.data())
def test_the_highest_median_is_that_of_every_row_sorted_anew(values: list[float], data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(values)))
    wanted = max(median(values[i : i + n]) for i in range(len(values) - n + 1))
    assert curves.highest_median(values, n) == pytest.approx(wanted)


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=30))
def test_who_guesses_by_frequencies_pays_their_entropy(counts: list[int]) -> None:
    likely = textfigures.mixed([np.array(counts)], [1.0])
    entropy = -sum(c / sum(counts) * math.log(c / sum(counts)) for c in counts)
    assert textfigures.guess_loss(likely, likely) == pytest.approx(entropy, abs=1e-4)


def folder_of(path: Path, train: list[list[int]], val: list[list[int]]) -> Path:
    return write_folder(path, {"train": [train], "val": [val]})


def test_stretches_that_stand_in_both_are_counted_and_found(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    train = [[*rng.integers(0, 900, 400).tolist(), 999] for _ in range(20)]
    val = [[*rng.integers(0, 900, 400).tolist(), 999] for _ in range(3)] + [train[7]]
    folder = folder_of(tmp_path / "data", train, val)
    opened = [open_folder(folder, split, verify=False) for split in ("train", "val")]
    found = textfigures.repeated([opened[0]], [opened[1]])
    assert found is not None
    assert 0.2 < found.n_found / found.n_asked < 0.3
    start = int(found.example.rpartition(":")[2])
    assert 7 * 401 <= start < 8 * 401


def test_short_documents_in_another_order_are_found(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = [[*rng.integers(0, 900, 60).tolist(), 999] for _ in range(400)]
    folder = folder_of(tmp_path / "data", lines, [lines[i] for i in rng.permutation(400)[:100]])
    opened = [open_folder(folder, split, verify=False) for split in ("train", "val")]
    found = textfigures.repeated([opened[0]], [opened[1]])
    assert found is not None
    assert found.n_found == found.n_asked


def test_half_of_the_tokens_stand_in_documents_of_that_length(tmp_path: Path) -> None:
    documents = [[1] * n for n in (3, 5, 5, 40, 60)]
    folder = folder_of(tmp_path / "data", documents, [[1, 2]])
    assert textfigures.half_length([open_folder(folder, "train", verify=False)]) == 60
    assert textfigures.half_length([open_folder(folder, "val", verify=False)]) == 2
