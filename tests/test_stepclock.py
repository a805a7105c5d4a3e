"""Clock: what it measures of a candidate is that of the windows at once that are asked for."""

import time
from typing import Any

import pytest
from tinygpt.engine import Engine
from tinygpt.learner import Learner
from tinygpt.modelconfig import GPTConfig
from tinygpt.stepclock import Clock
from tinygpt.trainconfig import TrainConfig

SHAPE = GPTConfig(vocab_size=64, block_size=16, n_layer=2, n_head=2, d_model=32)


@pytest.mark.parametrize("in_part", [True, False])
def test_windows_at_once_that_are_fixed_are_measured(in_part: bool) -> None:
    config = TrainConfig(batch_size=12, micro_batch=6)
    row = Clock(config, SHAPE)(Engine(micro_batch=6), in_part=in_part)
    assert row is not None
    assert row["micro_batch"] == 6
    assert 0 <= row["waiting_share"] < 100


def test_a_moment_that_the_machine_lost_is_no_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    def speed() -> float:
        row = Clock(TrainConfig(batch_size=4), SHAPE)(Engine(micro_batch=4), in_part=False)
        assert row is not None
        return float(row["tokens_per_second"])

    def interrupted(learner: Learner, *args: Any) -> Any:
        calls.append(None)
        if len(calls) == 2:  # the first one warms up
            time.sleep(0.3)
        return learn(learner, *args)

    calls: list[None] = []
    quiet, learn = speed(), Learner.learn
    monkeypatch.setattr(Learner, "learn", interrupted)
    assert speed() > quiet / 3
    assert len(calls) > 2
