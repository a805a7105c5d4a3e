"""The figures of documents: held against sums by hand, one forward pass a token."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tinygpt.baselines import learn_ngrams, measure_baselines, open_training
from tinygpt.checkpoint import Checkpoint
from tinygpt.dataset import TokenDataset
from tinygpt.evaluation import DocumentsEvaluation, Evaluation, Sums, evaluate, evaluate_documents, scored_texts
from tinygpt.heldout import open_held_out
from tinygpt.kneserney import KneserNey
from tinygpt.librarytokenizers import HuggingFaceTokenizer
from tinygpt.model import GPT, GPTConfig
from tinygpt.tokenizer import Tokenizer

TEXTS = ["the cat sat on the mat", "", "a dög sat on a log, and then it slept", "so", "what of it?"]
TOKENIZER = Tokenizer.train([" ".join(TEXTS)] * 3, vocab_size=290)
EOT = TOKENIZER.special_tokens["<|endoftext|>"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("text")
    for i, text in enumerate(TEXTS):
        (place / f"{i}.txt").write_text(text, encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def model() -> GPT:
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=TOKENIZER.vocab_size, block_size=8, n_layer=1, n_head=2, d_model=32))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5)
    return model


def cost(model: GPT, before: list[int], token: int) -> float:
    with torch.no_grad():
        return float(-model.eval()(torch.tensor([before]))[0, -1].log_softmax(-1)[token])


def documents() -> list[list[int]]:
    return [[*TOKENIZER.encode(text), EOT] for text in TEXTS if text]


@pytest.mark.parametrize("count_separators", [True, False])
def test_documents_apart_are_each_judged_after_a_separator(folder: Path, model: GPT, count_separators: bool) -> None:
    with open_held_out([folder], TOKENIZER) as text:
        found = evaluate_documents(model, text, stride=1, apart=True, count_separators=count_separators)
    for i, document in enumerate(documents()):
        scored = document if count_separators else document[:-1]
        row = [EOT, *document]
        wanted = sum(cost(model, row[max(0, j - 7) : j + 1], token) for j, token in enumerate(scored))
        assert found.nats[i] == pytest.approx(wanted, rel=1e-5)
        assert found.n_tokens[i] == len(scored)
        text_of = TOKENIZER.decode(document[:-1])
        assert (found.n_bytes[i], found.n_characters[i]) == (len(text_of.encode()), len(text_of))


def test_documents_in_a_row_have_the_loss_of_the_trainer(folder: Path, model: GPT, tmp_path: Path) -> None:
    TOKENIZER.write_shards(folder, tmp_path / "data", val_fraction=0.0, shard_tokens=20)
    n_tokens = sum(map(len, documents()))
    data = TokenDataset(tmp_path / "data", block_size=8)
    with open_held_out([tmp_path / "data"], TOKENIZER, split="train", max_tokens=1 + len(data) * 8) as text:
        sums = evaluate_documents(model, text)
    figures = DocumentsEvaluation.of("all", sums)
    wanted = evaluate(model, data, batches=None, token_lengths=TOKENIZER.token_lengths())
    assert figures is not None
    assert figures.figures.loss == pytest.approx(wanted.loss, rel=1e-6)
    assert figures.figures.bits_per_byte == pytest.approx(wanted.bits_per_byte, rel=1e-6)
    assert (figures.figures.n_tokens, len(data)) == (wanted.n_tokens, (n_tokens - 1) // 8)


def test_more_context_costs_no_token_twice(folder: Path, model: GPT) -> None:
    with open_held_out([folder], TOKENIZER) as text:
        counts = {
            stride: evaluate_documents(model, text, context=6, stride=stride).n_tokens.tolist() for stride in (1, 4, 6)
        }
    assert counts[1] == counts[4] == counts[6]
    assert sum(counts[1]) == sum(map(len, documents())) - 1


def test_files_add_up_to_the_whole(folder: Path, model: GPT) -> None:
    with open_held_out([folder], TOKENIZER, by="file") as text:
        sums = evaluate_documents(model, text)
        assert text.groups is not None
        rows = [DocumentsEvaluation.of(name, sums, text.groups == i) for i, name in enumerate(text.names)]
    whole = DocumentsEvaluation.of("all", sums)
    assert whole is not None
    assert whole.n_documents == 4
    assert whole.loss_interval is not None
    kept = [row for row in rows if row is not None]
    total = sum(row.figures.loss * row.figures.n_tokens for row in kept)
    assert whole.figures.loss * whole.figures.n_tokens == pytest.approx(total)
    assert [row.loss_interval for row in kept] == [None] * 4  # one document each


def test_figures_of_sums_by_hand() -> None:
    ones = np.array([1, 1])
    sums = Sums(
        nats=np.array([1.0, 3.0]), hits=np.array([1, 0]), n_tokens=2 * ones, n_bytes=4 * ones, n_characters=ones
    )
    found = DocumentsEvaluation.of("all", sums)
    assert found is not None
    assert found.figures == Evaluation.of(4.0, n_tokens=4, n_bytes=8, n_characters=2)
    assert (found.figures.loss, found.figures.perplexity) == (1.0, math.e)
    assert (found.figures.bits_per_byte, found.figures.bits_per_character) == (0.5 / math.log(2), 2 / math.log(2))
    assert found.accuracy == 0.25
    assert DocumentsEvaluation.of("none", sums, np.array([False, False])) is None


def test_tokenizers_that_do_not_say_lengths_are_asked_for_the_text(folder: Path, model: GPT, tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path)
    library = HuggingFaceTokenizer(tmp_path / "tokenizer.json")
    with open_held_out([folder], TOKENIZER) as text, open_held_out([folder], library) as same:
        found = [evaluate_documents(model, each, apart=True) for each in (text, same)]
    assert [each.n_bytes.tolist() for each in found] == [[len(text.encode()) for text in TEXTS if text]] * 2
    assert [each.n_characters.tolist() for each in found] == [[len(text) for text in TEXTS if text]] * 2
    assert found[0].nats == pytest.approx(found[1].nats)


def test_others_are_measured_on_the_same_bytes_and_tokens(folder: Path, model: GPT, tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    import zlib

    with open_held_out([folder], TOKENIZER, by="file") as text:
        sums = evaluate_documents(model, text, apart=True)
        ngram = KneserNey([1, 2, 3], vocab_size=TOKENIZER.vocab_size, order=3)
        found = measure_baselines(text, sums, ngram, apart=True)
        assert b"".join(scored_texts(text, apart=True, count_separators=False)) == "".join(TEXTS).encode()
        assert (
            b"".join(scored_texts(text, apart=False, count_separators=False)) == "".join(TEXTS).encode()[len("the") :]
        )
    packed = b"".join(text.encode() + b"\xff" for text in TEXTS if text)
    n_bytes = len("".join(TEXTS).encode())
    assert found[0].zlib == 8 * len(zlib.compress(packed, 9)) / n_bytes
    assert found[0].zstd == 8 * len(zstandard.compress(packed, 19)) / n_bytes
    row = [token for document in documents() for token in document]
    assert found[0].ngram == pytest.approx(ngram.nats(row).sum() / math.log(2) / n_bytes)
    assert found[0].ngram_loss == pytest.approx(ngram.nats(row).mean())
    assert len(found) == 5


@pytest.mark.parametrize("max_tokens", [10, 2500, 10**9])
def test_ngrams_are_learnt_from_all_of_the_text_within_the_limit(max_tokens: int, tmp_path: Path) -> None:
    texts = [f"{'abc'[i // 1000]} {i}" for i in range(3000)]
    TOKENIZER.write_shards(texts, tmp_path / "data", val_fraction=0.0, shard_tokens=5000)
    training = open_training([tmp_path / "data"], TOKENIZER.fingerprint)
    found = learn_ngrams(training, max_tokens=max_tokens, order=1)
    assert found.n_tokens == min(max_tokens, training[0].tokens.n_tokens)
    nats = found.nats([TOKENIZER.encode(letter)[0] for letter in "bc"])
    assert max_tokens == 10 or max(nats) < math.log(TOKENIZER.vocab_size)


def test_training_text_of_another_tokenizer_is_refused(tmp_path: Path) -> None:
    TOKENIZER.write_shards(TEXTS, tmp_path / "data", val_fraction=0.0)
    with pytest.raises(
        ValueError, match="its tokenizer has the fingerprint .*, the checkpoint's has 00000000; name the"
    ):
        open_training([tmp_path / "data"], "0" * 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context": 9}, "context must be at most the model's block_size, 8, got 9"),
        ({"stride": 9}, "stride must be from 1 to the context, 8, got 9"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_refused(folder: Path, model: GPT, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message), open_held_out([folder], TOKENIZER) as text:
        evaluate_documents(model, text, **options)  # type: ignore[arg-type]


def test_a_text_of_one_token_has_nothing_to_score(tmp_path: Path, model: GPT) -> None:
    (tmp_path / "a.txt").write_text("so")
    with (
        open_held_out([tmp_path / "a.txt"], TOKENIZER, max_tokens=1) as text,
        pytest.raises(ValueError, match="no token in it can be scored, it holds 1 token; give more text"),
    ):
        evaluate_documents(model, text)


def test_transformers_gives_the_same_bits_per_byte(folder: Path, model: GPT, tmp_path: Path) -> None:
    """The folder as transformers opens it, and every document by itself."""
    transformers = pytest.importorskip("transformers")
    Checkpoint(model, TOKENIZER).save(tmp_path / "model")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    nats = n_bytes = 0.0
    for text in TEXTS:
        ids = [tokenizer.eos_token_id, *tokenizer(text)["input_ids"]] if text else []
        for j in range(1, len(ids)):
            with torch.no_grad():
                logits = theirs(torch.tensor([ids[max(0, j - 8) : j]])).logits[0, -1]
            nats -= logits.log_softmax(-1)[ids[j]].item()
        n_bytes += len(text.encode())
    with open_held_out([folder], TOKENIZER) as held_out:
        found = DocumentsEvaluation.of(
            "all", evaluate_documents(model, held_out, stride=1, apart=True, count_separators=False)
        )
    assert found is not None
    assert found.figures.bits_per_byte == pytest.approx(nats / math.log(2) / n_bytes, rel=1e-5)
