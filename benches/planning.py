"""Plans held against what happened: is the recommended run the best of its neighbours, are time and memory foretold?

`--text T --minutes M` plans a run, trains it, then trains what differs from it in one thing (width, layers, vocabulary,
context, batch, learning rate: one step up, one down) for the same time, and compares bits per byte on the same held-out
text. `--forecast` trains shapes of different sizes and compares time and peak memory with what the plan said. Runs go
one at a time, by a lock that all calls share, and each is added to `benches/results/planning.json` as it ends; a second
call goes on with what is missing. `--busy` is for a machine that others use: tokens decide where a run ends then, and
not seconds.
"""

import argparse
import fcntl
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tinygpt.planning import plan
from tinygpt.planningrules import CONTEXTS, LAYERS, STEP_TOKENS, WIDTHS, heads
from tinygpt.runchoice import Choice
from tinygpt.textsurvey import VOCABULARIES, TextSurvey, survey

from benches import planninglaw
from benches.planningtexts import TEXTS, parts
from benches.table import RESULTS, machine

PLACE = RESULTS / "planning.json"
GOAL = 0.03
"""Share of its bits by which the recommended run may be worse than the best of its neighbours."""
FORECAST_GOAL = 0.10
FORECASTS: dict[tuple[str, float], dict[str, Any]] = {
    ("2 x 64", 0.75): {
        "vocab_size": 1024,
        "n_layer": 2,
        "d_model": 64,
        "block_size": 64,
        "batch_size": 12,
        "grad_accum": 1,
    },
    ("2 x 128", 0.75): {
        "vocab_size": 2048,
        "n_layer": 2,
        "d_model": 128,
        "block_size": 64,
        "batch_size": 16,
        "grad_accum": 1,
    },
    ("4 x 128", 0.75): {
        "vocab_size": 4096,
        "n_layer": 4,
        "d_model": 128,
        "block_size": 128,
        "batch_size": 12,
        "grad_accum": 1,
    },
    ("4 x 256", 0.75): {
        "vocab_size": 4096,
        "n_layer": 4,
        "d_model": 256,
        "block_size": 128,
        "batch_size": 12,
        "grad_accum": 1,
    },
    ("6 x 384", 0.75): {
        "vocab_size": 8192,
        "n_layer": 6,
        "d_model": 384,
        "block_size": 256,
        "batch_size": 6,
        "grad_accum": 1,
    },
    ("8 x 512", 3.0): {
        "vocab_size": 8192,
        "n_layer": 8,
        "d_model": 512,
        "block_size": 128,
        "batch_size": 6,
        "grad_accum": 1,
    },
}
"""Layers x width and minutes -> what is fixed of a run whose time and memory are foretold."""
_EVALUATE = """
import json, sys
from tinygpt.checkpoint import Checkpoint
from tinygpt.dataset import TokenDataset
from tinygpt.evaluation import evaluate
run = sys.argv[1]
found = Checkpoint.load(run + "/last")
data = TokenDataset(run + "/val-data", "train", block_size=found.model.config.block_size)
print(evaluate(found.model, data, batches=None, token_lengths=found.tokenizer.token_lengths()).bits_per_byte)
"""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One run: what was foretold and what came of it."""

    part: str
    """grid or forecast."""
    text: str
    minutes: float
    label: str
    command: str
    foretold: Mapping[str, float]
    """seconds, memory_bytes, bits_per_byte."""
    found: Mapping[str, float]
    """The same, and steps taken."""
    is_busy: bool
    """Whether others used the machine, so that its seconds mean nothing."""

    @property
    def key(self) -> tuple[str, str, float, str]:
        return self.part, self.text, self.minutes, self.label


def neighbours(choice: Choice) -> Iterator[tuple[str, dict[str, Any]]]:
    """Label and fixed fields of the choice itself, then of what differs from it in one thing."""
    shape, config = choice.shape, choice.config
    tokens = config.windows_per_step * shape.block_size
    own: dict[str, Any] = {
        **{name: getattr(shape, name) for name in ("vocab_size", "n_layer", "d_model", "block_size")},
        **{name: getattr(config, name) for name in ("batch_size", "grad_accum", "learning_rate")},
    }
    yield "recommended", own
    ladders = {"d_model": WIDTHS, "n_layer": LAYERS, "vocab_size": VOCABULARIES, "block_size": CONTEXTS}
    for name, ladder in ladders.items():
        for value in _beside(ladder, own[name]):
            change = {name: value}
            if name == "block_size":  # the same tokens a step
                change |= {"batch_size": max(1, tokens // value), "grad_accum": 1}
            yield f"{name} {value}", own | change
    for value in _beside(STEP_TOKENS[::2], tokens):
        yield f"tokens a step {value}", own | {"batch_size": max(1, value // shape.block_size), "grad_accum": 1}
    for factor in (0.5, 2.0):
        rate = own["learning_rate"] * factor
        yield f"learning_rate {rate:g}", own | {"learning_rate": rate}


def _beside(ladder: Sequence[int], value: int) -> list[int]:
    """The next smaller and the next larger one."""
    return [
        *[each for each in ladder if each < 0.8 * value][-1:],
        *[each for each in ladder if each > 1.25 * value][:1],
    ]


def grid(text: str, minutes: float, known: Sequence[Outcome], *, is_busy: bool) -> Iterator[Outcome]:
    """The runs that are missing, the recommended one first."""
    train, val = parts(text)
    found = survey([train])
    best = plan([train], seconds=60 * minutes, text=found, say=_say).best
    for label, fixed in neighbours(best):
        if ("grid", text, minutes, label) in {outcome.key for outcome in known}:
            continue
        if fixed["vocab_size"] not in found.bytes_per_token:
            continue
        yield _outcome("grid", text, minutes, label, fixed, (train, val, found), is_busy=is_busy)


def forecasts(known: Sequence[Outcome], *, is_busy: bool) -> Iterator[Outcome]:
    """The runs of `FORECASTS` that are missing."""
    train, val = parts("gutenberg")
    found = survey([train])
    for (label, minutes), fixed in FORECASTS.items():
        if ("forecast", "gutenberg", minutes, label) not in {outcome.key for outcome in known}:
            yield _outcome("forecast", "gutenberg", minutes, label, fixed, (train, val, found), is_busy=is_busy)


def _outcome(
    part: str,
    text: str,
    minutes: float,
    label: str,
    fixed: Mapping[str, Any],
    place: tuple[Path, Path, TextSurvey],
    *,
    is_busy: bool,
) -> Outcome:
    """A planned run, trained."""
    train, val, found = place
    with tempfile.TemporaryDirectory(prefix="tinygpt-planning-") as folder:
        out = Path(folder) / "run"
        full = {**fixed, "n_head": heads(fixed["d_model"])}
        choice = plan([train], seconds=60 * minutes, text=found, fixed=full, out=out, say=_say).best
        words = shlex.split(choice.command)[1:]
        for flag in ("--val-fraction", "--split", *(["--max-seconds"] if is_busy else [])):
            if flag in words:
                del words[words.index(flag) : words.index(flag) + 2]
        words += ["--val-data", str(val)]
        seconds, memory = _run([sys.executable, "-m", "tinygpt", *words])
        bits = float(
            subprocess.run([sys.executable, "-c", _EVALUATE, str(out)], stdout=subprocess.PIPE, check=True).stdout
        )
        steps = json.loads((out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])["step"]
    names = ("seconds", "memory_bytes", "bits_per_byte")
    return Outcome(
        part=part,
        text=text,
        minutes=minutes,
        label=label,
        command=choice.command.replace(str(out), "RUN").replace(str(train), "TEXT"),
        foretold={name: getattr(choice, name) for name in names} | {"steps": choice.config.max_steps or 0},
        found={"seconds": seconds, "memory_bytes": memory, "bits_per_byte": bits, "steps": steps},
        is_busy=is_busy,
    )


def _run(words: Sequence[str]) -> tuple[float, int]:
    """Seconds and peak memory of a command in a process of its own, alone among these runs."""
    with _turn():
        started = time.perf_counter()
        child = subprocess.Popen(words)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - started
    if status:
        sys.exit(f"{shlex.join(words)} ended with {os.waitstatus_to_exitcode(status)}")
    return seconds, usage.ru_maxrss * 1024


@contextmanager
def _turn() -> Iterator[None]:
    """One run at a time, whoever calls."""
    with (Path(tempfile.gettempdir()) / "tinygpt-benches.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def table(known: Sequence[Outcome]) -> str:
    """Each grid beside its recommended run, then what was foretold beside what was found."""
    lines = []
    for text, minutes in sorted({(each.text, each.minutes) for each in known if each.part == "grid"}):
        runs = sorted(
            (each for each in known if (each.part, each.text, each.minutes) == ("grid", text, minutes)),
            key=lambda each: each.found["bits_per_byte"],
        )
        lines.append(f"\n{text}, {minutes:g} minutes: bits per byte, foretold, steps")
        for each in runs:
            bits = (
                f"{each.found['bits_per_byte']:.4f}  {each.foretold['bits_per_byte']:.4f}  {each.found['steps']:>7,.0f}"
            )
            lines.append(f"  {each.label:<24}{bits}")
        own = next((each for each in runs if each.label == "recommended"), None)
        if own is not None:
            worse = own.found["bits_per_byte"] / runs[0].found["bits_per_byte"] - 1
            verdict = "yes" if worse <= GOAL else "NO"
            lines.append(
                f"  recommended is {worse:.1%} worse than the best of {len(runs)}; within {GOAL:.0%}: {verdict}"
            )
    forecast = [each for each in known if each.part == "forecast"]
    if forecast:
        lines.append(f"\nforecast: seconds foretold, found; MB foretold, found; both within {FORECAST_GOAL:.0%}")
    for each in forecast:
        pairs = [(each.foretold[name], each.found[name]) for name in ("seconds", "memory_bytes")]
        is_near = all(abs(b / a - 1) <= FORECAST_GOAL for a, b in pairs)
        mb = [round(value / 1e6) for value in pairs[1]]
        times = f"{pairs[0][0]:6.1f} {pairs[0][1]:6.1f} ({pairs[0][1] / pairs[0][0] - 1:+.0%})"
        room = f"{mb[0]:>6,} {mb[1]:>6,} ({mb[1] / mb[0] - 1:+.0%})"
        lines.append(
            f"  {each.label:<12}{times}  {room}  {'yes' if is_near else 'NO'}{', busy' if each.is_busy else ''}"
        )
    return "\n".join(lines).strip()


def main(argv: Sequence[str]) -> None:
    """Runs what was asked for and is missing, adds it to the results, and prints the table of all that is there."""
    parser = argparse.ArgumentParser(
        prog="python -m benches planning", description="Plans held against what happened: bits, time and memory."
    )
    parser.add_argument("--text", help=f"{', '.join(TEXTS)}, or a file of text: train its grid (default: none)")
    parser.add_argument("--minutes", type=float, default=10, help="of a run in a grid (default: 10)")
    parser.add_argument("--forecast", action="store_true", help="train shapes of different sizes")
    parser.add_argument("--law", action="store_true", help="take the runs that the law of bits per byte is fitted to")
    parser.add_argument("--runs", type=int, default=99, help="runs at most in this call (default: 99)")
    parser.add_argument("--busy", action="store_true", help="others use the machine: let tokens end a run, not seconds")
    parser.add_argument("--results", type=Path, default=PLACE, help="file to add to (default: that of the suite)")
    choice = parser.parse_args(argv)
    known = _load(choice.results)
    wanted: list[Iterator[Outcome]] = []
    if choice.text:
        wanted.append(grid(choice.text, choice.minutes, known, is_busy=choice.busy))
    if choice.forecast:
        wanted.append(forecasts(known, is_busy=choice.busy))
    left = choice.runs
    for run in planninglaw.RUNS if choice.law else ():
        if left > 0 and run.key not in {each.key for each in planninglaw.load(choice.results)}:
            left -= 1
            _write(choice.results, law=[*planninglaw.load(choice.results), planninglaw.take(run)])
    for runs in wanted:
        while left > 0 and (outcome := next(runs, None)) is not None:
            left -= 1
            _add(choice.results, outcome)
            print(f"{outcome.label}: {outcome.found['bits_per_byte']:.4f} bits per byte", flush=True)
    print(table(_load(choice.results)))
    for line in planninglaw.law_lines(planninglaw.load(choice.results)) if choice.law else ():
        print(line)


def _load(path: Path) -> list[Outcome]:
    runs = json.loads(path.read_text(encoding="utf-8"))["runs"] if path.exists() else []
    return [Outcome(**run) for run in runs]


def _add(path: Path, outcome: Outcome) -> None:
    """Writes the results with this run in them, in place of one of the same name."""
    runs = [*(each for each in _load(path) if each.key != outcome.key), outcome]
    _write(path, runs=runs)


def _write(path: Path, **parts: Sequence[Any]) -> None:
    """Writes the results with these parts anew."""
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"runs": []}
    new = {name: [asdict(run) for run in runs] for name, runs in parts.items()}
    content = {**before, "machine": machine(sys.executable), **new}
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
