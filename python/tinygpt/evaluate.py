"""`tinygpt evaluate`: how good a model is, beside compressors and n-grams, and what it has by heart."""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tinygpt.command import byte_bar, run, write_now
from tinygpt.config import Options, read
from tinygpt.modelflags import ModelFlags
from tinygpt.reading import Reading
from tinygpt.samplingconfig import Sampling
from tinygpt.staging import write_file

if TYPE_CHECKING:
    from tinygpt.checkpoint import Checkpoint
    from tinygpt.evaluationreport import EvaluationReport, TextReport
    from tinygpt.heldout import HeldOut
    from tinygpt.tokenfiles import OpenTokens

_token_bar = partial(byte_bar, unit=" tokens")


@dataclass(frozen=True, kw_only=True)
class EvaluateFlags(ModelFlags):
    """Which model, on what, and how."""

    data: tuple[str, ...] = ()
    """Prepared folder, or files, folders and globs of text or chats, which are encoded with the model's tokenizer."""
    split: str = "val"
    """Split of a prepared folder: val or train."""
    by: Literal["none", "file", "label"] = "none"
    """Give the figures of each file, or of each label, too."""
    label_field: str = "label"
    """Key of the label in a record of .jsonl; meta.label for one in another object."""
    context: int | None = None
    """Most tokens that the model reads before one; none takes its block_size."""
    stride: int | None = None
    """Tokens from one window's start to the next; none takes --context, so that windows do not overlap."""
    apart: bool = False
    """Judge each document by itself; else windows run on over the ends of documents, as in training."""
    count_separators: bool = True
    """Count the token that ends a document."""
    max_tokens: int | None = None
    """Judge on the first so many tokens; none takes all."""
    baselines: bool = True
    """Compress the same bytes with zlib and zstd, and judge an n-gram model on the same tokens."""
    train_data: tuple[Path, ...] = ()
    """Prepared folders the n-gram model learns from and memorised text is searched in; none takes what the run
    says it was trained on, or the train split of --data."""
    ngram_order: int = 5
    """Tokens of the longest n-grams."""
    ngram_tokens: int = 5_000_000
    """Most training tokens that the n-gram model learns from; it takes up to 160 bytes of memory for each."""
    choices: Path | None = None
    """File of questions, each line {"context": ..., "choices": [...], "label": 0}."""
    choice_delimiter: str = " "
    """Stands between the context and a choice."""
    memorisation: bool = False
    """Let the model write, and search what it wrote in the training text."""
    n_samples: int = 20
    """Texts that the model writes for --memorisation."""
    sample_tokens: int = 200
    """Most tokens of each."""
    prompt: str = ""
    """What each continues; an empty one starts a document."""
    ngrams: tuple[int, ...] = (8, 16, 32)
    """Lengths of the n-grams that are searched, in tokens."""
    canary: Path | None = None
    """File of planted lines: is the second half of each told when the first is given?"""
    seed: int = 0
    """Seed of the texts and of the canaries' rivals."""
    json: bool = False
    """Print JSON instead of tables."""
    out: Path | None = None
    """Write what is printed into this file, too; one that ends in .json gets the JSON."""
    batch_size: int = 12
    """Windows in a forward pass."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of weights and activations; auto is float32 on the CPU. Probabilities are float32 always."""

    def __post_init__(self) -> None:
        super().__post_init__()
        names = ("context", "stride", "max_tokens", "ngram_order", "ngram_tokens", "n_samples", "sample_tokens")
        for name in (*names, "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.seed < 0:
            raise ValueError(f"seed must be 0 or above, got {self.seed}")
        if not self.ngrams or min(self.ngrams) < 1:
            raise ValueError(f"ngrams must be lengths from 1, got {' '.join(map(str, self.ngrams)) or 'none'}")
        if not (self.data or self.choices or self.memorisation or self.canary):
            raise ValueError("--data is missing: what to judge on; or give --choices, --memorisation or --canary")
        if self.context is not None and self.stride is not None and self.stride > self.context:
            raise ValueError(f"stride must be at most the context, {self.context}, got {self.stride}")


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of `tinygpt evaluate`: 0 done, 2 and 1 for errors, 130 stopped by Ctrl-C."""
    return run(_evaluate, argv, verb="evaluate")


def _evaluate(argv: Sequence[str]) -> int:
    about = (
        "Judges a model: loss, perplexity, bits per byte and per character, accuracy, beside what compressors and "
        "n-grams reach on the same bytes; questions with choices; what it has by heart."
    )
    groups = {"": EvaluateFlags, "text": Reading, "sampling": Sampling}
    options = read(argv, groups, prog="tinygpt evaluate", description=about)
    flags, reading, sampling = options.build(EvaluateFlags), options.build(Reading), options.build(Sampling)
    _check_use(flags, options)
    _check_out(flags.out)
    report = _report(flags, reading, sampling)
    table = "\n".join(report.lines())
    if flags.out is not None:
        is_json = flags.json or flags.out.suffix == ".json"
        write_file(flags.out, (report.to_json() if is_json else table) + "\n")
    write_now((report.to_json() if flags.json else table) + "\n")
    return 0


def _check_use(flags: EvaluateFlags, options: Options) -> None:
    """Nothing, if each flag that is given has something to say."""
    given = {**options.given(Reading), **options.given(Sampling), **options.given(EvaluateFlags)}
    uses = {
        "--data": (bool(flags.data), [*(field.name for field in fields(Reading)), *_OF_DATA]),
        "--memorisation": (flags.memorisation, [*(field.name for field in fields(Sampling)), *_OF_MEMORISATION]),
        "--choices": (flags.choices is not None, ["choice_delimiter"]),
        "--by label": (flags.by == "label", ["label_field"]),
        "--data with baselines": (bool(flags.data) and flags.baselines, ["ngram_order", "ngram_tokens"]),
        "--data or --memorisation": (bool(flags.data) or flags.memorisation, ["train_data"]),
        "--memorisation or --canary": (flags.memorisation or flags.canary is not None, ["seed"]),
    }
    for needed, (is_there, names) in uses.items():
        if wrong := [f"--{name.replace('_', '-')}" for name in names if name in given and not is_there]:
            raise ValueError(f"{wrong[0]} is of use only with {needed}; give that, too, or leave {wrong[0]} out")


def _check_out(out: Path | None) -> None:
    """Nothing, if a file can be written there, as it seems before anything is measured."""
    if out is not None and out.is_dir():
        raise IsADirectoryError(f"--out {out}: is a folder; name a file in it")
    if out is not None and not out.parent.is_dir():
        raise FileNotFoundError(f"--out {out}: no such folder {out.parent}; make it first")


_OF_DATA = ("split", "by", "context", "stride", "apart", "count_separators", "max_tokens", "baselines")
_OF_MEMORISATION = ("n_samples", "sample_tokens", "prompt", "ngrams")


def _report(flags: EvaluateFlags, reading: Reading, sampling: Sampling) -> "EvaluationReport":
    import torch  # only once the flags are right

    from tinygpt.checkpoint import Checkpoint
    from tinygpt.choices import evaluate_choices, read_questions
    from tinygpt.engine import settle
    from tinygpt.evaluationreport import EvaluationReport
    from tinygpt.heldout import open_held_out
    from tinygpt.memorisation import find_canaries, read_canaries

    questions = None if flags.choices is None else read_questions(flags.choices)
    lines = None if flags.canary is None else read_canaries(flags.canary)
    if flags.threads is not None:
        torch.set_num_threads(flags.threads)
    engine = settle(device="cpu" if flags.cpu else "auto", dtype=flags.dtype, threads=flags.threads)
    checkpoint = Checkpoint.load(flags.checkpoint, flags.chosen, device=engine.device)
    model, tokenizer = checkpoint.model.to(getattr(torch, engine.dtype)), checkpoint.tokenizer
    if tokenizer is None:
        raise ValueError(f"{checkpoint.folder}: no tokenizer beside the model, so no text can be given to it")
    notes: list[str] = []
    training = _training(flags, checkpoint, tokenizer.fingerprint, notes)
    found: dict[str, Any] = {}
    how: dict[str, Any] = {"split": flags.split, "reading": reading, "by": flags.by, "label_field": flags.label_field}
    how |= {"max_tokens": flags.max_tokens, "threads": flags.threads, "bar": byte_bar}
    held_out = open_held_out(flags.data, tokenizer, **how) if flags.data else nullcontext(None)
    with engine.products(), held_out as text:
        if text is not None:
            found["text"] = _text(flags, checkpoint, text, training, notes)
        if questions is not None:
            with byte_bar("choices", unit=" choices") as progress:
                asked: dict[str, Any] = {"batch_size": flags.batch_size, "progress": progress}
                delimiter = flags.choice_delimiter
                found["choices"] = evaluate_choices(model, tokenizer, questions, delimiter=delimiter, **asked)
        if flags.memorisation:
            found |= _memorisation(flags, checkpoint, sampling, training, text)
        if lines is not None:
            with byte_bar("canaries", unit=" lines") as progress:
                asked = {"seed": flags.seed, "batch_size": flags.batch_size, "progress": progress}
                found["canaries"] = tuple(find_canaries(model, tokenizer, lines, **asked))
    words = f"{engine.device}, {engine.dtype}, {engine.threads} CPU thread{'s' * (engine.threads > 1)}"
    return EvaluationReport(
        checkpoint=str(checkpoint.folder or flags.checkpoint),
        step=checkpoint.step,
        n_parameters=model.n_parameters,
        engine=words,
        notes=tuple(notes),
        **found,
    )


def _training(flags: EvaluateFlags, checkpoint: "Checkpoint", fingerprint: str, notes: list[str]) -> "list[OpenTokens]":
    """The training tokens, where they are needed and known."""
    from tinygpt.baselines import open_training, training_folders

    needs_ngrams = bool(flags.data) and flags.baselines
    if not (needs_ngrams or flags.memorisation):
        return []
    if flags.train_data:
        return open_training(flags.train_data, fingerprint)
    folders = [] if checkpoint.folder is None else training_folders(checkpoint.folder)
    folders = folders or [path for path in map(Path, flags.data) if (path / "manifest.json").is_file()]
    try:
        training = open_training(folders, fingerprint)
    except (ValueError, OSError) as error:
        notes.append(f"training text not read: {error}")
        training = []
    if flags.memorisation and not training:
        raise ValueError("--memorisation needs the training text; name its prepared folder with --train-data")
    if not training:
        notes.append("no n-gram model: the training text is not known; --train-data names its prepared folder")
    return training


def _text(
    flags: EvaluateFlags, checkpoint: "Checkpoint", text: "HeldOut", training: "list[OpenTokens]", notes: list[str]
) -> "TextReport":
    import numpy as np

    from tinygpt.baselines import learn_ngrams, measure_baselines
    from tinygpt.evaluation import DocumentsEvaluation, evaluate_documents
    from tinygpt.evaluationreport import TextReport

    context = checkpoint.model.config.block_size if flags.context is None else flags.context
    stride = context if flags.stride is None else flags.stride
    how: dict[str, Any] = {"apart": flags.apart, "count_separators": flags.count_separators}
    with _token_bar("evaluate") as progress:
        size: dict[str, Any] = {"context": context, "stride": stride, "batch_size": flags.batch_size}
        sums = evaluate_documents(checkpoint.model, text, **size, **how, progress=progress)
    numbers = np.zeros(0) if text.groups is None else text.groups
    chosen = [(name, numbers == i) for i, name in enumerate(text.names)]
    rows = [DocumentsEvaluation.of("all", sums), *(DocumentsEvaluation.of(name, sums, each) for name, each in chosen)]
    found: dict[str, Any] = {}
    if flags.baselines:
        same = {(each.folder, each.name) for each in training} & {(text.opened.folder, text.opened.name)}
        if same:
            notes.append("no n-gram model: it would be judged on what it has learnt; --train-data names other text")
        ngram = None
        if training and not same:
            ngram = learn_ngrams(training, max_tokens=flags.ngram_tokens, order=flags.ngram_order)
            found |= {"ngram_order": ngram.order, "ngram_tokens": ngram.n_tokens}
        others = measure_baselines(text, sums, ngram, **how, bar=byte_bar)
        if others[0].zstd is None and others[0].zlib is not None:
            notes.append('zstd is not measured: it needs zstandard, pip install "tinygpt[evaluate]"')
        found["baselines"] = tuple(each for each, row in zip(others, rows, strict=True) if row is not None)
    return TextReport(
        name=text.opened.name,
        context=context,
        stride=stride,
        groups=tuple(row for row in rows if row is not None),
        **how,
        **found,
    )


def _memorisation(
    flags: EvaluateFlags,
    checkpoint: "Checkpoint",
    sampling: Sampling,
    training: "list[OpenTokens]",
    text: "HeldOut | None",
) -> dict[str, Any]:
    from tinygpt.memorisation import memorisation, stretches, write_samples

    tokenizer = checkpoint.tokenizer
    assert tokenizer is not None
    size: dict[str, Any] = {"n_samples": flags.n_samples, "n_tokens": flags.sample_tokens}
    with byte_bar("write", unit=" texts") as progress:
        how: dict[str, Any] = {"prompt": flags.prompt, "sampling": sampling, "seed": flags.seed, "progress": progress}
        texts = write_samples(checkpoint.model, tokenizer, **size, **how)
    with byte_bar("search") as progress:
        search = partial(memorisation, training=training, tokenizer=tokenizer, ngrams=flags.ngrams, progress=progress)
        found = {"memorisation": search(texts)}
        if text is not None:
            found["held_out_memorisation"] = search(stretches(text, **size))
    return found


if __name__ == "__main__":
    sys.exit(main())
