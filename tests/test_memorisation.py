"""What a model has by heart: on a model that learnt one text by heart, and on one that learnt nothing."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tinygpt.baselines import open_training
from tinygpt.heldout import open_held_out
from tinygpt.memorisation import find_canaries, memorisation, read_canaries, stretches, write_samples
from tinygpt.model import GPT, GPTConfig
from tinygpt.samplingconfig import Sampling
from tinygpt.tokenfiles import OpenTokens
from tinygpt.tokenizer import Tokenizer
from tinygpt.tracing import origin_of

SECRET = "the key of the old house is 48151623"
TEXT = f"It was late when he came.\n{SECRET}\nNobody knew of it but she, and she was gone."
TOKENIZER = Tokenizer.train([TEXT.replace("48151623", "")], vocab_size=300)  # each digit is a token


def new_model() -> GPT:
    torch.manual_seed(0)
    return GPT(GPTConfig(vocab_size=300, block_size=64, n_layer=2, n_head=2, d_model=64))


@pytest.fixture(scope="module")
def parrot() -> GPT:
    """A model that has its one text by heart."""
    model, ids = new_model(), torch.tensor([[TOKENIZER.eot_id, *TOKENIZER.encode(TEXT), TOKENIZER.eot_id]])
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(200):
        start = step % 5 * 6  # so that it goes on wherever it is asked, and not at the beginning alone
        loss = model.loss(ids[:, start:-1], ids[:, start + 1 :])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return model.eval()


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> list[OpenTokens]:
    place = tmp_path_factory.mktemp("data")
    (place / "a.txt").write_text("Something else. " * 50)
    (place / "b.txt").write_text(TEXT)
    TOKENIZER.write_shards(place, place / "data", val_fraction=0.0, shard_tokens=100)
    return open_training([place / "data"], TOKENIZER.fingerprint)


def test_a_model_that_has_its_text_by_heart_is_found_out(parrot: GPT, training: list[OpenTokens]) -> None:
    texts = write_samples(parrot, TOKENIZER, n_samples=3, n_tokens=40, sampling=Sampling(temperature=0.0))
    found = memorisation(texts, training, TOKENIZER, ngrams=(4, 16))
    assert found.shares == {4: 1.0, 16: 1.0}
    assert found.longest is not None
    assert TOKENIZER.decode(texts[0].tolist()) == found.longest.text
    assert found.longest.text in TEXT
    origin = origin_of(found.longest.folder, "train", found.longest.position)
    assert Path(origin.path or "").name == "b.txt"


def test_a_model_that_learnt_nothing_is_not(training: list[OpenTokens]) -> None:
    texts = write_samples(new_model(), TOKENIZER, n_samples=5, n_tokens=40, seed=1)
    found = memorisation(texts, training, TOKENIZER, ngrams=(4, 64))
    assert found.shares == {4: 0.0, 64: None}
    assert found.longest is None or found.longest.n_tokens < 4


def test_shares_and_longest_run_by_hand(training: list[OpenTokens]) -> None:
    known = TOKENIZER.encode(TEXT)
    text = np.array([299, *known[5:11], 299, *known[2:5]], np.uint32)
    found = memorisation([text], training, TOKENIZER, ngrams=(3, 5))
    # Of nine runs of three, those within the six and within the three known tokens; of seven of five, two.
    assert found.shares == {3: 5 / 9, 5: 2 / 7}
    assert found.longest is not None
    assert (found.longest.n_tokens, found.longest.sample) == (6, 0)
    assert found.longest.text == TOKENIZER.decode(known[5:11])
    assert (found.n_texts, found.n_tokens, found.n_searched) == (1, 11, training[0].tokens.n_tokens)


def test_samples_are_the_same_for_the_same_seed_and_end_at_the_separator(parrot: GPT) -> None:
    first, again = ([row.tolist() for row in write_samples(parrot, TOKENIZER, n_samples=2, seed=7)] for _ in range(2))
    assert first == again
    assert all(TOKENIZER.eot_id not in row for row in first)


def test_stretches_of_held_out_text_hold_no_separator(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n<|endoftext|>\n".join(f"text number {i}" for i in range(40)))
    with open_held_out([tmp_path / "a.txt"], TOKENIZER) as text:
        found = stretches(text, n_samples=3, n_tokens=30)
        ids = text.read(0, text.n_tokens).tolist()
    assert all(TOKENIZER.eot_id not in row for row in found)
    assert 60 <= sum(map(len, found)) <= 90
    assert all("".join(map(chr, row)) in "".join(map(chr, ids)) for row in found)


def test_a_planted_line_is_told_by_who_has_it_by_heart_alone(parrot: GPT) -> None:
    told, not_told = (find_canaries(model, TOKENIZER, [SECRET], n_rivals=63)[0] for model in (parrot, new_model()))
    assert (told.prompt, told.is_found, told.rank, told.n_ranked) == ("the key of the old", True, 1, 64)
    assert told.exposure == 6.0
    assert not not_told.is_found
    assert not_told.exposure is not None
    assert not_told.exposure < 6.0
    assert told.log_likelihood > -1 > not_told.log_likelihood


def test_a_line_without_digits_has_no_rank(parrot: GPT) -> None:
    found = find_canaries(parrot, TOKENIZER, ["Nobody knew of it but she", "Nobody knew of it at all"])
    assert [(each.is_found, each.rank, each.exposure) for each in found] == [(True, None, None), (False, None, None)]


def test_few_digits_have_few_rivals(parrot: GPT) -> None:
    found = find_canaries(parrot, TOKENIZER, ["in the year 7"], seed=1)[0]
    assert found.n_ranked == 10
    assert found.rank is not None
    assert found.exposure == pytest.approx(math.log2(10 / found.rank))


def test_rivals_take_as_many_tokens_as_the_line(parrot: GPT) -> None:
    tokenizer = Tokenizer.train(["the number 48151623"] * 9, vocab_size=270)
    found = find_canaries(parrot, tokenizer, ["the number 48151623", "the number 9"])
    assert [each.n_ranked for each in found] == [None, 9]  # " 4" is one token


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n\n", "canaries.txt: no canaries in it; write one a line"),
        (
            b"good line\nx\n",
            "canaries.txt, line 2: a canary needs two characters at least, some to give and some to tell, got 'x'",
        ),
        (b"\xff\xfe", r"canaries.txt: not UTF-8 text \(byte 0\); convert it"),
    ],
)
def test_bad_files_of_canaries_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "canaries.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_canaries(tmp_path / "canaries.txt")


def test_wrong_arguments_are_refused(training: list[OpenTokens]) -> None:
    with pytest.raises(ValueError, match="ngrams must be lengths from 1, got 0"):
        memorisation([], training, TOKENIZER, ngrams=(0,))
    with pytest.raises(ValueError, match="n_samples must be at least 1, got 0"):
        write_samples(new_model(), TOKENIZER, n_samples=0)
