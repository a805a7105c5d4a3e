"""Dataclass <-> YAML or JSON file <-> command-line flags.

A knob is a field of a dataclass, declared once: its name is the flag and the key of the file, its type reads both, the
string literal under it is the help. A field whose metadata has `"flag": False` is for programs alone. tyro draws the
help; the reading is ours, because every mistake has to end in one line that names the flag or the line of the file, and
tyro's public face has only boxes of several lines.
"""

import ast
import difflib
import inspect
import re
import textwrap
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, make_dataclass
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro
import yaml

from tinygpt.flagnames import FOREIGN, SHORT
from tinygpt.optionfile import entries
from tinygpt.values import convert, plain, symbol, wanted

T = TypeVar("T")
_POSITIONAL = typing.get_args(tyro.conf.Positional[int])[1]


@dataclass(frozen=True, kw_only=True)
class _Knob:
    """One field, as flags and files see it."""

    name: str
    hint: Any
    default: Any = MISSING
    help: str = ""
    group: str = ""
    positional: bool = False

    @property
    def flag(self) -> str:
        return self.name.upper() if self.positional else "--" + self.name.replace("_", "-")

    @property
    def many(self) -> bool:
        return typing.get_origin(self.hint) is tuple


@dataclass(frozen=True, kw_only=True)
class Flag:
    """One flag of a command, in words for a page."""

    names: tuple[str, ...]
    """How it is written: `--learning-rate`, `--lr`; of a switch its `--no-` form, too."""
    values: str
    """What stands after it, as the help has it; empty for a switch."""
    default: str
    """The value without it, `none`, or `required`."""
    help: str
    """What it does."""
    group: str
    """Heading in the help; empty for the first ones."""


class Options:
    """Values for the fields of some dataclasses: what the user gave, and where. Made by `read`."""

    def __init__(
        self, knobs: Mapping[str, _Knob], given: Mapping[str, tuple[Any, str]], defaults: Mapping[str, Any]
    ) -> None:
        self._knobs, self._given, self._defaults = knobs, given, defaults

    def given(self, cls: type) -> dict[str, Any]:
        """The values that the user gave for fields of `cls`, by name."""
        return {f.name: self._given[f.name][0] for f in fields(cls) if f.name in self._given}

    def build(self, cls: type[T], **overrides: Any) -> T:
        """A `cls` of these options; `overrides` win over everything.

        Raises:
            ValueError: A value is missing, or `cls` refuses one; the message names the flag, or the file and its key.
        """
        names = [f.name for f in fields(cls) if f.name in self._knobs]  # type: ignore[arg-type]
        values = {name: self._defaults[name] for name in names if name in self._defaults} | self.given(cls) | overrides
        for knob in (self._knobs[name] for name in names):
            if knob.name not in values and knob.default is MISSING:
                raise ValueError(f"{knob.flag} is missing: {knob.help[:1].lower()}{knob.help[1:].rstrip('.')}")
        try:
            return cls(**values)
        except ValueError as error:
            raise ValueError(self._placed(str(error), overrides)) from error

    def _placed(self, message: str, overrides: Mapping[str, Any]) -> str:
        """`message` with the field that it starts with replaced by the place where the user wrote it."""
        name = message.split(" ", 1)[0]
        if name in self._given and name not in overrides:
            return self._given[name][1] + message[len(name) :]
        return message


def read(
    argv: Sequence[str],
    groups: Mapping[str, type],
    *,
    prog: str,
    description: str = "",
    defaults: Mapping[str, Any] | None = None,
) -> Options:
    """The options that a command line and its `--config` file give: fields of all `groups` as one flat set of flags.

    Precedence: the field's default, then `defaults`, then the file, then the flag. `-` and `_` are the same. Values
    of a tuple stand side by side, numbers also with commas between, or after the flag said again. `--help` prints and
    raises SystemExit(0).

    Args:
        argv: The words after the verb.
        groups: Heading in the help -> dataclass; no two share a field.
        prog: What the help calls the command.
        description: The first lines of the help.
        defaults: Field -> default that replaces its own, or that it lacks.

    Raises:
        ValueError: An unknown flag or key, a missing value, or one of the wrong type.
        OSError: The file of `--config` cannot be read.

    Example:
        >>> @dataclass(frozen=True, kw_only=True)
        ... class Model:
        ...     n_layer: int = 6
        >>> read(["--n-layer", "2"], {"model": Model}, prog="demo").build(Model)
        Model(n_layer=2)
    """
    knobs = _all_knobs(groups)
    if any(word in ("-h", "--help") for word in takewhile(lambda word: word != "--", argv)):
        _print_help(knobs, prog, description, defaults or {})
        raise SystemExit(0)
    flags = _read_flags(argv, knobs, prog)
    given = _read_file(str(flags["config"][0]), knobs) if "config" in flags else {}
    return Options(knobs, {**given, **flags}, defaults or {})


def flags_of(groups: Mapping[str, type], *, defaults: Mapping[str, Any] | None = None) -> list[Flag]:
    """What `read` with the same arguments takes, as `--help` shows it.

    Args:
        groups: Heading in the help -> dataclass; no two share a field.
        defaults: Field -> default that replaces its own, or that it lacks.

    Example:
        >>> @dataclass(frozen=True, kw_only=True)
        ... class Model:
        ...     bias: bool = False
        >>> flags_of({"model": Model})[0].names
        ('--bias', '--no-bias')
    """
    described = []
    for knob in _all_knobs(groups).values():
        default = (defaults or {}).get(knob.name, knob.default)
        negation = (f"--no-{knob.flag[2:]}",) if _is_switch(knob) else ()
        flag = Flag(
            names=(knob.flag, *_aliases(knob), *negation),
            values="" if _is_switch(knob) or knob.positional else symbol(knob.hint),
            default=_default_word(default),
            help=knob.help,
            group=knob.group,
        )
        described.append(flag)
    return described


def load(path: str | Path, groups: Mapping[str, type]) -> dict[str, Any]:
    """Field -> value from a YAML or JSON file, of the fields of all `groups`; such as what `to_yaml` wrote.

    Raises:
        ValueError: An unknown key, or a value of the wrong type.
        OSError: The file cannot be read.
    """
    return {name: value for name, (value, _) in _read_file(str(path), _all_knobs(groups)).items()}


def to_yaml(*instances: Any, without: Sequence[str] = ()) -> str:
    """The fields of dataclass instances as one flat YAML mapping that `--config` reads back.

    Args:
        instances: Dataclass instances with distinct field names.
        without: Names of fields to leave out.
    """
    values = {f.name: getattr(instance, f.name) for instance in instances for f in fields(instance)}
    written = {name: plain(value) for name, value in values.items() if name not in without}
    return yaml.safe_dump(written, sort_keys=False, allow_unicode=True, default_flow_style=None)


def _all_knobs(groups: Mapping[str, type]) -> dict[str, _Knob]:
    """The fields of all groups, and `config`, which every command has."""
    knobs = {knob.name: knob for heading, cls in groups.items() for knob in _knobs(heading, cls)}
    help_text = "YAML or JSON file of these options; flags win over it."
    return {**knobs, "config": _Knob(name="config", hint=Path | None, default=None, help=help_text)}


def _knobs(heading: str, cls: type) -> Iterator[_Knob]:
    """The fields of a dataclass."""
    texts = _field_texts(cls)
    hints = typing.get_type_hints(cls, include_extras=True)
    for f in (each for each in fields(cls) if each.metadata.get("flag", True)):
        hint, *marks = typing.get_args(hints[f.name]) if hasattr(hints[f.name], "__metadata__") else (hints[f.name],)
        default = f.default if f.default_factory is MISSING else f.default_factory()
        yield _Knob(
            name=f.name,
            hint=hint,
            default=default,
            help=texts.get(f.name, ""),
            group=heading,
            positional=_POSITIONAL in marks,
        )


def _field_texts(cls: type) -> dict[str, str]:
    """Field -> the string literal that stands under it, as one line; of fields that are inherited, too."""
    texts = {}
    for owner in reversed(cls.__mro__[:-1]):
        try:
            definition = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        except OSError:  # a class typed into an interpreter has no source
            continue
        for statement, below in pairwise(getattr(definition, "body", [])):
            if (
                isinstance(statement, ast.AnnAssign)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
            ):
                texts[ast.unparse(statement.target)] = " ".join(str(below.value.value).split())
    return texts


def _read_flags(argv: Sequence[str], knobs: Mapping[str, _Knob], prog: str) -> dict[str, tuple[Any, str]]:
    """Field -> (value, flag) from the words of a command line."""
    words, given, loose = list(argv), dict[str, tuple[Any, str]](), list[str]()
    while words:
        word = words.pop(0)
        if word == "--":
            loose, words = [*loose, *words], []
        elif not _is_flag(word):
            loose.append(word)
        else:
            flag, equals, value = word.partition("=")
            knob, negated = _find_flag(flag, knobs)
            texts = [value] if equals else []
            while not equals and not _is_switch(knob) and _is_value(words) and (knob.many or not texts):
                texts.append(words.pop(0))
            value = _flag_value(knob, flag, texts, negated=negated)
            before = given[knob.name][0] if knob.many and knob.name in given else ()
            given[knob.name] = (*before, *value) if knob.many else value, flag
    for knob in knobs.values():
        if knob.positional and loose:
            taken, loose = (loose, []) if knob.many else (loose[:1], loose[1:])
            given[knob.name] = convert(taken if knob.many else taken[0], knob.hint, knob.flag), knob.flag
    if loose:
        raise ValueError(f"unexpected {loose[0]!r}: it follows no flag that takes it; `{prog} --help` lists the flags")
    return given


def _flag_value(knob: _Knob, flag: str, texts: list[str], *, negated: bool) -> Any:
    """The value that the words after a flag give."""
    if _is_switch(knob):
        if negated and texts:
            raise ValueError(f"{flag} takes no value, got {texts[0]!r}")
        return convert(texts[0], knob.hint, flag) if texts else not negated
    if not texts:
        raise ValueError(f"{flag} needs a value: {wanted(knob.hint)}")
    if knob.many and typing.get_args(knob.hint)[0] is not str:  # text may hold commas of its own
        texts = [part for text in texts for part in text.split(",")]
    return convert(texts if knob.many else texts[0], knob.hint, flag)


def _is_flag(word: str) -> bool:
    """Whether a word of a command line is a flag; `-` and negative numbers are values."""
    return re.match(r"--?[A-Za-z]", word) is not None


def _is_value(words: Sequence[str]) -> bool:
    """Whether the next word is a value; `--` ends those of a flag that takes many."""
    return bool(words) and words[0] != "--" and not _is_flag(words[0])


def _is_switch(knob: _Knob) -> bool:
    return knob.hint is bool


def _find_flag(flag: str, knobs: Mapping[str, _Knob]) -> tuple[_Knob, bool]:
    """The field of a flag, and whether the flag is its `--no-` form."""
    name = flag[2:].replace("-", "_") if flag.startswith("--") else flag
    name = SHORT.get(name, name)
    knob = knobs.get(name)
    if knob and not knob.positional:
        return knob, False
    knob = knobs.get(name.removeprefix("no_"))
    if knob and _is_switch(knob):
        return knob, True
    raise ValueError(
        f"unknown flag {flag}: {_nearest(name, {k: v.flag for k, v in knobs.items() if not v.positional})}"
    )


def _nearest(name: str, known: Mapping[str, str]) -> str:
    """What to write in place of an unknown name; `known` maps a field to how it is written where the mistake stands."""
    ours = FOREIGN.get(name.lower(), "")
    if ours in known:
        return f"here it is {known[ours]}"
    close = difflib.get_close_matches(name, known, n=1)
    return (
        f"did you mean {known[close[0]]}?" if close else "nothing here has a name like it; --help lists what there is"
    )


def _read_file(path: str, knobs: Mapping[str, _Knob]) -> dict[str, tuple[Any, str]]:
    """Field -> (value, place) from a YAML or JSON file."""
    given: dict[str, tuple[Any, str]] = {}
    known = {name: name for name in knobs if name != "config"}
    for key, value, line in entries(path):
        place = f"{path}{f', line {line}' if line else ''}: "
        name = SHORT.get(key.replace("-", "_"), key.replace("-", "_"))
        if name not in known:
            raise ValueError(f"{place}unknown key {key}: {_nearest(name, known)}")
        if name in given:
            raise ValueError(f"{place}{key} stands here twice; keep one of them")
        given[name] = convert(value, knobs[name].hint, place + key), place + key
    return given


def _metavar(knob: _Knob) -> str | None:
    """What stands for the value in the help; None leaves it to tyro."""
    if knob.positional:
        return knob.flag + " ..." * knob.many
    return None if knob.hint is bool else symbol(knob.hint)


def _print_help(knobs: Mapping[str, _Knob], prog: str, description: str, defaults: Mapping[str, Any]) -> None:
    """Print the help of a command: tyro draws it."""
    sections: dict[str, list[Any]] = {}
    for knob in knobs.values():
        default = defaults.get(knob.name, knob.default)
        shown = "required" if default is MISSING else f"default: {_shown(default)}"
        arg = tyro.conf.arg(
            help=knob.help,
            metavar=_metavar(knob),
            help_behavior_hint="" if default in (None, (), "") else f"({shown})",
            aliases=_aliases(knob),
        )
        hint: Any = Annotated[knob.hint, arg]
        if knob.positional:
            hint = tyro.conf.Positional[hint]  # type: ignore[misc]
        extra = {} if default is MISSING else {"default": default}
        sections.setdefault(knob.group, []).append((knob.name, hint, field(**extra)))
    top = sections.pop("", [])
    nested = [
        (heading, make_dataclass(heading, members, kw_only=True, namespace={"__doc__": ""}))
        for heading, members in sections.items()
    ]
    whole = make_dataclass("options", [*top, *nested], kw_only=True)
    tyro.cli(whole, prog=prog, description=description, args=["--help"], config=(tyro.conf.OmitArgPrefixes,))


def _aliases(knob: _Knob) -> list[str]:
    """The flag's shorter names."""
    return [f"--{short}" for short, name in SHORT.items() if name == knob.name]


def _default_word(default: Any) -> str:
    """A default for a page: of a switch on or off, `none` where there is nothing."""
    if isinstance(default, bool):
        return "on" if default else "off"
    words: dict[Any, str] = {MISSING: "required", None: "none", (): "none", "": "empty"}
    return words[default] if default in words else _shown(default)


def _shown(default: Any) -> str:
    """A default, as it would be written after the flag."""
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
