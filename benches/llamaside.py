"""The other side of the recipe race: transformers' Llama by AdamW, for so many seconds, on our shards and windows.

bfloat16 by autocast, torch.compile, AdamW in one kernel, and malloc that keeps its memory: as fast as it gets without
changing it. The rate rises over `WARMUP_STEPS` and falls by a cosine to a tenth as the seconds pass, so it ends where
they do. Compiling is not counted, nor is evaluation.
"""

import json
import math
import sys
import time
from dataclasses import dataclass
from typing import Any

from benches.peerside import keep_memory

WARMUP_STEPS, WEIGHT_DECAY, BETAS = 100, 0.1, (0.9, 0.95)


@dataclass(frozen=True, kw_only=True)
class Task:
    """What to train, on what, and for how long."""

    data: str
    """The prepared folder."""
    n_layer: int
    n_head: int
    d_model: int
    d_ff: int
    block_size: int
    batch_size: int
    learning_rate: float
    seconds: float
    evaluations: int
    eval_windows: int
    seed: int
    threads: int


def train(task: Task) -> dict[str, Any]:
    """The curve, one row an evaluation: seconds of training, nats per token, bits per byte; and what was trained."""
    keep_memory()
    import torch
    import transformers
    from tinygpt import TokenDataset

    torch.set_num_threads(task.threads)
    torch.manual_seed(task.seed)
    data = TokenDataset(task.data, "train", block_size=task.block_size)
    config = transformers.LlamaConfig(
        vocab_size=data.vocab_size, max_position_embeddings=task.block_size, num_hidden_layers=task.n_layer,
        num_attention_heads=task.n_head, hidden_size=task.d_model, intermediate_size=task.d_ff,
        tie_word_embeddings=True, use_cache=False,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    matrices, vectors = ([p for p in model.parameters() if (p.ndim >= 2) is kind] for kind in (True, False))
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=task.learning_rate, betas=BETAS, fused=True)

    def nats(x: Any, y: Any) -> Any:
        logits = model(input_ids=x).logits
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), y.flatten())

    compiled = torch.compile(nats, dynamic=False)

    def learn(k: int) -> None:
        x, y = data.batch(k, batch_size=task.batch_size, seed=task.seed)  # each (B, T)
        with torch.autocast("cpu", torch.bfloat16):
            loss = compiled(x, y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()

    learn(0)  # compiles
    seconds, k, curve = 0.0, 0, [evaluated(nats, task, 0.0)]
    while seconds < task.seconds:
        begin = time.perf_counter()
        learn(k)
        for group in optimizer.param_groups:
            group["lr"] = task.learning_rate * share_of_rate(k, seconds / task.seconds)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        seconds, k = seconds + time.perf_counter() - begin, k + 1
        if seconds >= task.seconds * len(curve) / task.evaluations:
            curve.append(evaluated(nats, task, seconds))
            print(f"step {k}, {seconds:.0f} s, validation {curve[-1][1]:.4f} nats", file=sys.stderr, flush=True)
    tokens, n_parameters = k * task.batch_size * task.block_size, sum(p.numel() for p in model.parameters())
    return {"curve": curve, "steps": k, "tokens": tokens, "parameters": n_parameters}


def share_of_rate(step: int, progress: float) -> float:
    """The rate at a step, as a share of the highest; `progress` is the share of the seconds that have passed."""
    return min((step + 1) / WARMUP_STEPS, 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def evaluated(nats: Any, task: Task, seconds: float) -> tuple[float, float, float]:
    """Seconds, nats per token and bits per byte, on the windows that the command evaluates on."""
    import torch
    from tinygpt import TokenDataset, Tokenizer

    val = TokenDataset(task.data, "val", block_size=task.block_size)
    lengths = torch.from_numpy(Tokenizer.load(task.data).token_lengths()[0].astype("int64"))  # (V,)
    total, n_tokens, n_bytes, size = 0.0, 0, 0, task.batch_size
    for k in range(min(task.eval_windows, len(val)) // size):
        x, y = val.batch(k, batch_size=size)  # each (B, T)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            total += nats(x, y).item() * y.numel()
        n_tokens, n_bytes = n_tokens + y.numel(), n_bytes + int(lengths[y].sum())
    return seconds, total / n_tokens, total / math.log(2) / n_bytes


if __name__ == "__main__":
    print(json.dumps(train(Task(**json.loads(sys.argv[1])))))
