"""Speed and memory of a tokenizer on a text: each task runs in a process of its own, so that its peak is its own."""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tinygpt.corpus import Corpus
from tinygpt.textblocks import text_parts
from tinygpt.tokenizer import Tokenizer

Settings = dict[str, Any]
# Small enough to keep all threads busy to the end, large enough that a call costs nothing.
_BATCH_PART_CHARACTERS = 1 << 14


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What a task took, over some rounds."""

    task: str
    """train, encode, encode again, decode or shards."""
    threads: int
    """Threads that it ran on."""
    seconds: tuple[float, ...]
    """Of each round, of the work alone: starting Python, imports and loading are outside."""
    n_bytes: int
    """Bytes of text that were worked through."""
    n_tokens: int | None
    """Tokens that came out or went in; None for training."""
    peak_mb: float | None
    """Highest resident memory of the process in MB, Python and what it holds included; None where that is not told."""

    @property
    def median_seconds(self) -> float:
        """Seconds of the median round."""
        return median(self.seconds)

    @property
    def best_seconds(self) -> float:
        """Seconds of the fastest round."""
        return min(self.seconds)


def measure(task: str, *, rounds: int, threads: int, **settings: Any) -> tuple[list[Measurement], str]:
    """What `task` takes on this machine, and a digest of what came out of it, the same in every round.

    Args:
        task: train, encode, decode or shards; encode gives two measurements, of a fresh tokenizer and of a used one.
        rounds: Times to run it, each in a new process.
        threads: Threads to run it on.
        settings: paths, and what the task wants of vocab_size, pattern, tokenizer, max_bytes, out.

    Raises:
        ValueError: What the task says of a wrong input.
        RuntimeError: It failed, or two rounds gave different results.
    """
    results = [_child({"task": task, "threads": threads, **settings}) for _ in range(rounds)]
    digests = {result["digest"] for result in results}
    if len(digests) > 1:
        raise RuntimeError(f"{task}: the rounds gave different results; this is a bug in tinygpt")
    measurements = [
        Measurement(
            task=name,
            threads=threads,
            seconds=tuple(result["seconds"][name] for result in results),
            n_bytes=results[0]["n_bytes"],
            n_tokens=results[0]["n_tokens"],
            peak_mb=max((result["peak_mb"] for result in results), key=lambda peak: peak or 0),
        )
        for name in results[0]["seconds"]
    ]
    return measurements, digests.pop()


def peak_mb() -> float | None:
    """Highest resident memory of this process so far, in MB; None where the system does not tell."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the parent held when it forked
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
        return next((int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM")), None)
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


def _child(settings: Settings) -> dict[str, Any]:
    """The result of a task, from a process of its own."""
    code = "from tinygpt.measurement import run_task; run_task()"
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(settings), capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise RuntimeError(f"{settings['task']}: {said[0]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if "wrong" in result:
        raise ValueError(result["wrong"])
    return result


def run_task() -> None:
    """Runs the task that standard input names and prints its result, both in JSON."""
    settings: Settings = json.loads(sys.stdin.read())
    try:
        result = TASKS[settings["task"]](settings) | {"peak_mb": peak_mb()}
    except (ValueError, OSError) as error:
        result = {"wrong": str(error)}
    print(json.dumps(result))


def _train(settings: Settings) -> dict[str, Any]:
    corpus = Corpus(settings["paths"], threads=settings["threads"])
    begin = time.perf_counter()
    tokenizer = Tokenizer.train(corpus, vocab_size=settings["vocab_size"], pattern=settings["pattern"])
    seconds = time.perf_counter() - begin
    tokenizer.save(settings["tokenizer"])
    return _result({"train": seconds}, corpus.n_bytes, None, tokenizer.fingerprint)


def _encode(settings: Settings) -> dict[str, Any]:
    """Of a tokenizer that has seen no text yet, and of the same once more."""
    tokenizer, texts = Tokenizer.load(settings["tokenizer"]), _texts(settings)
    one_thread = settings["threads"] == 1
    if not one_thread:  # the same ids, since no part ends within a token
        names, size = tokenizer.added_names, _BATCH_PART_CHARACTERS
        texts = [
            part
            for text in texts
            for part in text_parts(_slices(text, size), pattern=tokenizer.pattern, whole=names, part_characters=size)
        ]
    n_bytes = sum(len(text.encode()) for text in texts)
    seconds, digests = {}, set()
    for name in ("encode", "encode again"):
        begin = time.perf_counter()
        if one_thread:
            rows = [tokenizer.encode_to_numpy(text) for text in texts]
        else:
            rows = [tokenizer.encode_batch_to_numpy(texts, threads=settings["threads"])[0]]
        seconds[name] = time.perf_counter() - begin
        digests.add(_digest(rows))
    if len(digests) > 1:
        raise RuntimeError("encoding twice gave different ids")
    return _result(seconds, n_bytes, sum(map(len, rows)), digests.pop())


def _decode(settings: Settings) -> dict[str, Any]:
    tokenizer, texts = Tokenizer.load(settings["tokenizer"]), _texts(settings)
    rows = [tokenizer.encode_to_numpy(text) for text in texts]
    begin = time.perf_counter()
    decoded = [tokenizer.decode_bytes(ids) for ids in rows]
    seconds = time.perf_counter() - begin
    if any(raw != text.encode() for raw, text in zip(decoded, texts, strict=True)):
        raise RuntimeError("decoding gave another text than was encoded")
    return _result({"decode": seconds}, sum(map(len, decoded)), sum(map(len, rows)), _digest(rows))


def _shards(settings: Settings) -> dict[str, Any]:
    """The digest is the number of tokens of text, since order and ends of documents are those of the shards."""
    tokenizer, corpus = Tokenizer.load(settings["tokenizer"]), Corpus(settings["paths"])
    with tempfile.TemporaryDirectory(prefix="tinygpt-bench-") as folder:
        begin = time.perf_counter()
        manifest = tokenizer.write_shards(corpus, Path(folder, "shards"), threads=settings["threads"], val_fraction=0)
        seconds = time.perf_counter() - begin
    shards = [shard for split in manifest.splits.values() for shard in split]
    tokens = sum(shard.tokens for shard in shards)
    text_tokens = tokens - sum(shard.documents for shard in shards)
    return _result({"shards": seconds}, corpus.n_bytes, tokens, str(text_tokens))


TASKS: dict[str, Callable[[Settings], dict[str, Any]]] = {
    "train": _train,
    "encode": _encode,
    "decode": _decode,
    "shards": _shards,
}


def _result(seconds: dict[str, float], n_bytes: int | None, n_tokens: int | None, digest: str) -> dict[str, Any]:
    return {"seconds": seconds, "n_bytes": n_bytes, "n_tokens": n_tokens, "digest": digest}


def _texts(settings: Settings) -> list[str]:
    """The documents of the corpus until `max_bytes` of them; the last one is cut."""
    texts, left = list[str](), settings["max_bytes"]
    for text in Corpus(settings["paths"]):
        raw = text.encode()
        texts.append(text if len(raw) <= left else raw[:left].decode(errors="ignore"))
        left -= len(raw)
        if left <= 0:
            break
    return texts


def _slices(text: str, size: int) -> list[str]:
    return [text[i : i + size] for i in range(0, len(text), size)]


def _digest(rows: Sequence[Any]) -> str:
    digest = 0
    for ids in rows:
        digest = zlib.crc32(ids.tobytes(), digest)
    return f"{digest:08x}"


def processor() -> str:
    """The processor's name, as well as the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
