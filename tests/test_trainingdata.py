"""What --data and --init-from name: every kind of file, mixtures, chats and models, through the command."""

import json
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shard_writer import write_llm_c
from test_commands import SHAPE, TEXT
from tinygpt import __main__, prepare, train
from tinygpt.chats import Chats
from tinygpt.chattemplate import CHAT_TOKENS
from tinygpt.checkpoint import Checkpoint
from tinygpt.dataset import TokenDataset
from tinygpt.finetuning import grown, with_context
from tinygpt.manifest import Manifest
from tinygpt.model import GPT, GPTConfig
from tinygpt.tokenizer import Tokenizer
from tinygpt.trainingdata import Source

torch.set_num_threads(1)
IDS = [(i * 31 + i // 7) % 290 for i in range(3000)]
CHATS = [{"prompt": f"what is {i} + 1?", "completion": f"it is {i + 1}."} for i in range(200)]
OPTIONS = f"{SHAPE} --max-steps 3 --eval-every 2 --save-every 2 --warmup-steps 0"


def run(line: str) -> int:
    return __main__.main(line.split())


def write_chats_file(path: Path, records: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data of every kind, a run of ours, and bare tokens in every kind of file."""
    folder = tmp_path_factory.mktemp("stage")
    (folder / "cats.txt").write_text(TEXT[:20_000])
    (folder / "dogs.txt").write_text(TEXT[40_000:50_000].replace("cat", "dog"))
    write_chats_file(folder / "chats.jsonl", CHATS)
    write_chats_file(folder / "texts.jsonl", [{"title": "a"}])
    write_chats_file(folder / "broken.jsonl", [*CHATS[:3], {"prompt": "a"}])
    np.save(folder / "ids.npy", np.array(IDS, np.uint16))
    torch.save(torch.tensor(IDS), folder / "ids.pt")
    torch.save(torch.ones(3, dtype=torch.bfloat16), folder / "halves.pt")
    np.array(IDS, "<u2").tofile(folder / "raw.bin")
    write_llm_c(folder / "llm.bin", IDS)
    assert train.main(f"--data {folder / 'cats.txt'} --out {folder / 'base'} {OPTIONS}".split()) == 0
    assert prepare.main(f"{folder / 'cats.txt'} --out {folder / 'other'} --vocab-size 280".split()) == 0
    return folder


@pytest.fixture
def here(stage: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(stage)
    return stage


@pytest.mark.parametrize("name", ["ids.npy", "ids.pt", "llm.bin", "raw.bin --token-dtype uint16"])
def test_every_kind_of_file_trains_the_same(here: Path, tmp_path: Path, name: str) -> None:
    file = name.split()[0]
    assert run(f"train --data {name} --val-data {file} --out {tmp_path / 'run'} {OPTIONS}") == 0
    assert run(f"train --resume {tmp_path / 'run'} --max-steps 4") == 0
    data = TokenDataset.from_tokens(IDS, vocab_size=300, block_size=16)
    facts = json.loads((tmp_path / "run" / "last" / "trainer.json").read_text())["data"]
    assert [facts[split]["n_windows"] for split in ("train", "val")] == [len(data)] * 2


def test_raw_tokens_for_validation_alone_train_and_resume(here: Path, tmp_path: Path) -> None:
    line = f"train --data base/data --val-data raw.bin --token-dtype uint16 --out {tmp_path / 'run'}"
    assert run(f"{line} {OPTIONS.replace('--vocab-size 300', '')}") == 0
    assert run(f"train --resume {tmp_path / 'run'} --max-steps 4") == 0
    facts = json.loads((tmp_path / "run" / "last" / "trainer.json").read_text())["data"]["val"]
    assert (facts["n_tokens"], facts["vocab_size"]) == (3000, 300)


def test_sources_with_weights_are_mixed_and_resume(here: Path, tmp_path: Path) -> None:
    words = "--data cats.txt:0.7 --data dogs.txt:0.3"
    for name, steps in (("whole", (6,)), ("parts", (2, 4, 6))):
        for last in steps:
            line = f"train {words} --out {tmp_path / name} {SHAPE} --warmup-steps 0 --schedule constant --eval-every 2"
            assert run(f"{line} --max-steps {last} --resume auto") == 0
    facts = json.loads((tmp_path / "whole" / "last" / "trainer.json").read_text())["data"]
    assert [facts[split]["weights"] for split in ("train", "val")] == [["7/10", "3/10"]] * 2
    weights = [(tmp_path / name / "last" / "model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert weights[0] == weights[1]
    manifests = [Manifest.load(tmp_path / "whole" / f"data-{i}") for i in (1, 2)]
    assert manifests[0].fingerprint == manifests[1].fingerprint


def test_other_weights_on_resume_are_refused(here: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(f"train --data ids.npy:1 llm.bin:1 --out {tmp_path / 'run'} {OPTIONS}") == 0
    assert run(f"train --data ids.npy:2 llm.bin:1 --out {tmp_path / 'run'} {OPTIONS} --resume auto") == 2
    assert "train weights: ['1/2', '1/2'] -> ['2/3', '1/3']" in capfd.readouterr().err
    assert run(f"train --data ids.npy:1 ids.pt:1 --out {tmp_path / 'run'} --max-steps 4 --resume auto") == 0


def test_a_run_goes_on_when_the_text_it_was_made_of_is_gone(here: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text(TEXT[:9000])
    assert run(f"train --data {tmp_path / 'notes.txt'} cats.txt --out {tmp_path / 'run'} {OPTIONS}") == 0
    (tmp_path / "notes.txt").unlink()
    assert run(f"train --resume {tmp_path / 'run'} --max-steps 4") == 0


def test_a_path_may_hold_a_colon(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a:0.5").write_text("x")
    assert Source.parse("a:0.5") == Source(path=Path("a:0.5"))
    assert Source.parse("a:0.5:2") == Source(path=Path("a:0.5"), weight=Fraction(2))
    assert Source.parse("b:0.5") == Source(path=Path("b"), weight=Fraction(1, 2))
    assert Source.parse("b:c") == Source(path=Path("b:c"))


def test_text_and_chats_mix_with_one_tokenizer(here: Path, tmp_path: Path) -> None:
    assert run(f"train --data cats.txt:3 chats.jsonl:1 --out {tmp_path / 'run'} {OPTIONS}") == 0
    checkpoint = Checkpoint.load(tmp_path / "run")
    assert checkpoint.tokenizer is not None
    assert set(CHAT_TOKENS) < set(checkpoint.tokenizer.special_tokens)
    facts = json.loads((tmp_path / "run" / "last" / "trainer.json").read_text())["data"]
    assert [source["open"]["mode"] for source in facts["train"]["sources"]] == ["stream", "documents"]


def test_chats_train_with_their_answers_as_targets(
    here: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    samples = "--sample-every 2 --sample-prompt hello"
    for _ in range(2):
        assert run(f"train --data chats.jsonl --out {tmp_path / 'run'} {OPTIONS} {samples} --resume auto") == 0
    shown = capfd.readouterr().out
    assert "1 files, 200 records = 200 used + 0 refused" in shown
    assert "sample after step 2: hello\n" in shown
    assert f"next: tinygpt generate --checkpoint {tmp_path / 'run'} --chat --prompt " in shown
    assert run(f"generate --checkpoint {tmp_path / 'run'} --chat --system brief --prompt hello --max-new-tokens 3") == 0
    assert "hello" not in capfd.readouterr().out
    facts = json.loads((tmp_path / "run" / "last" / "trainer.json").read_text())
    assert facts["data"]["train"]["open"]["mode"] == "documents"
    ends = json.loads((tmp_path / "run" / "last" / "generation_config.json").read_text())["eos_token_id"]
    special = Checkpoint.load(tmp_path / "run").tokenizer.special_tokens  # type: ignore[union-attr]
    assert ends == [special["<|endoftext|>"], special["<|end|>"]]


def test_prepare_counts_every_record(here: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    line = f"prepare broken.jsonl chats.jsonl --out {tmp_path / 'data'} --vocab-size 300 --malformed skip"
    assert [run(line), run(line)] == [0, 0]
    shown = capfd.readouterr().out
    assert "chats      2 files, 204 records = 203 used + 1 refused (first broken.jsonl, line 4: neither" in shown
    assert "prepared already, and nothing has changed" in shown
    assert run(f"show {tmp_path / 'data'} --verify") == 0
    assert "of the tokens, those of the assistant\n" in capfd.readouterr().out


WRONG = {
    "--data ids.npy": "ids.npy does not say its vocab_size; give --vocab-size",
    "--data llm.bin": "llm.bin does not say its vocab_size; give --vocab-size",
    "--data raw.bin --vocab-size 300": "raw.bin: no header of a shard; for raw tokens say their type, as --token-dtype",
    "--data raw.bin --token-dtype float32 --vocab-size 300": "dtype must be one of uint8",
    "--data ids.npy --token-dtype uint16 --vocab-size 300": "--token-dtype is for .bin files without a header",
    "--data ids.npy --vocab-size 100": "token id",
    "--data halves.pt --vocab-size 300": "halves.pt must be integers in one dimension, got torch.bfloat16 of shape (3",
    "--data ids.npy:0.5 llm.bin --vocab-size 300": "--data llm.bin has no weight, but others have",
    "--data ids.npy:0 llm.bin:1 --vocab-size 300": "--data ids.npy: the weight must be above 0, got 0",
    "--data ids.npy nowhere:2 --vocab-size 300": "nowhere: no such file or folder; --data takes",
    "--data base/data other": "vocab_size of other is 280, of base/data 300",
    "--data ids.npy --val-data nowhere.npy --vocab-size 300": "nowhere.npy: no such file or folder; --val-data takes",
    "--data texts.jsonl": "texts.jsonl: line 1 (byte 0): no text under text, content, body",
    "--data broken.jsonl": "broken.jsonl, line 4: neither",
    "--data chats.jsonl --documents line": "--documents is for text, but chats.jsonl holds chats",
    "--data chats.jsonl --tokenizer base/data": "the tokenizer has no <|system|>, <|user|>, <|assistant|>, <|end|>",
    "--data base/data --malformed skip": "--malformed is for text, but base/data is prepared already",
    "--data cats.txt --val-data dogs.txt --val-fraction 0.3": "--val-fraction sets apart a part of --data, but "
    "--val-data dogs.txt takes its place",
    "--data base/data --val-data base/data": "--val-data base/data is in --data, too",
    "--data cats.txt --init-from base --vocab-size 400": "--init-from base: its model has other values (vocab_size: "
    "300 -> 400)",
    "--data cats.txt --init-from nowhere": "nowhere: no such folder",
    "--data cats.txt --init-from base --n-layer 5 --d-ff 7": "--init-from base: its model has other values (n_layer: 1 "
    "-> 5; d_ff: 64 -> 7); leave those flags away",
    "--data other --init-from base": "is not the data's",
    "--data cats.txt --init-from base --tokenizer other": "--tokenizer other: fingerprint",
}


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_source_ends_in_one_clear_line(
    words: str, here: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shape = "" if "--init-from" in words or "--vocab-size" in words else "--n-layer 1 --n-head 2 --d-model 16"
    code = run(f"train {words} --out {tmp_path / 'new'} --block-size 16 --max-steps 1 {shape}")
    shown = [line for line in capfd.readouterr().err.splitlines() if ": warning: " not in line]
    assert (code, len(shown)) == (2, 1), shown
    assert WRONG[words] in shown[0]


FAMILIES: dict[str, dict[str, Any]] = {
    "LlamaConfig": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
                    "num_key_value_heads": 2, "max_position_embeddings": 32},
    "Qwen3Config": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
                    "num_key_value_heads": 4, "head_dim": 8, "max_position_embeddings": 32},
    "GPT2Config": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32, "resid_pdrop": 0.0, "embd_pdrop": 0.0,
                   "attn_pdrop": 0.0},
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_loss_is_that_of_transformers(
    here: Path, tmp_path: Path, family: str, capfd: pytest.CaptureFixture[str]
) -> None:
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, family)(
        vocab_size=300, bos_token_id=None, eos_token_id=None, initializer_range=0.3, **FAMILIES[family]
    )
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(tmp_path / "hf")
    capfd.readouterr()
    size = 32 if family == "GPT2Config" else 24  # rope has no places of its own
    line = f"train --data ids.npy --init-from {tmp_path / 'hf'} --block-size {size} --batch-size 4 --max-steps 1"
    assert run(f"{line} --out {tmp_path / 'run'} --log-every 1 --threads 1 --dtype float32 --compile off --cpu") == 0
    x, y = TokenDataset.from_tokens(IDS, vocab_size=300, block_size=size).batch(0, batch_size=4)
    with torch.no_grad():
        wanted = torch.nn.functional.cross_entropy(model(x).logits.flatten(0, 1), y.flatten())
    first = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert first["loss"] == pytest.approx(float(wanted), abs=2e-5)


def test_fine_tuning_goes_on_from_the_weights_of_a_run(here: Path, tmp_path: Path) -> None:
    base = Checkpoint.load("base")
    line = f"train --data cats.txt dogs.txt --init-from base --block-size 8 --dropout 0.1 --out {tmp_path / 'run'}"
    assert run(f"{line} --batch-size 4 --max-steps 1 --lr 1e-12 --warmup-steps 0 --threads 1 --val-fraction 0.1") == 0
    tuned = Checkpoint.load(tmp_path / "run")
    assert (tuned.model.config.block_size, tuned.model.config.dropout) == (8, 0.1)
    assert tuned.tokenizer == base.tokenizer
    torch.testing.assert_close(dict(tuned.model.state_dict()), dict(base.model.state_dict()), atol=1e-9, rtol=0)
    assert run(f"train --resume {tmp_path / 'run'} --max-steps 2") == 0


@pytest.mark.parametrize("is_prepared", [False, True])
def test_chats_give_a_model_the_special_tokens_that_it_lacks(here: Path, tmp_path: Path, is_prepared: bool) -> None:
    base, data = Checkpoint.load("base"), "chats.jsonl"
    if is_prepared:
        data = str(tmp_path / "data")
        assert run(f"prepare chats.jsonl --tokenizer {base.folder} --add-chat-tokens --out {data}") == 0
    line = f"train --data {data} --init-from base --out {tmp_path / 'run'} --max-steps 1 --lr 1e-12 --warmup-steps 0"
    assert run(f"{line} --batch-size 4 --threads 1") == 0
    tuned = Checkpoint.load(tmp_path / "run")
    assert base.tokenizer is not None
    assert tuned.tokenizer is not None
    assert tuned.tokenizer.vocab_size == tuned.model.config.vocab_size == base.tokenizer.vocab_size + 4
    rows, old = tuned.model.token_embedding.weight, base.model.token_embedding.weight
    torch.testing.assert_close(rows[-4:], old.mean(0).expand(4, -1), atol=1e-6, rtol=0)
    torch.testing.assert_close(rows[:-4], old, atol=1e-9, rtol=0)
    assert run(f"train --resume {tmp_path / 'run'} --max-steps 2") == 0


@pytest.mark.parametrize("words", ["chats.jsonl:0.3 --init-from base", "chats.jsonl:0.3", "grown:0.3", "few.jsonl:0.3"])
def test_what_was_prepared_before_the_vocabulary_grew_mixes_with_chats(here: Path, tmp_path: Path, words: str) -> None:
    write_chats_file(here / "few.jsonl", CHATS[:5])  # nothing for validation, so that this is of base/data alone
    assert run("prepare chats.jsonl --tokenizer base/data --add-chat-tokens --out grown") == 0
    line = f"train --data base/data:0.7 --data {words} --out {tmp_path / 'run'} {OPTIONS}"
    assert run(line) == 0
    tuned = Checkpoint.load(tmp_path / "run")
    assert tuned.tokenizer is not None
    assert tuned.tokenizer == Tokenizer.load("base/data").with_special_tokens(CHAT_TOKENS)
    assert tuned.tokenizer.vocab_size == tuned.model.config.vocab_size == 304
    same = words.split()[0].replace(":0.3", ":3")  # other words for the same, so that the data are opened anew
    assert run(f"train --resume {tmp_path / 'run'} --max-steps 4") == 0
    assert run(f"train --resume {tmp_path / 'run'} --max-steps 5 --data base/data:7 {same}") == 0
    shaped = OPTIONS.replace("--vocab-size 300", "")
    assert run(f"train --data base/data --init-from {tmp_path / 'run'} --out {tmp_path / 'next'} {shaped}") == 0
    assert Checkpoint.load(tmp_path / "next").tokenizer == tuned.tokenizer


def test_a_model_tuned_with_its_tokenizer_named_resumes(here: Path, tmp_path: Path) -> None:
    line = f"train --data chats.jsonl --init-from base --tokenizer base/data --out {tmp_path / 'run'} {OPTIONS}"
    assert [run(line), run(f"{line} --resume auto --max-steps 4")] == [0, 0]
    assert run(f"train --resume {tmp_path / 'run'} --max-steps 5") == 0
    assert run(f"train --config {tmp_path / 'run' / 'config.yaml'} --out {tmp_path / 'again'} --max-steps 1") == 0


def test_a_model_without_a_tokenizer_takes_the_one_that_is_named(
    here: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(here / "base" / "last", tmp_path / "bare")
    for name in ("tokenizer.json", "checksums.json"):
        (tmp_path / "bare" / name).unlink()
    line = f"train --data chats.jsonl --init-from {tmp_path / 'bare'} --out {tmp_path / 'run'} {OPTIONS} --tokenizer"
    assert run(f"{line} base/data") == 0
    assert Checkpoint.load(tmp_path / "run").model.config.vocab_size == 304
    Tokenizer.from_merges([(b"x", bytes([i])) for i in range(100)]).save(tmp_path / "wide")
    assert run(f"{line} {tmp_path / 'wide'} --out {tmp_path / 'other'}") == 2
    assert f"--tokenizer {tmp_path / 'wide'}: 356 ids, but the model in {tmp_path / 'bare'}" in capfd.readouterr().err


def test_a_few_chats_train_without_validation(here: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    few = write_chats_file(tmp_path / "few.jsonl", CHATS[:5])
    assert run(f"train --data {few} --init-from base --out {tmp_path / 'run'} {OPTIONS}") == 0
    assert f"{tmp_path / 'run/data'}: no answers for validation; --val-fraction or --val-d" in capfd.readouterr().out
    assert run(f"train --resume {tmp_path / 'run'} --max-steps 4") == 0
    assert run(f"train --data cats.txt {few} --out {tmp_path / 'both'} {OPTIONS}") == 0
    assert f"{tmp_path / 'both/data-2'}: no answers for validation; left out" in capfd.readouterr().out


def test_a_source_that_is_left_away_on_resume_is_missed(
    here: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(f"train --data cats.txt dogs.txt --out {tmp_path / 'run'} {OPTIONS}") == 0
    assert run(f"train --data cats.txt --out {tmp_path / 'run'} --resume auto --max-steps 4") == 2
    assert f"--data names 1 of the 2 sources that {tmp_path / 'run'} was trained on" in capfd.readouterr().err


def test_growth_uses_padded_rows_and_leaves_what_the_model_says() -> None:
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=64, block_size=8, n_layer=1, n_head=2, d_model=16, tie_embeddings=False)
    model = GPT(config).eval()
    larger = grown(model, n_known=61, n_ids=65).eval()
    x = torch.randint(0, 61, (2, 8))
    torch.testing.assert_close(larger(x)[..., :61], model(x)[..., :61], atol=1e-6, rtol=0)
    assert larger.config.vocab_size == 65
    assert larger.head is not None
    assert torch.equal(larger.head.weight[61:], model.head.weight[:61].mean(0).expand(4, -1))  # type: ignore[union-attr]


@pytest.mark.parametrize("position", ["rope", "sinusoidal", "learned"])
def test_the_context_changes_where_positions_go_on(position: Any) -> None:
    shape: dict[str, Any] = {"vocab_size": 64, "n_layer": 1, "n_head": 2, "d_model": 16, "position": position}
    torch.manual_seed(0)
    model, x = GPT(GPTConfig(**shape, block_size=8)).eval(), torch.randint(0, 64, (1, 8))
    if position == "learned":
        with pytest.raises(ValueError, match="block_size of this model is 8 and cannot become 16: its positions are"):
            with_context(model, block_size=16, dropout=0.0)
        return
    longer = with_context(model, block_size=16, dropout=0.0).eval()
    assert longer(x.repeat(1, 2)).shape == (1, 16, 64)
    assert torch.equal(longer(x), model(x))


def test_sources_without_weights_go_by_size(here: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "short.npy", np.array(IDS[:1000], np.uint16))
    line = f"train --data {tmp_path / 'short.npy'} --data llm.bin --out {tmp_path / 'run'}"
    assert run(f"{line} {OPTIONS} --epochs 1") == 0
    facts = json.loads((tmp_path / "run" / "last" / "trainer.json").read_text())["data"]["train"]
    assert facts["weights"] == ["62/249", "187/249"]
    assert [source["n_windows"] for source in facts["sources"]] == [62, 187]


def test_a_folder_of_chats_is_a_source(here: Path, tmp_path: Path) -> None:
    write_chats_file(tmp_path / "one.jsonl", CHATS[:100])
    write_chats_file(tmp_path / "two.jsonl", CHATS[100:])
    assert len(list(Chats(tmp_path))) == 200
    assert run(f"train --data {tmp_path} --out {tmp_path / 'run'} {OPTIONS}") == 0


def test_chats_beside_text_are_said_to_be_left_out(
    here: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_chats_file(tmp_path / "mixed" / "one.jsonl", CHATS[:1])
    (tmp_path / "mixed" / "README.md").write_text(TEXT[:9000])
    assert run(f"prepare {tmp_path / 'mixed'} --out {tmp_path / 'data'} --vocab-size 300") == 0
    assert run(f"train --data {tmp_path / 'mixed'} --out {tmp_path / 'run'} {OPTIONS}") == 0
    line = "one.jsonl: jsonl in a folder of text; name it, or say --include\n"
    assert capfd.readouterr().out.count(line) == 2


def test_a_file_of_tokens_is_said_to_have_no_validation(
    here: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(f"train --data ids.npy --out {tmp_path / 'run'} {OPTIONS}") == 0
    assert "ids.npy: tokens in a file, with no part for validation; --val-data gives some\n" in capfd.readouterr().out


def test_a_tokenizer_that_knows_chats_is_used_as_it_is(here: Path, tmp_path: Path) -> None:
    Tokenizer.from_merges([], special_tokens=["<|endoftext|>", *CHAT_TOKENS]).save(tmp_path / "tokenizer")
    assert run(f"prepare chats.jsonl --tokenizer {tmp_path / 'tokenizer'} --out {tmp_path / 'data'}") == 0
    assert Manifest.load(tmp_path / "data").vocab_size == 261
