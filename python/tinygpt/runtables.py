"""The tables of a run's page: figures, forecasts beside what happened, settings, machine, sessions."""

import math
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from tinygpt.chartscale import number
from tinygpt.forecast import count, duration
from tinygpt.modelconfig import GPTConfig
from tinygpt.runfacts import Judged, RunFacts
from tinygpt.trainconfig import TrainConfig
from tinygpt.values import finite

_MOST_SESSIONS = 12
Pairs = list[tuple[str, str]]


def how_far(run: RunFacts) -> str:
    """Steps and time, in words."""
    total, seconds = run.total_steps, run.curves["seconds"].last()
    far = f"{run.step:,} of {total:,} steps" if total else f"{run.step:,} steps"
    return f"{far}, {duration(seconds)}" if seconds else far


def tiles(run: RunFacts) -> Iterator[tuple[str, str, str]]:
    """The figures that are asked for first: name, value, more."""
    curves = run.curves
    for split, name in (("evaluation", "validation loss"), ("evaluation_train", "training loss")):
        best = curves[f"{split}_loss"].lowest()
        if best and (split == "evaluation" or not len(curves["evaluation_loss"])):
            yield f"Best {name}", f"{best[1]:.4f}", f"nats per token, step {best[0]:,}"
            if at := curves[f"{split}_bits_per_byte"].at_step(best[0]):
                yield "Bits per byte", f"{at:.4f}", "at the same step; text itself has 8"
    loss = curves["loss"].last()
    if loss is not None:
        yield "Last step's loss", f"{loss:.4f}", "nats per token, training"
    tokens, epoch = curves["tokens"].last(), curves.last.get("epoch")
    if tokens is not None:
        passes = f", {epoch:.2f} passes over the data" if isinstance(epoch, int | float) else ""
        yield "Trained on", count(tokens), f"tokens{passes}"
    if run.n_parameters:
        yield "Parameters", count(run.n_parameters), f"{run.n_parameters:,}"
    speed = curves["tokens_per_second"].median()
    if speed is not None:
        yield "Speed", f"{speed:,.0f}", "tokens per second, median step"
    peak = curves["peak_memory_bytes"].most()
    if peak is not None:
        yield "Memory", f"{count(peak)}B", "at most"
    if len(curves.skipped):
        yield "Steps skipped", f"{len(curves.skipped):,}", "of those logged"


def scale(judged: Judged) -> Pairs:
    """Bits per byte of others and of the model, the worst first."""
    rows = dict(judged.others)
    if judged.bits_per_byte is not None:
        rows["this model"] = judged.bits_per_byte
    return [(name, f"{bits:.4f}") for name, bits in sorted(rows.items(), key=lambda row: -row[1])]


def evaluate_command(run: RunFacts) -> str:
    """What measures others on the same text."""
    held_out = next((each.folder for each in run.sources if each.role == "val" and each.folder), None)
    data = "TEXT" if held_out is None else shlex.quote(str(held_out))
    folder = shlex.quote(str(run.folder))
    out = shlex.quote(str(run.folder / "evaluation.json"))
    return f"tinygpt evaluate --checkpoint {folder} --data {data} --json --out {out}\ntinygpt report {folder}"


def forecasts(run: RunFacts) -> Iterator[tuple[str, ...]]:
    """Of each session a row of what was said before it and a row of what came."""
    for i in range(max(0, len(run.sessions) - _MOST_SESSIONS), len(run.sessions)):
        session = run.sessions[i]
        told = session.forecast
        later = run.sessions[i + 1].from_step if i + 1 < len(run.sessions) else math.inf
        last = session.end_step if session.end_step is not None else min(later, run.step)
        speed, share = told.get("tokens_per_second"), told.get("target_share") or 1.0
        yield (
            f"{i + 1}, forecast",
            _known(told.get("steps"), "{:,.0f}"),
            "" if (seconds := finite(told.get("seconds"))) is None else duration(seconds),
            "" if (found := finite(speed)) is None else f"{found * share:,.0f}",
            "" if (memory := finite(told.get("memory_bytes"))) is None else f"{count(memory)}B",
        )
        took = run.curves["seconds"].at_step(int(last)) if session.end_seconds is None else session.end_seconds
        peak = run.curves["peak_memory_bytes"].most(session.from_step, last)
        yield (
            f"{i + 1}, {'so far' if session.end is None and run.is_running else 'happened'}",
            f"{last - session.from_step:,.0f}",
            "" if took is None else duration(max(0.0, took - session.from_seconds)),
            _known(run.curves["tokens_per_second"].median(session.from_step, last), "{:,.0f}"),
            "" if peak is None else f"{count(peak)}B",
        )


def settings(run: RunFacts) -> tuple[list[tuple[str, Pairs]], list[tuple[str, Pairs]]]:
    """What was chosen, which is what differs from the defaults of the classes; and everything."""
    groups: dict[str, Mapping[str, Any]] = {
        "Model": run.setting["model"],
        "Training": run.setting["config"],
        "Engine": run.setting["engine"],
        "Text": run.options,
    }
    defaults: dict[str, dict[str, Any]] = {
        "Model": {each.name: each.default for each in fields(GPTConfig)},
        "Training": {each.name: each.default for each in fields(TrainConfig)},
    }
    everything = [
        (heading, [(name, in_words(value)) for name, value in rows.items()]) for heading, rows in groups.items()
    ]
    chosen = [
        (
            f"{heading}, where not the default",
            [(name, in_words(value)) for name, value in groups[heading].items() if known.get(name, ...) != value],
        )
        for heading, known in defaults.items()
    ]
    return [(heading, rows) for heading, rows in chosen if rows], [(head, rows) for head, rows in everything if rows]


def machine(run: RunFacts) -> Iterator[tuple[str, str]]:
    """Where it was trained, and by which versions."""
    facts = run.setting["environment"]
    if run.setting.get("processor"):
        yield "processor", str(run.setting["processor"])
    names = {"device": "device", "cpus": "logical processors", "platform": "system"}
    yield from ((name, str(facts[key])) for key, name in names.items() if key in facts)
    yield from ((key, str(facts[key])) for key in ("tinygpt", "torch", "python") if key in facts)
    if run.setting.get("processes", 1) != 1:
        yield "processes", str(run.setting["processes"])
    if run.n_parameters:
        yield "parameters", f"{run.n_parameters:,}"


def session_rows(run: RunFacts) -> list[tuple[str, ...]]:
    """When the run was worked on: began, how it ended, from step, to step; the last of them."""
    return [_session_row(run, i) for i in range(max(0, len(run.sessions) - _MOST_SESSIONS), len(run.sessions))]


def _session_row(run: RunFacts, i: int) -> tuple[str, ...]:
    session = run.sessions[i]
    is_last = i == len(run.sessions) - 1
    ended = session.reason if session.end is not None else run.state if is_last else "without a word"
    to_step = session.end_step if session.end_step is not None else run.step if is_last else None
    return session.began, ended, f"{session.from_step:,}", "" if to_step is None else f"{to_step:,}"


def checkpoints(run: RunFacts) -> str:
    """Those that are kept, in words."""
    if not run.checkpoints:
        return "None yet."
    pointers = {step: ", ".join(names) for step, names in run.checkpoints.items()}
    named = [f"step {step:,}" + (f" ({names})" if names else "") for step, names in pointers.items()]
    return "; ".join(named)


def in_words(value: object) -> str:
    """A setting as a person reads it."""
    if value is None or value == "":
        return "none" if value is None else "empty"
    if str(value).lower() in ("true", "false"):
        return "on" if str(value).lower() == "true" else "off"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return f"{value:,}" if isinstance(value, int) and value >= 100_000 else str(value)


def _known(value: object, form: str) -> str:
    found = finite(value)
    return "" if found is None else form.format(found)
