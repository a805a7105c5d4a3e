"""`tinygpt train`: train a model on text or on prepared shards, or continue a run."""

if __name__ == "__main__":  # Ctrl-C may come during the imports below
    from tinygpt.interruption import leave_on_interrupt

    leave_on_interrupt()

import os
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinygpt import runfolder
from tinygpt.anytokenizer import AnyTokenizer
from tinygpt.command import byte_bar, run
from tinygpt.config import Options, load, read, to_yaml
from tinygpt.distributed import Ranks, end_process, label, silent
from tinygpt.foreigntokenizer import tokenizer_in
from tinygpt.interruption import stop_on_signals
from tinygpt.modelconfig import GPTConfig
from tinygpt.preparation import Preparation
from tinygpt.staging import lock_folder, write_file
from tinygpt.trackers import check_packages
from tinygpt.trainconfig import RECIPE, TrainConfig
from tinygpt.trainingdata import (
    Opening,
    Source,
    common_tokenizer,
    parse_sources,
    places,
    prepare_sources,
    refuse_text_settings,
    refuse_useless_validation,
    tokenizer_place,
)

if TYPE_CHECKING:
    from tinygpt.anydataset import AnyDataset
    from tinygpt.checkpoint import Checkpoint
    from tinygpt.model import GPT
    from tinygpt.trainer import Trainer, TrainResult


@dataclass(frozen=True, kw_only=True)
class TrainFlags:
    """What to train on and where to write."""

    data: tuple[str, ...] = ()
    """Prepared folder or file of tokens (.bin, .npy, .pt); or text, or chats (.jsonl), prepared into OUT/data first.
    Several, or the flag several times, are mixed by their sizes, or by weights as in PATH:0.7."""
    val_data: tuple[str, ...] = ()
    """The same for validation, of a prepared folder its train split; none takes the val split of --data, or the part of
    its text that --val-fraction sets apart."""
    token_dtype: str | None = None
    """Type of a token in a .bin without a header, such as uint16; such files, those of llm.c, .npy and .pt need
    --vocab-size."""
    init_from: Path | None = None
    """Start from this model: a run, a checkpoint, a Hugging Face folder, or nanoGPT's ckpt.pt with --allow-pickle; its
    shape and tokenizer are taken."""
    allow_pickle: bool = False
    """Let --init-from name nanoGPT's ckpt.pt, read as plain data: none of its code is run."""
    out: Path | None = None
    """Folder of the run; none takes runs/NAME, NAME being that of --data."""
    resume: str | None = None
    """auto continues the run in --out if one is there; PATH continues that run, or a run from that checkpoint of it."""
    stride: int | None = None
    """Tokens from the start of one window to that of the next; none takes --block-size."""
    cpu: bool = False
    """Stay on the CPU even if there is a GPU."""


GROUPS = {"": TrainFlags, "text": Preparation, "model": GPTConfig, "training": TrainConfig}
DEFAULTS = RECIPE
DATA = "a prepared folder, a file of tokens (.bin, .npy, .pt), text or chats (.jsonl)"


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
    defaults = _defaults({**options.given(GPTConfig), **options.given(TrainConfig)})
    out, is_resumed = _run_folder(options.build(TrainFlags))
    recorded = load(out / "config.yaml", GROUPS) if is_resumed and (out / "config.yaml").is_file() else {}
    options = read(argv, GROUPS, prog="tinygpt train", defaults={**defaults, **recorded})
    for group in (Preparation, GPTConfig):
        options.build(group)  # refused before any work is done
    config = options.build(TrainConfig)
    check_packages(tensorboard=config.tensorboard, wandb=config.wandb)
    ranks = _ranks(options)
    with lock_folder(out) if ranks.is_first else nullcontext():  # nobody else's run is prepared over
        trainer, how = _resumed(options, out, recorded, ranks) if is_resumed else _begun(options, out, ranks)
    flags = replace(options.build(TrainFlags), out=out)
    settings = to_yaml(flags, how, trainer.model.config, trainer.config, without=("resume",))
    with trainer.locked():  # to the end: the settings that stand there are those of the run that is trained there
        trainer.check_folder()
        if ranks.is_first:
            write_file(out / "config.yaml", settings)
        trainer.command = shlex.join(["tinygpt", "train", *argv])
        return _fit(trainer, out)


def _ranks(options: Options) -> Ranks:
    """The processes of this run; what a run was recorded with does not bind one that continues it by itself."""
    config = options.build(TrainConfig)
    is_asked = "distributed" in options.given(TrainConfig) or Ranks.from_environment().how != "none"
    ranks = Ranks.from_environment(config.distributed if is_asked else "auto")
    ranks.check_share(config.windows_per_step)
    return ranks


def _defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe, without what does not go with the choices of the user."""
    left_out = set()
    if given.get("optimizer", "muon") != "muon" or given.get("distributed") == "fsdp":
        left_out = {"optimizer", "learning_rate"}  # the rate is Muon's, which needs whole matrices
    is_llama = given.get("position", "rope") == "rope" and given.get("norm", "rmsnorm") == "rmsnorm"
    if not is_llama or given.get("bias") or given.get("mlp") == "gelu":  # no standard class has both
        left_out.add("qk_norm")
    return {name: value for name, value in DEFAULTS.items() if name not in left_out}


def _run_folder(flags: TrainFlags) -> tuple[Path, bool]:
    """The run's folder, and whether a run in it is to be continued."""
    if flags.resume is not None and flags.resume != "auto":
        out, _ = runfolder.run_and_step(Path(flags.resume))
        if flags.out not in (None, out):
            raise ValueError(f"--resume {out} continues in {out}, but --out says {flags.out}; leave --out away")
        if not runfolder.steps(out):
            raise FileNotFoundError(f"{out}: no checkpoint to resume; looked for step-*/ in it")
        return out, True
    if flags.out is None and not flags.data:
        raise ValueError(f"--data is missing: {DATA}")
    name = Source.parse(flags.data[0]).path if flags.data else Path()
    out = flags.out or Path("runs") / name.resolve().stem
    found = runfolder.steps(out)
    if found and flags.resume is None:
        choice = "--resume auto continues it, another --out begins anew"
        raise ValueError(f"{out} holds a run of {found[-1]} steps; {choice}")
    if not found and not flags.data:
        raise ValueError(f"--data is missing: {DATA}")
    if not found:
        parse_sources(flags.data, "--data"), parse_sources(flags.val_data, "--val-data")
    return out, bool(found)


def _begun(options: Options, out: Path, ranks: Ranks) -> "tuple[Trainer, Preparation]":
    """The trainer of a new run, and how text was prepared for it."""
    flags, how, config = options.build(TrainFlags), options.build(Preparation), options.build(TrainConfig)
    shape, given = options.build(GPTConfig), options.given(GPTConfig)
    base = None if flags.init_from is None else _base(flags, given)
    train_sources, val_sources = parse_sources(flags.data, "--data"), parse_sources(flags.val_data, "--val-data")
    refuse_text_settings([*train_sources, *val_sources], how)
    refuse_useless_validation(train_sources, val_sources, how)
    if base is not None:
        shape = base.model.config
        how = _with_tokenizer_of(base, how, [*train_sources, *val_sources])
    changes: dict[str, Any] = {"val_fraction": 0.0} if val_sources else {}
    ways: dict[str, Any] = {"vocab_size": shape.vocab_size, "bar": byte_bar, "say": _say}
    data = _prepared(train_sources, out / "data", replace(how, **changes), ranks, ways)
    val_data: list[Path] = []
    if val_sources:
        kin = tokenizer_place(data) or how.tokenizer
        if kin is None and not all(source.is_tokens for source in val_sources):
            raise ValueError(
                f"--val-data {flags.val_data[0]} is text; --tokenizer must name the tokenizer of {data[0]}"
            )
        changes["tokenizer"] = kin
        val_data = _prepared(val_sources, out / "val-data", replace(how, **changes), ranks, ways)
    named, beside = how.named_tokenizer(), tokenizer_place(data)
    own = None if base is None else base.tokenizer
    tokenizer = common_tokenizer(named, None if beside is None else tokenizer_in(beside), own)

    import torch  # not before the text is prepared: it takes half a gigabyte

    from tinygpt.model import GPT
    from tinygpt.trainer import Trainer

    n_ids = shape.vocab_size if base is not None or "vocab_size" in given else None
    opening = _opening(flags, shape, n_ids if named is None else named.vocab_size, tokenizer)
    train, val = _datasets(opening, (data, train_sources), (val_data, val_sources))
    if given.get("vocab_size", train.vocab_size) != train.vocab_size:
        print(f"vocab_size is {train.vocab_size}, that of the data")
    if base is not None:
        model = _fitted(base, shape, train)
    else:
        torch.manual_seed(config.seed)
        model = GPT(options.build(GPTConfig, vocab_size=train.vocab_size))
    config = replace(config, device="cpu") if flags.cpu else config
    say = partial(print, flush=True)
    trainer = Trainer(model, train, val, config, folder=out, tokenizer=tokenizer, ranks=ranks, say=say)
    # A tokenizer that was named is named with what it got here, or a continued run would find another one.
    return trainer, replace(options.build(Preparation), add_chat_tokens=how.add_chat_tokens)


def _prepared(
    sources: Sequence[Source], folder: Path, how: Preparation, ranks: Ranks, ways: Mapping[str, Any]
) -> list[Path]:
    """Where the tokens of the sources lie; the first rank makes what is not made yet."""
    with ranks.after_first():
        if ranks.is_first:
            return prepare_sources(sources, folder, how, **ways)
    return places(sources, folder)


def _base(flags: TrainFlags, given: Mapping[str, Any]) -> "Checkpoint":
    """The model that --init-from names, of the shape that the flags say."""
    from tinygpt.finetuning import refuse_other_shape, with_context
    from tinygpt.importing import load_model

    path = flags.init_from
    assert path is not None  # or there were no base
    base = load_model(path, allow_pickle=flags.allow_pickle)
    refuse_other_shape(f"--init-from {path}", base.model, base.tokenizer, given)
    config = base.model.config
    changes = {name: given.get(name, getattr(config, name)) for name in ("block_size", "dropout")}
    base.model = with_context(base.model, **changes)
    return base


def _with_tokenizer_of(base: "Checkpoint", how: Preparation, sources: Sequence[Source]) -> Preparation:
    """The preparation of text for the model that --init-from named."""
    from tinygpt.finetuning import with_tokenizer_of

    return with_tokenizer_of(base, how, [source.path for source in sources if not source.is_tokens])


def _fitted(base: "Checkpoint", shape: GPTConfig, train: "AnyDataset") -> "GPT":
    """The model that --init-from named, with the vocabulary that the data need."""
    from tinygpt.finetuning import fit_to_data

    assert base.folder is not None  # it was loaded
    model = fit_to_data(
        base.folder, base.model, base.tokenizer, fingerprint=train.fingerprint, vocab_size=train.vocab_size
    )
    grown = model.config.vocab_size - shape.vocab_size
    end = f", {grown} ids more" if grown else ""
    print(f"starting from {base.folder}: {model.architecture}, {model.n_parameters:,} parameters{end}")
    return model


def _resumed(options: Options, out: Path, recorded: Mapping[str, Any], ranks: Ranks) -> "tuple[Trainer, Preparation]":
    """The trainer of a run where it stopped; what the flags say must agree with it, or be of what may change."""
    flags, how, given = options.build(TrainFlags), options.build(Preparation), options.given(TrainFlags)
    # What was not named anew may be gone: the run has its own copy of what it prepared.
    named = {name: [Source.parse(text) for text in getattr(flags, name)] for name in ("data", "val_data")}
    moved = [name for name in named if name in given and given[name] != recorded.get(name)]
    for name in moved:
        parse_sources(given[name], f"--{name.replace('_', '-')}")
        before = [Source.parse(text).path.resolve() for text in recorded.get(name) or ()]
        for i, source in enumerate(named[name]):
            if not source.is_tokens and before[i : i + 1] != [source.path.resolve()]:
                raise ValueError(f"{source.path} is not what {out} was trained on; a run in another --out can take it")
        if len(named[name]) < len(before) and not all(source.is_tokens for source in named[name]):
            flag, found = f"--{name.replace('_', '-')}", f"{len(named[name])} of the {len(before)} sources"
            raise ValueError(f"{flag} names {found} that {out} was trained on; name all of them, or leave {flag} away")
    _refuse_other_text(options, out, recorded)
    changes = dict(options.given(TrainConfig))
    if given.get("cpu"):
        changes["device"] = "cpu"

    from tinygpt.trainer import Trainer

    shape = options.build(GPTConfig, vocab_size=recorded["vocab_size"]) if recorded else None
    train = val = None
    if shape is not None and flags.data:
        data, val_data = places(named["data"], out / "data"), places(named["val_data"], out / "val-data")
        # A folder is found again by the run itself, a single file is not.
        if moved or any(path.is_file() for path in (*data, *val_data)):
            newest = runfolder.newest(out)
            opening = _opening(flags, shape, shape.vocab_size, None if newest is None else tokenizer_in(newest))
            train, val = _datasets(opening, (data, named["data"]), (val_data, named["val_data"]))
    tokenizer = how.named_tokenizer()
    start = out if flags.resume in (None, "auto") else Path(flags.resume)
    changes["ranks"] = ranks
    trainer = Trainer.resume(start, train=train, val=val, tokenizer=tokenizer, model_config=shape, **changes)
    return trainer, how


def _refuse_other_text(options: Options, out: Path, recorded: Mapping[str, Any]) -> None:
    """What the tokens of a run were made with, and the model it began with, cannot change any more."""
    fixed = ("stride", "token_dtype", "init_from")
    given = {**options.given(Preparation), **{k: v for k, v in options.given(TrainFlags).items() if k in fixed}}
    other = [
        f"{name}: {recorded[name]} -> {value}" for name, value in given.items() if recorded.get(name, value) != value
    ]
    if other:
        raise ValueError(f"{out} was trained with other values ({'; '.join(other)}); use them or another folder")


def _opening(flags: TrainFlags, shape: GPTConfig, vocab_size: int | None, tokenizer: AnyTokenizer | None) -> Opening:
    return Opening(
        block_size=shape.block_size,
        stride=flags.stride,
        vocab_size=vocab_size,
        token_dtype=flags.token_dtype,
        tokenizer=tokenizer,
    )


def _datasets(
    opening: Opening, data: tuple[list[Path], list[Source]], val_data: tuple[list[Path], list[Source]]
) -> tuple["AnyDataset", "AnyDataset | None"]:
    """The windows for training and those for validation; each from places and sources."""
    opening.check_token_dtype([*data[0], *val_data[0]])
    train = opening.train(*data)
    opening = replace(opening, vocab_size=train.vocab_size)  # of files that do not say it
    val = opening.validation(*val_data, None, _say) if val_data[0] else opening.validation(*data, "val", _say)
    return train, val


def _say(line: str) -> None:
    print(line, flush=True)


def _fit(trainer: "Trainer", out: Path) -> int:
    """Trains, says what is trained and what came of it, and gives the exit code."""
    from tinygpt.engine import configure_process

    configure_process(trainer.engine)
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # nothing is reported home that the user did not name
    _say_plan(trainer)
    with stop_on_signals(trainer.stop) as interruption:
        result = trainer.fit()
    _say_result(result)
    names = ("report.html", "best", "last", "metrics.jsonl", "metrics.csv", "tensorboard", "wandb", "config.yaml")
    print(f"written: {', '.join(str(out / name) for name in names if (out / name).exists())}")
    if trainer.tokenizer is not None:
        chat = " --chat" if trainer.is_chat else ""
        print(f'next: tinygpt generate --checkpoint {out}{chat} --prompt "..." --temperature 0.8')
    if interruption.exit_code == 0 and result.reason in signal.Signals.__members__:  # it reached another rank
        return 128 + signal.Signals[result.reason]
    return interruption.exit_code


def _say_plan(trainer: "Trainer") -> None:
    """What will be trained, and what it will take."""
    engine, train, windows = trainer.engine, trainer.train, trainer.config.windows_per_step
    print(f"{trainer.model.n_parameters:,} parameters; {engine}")
    if trainer.ranks.how != "none":
        print(f"{trainer.ranks.world_size} processes, {trainer.ranks.how}")
    print(f"{train.n_tokens:,} tokens, {len(train):,} windows an epoch, {windows} windows a step")
    if trainer.step:
        changed = f" with {', '.join(trainer.changed)}" if trainer.changed else ""
        print(f"goes on from step {trainer.step:,}{changed}")
    print(trainer.forecast)
    print(trainer.disk_room, flush=True)


def _say_result(result: "TrainResult") -> None:
    """What came of it."""
    print(f"ended at step {result.step:,} ({result.reason}) after {result.seconds:.0f} s")
    if result.skipped:
        print(f"{result.skipped} steps were skipped, see the warnings above")
    if result.best_loss is not None:
        print(f"best validation loss {result.best_loss:.4f} nats per token, at step {result.best_step:,}")
    for name, found in (("validation", result.evaluation), ("training", result.evaluation_train)):
        if found is not None:
            line = f"last on {name} data: {found.loss:.4f} nats per token, perplexity {found.perplexity:.2f}"
            if found.bits_per_byte is not None:
                line += f", {found.bits_per_byte:.4f} bits per byte"
            if found.bits_per_character is not None:
                line += f", {found.bits_per_character:.4f} per character"
            print(line)


if __name__ == "__main__":
    sys.exit(main())
