"""`python -m benches [tokenizer|sources|training|generation]`, `recipe`, `planning`, `dropout` and `serve`."""

import argparse
import sys
from pathlib import Path

from benches import dropout, generation, planning, recipe, serve, sources, tokenizer, training
from benches.shape import TINY

SUITES = {
    "tokenizer": tokenizer.ROWS,
    "sources": sources.ROWS,
    "training": training.ROWS,
    "generation": generation.ROWS,
}


def main() -> None:
    if sys.argv[1:2] == ["recipe"]:
        recipe.main(sys.argv[2:])
        return
    if sys.argv[1:2] == ["planning"]:
        planning.main(sys.argv[2:])
        return
    if sys.argv[1:2] == ["dropout"]:
        dropout.main(sys.argv[2:])
        return
    if sys.argv[1:2] == ["serve"]:
        serve.main(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(
        prog="python -m benches",
        description="Speed and memory, against peers in one run; recipe, planning, dropout and serve have own options.",
    )
    parser.add_argument("suites", nargs="*", help="tokenizer, sources, training or generation; none runs all")
    parser.add_argument("--rounds", type=int, default=3, help="times that each side runs (default: 3)")
    known = [row for rows in SUITES.values() for row in rows]
    parser.add_argument("--rows", help=f"rows of the suites, of {','.join(known)} (default: all)")
    parser.add_argument(
        "--corpus", action="append", default=[], metavar="NAME=FILE", help="text to take in place of the samples"
    )
    parser.add_argument(
        "--peers",
        metavar="PYTHON",
        help="Python that has the peers (default: of tokenizer and sources, makes .venv-bench; else this one)",
    )
    parser.add_argument(
        "--nanogpt", type=Path, metavar="FOLDER", help="that with nanoGPT's model.py (default: none, and no such rows)"
    )
    parser.add_argument(
        "--mlp", choices=training.PEERS, default="gelu", help="feed-forward in training (default: gelu)"
    )
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    asked = arguments.rows.split(",") if arguments.rows else known
    suites = arguments.suites or [*SUITES]
    for name, names in [(name, [*SUITES]) for name in suites] + [(row, known) for row in asked]:
        if name not in names:
            parser.error(f"unknown {name}; there are {', '.join(names)}")
    if arguments.nanogpt is not None and not (arguments.nanogpt / "model.py").is_file():
        parser.error(f"--nanogpt {arguments.nanogpt}: there is no model.py in it")
    rows = {suite: tuple(row for row in asked if row in SUITES[suite]) for suite in suites}
    corpora = {name: Path(path) for name, _, path in (given.partition("=") for given in arguments.corpus)}
    for suite, run in (("tokenizer", tokenizer.main), ("sources", sources.main)):
        if rows.get(suite):
            run(tokenizer.Choice(rounds=arguments.rounds, rows=[*rows[suite]], corpora=corpora, peers=arguments.peers))
    if rows.get("training"):
        training.main(
            training.Choice(
                rounds=arguments.rounds,
                rows=rows["training"],
                peers=arguments.peers or sys.executable,
                nanogpt=arguments.nanogpt,
                mlp=arguments.mlp,
                shapes=TINY if arguments.tiny else None,
            )
        )
    if rows.get("generation"):
        generation.main(
            generation.Choice(
                rounds=arguments.rounds,
                rows=rows["generation"],
                peers=arguments.peers or sys.executable,
                nanogpt=arguments.nanogpt,
                is_tiny=arguments.tiny,
            )
        )


if __name__ == "__main__":
    main()
