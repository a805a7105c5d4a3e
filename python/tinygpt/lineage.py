"""What a run descends from: its data, tokenizer, model shape and settings, as facts that a continued run must match."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

from tinygpt.anydataset import AnyDataset
from tinygpt.anytokenizer import AnyTokenizer
from tinygpt.dataset import TokenDataset
from tinygpt.foreigntokenizer import tokenizer_in
from tinygpt.mixeddataset import MixedDataset
from tinygpt.model import GPT, GPTConfig


def tokenizer_beside(data: AnyDataset) -> AnyTokenizer | None:
    """The tokenizer that lies beside the shards; None when there is none, or no folder.

    Of a mixture it is the one that all its ids are of: some sources may lie beside what it grew from.
    """
    sources = data.sources if isinstance(data, MixedDataset) else (data,)
    folders = dict.fromkeys(source.folder for source in sources if source.folder is not None)
    found = [tokenizer for folder in folders if (tokenizer := tokenizer_in(folder)) is not None]
    wanted = data.fingerprint
    own = (each for each in found if wanted is not None and same_fingerprint(each.fingerprint, wanted))
    return next(own, found[0] if found else None)


def check_kinship(model: GPT, train: AnyDataset, val: AnyDataset | None, tokenizer: AnyTokenizer | None) -> None:
    """Returns when model, data and tokenizer belong together.

    Raises:
        ValueError: Ids or windows do not fit the model, or the tokenizer is not the data's.
    """
    for name, data in (("training", train), ("validation", val)):
        if data is None:
            continue
        for key in ("vocab_size", "block_size"):
            found, room = getattr(data, key), getattr(model.config, key)
            if found > room:
                raise ValueError(
                    f"{key} of the model is {room}, too small for the {name} data's {found}; make it {found}"
                )
        ours, theirs = tokenizer.fingerprint if tokenizer is not None else None, data.fingerprint
        if ours is not None and theirs is not None and not same_fingerprint(ours, theirs):
            found, wanted = f"{ours[:6]}..", f"{theirs[:6]}.."
            raise ValueError(
                f"tokenizer fingerprint {found} is not the {name} data's {wanted}; use the tokenizer.json beside them"
            )


def data_facts(data: AnyDataset | None, run: Path) -> dict[str, Any] | None:
    """What identifies the data of a run and opens them again; None for no data.

    Args:
        data: The data.
        run: The run's folder; data inside it are named from there, so that the whole can be moved.
    """
    if data is None:
        return None
    if isinstance(data, MixedDataset):
        sources = [data_facts(source, run) for source in data.sources]
        return {"sources": sources, "weights": [str(share) for share in data.shares], "n_tokens": data.n_tokens}
    folder = None if data.folder is None or data.split is None else data.folder.resolve()  # a single file has no split
    manifest = None if folder is None else folder / "manifest.json"
    if folder is not None and folder.is_relative_to(run.resolve()):
        folder = folder.relative_to(run.resolve())
    x, y = data[0]  # each (T,)
    return {
        "folder": None if folder is None else str(folder),
        "open": {key: getattr(data, key) for key in ("split", "block_size", "stride", "mode", "shuffle")},
        "fingerprint": data.fingerprint,
        "vocab_size": data.vocab_size,
        "n_tokens": data.n_tokens,
        "n_windows": len(data),
        "manifest_sha256": _sha256(manifest.read_bytes()) if manifest and manifest.is_file() else None,
        "first_window_sha256": _sha256(x.numpy().tobytes() + y.numpy().tobytes()),
    }


def open_data(facts: Mapping[str, Any], run: Path, name: str) -> AnyDataset:
    """Opens the data that `data_facts` described.

    Raises:
        ValueError: They lay in no prepared folder.
        FileNotFoundError: The folder is gone.
    """
    if "sources" in facts:
        sources = [open_data(source, run, name) for source in facts["sources"]]
        return MixedDataset(sources, [Fraction(weight) for weight in facts["weights"]])
    if facts["folder"] is None:
        raise ValueError(f"{run}: its {name} data lay in no prepared folder; give the same tokens again as {name}=")
    folder = run / facts["folder"]
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: the run's {name} data are no longer there; put them back or give {name}=")
    opened = TokenDataset(folder, **facts["open"])
    has_grown = facts["fingerprint"] is not None and facts["vocab_size"] > opened.vocab_size
    return opened.in_vocabulary(facts["vocab_size"], facts["fingerprint"]) if has_grown else opened


def differences(
    recorded: Mapping[str, Any],
    *,
    run: Path,
    data: Mapping[str, AnyDataset | None],
    tokenizer: AnyTokenizer | None,
    model_config: GPTConfig | None,
    changes: Mapping[str, Any],
) -> list[str]:
    """Each thing, as "name: old -> new", in which a continued run would not be the run that was saved.

    Args:
        recorded: The facts of trainer.json.
        run: The run's folder.
        data: Training and validation data by name.
        tokenizer: The tokenizer given; None takes the recorded one.
        model_config: The model's shape asked for; None takes the recorded one.
        changes: Settings with new values, without those that may change.
    """
    pairs: list[tuple[str, Any, Any]] = []
    for name, dataset in data.items():
        pairs += _data_pairs(f"{name} ", recorded["data"][name], data_facts(dataset, run))
    if tokenizer is not None:
        pairs.append(("tokenizer", recorded["tokenizer"], tokenizer.fingerprint))
    if model_config is not None:
        pairs += [(key, recorded["model"].get(key), value) for key, value in asdict(model_config).items()]
    pairs += [(key, recorded["config"].get(key), value) for key, value in changes.items()]
    return [f"{name}: {_short(old)} -> {_short(new)}" for name, old, new in pairs if old != new]


def _data_pairs(name: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> list[tuple[str, Any, Any]]:
    """(name, old, new) of each fact of one dataset, a mixture's source by source."""
    kinds = [None if facts is None else "sources" in facts for facts in (old, new)]
    if old is None or new is None or kinds[0] != kinds[1]:
        return [(f"{name}data", _in_words(old), _in_words(new))]
    if "sources" not in old:
        old, new = ({**facts, **facts["open"]} for facts in (old, new))
        return [(f"{name}{key}", old.get(key), new[key]) for key in new if key not in ("folder", "open", "split")]
    pairs = [(f"{name}sources", _in_words(old), _in_words(new)), (f"{name}weights", old["weights"], new["weights"])]
    for i, (one, other) in enumerate(zip(old["sources"], new["sources"], strict=False)):
        where = one.get("folder") or f"source {i + 1}"
        pairs += _data_pairs(f"{name}{where} ", one, other)
    return pairs


def _in_words(facts: Mapping[str, Any] | None) -> str:
    """What data there are, shortly."""
    if facts is None:
        return "none"
    n_sources = f" in {len(facts['sources'])} sources" if "sources" in facts else ""
    return f"{facts['n_tokens']} tokens{n_sources}"


def same_fingerprint(one: str, other: str) -> bool:
    """Whether two fingerprints agree; the header of a shard holds the first half of one."""
    n = min(len(one), len(other))
    return one[:n] == other[:n]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:6]}.."
