"""The README.md of an exported model: what it is, what it was trained on, how, and with which result."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tinygpt.modelconfig import GPTConfig
from tinygpt.trainconfig import TrainConfig


def model_card(
    *,
    name: str,
    architecture: str,
    config: GPTConfig,
    n_parameters: int,
    files: Mapping[str, str],
    facts: Mapping[str, Any],
) -> str:
    """The text, with the header that model hubs read.

    Args:
        name: The model's name.
        architecture: The class of transformers that it is, or "native".
        config: Its shape.
        n_parameters: Trained numbers.
        files: What lies beside the card: name -> what it is for.
        facts: The content of trainer.json; empty when nothing is known of the training.
    """
    tags = ["tinygpt"] if architecture == "native" else ["tinygpt", architecture]
    head = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "tags:",
        *(f"- {t}" for t in tags),
        "---",
    ]
    about = f"A GPT of {n_parameters:,} parameters, {architecture}, trained with tinygpt."
    shape = {key: value for key, value in asdict(config).items() if value is not None}
    parts = [
        *head,
        f"# {name}",
        "",
        about,
        *_table("Files", files),
        *_table("Shape", shape),
        *_table("Data", _data(facts)),
        *_table("Settings", _settings(facts)),
        *_table("Figures", _figures(facts)),
    ]
    return "\n".join([*parts, ""])


def _table(title: str, rows: Mapping[str, Any]) -> list[str]:
    if not rows:
        return []
    lines = [f"| `{key}` | {_cell(value)} |" for key, value in rows.items()]
    return ["", f"## {title}", "", "| | |", "| --- | --- |", *lines]


def _cell(value: Any) -> str:
    """A value on one line; a vertical line would end the cell."""
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return " ".join(text.split()).replace("|", "\\|")


def _data(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Names, no paths: where a folder stood on the machine of training is nobody's concern."""
    rows: dict[str, Any] = {}
    for split, found in (facts.get("data") or {}).items():
        if found is not None:
            place = found.get("folder")
            rows[f"{split} data"] = f"{found['n_tokens']:,} tokens{f' of {Path(place).name}' if place else ''}"
    if facts.get("tokenizer"):
        rows["tokenizer fingerprint"] = facts["tokenizer"]
    return rows


def _settings(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What is not as it is by default."""
    usual = {name: field.default for name, field in TrainConfig.__dataclass_fields__.items()}
    return {key: value for key, value in (facts.get("config") or {}).items() if value != usual.get(key, ...)}


def _figures(facts: Mapping[str, Any]) -> dict[str, Any]:
    progress = facts.get("progress") or {}
    rows = {"steps": facts.get("step"), "tokens seen": progress.get("tokens")}
    rows |= {"best validation loss, nats per token": progress.get("best_loss"), "at step": progress.get("best_step")}
    return {key: value for key, value in rows.items() if value is not None}
