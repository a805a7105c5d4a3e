"""Engine: what "auto" decides, what is refused, and random numbers kept apart."""

import subprocess
import sys

import pytest
import torch
from tinygpt.engine import CompiledLoss, Engine, RandomStream, choose_engine


def test_auto_on_a_cpu_is_float32_uncompiled_with_the_threads_torch_has() -> None:
    assert choose_engine(device="cpu") == Engine(threads=torch.get_num_threads())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "cpu", "dtype": "float16"}, "dtype float16 needs a CUDA device, and this run is on cpu"),
        ({"device": "tpu"}, "device must be one of auto, cpu, cuda, mps, got tpu"),
        ({"dtype": "int8"}, "dtype must be one of"),
        ({"compile": "yes"}, "compile must be one of"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
    ],
)
def test_what_this_machine_cannot_do_is_refused(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose_engine(**arguments)  # type: ignore[arg-type]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_is_named() -> None:
    with pytest.raises(ValueError, match=r"device cuda: torch .* sees none on this machine; use device cpu"):
        choose_engine(device="cuda")


def test_choosing_an_engine_leaves_the_process_as_it_is() -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.get_rng_state().tolist()
    choose_engine(threads=7)
    RandomStream(seed=3).state()
    after = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.get_rng_state().tolist()
    assert before == after


def test_configure_process_sets_threads_and_deterministic_kernels() -> None:
    code = (
        "import torch; from tinygpt.engine import *; configure_process(Engine(threads=1));"
        "assert torch.get_num_threads() == 1 and torch.are_deterministic_algorithms_enabled()"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_bfloat16_autocast_makes_products_bfloat16() -> None:
    a = torch.ones(2, 2)
    with Engine(dtype="bfloat16").autocast():
        product = a @ a
    with Engine().autocast():
        plain = a @ a
    assert (product.dtype, plain.dtype) == (torch.bfloat16, torch.float32)


def test_random_stream_neither_moves_others_nor_is_moved() -> None:
    def draws(disturb: bool) -> list[float]:
        stream, drawn = RandomStream(seed=5), []
        for _ in range(3):
            with stream.use():
                drawn.append(torch.rand(()).item())
            if disturb:
                torch.rand(100)
        return drawn

    torch.manual_seed(0)
    alone = [torch.rand(()).item() for _ in range(3)]
    torch.manual_seed(0)
    beside = [torch.rand(()).item()]
    undisturbed = draws(disturb=False)
    beside += [torch.rand(()).item(), torch.rand(()).item()]
    assert (draws(disturb=True), beside) == (undisturbed, alone)


def test_random_stream_goes_on_where_its_state_was_taken() -> None:
    one, other = RandomStream(seed=1), RandomStream(seed=2)
    with one.use():
        torch.rand(7)
    other.restore(one.state())
    with one.use():
        wanted = torch.rand(5)
    with other.use():
        assert torch.equal(torch.rand(5), wanted)


def test_random_state_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"random state of cpu: found torch\.uint8"):
        RandomStream(seed=1).restore({"cpu": torch.zeros(3, dtype=torch.uint8)})


def test_failing_compiler_warns_and_trains_on_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> object:
        def call(*_: object, **__: object) -> None:
            raise RuntimeError("no C++ compiler here")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    loss = CompiledLoss(lambda x, y, reduction: x.sum() + y.sum())
    with pytest.warns(RuntimeWarning, match="torch.compile failed"):
        first = loss(torch.ones(2), torch.ones(2))
    assert (first.item(), loss(torch.ones(1), torch.ones(1)).item(), loss.failed) == (4.0, 2.0, True)
