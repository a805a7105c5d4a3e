"""`python -m benches [tokenizer|training] [--rounds N]`."""

import argparse

from benches import tokenizer, training

SUITES = {"tokenizer": tokenizer.main, "training": training.main}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benches", description="Speed and memory, against peers in the same run."
    )
    parser.add_argument("suites", nargs="*", choices=[*SUITES], help="which; none runs all")
    parser.add_argument("--rounds", type=int, default=3, help="times that each side runs (default: 3)")
    arguments = parser.parse_args()
    for name in arguments.suites or SUITES:
        SUITES[name](arguments.rounds)


if __name__ == "__main__":
    main()
