"""What became of every document and byte of a corpus: counts that add up, and lines of them for a person."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

_WIDTH = 24
_EXCERPT = 400
"""Characters of a document that are shown from each end."""


def report_lines(report: Mapping[str, Any], skipped: Sequence[tuple[Path, str]] = ()) -> list[str]:
    """A table of a pass over a corpus: what was read, what each rule took away, what is left. Its bytes add up.

    Example:
        >>> report = {"documents": 1, "bytes_read": 9, "bytes_used": 7, "cleaned": {"newlines": 2}, "removed": {}}
        >>> for line in report_lines(report):
        ...     print(line)
                                    documents           bytes
        read                                1               9
        - newlines                                          2
        used                                1               7
    """
    lines = [f"{'':<{_WIDTH}} {'documents':>12} {'bytes':>15}"]
    lines += [
        f"{name:<{_WIDTH}} {'' if n is None else f'{n:,}':>12} {n_bytes:>15,}".rstrip()
        for name, n, n_bytes in report_rows(report)
    ]
    if report.get("kept_files"):
        lines.append(f"kept       {report['kept_files']:,} files are the same; their tokens were copied")
    if report.get("invalid_sequences"):
        first = f", the first in {report['first_invalid']}" if report.get("first_invalid") else ""
        lines.append(f"damaged    {report['invalid_sequences']:,} sequences are not UTF-8 and became U+FFFD{first}")
    if skipped:
        path, why = skipped[0]
        lines.append(f"skipped    {len(skipped):,} files, the first {path}: {why}")
    return lines


def report_rows(report: Mapping[str, Any]) -> list[tuple[str, int | None, int]]:
    """The same as (what, documents, bytes); documents are None where a rule takes bytes alone."""
    removed, (n_refused, refused_bytes) = report["removed"], report.get("refused", (0, 0))
    n_read = report["documents"] + n_refused + sum(documents for documents, _ in removed.values())
    rows: list[tuple[str, int | None, int]] = [("read", n_read, report["bytes_read"])]
    rows += [(f"- {rule}", None, n_bytes) for rule, n_bytes in report.get("cleaned", {}).items() if n_bytes]
    if report.get("repaired_bytes"):
        rows.append(("- not UTF-8, replaced", None, report["repaired_bytes"]))
    rows += [(f"- {rule}", documents, n_bytes) for rule, (documents, n_bytes) in removed.items()]
    if n_refused:
        rows.append(("- could not be used", n_refused, refused_bytes))
    rows.append(("used", report["documents"], report["bytes_used"]))
    return rows


def added(one: Any, other: Any) -> Any:
    """Two reports as one: numbers are added, whatever holds them; of words the first stay.

    Example:
        >>> added({"documents": 1, "first": None, "refused": [1, 20]}, {"documents": 2, "first": "b"})
        {'documents': 3, 'first': 'b', 'refused': [1, 20]}
    """
    if one is None or other is None or isinstance(one, str):
        return other if one is None else one
    if isinstance(one, Mapping):
        return {name: added(one.get(name), other.get(name)) for name in {**one, **other}}
    if isinstance(one, list | tuple):
        return [added(a, b) for a, b in zip(one, other, strict=True)]
    return one + other


def before_and_after(pairs: Iterable[tuple[str, str, bool]], n: int) -> Iterator[str]:
    """The first `n` documents, each as it was read and after cleaning, and whether a filter leaves it out."""
    for number, (raw, cleaned, is_removed) in enumerate(islice(pairs, n)):
        fate = ", left out by a filter" if is_removed else "" if raw != cleaned else ", unchanged"
        yield f"=== document {number + 1}: {len(raw):,} characters, {len(cleaned):,} after cleaning{fate}"
        if raw == cleaned:
            yield _excerpt(raw)
            continue
        before, after = (_excerpt(text).splitlines() for text in (raw, cleaned))
        yield from (line for line in difflib.ndiff(before, after) if not line.startswith("?"))


def _excerpt(text: str) -> str:
    """A text, or its two ends."""
    if len(text) <= 2 * _EXCERPT:
        return text
    return f"{text[:_EXCERPT]}\n[{len(text) - 2 * _EXCERPT:,} characters]\n{text[-_EXCERPT:]}"
