"""What a project says at its end: what each stage took, how good the model is, what to do next."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tinygpt.chattemplate import END, ROLES, knows_chats
from tinygpt.diagnosis import diagnose
from tinygpt.forecast import count, duration
from tinygpt.foreigntokenizer import tokenizer_in
from tinygpt.runfacts import run_facts
from tinygpt.runreport import REPORT
from tinygpt.tokenfolder import open_folder

_LOOKED_AT = 400
_MOST_CHARACTERS = 60


def prompt_flags(data: Path) -> list[str]:
    """The flags of a prompt out of held-out text: its first words, or what a user says first; none without words."""
    tokenizer = tokenizer_in(data)
    assert tokenizer is not None, "a project has one"
    try:
        stream = open_folder(data, "val", verify=False).tokens
    except ValueError:
        return []
    ids = stream.read(0, min(_LOOKED_AT, stream.n_tokens)).tolist()
    known = tokenizer.special_tokens
    if knows_chats(known) and known[ROLES["user"]] in ids:
        said = ids[ids.index(known[ROLES["user"]]) + 1 :]
        text = tokenizer.decode(said[: said.index(known[END])] if known[END] in said else said)
        return ["--chat", f"--prompt={text}"] if text.strip() else []
    ends = [i for i, each in enumerate(ids) if each == tokenizer.eot_id]
    text = tokenizer.decode(ids[: ends[0]] if ends and ends[0] else ids)
    lines = text.splitlines()
    # Where the end of the text was held out, it may begin within a line.
    line = next((line for line in lines[1:] if len(line.split()) > 2), lines[0] if lines else "").strip("\ufffd ")
    cut = line[:_MOST_CHARACTERS]
    words = cut.rsplit(None, 1)[0] if len(line) > _MOST_CHARACTERS and len(cut.split()) > 1 else cut
    return [f"--prompt={words}"] if words else []


def end_lines(
    folder: Path,
    run: Path,
    paths: Sequence[str | Path],
    *,
    plan: Mapping[str, Any],
    times: Mapping[str, float],
    took: float,
    is_exported: bool,
) -> Iterator[str]:
    """The last screen, line by line.

    Args:
        folder: The project.
        run: The run in it.
        paths: Where the text is.
        plan: The plan, as `Plan.to_json` gives it.
        times: Stage -> seconds that it took when it was done.
        took: Seconds of this call.
        is_exported: Whether all exports are of this model.
    """
    facts, best = run_facts(run), plan["choices"][plan["recommended"]]
    yield ""
    yield f"{', '.join(f'{name} {seconds:.0f} s' for name, seconds in times.items())}; this call {duration(took)}"
    bits = None if facts.judged is None else facts.judged.bits_per_byte
    learnt = count(facts.progress.get("tokens", 0))
    line = f"{count(best['n_parameters'])} parameters, {learnt} tokens learnt in {facts.step:,} steps"
    if facts.judged is not None and bits is not None:
        others = "".join(f", {name} {value:.2f}" for name, value in facts.judged.others.items())
        line += f"; {bits:.2f} bits per byte of held-out text (foretold {best['bits_per_byte']:.2f}{others})"
    yield line
    findings = diagnose(run)
    wrong = [finding for finding in findings if finding.severity == "wrong"]
    yield from (f"doctor: {finding.what}; {finding.advice}" for finding in wrong)
    if not wrong:
        doctor = shlex.join(["tinygpt", "doctor", str(run)])
        watched = f", {len(findings)} to watch: {doctor}" if findings else ""
        yield f"doctor: nothing wrong found{watched}"
    yield ""
    yield "next:"
    yield f"  {shlex.join(['tinygpt', 'chat', str(folder)])}"
    yield f"  look at {run / REPORT} in a browser"
    model = next(iter(sorted((folder / "export" / "gguf").glob("*.gguf"))), None)
    if is_exported and model is not None:
        taken = shlex.join(["llama-cli", "-m", str(model)])
        yield f"  take it along: {taken}, or {folder / 'export' / 'hf'} with transformers"
    if not is_exported:
        yield "  see above why it could not be exported; the same command tries again"
    yield f"  add text to {paths[0]}, or give it more --time, and call the same command again"
