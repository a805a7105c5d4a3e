"""TextFlags: which text a model is for, and the time there is; what the flags of a model leave for a plan to choose."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from tinygpt.config import Options
from tinygpt.modelconfig import GPTConfig
from tinygpt.trainconfig import TrainConfig

_MOST_SECONDS = 10 * 365.25 * 86400
_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, kw_only=True)
class TextFlags:
    """The text and the time.

    Example:
        >>> TextFlags(paths=(Path("books"),), time="1.5h").seconds
        5400.0
    """

    paths: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Files and folders of text, chats (.jsonl), or one prepared folder."""
    time: str = "1h"
    """All the time there is, as 30s, 10m, 8h or 2d."""
    kind: Literal["prose", "code", "chat"] | None = None
    """What the text is; none finds out."""

    @property
    def seconds(self) -> float:
        """`time` as a number."""
        found = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*(s|m|min|h|d)", self.time.strip())
        if found is None:
            raise ValueError(f"time must be a number with s, m, h or d, such as 10m or 8h, got {self.time!r}")
        seconds = float(found[1]) * _UNITS[found[2]]
        if seconds > _MOST_SECONDS:
            raise ValueError(f"time must be at most 10 years, got {self.time}")
        return seconds

    def __post_init__(self) -> None:
        _ = self.seconds
        if not self.paths:
            raise ValueError("PATHS is missing: files or folders of text, or a prepared folder")


def fixed_fields(options: Options) -> dict[str, Any]:
    """The fields of model and training that the user fixed, but for `ram`, which bounds what is chosen.

    Raises:
        ValueError: One is out of range, or they do not go together.
    """
    # Width and heads that are not given are for the plan to choose.
    is_known = {"d_model", "n_head"} <= options.given(GPTConfig).keys()
    options.build(GPTConfig, **({} if is_known else {"d_model": 2, "n_head": 1, "n_kv_head": 1}))
    fixed = options.given(GPTConfig) | options.given(TrainConfig)
    fixed.pop("ram", None)
    return fixed
