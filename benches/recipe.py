"""The race of recipes: whose model predicts unseen text better after the same seconds on the same processor.

`python -m benches recipe --part shakespeare` holds the recipe of nanoGPT's README (4 layers, width 128, 64 characters,
2,000 steps of 12 windows; 1.88 nats there), run by our own trainer, against the default recipe of the same size.
`--part english` holds transformers' Llama by AdamW (`llamaside`) against `tinygpt.train`, on 50 MB of English,
vocabulary 8,192, 13.8 million parameters. Ours is the command; its seconds are those of its optimiser steps, compiling
included, evaluation, saving and the one choice of an engine left out, as metrics.jsonl has them. Theirs has no
compiling in its seconds. Ours is evaluated at its end: `--share 0.25` is a run planned for a quarter of their seconds.

It takes hours, so it runs in parts (`--part`, `--side`, `--seeds`, `--rates`), each run is added to
`benches/results/recipe.json` as it ends, and the table shows all that is there. `--label` and `--flags` try another
recipe of ours under a name of its own.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from benches.corpora import texts
from benches.llamaside import Task
from benches.ourside import metrics, n_parameters
from benches.table import RESULTS, machine

PLACE = RESULTS / "recipe.json"
THEIR_EVALUATIONS = 10
PARTS, SIDES = ("shakespeare", "english"), ("theirs", "ours")
Curve = Sequence[Sequence[float]]
"""One row an evaluation: seconds of training, nats per token, bits per byte."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One race: the text as tokens, the size of both models, and how they are evaluated."""

    prepare: str
    shape: str
    theirs: str
    """The other recipe as flags of ours; "" where the other side is transformers."""
    eval_windows: int
    eval_batch_size: int
    goals: Mapping[str, float]


RACES = {
    "shakespeare": Part(
        prepare="--pattern char --val-fraction 0.1",
        shape="--n-layer 4 --n-head 4 --d-model 128 --block-size 64 --stride 8",  # windows that start about anywhere
        theirs="--position learned --norm layernorm --mlp gelu --d-ff 512 --no-bias --no-qk-norm --tie-embeddings "
        "--dropout 0 --batch-size 12 --optimizer adamw --learning-rate 1e-3 --min-lr-fraction 0.1 --schedule cosine "
        "--warmup-steps 100 --beta1 0.9 --beta2 0.99 --weight-decay 0.1 --grad-clip 1",
        eval_windows=1742,  # with as many tokens as the validation text has
        eval_batch_size=67,
        goals={"theirs nats": 1.88, "nats better": 0.15, "share of seconds": 0.25},
    ),
    "english": Part(
        prepare="--vocab-size 8192 --val-fraction 0.01",
        shape="--n-layer 6 --n-head 6 --d-model 384 --block-size 256",
        theirs="",
        eval_windows=240,
        eval_batch_size=12,
        goals={"share of seconds": 1 / 3},
    ),
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One run."""

    part: str
    side: str
    label: str
    """Of ours the name of the recipe, of theirs the learning rate."""
    seed: int
    how: str
    """The flags."""
    steps: int
    tokens: int
    parameters: int
    curve: Curve

    @property
    def key(self) -> tuple[str, str, str, int]:
        return self.part, self.side, self.label, self.seed

    @property
    def seconds(self) -> float:
        return self.curve[-1][0]


def our_run(race: str, data: Path, folder: Path, *, flags: str, seed: int, limit: str, threads: int) -> dict[str, Any]:
    """A run of the command: its curve, and what was trained."""
    part, run = RACES[race], folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    batches = -(-part.eval_windows // part.eval_batch_size)
    words = ["--data", str(data), "--out", str(run), "--cpu", "--threads", str(threads), "--seed", str(seed)]
    words += ["--log-every", "1", "--eval-every", "1000000", "--save-every", "1000000", "--keep", "1"]
    words += ["--eval-batches", str(batches), "--eval-batch-size", str(part.eval_batch_size), "--no-eval-train"]
    _command("tinygpt.train", [*words, *shlex.split(f"{part.shape} {limit} {flags}")])
    seconds, tokens, curve = 0.0, 0, []
    lines = metrics(run)
    for line in lines:
        seconds += (line["tokens"] - tokens) / line["resources"]["tokens_per_second"]
        tokens = line["tokens"]
        if "evaluation" in line:
            curve.append((seconds, line["evaluation"]["loss"], line["evaluation"]["bits_per_byte"]))
    return {"curve": curve, "steps": lines[-1]["step"], "tokens": tokens, "parameters": n_parameters(run)}


def their_run(race: str, data: Path, *, rate: float, seed: int, seconds: float, threads: int) -> dict[str, Any]:
    """A run of transformers' Llama of the same shape."""
    part = RACES[race]
    words = part.shape.replace("--", "").replace("-", "_").split()
    shape = dict(zip(words[::2], map(int, words[1::2]), strict=True))
    task = Task(
        data=str(data), **shape, d_ff=1024, batch_size=12, learning_rate=rate, seconds=seconds, seed=seed,
        evaluations=THEIR_EVALUATIONS, eval_windows=part.eval_windows, threads=threads,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(_command("benches.llamaside", [json.dumps(asdict(task))]).splitlines()[-1])
    return found


def outcomes(choice: argparse.Namespace, part: str, folder: Path, known: list[Outcome]) -> Iterator[Outcome]:
    """The runs that were asked for, one after the other."""
    data, race = folder / part, RACES[part]
    words = [str(_text(choice.text, part, folder)), "--out", str(data), *race.prepare.split()]
    _command("tinygpt.prepare", words)
    for seed in choice.seeds:
        common: dict[str, Any] = {"seed": seed, "threads": choice.threads}
        if "theirs" in choice.sides and not race.theirs:
            for rate in choice.rates:
                found = their_run(part, data, rate=rate, seconds=60 * choice.minutes, **common)
                yield Outcome(part=part, side="theirs", label=f"{rate:g}", how=f"rate {rate:g}", seed=seed, **found)
        elif "theirs" in choice.sides:
            limit = f"--max-steps {choice.steps}"
            found = our_run(part, data, folder, flags=race.theirs, limit=limit, **common)
            known.append(Outcome(part=part, side="theirs", label="nanoGPT", how=race.theirs, seed=seed, **found))
            yield known[-1]
        if "ours" in choice.sides:
            budget = 60 * choice.minutes if not race.theirs else _seconds_of_theirs(known, part, seed)
            limit = f"--max-seconds {choice.share * budget:.1f}"
            found = our_run(part, data, folder, flags=choice.flags, limit=limit, **common)
            label = choice.label if choice.share == 1 else f"{choice.label}, {choice.share:g} of the seconds"
            yield Outcome(part=part, side="ours", label=label, how=choice.flags, seed=seed, **found)


def table(known: Sequence[Outcome]) -> str:
    """Each recipe of ours beside the best of theirs, means over the seeds that both have."""
    lines = []
    for part in PARTS:
        there = [each for each in known if each.part == part]
        theirs, ours = _by_label(there, "theirs"), _by_label(there, "ours")
        if not theirs:
            continue
        lines.append(f"\n{part}")
        lines += [_line(f"theirs, {label}", list(runs.values())) for label, runs in theirs.items()]
        # The machine's speed drifts, so recipes are compared on the seeds that all of them have.
        shared = set.intersection(*(set(runs) for runs in theirs.values()))
        best = min(theirs.values(), key=lambda runs: mean(runs[seed].curve[-1][1] for seed in shared or runs))
        for label, runs in ours.items():
            pairs = [(runs[seed], best[seed]) for seed in sorted(runs.keys() & best.keys())]
            lines.append(_line(f"ours, {label}", list(runs.values())) + (_comparison(pairs) if pairs else ""))
        lines.append(f"goals: {', '.join(f'{name} {goal:.2f}' for name, goal in RACES[part].goals.items())}")
    return "\n".join(lines).strip()


def _by_label(known: Sequence[Outcome], side: str) -> dict[str, dict[int, Outcome]]:
    """Label -> seed -> run."""
    found: dict[str, dict[int, Outcome]] = {}
    for each in known:
        if each.side == side:
            found.setdefault(each.label, {})[each.seed] = each
    return found


def _line(name: str, runs: Sequence[Outcome]) -> str:
    seconds, nats, bits = (mean(run.curve[-1][i] for run in runs) for i in range(3))
    rate = mean(run.tokens / run.seconds for run in runs)
    size = f"{runs[0].parameters / 1e6:.1f} M, {len(runs)} seeds, {runs[0].steps} steps, {rate:,.0f} tokens/s"
    return f"  {name}: {nats:.3f} nats, {bits:.3f} bits per byte after {seconds:.0f} s ({size})"


def _comparison(pairs: Sequence[tuple[Outcome, Outcome]]) -> str:
    """Ours against theirs of the same seed, each at its end."""
    nats, bits = ([b.curve[-1][i] - a.curve[-1][i] for a, b in pairs] for i in (1, 2))
    share = mean(a.seconds / b.seconds for a, b in pairs)
    return (
        f"\n    better by {mean(nats):.3f} nats (worst seed {min(nats):.3f}), {mean(bits):.3f} bits per byte, "
        f"with {share:.2f} of their seconds"
    )


def main(argv: Sequence[str]) -> None:
    """Runs what was asked for, adds it to the results, and prints the table of all that is there."""
    parser = argparse.ArgumentParser(
        prog="python -m benches recipe", description="Whose model predicts unseen text better after the same seconds."
    )
    numbers = {"type": lambda words: [int(word) for word in words.split(",")]}
    parser.add_argument("--part", choices=PARTS, help="one race alone (default: both)")
    parser.add_argument("--side", choices=SIDES, help="one side alone (default: theirs, then ours)")
    parser.add_argument("--seeds", default=[1, 2, 3], **numbers, help="(default: 1,2,3)")  # type: ignore[arg-type]
    parser.add_argument("--text", type=Path, help="text of a race (default: tinyshakespeare; 50 MB of the samples)")
    parser.add_argument("--steps", type=int, default=2000, help="of theirs in shakespeare (default: 2000)")
    parser.add_argument("--minutes", type=float, default=15, help="of a run in english (default: 15)")
    parser.add_argument(
        "--rates",
        default=[5e-4, 1e-3, 2e-3],
        type=lambda words: [float(word) for word in words.split(",")],
        help="learning rates of theirs in english, the best of which counts (default: 5e-4,1e-3,2e-3)",
    )
    parser.add_argument("--share", type=float, default=1.0, help="of their seconds that ours gets (default: 1)")
    parser.add_argument("--flags", default="", help="more flags of `tinygpt train` for ours")
    parser.add_argument("--label", default="defaults", help="name of ours with these flags (default: defaults)")
    parser.add_argument("--threads", type=int, default=2, help="(default: 2)")
    parser.add_argument("--results", type=Path, default=PLACE, help="file to add to (default: that of the suite)")
    parser.add_argument("--table", action="store_true", help="run nothing, print the table")
    choice = parser.parse_args(argv)
    choice.sides = (choice.side,) if choice.side else SIDES
    parts = (choice.part,) if choice.part else PARTS
    if choice.text is not None and len(parts) > 1:
        parser.error("--text is for one race: name it with --part")
    if choice.flags and choice.label == "defaults":
        parser.error("--flags makes another recipe: name it with --label")
    with tempfile.TemporaryDirectory(prefix="tinygpt-recipe-") as folder:
        for part in () if choice.table else parts:
            for outcome in outcomes(choice, part, Path(folder), _load(choice.results)):
                _add(choice.results, outcome)
                print(_line(f"{part}, {outcome.side}, {outcome.label}, seed {outcome.seed}", [outcome]), flush=True)
    print(table(_load(choice.results)))


def _load(path: Path) -> list[Outcome]:
    runs = json.loads(path.read_text(encoding="utf-8"))["runs"] if path.exists() else []
    return [Outcome(**run) for run in runs]


def _add(path: Path, outcome: Outcome) -> None:
    """Writes the results with this run in them, in place of one of the same name."""
    runs = [*(each for each in _load(path) if each.key != outcome.key), outcome]
    content = {"machine": machine(sys.executable), "runs": [asdict(run) for run in sorted(runs, key=lambda r: r.key)]}
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)


def _seconds_of_theirs(known: Sequence[Outcome], part: str, seed: int) -> float:
    for each in known:
        if (each.part, each.side, each.seed) == (part, "theirs", seed):
            return each.seconds
    sys.exit(f"{part}, seed {seed}: ours gets the seconds of theirs, which has not run; run --side theirs first")


def _text(given: Path | None, part: str, folder: Path) -> Path:
    """The text of a race."""
    if given is not None:
        return given
    samples = Path(os.environ.get("TINYGPT_SAMPLES", "../shared/data"))
    path = samples / "tinyshakespeare.txt"
    if part == "english":
        path = next((text.beginning for text in texts(folder, {}) if text.name == "english"), folder / "english.txt")
    if not path.exists():
        sys.exit(f"{path}: no text for {part}; name one with --text, or the samples with TINYGPT_SAMPLES")
    return path


def _command(module: str, words: Sequence[str]) -> str:
    """What a command prints; its last line of complaint is raised when it fails."""
    done = subprocess.run([sys.executable, "-m", module, *words], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"python -m {module} {shlex.join(words)} ended with {done.returncode}")
    return done.stdout
