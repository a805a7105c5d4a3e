"""The stages of a project after its plan: the commands of each, what they depend on, what they leave."""

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tinygpt._core import FormatError, xxh3_file
from tinygpt.manifest import Manifest
from tinygpt.preparation import Preparation
from tinygpt.runfacts import EVALUATION
from tinygpt.runfolder import CHECKSUMS, RUN, follow
from tinygpt.runreport import REPORT
from tinygpt.shardfolder import key_of

STAGES = ("plan", "prepare", "train", "evaluate", "export", "report")
EXPORTS = ("hf", "gguf")
EVALUATED = 0.03
"""Share of the time for judging the model: held-out text is read at about the speed of training, or faster."""
SETTLED = 12.0
"""Seconds for compressors and n-grams, exports, the page and the sample, of a small model; see `Stages.expected`."""
_WRITTEN_BYTES_PER_SECOND = 1e8
_NGRAM_BYTES, _MOST_NGRAM_TOKENS = 160, 5_000_000


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage, as it is to be done now."""

    name: str
    key: str
    """A checksum of all that decides what it makes."""
    commands: Sequence[Sequence[str]]
    """Verb and flags of each; none where there is nothing to do."""
    made: Callable[[], str | None]
    """A checksum of what it left; None where that is not there."""


class Stages:
    """The stages of a plan, in their order.

    Args:
        plan: The plan, as `Plan.to_json` gives it.
        folder: The project's.
        paths: Where the text is.
        files: Name and checksum of each file of it.
    """

    def __init__(
        self, plan: Mapping[str, Any], folder: Path, paths: Sequence[str | Path], files: Sequence[tuple[str, str]]
    ) -> None:
        self._plan, self._paths, self._files, self._folder = plan, [str(path) for path in paths], files, folder
        self._best: Mapping[str, Any] = plan["choices"][plan["recommended"]]
        self._exports, self.run = folder / "export", folder / RUN
        self.is_prepared: bool = plan["text"]["is_prepared"]
        self.data = Path(paths[0]) if self.is_prepared else folder / "data"
        flags = list(_flags(self._best["command"]))
        of_text = {field.name for field in fields(Preparation)}
        self._of_text = [word for name, words in flags if name in of_text for word in words]
        self._of_run = [word for name, words in flags if name not in {*of_text, "data", "out"} for word in words]

    @property
    def expected(self) -> dict[str, float]:
        """Seconds that each stage but the plan should take."""
        n_bytes = 4 * self._best["n_parameters"]
        text = self._plan["text"]["seconds"]
        return {
            "prepare": text,
            "train": self._best["seconds"] - text,
            "evaluate": 0.5 * SETTLED + self._n_judged / self._best["tokens_per_second"],
            "export": 2.0 + 1.5 * n_bytes / _WRITTEN_BYTES_PER_SECOND,
            "report": 2.0,
        }

    def __iter__(self) -> Iterator[Stage]:
        """One stage after the other; the key of each is made when the ones before it are done."""
        yield self._prepare()
        yield self._train()
        yield self._evaluate()
        yield self._export()
        yield self._report()

    def _prepare(self) -> Stage:
        flags = ["--out", str(self.data), "--vocab-size", str(self._vocab_size), *self._of_text]
        return Stage(
            name="prepare",
            key=self._key([flags], files=self._files),
            commands=() if self.is_prepared else [["prepare", *self._paths, *flags]],
            made=self._prepared,
        )

    def _train(self) -> Stage:
        flags = ["--out", str(self.run), "--resume", "auto", *self._of_run]
        return Stage(
            name="train",
            key=self._key([flags], data=_checksum(self.data / "manifest.json")),
            commands=[["train", "--data", str(self.data), *flags]],
            made=self._trained,
        )

    def _evaluate(self) -> Stage:
        out = self.run / EVALUATION
        # The n-gram model takes no more memory than training did.
        n_grams = min(_MOST_NGRAM_TOKENS, int(0.5 * self._best["memory_bytes"] / _NGRAM_BYTES))
        flags = ["--checkpoint", str(self.run), "--max-tokens", str(self._n_judged)]
        flags += ["--ngram-tokens", str(n_grams), "--out", str(out)]
        return Stage(
            name="evaluate",
            key=self._key([flags], trained=self._trained(), data=_checksum(self.data / "manifest.json")),
            commands=[["evaluate", "--data", str(self.data), *flags]] if self._n_judged else (),
            made=lambda: _checksum(out) if self._n_judged else "",
        )

    def _export(self) -> Stage:
        places = {to: self._exports / to for to in EXPORTS}
        commands = [
            ["export", "--checkpoint", str(self.run), "--to", to, "--out", str(place), "--replace"]
            for to, place in places.items()
        ]
        return Stage(
            name="export",
            key=self._key(commands, trained=self._trained()),
            commands=commands,
            made=lambda: _listing(places.values()),
        )

    def _report(self) -> Stage:
        return Stage(
            name="report",
            key=self._key([], trained=self._trained(), judged=_checksum(self.run / EVALUATION)),
            commands=[["report", str(self.run)]],
            made=lambda: _checksum(self.run / REPORT),
        )

    def _key(self, commands: Sequence[Sequence[str]], **facts: object) -> str:
        """A checksum of what decides what a stage makes, wherever the project and its text lie."""
        return key_of(commands=[[_seen_from(self._folder, word) for word in words] for words in commands], **facts)

    def _prepared(self) -> str | None:
        """A checksum of the manifest; None where a file that belongs to it is gone or of another size."""
        try:
            Manifest.load(self.data).check(self.data)
        except (FormatError, OSError):
            return None
        return _checksum(self.data / "manifest.json") if (self.data / "tokenizer.json").is_file() else None

    def _trained(self) -> str | None:
        """A checksum of the run's best and last checkpoints."""
        found = [follow(self.run, name) for name in ("best", "last")]
        return None if None in found else key_of(found=[_checksum(path / CHECKSUMS) for path in found if path])

    @property
    def _n_judged(self) -> int:
        """Tokens of held-out text to judge the model on, at most; 0 where there are none."""
        if (self.data / "manifest.json").is_file() and not Manifest.load(self.data).splits.get("val"):
            return 0
        return max(2_000, int(EVALUATED * self._plan["seconds"] * self._best["tokens_per_second"]))

    @property
    def _vocab_size(self) -> int:
        return int(self._best["shape"]["vocab_size"])


def _flags(command: str) -> Iterator[tuple[str, list[str]]]:
    """Field and words of each flag of a command."""
    group: list[str] = []
    for word in [*shlex.split(command), "--"]:
        if not word.startswith("--"):
            group.append(word)
            continue
        if group and group[0].startswith("--"):
            yield group[0][2:].partition("=")[0].removeprefix("no-").replace("-", "_"), group
        group = [word]


def _seen_from(folder: Path, word: str) -> str:
    """A path in a folder as seen from there; other words as they are."""
    path = Path(word)
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else word


def _checksum(path: Path) -> str | None:
    return xxh3_file(path) if path.is_file() else None


def _listing(folders: Iterable[Path]) -> str | None:
    """A checksum of what lies in some folders, by names and sizes; None where one is missing."""
    rows = []
    for folder in folders:
        if not folder.is_dir():
            return None
        rows += sorted((path.name, path.stat().st_size) for path in folder.iterdir())
    return key_of(rows=rows)
