"""The commands as their users meet them: results, exit codes, and one clear line for every wrong input."""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tinygpt import __main__, generate, prepare, show, train
from tinygpt._core import PATTERNS
from tinygpt.manifest import Manifest
from tinygpt.staging import lock_folder
from tinygpt.tokenizer import Tokenizer

TEXT = "".join(f"Line {i} of a small text: the cat sat on mat number {i * 7919 % 1000}.\n" for i in range(3000))
SHAPE = (
    "--vocab-size 300 --n-layer 1 --n-head 2 --d-model 16 --block-size 16 --batch-size 4 --eval-batches 2 --threads 1"
)


def tinygpt(*words: str, timeout: float = 120, **options: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own."""
    line = [sys.executable, "-m", "tinygpt", *words]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=timeout, **options)  # type: ignore[call-overload, no-any-return]


@pytest.fixture(scope="module")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "cats.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def finished(text_file: Path) -> Path:
    """A run of 20 steps on a text file."""
    out = text_file.parent / "run"
    words = f"--data {text_file} --out {out} {SHAPE} --max-steps 20 --eval-every 10 --save-every 10 --log-every 5"
    assert train.main(words.split()) == 0
    return out


def test_training_on_a_text_file_leaves_a_whole_run(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert {"data", "config.yaml", "metrics.jsonl", "best", "last", "step-0000010", "step-0000020"} <= names
    steps = [json.loads(line)["step"] for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    assert steps[-1] == 20


def test_the_written_config_trains_the_same_again(finished: Path, tmp_path: Path) -> None:
    assert train.main(["--config", str(finished / "config.yaml"), "--out", str(tmp_path / "again")]) == 0
    weights = [path / "last" / "model.safetensors" for path in (finished, tmp_path / "again")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_second_run_on_the_same_text_reuses_its_shards(text_file: Path, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished / "data", out / "data")
    before = {path.name: path.stat().st_mtime_ns for path in (out / "data").iterdir()}
    assert train.main(f"--data {text_file} --out {out} {SHAPE} --max-steps 1".split()) == 0
    assert {path.name: path.stat().st_mtime_ns for path in (out / "data").iterdir()} == before


def test_resume_auto_goes_on_where_the_run_stopped(text_file: Path, finished: Path, tmp_path: Path) -> None:
    words = f"--data {text_file} --out {tmp_path / 'run'} {SHAPE} --eval-every 10 --save-every 10 --log-every 5"
    assert train.main([*words.split(), "--max-steps", "10", "--warmup-steps", "100"]) == 0
    assert train.main(["--resume", str(tmp_path / "run"), "--max-steps", "20"]) == 0
    assert (tmp_path / "run" / "step-0000020").is_dir()
    assert train.main([*words.split(), "--max-steps", "20", "--resume", "auto"]) == 0


def test_resume_from_a_checkpoint_says_what_is_new_and_what_is_set_aside(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished, tmp_path / "run", symlinks=True)
    words = ["--resume", str(tmp_path / "run" / "step-0000010"), "--lr", "0.0005", "--max-steps", "30"]
    assert train.main(words) == 0
    shown = capfd.readouterr()
    assert "goes on from step 10 with max_steps: 20 -> 30, learning_rate: 0.005 -> 0.0005\n" in shown.out
    assert "goes on from step 10; the checkpoints after it are in " in shown.err
    assert (tmp_path / "run" / "aside-1" / "step-0000020" / "model.safetensors").is_file()


def test_training_says_what_it_will_take_and_what_came_of_it(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train.main(f"--data {finished / 'data'} --out {tmp_path / 'run'} {SHAPE} --max-steps 2".split()) == 0
    shown = capfd.readouterr().out
    assert "\n2 steps x 64 tokens = 128 tokens\na checkpoint takes " in shown
    for split in ("validation", "training"):
        assert re.search(rf"^last on {split} data: .* perplexity .* bits per byte, .* per character$", shown, re.M)


def test_validation_text_of_its_own_uses_the_tokenizer_of_the_training_text(text_file: Path, tmp_path: Path) -> None:
    (tmp_path / "dogs.txt").write_text("A dog sat on the cat.\n" * 4, encoding="utf-8")
    words = f"--data {text_file} --val-data {tmp_path / 'dogs.txt'} --out {tmp_path / 'run'} {SHAPE} --max-steps 1"
    assert train.main(words.split()) == 0
    manifests = [Manifest.load(tmp_path / "run" / name) for name in ("data", "val-data")]
    assert manifests[0].fingerprint == manifests[1].fingerprint
    assert [list(manifest.splits) for manifest in manifests] == [["train"], ["train"]]


def test_a_second_trainer_in_the_same_folder_is_refused_before_it_touches_anything(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    with lock_folder(out):
        code = train.main(f"--data {finished / 'data'} --out {out} {SHAPE} --max-steps 1".split())
    assert (code, list(out.glob("[!.]*"))) == (2, [])
    assert f"{out} is in use by process {os.getpid()}" in capfd.readouterr().err


def test_generate_writes_the_prompt_and_the_same_text_for_the_same_seed(
    finished: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["--checkpoint", str(finished), "--prompt", "Line 7", "--max-new-tokens", "20", "--seed", "3"]
    assert [generate.main(words), generate.main(words)] == [0, 0]
    shown = capfd.readouterr().out
    assert shown.startswith("Line 7")
    assert shown[: len(shown) // 2] == shown[len(shown) // 2 :]


def test_generate_writes_several_texts_as_one_after_the_other(
    finished: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["--checkpoint", str(finished), "--prompt", "cat", "--max-new-tokens", "8", "--cpu", "--top-p", "0.9"]
    singles = []
    for seed in ("5", "6", "7"):
        assert generate.main([*words, "--seed", seed]) == 0
        singles.append(capfd.readouterr().out)
    assert generate.main([*words, "--seed", "5", "--n", "3"]) == 0
    assert capfd.readouterr().out == "".join(f"--- {i + 1} of 3\n{text}" for i, text in enumerate(singles))


def test_generate_lists_and_scores_tokens(finished: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = [
        "--checkpoint",
        str(finished),
        "--cpu",
        "--temperature",
        "0",
        "--max-new-tokens",
        "4",
        "--dtype",
        "float32",
    ]
    assert generate.main([*words, "--prompt", "cat", "--logprobs", "2"]) == 0
    drawn = [line.split("\t") for line in capfd.readouterr().out.splitlines()]
    assert [len(line) for line in drawn] == [5] * 4
    assert all(line[3] == f"{line[2]} {line[0]}" for line in drawn)  # greedy: the likeliest one
    # From the document separator, where a text is judged from, too.
    assert generate.main([*words[:-4], "--max-new-tokens", "1", "--dtype", "float32", "--logprobs", "0"]) == 0
    logprob, _, text = capfd.readouterr().out.strip().split("\t")
    judged = ["--prompt", ast.literal_eval(text), "--score", "--logprobs", "0"]
    assert generate.main([*words[:3], *words[-2:], *judged]) == 0
    line, summary = capfd.readouterr().out.splitlines()
    assert (line.split("\t")[0], "perplexity" in summary) == (logprob, True)


def test_generate_reads_the_prompt_from_a_file_and_from_standard_input(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("größer", encoding="utf-8")
    words = ["generate", "--checkpoint", str(finished), "--max-new-tokens", "5", "--temperature", "0", "--cpu"]
    from_file = tinygpt(*words, "--prompt-file", str(tmp_path / "prompt.txt"))
    from_input = tinygpt(*words, "--prompt", "-", input="größer", encoding="utf-8")
    assert (from_file.returncode, from_file.stdout) == (0, from_input.stdout)
    assert from_file.stdout.startswith("größer")


def test_several_texts_differ(finished: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["--checkpoint", str(finished), "--prompt", "The", "--max-new-tokens", "20", "--seed", "3", "--n", "2"]
    assert generate.main(words) == 0
    first, second = capfd.readouterr().out.removeprefix("--- 1 of 2\n").split("--- 2 of 2\n")
    assert first != second


def test_sigterm_saves_and_exits_143(text_file: Path, tmp_path: Path) -> None:
    words = f"train --data {text_file} --out {tmp_path / 'run'} {SHAPE} --max-steps 1000000 --log-every 1"
    with subprocess.Popen(
        [sys.executable, "-m", "tinygpt", *words.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        while "step 3" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (143, "")
    assert (tmp_path / "run" / "last" / "model.safetensors").is_file()


def test_a_closed_pipe_is_quiet(finished: Path) -> None:
    words = f"generate --checkpoint {finished} --max-new-tokens 2000 --prompt x".split()
    with subprocess.Popen(
        [sys.executable, "-m", "tinygpt", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_tinygpt_alone_lists_its_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main([]) == 0
    shown = capsys.readouterr().out
    assert [verb for verb in __main__.VERBS if f"  {verb} " not in shown] == []


def test_version_and_unknown_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert [__main__.main(["--version"]), __main__.main(["trian"])] == [0, 2]
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("tinygpt 0.1.0\n", "tinygpt: error: unknown verb trian: did you mean train?\n")


@pytest.fixture
def world(finished: Path, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in, with good and bad things in it."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(text_file, "cats.txt")
    Path("tiny.txt").write_text("a cat", encoding="utf-8")
    Path("empty.txt").write_bytes(b"")
    Path("binary.txt").write_bytes(bytes(range(256)) * 4096)
    Path("latin1.txt").write_bytes("größer".encode("latin-1"))
    for folder in ("nothing", "pictures", "noweights"):
        Path(folder).mkdir()
    Path("pictures/cat.png").write_bytes(b"\x89PNG")
    shutil.copytree(finished / "data", "data")
    shutil.copytree(finished, "run", symlinks=True)
    shutil.copytree(finished / "data", "cut")
    os.truncate("cut/train_000000.bin", 2000)
    shutil.copytree(finished / "data", "badtokenizer")
    Path("badtokenizer/tokenizer.json").write_text("{", encoding="utf-8")
    Tokenizer.from_merges([(b"a", b"b")], special_tokens=["<|endoftext|>"]).save("other")
    Path("badconfig").mkdir()
    Path("badconfig/config.json").write_text("{", encoding="utf-8")
    shutil.copytree(finished / "step-0000020", "flipped")
    shutil.copytree(finished / "step-0000020", "foreign")
    shutil.copy("other/tokenizer.json", "foreign/tokenizer.json")
    Path("empty.jsonl").write_text("\n", encoding="utf-8")
    Path("torn.jsonl").write_text('{"step": 1}\n\n5\n', encoding="utf-8")
    Path("texts.jsonl").write_text('{"text": "a"}\n', encoding="utf-8")
    raw = bytearray(Path("flipped/model.safetensors").read_bytes())
    raw[-1] ^= 1
    Path("flipped/model.safetensors").write_bytes(raw)
    return tmp_path


TRAIN = f"train {SHAPE} --max-steps 1 --out new"
WRONG_INPUTS = {
    "train --out new": "--data is missing",
    f"{TRAIN} --data nowhere.txt": "nowhere.txt: no such file or folder",
    f"{TRAIN} --data empty.txt": "no text",
    f"{TRAIN} --data nothing": "nothing",
    f"{TRAIN} --data pictures": "pictures",
    f"{TRAIN} --data binary.txt": "binary.txt",
    f"{TRAIN} --data tiny.txt": "tokens",
    f"{TRAIN} --data cut": "train_000000.bin",
    f"{TRAIN} --data badtokenizer": "tokenizer.json",
    f"{TRAIN} --data data --tokenizer nowhere.json": "nowhere.json",
    f"{TRAIN} --data data --config nowhere.yaml": "nowhere.yaml",
    f"{TRAIN} --data data --config nothing": "nothing",
    f"{TRAIN} --data data --block-size 1000000": "block_size",
    f"{TRAIN} --data cats.txt --vocab-size 100": "vocab_size must be at least 257",
    f"{TRAIN} --data data --n-head 3": "--n-head must divide d_model (16), got 3",
    f"{TRAIN} --data data --dropout 2": "--dropout",
    f"{TRAIN} --data data --lr -1": "--lr must be above 0, got -1.0",
    f"{TRAIN} --data data --num-layers 2": "unknown flag --num-layers: here it is --n-layer",
    f"{TRAIN} --data data --max-stepz 2": "unknown flag --max-stepz: did you mean --max-steps?",
    f"{TRAIN} --data cats.txt --clean newline": "newline",
    f"{TRAIN} --data data --clean newlines": "--clean is for text, but data is prepared already",
    f"{TRAIN} --data cats.txt --documents chapter": "documents",
    f"{TRAIN} --data cats.txt --pattern gpt5": "pattern",
    f"{TRAIN} --data data --resume nowhere": "nowhere",
    f"train {SHAPE} --max-steps 30 --data data --out run": "run holds a run of 20 steps; --resume auto continues it",
    "train --resume run --max-steps 30 --d-model 32": "d_model: 16 -> 32",
    "train --resume run --max-steps 30 --batch-size 5": "batch_size: 4 -> 5",
    "train --resume run --max-steps 30 --clean lowercase --stride 4": "clean: () -> ('lowercase',); stride: None -> 4",
    f"{TRAIN} --data data --tokenizer other": "tokenizer fingerprint",
    "prepare": "PATHS is missing",
    "prepare nowhere.txt": "nowhere.txt: no such file",
    "prepare empty.txt --out new": "empty.txt: no text to learn a tokenizer from",
    "prepare pictures --out new": "pictures: no text files found",
    "prepare binary.txt --out new": "binary.txt: a binary file",
    "prepare cats.txt --out new --vocab-size 100": "vocab_size must be at least 257",
    "prepare cats.txt --out run": "run exists and is no prepared folder",
    "prepare cats.txt --out tiny.txt": "tiny.txt",
    "prepare cats.txt --out new --val-fraction 1": "--val-fraction must be at least 0 and below 1, got 1.0",
    "prepare cats.txt --out new --threads 0": "threads must be at least 1, got 0",
    "prepare cats.txt --out new --threads -1": "threads must be at least 1, got -1",
    "prepare cats.txt --out new --tokenizer-only --tokenizer other": "leave one out",
    "prepare cats.txt --out data --tokenizer-only": "data holds shards",
    "prepare cats.txt --out new --tokenizer nothing": "nothing: no tokenizer.json",
    "prepare cats.txt --out new --special-tokens bart": "must hold one that ends a document",
    "prepare latin1.txt --out new --invalid error": "latin1.txt",
    "encode": "--tokenizer is missing",
    "encode a --tokenizer nowhere": "nowhere",
    "encode a --tokenizer nothing": "nothing: no tokenizer.json",
    "encode a --tokenizer badtokenizer": "badtokenizer/tokenizer.json: not JSON",
    "encode --tokenizer other --file latin1.txt": "latin1.txt: not UTF-8 text (byte 0xf6 at 2)",
    "encode --tokenizer other --file nothing": "nothing: is a directory",
    "encode a --tokenizer other --format words": "--format must be one of ids, json, tokens, count",
    "encode a --tokenizer other --pattern o200k": "leave both out",
    "bench": "--input is missing: files or folders of text",
    "bench --input nowhere.txt": "nowhere.txt: no such file",
    "bench --input cats.txt --iterations 0": "--iterations must be at least 1, got 0",
    "bench --input cats.txt --tokenizer nothing": "nothing: no tokenizer.json",
    "bench --input cats.txt --vocab-size 5": "vocab_size must be at least 257",
    "bench --input cats.txt --pattern gpt5": "unknown pattern",
    "show other --on nowhere.txt": "nowhere.txt: no such file",
    "show other --on latin1.txt": "latin1.txt: not UTF-8 text",
    "show other --on empty.txt": "empty.txt: no text to look at",
    "show": "PATHS is missing",
    "show nowhere": "nowhere: no such file",
    "show nothing": "nothing",
    "show cut": "cut/train_000000.bin: 2000 bytes",
    "show badtokenizer": "badtokenizer/tokenizer.json: not JSON",
    "show badconfig": "badconfig/config.json: not JSON",
    "show flipped --verify": "flipped/model.safetensors: damaged",
    "show foreign": "foreign: its tokenizer has the fingerprint",
    "show empty.jsonl": "empty.jsonl: empty; metrics and chats have a JSON object on each line",
    "show torn.jsonl": "torn.jsonl: line 3 is no JSON object: '5'",
    "show texts.jsonl": "texts.jsonl, line 1: neither messages nor prompt and completion among its keys",
    "show cats.txt": "cats.txt: neither tokens (.bin, .npy, .pt)",
    "generate": "--checkpoint is missing",
    "generate --checkpoint nowhere": "nowhere",
    "generate --checkpoint cats.txt": "cats.txt",
    "generate --checkpoint nothing": "nothing",
    "generate --checkpoint data": "data",
    "generate --checkpoint flipped": "model.safetensors",
    "generate --checkpoint run --prompt-file nowhere.txt": "nowhere.txt",
    "generate --checkpoint run --prompt-file nothing": "nothing",
    "generate --checkpoint run --prompt-file latin1.txt": "latin1.txt: not UTF-8",
    "generate --checkpoint run --prompt a --prompt-file tiny.txt": "--prompt and --prompt-file",
    "generate --checkpoint run --temperature -1": "--temperature must be",
    "generate --checkpoint run --top-p 2": "--top-p must be above 0",
    "generate --checkpoint run --top-k -1": "--top-k must be",
    "generate --checkpoint run --max-new-tokens -5": "--max-new-tokens must be at least 0, got -5",
    "generate --checkpoint run --which tenth": "--which must be best, last or the number of a step",
    "generate --checkpoint run --which 11": "11",
    "generate --checkpoint run --chat": "--chat needs a --prompt to answer; `tinygpt chat run` talks line by line",
    "generate --checkpoint run --chat --prompt a": "its tokenizer has no <|system|>, <|user|>, <|assistant|>",
    "generate --checkpoint run/last --which 7": "is one model, not a run with a step 7 to take; name the run's folder",
    "evaluate --checkpoint run/last --which 7 --data data": "is one model, not a run with a step 7 to take",
    "export --checkpoint run/last --which 7 --to hf --out new": "is one model, not a run with a step 7 to take",
    "generate --checkpoint run --system a": "--system is the first message of a chat; give --chat, too",
    "generate --checkpoint run --logit-bias 5": "--logit-bias takes ID=NUMBER, such as 262=-5, got '5'",
    "generate --checkpoint run --logit-bias -5=1": "--logit-bias takes ID=NUMBER",
    "generate --checkpoint run --logit-bias 5=inf": "--logit-bias takes ID=NUMBER",
    "generate --checkpoint run --typical-p 0": "--typical-p must be above 0",
    "generate --checkpoint run --presence-penalty 3": "--presence-penalty must be from -2 to 2",
    "generate --checkpoint run --int8 --dtype float32": "--int8 and --dtype float32 are both given",
    "generate --checkpoint run --score --n 2": "--score is about the prompt",
    "generate --checkpoint run --score --prompt ab --top-k 5": "--top-k is about drawing tokens, and --score",
    "generate --checkpoint run --score --prompt ab --seed 5": "--seed is about drawing tokens",
    "generate --checkpoint run --score": "needs at least one token with another before it",
    "generate --checkpoint run --logprobs 1 --stop a": "--logprobs are of one text",
    "generate --checkpoint run --logprobs -1": "--logprobs must be at least 0, got -1",
    "chat": "CHECKPOINT is missing",
    "chat nowhere": "nowhere: no such folder",
    "chat run extra": "unexpected 'extra'",
    "chat run --system kind": "this model was trained on plain text and knows no message of the system",
    "chat run --top-p 2": "--top-p must be above 0",
    "chat run --max-new-tokens -5": "--max-new-tokens must be at least 0, got -5",
    "chat run --int8 --dtype float32": "--int8 and --dtype float32 are both given",
    "make": "PATHS is missing",
    "make nowhere": "nowhere: no such file or directory",
    "make cats.txt --time soon": "--time must be a number with s, m, h or d, such as 10m or 8h, got 'soon'",
    "make cats.txt --time 9s": "time must be at least 60 seconds",
    "make cats.txt --max-steps 3": "max_steps follows from the time here",
    "make cats.txt --out run": "run exists and has no project.json; name a folder that is new or empty",
    "generate --checkpoint run --n 0": "--n must be at least 1, got 0",
    "generate --checkpoint run --length 5": "unknown flag --length: here it is --max-new-tokens",
}


@pytest.mark.parametrize("line", WRONG_INPUTS)
def test_a_wrong_input_ends_in_one_clear_line(line: str, world: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = sorted(str(path) for path in Path("run").rglob("*"))
    code = __main__.main(line.split())
    shown = [line for line in capfd.readouterr().err.splitlines() if ": warning: " not in line]
    assert (code, len(shown)) == (2, 1), shown
    assert shown[0].startswith(f"tinygpt {line.split()[0]}: error: ")
    assert WRONG_INPUTS[line] in shown[0]
    assert sorted(str(path) for path in Path("run").rglob("*")) == before


def test_no_traceback_from_a_process_of_its_own(world: Path) -> None:
    done = tinygpt("train", "--data", "nowhere.txt", "--out", "new", cwd=str(world))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


@pytest.mark.parametrize(
    ("words", "kind", "rows"),
    [
        ("steps.jsonl", "metrics", ["lines           2", 'last line       {"step": 2}']),
        ("chats.jsonl", "chats", ["records         3 in 1 files", "conversations   2: 5 messages, 10 bytes of text",
                                  "refused         1 (first chats.jsonl, line 3: no text of the assistant"]),
        ("talk", "chats", ["records         1 in 1 files", "refused         0"]),
        ("ids.npy --verify", "tokens", ["tokens          3 of type uint16", "ids             5 to 9"]),
        ("ids.pt", "tokens", ["tokens          3 of type int64", "vocab_size      not said by the file"]),
        ("a.targets", "targets", ["targets         3 of at most 16 tokens; a.bin is not beside it"]),
        ("run", "run", ["tokenizer       300 ids, fingerprint", ": the one it was trained with"]),
    ],
    ids=str,
)  # fmt: skip
def test_show_says_what_a_file_is_and_what_is_in_it(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    words: str, kind: str, rows: list[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    pair = '{"prompt": "2 + 2?", "completion": "4"}\n'
    whole = {"messages": [{"role": role, "content": "x"} for role in ("system", "user", "assistant")]}
    Path("steps.jsonl").write_text('{"step": 1}\n\n{"step": 2, "resources": {"seconds": 1}}\n')
    Path("chats.jsonl").write_text(f'{pair}\n{{"messages": []}}\n{json.dumps(whole)}\n')
    Path("talk").mkdir()
    Path("talk/a.jsonl").write_text(pair)
    np.save("ids.npy", np.array([5, 9, 7], np.uint16))
    torch.save(torch.tensor([5, 9, 7]), "ids.pt")
    Path("a.targets").write_bytes(bytes([0b101, 0b1000]))
    Path("run").symlink_to(finished)
    assert show.main(words.split()) == 0
    shown = capfd.readouterr().out
    assert (shown.split("\n")[0], [row for row in rows if row not in shown]) == (f"{words.split()[0]}: {kind}", [])


def test_show_reads_a_tokenizer_with_unused_ids(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Tokenizer.from_merges([(b"a", b"b")], special_tokens={"<|endoftext|>": 500}).save(tmp_path / "tok")
    assert show.main([str(tmp_path / "tok")]) == 0
    shown = capfd.readouterr().out
    assert "unused ids      243\n" in shown
    assert "longest tokens  'ab' (2 bytes), '\\x00' (1 bytes)" in shown


def test_show_says_how_a_tokenizer_serves_a_text(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Tokenizer.from_merges([(b"a", b"b")], special_tokens=["<|endoftext|>"]).save(tmp_path / "tok")
    (tmp_path / "text.txt").write_bytes("ab é".encode())
    for on in ("ab é", str(tmp_path / "text.txt")):
        assert show.main([str(tmp_path / "tok"), "--on", on]) == 0
        shown = capfd.readouterr().out
        assert "5 bytes, 4 characters\n  tokens          4, each 1.25 bytes, 1.00 characters\n" in shown
        assert "single bytes    75.0% of the tokens\n  ids used        4 of 258\nab│ │\\xc3│\\xa9\n" in shown


def test_a_sample_that_was_taken_is_reported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in "abcd":
        (tmp_path / f"{name}.txt").write_text("a text of some words; " * 1000)
    words = [str(tmp_path), "--vocab-size", "270", "--max-documents", "2", "--out"]
    assert prepare.main([*words, str(tmp_path / "tokenizer"), "--tokenizer-only"]) == 0
    assert prepare.main([*words, str(tmp_path / "data")]) == 0
    line = "sample     44,000 of 88,000 bytes, from 2 of 4 documents, for the tokenizer\n"
    assert capfd.readouterr().out.count(line) == 2


def test_pieces_that_are_left_out_are_reported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("the cat sat on the mat and the dog on the log " * 9)
    words = [str(tmp_path / "a.txt"), "--vocab-size", "258", "--out", str(tmp_path / "data"), "--max-pieces-bytes"]
    assert prepare.main([*words, "10"]) == 0
    assert capfd.readouterr().err == (
        "tinygpt prepare: warning: the tokenizer is learnt from 3 of 10 different pieces, which are 47.10% "
        "of the text: the most frequent, as max_pieces_bytes is 10\n"
    )
    assert (prepare.main([*words, "none"]), capfd.readouterr().err) == (0, "")
    assert (prepare.main([*words, "0"]), capfd.readouterr().err.count("\n")) == (2, 1)


def test_help_names_every_pattern(capfd: pytest.CaptureFixture[str]) -> None:
    assert prepare.main(["--help"]) == 0
    words = "".join(capfd.readouterr().out.split()).replace("│", "")
    assert f"{','.join(PATTERNS)},orregex:EXPRESSION" in words


def test_a_single_shard_finds_the_tokenizer_beside_it(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = finished / "data" / "train_000000.bin"
    assert train.main(f"--data {data} --val-data {data} --out {tmp_path / 'run'} {SHAPE} --max-steps 2".split()) == 0
    assert "bits per byte" in capsys.readouterr().out
    assert (tmp_path / "run" / "best" / "tokenizer.json").is_file()


def test_a_changed_setting_counts_again_after_a_run_was_killed(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run", symlinks=True)
    words = ["--resume", str(tmp_path / "run"), "--max-steps", "23"]
    config = (tmp_path / "run" / "config.yaml").read_text()  # as a run leaves it that is killed before it saves
    (tmp_path / "run" / "config.yaml").write_text(config.replace("max_steps: 20", "max_steps: 23"))
    assert train.main(words) == 0
    assert (tmp_path / "run" / "step-0000023").is_dir()


def test_a_run_on_a_single_shard_goes_on_with_the_same_command(finished: Path, tmp_path: Path) -> None:
    data = finished / "data" / "train_000000.bin"
    words = f"--data {data} --out {tmp_path / 'run'} {SHAPE} --resume auto --max-steps".split()
    assert [train.main([*words, "2"]), train.main([*words, "4"])] == [0, 0]
    assert (tmp_path / "run" / "step-0000004").is_dir()


def test_a_shard_of_llm_c_takes_its_vocabulary_from_the_flag(finished: Path, tmp_path: Path) -> None:
    raw = bytearray((finished / "data" / "train_000000.bin").read_bytes())
    raw[12:1024] = bytes(1012)
    (tmp_path / "theirs.bin").write_bytes(raw)
    assert train.main(f"--data {tmp_path / 'theirs.bin'} --out {tmp_path / 'run'} {SHAPE} --max-steps 1".split()) == 0


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ({}, ("muon", 5e-3, True)),
        ({"optimizer": "adamw"}, ("adamw", 1e-3, True)),
        ({"optimizer": "muon", "distributed": "ddp"}, ("muon", 5e-3, True)),
        ({"position": "rope", "norm": "rmsnorm", "bias": False, "mlp": "swiglu"}, ("muon", 5e-3, True)),
        ({"bias": True}, ("muon", 5e-3, False)),
        ({"distributed": "fsdp"}, ("adamw", 1e-3, True)),
        ({"position": "learned", "norm": "layernorm", "mlp": "gelu"}, ("muon", 5e-3, False)),
        ({"optimizer": "sgd", "learning_rate": 0.1, "mlp": "geglu"}, ("sgd", 0.1, True)),
    ],
    ids=str,
)
def test_recipe_gives_way_to_the_choices_of_the_user(flags: dict[str, Any], wanted: tuple[Any, ...]) -> None:
    from tinygpt.train import _defaults

    values = {"optimizer": "adamw", "learning_rate": 1e-3, "qk_norm": False, **_defaults(flags), **flags}
    assert (values["optimizer"], values["learning_rate"], values["qk_norm"]) == wanted
