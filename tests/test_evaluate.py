"""`tinygpt evaluate` as its users meet it."""

import json
import re
from pathlib import Path

import pytest
from tinygpt import evaluate, train

TEXT = "".join(f"Line {i} of a small text: the cat sat on mat number {i * 7919 % 1000}.\n" for i in range(1500))
SHAPE = (
    "--vocab-size 300 --n-layer 1 --n-head 2 --d-model 16 --block-size 16 --batch-size 4 --threads 1 --documents line"
)
QUESTIONS = [
    {"context": "Line 7 of a", "choices": ["small text", "cat"], "label": 0},
    {"context": "the cat", "choices": ["sat", "Line"], "label": 0},
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 30 steps on a text of lines, with held-out lines, questions and canaries beside it."""
    place = tmp_path_factory.mktemp("run")
    (place / "cats.txt").write_text(TEXT, encoding="utf-8")
    words = (
        f"--data {place / 'cats.txt'} --out {place / 'run'} {SHAPE} --max-steps 30 --eval-every 30 --val-fraction 0.1"
    )
    assert train.main(words.split()) == 0
    (place / "new.jsonl").write_text(
        "".join(
            json.dumps({"text": f"The cat sat on {i}.", "label": "odd" if i % 2 else "even"}) + "\n" for i in range(9)
        )
    )
    (place / "questions.jsonl").write_text("".join(json.dumps(each) + "\n" for each in QUESTIONS))
    (place / "cats.bin").write_bytes(b"gr\xf6sser")
    (place / "long.jsonl").write_text(json.dumps({"context": "a", "choices": ["b", "word " * 60], "label": 1}))
    (place / "canaries.txt").write_text("the cat sat on mat number 123\n")
    return place / "run"


def told(capfd: pytest.CaptureFixture[str], *words: object) -> str:
    capfd.readouterr()
    assert evaluate.main([str(word) for word in (*words, "--threads", 1)]) == 0
    return capfd.readouterr().out


def test_a_prepared_folder_gives_a_table_and_the_scale(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shown = told(capfd, "--checkpoint", run, "--data", run / "data")
    assert re.search(r"^all +1[0-9]{2} +[\d,]+ +\d\.\d{4} +\[", shown, re.M)
    for name in ("zlib -9", "zstd -19", "5-gram, Kneser-Ney", "this model"):
        assert re.search(rf"^  {name} +\d\.\d{{4}}", shown, re.M)
    apart = r"model (better|worse|not told apart): [+-]\d\.\d{4} \[[+-]\d\.\d{4}, [+-]\d\.\d{4}\]"
    assert re.search(rf"^  zstd -19 +\d\.\d{{4}} +{apart}$", shown, re.M)
    assert re.search(rf"^  5-gram, Kneser-Ney +\d\.\d{{4}} +{apart} +learnt from [\d,]+ tokens$", shown, re.M)
    assert re.search(r"^verdict: ", shown, re.M)
    assert "documents one after the other, separators counted" in shown


def test_everything_at_once_as_json_and_into_a_file(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = run.parent
    words = ["--checkpoint", run, "--data", place / "new.jsonl", "--by", "label", "--stride", 4, "--apart", "--json"]
    words += ["--choices", place / "questions.jsonl", "--memorisation", "--n-samples", 2, "--sample-tokens", 12]
    words += [
        "--ngrams",
        "2",
        "3",
        "--temperature",
        0,
        "--canary",
        place / "canaries.txt",
        "--out",
        tmp_path / "a.json",
    ]
    found = json.loads(told(capfd, *words))
    assert json.loads((tmp_path / "a.json").read_text()) == found
    assert [group["name"] for group in found["text"]["groups"]] == ["all", "even", "odd"]
    assert found["text"]["groups"][0]["n_documents"] == 9
    assert (found["text"]["context"], found["text"]["stride"], found["text"]["apart"]) == (16, 4, True)
    assert found["text"]["ngram_tokens"] > 10_000
    assert found["choices"]["n_questions"] == 2
    assert list(found["memorisation"]["shares"]) == ["2", "3"]
    assert found["memorisation"]["n_texts"] == 2
    assert found["canaries"][0]["text"] == "the cat sat on mat number 123"
    assert (found["format"], found["version"], found["step"]) == ("tinygpt-evaluation", 1, 30)


def test_everything_at_once_as_a_table(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    place = run.parent
    words = ["--checkpoint", run, "--choices", place / "questions.jsonl", "--canary", place / "canaries.txt"]
    shown = told(capfd, *words, "--memorisation", "--n-samples", 1, "--sample-tokens", 9)
    assert re.search(r"^  acc_norm, by characters +\d+\.\d\d%", shown, re.M)
    assert re.search(r"^canaries: [01] of 1 found$", shown, re.M)
    assert re.search(r"^  written by the model +1 ", shown, re.M)


def test_text_by_file_without_others(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["--checkpoint", run / "last", "--data", run.parent / "cats.txt", "--by", "file", "--documents", "line"]
    shown = told(capfd, *words, "--max-tokens", 900, "--no-baselines", "--no-count-separators", "--dtype", "bfloat16")
    assert "zlib" not in shown
    assert "separators not counted" in shown
    assert re.search(r"cats\.txt +\d+ ", shown, re.M)


def test_the_train_split_is_not_judged_by_ngrams_of_itself(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shown = told(capfd, "--checkpoint", run, "--data", run / "data", "--split", "train", "--max-tokens", 500)
    assert "note: no n-gram model: it would be judged on what it has learnt" in shown
    assert "Kneser-Ney" not in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "--data is missing: what to judge on; or give --choices, --memorisation or --canary"),
        ("--data {data} --stride 17", "stride must be from 1 to the context, 16, got 17"),
        ("--data {data} --context 17", "context must be at most the model's block_size, 16, got 17"),
        ("--data {data} --context 4 --stride 5", "--stride must be at most the context, 4, got 5"),
        ("--data {data} --split test", "has no split 'test'; it has train, val"),
        ("--data {data} --documents line", "is prepared already, and flags that say how text is read"),
        (
            "--data {data} --temperature 0",
            "--temperature is of use only with --memorisation; give that, too, or leave --temperature out",
        ),
        ("--choices {data}/none --documents line", "--documents is of use only with --data; give that, too"),
        ("--data {data} --by label", "cats.txt: labels are read from .jsonl files"),
        ("--data {data}/none", "none"),
        ("--choices {data}/none --stride 4", "--stride is of use only with --data"),
        ("--data {data} --prompt x", "--prompt is of use only with --memorisation"),
        ("--data {data} --choice-delimiter x", "--choice-delimiter is of use only with --choices"),
        ("--data {data} --label-field x", "--label-field is of use only with --by label"),
        ("--data {data} --no-baselines --ngram-order 3", "--ngram-order is of use only with --data with baselines"),
        ("--choices {data}/none --train-data {data}", "--train-data is of use only with --data or --memorisation"),
        ("--data {data} --seed 3", "--seed is of use only with --memorisation or --canary"),
        ("--data {data} --out {data}", "is a folder; name a file in it"),
        ("--data {data} --out {data}/none/a.json", "data/none; make it first"),
        ("--choices {data}/../../cats.bin", "cats.bin, line 1: not UTF-8 text (byte 2 of the line); convert the file"),
        ("--choices {data}/../../long.jsonl", "long.jsonl, line 1: ' word word word word word word word word' has "),
        ("--data {data} --batch-size 0", "--batch-size must be at least 1, got 0"),
        ("--data {data} --ngrams 0", "--ngrams must be lengths from 1, got 0"),
        ("--data {data} --train-data {data}/none", "write it with `tinygpt prepare`"),
        ("--choices {data}/manifest.json", "manifest.json, line 1: not JSON"),
        ("--data {data} --dtype float16 --cpu", "dtype float16 needs a CUDA device"),
    ],
)
def test_a_mistake_is_one_line(run: Path, words: str, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    line = ["--checkpoint", str(run), *words.format(data=run / "data").split()]
    assert evaluate.main(line) == 2
    shown = capfd.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert message in shown.err


def test_memorisation_without_training_text_is_refused(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from tinygpt.checkpoint import Checkpoint

    Checkpoint.load(run).save(tmp_path / "model")
    assert evaluate.main(["--checkpoint", str(tmp_path / "model"), "--memorisation"]) == 2
    assert "name its prepared folder with --train-data" in capfd.readouterr().err


def test_without_zstd_the_rest_is_measured_and_the_extra_named(
    run: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    monkeypatch.setitem(__import__("sys").modules, "compression.zstd", None)
    shown = told(capfd, "--checkpoint", run, "--data", run / "data", "--max-tokens", 400)
    assert 'note: zstd is not measured: it needs zstandard, pip install "tinygpt[evaluate]"' in shown
    assert "zlib -9" in shown
