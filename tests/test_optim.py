import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tinygpt.optim import OPTIMIZERS, SCHEDULES, build_optimizers, learning_rate
from torch import nn


@pytest.mark.parametrize(
    ("schedule", "at_0_2_5_9_10"),
    [
        ("cosine", (1.0, 2.0, 0.5 + 1.5 * (1 + math.cos(math.pi * 3 / 8)) / 2, 0.5 + 0.75 * (1 - 0.9238795325), 0.5)),
        ("linear", (1.0, 2.0, 0.5 + 1.5 * 5 / 8, 0.5 + 1.5 / 8, 0.5)),
        ("constant", (1.0, 2.0, 2.0, 2.0, 2.0)),
        ("wsd", (1.0, 2.0, 2.0, 0.5 + 1.5 * (1 / 8) / 0.2, 0.5)),
    ],
)
def test_schedule_has_the_values_worked_by_hand(schedule: str, at_0_2_5_9_10: tuple[float, ...]) -> None:
    settings = {"schedule": schedule, "peak": 2.0, "warmup_steps": 2, "max_steps": 10, "floor": 0.5}
    found = [learning_rate(step, **settings) for step in (0, 2, 5, 9, 10)]  # type: ignore[arg-type]
    assert found == pytest.approx(at_0_2_5_9_10, abs=1e-9)


@given(st.sampled_from(sorted(SCHEDULES)), st.integers(0, 50), st.integers(0, 50), st.floats(0, 1))
def test_rate_never_rises_after_warm_up_and_stays_between_floor_and_peak(
    schedule: str, warmup: int, rest: int, floor: float
) -> None:
    steps = range(warmup + rest + 5)
    rates = [
        learning_rate(s, schedule=schedule, peak=1.0, warmup_steps=warmup, max_steps=warmup + rest, floor=floor)
        for s in steps
    ]
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert all(floor <= rate <= 1.0 for rate in rates[warmup:])


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="one of cosine, linear, constant, wsd, got 'step'"):
        learning_rate(0, schedule="step", peak=1.0, warmup_steps=0, max_steps=1)
    with pytest.raises(ValueError, match="one of adamw, muon, sgd, got 'adam'"):
        build_optimizers("adam", nn.Linear(1, 1))


@pytest.mark.parametrize("warmup", [11, -1])
def test_warm_up_outside_the_run_is_refused(warmup: int) -> None:
    with pytest.raises(ValueError, match=rf"from 0 to max_steps \(10\), got {warmup}"):
        learning_rate(0, peak=1.0, warmup_steps=warmup, max_steps=10)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
@pytest.mark.parametrize("fused", [None, False])
def test_every_optimizer_finds_the_solution_of_a_linear_problem(name: str, fused: bool | None) -> None:
    torch.manual_seed(0)
    x, wanted = torch.randn(64, 4), nn.Linear(4, 3)
    y, model = wanted(x).detach(), nn.Linear(4, 3)
    optimizers = build_optimizers(name, model, learning_rate=0.05, weight_decay=0.0, fused=fused)
    for step in range(200):
        model.zero_grad()
        torch.autograd.backward(nn.functional.mse_loss(model(x), y))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, peak=0.05, warmup_steps=5, max_steps=200)
            optimizer.step()
    torch.testing.assert_close(model.weight, wanted.weight, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_without_gradient_matrices_shrink_and_vectors_stay(name: str) -> None:
    model = nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 2), nn.LayerNorm(2))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for optimizer in build_optimizers(name, model, learning_rate=0.1, weight_decay=0.5, betas=(0.0, 0.9)):
        optimizer.step()
    for key, value in model.state_dict().items():
        share = 0.95 if value.ndim == 2 else 1.0
        torch.testing.assert_close(value, before[key] * share, msg=key)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_groups_hold_each_trainable_parameter_once(name: str) -> None:
    model = nn.ModuleDict({"blocks": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    model["head"].weight = model["blocks"].weight
    model["head"].bias.requires_grad_(False)
    groups = [group for optimizer in build_optimizers(name, model) for group in optimizer.param_groups]
    held = [parameter for group in groups for parameter in group["params"]]
    assert [p is model["blocks"].weight for p in held] == [True, False]
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]


def test_muon_takes_the_matrices_of_the_blocks_and_its_step_is_orthogonal_at_the_size_of_adamw() -> None:
    torch.manual_seed(0)
    inner = nn.Linear(8, 6)
    model, before = nn.ModuleDict({"blocks": inner, "head": nn.Linear(6, 5)}), inner.weight.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    first, second = build_optimizers("muon", model, learning_rate=1.0, weight_decay=0.0)
    assert [[p.ndim for g in o.param_groups for p in g["params"]] for o in (first, second)] == [[2], [2, 1, 1]]
    first.step()
    singular = torch.linalg.svdvals(inner.weight.detach() - before) / (0.2 * 8**0.5)
    assert 0.5 < singular.min() <= singular.max() < 1.3  # what five Newton-Schulz iterations reach


def test_a_frozen_model_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to train"):
        build_optimizers("adamw", nn.Linear(1, 1).requires_grad_(False))
