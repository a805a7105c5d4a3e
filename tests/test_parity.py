"""The same numbers as other implementations: the plain reference for every option, transformers for its classes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity import CLASSES, MIXTURES, from_reference, from_transformers
from samples import sample
from tinygpt.dataset import TokenDataset
from tinygpt.model import GPT, GPTConfig
from tinygpt.trainer import TrainConfig, Trainer


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads of a tensor this small wait for each other longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_every_mixture_of_options_computes_what_the_plain_reference_computes() -> None:
    found = [(from_reference(options, torch.float64), options) for options in MIXTURES]
    # Not 1e-14: the angles of rope are float32 on purpose. A base of 10001 for 10000 already shows.
    wrong = [each for each in found if max(each[0].logits, each[0].loss, each[0].gradient or 0) > 1e-6]
    assert wrong == []


@pytest.mark.parametrize("name", CLASSES)
def test_logits_and_a_run_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    found = from_transformers(name, tmp_path)
    assert (found.logits <= 2e-5, found.loss <= 2e-4) == (True, True), found


def losses(dtype: Any, data: TokenDataset) -> "np.ndarray[Any, Any]":
    # A small rate: at 1e-3 such a run amplifies any noise, that of float32 too, into 1 to 8 percent.
    config = TrainConfig(
        max_steps=200, batch_size=4, grad_accum=2, learning_rate=5e-4, warmup_steps=20, device="cpu", dtype=dtype
    )
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=256, block_size=64, n_layer=2, n_head=2, d_model=64))
    return np.array([report.loss for report in Trainer(model, data, config=config).steps()])


def test_a_bfloat16_run_follows_the_float32_curve() -> None:
    text = np.frombuffer(sample("tinyshakespeare.txt").read_bytes(), np.uint8)
    data = TokenDataset.from_tokens(text, vocab_size=256, block_size=64)
    exact, found = losses("float32", data), losses("bfloat16", data)
    assert exact[-1] < 3.1
    assert np.abs(found / exact - 1).max() < 0.005
