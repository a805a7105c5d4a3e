"""Plans: what is offered fits into time and memory, more time never gives worse, and the command is one that runs."""

import json
import random
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import sample
from tinygpt import plan as verb
from tinygpt import train
from tinygpt.chats import Chats
from tinygpt.chatshards import write_chats
from tinygpt.chattemplate import CHAT_TOKENS
from tinygpt.config import read
from tinygpt.dataset import TokenDataset
from tinygpt.modelconfig import GPTConfig
from tinygpt.planning import REFERENCES, plan
from tinygpt.planningrules import dropout, heads
from tinygpt.planreport import plan_lines
from tinygpt.planwish import Wish, batch_of, windows_of
from tinygpt.runchoice import Plan
from tinygpt.scaling import LAW
from tinygpt.stepcost import StepCost, n_parameters
from tinygpt.textsurvey import TextSurvey, survey
from tinygpt.tokenizer import Tokenizer
from tinygpt.trainconfig import TrainConfig

from benches.planning import neighbours
from benches.planningtexts import parted

BYTES_PER_TOKEN = {512: 2.0, 1024: 2.5, 2048: 3.0, 4096: 3.3, 8192: 3.6}
TEXT = TextSurvey(
    name="books", n_bytes=40_000_000, n_documents=500, kind="prose", bytes_per_token=BYTES_PER_TOKEN, surprise=3.3
)
WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "and",
    "saw",
    "dogs",
    "that",
    "do",
    "not",
    "like",
    "rain",
    "but",
    "fish",
]


def machine(config: TrainConfig, shape: GPTConfig) -> Mapping[str, Any]:
    """A machine of 300 GFLOP/s whose memory goes with parameters and tokens at once."""
    tokens = config.windows_per_step * shape.block_size
    seconds = 0.005 + tokens * shape.flops_per_token / 3e11 + n_parameters(shape) * 2e-9
    memory = 4e8 + 20 * n_parameters(shape) + 12 * config.batch_size * shape.block_size * shape.n_layer * shape.d_model
    if config.ram_bytes is not None and memory > config.ram_bytes:
        raise ValueError("ram is too little")
    return {
        "tokens_per_second": tokens / seconds,
        "memory_bytes": int(memory),
        "compile_seconds": 4.0,
        "dtype": "bfloat16",
    }


def planned(seconds: float, text: TextSurvey = TEXT, **options: Any) -> Plan:
    return plan(["books"], seconds=seconds, text=text, measure=machine, startup_seconds=5.0, **options)


@settings(max_examples=20, deadline=None)
@given(seconds=st.floats(60, 1e6), gigabytes=st.floats(0.8, 30), size=st.sampled_from([200_000, 5_000_000, 10**10]))
def test_no_choice_takes_more_than_there_is(seconds: float, gigabytes: float, size: int) -> None:
    found = planned(seconds, replace(TEXT, n_bytes=size), ram=f"{gigabytes}G")
    over = [c for c in found.choices if c.seconds > seconds or c.memory_bytes > gigabytes * 1e9]
    assert (over, found.best.bits_per_byte) == ([], min(c.bits_per_byte for c in found.choices))


@settings(max_examples=20, deadline=None)
@given(seconds=st.floats(60, 1e5), factor=st.floats(1, 30), size=st.sampled_from([200_000, 5_000_000, 10**10]))
def test_more_time_never_gives_worse(seconds: float, factor: float, size: int) -> None:
    text = replace(TEXT, n_bytes=size)
    bits = [planned(each, text).best.bits_per_byte for each in (seconds, seconds * factor)]
    assert bits[1] <= bits[0] * 1.002  # what is measured differs a little from what was foretold


def test_more_memory_never_gives_worse() -> None:
    bits = [planned(3600, ram=ram).best.bits_per_byte for ram in ("600M", "1G", "4G", "30G")]
    assert bits == sorted(bits, reverse=True)


def test_what_is_foretold_to_take_more_than_there_is_is_not_tried() -> None:
    tried: list[float] = []

    def noted(config: TrainConfig, shape: GPTConfig) -> Mapping[str, Any]:
        tried.append(machine(replace(config, ram=None), shape)["memory_bytes"])
        return machine(config, shape)

    plan(["books"], seconds=8 * 3600, text=TEXT, measure=noted, startup_seconds=5.0, ram="1G")
    assert max(tried[len(REFERENCES) :]) < 1.1e9


@pytest.mark.parametrize("slow", ["block_size", "vocab_size", "d_model"])
def test_what_turns_out_slow_makes_room_for_what_is_better(slow: str) -> None:
    first = planned(600).best
    tried: list[GPTConfig] = []

    def odd(config: TrainConfig, shape: GPTConfig) -> Mapping[str, Any]:
        """The machine, half as fast at what would be recommended and at all that is alike in one thing."""
        tried.append(shape)
        row = machine(config, shape)
        is_slow = len(tried) > len(REFERENCES) and getattr(shape, slow) == getattr(first.shape, slow)
        return {**row, "tokens_per_second": row["tokens_per_second"] / (2 if is_slow else 1)}

    found = plan(["books"], seconds=600, text=TEXT, measure=odd, startup_seconds=5.0)
    assert getattr(found.best.shape, slow) != getattr(first.shape, slow)
    assert all(choice.is_measured for choice in found.choices)
    assert len(tried) <= len(REFERENCES) + 10


def test_what_does_not_fit_makes_room_for_the_next_in_a_short_time_too() -> None:
    tried: list[GPTConfig] = []

    def full(config: TrainConfig, shape: GPTConfig) -> Mapping[str, Any]:
        """The machine, on which the first choice takes more memory than was foretold."""
        tried.append(shape)
        if len(tried) == len(REFERENCES) + 1:
            raise MemoryError
        return machine(config, shape)

    assert plan(["books"], seconds=60, text=TEXT, measure=full, startup_seconds=5.0).best.is_measured


def test_nothing_is_measured_twice() -> None:
    tried: list[tuple[int, GPTConfig]] = []

    def noted(config: TrainConfig, shape: GPTConfig) -> Mapping[str, Any]:
        tried.append((config.windows_per_step, replace(shape, dropout=0.0)))
        return machine(config, shape)

    plan(["books"], seconds=600, text=TEXT, measure=noted, startup_seconds=5.0)
    assert len(set(tried)) == len(tried)


def test_a_longer_time_gives_a_larger_model_that_sees_more() -> None:
    found = [planned(seconds).best for seconds in (60, 600, 8 * 3600)]
    assert [each.n_parameters for each in found] == sorted(each.n_parameters for each in found)
    assert [each.n_tokens for each in found] == sorted(each.n_tokens for each in found)


def test_a_short_text_is_not_read_again_and_again() -> None:
    found = planned(100 * 3600, replace(TEXT, n_bytes=200_000))
    assert found.best.epochs <= 16
    assert any("more text helps" in note for note in found.notes)
    assert found.best.shape.dropout == 0.1


@pytest.mark.parametrize("n_bytes", [300_000, 1_000_000, 3_000_000, 10_000_000])
@pytest.mark.parametrize("factor", [0.3, 1.0, 3.0])
def test_dropout_is_that_of_the_passes_that_were_found(n_bytes: int, factor: float) -> None:
    def other(config: TrainConfig, shape: GPTConfig) -> Mapping[str, Any]:
        """The machine, at another speed once it is no more asked for the references."""
        asked.append(shape)
        row = machine(config, shape)
        changed = factor if len(asked) > len(REFERENCES) else 1.0
        return {**row, "tokens_per_second": row["tokens_per_second"] * changed}

    asked: list[GPTConfig] = []
    found = plan(["books"], seconds=600, text=replace(TEXT, n_bytes=n_bytes), measure=other, startup_seconds=5.0)
    assert [each.shape.dropout for each in found.choices] == [dropout(each.epochs) for each in found.choices]


def test_what_is_fixed_is_kept() -> None:
    fixed = {"vocab_size": 2048, "n_layer": 6, "d_model": 192, "block_size": 128, "batch_size": 8, "grad_accum": 3}
    best = planned(3600, fixed={**fixed, "learning_rate": 1e-3}).best
    assert {name: getattr(best.shape, name, None) or getattr(best.config, name) for name in fixed} == fixed
    assert best.config.learning_rate == 1e-3


@pytest.mark.parametrize(
    "fixed",
    [{"d_model": 100}, {"n_head": 6}, {"n_kv_head": 2}, {"grad_accum": 4}, {"batch_size": 1, "grad_accum": 48}],
    ids=str,
)
def test_each_thing_may_be_fixed_by_itself(fixed: dict[str, Any]) -> None:
    best = planned(60, fixed=fixed).best
    assert {name: getattr(best.shape, name, None) or getattr(best.config, name) for name in fixed} == fixed


@pytest.mark.parametrize(
    ("fixed", "message"),
    [
        ({"n_head": 7}, "n_head must divide d_model"),
        ({"d_model": 4}, "d_model 4 suits no number of layers among 2, 3,"),
    ],
    ids=str,
)
def test_what_goes_together_with_nothing_is_refused_before_anything_is_measured(
    fixed: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        plan(["books"], seconds=600, text=TEXT, startup_seconds=5.0, fixed=fixed)


@pytest.mark.parametrize(
    ("limit", "steps"), [({"epochs": 2}, 62_500), ({"max_tokens": 10**6}, 1954), ({"max_steps": 9}, 9)], ids=str
)
def test_each_limit_is_answered_with_its_steps(limit: dict[str, Any], steps: int) -> None:
    fixed = {"vocab_size": 1024, "block_size": 256, "batch_size": 2, **limit}  # 16 million tokens
    assert planned(3600, replace(TEXT, is_prepared=True), fixed=fixed).notes[0].startswith(f"{steps:,} steps x 512 ")


@pytest.mark.parametrize("block_size", [64, 512, 8192])
def test_passes_that_are_fixed_are_kept_whatever_the_context_is(block_size: int) -> None:
    wish = Wish(
        paths=["books"], seconds=600, text=TEXT, reading={}, fixed={"grad_accum": 4}, out=Path("run"), startup_seconds=5
    )
    (windows,) = windows_of(wish, block_size)
    assert (windows, batch_of(wish, windows, block_size)) == (48, (12, 4))


def test_a_command_says_nothing_that_train_takes_by_itself() -> None:
    assert [word for word in ("--optimizer", "--qk-norm", "--seed") if word in planned(600).best.command] == []


def test_what_cannot_be_done_is_said() -> None:
    wish = {"max_steps": 500_000, "batch_size": 240, "block_size": 256, "n_layer": 6, "d_model": 384}
    notes = planned(8 * 3600, fixed=wish).notes
    assert notes[0].startswith("500,000 steps x 61,440 tokens = 30.7 G tokens: about ")
    assert "; in 8 hours: " in notes[0]


def test_what_a_busy_machine_measures_of_speed_is_not_believed() -> None:
    def busy(config: TrainConfig, shape: GPTConfig) -> Mapping[str, Any]:
        row, is_reference = machine(config, shape), config.max_steps is None
        return row if is_reference else {**row, "tokens_per_second": 9.0, "waiting_share": 0.8}

    found = plan(["books"], seconds=600, text=TEXT, measure=busy, startup_seconds=5.0)
    assert (found.best.is_measured, found.best.tokens_per_second > 1000) == (False, True)
    assert found.notes[0].startswith("other programs took 80% of the time of measuring")


def test_the_command_is_one_of_train_and_says_what_the_table_says() -> None:
    best = planned(600).best
    words = shlex.split(best.command)
    assert words[:2] == ["tinygpt", "train"]
    options = read(words[2:], train.GROUPS, prog="tinygpt train", defaults=train.DEFAULTS)
    assert options.build(GPTConfig) == best.shape
    assert options.build(TrainConfig) == best.config


def test_a_run_writes_samples_unless_its_tokens_are_another_s() -> None:
    for seconds, n in [(60, 2), (180, 6), (3600, 10)]:
        config = planned(seconds).best.config
        assert config.sample_every is not None
        assert config.max_steps is not None
        assert n - 1 <= config.max_steps // config.sample_every <= n
    assert planned(600, replace(TEXT, is_prepared=True)).best.config.sample_every is None


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        ({"n_bytes": 99_999}, {}, "books: 99,999 bytes of text are too few"),
        ({}, {"seconds": 5.0}, "time must be at least 30 seconds"),
        ({}, {"seconds": 600.0, "ram": "100M"}, "are too little for any model here; more time or memory is needed"),
    ],
)
def test_a_hopeless_case_is_refused_in_words(changes: dict[str, Any], options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        planned(**{"seconds": 600.0, "text": replace(TEXT, **changes), **options})


def test_the_cost_of_a_step_is_found_from_a_few() -> None:
    shapes = [
        GPTConfig(vocab_size=v, n_layer=n, n_head=2, d_model=c, block_size=t)
        for v, n, c, t in [
            (1000, 2, 64, 64),
            (2000, 4, 128, 64),
            (4000, 4, 256, 128),
            (8000, 6, 384, 256),
            (1000, 8, 128, 256),
        ]
    ]
    rows = [(shape, machine(TrainConfig(batch_size=12), shape)) for shape in shapes]
    cost = StepCost.fitted(
        [
            {**row, "shape": s, "windows": 12, "passes": 1, "seconds": 12 * s.block_size / row["tokens_per_second"]}
            for s, row in rows
        ]
    )
    other = GPTConfig(vocab_size=6000, n_layer=5, n_head=2, d_model=256, block_size=128)
    row = machine(TrainConfig(batch_size=12), other)
    assert cost.step_seconds(other, 12) == pytest.approx(12 * 128 / row["tokens_per_second"], rel=0.1)
    assert cost.memory_bytes(other, 12) == pytest.approx(row["memory_bytes"], rel=0.1)


@given(n=st.floats(1e4, 1e8), tokens=st.floats(1e5, 1e10), text=st.floats(1e5, 1e11))
def test_more_of_anything_is_expected_to_help(n: float, tokens: float, text: float) -> None:
    facts: dict[str, Any] = {"surprise": 3.3, "vocab_size": 1024, "bytes_per_token": 2.5, "block_size": 64}
    here = {**facts, "n_parameters": n, "n_tokens": tokens, "text_bytes": text, "tokens_per_step": 768}
    more = [{**here, name: 2 * here[name]} for name in ("n_parameters", "n_tokens", "text_bytes", "block_size")]
    assert all(LAW.bits_per_byte(**each) <= LAW.bits_per_byte(**here) for each in more)


def test_the_survey_counts_what_encoding_gives(tmp_path: Path) -> None:
    text = " ".join(WORDS[i * i % 23 % len(WORDS)] + f"{i * 7919 % 4096:x}" for i in range(40_000))
    (tmp_path / "a.txt").write_text(text)
    found = survey([tmp_path / "a.txt"], vocabularies=(300, 400))
    n_tokens = len(Tokenizer.train(str(tmp_path / "a.txt"), vocab_size=400).encode(text))
    assert (found.n_bytes, found.n_documents) == (len(text), 1)
    assert found.bytes_per_token[400] == pytest.approx(len(text) / n_tokens, rel=1e-6)


def chats(folder: Path) -> Path:
    """A file of 400 chats of many lengths, of which the assistant says a third."""
    numbers = random.Random(1)
    rows = []
    for _ in range(400):
        said = [" ".join(numbers.choices(WORDS, k=n)) for n in (10, 5) * numbers.randint(1, 40)]
        turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)]
        rows.append({"messages": turns})
    (folder / "chats.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return folder / "chats.jsonl"


@pytest.mark.parametrize("is_prepared", [False, True])
def test_of_chats_the_survey_knows_windows_and_targets(is_prepared: bool, tmp_path: Path) -> None:
    source = chats(tmp_path)
    names = ["<|endoftext|>", *CHAT_TOKENS]
    tokenizer = Tokenizer.train(Chats(source).texts(), vocab_size=320, special_tokens=names)
    write_chats(Chats(source), tokenizer, tmp_path / "data", val_fraction=0.0)
    found = survey([tmp_path / "data" if is_prepared else source], vocabularies=(320,))
    data = TokenDataset(tmp_path / "data", block_size=128, mode="documents")
    vocab_size = next(iter(found.bytes_per_token))
    n_windows = found.n_bytes / found.bytes_per_token[vocab_size] / (128 * found.fill(128, vocab_size))
    assert (found.kind, found.n_documents) == ("chat", 400)
    assert found.target_share == pytest.approx(data.targets_per_window * len(data) / data.n_tokens, rel=0.1)
    assert n_windows == pytest.approx(len(data), rel=0.1)


def test_of_chats_larger_than_a_sample_the_rest_is_like_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = survey([chats(tmp_path)], vocabularies=(400,))
    monkeypatch.setattr("tinygpt.textsurvey.SAMPLE_BYTES", whole.n_bytes // 3)
    part = survey([tmp_path / "chats.jsonl"], vocabularies=(400,))
    assert part.n_bytes == pytest.approx(whole.n_bytes, rel=0.02)
    assert part.n_documents == pytest.approx(whole.n_documents, rel=0.1)


def test_what_is_no_target_and_padding_teach_nothing() -> None:
    chat = replace(TEXT, target_share=0.4, chat_bytes=(80.0, 700.0))
    fixed = {"vocab_size": 2048, "block_size": 128, "n_layer": 2, "d_model": 128, "batch_size": 16}
    plain, padded = (planned(600, text, fixed=fixed).best for text in (TEXT, chat))
    assert padded.n_tokens == plain.n_tokens
    # 27 and 233 tokens of 2048 ids, in one window and in two.
    assert padded.epochs == pytest.approx(plain.epochs * (27 + 233) / (3 * 128), rel=0.01)
    assert padded.bits_per_byte > plain.bits_per_byte


def test_a_prepared_folder_keeps_its_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(" ".join(WORDS[i * i % 23 % len(WORDS)] for i in range(60_000)))
    tokenizer = Tokenizer.train(str(tmp_path / "a.txt"), vocab_size=300)
    tokenizer.write_shards(str(tmp_path / "a.txt"), tmp_path / "data")
    best = plan([tmp_path / "data"], seconds=600, measure=machine, startup_seconds=5.0).best
    assert best.shape.vocab_size == tokenizer.vocab_size
    assert "--val-fraction" not in best.command


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.txt"], "nowhere.txt"),
        ([], "PATHS is missing"),
        (["a.txt", "--time", "soon"], "--time must be a number with s, m, h or d, such as 10m or 8h, got 'soon'"),
        (["a.txt", "--time", "8h", "--for", "poems"], "--for"),
        (["a.txt", "--ram", "lots"], "--ram must be a number of gigabytes"),
    ],
)
def test_a_wrong_call_ends_with_one_line(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("short")
    code, shown = verb.main(words), capsys.readouterr().err
    assert (code, shown.count("\n"), said in shown) == (2, 1, True), shown


def test_the_table_names_every_choice_and_marks_one() -> None:
    found = planned(600)
    lines = [*plan_lines(found)]
    rows = [line for line in lines if "bfloat16" in line]
    assert (len(rows), sum(row.startswith("*") for row in rows)) == (len(found.choices), 1)
    assert lines[-1] == f"recommended: {found.best.command}"
    json.dumps(found.to_json(), default=str)


def test_a_grid_has_eight_neighbours_that_differ_in_one_thing() -> None:
    (_, own), *others = neighbours(planned(600).best)
    differing = [{name for name in own if fixed[name] != own[name]} for _, fixed in others]
    assert len(others) >= 8
    assert all(len(names - {"batch_size", "grad_accum"}) <= 1 for names in differing)


@pytest.mark.parametrize("n_documents", [1, 200])
def test_what_is_held_out_is_no_part_of_what_is_trained_on(n_documents: int) -> None:
    lines = range(6_000_000 // n_documents // 10)
    documents = [b"".join(b"line %d of %d\n" % (i, n) for i in lines) for n in range(n_documents)]
    kept, held = parted(b"<|endoftext|>\n".join(documents))
    assert 200_000 < len(held) < 310_000
    assert not set(held.split(b"\n")[:100]) & set(kept.split(b"\n")) - {b""}


def test_heads_divide_the_width() -> None:
    assert [width % heads(width) for width in (64, 96, 128, 192, 256, 320, 384, 512, 640, 768)] == [0] * 10


@pytest.mark.slow
def test_the_recommended_command_runs_and_ends_in_time(tmp_path: Path) -> None:
    words = [str(sample("tinyshakespeare.txt")), "--time", "60s", "--out", str(tmp_path / "run"), "--json"]
    shown = subprocess.run(
        [sys.executable, "-m", "tinygpt", "plan", *words], capture_output=True, text=True, check=True
    )
    found = json.loads(shown.stdout)
    started = time.perf_counter()
    line = [sys.executable, "-m", *shlex.split(found["best"])]
    subprocess.run(line, check=True)
    assert time.perf_counter() - started <= 60 * 1.1
