"""What a client of OpenAI's API asks for, checked field by field; nothing is passed over in silence."""

import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from tinygpt.chattemplate import ROLES
from tinygpt.refusal import Refusal
from tinygpt.samplingconfig import Sampling

MOST_LOGPROBS = 20
MOST_CHOICES = 128
MOST_STOPS = 4


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request for a completion or for the next message of a chat."""

    prompts: tuple[str | tuple[int, ...], ...] = ()
    """Texts or ids to continue; of a completion."""
    messages: tuple[tuple[str, str], ...] = ()
    """Role and text of each message so far; of a chat."""
    sampling: Sampling
    """How to draw."""
    max_tokens: int | None
    """Most tokens of each answer; None leaves it to the server."""
    n: int
    """Answers to each prompt."""
    seed: int | None
    """Answer i has this seed + i."""
    stop: tuple[str, ...]
    """Strings before which an answer ends."""
    stream: bool
    """Send tokens as they come."""
    include_usage: bool
    """End a stream with its counts."""
    echo: bool = False
    """Begin an answer with its prompt."""
    n_logprobs: int | None
    """None: no probabilities. k: those of the tokens and of the k likeliest."""
    model: str | None
    """Which model, if one is named."""


def parsed(body: bytes) -> dict[str, Any]:
    """The JSON object of a request's body.

    Example:
        >>> parsed(b'{"n": 1}')
        {'n': 1}
    """
    try:
        content = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Refusal(f"the body is not JSON in UTF-8: {reason}", code="invalid_json") from None
    if not isinstance(content, dict):
        raise Refusal(f"the body must be a JSON object, got {_kind(content)}", code="invalid_json")
    return content


def completion(body: Mapping[str, Any]) -> Asked:
    """What a body sent to /v1/completions asks for."""
    _check_names(body, known=_COMMON | {"prompt", "echo", "suffix", "best_of", "logprobs"})
    n = _whole(body, "n", 1, least=1, most=MOST_CHOICES)
    best_of = _whole(body, "best_of", n, least=1)
    if best_of != n:
        raise Refusal(f"best_of is not supported: leave it out, or make it n ({n})", param="best_of")
    if body.get("suffix"):
        raise Refusal("suffix is not supported: the model only continues text", param="suffix")
    n_logprobs = body.get("logprobs")
    return Asked(
        prompts=_prompts(body.get("prompt")),
        max_tokens=_whole(body, "max_tokens", 16, least=0),
        echo=_truth(body, "echo"),
        n_logprobs=None if n_logprobs is None else _whole(body, "logprobs", 0, least=0, most=MOST_LOGPROBS),
        **_shared(body),
    )


def chat(body: Mapping[str, Any]) -> Asked:
    """What a body sent to /v1/chat/completions asks for."""
    _check_names(body, known=_COMMON | {"messages", "max_completion_tokens", "top_logprobs", "logprobs"})
    given = [name for name in ("max_tokens", "max_completion_tokens") if body.get(name) is not None]
    if len(given) == 2:
        raise Refusal("max_tokens and max_completion_tokens are the same; keep one of them", param=given[0])
    top = _whole(body, "top_logprobs", 0, least=0, most=MOST_LOGPROBS)
    if top and not _truth(body, "logprobs"):
        raise Refusal("top_logprobs needs logprobs: true", param="top_logprobs")
    return Asked(
        messages=_messages(body.get("messages")),
        max_tokens=_whole(body, given[0], 1, least=1) if given else None,
        n_logprobs=top if _truth(body, "logprobs") else None,
        **_shared(body),
    )


def _shared(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that both kinds of request have."""
    stream, options = _truth(body, "stream"), body.get("stream_options")
    if options is not None:
        if not isinstance(options, dict) or set(options) - {"include_usage", "include_obfuscation"}:
            raise Refusal(
                f"stream_options must be an object with include_usage, got {_kind(options)}", param="stream_options"
            )
        if not stream:
            raise Refusal("stream_options needs stream: true", param="stream_options")
    seed = body.get("seed")
    return {
        "sampling": _sampling(body),
        "n": _whole(body, "n", 1, least=1, most=MOST_CHOICES),
        "seed": None if seed is None else _whole(body, "seed", 0, least=-(2**63), most=2**64 - 1) % 2**64,
        "stop": _stops(body.get("stop")),
        "stream": stream,
        "include_usage": _truth(options or {}, "include_usage"),
        "model": _text(body, "model"),
    }


def _sampling(body: Mapping[str, Any]) -> Sampling:
    values: dict[str, Any] = {}
    for name in _KNOBS - {"top_k", "logit_bias"}:
        if (number := _number(body, name)) is not None:
            values[name] = number
    penalty = values.get("repetition_penalty", 1.0)
    if not 0.01 <= penalty <= 100:
        raise Refusal(
            f"repetition_penalty must be from 0.01 to 100 (1 is none), got {penalty}", param="repetition_penalty"
        )
    values["logit_bias"] = _biases(body.get("logit_bias"))
    values["top_k"] = max(0, _whole(body, "top_k", 0, least=-1))  # vLLM's clients write -1 for all
    try:
        return Sampling(**values)
    except ValueError as error:
        raise Refusal(str(error), param=str(error).split(" ", 1)[0]) from None


def _biases(given: Any) -> dict[int, float]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise Refusal(f"logit_bias must map ids to numbers, got {_kind(given)}", param="logit_bias")
    biases: dict[int, float] = {}
    for key, value in given.items():
        if not (key.isascii() and key.isdecimal() and len(key) < 10):
            raise Refusal(f"logit_bias must have ids of tokens as keys, got {_short(key)}", param="logit_bias")
        bias = _number({"logit_bias": value}, "logit_bias")
        if bias is None or not -100 <= bias <= 100:
            raise Refusal(f"logit_bias must be from -100 to 100, got {_short(value)}", param="logit_bias")
        biases[int(key)] = -math.inf if bias == -100 else bias  # OpenAI's way to say never
    return biases


def _prompts(given: Any) -> tuple[str | tuple[int, ...], ...]:
    if given is None:
        raise Refusal("prompt is missing: a text, ids, or a list of either", param="prompt")
    if isinstance(given, str) or (isinstance(given, list) and given and _is_id(given[0])):
        given = [given]
    if not isinstance(given, list) or not given:
        raise Refusal(
            f"prompt must be a text, ids, or a list of either with one at least, got {_kind(given)}", param="prompt"
        )
    return tuple(_prompt(each) for each in given)


def _prompt(given: Any) -> str | tuple[int, ...]:
    if isinstance(given, str):
        return _clean(given, "prompt")
    if isinstance(given, list) and given and all(_is_id(i) for i in given):
        return tuple(given)
    raise Refusal(f"prompt must hold texts or lists of ids, not empty, got {_short(given)}", param="prompt")


def _messages(given: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(given, list) or not given:
        raise Refusal(f"messages must be a list with one message at least, got {_kind(given)}", param="messages")
    return tuple(_message(each, f"messages[{i}]") for i, each in enumerate(given))


def _message(given: Any, place: str) -> tuple[str, str]:
    if not isinstance(given, dict):
        raise Refusal(f"{place} must be an object with role and content, got {_kind(given)}", param=place)
    for name in given:
        if name not in ("role", "content", "name") and given[name]:
            raise Refusal(f"{place}.{_short(name)} is not supported", param=place)
    role = given.get("role")
    role = "system" if role == "developer" else role
    if not isinstance(role, str) or role not in ROLES:
        raise Refusal(f"{place}.role must be {', '.join(ROLES)}, got {_short(role)}", param=f"{place}.role")
    content = given.get("content")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list):
        raise Refusal(f"{place}.content must be a text, got {_kind(content)}", param=f"{place}.content")
    texts = []
    for part in parts:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            found = part.get("type") if isinstance(part, dict) else part
            raise Refusal(f"{place}.content may hold text alone, got {_short(found)}", param=f"{place}.content")
        texts.append(_clean(part["text"], f"{place}.content"))
    return role, "".join(texts)


def _stops(given: Any) -> tuple[str, ...]:
    stops = [] if given is None else [given] if isinstance(given, str) else given
    if not isinstance(stops, list) or len(stops) > MOST_STOPS or not all(isinstance(each, str) for each in stops):
        raise Refusal(f"stop must be a text or a list of up to {MOST_STOPS}, got {_short(given)}", param="stop")
    if "" in stops:
        raise Refusal("stop must hold at least one character, got an empty text", param="stop")
    return tuple(stops)


def _check_names(body: Mapping[str, Any], *, known: set[str]) -> None:
    """Nothing, if every field that says something is one we know."""
    for name in (name for name, value in body.items() if value is not None):
        if name in UNSUPPORTED and body[name] in UNSUPPORTED[name]:
            continue
        if name in UNSUPPORTED:
            raise Refusal(f"{name} is not supported by this server; leave it out", param=name)
        if name not in known:
            close = difflib.get_close_matches(name[:100], known, n=1)
            hint = f"did you mean {close[0]}?" if close else "leave it out"
            raise Refusal(f"unknown field {_short(name)}: {hint}", param=name[:100], code="unknown_parameter")


def _whole(body: Mapping[str, Any], name: str, default: int, *, least: int, most: int = 2**31 - 1) -> int:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise Refusal(f"{name} must be a whole number from {least} to {most}, got {_short(value)}", param=name)
    return value


def _number(body: Mapping[str, Any], name: str) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300:
        raise Refusal(f"{name} must be a number, got {_short(value)}", param=name)
    return float(value)


def _truth(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise Refusal(f"{name} must be true or false, got {_short(value)}", param=name)
    return bool(value)


def _text(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise Refusal(f"{name} must be a text, got {_short(value)}", param=name)
    return value


def _clean(text: str, name: str) -> str:
    """`text`, if it can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Refusal(f"{name} holds half a character at {error.start}: a lone surrogate", param=name) from None
    return text


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _kind(value: Any) -> str:
    """What a JSON value is, in a word."""
    if value is None:
        return "null"
    if isinstance(value, list) and not value:
        return "an empty list"
    return {dict: "an object", list: "a list", str: "a text", bool: "true or false"}.get(type(value), "a number")


def _short(value: Any) -> str:
    try:
        text = json.dumps(value)
    except (ValueError, RecursionError):  # a number of thousands of digits
        return _kind(value)
    return text if len(text) <= 80 else text[:80] + "..."


_KNOBS = {field.name for field in fields(Sampling)}
_COMMON = _KNOBS | {"model", "max_tokens", "n", "seed", "stop", "stream", "stream_options", "user"}

UNSUPPORTED: dict[str, list[Any]] = {
    "tools": [[]],
    "tool_choice": ["none"],
    "parallel_tool_calls": [True, False],
    "functions": [[]],
    "function_call": ["none"],
    "response_format": [{"type": "text"}],
    "modalities": [["text"]],
    "audio": [],
    "prediction": [],
    "reasoning_effort": [],
    "web_search_options": [],
    "verbosity": [],
    "service_tier": ["auto", "default"],
    "store": [False],
    "metadata": [{}],
}
"""Fields of OpenAI's that this server has no use for -> the values of them that ask for nothing."""
