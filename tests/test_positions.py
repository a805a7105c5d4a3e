"""Position encodings: angles, tables, and what they leave alone."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tinygpt.modelconfig import GPTConfig
from tinygpt.positions import POSITIONS, SINUSOID_AMPLITUDE, Rotary, Sinusoidal, rotate, sinusoids
from torch.testing import assert_close


def config(position: str = "rope") -> GPTConfig:
    return GPTConfig(vocab_size=5, block_size=16, n_layer=1, n_head=2, d_model=16, position=position)  # type: ignore[arg-type]


@pytest.mark.parametrize("position", POSITIONS)
def test_an_encoding_either_adds_or_turns(position: str) -> None:
    encoding, x, positions = POSITIONS[position](config(position)), torch.randn(2, 3, 16), torch.arange(3)
    if position == "learned":
        torch.nn.init.normal_(encoding.weight)  # type: ignore[arg-type]
    adds = not torch.equal(encoding.embed(x, positions), x)
    turns = encoding.rotation(positions, x.dtype) is not None
    assert (adds, turns) == (position != "rope", position == "rope")


@pytest.mark.parametrize("position", POSITIONS)
def test_positions_of_each_row_may_differ(position: str) -> None:
    encoding, x = POSITIONS[position](config(position)), torch.randn(2, 3, 16)
    positions = torch.tensor([[0, 1, 2], [5, 6, 7]])
    q = x.view(2, 3, 2, 8).transpose(1, 2)  # (B, H, T, D)
    rotation = encoding.rotation(positions, x.dtype)
    for row in range(2):
        single = encoding.rotation(positions[row], x.dtype)
        assert_close(encoding.embed(x, positions)[row], encoding.embed(x[row : row + 1], positions[row])[0])
        if rotation is not None and single is not None:
            assert_close(rotate(q, rotation)[row], rotate(q[row : row + 1], single)[0])


def test_rotary_turns_channel_pairs_by_the_angles_of_the_paper() -> None:
    rotation = Rotary(config()).rotation(torch.tensor([3]), torch.float32)
    assert rotation is not None
    turned = rotate(torch.eye(8)[None, None, :4], rotation)[0, 0]  # unit vectors of channels 0 to 3, (4, D)
    angles = [3 * 10000 ** (-2 * i / 8) for i in range(4)]
    assert turned.diagonal().tolist() == pytest.approx([math.cos(a) for a in angles])
    assert turned[:, 4:].diagonal().tolist() == pytest.approx([math.sin(a) for a in angles])


@given(st.integers(0, 15), st.integers(0, 15), st.integers(0, 1000))
def test_the_product_of_turned_vectors_depends_on_their_distance(a: int, b: int, shift: int) -> None:
    q, k, rotary = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8), Rotary(config())

    def product(i: int, j: int) -> torch.Tensor:
        turned = [rotate(x, rotary.rotation(torch.tensor([at]), x.dtype)) for x, at in ((q, i), (k, j))]  # type: ignore[arg-type]
        return (turned[0] * turned[1]).sum()

    assert_close(product(a, b), product(a + shift, b + shift), rtol=0, atol=2e-3)  # angles of 1000 in float32


def test_sinusoids_are_those_of_the_paper() -> None:
    table = sinusoids(50, 7)
    wanted = [[(math.cos if c % 2 else math.sin)(p / 10000 ** ((c - c % 2) / 7)) for c in range(7)] for p in range(50)]
    assert_close(table, torch.tensor(wanted), rtol=0, atol=1e-6)


def test_the_sinusoidal_table_is_saved_but_not_trained() -> None:
    encoding = Sinusoidal(config("sinusoidal"))
    assert list(encoding.parameters()) == []
    assert_close(encoding.state_dict()["weight"], SINUSOID_AMPLITUDE * sinusoids(16, 16))


def test_a_cast_and_back_leaves_the_angles_of_rope_exact() -> None:
    rotary, positions = Rotary(config()), torch.arange(16)
    before = rotary.rotation(positions, torch.float32)
    rotary.to(torch.bfloat16).to(torch.float32)
    assert_close(rotary.rotation(positions, torch.float32), before, rtol=0, atol=0)
