"""What a run saw in a step: its windows, and the texts that they came from."""

from collections.abc import Iterator
from pathlib import Path

from tinygpt import lineage, runfolder
from tinygpt.anydataset import Span, share_of
from tinygpt.dataset import TokenDataset
from tinygpt.foreigntokenizer import load_tokenizer, tokenizer_in
from tinygpt.tracing import origin_of
from tinygpt.trainingstate import read_facts

_EXCERPT = 60
"""Characters of a window that are shown."""
_AROUND = 16
"""Tokens that are shown on each side of one."""


def windows_of(path: str | Path, step: int) -> Iterator[str]:
    """A line for each window of a step, from 1: where it lies, which text it begins in, and how it begins.

    Raises:
        ValueError: The run has no such step.
        FileNotFoundError: There is no run, or its data are gone.
    """
    run = Path(path)
    checkpoint = runfolder.newest(run)
    if checkpoint is None:
        raise FileNotFoundError(f"{run}: no checkpoint in it, so no run")
    facts = read_facts(checkpoint)
    config, taken = facts["config"], facts["progress"]["step"]
    if not 1 <= step <= taken:
        raise ValueError(f"{run}: its newest checkpoint is of step {taken}; --step must be from 1 to it, got {step}")
    data = lineage.open_data(facts["data"]["train"], run, "train")
    size = config["batch_size"] * config["grad_accum"]
    first, count = share_of(step - 1, batch_size=size, rank=0, world_size=1)
    yield f"step {step}: {count} windows of up to {data.block_size} tokens"
    for number, span in enumerate(data.spans(first, count, seed=config["seed"])):
        tokens = f"tokens {span.start:,} to {span.start + len(span.ids):,}"
        yield f"{number + 1:>5}  {_origin(span)}  {tokens}  {_begin(span)}"


def tokens_around(folder: str | Path, split: str, position: int) -> str:
    """The text of the tokens beside a place, the one there in brackets."""
    data, tokenizer = TokenDataset(folder, split, block_size=1), load_tokenizer(Path(folder))
    first = max(0, position - _AROUND)
    ids = data.tokens_at(first, min(2 * _AROUND + 1, data.n_tokens - first)).tolist()
    at = position - first
    before, token, after = (repr(tokenizer.decode(part))[1:-1] for part in (ids[:at], ids[at : at + 1], ids[at + 1 :]))
    return f"{before}[{token}]{after}"


def _origin(span: Span) -> str:
    if span.folder is None or span.split is None:
        return "tokens of a file"
    return str(origin_of(span.folder, span.split, span.start))


def _begin(span: Span) -> str:
    """The first characters of a window, on one line."""
    tokenizer = None if span.folder is None else tokenizer_in(span.folder)
    return "" if tokenizer is None else repr(tokenizer.decode(span.ids[:_EXCERPT].tolist())[:_EXCERPT])
