"""TrainConfig: names its choices itself, so that flags are read without torch; the tables have to agree."""

import subprocess
import sys
from typing import get_args, get_type_hints

import pytest
from tinygpt.optim import OPTIMIZERS, SCHEDULES
from tinygpt.trainconfig import TrainConfig


@pytest.mark.parametrize(("name", "table"), [("schedule", SCHEDULES), ("optimizer", OPTIMIZERS)])
def test_choices_are_those_of_the_tables(name: str, table: dict[str, object]) -> None:
    assert sorted(get_args(get_type_hints(TrainConfig)[name])) == sorted(table)


@pytest.mark.parametrize(
    "field", [{"schedule": "square"}, {"optimizer": "adam"}, {"device": "tpu"}, {"lr": 1}, {"ram": "0G"}]
)
def test_an_unknown_choice_is_refused(field: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError), match=next(iter(field))):
        TrainConfig(**field)  # type: ignore[arg-type]


def test_reading_the_flags_of_training_loads_no_torch() -> None:
    code = "import sys, tinygpt.train; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
