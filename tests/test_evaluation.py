import math
from typing import Any

import numpy as np
import pytest
import torch
from tinygpt.dataset import TokenDataset
from tinygpt.evaluation import evaluate
from torch import Tensor, nn


class Bigrams(nn.Module):
    """Predicts each token from the one before; its loss is a sum that anyone can do by hand."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(vocab_size, vocab_size, generator=torch.Generator().manual_seed(0)))
        self.seen: list[tuple[Tensor, bool, bool]] = []

    def loss(self, x: Tensor, y: Tensor, scale: float | None = None) -> Tensor:
        self.seen.append((x, self.training, torch.is_grad_enabled()))
        logits = self.table[x.flatten()]  # (B * T, V)
        return nn.functional.cross_entropy(logits, y.flatten(), ignore_index=-100, reduction="sum") * (scale or 1.0)


def bigrams() -> Any:
    """In the place of a GPT: `evaluate` asks a model for its loss, mode and parameters only."""
    return Bigrams(9)


def windows_of(n: int, **options: Any) -> TokenDataset:
    """Tokens 0 to 8 in turn, n windows of 4."""
    return TokenDataset.from_tokens(np.arange(4 * n + 1) % 9, vocab_size=9, block_size=4, **options)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 50])
def test_all_windows_give_the_mean_over_all_targets_whatever_the_batch(batch_size: int) -> None:
    model, data = bigrams(), windows_of(7)
    ids = torch.arange(29) % 9
    wanted = nn.functional.cross_entropy(model.table[ids[:-1]], ids[1:]).item()
    found = evaluate(model, data, batches=None, batch_size=batch_size)
    assert (found.loss, found.perplexity) == pytest.approx((wanted, math.exp(wanted)), rel=1e-6)
    assert (found.n_tokens, found.bits_per_byte, found.bits_per_character) == (28, None, None)


@pytest.mark.parametrize("at_once", [1, 2, 99])
def test_parts_of_a_batch_give_what_the_whole_one_gives(at_once: int) -> None:
    model, data = bigrams(), windows_of(8)
    whole = evaluate(model, data, batch_size=5)
    model.seen.clear()
    assert evaluate(model, data, batch_size=5, at_once=at_once).loss == pytest.approx(whole.loss, rel=1e-6)
    assert max(len(x) for x, _, _ in model.seen) == min(at_once, 5)


def test_bits_are_over_the_bytes_and_characters_of_the_targets() -> None:
    model, data = bigrams(), windows_of(9)  # 36 targets, four of each id
    n_bytes, n_characters = np.arange(9, dtype=np.uint32), np.array([0, 1, 1, 1, 1, 1, 1, 1, 1], np.uint32)
    found = evaluate(model, data, batches=None, token_lengths=(n_bytes, n_characters))
    bits = found.loss * 36 / math.log(2)
    assert (found.bits_per_byte, found.bits_per_character) == pytest.approx((bits / 144, bits / 32))


def test_the_same_windows_are_taken_each_time_and_none_twice() -> None:
    model, data = bigrams(), TokenDataset.from_tokens(range(401), vocab_size=500, block_size=4)
    model.table = nn.Parameter(torch.zeros(500, 500))
    first = evaluate(model, data, batches=3, batch_size=8)
    once = torch.cat([x for x, _, _ in model.seen])[:, 0].tolist()
    assert evaluate(model, data, batches=3, batch_size=8) == first
    again = torch.cat([x for x, _, _ in model.seen])[24:, 0].tolist()
    assert (once, len(set(once)), first.n_tokens) == (again, 24, 96)


def test_more_batches_than_there_are_take_each_window_once() -> None:
    data = windows_of(7)
    assert evaluate(bigrams(), data, batches=20).n_tokens == 28


def test_padding_is_not_counted() -> None:
    tokens = [0, 1, 8, 2, 8]
    data = TokenDataset.from_tokens(tokens, vocab_size=9, block_size=4, mode="documents", eot_id=8)
    model, lengths = bigrams(), (np.ones(9), np.ones(9))
    found = evaluate(model, data, token_lengths=lengths)
    table = model.table.log_softmax(dim=1)
    wanted = -(table[0, 1] + table[1, 8] + table[2, 8]).item() / 3
    assert (found.loss, found.bits_per_byte, found.n_tokens) == pytest.approx((wanted, wanted / math.log(2), 3))


@pytest.mark.parametrize("training", [True, False])
def test_model_is_judged_in_evaluation_mode_and_given_back_as_it_was(training: bool) -> None:
    model = bigrams().train(training)
    evaluate(model, windows_of(2))
    assert ([seen[1:] for seen in model.seen], model.training) == ([(False, False)], training)


def test_absurd_loss_has_infinite_perplexity() -> None:
    model = bigrams()
    model.table.data = -1e6 * torch.eye(9).roll(1, dims=1)
    assert evaluate(model, windows_of(2)).perplexity == math.inf


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batches": 0}, "batches must be at least 1, or None for every window, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"token_lengths": (np.ones(8), np.ones(8))}, "token_lengths are of 8 ids, but the data have 9"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(bigrams(), windows_of(2), **options)
