"""Windows that overlap, against the guide that others follow and against plain loops."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tinygpt.checkpoint import Checkpoint
from tinygpt.dataset import TokenDataset
from tinygpt.evaluation import evaluate
from tinygpt.model import GPT, GPTConfig
from tinygpt.slidingwindow import Window, score_windows, window_edges

VOCAB, BLOCK = 61, 16


def small_model(seed: int = 0) -> GPT:
    torch.manual_seed(seed)
    config = GPTConfig(vocab_size=VOCAB, block_size=BLOCK, n_layer=2, n_head=2, d_model=32, dropout=0.3)
    model = GPT(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # far from uniform, so that context matters
    return model


def tokens_of(n: int) -> NDArray[np.int64]:
    return np.random.default_rng(1).integers(0, VOCAB, n)


def scored(model: GPT, row: NDArray[np.int64], context: int, stride: int) -> NDArray[np.float64]:
    edges = window_edges(len(row), context=context, stride=stride)
    windows = (Window(ids=row[a : b + 1], n_scored=n, start=a) for a, b, n in edges)
    return np.concatenate([nats for _, (nats, _) in score_windows(model, windows, batch_size=3)])


@given(st.integers(0, 60), st.integers(1, 20), st.data())
def test_every_token_but_the_first_is_scored_once(n: int, context: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, context))
    seen: list[int] = []
    for start, end, n_scored in window_edges(n, context=context, stride=stride):
        assert end - start <= context
        places = range(end - n_scored + 1, end + 1)
        assert all(place - start >= min(place, context - stride + 1) for place in places)
        seen += places
    assert seen == list(range(1, n))


@pytest.mark.parametrize("stride", [1, 5, 16])
def test_scores_are_those_of_a_plain_loop(stride: int) -> None:
    model, row = small_model().eval(), tokens_of(71)
    found = scored(model, row, BLOCK, stride)
    for place in range(1, len(row)):
        window = 0 if place <= BLOCK else -(-(place - BLOCK) // stride)  # the first that reaches it
        before = torch.from_numpy(row[window * stride : place])[None]
        with torch.no_grad():
            wanted = -model(before)[0, -1].log_softmax(-1)[row[place]].item()
        assert found[place - 1] == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize(("max_length", "stride"), [(16, 4), (16, 15), (9, 1)])
def test_figures_are_those_of_the_guide_of_transformers(max_length: int, stride: int, tmp_path: Path) -> None:
    """The loop of "Perplexity of fixed-length models", with its own labels, on the folder as transformers opens it."""
    transformers = pytest.importorskip("transformers")
    model, row = small_model(), tokens_of(90)
    Checkpoint(model).save(tmp_path / "model")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    ids, total, n, before = torch.from_numpy(row)[None], 0.0, 0, 0
    for begin in range(0, len(row), stride):
        end = min(begin + max_length, len(row))
        labels = ids[:, begin:end].clone()
        labels[:, : -(end - before)] = -100
        n_labels = int((labels[:, 1:] != -100).sum())
        with torch.no_grad():
            total += theirs(ids[:, begin:end], labels=labels).loss.item() * n_labels
        n, before = n + n_labels, end
        if end == len(row):
            break
    found = scored(model, row, max_length - 1, stride)
    assert (len(found), found.mean()) == (n, pytest.approx(total / n, rel=1e-5))


def test_windows_side_by_side_give_the_loss_of_the_trainer() -> None:
    model = small_model()
    data = TokenDataset.from_tokens(tokens_of(5 * BLOCK + 1), vocab_size=VOCAB, block_size=BLOCK)
    found = scored(model, tokens_of(5 * BLOCK + 1), BLOCK, BLOCK)
    assert found.mean() == pytest.approx(evaluate(model, data, batches=None).loss, rel=1e-6)


def test_windows_of_all_lengths_keep_their_order_and_their_scores() -> None:
    model, row = small_model(), tokens_of(200)
    windows = [
        Window(ids=row[i : i + 2 + i * 7 % BLOCK], n_scored=i % 2 + 1 if i * 7 % BLOCK else 1) for i in range(50)
    ]
    together = list(score_windows(model, windows, batch_size=4))
    assert [window for window, _ in together] == windows
    for window, (nats, hits) in together:
        ((_, (alone, alone_hits)),) = score_windows(model, [window], batch_size=1)
        assert nats == pytest.approx(alone, abs=1e-4)
        assert (hits == alone_hits).all()
        assert len(nats) == window.n_scored


def test_hits_are_the_likeliest_tokens_and_the_mode_is_given_back() -> None:
    model, row = small_model().train(), tokens_of(BLOCK + 1)
    ((_, (_, hits)),) = score_windows(model, [Window(ids=row, n_scored=BLOCK)])
    assert model.training
    with torch.no_grad():
        wanted = model.eval()(torch.from_numpy(row[:-1])[None])[0].argmax(-1).numpy() == row[1:]
    assert (hits == wanted).all()


def test_a_wide_vocabulary_is_scored_in_fewer_windows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from tinygpt import slidingwindow

    model, row = small_model(), tokens_of(8 * BLOCK + 1)
    whole = scored(model, row, BLOCK, BLOCK)
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    monkeypatch.setattr(slidingwindow, "_LOGITS_BYTES", 2 * 4 * BLOCK * VOCAB)
    assert scored(model, row, BLOCK, BLOCK) == pytest.approx(whole, abs=1e-5)
    assert max(sizes) == 2


@pytest.mark.parametrize(
    ("context", "stride", "message"),
    [
        (0, 1, "context must be at least 1, got 0"),
        (4, 0, "stride must be from 1 to the context, 4, got 0"),
        (4, 5, "stride must be from 1 to the context, 4, got 5"),
    ],
)
def test_wrong_windows_are_refused(context: int, stride: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(window_edges(9, context=context, stride=stride))


def test_uniform_model_has_the_logarithm_of_its_vocabulary() -> None:
    model = small_model()
    with torch.no_grad():
        model.token_embedding.weight.zero_()
    assert scored(model, tokens_of(40), BLOCK, 3) == pytest.approx(math.log(VOCAB))
