"""`python -m benches serve`: many clients beside one, and a load of every kind of client, with the answers checked."""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import torch
from tinygpt.chattemplate import CHAT_TOKENS
from tinygpt.checkpoint import Checkpoint
from tinygpt.model import GPT, GPTConfig
from tinygpt.tokenizer import Tokenizer

TINY = {"block_size": 64, "n_layer": 1, "n_head": 2, "d_model": 64}
LARGE = {"block_size": 256, "n_layer": 8, "n_head": 8, "d_model": 512, "vocab_size": 32000}
SEEDS, TOKENS = 200, 20
MEMORY_EVERY = 2000
ENDLESS = {"logit_bias": {"256": -100, "260": -100}}


def saved(folder: Path, **shape: int) -> Checkpoint:
    """A checkpoint of random weights that writes bytes."""
    torch.manual_seed(0)
    tokenizer = Tokenizer.train(["a"], pattern="byte", special_tokens=["<|endoftext|>", *CHAT_TOKENS])
    checkpoint = Checkpoint(GPT(GPTConfig(**{"vocab_size": tokenizer.vocab_size, **shape})).eval(), tokenizer)
    checkpoint.save(folder)
    return checkpoint


class Server:
    """A server in a process of its own."""

    def __init__(self, folder: Path, *flags: str) -> None:
        line = [sys.executable, "-m", "tinygpt.serve", "--checkpoint", str(folder), "--port", "0", *flags]
        self.process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.process.stdout.readline()
        self.address = self.process.stdout.readline().strip()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def resident_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024


async def rate(address: str, n_clients: int, n_tokens: int) -> float:
    """Tokens a second of all clients together, streaming."""
    asked = {"prompt": "Once upon a time", "max_tokens": n_tokens, "stream": True, "temperature": 0.8, **ENDLESS}
    asked["stream_options"] = {"include_usage": True}

    async def one(client: httpx.AsyncClient) -> int:
        async with client.stream("POST", f"{address}/v1/completions", json=asked) as answer:
            lines = [line async for line in answer.aiter_lines() if line]
        return int(json.loads(lines[-2].removeprefix("data: "))["usage"]["completion_tokens"])

    async with httpx.AsyncClient(timeout=300) as client:
        started = time.perf_counter()
        drawn = await asyncio.gather(*(one(client) for _ in range(n_clients)))
        seconds = time.perf_counter() - started
    assert drawn == [n_tokens] * n_clients, drawn
    return sum(drawn) / seconds


async def load(address: str, server: Server, n_requests: int, texts: list[str]) -> dict[str, Any]:
    """What became of requests of 32 clients: plain, streaming, slow, leaving, too large, malformed."""
    counts: Counter[str] = Counter()
    memory, row, draw = [server.resident_mb()], iter(range(n_requests)), random.Random(0)
    url, kind = f"{address}/v1/completions", {"content-type": "application/json"}

    async def ask(client: httpx.AsyncClient, way: str) -> None:
        seed = draw.randrange(SEEDS)
        asked = {"prompt": "Once", "max_tokens": TOKENS, "seed": seed}
        if way == "whole":
            answer = await client.post(url, json=asked)
            counts["wrong tokens"] += answer.json()["choices"][0]["text"] != texts[seed]
        elif way in ("stream", "slow"):
            text = ""
            async with client.stream("POST", url, json={**asked, "stream": True}) as answer:
                async for line in answer.aiter_lines():
                    if line and line != "data: [DONE]":
                        text += json.loads(line.removeprefix("data: "))["choices"][0]["text"]
                    await asyncio.sleep(0.01 if way == "slow" else 0)
            counts["wrong tokens"] += text != texts[seed]
        elif way == "leave":
            async with client.stream(
                "POST", url, json={**asked, **ENDLESS, "max_tokens": 10**6, "stream": True}
            ) as answer:
                async for _ in answer.aiter_lines():
                    break
        elif way == "oversized":
            answer = await client.post(url, content=b" " * (2**20 + 1), headers=kind)
            counts["wrong statuses"] += answer.status_code != 413
        else:
            body = draw.choice([b"{", b"[]", b'{"prompt": 1}', b"\xff", b'{"prompt": "a", "n": -1}', b"[" * 9999])
            answer = await client.post(url, content=body, headers=kind)
            counts["wrong statuses"] += answer.status_code != 400

    async def worker(client: httpx.AsyncClient) -> None:
        for i in row:
            way = draw.choices([*WAYS], [*WAYS.values()])[0]
            counts[way] += 1
            try:
                await ask(client, way)
            except httpx.TimeoutException:
                counts["stuck"] += 1
            except httpx.HTTPError as error:
                counts[f"failed: {way} {type(error).__name__}"] += 1
            if (i + 1) % MEMORY_EVERY == 0:
                memory.append(server.resident_mb())

    started = time.perf_counter()
    async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=64)) as client:
        await asyncio.gather(*(worker(client) for _ in range(32)))
        seconds = time.perf_counter() - started
        await asyncio.sleep(1)
        gauges = (await client.get(f"{address}/metrics")).text
    left = [
        line for line in gauges.splitlines() if line.startswith(("tinygpt_streams_active ", "tinygpt_answers_wait"))
    ]
    return {"seconds": seconds, "requests/s": n_requests / seconds, "MB": memory, "counts": counts, "left": left}


WAYS = {"whole": 40, "stream": 30, "slow": 8, "leave": 12, "oversized": 2, "malformed": 8}
"""How often each kind of client comes, in percent."""


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benches serve", description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000, help="requests of the load (default: 10000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the rates (default: 5)")
    parser.add_argument("--only", choices=["load", "rate"], help="one of the two (default: both)")
    arguments = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as parent:
        if arguments.only != "rate":
            checkpoint = saved(Path(parent) / "tiny", **TINY)
            options: dict[str, Any] = {"max_new_tokens": TOKENS, "dtype": "float32"}
            texts = [checkpoint.generate("Once", seed=seed, **options) for seed in range(SEEDS)]
            with Server(Path(parent) / "tiny", "--dtype", "float32", "--threads", "1") as server:
                result = asyncio.run(load(server.address, server, arguments.requests, texts))
            print(f"{arguments.requests} requests in {result['seconds']:.1f} s, {result['requests/s']:.0f} a second")
            print(
                f"MB at the start and after each {MEMORY_EVERY} requests:", " ".join(f"{mb:.1f}" for mb in result["MB"])
            )
            counts = {**dict.fromkeys(("stuck", "wrong tokens", "wrong statuses"), 0), **result["counts"]}
            print(", ".join(f"{name} {n}" for name, n in counts.items()), *result["left"], sep="\n", flush=True)
        if arguments.only != "load":
            saved(Path(parent) / "large", **LARGE)
            with Server(Path(parent) / "large") as server:
                for _ in range(arguments.rounds):
                    one = asyncio.run(rate(server.address, 1, 100))
                    many = asyncio.run(rate(server.address, 16, 100))
                    print(f"1 client {one:.0f} tokens/s, 16 clients {many:.0f}, ratio {many / one:.2f}", flush=True)
