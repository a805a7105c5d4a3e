"""A run's folder as a trainer leaves it, made of plain files: for tests of what reads one."""

import json
import math
from pathlib import Path
from typing import Any

from tinygpt.modelconfig import GPTConfig
from tinygpt.tokenizer import Tokenizer
from tinygpt.trainconfig import TrainConfig

TEXTS = ["To be, or not to be, that is the question.\n" * 9, "Whether 'tis nobler in the mind to suffer\n" * 9] * 9


def metrics(steps: int, *, every: int = 50, sample: str | None = None, **more: Any) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl in which the loss falls; evaluations and samples every so many steps."""
    lines = []
    for step in range(1, steps + 1):
        loss = 2 + 6 * math.exp(-3 * step / steps)
        line: dict[str, Any] = {"step": step, "epoch": step / 100, "tokens": 96 * step, "loss": loss}
        line |= {"learning_rate": 1e-3, "grad_norm": 1.0, "skipped": False}
        if step % every == 0:
            figures = {"perplexity": math.exp(loss), "bits_per_character": loss / 3, "n_tokens": 96}
            line["evaluation"] = {"loss": loss + 0.1, "bits_per_byte": loss / 3, **figures}
            line["evaluation_train"] = {"loss": loss, "bits_per_byte": loss / 3.1, **figures}
            line |= {} if sample is None else {"sample": sample}
        memory = {"memory_bytes": 800_000_000, "peak_memory_bytes": 800_000_000 + step}
        line["resources"] = {"seconds": step / 4, "tokens_per_second": 400.0, "gemm_fraction": 0.3, **memory}
        lines.append({**line, **more})
    return lines


def setting(folder: Path | None, words: str = "a") -> dict[str, Any]:
    """What a session or a checkpoint records, with the same words wherever there is room for any."""
    opened = {"split": "train", "block_size": 8, "stride": 8, "mode": "stream", "shuffle": True}
    source = {"folder": None if folder is None else str(folder), "open": opened, "n_tokens": 900, "n_windows": 99}
    source |= {"fingerprint": "0" * 64, "manifest_sha256": "1" * 64, "first_window_sha256": "2" * 64}
    return {
        "n_parameters": 12_345,
        "processor": words,
        "model": {**GPTConfig(vocab_size=300, block_size=8, n_layer=1, n_head=1, d_model=8).__dict__},
        "config": {**TrainConfig(max_steps=200, sample_prompt=words).__dict__, words: words},
        "engine": {"device": words, "dtype": "float32"},
        "environment": {"tinygpt": words, "torch": words, "platform": words, "device": words, "cpus": 2},
        "data": {"train": source, "val": {**source, "open": {**opened, "split": "val"}}},
        "tokenizer": "0" * 64,
        "processes": 1,
    }


def session(folder: Path | None = None, words: str = "a", *, from_step: int = 0) -> dict[str, Any]:
    forecast = {"steps": 200, "tokens_per_step": 96, "tokens_per_second": 500.0, "seconds": 40.0}
    facts = {"began": "2030-01-02T03:04:05+00:00", "command": words, "from_step": from_step, "from_seconds": 0.0}
    return {**facts, "forecast": {**forecast, "memory_bytes": 700_000_000}, **setting(folder, words)}


def ended(step: int, reason: str = "steps") -> dict[str, Any]:
    return {"ended": "2030-01-02T04:04:05+00:00", "step": step, "seconds": step / 4, "reason": reason}


def evaluation(words: str = "a") -> dict[str, Any]:
    figures = {"loss": 3.1, "perplexity": 22.0, "bits_per_byte": 1.9, "bits_per_character": 1.9, "n_tokens": 99}
    others = {"zlib": 3.3, "zstd": 2.7, "ngram": 2.2, "ngram_loss": 3.6}
    text = {"name": words, "groups": [{"figures": figures}], "baselines": [others], "ngram_order": 5, "verdict": words}
    return {"format": "tinygpt-evaluation", "version": 1, "text": text, "notes": [words]}


def prepared(folder: Path, words: str = "<|a|>") -> Path:
    """A prepared folder whose files and special token have these words for names."""
    tokenizer = Tokenizer.train(TEXTS, vocab_size=300, special_tokens=["<|endoftext|>", words])
    tokenizer.write_shards(TEXTS, folder, val_fraction=0.2)
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    sources = [{"path": words, "bytes": 9, "xxh3": words, "documents": 1}]
    manifest["corpus"] = {"documents": words, "clean": [words], "invalid": words, "sources": sources}
    manifest["report"] = {"documents": 1, "bytes_read": 9, "bytes_used": 5, "cleaned": {words: 4}, "removed": {}}
    path.write_text(json.dumps(manifest))
    return folder


def written(folder: Path, **files: Any) -> Path:
    """A run's folder with these files: lines of objects, an object, or a text; an underscore stands for the point."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        stem, _, suffix = name.rpartition("_")
        lines = "".join(json.dumps(each) + "\n" for each in content) if isinstance(content, list) else None
        text = lines or (content if isinstance(content, str) else json.dumps(content) if content else "")
        (folder / f"{stem}.{suffix}").write_text(text)
    return folder


def whole(folder: Path, words: str = "a", *, data: Path | None = None) -> Path:
    """A run that ended well, with everything that a page shows."""
    return written(
        folder,
        metrics_jsonl=metrics(200, sample=words),
        sessions_jsonl=[session(data, words), ended(200, words)],
        config_yaml=json.dumps({"clean": [words], "pattern": words}),
        evaluation_json=evaluation(words),
    )
