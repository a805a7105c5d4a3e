"""Learner: one step in any engine; what the compiler or the memory cannot do is done another way."""

import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tinygpt.engine import Engine
from tinygpt.learner import Learner
from tinygpt.model import GPT, GPTConfig
from tinygpt.trainconfig import TrainConfig
from torch import Tensor
from torch.testing import assert_close

CONFIG = TrainConfig(batch_size=4, weight_decay=0.0)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def learner(config: TrainConfig = CONFIG, shape: dict[str, Any] | None = None, **engine: Any) -> Learner:
    torch.manual_seed(0)
    fields = {"vocab_size": 50, "block_size": 16, "n_layer": 2, "n_head": 2, "d_model": 32, **(shape or {})}
    return Learner(GPT(GPTConfig(**fields)), config, Engine(**engine))


def batch(n: int = 8) -> tuple[Tensor, Tensor]:
    ids = torch.randint(50, (n, 17), generator=torch.Generator().manual_seed(1))
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


@pytest.mark.parametrize(
    "engine",
    [
        {"attention": "explicit"},
        {"recompute": True},
        {"micro_batch": 1},
        {"micro_batch": 8},
        {"loss_chunk": 5},
        {"matmul": "medium"},
    ],
    ids=str,
)
def test_every_way_of_running_a_step_takes_the_same_step(engine: dict[str, Any]) -> None:
    one, other = learner(), learner(**engine)
    for _ in range(3):
        assert other.learn(*batch(), 0.01) == pytest.approx(one.learn(*batch(), 0.01), rel=1e-4)


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
@pytest.mark.parametrize("tied", [True, False])
def test_bfloat16_follows_float32_and_moves_the_float32_masters(optimizer: str, tied: bool) -> None:
    config, shape = TrainConfig(batch_size=4, optimizer=optimizer), {"tie_embeddings": tied}  # type: ignore[arg-type]
    one, other = learner(config, shape), learner(config, shape, dtype="bfloat16")
    for _ in range(20):
        pair = [each.learn(*batch(), 3e-3)[0] for each in (one, other)]
    assert pair[1] == pytest.approx(pair[0], rel=5e-3)
    assert pair[0] < 3.8
    assert {p.dtype for p in other.model.parameters()} == {torch.float32}
    assert_close(dict(other.refresh().named_parameters()), {
        name: p.bfloat16() for name, p in other.model.named_parameters()
    })  # fmt: skip


def test_gradients_of_many_micro_batches_are_summed_in_float32() -> None:
    one, other = learner(dtype="bfloat16", micro_batch=1), learner()
    x, y = batch(64)
    one.accumulate(x, y), other.accumulate(x, y)
    for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert a.grad.dtype == torch.float32
        assert float((a.grad - b.grad).norm() / b.grad.norm()) < 0.02


def test_failing_compiler_is_told_and_the_step_is_that_of_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_(self: torch.nn.Module, **_: object) -> None:
        def call(*_: object, **__: object) -> None:
            torch.rand(3)
            raise RuntimeError("no C++ compiler here")

        self._compiled_call_impl = call

    monkeypatch.setattr(torch.nn.Module, "compile", compile_)
    shape = {"dropout": 0.5}
    broken, plain = learner(shape=shape, compile=True), learner(shape=shape)
    with pytest.warns(
        RuntimeWarning, match=r"torch.compile failed \(no C\+\+ compiler here\); training goes on without"
    ):
        found = broken.learn(*batch(), 0.01)
    assert (found, broken.engine.compile) == (plain.learn(*batch(), 0.01), False)


def run_out_above(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    """Makes a loss of more than n windows run out of memory; what it held must be gone when fewer are tried."""
    loss, held = GPT.loss, []

    def short_of_memory(self: GPT, x: Tensor, *rest: Any, **more: Any) -> Tensor:
        if len(x) > n:
            torch.rand(3)
            activations = torch.zeros(len(x))
            held.append(weakref.ref(activations))
            raise torch.OutOfMemoryError("tried to allocate")
        assert all(each() is None for each in held)
        return loss(self, x, *rest, **more)

    monkeypatch.setattr(GPT, "loss", short_of_memory)


def test_out_of_memory_halves_the_windows_at_once_and_keeps_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = learner().learn(*batch(), 0.01)
    run_out_above(monkeypatch, 1)
    halved = learner()
    with pytest.warns(RuntimeWarning, match=r"out of memory with (4|2) windows at a time, going on with (2|1)"):
        assert halved.learn(*batch(), 0.01) == pytest.approx(wanted, rel=1e-5)
    assert halved.engine.micro_batch == 1


def test_out_of_memory_with_one_window_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    run_out_above(monkeypatch, 0)
    with pytest.raises(RuntimeError, match="out of memory with one window of 16 tokens at a time"):
        learner(micro_batch=1).learn(*batch(), 0.01)


def test_activations_made_again_are_those_of_the_same_dropout() -> None:
    shape = {"dropout": 0.5}
    assert learner(shape=shape, recompute=True).learn(*batch(), 0.01) == pytest.approx(
        learner(shape=shape).learn(*batch(), 0.01), rel=1e-5
    )
