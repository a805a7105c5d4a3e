"""Trainer: a continued run is the run never stopped; faults skip, warn or stop; nothing half-done stays."""

import csv
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kill_loop import differences
from tinygpt import runfolder
from tinygpt._core import FormatError
from tinygpt.checkpoint import Checkpoint
from tinygpt.dataset import TokenDataset
from tinygpt.engine import Engine
from tinygpt.metrics import read_metrics, scalars
from tinygpt.model import GPT, GPTConfig
from tinygpt.sessions import read_sessions
from tinygpt.staging import remove_folder
from tinygpt.tokenizer import Tokenizer
from tinygpt.trainconfig import CHANGEABLE
from tinygpt.trainer import TrainConfig, Trainer

VOCAB, BLOCK = 13, 8
CONFIG = TrainConfig(
    max_steps=12, batch_size=2, grad_accum=2, warmup_steps=3, log_every=1, eval_every=4, eval_batches=2, save_every=3
)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads of a tensor this small wait for each other longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tokens(n: int, seed: int = 0) -> "np.ndarray[Any, Any]":
    return np.random.default_rng(seed).integers(0, VOCAB, n).astype(np.uint16)


def stream(n: int = 300, seed: int = 0, **options: Any) -> TokenDataset:
    return TokenDataset.from_tokens(tokens(n, seed), vocab_size=VOCAB, block_size=BLOCK, **options)


def documents(n: int = 300) -> TokenDataset:
    return stream(n, mode="documents", eot_id=0)


def model(dropout: float = 0.2, **options: Any) -> GPT:
    torch.manual_seed(0)
    config = {"vocab_size": VOCAB, "block_size": BLOCK, "n_layer": 1, "n_head": 2, "d_model": 16, "dropout": dropout}
    return GPT(GPTConfig(**{**config, **options}))


def train_to(trainer: Trainer, step: int) -> None:
    """Takes steps up to `step`, where leaving the loop saves."""
    for report in trainer.steps():
        if report.step == step:
            break


def train_and_kill(trainer: Trainer, step: int) -> None:
    """Takes steps up to `step`, and leaves the folder as a process killed there would."""
    train_to(trainer, step)
    assert trainer.folder is not None
    remove_folder(runfolder.step_folder(trainer.folder, step))


@pytest.mark.parametrize("kills", [[3], [5], [7, 10], [1, 2, 11]], ids=str)
@pytest.mark.parametrize("data", [stream, documents])
def test_resumed_run_equals_uninterrupted_run(tmp_path: Path, data: Any, kills: list[int]) -> None:
    config = replace(CONFIG, save_every=1)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    Trainer(model(), data(), data(90), config, folder=whole).fit()
    trainer = Trainer(model(), data(), data(90), config, folder=cut)
    for kill in kills:
        train_to(trainer, kill)
        torch.manual_seed(kill)  # another process has other random numbers
        trainer = Trainer.resume(cut, train=data(), val=data(90))
    trainer.fit()
    assert differences(whole, cut) == []


class BrokenOffError(Exception):
    """What a test throws into a step."""


def break_off(trainer: Trainer, *, step: int) -> None:
    """Takes steps, and ends in the second backward pass of the one after `step`."""
    backward, calls = torch.autograd.backward, []

    def breaking(*args: Any, **options: Any) -> None:
        calls.append(trainer.step)
        if calls.count(step) == 2:
            raise BrokenOffError
        backward(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.autograd, "backward", breaking)
        with pytest.raises(BrokenOffError):
            trainer.fit()


def bytes_stream(n: int) -> TokenDataset:
    ids = np.random.default_rng(0).integers(0, 256, n)
    return TokenDataset.from_tokens(ids, vocab_size=257, block_size=BLOCK)


@pytest.mark.parametrize("compile", ["off", pytest.param("on", marks=pytest.mark.slow)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kills", [[1], [7], [9, 18], [3, 9, 11]], ids=str)  # epochs end in steps 10 and 19
def test_run_broken_off_within_a_step_ends_as_the_whole_one(
    tmp_path: Path, kills: list[int], dtype: Any, compile: Any
) -> None:
    config = replace(CONFIG, max_steps=20, save_every=1, eval_every=2, sample_every=6, dtype=dtype, compile=compile)
    tokenizer, data, val = Tokenizer.train(["a"], pattern="byte"), bytes_stream(298), bytes_stream(90)
    torch.use_deterministic_algorithms(compile == "on")  # as the command does; eager operations need it not
    trainers = [
        Trainer(model(vocab_size=257), data, val, config, folder=tmp_path / name, tokenizer=tokenizer)
        for name in ("whole", "cut")
    ]
    trainers[0].fit()
    for kill in kills:
        break_off(trainers[-1], step=kill)
        torch.manual_seed(kill)  # another process has other random numbers
        trainers.append(Trainer.resume(tmp_path / "cut", train=data, val=val))
        assert trainers[-1].step == kill
    trainers[-1].fit()
    torch.use_deterministic_algorithms(False)
    assert differences(tmp_path / "whole", tmp_path / "cut") == []


def test_step_that_was_broken_off_is_taken_again_by_the_same_trainer(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    Trainer(model(), stream(), config=CONFIG, folder=whole).fit()
    trainer = Trainer(model(), stream(), config=CONFIG, folder=cut)
    break_off(trainer, step=4)
    trainer.fit()
    assert differences(whole, cut) == []


def test_resume_from_a_checkpoint_sets_aside_what_came_after(tmp_path: Path) -> None:
    whole, back = tmp_path / "whole", tmp_path / "back"
    for folder in (whole, back):
        Trainer(model(), stream(), stream(90), CONFIG, folder=folder).fit()
    before = (back / "metrics.jsonl").read_bytes()
    trainer = Trainer.resume(back / "step-0000009", train=stream(), val=stream(90))
    with pytest.warns(RuntimeWarning, match=r"goes on from step 9; the checkpoints after it are in .*aside-1"):
        trainer.fit()
    assert (runfolder.steps(back / "aside-1"), runfolder.steps(back)) == ([12], runfolder.steps(whole))
    assert (back / "aside-1" / "metrics.jsonl").read_bytes() == before
    assert differences(whole, back) == []


def test_resume_from_a_checkpoint_forgets_a_best_that_came_after(tmp_path: Path) -> None:
    config = replace(CONFIG, eval_every=2, save_every=2, keep=9)
    Trainer(model(), stream(), stream(90), config, folder=tmp_path).fit()
    best = runfolder.follow(tmp_path, "best")
    runfolder.point(tmp_path, "best", runfolder.step_folder(tmp_path, 12))
    trainer = Trainer.resume(tmp_path / "step-0000002", train=stream(), val=stream(90), max_steps=3)
    with pytest.warns(RuntimeWarning, match="aside-1"):
        trainer.fit()
    assert best is not None
    assert runfolder.follow(tmp_path, "best") in [runfolder.step_folder(tmp_path, step) for step in (2, 3)]


def test_damaged_checkpoint_that_was_named_is_refused_and_no_other_taken(tmp_path: Path) -> None:
    Trainer(model(), stream(), config=CONFIG, folder=tmp_path).fit()
    (tmp_path / "step-0000009" / "trainer.json").write_text("{}")
    with pytest.raises(FormatError, match=r"step-0000009.trainer.json: 2 bytes, but"):
        Trainer.resume(tmp_path / "step-0000009", train=stream())


def test_trainer_whose_folder_another_one_went_on_in_is_refused(tmp_path: Path) -> None:
    train_to(Trainer(model(), stream(), config=CONFIG, folder=tmp_path), 3)
    early = Trainer.resume(tmp_path, train=stream())
    Trainer.resume(tmp_path, train=stream()).fit()
    with pytest.raises(FileExistsError, match="holds the checkpoint of step 12, and this trainer stands at 3: another"):
        early.fit()
    assert Checkpoint.load(tmp_path, "last").step == 12


def test_both_splits_are_evaluated_on_the_same_windows_each_time() -> None:
    config = replace(CONFIG, learning_rate=1e-12, max_steps=8, grad_accum=1)
    reports = list(Trainer(model(), stream(), stream(90, seed=1), config).steps())
    train, val = ([getattr(r, name) for r in reports] for name in ("evaluation_train", "evaluation"))
    assert [[i for i, each in enumerate(found, 1) if each] for found in (train, val)] == [[4, 8], [4, 8]]
    for found in (train, val):
        assert found[3].loss == pytest.approx(found[7].loss, rel=1e-6)
    assert train[3].loss != val[3].loss


def test_evaluation_of_training_data_does_not_move_the_run(tmp_path: Path) -> None:
    weights = []
    for eval_train in (True, False):
        trainer = Trainer(model(), stream(), stream(90), replace(CONFIG, eval_train=eval_train))
        assert (trainer.fit().evaluation_train is None) != eval_train
        weights.append([p.detach() for p in trainer.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def test_table_of_metrics_has_the_figures_of_the_lines(tmp_path: Path) -> None:
    train_and_kill(Trainer(model(), stream(), stream(90), CONFIG, folder=tmp_path), 8)
    Trainer.resume(tmp_path, train=stream(), val=stream(90)).fit()
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [scalars(line) for line in read_metrics(tmp_path / "metrics.jsonl")]
    assert {name for line in lines for name in line} == set(rows[0])
    for row, line in zip(rows, lines, strict=True):
        assert {name: json.loads(cell) for name, cell in row.items() if cell} == {
            name: value for name, value in line.items() if value is not None
        }


def test_share_of_the_peak_is_operations_over_those_measured() -> None:
    trainer = Trainer(model(), stream(), config=CONFIG)
    assert [report.gemm_fraction for report in trainer.steps()] == [None] * 12
    peak = 1e9 * trainer.model.config.flops_per_token
    report = next(with_engine(CONFIG, gemm_flops=peak).steps())
    assert report.gemm_fraction == pytest.approx(report.tokens_per_second / 1e9)


def test_forecast_is_steps_to_come_at_the_measured_speed(tmp_path: Path) -> None:
    trainer = with_engine(CONFIG, tokens_per_second=64.0, memory_bytes=5_000_000)
    wanted = "12 steps x 32 tokens = 384 tokens: about 6 seconds on this machine, 5.0 MB of memory"
    assert str(trainer.forecast) == wanted
    assert str(Trainer(model(), stream(), config=CONFIG).forecast) == "12 steps x 32 tokens = 384 tokens"


def test_time_is_foretold_of_all_tokens_that_are_computed_on() -> None:
    engine = Engine(tokens_per_second=64.0, threads=1)
    trainer = Trainer(model(), documents(), config=CONFIG, engine=engine)
    x, y = documents().take(0, len(documents()))
    share = float((y >= 0).sum()) / x.numel()
    assert share < 0.9
    assert trainer.forecast.seconds == pytest.approx(12 * 32 / 64, rel=0.05)
    assert trainer.forecast.tokens_per_step == pytest.approx(32 * share, abs=1)


def test_report_tells_memory_and_the_time_that_is_left() -> None:
    reports = list(Trainer(model(), stream(), config=CONFIG).steps())
    left = [report.seconds_left for report in reports]
    assert (left[0], left[-1], all(0 < seconds < 60 for seconds in left[1:-1] if seconds is not None)) == (
        None,
        None,
        True,
    )
    assert 10**7 < (reports[0].memory_bytes or 0) <= (reports[-1].peak_memory_bytes or 0)


def spiked(config: TrainConfig, at: set[int], folder: Path) -> Trainer:
    trainer = Trainer(model(), stream(), config=config, folder=folder)
    poison(trainer, at, 1e5)
    return trainer


SPIKED = replace(CONFIG, max_steps=50, save_every=1, keep=1)


@pytest.mark.filterwarnings("ignore:step (42|46)")
def test_spikes_are_skipped_and_a_continued_run_skips_the_same(tmp_path: Path) -> None:
    with pytest.warns(RuntimeWarning, match=r"step 41: gradient norm \S+ is a spike, above 100; step skipped"):
        spiked(SPIKED, {40, 41, 45}, tmp_path / "whole").fit()
    with pytest.warns(RuntimeWarning, match="step 41: "):
        train_to(spiked(SPIKED, {40, 41, 45}, tmp_path / "cut"), 41)
    resumed = Trainer.resume(tmp_path / "cut", train=stream())
    poison(resumed, {40, 41, 45}, 1e5)
    with pytest.warns(RuntimeWarning, match="step 46: "):
        assert resumed.fit().skipped == 3
    assert differences(tmp_path / "whole", tmp_path / "cut") == []


def test_third_spike_in_a_row_ends_the_run(tmp_path: Path) -> None:
    with pytest.warns(RuntimeWarning), pytest.raises(RuntimeError, match="up to step 44 .* beyond spike_factor 100;"):
        spiked(SPIKED, {41, 42, 43}, tmp_path).fit()


@pytest.mark.parametrize("factor", [0.0, 1e7])
def test_no_spike_is_skipped_where_none_is_asked_for(tmp_path: Path, factor: float) -> None:
    assert spiked(replace(SPIKED, spike_factor=factor), {40}, tmp_path).fit().skipped == 0


def with_engine(config: TrainConfig, **measured: Any) -> Trainer:
    """A trainer on an engine that has measured something."""
    return Trainer(model(), stream(), config=config, engine=Engine(device="cpu", **measured))


def test_run_continued_from_an_older_checkpoint_drops_what_came_after(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    Trainer(model(), stream(), stream(90), CONFIG, folder=whole).fit()
    train_and_kill(Trainer(model(), stream(), stream(90), CONFIG, folder=cut), 8)
    assert [line["step"] for line in read_metrics(cut / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6, 7, 8]
    Trainer.resume(cut, train=stream(), val=stream(90)).fit()
    assert differences(whole, cut) == []


def test_damaged_newest_checkpoint_falls_back_and_ends_the_same(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    Trainer(model(), stream(), config=CONFIG, folder=whole).fit()
    train_and_kill(Trainer(model(), stream(), config=CONFIG, folder=cut), 7)
    weights = cut / "step-0000006" / "optimizer.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    with pytest.warns(RuntimeWarning, match=r"step-0000006.optimizer\.safetensors: damaged"):
        trainer = Trainer.resume(cut, train=stream())
    assert trainer.step == 3
    trainer.fit()
    assert differences(whole, cut) == []


def test_what_happens_between_steps_does_not_move_the_run() -> None:
    quiet, disturbed = (Trainer(model(), stream(), config=CONFIG) for _ in range(2))
    for _ in quiet.steps():
        pass
    for _ in disturbed.steps():
        torch.rand(3)
        disturbed.model.eval()
    assert all(torch.equal(a, b) for a, b in zip(quiet.model.parameters(), disturbed.model.parameters(), strict=True))


@pytest.mark.parametrize("data", [stream, documents])
def test_accumulated_batch_is_one_big_batch(data: Any) -> None:
    def trained(**cut: Any) -> Trainer:
        trainer = Trainer(model(dropout=0.0), data(), config=replace(CONFIG, max_steps=3, optimizer="sgd", **cut))
        trainer.fit()
        return trainer

    one, many = trained(batch_size=8, grad_accum=1), trained(batch_size=1, grad_accum=8)
    for a, b in zip(one.model.parameters(), many.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)  # sums of float32 in another order


def test_first_step_is_that_of_torch_by_hand() -> None:
    config = replace(CONFIG, max_steps=1, grad_accum=1, warmup_steps=0, learning_rate=0.1, grad_clip=0.5)
    ours, theirs = model(dropout=0.0), model(dropout=0.0)
    report = next(iter(Trainer(ours, stream(), config=config).steps()))
    matrices = [p for p in theirs.parameters() if p.ndim >= 2]
    vectors = [p for p in theirs.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.1, betas=(0.9, 0.95))
    x, y = stream().batch(0, batch_size=2, seed=0)
    loss = torch.nn.functional.cross_entropy(theirs(x).flatten(0, 1), y.flatten())
    torch.autograd.backward(loss)
    norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
    optimizer.step()
    assert (report.loss, report.grad_norm) == pytest.approx((loss.item(), norm.item()), rel=1e-5)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("limits", [{"max_steps": 5}, {"epochs": 0.5}, {"max_tokens": 150}], ids=str)
def test_run_ends_at_the_first_limit(limits: dict[str, Any]) -> None:
    result = Trainer(model(), stream(298), config=replace(CONFIG, **{"max_steps": None, **limits})).fit()
    assert (result.step, result.tokens, result.reason) == (5, 5 * 4 * BLOCK, "steps")  # an epoch has 37 windows


def test_seconds_alone_are_forecast_as_steps_which_are_kept(tmp_path: Path) -> None:
    config = replace(CONFIG, max_steps=None, max_seconds=600, save_every=10**6)
    trainer = Trainer(model(), stream(), config=config, folder=tmp_path)
    train_to(trainer, 19)
    assert trainer.total_steps is None
    for report in trainer.steps():
        assert (report.saved, report.total_steps is None) == (tmp_path / "step-0000020", False)
        break
    resumed = Trainer.resume(tmp_path, train=stream())
    train_to(resumed, 25)
    assert (resumed.step, resumed.total_steps) == (25, trainer.total_steps)


def test_of_steps_and_seconds_the_first_limit_is_where_the_schedule_ends(tmp_path: Path) -> None:
    config = replace(CONFIG, max_seconds=600, save_every=10**6)
    slow, fast = (
        Trainer(model(), stream(), config=replace(config, max_steps=n), folder=tmp_path / str(n)) for n in (10**7, 30)
    )
    assert (slow.total_steps, fast.total_steps) == (10**7, 30)
    train_to(slow, 21)
    train_to(fast, 21)
    assert slow.total_steps is not None
    assert 21 < slow.total_steps < 10**7
    assert fast.total_steps == 30
    # What a forecast changes is saved with it, and nothing is saved for one that changes nothing.
    assert [20 in runfolder.steps(tmp_path / str(n)) for n in (10**7, 30)] == [True, False]


def test_patience_ends_a_run_that_no_longer_improves() -> None:
    config = replace(CONFIG, max_steps=100, eval_every=1, patience=2, learning_rate=1e-9)
    result = Trainer(model(), stream(), stream(90), replace(config, learning_rate=10.0)).fit()
    assert (result.reason, result.step) == ("patience", (result.best_step or 0) + 2)


def test_best_and_last_lead_to_their_steps_and_keep_spares_them(tmp_path: Path) -> None:
    config = replace(CONFIG, eval_every=2, save_every=1, keep=2, learning_rate=1.0)
    result = Trainer(model(), stream(), stream(90), config, folder=tmp_path).fit()
    best, last = (runfolder.follow(tmp_path, name) for name in ("best", "last"))
    assert (best, last) == tuple(runfolder.step_folder(tmp_path, step or 0) for step in (result.best_step, 12))
    assert runfolder.steps(tmp_path) == sorted({result.best_step or 0, 11, 12})
    assert Checkpoint.load(tmp_path).step == result.best_step


def test_epoch_saves_are_at_the_ends_of_epochs(tmp_path: Path) -> None:
    config = replace(CONFIG, save_every="epoch", max_steps=21, keep=9)
    Trainer(model(), stream(298), config=config, folder=tmp_path).fit()  # 37 windows, 4 a step
    assert runfolder.steps(tmp_path) == [10, 19, 21]


def test_loop_that_is_left_early_saves(tmp_path: Path) -> None:
    for report in Trainer(model(), stream(), config=CONFIG, folder=tmp_path).steps():
        if report.step == 5:
            break
    assert Checkpoint.load(tmp_path, "last").step == 5
    assert Trainer.resume(tmp_path, train=stream()).step == 5


def test_folder_with_checkpoints_is_not_begun_anew(tmp_path: Path) -> None:
    Trainer(model(), stream(), config=CONFIG, folder=tmp_path).fit()
    with pytest.raises(FileExistsError, match="holds the checkpoint of step 12; resume it or name another folder"):
        Trainer(model(), stream(), config=CONFIG, folder=tmp_path)


def test_second_trainer_in_the_folder_is_refused(tmp_path: Path) -> None:
    first, second = (Trainer(model(), stream(), config=CONFIG, folder=tmp_path) for _ in range(2))
    next(first.steps())
    steps = first.steps()
    next(steps)
    with pytest.raises(BlockingIOError, match=str(os.getpid())):
        next(second.steps())


def prepared(folder: Path) -> Tokenizer:
    """Shards of a small text, as `prepare` leaves them."""
    tokenizer = Tokenizer.train(["a"], pattern="byte")
    tokenizer.write_shards(["the quick brown fox jumps over the lazy dog\n" * 20] * 3, folder, val_fraction=0.2)
    return tokenizer


def test_run_that_was_moved_with_its_data_inside_needs_nothing_but_its_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    prepared(run / "data")
    train, val = (TokenDataset(run / "data", split, block_size=BLOCK) for split in ("train", "val"))
    train_to(Trainer(model(vocab_size=257), train, val, CONFIG, folder=run), 5)
    run.rename(tmp_path / "moved")
    assert Trainer.resume(tmp_path / "moved").fit().step == 12
    assert Checkpoint.load(tmp_path / "moved").tokenizer == Tokenizer.load(tmp_path / "moved" / "data")


def test_samples_are_told_and_do_not_move_the_run(tmp_path: Path) -> None:
    tokenizer = prepared(tmp_path / "data")
    train, reports, weights = TokenDataset(tmp_path / "data", block_size=BLOCK), [], []
    for sample_every in (None, 5):
        trainer = Trainer(model(vocab_size=257), train, config=replace(CONFIG, sample_every=sample_every))
        assert trainer.tokenizer == tokenizer
        reports.append(list(trainer.steps()))
        weights.append([p.detach() for p in trainer.model.parameters()])
    assert [[r.step for r in rs if r.sample is not None] for rs in reports] == [[], [5, 10]]
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def test_tokenizer_that_is_not_that_of_the_data_is_refused(tmp_path: Path) -> None:
    prepared(tmp_path / "data")
    other = Tokenizer.train(["a"], pattern="byte", special_tokens=("<|end|>",))
    with pytest.raises(ValueError, match=r"tokenizer fingerprint \w{6}\.\. is not the training data's \w{6}\.\.;"):
        Trainer(model(vocab_size=257), TokenDataset(tmp_path / "data", block_size=BLOCK), tokenizer=other)


def test_sample_without_a_place_to_start_is_refused_before_training() -> None:
    tokenizer = Tokenizer.train(["a"], pattern="byte", special_tokens=())
    with pytest.raises(ValueError, match="sample_prompt must hold a character"):
        Trainer(model(), stream(), config=replace(CONFIG, sample_every=1), tokenizer=tokenizer)


def test_stop_ends_the_run_with_its_reason_and_a_checkpoint(tmp_path: Path) -> None:
    trainer = Trainer(model(), stream(), config=CONFIG, folder=tmp_path)
    for report in trainer.steps():
        if report.step == 5:
            trainer.stop("enough")
    assert (trainer.step, Checkpoint.load(tmp_path).step) == (5, 5)
    trainer.stop("before it began")
    assert (trainer.fit().reason, trainer.step) == ("before it began", 5)


def test_a_stopped_trainer_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    Trainer(model(), stream(), config=CONFIG, folder=whole).fit()
    trainer = Trainer(model(), stream(), config=CONFIG, folder=stopped)
    for stop in (2, 5):
        for report in trainer.steps():
            if report.step == stop:
                trainer.stop()
        assert trainer.step == stop
    assert (trainer.fit().reason, differences(whole, stopped)) == ("steps", [])


def test_plain_lines_tell_of_the_run_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Trainer(model(), stream(), stream(90), replace(CONFIG, log_every=5)).fit()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == [f"step {step}/12" for step in (1, 4, 5, 8, 10, 12)]
    assert "nats, perplexity" in lines[1]


def test_other_thread_count_is_warned_of() -> None:
    trainer = Trainer(model(), stream(), config=replace(CONFIG, threads=torch.get_num_threads() + 1, device="cpu"))
    with pytest.warns(RuntimeWarning, match="so its bits will differ"):
        next(trainer.steps())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"train": stream(301)}, "train n_tokens: 300 -> 301"),
        ({"train": stream(seed=1)}, "train first_window_sha256: "),
        ({"train": stream(stride=4)}, "train stride: "),
        ({"val": stream(90)}, "val data: none -> 90 tokens"),
        ({"model_config": replace(model().config, dropout=0.5)}, r"dropout: 0\.2 -> 0\.5"),
        ({"seed": 1, "batch_size": 4}, "seed: 0 -> 1; batch_size: 2 -> 4"),
    ],
)
def test_resume_with_something_else_is_refused_by_name(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    train_to(Trainer(model(), stream(), config=CONFIG, folder=tmp_path), 3)
    with pytest.raises(ValueError, match=message):
        Trainer.resume(tmp_path, **{"train": stream(), **given})


def test_what_may_change_on_resume_may_change(tmp_path: Path) -> None:
    train_to(Trainer(model(), stream(), config=CONFIG, folder=tmp_path), 3)
    changes: dict[str, Any] = {
        "max_steps": 5,
        "learning_rate": 0.5,
        "keep": 1,
        "log_every": 2,
        "threads": torch.get_num_threads(),
    }
    assert changes.keys() <= CHANGEABLE
    assert Trainer.resume(tmp_path, train=stream(), **changes).fit().step == 5


def test_engine_is_recorded_and_kept(tmp_path: Path) -> None:
    config = replace(CONFIG, dtype="bfloat16", device="cpu")
    train_to(Trainer(model(), stream(), config=config, folder=tmp_path), 3)
    resumed = Trainer.resume(tmp_path, train=stream())
    assert (resumed.engine.dtype, resumed.engine.device) == ("bfloat16", "cpu")
    assert Trainer.resume(tmp_path, train=stream(), dtype="float32").engine.dtype == "float32"
    assert Trainer.resume(tmp_path, train=stream(), dtype="auto").engine == resumed.engine


def test_ram_that_is_named_on_resume_is_measured_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_to(Trainer(model(), stream(), config=CONFIG, folder=tmp_path), 3)
    asked: list[tuple[str | None, Engine]] = []

    def with_room(config: TrainConfig, shape: GPTConfig, engine: Engine) -> Engine:
        asked.append((config.ram, engine))
        return replace(engine, micro_batch=1)

    monkeypatch.setattr("tinygpt.trainer.with_room", with_room)
    resumed = Trainer.resume(tmp_path, train=stream(), ram="1G")
    assert resumed.engine.micro_batch == 1
    assert [(ram, replace(engine, micro_batch=1)) for ram, engine in asked] == [("1G", resumed.engine)]
    Trainer.resume(tmp_path, train=stream())
    assert len(asked) == 1


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
@pytest.mark.parametrize("tied", [True, False])
def test_room_that_is_foretold_is_that_of_a_checkpoint(tmp_path: Path, optimizer: Any, tied: bool) -> None:
    config = replace(CONFIG, optimizer=optimizer, max_steps=1)
    shape = {"d_model": 128, "tie_embeddings": tied}
    trainer = Trainer(model(**shape), stream(), config=config, folder=tmp_path)
    assert trainer.disk_room is not None
    foretold = trainer.disk_room.checkpoint_bytes
    trainer.fit()
    taken = sum(file.stat().st_size for file in (tmp_path / "last").resolve().iterdir())
    assert foretold * 0.85 <= taken <= foretold


def poison(trainer: Trainer, at: set[int], factor: float = float("inf")) -> None:
    """Makes the gradients of some steps infinite, or so many times as long."""

    def hook(grad: torch.Tensor) -> torch.Tensor:
        return grad * factor if trainer.step in at else grad

    next(trainer.model.parameters()).register_hook(hook)  # type: ignore[no-untyped-call]


@pytest.mark.filterwarnings("ignore:step (4|7)")
def test_non_finite_steps_are_skipped_and_the_run_goes_on(tmp_path: Path) -> None:
    trainer = Trainer(model(), stream(), config=CONFIG, folder=tmp_path)
    poison(trainer, {2, 3, 6})
    with pytest.warns(RuntimeWarning, match="step 3: loss .* not both finite; step skipped"):
        reports = list(trainer.steps())
    assert [report.step for report in reports if report.skipped] == [3, 4, 7]
    assert all(torch.isfinite(p).all() for p in Checkpoint.load(tmp_path).model.parameters())
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[2])["grad_norm"] is None


def test_skipped_step_leaves_the_weights_as_they_were() -> None:
    trainer = Trainer(model(), stream(), config=CONFIG)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    poison(trainer, {0})
    with pytest.warns(RuntimeWarning):
        next(trainer.steps())
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))


def test_third_non_finite_step_in_a_row_stops_with_the_old_checkpoint_whole(tmp_path: Path) -> None:
    trainer = Trainer(model(), stream(), config=CONFIG, folder=tmp_path)
    poison(trainer, {4, 5, 6, 7})
    with pytest.warns(RuntimeWarning), pytest.raises(RuntimeError, match="diverged: 3 steps up to step 7"):
        trainer.fit()
    assert Checkpoint.load(tmp_path, "last").step == 6


def test_metrics_hold_evaluation_and_resources_apart(tmp_path: Path) -> None:
    Trainer(model(), stream(), stream(90), replace(CONFIG, log_every=5), folder=tmp_path).fit()
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 4, 5, 8, 10, 12]
    assert [line["step"] for line in lines if "evaluation" in line] == [4, 8, 12]
    keys = {"seconds", "tokens_per_second", "gemm_fraction", "memory_bytes", "peak_memory_bytes"}
    assert set(lines[0]["resources"]) == keys


def test_data_that_do_not_fit_the_model_are_refused() -> None:
    with pytest.raises(ValueError, match="vocab_size of the model is 5, too small for the training data's 13"):
        Trainer(model(vocab_size=5), stream())
    with pytest.raises(ValueError, match="block_size of the model is 4, too small for the validation data's 8"):
        Trainer(
            model(block_size=4), stream().__class__.from_tokens(tokens(99), vocab_size=VOCAB, block_size=4), stream()
        )


def test_gradients_left_over_do_not_enter_a_step() -> None:
    fresh, stained = model(), model()
    for parameter in stained.parameters():
        parameter.grad = torch.ones_like(parameter)
    norms = [next(Trainer(each, stream(), config=CONFIG).steps()).grad_norm for each in (fresh, stained)]
    assert norms[0] == norms[1]


def test_overlapping_windows_count_their_tokens_in_full() -> None:
    data = TokenDataset.from_tokens(range(90), vocab_size=90, block_size=8, stride=2)
    net = GPT(GPTConfig(vocab_size=90, block_size=8, n_layer=1, n_head=2, d_model=16))
    assert Trainer(net, data, config=TrainConfig(max_tokens=320, batch_size=4)).total_steps == 10


def test_samples_hold_ids_of_the_tokenizer_alone() -> None:
    net = GPT(GPTConfig(vocab_size=320, block_size=8, n_layer=1, n_head=2, d_model=16))
    tokenizer = Tokenizer.train(["a"], pattern="byte")
    data = TokenDataset.from_tokens([97] * 100, vocab_size=257, block_size=8)
    result = Trainer(net, data, config=TrainConfig(max_steps=2, sample_every=1), tokenizer=tokenizer).fit()
    assert result.step == 2


def test_a_frozen_parameter_is_refused_where_the_run_is_to_be_kept(tmp_path: Path) -> None:
    net = model()
    next(net.parameters()).requires_grad_(False)
    with pytest.raises(ValueError, match="is frozen"):
        Trainer(net, stream(), config=CONFIG, folder=tmp_path)


def test_a_run_records_its_sessions_and_keeps_a_page(tmp_path: Path) -> None:
    trainer = Trainer(model(), stream(), stream(90), replace(CONFIG, max_steps=4), folder=tmp_path)
    trainer.command = "tinygpt train --max-steps 4"
    trainer.fit()
    Trainer.resume(tmp_path, train=stream(), val=stream(90), max_steps=6).fit()
    found = read_sessions(tmp_path)
    assert [(each.command, each.from_step, each.end_step, each.reason) for each in found] == [
        ("tinygpt train --max-steps 4", 0, 4, "all steps"),
        (None, 4, 6, "all steps"),
    ]
    assert "6 of 6 steps" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(("save_every", "n_pages"), [(3, 2), (4, 1)])
def test_a_page_is_written_at_a_save_and_once_at_the_end(
    save_every: int, n_pages: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, rename = Counter[str](), Path.replace

    def counted(old: Path, new: Path) -> Path:
        written[Path(new).name] += 1
        return rename(old, new)

    monkeypatch.setattr(Path, "replace", counted)
    Trainer(model(), stream(), None, replace(CONFIG, max_steps=4, save_every=save_every), folder=tmp_path).fit()
    assert written["report.html"] == n_pages


def test_a_run_that_diverges_says_so_on_its_page(tmp_path: Path) -> None:
    with pytest.warns(RuntimeWarning), pytest.raises(RuntimeError, match="training diverged"):
        spiked(SPIKED, {41, 42, 43}, tmp_path).fit()
    page = (tmp_path / "report.html").read_text()
    assert ("ended: RuntimeError: training diverged" in page, "Steps skipped" in page) == (True, True)
    assert "no text is held out" in page  # a finding of doctor's


def test_a_loop_that_was_left_is_recorded_as_left(tmp_path: Path) -> None:
    train_to(Trainer(model(), stream(), None, CONFIG, folder=tmp_path), 2)
    (found,) = read_sessions(tmp_path)
    assert (found.end_step, found.reason) == (2, "the loop over the steps was left")


def test_a_page_that_fails_does_not_end_the_run(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir(parents=True)
    trainer = Trainer(model(), stream(), None, replace(CONFIG, max_steps=4), folder=tmp_path)
    with pytest.warns(RuntimeWarning, match=r"report\.html: not written: .*; the run goes on"):
        assert trainer.fit().step == 4
