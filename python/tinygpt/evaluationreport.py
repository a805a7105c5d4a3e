"""What an evaluation found, as a table for people and as JSON for programs."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tinygpt.baselines import Baselines
from tinygpt.choices import ChoicesEvaluation
from tinygpt.comparison import BETTER, WORSE, Comparison
from tinygpt.evaluation import DocumentsEvaluation
from tinygpt.intervals import Interval
from tinygpt.memorisation import Canary, Memorisation

_SHOWN_CHARACTERS = 100


@dataclass(frozen=True, kw_only=True)
class TextReport:
    """What was found on held-out text, and how."""

    name: str
    """The text."""
    context: int
    """Most tokens that the model read before one."""
    stride: int
    """Tokens from one window's start to the next."""
    apart: bool
    """Whether each document was judged by itself."""
    count_separators: bool
    """Whether the tokens that end documents count."""
    groups: tuple[DocumentsEvaluation, ...]
    """Of all documents, then of each group."""
    baselines: tuple[Baselines | None, ...] = ()
    """Of the same; empty where none were asked for."""
    ngram_order: int | None = None
    """Tokens of the longest n-grams; None where there is no n-gram model."""
    ngram_tokens: int | None = None
    """Training tokens that it learnt from."""

    @property
    def verdict(self) -> str | None:
        """Where the model stands on the written scale; None where that needs what was not measured."""
        others = _at(self.baselines, 0)
        if others is None:
            return None
        if others.against_zstd is not None and others.against_zstd.finding != BETTER:
            if others.against_zstd.finding == WORSE:
                return "worse than zstd -19: nothing is learned that a compressor does not find by itself"
            return "not told apart from zstd -19: no more is shown than a compressor finds by itself"
        if others.against_ngram is None:
            return None if others.against_zstd is None else "better than zstd -19: it has learned something"
        name, found = f"the {self.ngram_order}-gram model", others.against_ngram.finding
        if found == BETTER:
            return f"better than {name}: it uses more of the text than the last {(self.ngram_order or 1) - 1} tokens"
        stands = "less than" if found == WORSE else f"is {found} from"
        return f"learned something, but {stands} {name}, which knows no more than short phrases"


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """Everything that one `tinygpt evaluate` found; what was not asked for is None."""

    checkpoint: str
    """The folder of the model."""
    step: int | None
    """The optimiser step it was saved at, where known."""
    n_parameters: int
    """Its trained numbers."""
    engine: str
    """How it was run, in words."""
    text: TextReport | None = None
    """On held-out text."""
    choices: ChoicesEvaluation | None = None
    """On questions with choices."""
    memorisation: Memorisation | None = None
    """Of what the model writes."""
    held_out_memorisation: Memorisation | None = None
    """The same of held-out text, which people wrote."""
    canaries: tuple[Canary, ...] | None = None
    """What became of planted lines."""
    notes: tuple[str, ...] = field(default=())
    """What could not be measured, and why."""

    def to_json(self) -> str:
        """All of it as one JSON object; numbers that are not finite are null."""
        content = {"format": "tinygpt-evaluation", "version": 1, **asdict(self)}
        if self.text is not None:
            content["text"]["verdict"] = self.text.verdict
        return json.dumps(_finite(content), indent=1, ensure_ascii=False)

    def lines(self) -> Iterator[str]:
        """All of it as lines for a terminal."""
        step = "" if self.step is None else f", step {self.step:,}"
        yield f"{self.checkpoint}{step}: {self.n_parameters:,} parameters; {self.engine}"
        if self.text is not None:
            yield from _text_lines(self.text)
        if self.choices is not None:
            yield from _choice_lines(self.choices)
        if self.memorisation is not None:
            yield from _memorisation_lines(self.memorisation, self.held_out_memorisation)
        if self.canaries is not None:
            yield from _canary_lines(self.canaries)
        yield from (f"note: {note}" for note in self.notes)


def _text_lines(report: TextReport) -> Iterator[str]:
    whole = report.groups[0]
    tokens = f"{whole.figures.n_tokens:,} tokens, {whole.n_bytes:,} bytes, {whole.n_documents:,} documents"
    yield f"{report.name}: {tokens}"
    kept = "apart" if report.apart else "one after the other"
    counted = "counted" if report.count_separators else "not counted"
    yield f"context {report.context}, stride {report.stride}, documents {kept}, separators {counted}"
    yield "in brackets 95 % intervals over documents" + (
        "; last columns: bits per byte of others" if report.baselines else ""
    )
    yield ""
    rows = [_row(each, _at(report.baselines, i)) for i, each in enumerate(report.groups)]
    yield from _table(_heading(report), rows, left=1)
    if whole.loss_interval is None:
        yield "no intervals: they need two documents or more"
    if report.baselines and report.baselines[0] is not None and whole.figures.bits_per_byte is not None:
        yield ""
        yield "bits per byte on the same bytes"
        yield from _table(None, _scale(report, report.baselines[0]), left=1)
        if report.verdict is not None:
            yield f"verdict: {report.verdict}"


def _heading(report: TextReport) -> list[str]:
    names = ["", "documents", "tokens", "loss", "", "perplexity", "bits/byte", "", "bits/char", "top-1", ""]
    return names + ([f"{report.ngram_order}-gram", "zstd", "zlib"] if report.baselines else [])


def _row(found: DocumentsEvaluation, others: Baselines | None) -> list[str]:
    figures = found.figures
    cells = [
        found.name,
        f"{found.n_documents:,}",
        f"{figures.n_tokens:,}",
        f"{figures.loss:.4f}",
        _interval(found.loss_interval, 3),
        f"{figures.perplexity:.2f}",
        _number(figures.bits_per_byte, 4),
        _interval(found.bits_per_byte_interval, 3),
        _number(figures.bits_per_character, 4),
        f"{found.accuracy:.2%}",
        _percents(found.accuracy_interval),
    ]
    if others is not None:
        cells += ["" if bits is None else f"{bits:.3f}" for bits in (others.ngram, others.zstd, others.zlib)]
    return cells


def _scale(report: TextReport, others: Baselines) -> list[list[str]]:
    whole = report.groups[0]
    learnt = f"learnt from {report.ngram_tokens or 0:,} tokens"
    known = [
        (others.zlib, ["zlib -9"]),
        (others.zstd, ["zstd -19", _compared(others.against_zstd)]),
        (others.ngram, [f"{report.ngram_order}-gram, Kneser-Ney", _compared(others.against_ngram), learnt]),
        (whole.figures.bits_per_byte, ["this model", _interval(whole.bits_per_byte_interval, 4)]),
    ]
    rows = sorted(((bits, cells) for bits, cells in known if bits is not None), reverse=True)
    return [[f"  {name}", f"{bits:.4f}", *more] for bits, (name, *more) in rows]


def _compared(found: Comparison | None) -> str:
    """How the model stands to another, in words."""
    if found is None:
        return ""
    return f"model {found.finding}: {found.difference:+.4f} {_signed(found.interval)}".rstrip()


def _choice_lines(found: ChoicesEvaluation) -> Iterator[str]:
    yield ""
    yield f"{found.n_questions:,} questions; guessing reaches {found.chance:.2%}"
    rows = [
        ["  acc", f"{found.accuracy:.2%}", _percents(found.accuracy_interval)],
        [
            "  acc_norm, by characters",
            f"{found.accuracy_per_character:.2%}",
            _percents(found.accuracy_per_character_interval),
        ],
        ["  acc_bytes, by bytes", f"{found.accuracy_per_byte:.2%}", _percents(found.accuracy_per_byte_interval)],
    ]
    yield from _table(None, rows, left=1)


def _memorisation_lines(found: Memorisation, held_out: Memorisation | None) -> Iterator[str]:
    yield ""
    yield f"n-grams that stand word for word among {found.n_searched:,} training tokens"
    heading = ["", "texts", "tokens", *(f"{n} tokens" for n in found.shares), "longest"]
    rows = [_memorised("  written by the model", found)]
    if held_out is not None:
        rows.append(_memorised("  held-out text", held_out))
    yield from _table(heading, rows, left=1)
    if found.longest is not None:
        where = f"{found.longest.folder} --at train:{found.longest.position}"
        yield f"longest of the model's: {found.longest.n_tokens} tokens, `tinygpt show {where}`"
        yield f"  {_shortened(found.longest.text)}"


def _memorised(name: str, found: Memorisation) -> list[str]:
    shares = ["-" if share is None else f"{share:.2%}" for share in found.shares.values()]
    longest = "0" if found.longest is None else f"{found.longest.n_tokens}"
    return [name, f"{found.n_texts:,}", f"{found.n_tokens:,}", *shares, longest]


def _canary_lines(found: Sequence[Canary]) -> Iterator[str]:
    yield ""
    yield f"canaries: {sum(each.is_found for each in found)} of {len(found)} found"
    rows = [
        [
            f"  {_shortened(each.text)}",
            "found" if each.is_found else "not found",
            f"{each.log_likelihood:.2f}",
            "-" if each.rank is None else f"{each.rank} of {each.n_ranked}",
            _number(each.exposure, 2),
        ]
        for each in found
    ]
    yield from _table(["", "", "log-likelihood", "rank", "exposure"], rows, left=2)


def _table(heading: list[str] | None, rows: list[list[str]], *, left: int) -> Iterator[str]:
    """Rows in columns, the first `left` of them flush left; columns that hold nothing are left out."""
    every = [*([] if heading is None else [heading]), *rows]
    n_columns = max(map(len, every))
    padded = [[*row, *[""] * (n_columns - len(row))] for row in every]
    body = padded if heading is None else padded[1:]
    used = [i for i in range(n_columns) if i < left or any(row[i] for row in body)]
    widths = {i: max(len(row[i]) for row in padded) for i in used}
    for row in padded:
        cells = [row[i].ljust(widths[i]) if i < left else row[i].rjust(widths[i]) for i in used]
        yield "  ".join(cells).rstrip()


def _at(found: Sequence[Baselines | None], i: int) -> Baselines | None:
    return found[i] if i < len(found) else None


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _interval(found: Interval | None, digits: int) -> str:
    return "" if found is None else f"[{found.low:.{digits}f}, {found.high:.{digits}f}]"


def _signed(found: Interval | None) -> str:
    return "" if found is None else f"[{found.low:+.4f}, {found.high:+.4f}]"


def _percents(found: Interval | None) -> str:
    return "" if found is None else f"[{100 * found.low:.1f}, {100 * found.high:.1f}]"


def _shortened(text: str) -> str:
    """A text on one line, its end left out where it is long."""
    shown = repr(text)
    return shown if len(shown) <= _SHOWN_CHARACTERS else f"{shown[:_SHOWN_CHARACTERS]}... ({len(text):,} characters)"


def _finite(value: Any) -> Any:
    """JSON knows no infinity and no NaN."""
    if isinstance(value, dict):
        return {str(name): _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
