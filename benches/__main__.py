"""`python -m benches [tokenizer|training] [--rounds N] [--rows T1,E1] [--corpus NAME=FILE ...]`."""

import argparse
from pathlib import Path

from benches import tokenizer, training

SUITES = ["tokenizer", "training"]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benches", description="Speed and memory, against peers in the same run."
    )
    parser.add_argument("suites", nargs="*", help="tokenizer or training; none runs both")
    parser.add_argument("--rounds", type=int, default=3, help="times that each side runs (default: 3)")
    parser.add_argument("--rows", help=f"rows of the tokenizer suite, of {','.join(tokenizer.ROWS)} (default: all)")
    parser.add_argument(
        "--corpus", action="append", default=[], metavar="NAME=FILE", help="text to take in place of the samples"
    )
    parser.add_argument("--peers", metavar="PYTHON", help="Python that has the peers (default: makes .venv-bench)")
    arguments = parser.parse_args()
    rows = arguments.rows.split(",") if arguments.rows else [*tokenizer.ROWS]
    suites = arguments.suites or SUITES
    for name, known in [(name, SUITES) for name in suites] + [(row, [*tokenizer.ROWS]) for row in rows]:
        if name not in known:
            parser.error(f"unknown {name}; there are {', '.join(known)}")
    if "tokenizer" in suites:
        corpora = {name: Path(path) for name, _, path in (given.partition("=") for given in arguments.corpus)}
        tokenizer.main(tokenizer.Choice(rounds=arguments.rounds, rows=rows, corpora=corpora, peers=arguments.peers))
    if "training" in suites:
        training.main(arguments.rounds)


if __name__ == "__main__":
    main()
