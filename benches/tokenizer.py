"""The tokenizer against its peers, row by row; the function of a row says what it is and what it aims at."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from tinygpt import Tokenizer

from benches import encoding, filing, learning, peers
from benches.answers import save_ranks
from benches.corpora import gpt2_ranks, texts
from benches.setting import VOCAB_SIZE, Setting
from benches.table import Row, cells, report

ROWS = {**learning.ROWS, **encoding.ROWS, **filing.ROWS}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What of the suite to run, and on what."""

    rounds: int = 3
    rows: list[str] = field(default_factory=lambda: [*ROWS])
    corpora: dict[str, Path] = field(default_factory=dict)
    """Name -> text file; none takes the samples, or the sources of this machine's Python."""
    peers: str | None = None
    """The Python that has the peers; None makes `.venv-bench`."""


def main(choice: Choice) -> None:
    """Runs the rows and writes `benches/results/tokenizer.json`."""
    python = choice.peers or peers.interpreter()
    with tempfile.TemporaryDirectory(prefix="tinygpt-bench-") as name:
        folder = Path(name)
        found = texts(folder, choice.corpora)
        for text in found:
            print(f"{text.name}: {text.mb:.0f} MB", flush=True)
        ranks = gpt2_ranks() or _trained_ranks(found[0].path, folder / "trained.tiktoken")
        setting = Setting(folder=folder, texts=tuple(found), ranks=ranks, rounds=choice.rounds, peers=python)
        rows: list[Row] = []
        for id in choice.rows:
            for row in ROWS[id](setting):
                rows.append(row)
                print("  ".join(filter(None, cells(row))), flush=True)
        report("tokenizer" if set(choice.rows) == set(ROWS) else "tokenizer-part", rows, python=python)


def _trained_ranks(path: Path, place: Path) -> Path:
    """A vocabulary learnt from the text, where the samples have none."""
    tokenizer = Tokenizer.train(path, vocab_size=VOCAB_SIZE)
    special = set(tokenizer.special_tokens.values())
    save_ranks(str(place), [tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size) if i not in special])
    return place
