"""Several datasets in given proportions: the same windows as by a list, and a run over them that resumes exactly."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_writer import write_folder
from tinygpt.dataset import TokenDataset
from tinygpt.mixeddataset import MixedDataset
from tinygpt.model import GPT, GPTConfig
from tinygpt.trainconfig import TrainConfig
from tinygpt.trainer import Trainer
from tinygpt.turns import Turns

torch.set_num_threads(1)
SHAPE = GPTConfig(vocab_size=1000, block_size=4, n_layer=1, n_head=2, d_model=16)


def numbered(n: int, first: int, **options: object) -> TokenDataset:
    """Windows of one token each, whose x are first, first + 1, ..."""
    tokens = np.arange(first, first + n + 1)
    return TokenDataset.from_tokens(tokens, vocab_size=10_000, block_size=1, **options)  # type: ignore[arg-type]


def folder(path: Path, n: int, shift: int = 0) -> Path:
    """A prepared folder of n tokens, 9 of 10 for training."""
    ids = [(i * 7 + shift) % 900 for i in range(n)]
    return write_folder(path, {"train": [[ids[: n * 9 // 10]]], "val": [[ids[n * 9 // 10 :]]]})


@given(st.lists(st.tuples(st.integers(1, 7), st.integers(1, 9)), min_size=1, max_size=5), st.integers(0, 3), st.data())
@settings(max_examples=60)
def test_the_mixture_equals_one_by_a_list(sources: list[tuple[int, int]], seed: int, data: st.DataObject) -> None:
    sets = [numbered(n, 1000 * i) for i, (n, _) in enumerate(sources)]
    mixed, turns = MixedDataset(sets, [weight for _, weight in sources]), Turns([weight for _, weight in sources])
    endless = [torch.cat([each.batch(k, batch_size=1, seed=seed)[0] for k in range(60)]).flatten() for each in sets]
    had, wanted = [0] * len(sets), []
    for n in range(60):
        whose = turns.at(n)[0]
        wanted.append(int(endless[whose][had[whose]]))
        had[whose] += 1
    world_size = data.draw(st.sampled_from([1, 2, 3]))
    parts = [
        mixed.batch(k, batch_size=12, seed=seed, rank=rank, world_size=world_size)[0]
        for k in reversed(range(5))
        for rank in range(world_size)
    ]
    by_batch = torch.cat(parts).flatten().reshape(5, 12).flip(0).flatten().tolist()
    assert by_batch == wanted


def test_data_in_a_larger_vocabulary_are_the_same_windows() -> None:
    data = numbered(5, 0)
    larger = data.in_vocabulary(10_004, "cd" * 32)
    assert [larger.vocab_size, larger.fingerprint, data.vocab_size] == [10_004, "cd" * 32, 10_000]
    assert torch.equal(larger.batch(0, batch_size=5)[0], data.batch(0, batch_size=5)[0])
    with pytest.raises(ValueError, match="vocab_size must be above the data's 10000, got 10000"):
        data.in_vocabulary(10_000, "cd" * 32)


def test_without_weights_an_epoch_holds_every_window_once() -> None:
    mixed = MixedDataset([numbered(n, 1000 * i) for i, n in enumerate((5, 13, 2, 29))])
    seen = torch.cat([mixed.batch(k, batch_size=7, seed=3)[0] for k in range(7)]).flatten().tolist()
    assert sorted(seen) == sorted(int(x) for x, _ in (mixed[i] for i in range(len(mixed))))


def test_y_follows_x_and_windows_by_number_are_those_of_the_sources() -> None:
    mixed = MixedDataset([numbered(5, 0), numbered(3, 100, shuffle=False)], [1, 3])
    x, y = mixed.batch(0, batch_size=50)
    assert torch.equal(x + 1, y)
    assert [int(mixed[i][0]) for i in (0, 4, 5, -1)] == [0, 4, 100, 102]
    with pytest.raises(IndexError, match="window 8 of 8"):
        mixed[8]


def test_windows_of_documents_and_of_a_stream_mix() -> None:
    chats = TokenDataset.from_tokens([1, 9, 2, 3, 9], vocab_size=10, block_size=3, mode="documents", eot_id=9)
    books = TokenDataset.from_tokens([5] * 30, vocab_size=10, block_size=3, eot_id=9)
    mixed = MixedDataset([chats, books])
    assert mixed.mode == "mixed"
    assert mixed.targets_per_window == pytest.approx((2 * 1.5 + 9 * 3) / 11)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"vocab_size": 11}, "vocab_size of source 2 is 11, of source 1 10; sources of one mixture must agree"),
        ({"block_size": 2}, "block_size of source 2 is 2, of source 1 1;"),
        ({"fingerprint": "ab" * 16}, "tokenizer fingerprint ababab.. of source 2 is not cdcdcd.., that of source 1;"),
    ],
)
def test_sources_that_do_not_go_together_are_refused_by_name(other: dict[str, object], message: str) -> None:
    options = {"vocab_size": 10, "block_size": 1, "fingerprint": "cd" * 32}
    one = TokenDataset.from_tokens([1, 2, 3], **options)  # type: ignore[arg-type]
    two = TokenDataset.from_tokens([1, 2, 3], **{**options, **other})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        MixedDataset([one, two])


def test_a_weight_for_each_source_is_needed() -> None:
    with pytest.raises(ValueError, match=r"weights must be one for each source \(1\), got 2"):
        MixedDataset([numbered(3, 0)], [1, 2])


def trainer(tmp_path: Path, run: Path, steps: int) -> Trainer:
    """A run over two folders."""
    paths = [tmp_path / "a", tmp_path / "b"]
    train, val = (
        MixedDataset([TokenDataset(path, split, block_size=4) for path in paths], [0.7, 0.3])
        for split in ("train", "val")
    )
    torch.manual_seed(0)
    config = TrainConfig(max_steps=steps, batch_size=3, eval_every=3, save_every=2, learning_rate=1e-2, warmup_steps=0,
                         schedule="constant", threads=1, device="cpu")  # fmt: skip
    return Trainer(GPT(SHAPE), train, val, config, folder=run)


def test_a_resumed_run_over_a_mixture_is_the_undisturbed_one(tmp_path: Path) -> None:
    folder(tmp_path / "a", 300), folder(tmp_path / "b", 120, 5)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    trainer(tmp_path, whole, 9).fit()
    trainer(tmp_path, parts, 4).fit()
    for last in (5, 9):
        Trainer.resume(parts, max_steps=last).fit()
    names = ("step-0000009/model.safetensors", "step-0000009/optimizer.safetensors")
    assert [(whole / name).read_bytes() == (parts / name).read_bytes() for name in names] == [True, True]


def test_other_weights_and_another_source_are_refused_by_name(tmp_path: Path) -> None:
    folder(tmp_path / "a", 300), folder(tmp_path / "b", 120, 5), folder(tmp_path / "c", 120, 6)
    run = tmp_path / "run"
    trainer(tmp_path, run, 2).fit()
    a, b, c = (TokenDataset(tmp_path / name, "train", block_size=4) for name in "abc")
    with pytest.raises(ValueError, match=r"train weights: \['7/10', '3/10'\] -> \['1/2', '1/2'\]"):
        Trainer.resume(run, train=MixedDataset([a, b], [1, 1]))
    with pytest.raises(ValueError, match=f"train {tmp_path / 'b'} manifest_sha256: "):
        Trainer.resume(run, train=MixedDataset([a, c], [0.7, 0.3]))
    with pytest.raises(ValueError, match="train data: 378 tokens in 2 s.* -> 270 tokens"):
        Trainer.resume(run, train=a)
    with pytest.raises(ValueError, match="train sources: 378 tokens in 2 s"):
        Trainer.resume(run, train=MixedDataset([a, b, c]))
