"""Text -> the value of a field's type, and the words that help and errors have for that type."""

import math
import re
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

_REFUSED = object()


def convert(value: Any, hint: Any, place: str) -> Any:
    """A value of type `hint` from text, a list of texts, None or a bool.

    Args:
        value: As it stands in the file or on the command line.
        hint: int, float, bool, str, Path, None, Literal, a union of these, or a tuple of one of these.
        place: The flag, or the file and key, for the message.

    Raises:
        ValueError: The value is not one of that type.

    Example:
        >>> convert("1e-4", float, "--learning-rate")
        0.0001
    """
    result = _converted(value, hint)
    if result is _REFUSED:
        raise ValueError(f"{place} must be {wanted(hint)}, got {value!r}")
    return result


def finite(value: object) -> float | None:
    """A number that a file holds; None for what is none, or not finite.

    Example:
        >>> finite(3), finite(True), finite("3"), finite(10**400)
        (3.0, None, None, None)
    """
    try:
        found = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:  # a whole number that no float holds
        found = math.nan
    return found if math.isfinite(found) else None


def _converted(value: Any, hint: Any) -> Any:
    """`value` as a `hint`, or `_REFUSED`."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        # Text fits str always: ask it last.
        attempts = (_converted(value, member) for member in sorted(args, key=lambda member: member in (str, Path)))
        return next((result for result in attempts if result is not _REFUSED), _REFUSED)
    if origin is tuple:
        texts = value if isinstance(value, list | tuple) else [value]
        members = [args[0]] * len(texts) if args[-1] is Ellipsis else args
        results = [_converted(text, member) for text, member in zip(texts, members, strict=False)]
        return tuple(results) if len(texts) == len(members) and _REFUSED not in results else _REFUSED
    if origin is Literal:
        return next((choice for choice in args if str(choice) == value), _REFUSED)
    if hint is type(None):
        return None if value is None or (isinstance(value, str) and value.lower() in ("none", "null")) else _REFUSED
    if hint is bool:
        return value if isinstance(value, bool) else _SWITCH.get(str(value).lower(), _REFUSED)
    return _SCALARS[hint](value) if isinstance(value, str) else _REFUSED


def _whole(text: str) -> Any:
    """An int, from `1000`, `1_000` or `1e3`."""
    try:
        number = float(text)
        return (
            int(text) if re.fullmatch(r"\s*[+-]?[\d_]+\s*", text) else int(number) if number.is_integer() else _REFUSED
        )
    except (ValueError, OverflowError):
        return _REFUSED


def _real(text: str) -> Any:
    """A finite float."""
    try:
        return number if math.isfinite(number := float(text)) else _REFUSED
    except ValueError:
        return _REFUSED


def wanted(hint: Any) -> str:
    """What would do for a `hint`, in the words of an error."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(wanted(member) for member in args)
    if origin is tuple:
        return (
            f"values, each {wanted(args[0])}" if args[-1] is Ellipsis else f"{len(args)} values, each {wanted(args[0])}"
        )
    if origin is Literal:
        return "one of " + ", ".join(map(str, args)) if len(args) > 1 else str(args[0])
    return _WORDS[hint]


def symbol(hint: Any) -> str:
    """A type, as one word of the help."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return "|".join(symbol(member) for member in args if member is not type(None))
    if origin is tuple:
        return f"{symbol(args[0])} ..." if args[-1] is Ellipsis else " ".join(map(symbol, args))
    return "|".join(map(str, args)) if origin is Literal else _SYMBOLS[hint]


def plain(value: Any) -> Any:
    """A value that YAML has a notation for."""
    if isinstance(value, tuple | list):
        return [plain(member) for member in value]
    return str(value) if isinstance(value, Path) else value


_SWITCH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_SCALARS: dict[Any, Callable[[str], Any]] = {int: _whole, float: _real, str: str, Path: Path}
_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    bool: "true or false",
    type(None): "none",
}
_SYMBOLS = {int: "INT", float: "NUMBER", str: "TEXT", Path: "PATH", bool: "BOOL"}
