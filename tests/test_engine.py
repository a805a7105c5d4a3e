"""Engine: what "auto" decides, what is refused, and random numbers kept apart."""

import subprocess
import sys

import pytest
import torch
from tinygpt.engine import Engine, settle
from tinygpt.model import GPT, GPTConfig
from tinygpt.randomstream import RandomStream


def test_auto_on_a_cpu_is_float32_uncompiled_with_the_threads_torch_has() -> None:
    assert settle(device="cpu") == Engine(threads=torch.get_num_threads())


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
        settle(**arguments)  # type: ignore[arg-type]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_is_named() -> None:
    with pytest.raises(ValueError, match=r"device cuda: torch .* sees none on this machine; use device cpu"):
        settle(device="cuda")


def test_choosing_an_engine_leaves_the_process_as_it_is() -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.get_rng_state().tolist()
    settle(threads=7)
    RandomStream(seed=3).state()
    after = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.get_rng_state().tolist()
    assert before == after


def test_configure_process_sets_threads_and_deterministic_kernels() -> None:
    code = (
        "import torch; from tinygpt.engine import *; configure_process(Engine(threads=1));"
        "assert torch.get_num_threads() == 1 and torch.are_deterministic_algorithms_enabled()"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_products_put_back_the_precision_that_they_found() -> None:
    before = torch.get_float32_matmul_precision()
    with Engine(matmul="medium").products():
        assert torch.get_float32_matmul_precision() == "medium"
    assert torch.get_float32_matmul_precision() == before


def test_working_copy_shares_float32_parameters_and_copies_them_for_another_type() -> None:
    model = GPT(GPTConfig(vocab_size=7, block_size=4, n_layer=2, n_head=2, d_model=8))
    shared = Engine(attention="explicit", loss_chunk=3).working_copy(model)
    narrow = Engine(dtype="bfloat16").working_copy(model)
    assert all(a is b for a, b in zip(model.parameters(), shared.parameters(), strict=True))
    assert [p.dtype for p in narrow.parameters()] == [torch.bfloat16] * len(list(model.parameters()))
    assert all(p.dtype == torch.float32 for p in model.parameters())
    forms = [[getattr(block.attention, "form", None) for block in each.blocks] for each in (model, shared)]
    assert (forms, model.loss_chunk, shared.loss_chunk) == ([["fused"] * 2, ["explicit"] * 2], None, 3)


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
