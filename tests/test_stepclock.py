"""Clock: what it measures of a candidate is that of the windows at once that are asked for."""

import pytest
from tinygpt.engine import Engine
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
