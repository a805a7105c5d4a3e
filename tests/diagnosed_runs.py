"""Runs that are broken in one way each, and healthy ones: small models, trained in seconds."""

import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from small_language import documents, noise, prepared
from tinygpt import train
from tinygpt.anydataset import AnyDataset
from tinygpt.checkpoint import Checkpoint
from tinygpt.dataset import TokenDataset
from tinygpt.engine import Engine
from tinygpt.mixeddataset import MixedDataset
from tinygpt.model import GPT, GPTConfig
from tinygpt.trainer import TrainConfig, Trainer

BLOCK = 32
SHAPE = {"n_layer": 1, "n_head": 2, "d_model": 32, "block_size": BLOCK}
RECIPE: dict[str, Any] = {
    **{"max_steps": 200, "batch_size": 8, "learning_rate": 0.02, "warmup_steps": 10, "schedule": "linear"},
    **{"min_lr_fraction": 0.0, "log_every": 5, "eval_every": 50, "eval_batches": 3, "eval_batch_size": 32},
    **{"save_every": 1000, "keep": 1, "device": "cpu"},
}
FLAGS = (
    "--vocab-size 340 --n-layer 1 --n-head 2 --d-model 32 --block-size 32 --batch-size 8 --lr 0.02 --warmup-steps 10 "
    "--log-every 5 --eval-every 50 --eval-batches 3 --eval-batch-size 32 --save-every 1000 --keep 1 --threads 1 --cpu "
    "--dtype float32 --compile off --attention fused --matmul highest --val-fraction 0.06"
)


class Place:
    """Where the runs of a test session lie, with the texts that they share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: dict[str, Path] = {}
        self.text = prepared(folder / "text", documents(700))
        (folder / "text.txt").write_text("\n".join(documents(700)), encoding="utf-8")

    def of(self, name: str) -> Path:
        """The run of this name in the tables below, trained when it is first asked for."""
        if name not in self._made:
            self._made[name] = BROKEN[name][1](self) if name in BROKEN else HEALTHY[name](self)
        return self._made[name]

    def data(self, name: str, texts: list[str], **options: Any) -> Path:
        return prepared(self.folder / f"{name}-data", texts, **options)

    def run(
        self,
        name: str,
        data: Path | AnyDataset | None = None,
        val: Path | AnyDataset | str | None = "val",
        *,
        model: GPT | None = None,
        shape: dict[str, Any] | None = None,
        hook: Callable[[Trainer], object] = lambda trainer: None,
        **changes: Any,
    ) -> Path:
        """The folder of a run that was trained to its end, or to where it diverged."""
        shape = {**SHAPE, **(shape or {})}
        windows = _windows(data or self.text, "train", shape["block_size"])
        held = _windows((data or self.text) if val == "val" else val, "val", shape["block_size"])
        torch.manual_seed(0)
        model = model or GPT(GPTConfig(vocab_size=windows.vocab_size, **shape))
        out, engine = self.folder / name, Engine(threads=1)
        trainer = Trainer(model, windows, held, TrainConfig(**{**RECIPE, **changes}), folder=out, engine=engine)
        hook(trainer)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                trainer.fit()
            except RuntimeError as error:
                assert "diverged" in str(error)  # noqa: PT017
        return out

    def command(self, name: str, words: str) -> Path:
        """The folder of a run that the command trained."""
        assert train.main(f"--out {self.folder / name} {words}".split()) == 0
        return self.folder / name


def _windows(data: Path | AnyDataset | str | None, split: str, block_size: int) -> Any:
    return TokenDataset(data, split, block_size=block_size) if isinstance(data, Path) else data


def scaled(trainer: Trainer, factor: float) -> None:
    with torch.no_grad():
        trainer.model.token_embedding.weight.mul_(factor)


def struck(trainer: Trainer, steps: set[int]) -> None:
    """Makes the gradients of some steps far longer than usual."""
    weight = next(trainer.model.parameters())
    weight.register_hook(lambda grad: grad * (1e6 if trainer.step + 1 in steps else 1.0))  # type: ignore[no-untyped-call]


def other_ids(place: Place) -> Path:
    """A trained model, trained on with the ids of another tokenizer."""
    base = Checkpoint.load(place.of("adamw")).model
    ids = TokenDataset(place.text, block_size=BLOCK).memmap()
    mixed_up = np.random.default_rng(0).permutation(340)[np.asarray(ids, np.int64)]
    data = TokenDataset.from_tokens(mixed_up, vocab_size=340, block_size=BLOCK)
    return place.run("other-ids", data, data, model=base, max_steps=60, eval_every=30, learning_rate=0.01)


def by_heart(place: Place) -> Path:
    """A trained model, trained on with a few documents."""
    base = Checkpoint.load(place.of("adamw")).model
    few = place.data("by-heart", documents(20, seed=7), of=place.text, val_fraction=0.0)
    data = TokenDataset(few, "train", block_size=BLOCK)
    return place.run(
        "by-heart", data, TokenDataset(place.text, "val", block_size=BLOCK), model=base, max_steps=100, eval_every=25
    )


class Delayed:
    """A dataset whose batches take long from some step on, as where other programs need the cores."""

    def __init__(self, data: Any, step: int, seconds: float) -> None:
        self._data, self._step, self._seconds = data, step, seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._data, name)

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> Any:
        return self._data[index]

    def batch(self, k: int, **options: Any) -> Any:
        if k >= self._step and "seed" in options:  # those of a step, not of an evaluation
            time.sleep(self._seconds)
        return self._data.batch(k, **options)


def copied(place: Place) -> Path:
    """Validation text that is a part of the training text."""
    val = place.data("copied-val", documents(700)[200:240], of=place.text, val_fraction=0.0)
    return place.run("copied", val=TokenDataset(val, "train", block_size=BLOCK))


def foreign(place: Place) -> Path:
    """Validation text in another language."""
    texts, others = documents(700), documents(350, language=1)
    train_data = place.data("foreign", texts)
    val = place.data("foreign-val", others[300:], of=train_data, val_fraction=0.0)
    return place.run("foreign", train_data, TokenDataset(val, "train", block_size=BLOCK), max_steps=150)


def repeating(place: Place) -> Path:
    """Documents that repeat themselves over a longer distance than the context."""
    texts = [text * 8 for text in documents(80, sentences=10)]
    return place.run("repeating", place.data("repeating", texts))


def chats(place: Place, name: str, extra: str = "") -> Path:
    texts = [text.split(".\n") for text in documents(800, sentences=6)]
    lines = [json.dumps({"prompt": said[0], "completion": " ".join(said[1:3])}) for said in texts]
    (place.folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    flags = FLAGS.replace("340", "320").replace("0.06", "0.2").replace("--eval-batches 3", "--eval-batches 8")
    return place.command(name, f"--data {place.folder / f'{name}.jsonl'} {flags} --max-steps 200 {extra}")


def fine_tuned(place: Place) -> Path:
    base = place.command("fine-tuned-base", f"--data {place.folder / 'text.txt'} {FLAGS} --max-steps 100")
    (place.folder / "other.txt").write_text("\n".join(documents(200, seed=5)), encoding="utf-8")
    flags = FLAGS.replace("--lr 0.02", "--lr 0.002").replace("0.06", "0.2")
    words = f"--data {place.folder / 'other.txt'} --init-from {base} {flags} --max-steps 40 --eval-every 20"
    return place.command("fine-tuned", words.replace("--eval-every 50", ""))


def continued(place: Place) -> Path:
    """A run that was sent back to a checkpoint and goes further from there."""
    out = place.run("continued", max_steps=150, save_every=50, keep=3)
    trainer = Trainer.resume(out / "step-0000100", max_steps=200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit()
    return out


def stopped(place: Place) -> Path:
    """A run that is left where a third of it is done."""

    def leave(trainer: Trainer) -> None:
        for report in trainer.steps():
            if report.step == 60:
                return

    out = place.folder / "stopped"
    windows, held = (_windows(place.text, split, BLOCK) for split in ("train", "val"))
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=windows.vocab_size, **SHAPE))  # type: ignore[arg-type]
    leave(Trainer(model, windows, held, TrainConfig(**RECIPE), folder=out, engine=Engine(threads=1)))
    return out


def mixture(place: Place) -> Path:
    second = place.data("second", documents(150, seed=3), of=place.text)
    parts = [[_windows(data, split, BLOCK) for data in (place.text, second)] for split in ("train", "val")]
    return place.run("mixture", *(MixedDataset(part, [0.7, 0.3]) for part in parts))


BROKEN: dict[str, tuple[str, Callable[[Place], Path]]] = {
    "weights-too-large": (
        "loss-at-start",
        lambda p: p.run("weights-too-large", max_steps=60, eval_every=30, hook=lambda trainer: scaled(trainer, 12.0)),
    ),
    "other-ids": ("loss-at-start", other_ids),
    "diverged": (
        "diverged",
        lambda p: p.run("diverged", learning_rate=30.0, grad_clip=0.0, optimizer="sgd", save_every=5, log_every=1),
    ),
    "adamw-too-fast": ("learning-rate-high", lambda p: p.run("adamw-too-fast", max_steps=100, learning_rate=2.0)),
    "muon-too-fast": ("learning-rate-high", lambda p: p.run("muon-too-fast", learning_rate=1.0, optimizer="muon")),
    "too-slow-to-learn": ("learning-rate-low", lambda p: p.run("too-slow-to-learn", max_steps=100, learning_rate=3e-5)),
    "spikes": ("spikes", lambda p: p.run("spikes", hook=lambda trainer: struck(trainer, {100, 140}))),
    "by-heart": ("overfitting", by_heart),
    "too-short": ("undertrained", lambda p: p.run("too-short", max_steps=24, eval_every=6)),
    "too-many-passes": (
        "many-epochs",
        lambda p: p.run(
            "too-many-passes",
            p.data("too-many-passes", noise(40), vocab_size=257, val_fraction=0.3),
            shape={"d_model": 16, "n_head": 1},
            schedule="constant",
            max_steps=300,
            eval_every=75,
        ),
    ),
    "long-warmup": ("long-warmup", lambda p: p.run("long-warmup", max_steps=100, warmup_steps=75, learning_rate=0.03)),
    "no-validation": ("no-validation", lambda p: p.run("no-validation", val=None)),
    "small-validation": (
        "small-validation",
        lambda p: p.run("small-validation", eval_batches=1, eval_batch_size=8),
    ),
    "other-language": ("other-validation", foreign),
    "noise": ("not-learning", lambda p: p.run("noise", p.data("noise", noise(300), val_fraction=0.12))),
    "pulled-to-zero": ("not-learning", lambda p: p.run("pulled-to-zero", weight_decay=40.0)),
    "large-model": (
        "little-text",
        lambda p: p.run(
            "large-model",
            p.data("large-model", documents(60), vocab_size=257, val_fraction=0.5),
            shape={"d_model": 128},
            max_steps=40,
            eval_every=20,
        ),
    ),
    "large-vocabulary": (
        "large-vocabulary",
        lambda p: p.run(
            "large-vocabulary",
            p.data("large-vocabulary", documents(260, n_words=120), vocab_size=560, val_fraction=0.2),
        ),
    ),
    "single-sentences": (
        "long-context",
        lambda p: p.run(
            "single-sentences", p.data("single-sentences", documents(5600, sentences=1)), shape={"block_size": 64}
        ),
    ),
    "delayed": (
        "slow",
        lambda p: p.run("delayed", Delayed(_windows(p.text, "train", BLOCK), 80, 0.5), _windows(p.text, "val", BLOCK)),
    ),
    "copied": ("duplicates", copied),
    "repeating": ("worse-than-zstd", repeating),
}
HEALTHY: dict[str, Callable[[Place], Path]] = {
    "adamw": lambda p: p.run("adamw"),
    "muon": lambda p: p.run("muon", optimizer="muon", schedule="wsd", min_lr_fraction=0.1),
    "command": lambda p: p.command("command", f"--data {p.folder / 'text.txt'} {FLAGS} --max-steps 200"),
    "chats": lambda p: chats(p, "chats"),
    "fine-tuned": fine_tuned,
    "continued": continued,
    "stopped": stopped,
    "mixture": mixture,
    "one-step": lambda p: p.run("one-step", max_steps=1),
    "patient": lambda p: p.run("patient", max_steps=400, patience=1, schedule="constant", learning_rate=0.03),
}
SLOW = {"delayed", "muon-too-fast", "pulled-to-zero", "patient"}
"""Runs that take longer than the suite may."""
