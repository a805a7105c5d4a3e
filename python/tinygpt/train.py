"""`tinygpt train`: train a model on text or on prepared shards, or continue a run."""

import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinygpt import runfolder
from tinygpt.command import byte_bar, run
from tinygpt.config import Options, load, read, to_yaml
from tinygpt.distributed import Ranks, end_process, label, silent
from tinygpt.header import read_header
from tinygpt.interruption import stop_on_signals
from tinygpt.manifest import Manifest
from tinygpt.modelconfig import GPTConfig
from tinygpt.preparation import Preparation
from tinygpt.staging import lock_folder, write_file
from tinygpt.trainconfig import TrainConfig

if TYPE_CHECKING:
    from tinygpt.dataset import TokenDataset
    from tinygpt.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class TrainFlags:
    """What to train on and where to write."""

    data: Path | None = None
    """Prepared folder or .bin file; or a text file or a folder of texts, prepared into OUT/data first."""
    val_data: Path | None = None
    """The same for validation; none takes the part of --data that --val-fraction sets apart."""
    out: Path | None = None
    """Folder of the run; none takes runs/NAME, NAME being that of --data."""
    resume: str | None = None
    """auto continues the run in --out if one is there; PATH continues the run in that folder."""
    stride: int | None = None
    """Tokens from the start of one window to that of the next; none takes --block-size."""
    cpu: bool = False
    """Stay on the CPU even if there is a GPU."""


GROUPS = {"": TrainFlags, "text": Preparation, "model": GPTConfig, "training": TrainConfig}
DEFAULTS = {"vocab_size": 8192}
DATA = "a prepared folder, a .bin file, a text file or a folder of texts"


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of `tinygpt train`: 0 done, 130 or 143 stopped by a signal after saving, 2 and 1 for errors."""
    return end_process(run(_joined, argv, verb=label("train")))


def _joined(argv: Sequence[str]) -> int:
    """`_train`, on every rank; the first alone prints."""
    ranks = Ranks.from_environment()
    with ranks.joined(), nullcontext() if ranks.is_first else silent():
        return _train(argv)


def _train(argv: Sequence[str]) -> int:
    about = "Trains a model on text or on prepared shards, or continues a run."
    options = read(argv, GROUPS, prog="tinygpt train", description=about, defaults=DEFAULTS)
    out, is_resumed = _run_folder(options.build(TrainFlags))
    recorded = load(out / "config.yaml", GROUPS) if is_resumed and (out / "config.yaml").is_file() else {}
    options = read(argv, GROUPS, prog="tinygpt train", defaults={**DEFAULTS, **recorded})
    options.build(Preparation), options.build(GPTConfig)  # refused before any work is done
    ranks = _ranks(options)
    # Nobody else's run is prepared over; the trainer takes the lock itself afterwards.
    with lock_folder(out) if ranks.is_first else nullcontext():
        trainer = _resumed(options, out, recorded, ranks) if is_resumed else _begun(options, out, ranks)
        flags = replace(options.build(TrainFlags), out=out)
        settings = to_yaml(flags, options.build(Preparation), trainer.model.config, trainer.config, without=("resume",))
        if ranks.is_first:
            write_file(out / "config.yaml", settings)
    return _fit(trainer, out)


def _ranks(options: Options) -> Ranks:
    """The processes of this run; what a run was recorded with does not bind one that continues it by itself."""
    config = options.build(TrainConfig)
    is_asked = "distributed" in options.given(TrainConfig) or Ranks.from_environment().how != "none"
    ranks = Ranks.from_environment(config.distributed if is_asked else "auto")
    ranks.check_share(config.windows_per_step)
    return ranks


def _run_folder(flags: TrainFlags) -> tuple[Path, bool]:
    """The run's folder, and whether a run in it is to be continued."""
    if flags.resume is not None and flags.resume != "auto":
        out = Path(flags.resume)
        if flags.out not in (None, out):
            raise ValueError(f"--resume {out} continues in {out}, but --out says {flags.out}; leave --out away")
        if not runfolder.steps(out):
            raise FileNotFoundError(f"{out}: no checkpoint to resume; looked for step-*/ in it")
        return out, True
    if flags.out is None and flags.data is None:
        raise ValueError(f"--data is missing: {DATA}")
    out = flags.out or Path("runs") / (flags.data or Path()).resolve().stem
    found = runfolder.steps(out)
    if found and flags.resume is None:
        choice = "--resume auto continues it, another --out begins anew"
        raise ValueError(f"{out} holds a run of {found[-1]} steps; {choice}")
    if not found and flags.data is None:
        raise ValueError(f"--data is missing: {DATA}")
    if not found and flags.data is not None and not flags.data.exists():
        raise FileNotFoundError(f"{flags.data}: no such file or folder; --data takes {DATA}")
    return out, bool(found)


def _begun(options: Options, out: Path, ranks: Ranks) -> "Trainer":
    """The trainer of a new run."""
    flags, how, config = options.build(TrainFlags), options.build(Preparation), options.build(TrainConfig)
    assert flags.data is not None  # _run_folder saw to it
    shape = options.build(GPTConfig)
    changes: dict[str, Any] = {} if flags.val_data is None else {"val_fraction": 0.0}
    data = _shards(flags.data, out / "data", how, shape.vocab_size, changes, ranks)
    val_data = None
    if flags.val_data is not None:
        kin = how.tokenizer or (data if (data / "tokenizer.json").is_file() else None)
        if kin is None and not _is_prepared(flags.val_data):
            raise ValueError(f"--val-data {flags.val_data} is text; --tokenizer must name the tokenizer of {data}")
        changes["tokenizer"] = kin
        val_data = _shards(flags.val_data, out / "val-data", how, shape.vocab_size, changes, ranks)
    tokenizer = how.named_tokenizer()

    import torch  # not before the text is prepared: it takes half a gigabyte

    from tinygpt.model import GPT
    from tinygpt.trainer import Trainer

    train, val = _datasets(data, val_data, shape, flags.stride)
    if train.vocab_size != shape.vocab_size and "vocab_size" in options.given(GPTConfig):
        print(f"vocab_size is {train.vocab_size}, that of the data")
    torch.manual_seed(config.seed)
    model = GPT(options.build(GPTConfig, vocab_size=train.vocab_size))
    config = replace(config, device="cpu") if flags.cpu else config
    return Trainer(model, train, val, config, folder=out, tokenizer=tokenizer, ranks=ranks)


def _resumed(options: Options, out: Path, recorded: Mapping[str, Any], ranks: Ranks) -> "Trainer":
    """The trainer of a run where it stopped; what the flags say must agree with it, or be of what may change."""
    flags, how, given = options.build(TrainFlags), options.build(Preparation), options.given(TrainFlags)
    moved = [name for name in ("data", "val_data") if name in given and not _same(given[name], recorded.get(name))]
    for name in moved:
        if not _is_prepared(given[name]):
            raise ValueError(f"{given[name]} is not what {out} was trained on; a run in another --out can take it")
    _refuse_other_text(options, out, recorded)
    changes = dict(options.given(TrainConfig))
    if given.get("cpu"):
        changes["device"] = "cpu"

    from tinygpt.trainer import Trainer

    shape = options.build(GPTConfig, vocab_size=recorded["vocab_size"]) if recorded else None
    train = val = None
    if shape is not None and flags.data is not None:
        data = flags.data if _is_prepared(flags.data) else out / "data"
        val_data = flags.val_data if flags.val_data is None or _is_prepared(flags.val_data) else out / "val-data"
        # A folder is found again by the run itself, a single file is not.
        if moved or ".bin" in (data.suffix, val_data and val_data.suffix):
            train, val = _datasets(data, val_data, shape, flags.stride)
    tokenizer = how.named_tokenizer()
    return Trainer.resume(out, train=train, val=val, tokenizer=tokenizer, model_config=shape, ranks=ranks, **changes)


def _refuse_other_text(options: Options, out: Path, recorded: Mapping[str, Any]) -> None:
    """What the tokens of a run were made with cannot change any more."""
    given = {**options.given(Preparation), **{k: v for k, v in options.given(TrainFlags).items() if k == "stride"}}
    other = [
        f"{name}: {recorded[name]} -> {value}" for name, value in given.items() if recorded.get(name, value) != value
    ]
    if other:
        raise ValueError(f"{out} was trained with other values ({'; '.join(other)}); use them or another folder")


def _same(one: Path, other: Path | None) -> bool:
    return other is not None and one.resolve() == other.resolve()


def _is_prepared(path: Path) -> bool:
    return path.suffix == ".bin" or (path / "manifest.json").is_file()


def _shards(
    path: Path, folder: Path, how: Preparation, vocab_size: int, changes: Mapping[str, Any], ranks: Ranks
) -> Path:
    """`path` if it holds tokens, else `folder`, which then holds the text of `path` as tokens."""
    if _is_prepared(path):
        plain = Preparation(tokenizer=how.tokenizer)
        for name in (f.name for f in fields(how) if getattr(how, f.name) != getattr(plain, f.name)):
            raise ValueError(f"--{name.replace('_', '-')} is for text, but {path} is prepared already; leave it away")
        return path
    with ranks.after_first():
        if ranks.is_first:
            _prepare(path, folder, replace(how, **changes), vocab_size)
    return folder


def _prepare(path: Path, folder: Path, how: Preparation, vocab_size: int) -> None:
    """Makes `folder` hold the text of `path` as tokens, and says so."""
    manifest, is_new = how.prepare(how.corpus([path]), folder, vocab_size=vocab_size, bar=byte_bar)
    n_tokens = sum(shard.tokens for shards in manifest.splits.values() for shard in shards)
    end = "" if is_new else ", prepared already and unchanged"
    print(f"{folder}: {n_tokens:,} tokens of {manifest.vocab_size:,} kinds from {path}{end}", flush=True)


def _datasets(
    data: Path, val_data: Path | None, shape: GPTConfig, stride: int | None
) -> tuple["TokenDataset", "TokenDataset | None"]:
    """The windows for training and those for validation, which are shorter where their tokens are few."""
    from tinygpt.dataset import TokenDataset

    block_size = shape.block_size
    files = [path for path in (data, val_data) if path is not None and path.is_file()]
    # A file of llm.c does not say how many ids there are: the flag does.
    sizes = {path: shape.vocab_size for path in files if read_header(path).vocab_size is None}
    train = TokenDataset(data, block_size=block_size, stride=stride, vocab_size=sizes.get(data))
    if val_data is None and not data.is_dir():
        return train, None
    path, split = (data, "val") if val_data is None else (val_data, None)
    n_tokens = read_header(path).n_tokens if path.is_file() else _n_tokens(path, split or "train")
    if n_tokens < 2:
        print(f"{path}: no text for validation; --val-fraction or --val-data gives some")
        return train, None
    if n_tokens <= block_size:
        print(f"{path}: {n_tokens} tokens for validation, so its windows are of {n_tokens - 1}")
    return train, TokenDataset(path, split, block_size=min(block_size, n_tokens - 1), vocab_size=sizes.get(path))


def _n_tokens(folder: Path, split: str) -> int:
    return sum(shard.tokens for shard in Manifest.load(folder).splits.get(split, ()))


def _fit(trainer: "Trainer", out: Path) -> int:
    """Trains, says what is trained and what came of it, and gives the exit code."""
    from tinygpt.engine import configure_process

    engine, train, windows = trainer.engine, trainer.train, trainer.config.windows_per_step
    configure_process(engine)
    print(f"{trainer.model.n_parameters:,} parameters on {engine.device}, {engine.dtype}, {engine.threads} CPU threads")
    if trainer.ranks.how != "none":
        print(f"{trainer.ranks.world_size} processes, {trainer.ranks.how}")
    steps = "as many steps as fit the time" if trainer.total_steps is None else f"{trainer.total_steps:,} steps"
    begin = f" from step {trainer.step:,}" if trainer.step else ""
    print(
        f"{train.n_tokens:,} tokens, {len(train):,} windows an epoch; {steps} of {windows} windows{begin}", flush=True
    )
    with stop_on_signals(trainer.stop) as interruption:
        result = trainer.fit()
    print(f"ended at step {result.step:,} ({result.reason}) after {result.seconds:.0f} s")
    if result.best_loss is not None:
        print(f"best validation loss {result.best_loss:.4f} nats per token, at step {result.best_step:,}")
    if result.evaluation is not None and result.evaluation.bits_per_byte is not None:
        print(f"last validation {result.evaluation.bits_per_byte:.4f} bits per byte")
    written = [out / name for name in ("best", "last", "metrics.jsonl", "config.yaml") if (out / name).exists()]
    print(f"written: {', '.join(map(str, written))}")
    if trainer.tokenizer is not None:
        print(f'next: tinygpt generate --checkpoint {out} --prompt "..." --temperature 0.8')
    if interruption.exit_code == 0 and result.reason in signal.Signals.__members__:  # it reached another rank
        return 128 + signal.Signals[result.reason]
    return interruption.exit_code


if __name__ == "__main__":
    sys.exit(main())
