"""The runs that the law of `tinygpt.scaling` is fitted to: short ones, counted in tokens, so that time plays no part.

`python -m benches planning --law` takes those that are missing, on one thread, and prints what the law says beside
what was found. They can run on a machine that others use.
"""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tinygpt.modelconfig import GPTConfig
from tinygpt.planningrules import heads
from tinygpt.preparation import Preparation
from tinygpt.scaling import LAW
from tinygpt.stepcost import block_parameters
from tinygpt.textsurvey import survey
from tinygpt.trainconfig import RECIPE, TrainConfig

from benches.planningtexts import FOLDER, parts


@dataclass(frozen=True, kw_only=True)
class Short:
    """One run, and what came of it."""

    text: str
    vocab_size: int
    n_layer: int
    d_model: int
    block_size: int
    windows: int
    n_tokens: int
    learning_rate: float = RECIPE["learning_rate"]
    dropout: float = 0.0
    bytes_per_token: float = math.nan
    bits_per_byte: float = math.nan
    seconds: float = math.nan

    @property
    def key(self) -> tuple[object, ...]:
        return tuple(asdict(self).values())[:9]

    @property
    def shape(self) -> GPTConfig:
        return GPTConfig(
            vocab_size=self.vocab_size,
            block_size=self.block_size,
            n_layer=self.n_layer,
            n_head=heads(self.d_model),
            d_model=self.d_model,
            dropout=self.dropout,
            qk_norm=RECIPE["qk_norm"],
        )


def _short(text: str, *numbers: int, **more: float) -> Short:
    vocab_size, n_layer, d_model, block_size, windows, n_tokens = numbers
    return Short(
        text=text,
        vocab_size=vocab_size,
        n_layer=n_layer,
        d_model=d_model,
        block_size=block_size,
        windows=windows,
        n_tokens=n_tokens,
        **more,
    )


RUNS = (
    _short("gutenberg", 2048, 4, 128, 64, 12, 600_000),
    _short("gutenberg", 1024, 4, 128, 64, 12, 700_000),
    _short("gutenberg", 4096, 4, 128, 64, 12, 500_000),
    _short("gutenberg", 2048, 4, 128, 128, 12, 600_000),
    _short("gutenberg", 2048, 4, 256, 64, 12, 300_000),
    _short("gutenberg", 2048, 2, 128, 64, 12, 600_000),
    _short("gutenberg", 2048, 2, 256, 64, 12, 600_000),
    _short("gutenberg", 2048, 4, 128, 64, 24, 600_000),
    _short("gutenberg", 2048, 4, 128, 64, 12, 1_200_000),
    _short("gutenberg", 2048, 2, 64, 64, 12, 1_800_000),
    _short("gutenberg", 2048, 2, 128, 64, 12, 1_800_000),
    _short("gutenberg", 2048, 4, 128, 64, 12, 600_000, learning_rate=1e-2),
    _short("gutenberg", 2048, 4, 128, 64, 12, 600_000, learning_rate=2.5e-3),
    _short("shakespeare", 1024, 4, 128, 64, 12, 600_000),
    _short("shakespeare", 1024, 4, 128, 64, 12, 1_200_000),
    _short("shakespeare", 1024, 2, 128, 128, 12, 2_000_000),
    _short("shakespeare", 512, 2, 192, 128, 12, 2_000_000),
    _short("shakespeare", 2048, 3, 320, 256, 24, 2_600_000, dropout=0.1),
    _short("shakespeare", 1024, 4, 128, 128, 12, 1_500_000, learning_rate=0.0025),
    _short("shakespeare", 1024, 4, 128, 128, 12, 1_500_000),
    _short("shakespeare", 1024, 4, 128, 128, 12, 1_750_000),
    _short("shakespeare", 1024, 4, 128, 128, 12, 1_750_000, dropout=0.05),
    _short("shakespeare", 1024, 4, 128, 128, 12, 2_500_000),
    _short("shakespeare", 1024, 4, 128, 128, 12, 2_500_000, dropout=0.05),
    _short("shakespeare", 1024, 4, 128, 128, 12, 1_500_000, dropout=0.1),
    _short("shakespeare", 1024, 4, 128, 128, 12, 4_000_000, dropout=0.1),
    _short("shakespeare", 1024, 4, 128, 128, 12, 4_000_000, dropout=0.2),
    _short("shakespeare", 1024, 4, 192, 128, 12, 2_500_000, dropout=0.1),
    _short("shakespeare", 1024, 4, 192, 128, 48, 2_500_000, dropout=0.1),
    _short("shakespeare", 2048, 4, 192, 128, 12, 2_500_000, dropout=0.1),
    _short("shakespeare", 1024, 4, 256, 128, 12, 2_500_000, dropout=0.1),
    _short("shakespeare", 1024, 4, 256, 128, 12, 2_500_000, dropout=0.2),
    _short("mixed", 4096, 4, 128, 64, 12, 500_000),
)


def take(run: Short) -> Short:
    """The run, trained and judged on all of the held-out text."""
    import torch
    from tinygpt.dataset import TokenDataset
    from tinygpt.engine import Engine, configure_process
    from tinygpt.evaluation import evaluate
    from tinygpt.foreigntokenizer import load_tokenizer
    from tinygpt.model import GPT
    from tinygpt.trainer import Trainer

    folder, started = prepared(run), time.perf_counter()
    train = TokenDataset(folder / "train", "train", block_size=run.block_size)
    val = TokenDataset(folder / "val", "train", block_size=run.block_size)
    steps = max(1, round(run.n_tokens / (run.windows * run.block_size)))
    known = {name: value for name, value in RECIPE.items() if name in TrainConfig.__dataclass_fields__}
    settings = {
        **known,
        "max_steps": steps,
        "batch_size": run.windows,
        "learning_rate": run.learning_rate,
        "warmup_steps": min(RECIPE["warmup_steps"], steps // 10),
        "eval_every": 10**9,
    }
    engine = Engine(
        dtype="bfloat16",
        compile=True,
        attention="explicit",
        micro_batch=run.windows,
        loss_chunk=2 * run.d_model,
    )
    configure_process(engine)
    torch.manual_seed(0)
    trainer = Trainer(GPT(run.shape), train, config=TrainConfig(**settings), engine=engine)
    for _ in trainer.steps():
        pass
    lengths = load_tokenizer(folder / "train").token_lengths()
    bits = evaluate(trainer.model, val, batches=None, token_lengths=lengths).bits_per_byte
    assert bits is not None
    assert train.n_bytes is not None
    found = {"bits_per_byte": bits, "bytes_per_token": train.n_bytes / train.n_tokens}
    return Short(**{**asdict(run), **found, "seconds": time.perf_counter() - started})


def prepared(run: Short) -> Path:
    """The folder of the text's two parts as tokens."""
    train, val = parts(run.text)
    folder = FOLDER / f"{run.text}-{run.vocab_size}"
    how = Preparation(val_fraction=0.0)
    how.prepare(how.corpus([train]), folder / "train", vocab_size=run.vocab_size)
    how = Preparation(val_fraction=0.0, tokenizer=folder / "train")
    how.prepare(how.corpus([val]), folder / "val", vocab_size=run.vocab_size)
    return folder


def law_lines(runs: list[Short]) -> Iterator[str]:
    """What was found beside what the law says."""
    surveys = {text: survey([parts(text)[0]]) for text in sorted({run.text for run in runs})}
    yield "law: bits per byte found, by the law"
    for run in runs:
        text = surveys[run.text]
        expected = LAW.bits_per_byte(
            surprise=text.surprise,
            n_parameters=block_parameters(run.shape),
            vocab_size=run.vocab_size,
            n_tokens=run.n_tokens,
            bytes_per_token=run.bytes_per_token,
            text_bytes=text.n_bytes,
            tokens_per_step=run.windows * run.block_size,
            block_size=run.block_size,
        )
        name = f"{run.text}, {run.vocab_size:,} ids, {run.n_layer} x {run.d_model}, {run.windows} x {run.block_size}"
        name += f" tokens, {run.n_tokens / 1e6:.1f} M, rate {run.learning_rate:g}, dropout {run.dropout:g}"
        yield f"  {name:<84} {run.bits_per_byte:.4f} {expected:.4f} ({expected / run.bits_per_byte - 1:+.1%})"


def load(path: Path) -> list[Short]:
    """The runs in a file of results."""
    found = json.loads(path.read_text(encoding="utf-8")).get("law", []) if path.exists() else []
    return [Short(**run) for run in found]
