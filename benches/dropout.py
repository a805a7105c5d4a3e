"""What dropout costs: forward and backward passes without it, with it, and as torch does it, in turn in one process."""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence

import torch
from tinygpt.engine import Engine, configure_process
from tinygpt.model import GPT, GPTConfig
from torch import nn

RATE = 0.1
SHAPES = {  # name -> context, windows, layers, width, heads
    "4 x 128, 12 windows of 128": (128, 12, 4, 128, 4),
    "3 x 320, 12 windows of 256": (256, 12, 3, 320, 5),
    "8 x 512, 6 windows of 256": (256, 6, 8, 512, 8),
}
WAYS = ("none", "ours", "torch")
_MOST_DIFFERENCE = 0.02  # of the losses of two ways to drop, in the mean


def main(argv: Sequence[str]) -> None:
    """Prints median tokens a second by shape and way; ends with an error where ours gives another loss than torch's."""
    parser = argparse.ArgumentParser(prog="python -m benches dropout", description=__doc__)
    parser.add_argument("--rounds", type=int, default=12, help="passes of each way, in turn (default: 12)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads (default: all)")
    choice = parser.parse_args(argv)
    configure_process(Engine(threads=choice.threads))
    print(f"tokens/s, forward and backward, {choice.threads} threads, bfloat16, compiled: {', '.join(WAYS)}")
    for name, shape in SHAPES.items():
        speeds, losses = _race(shape, choice.rounds)
        print(f"  {name:<28}{', '.join(f'{speeds[way]:,.0f}' for way in WAYS)}", flush=True)
        if abs(losses["ours"] / losses["torch"] - 1) > _MOST_DIFFERENCE:
            sys.exit(f"{name}: a loss of {losses['ours']:.4f} in the mean, torch's is {losses['torch']:.4f}")


def _race(shape: tuple[int, ...], rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Median tokens a second, and mean loss, of each way."""
    block_size, windows, *_ = shape
    torch._dynamo.reset()  # which would compile no more after eight shapes and ways
    sides = {way: _side(shape, way) for way in WAYS}
    x, y = torch.randint(0, 1024, (2, windows, block_size))  # each int64 (B, T)
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    losses: dict[str, list[float]] = {way: [] for way in WAYS}
    for k in range(rounds + 2):
        for way, (engine, model) in sides.items():
            started = time.perf_counter()
            with engine.products():
                loss = model.loss(x, y)  # ()
                loss.backward()  # type: ignore[no-untyped-call]
            if k > 1:  # compiled in the first, the second still warms up
                seconds[way].append(time.perf_counter() - started)
                losses[way].append(loss.item())
            model.zero_grad()
    tokens = windows * block_size
    return (
        {way: tokens / statistics.median(each) for way, each in seconds.items()},
        {way: statistics.mean(each) for way, each in losses.items()},
    )


def _side(shape: tuple[int, ...], way: str) -> tuple[Engine, GPT]:
    """An engine, and a model as it runs it."""
    block_size, windows, n_layer, d_model, n_head = shape
    torch.manual_seed(0)
    model = GPT(
        GPTConfig(
            vocab_size=1024,
            block_size=block_size,
            n_layer=n_layer,
            n_head=n_head,
            d_model=d_model,
            dropout=0.0 if way == "none" else RATE,
            qk_norm=True,
        )
    )
    if way == "torch":
        for module in (model, *model.blocks):
            module.dropout = nn.Dropout(RATE)
    form = "fused" if way == "torch" else "explicit"
    engine = Engine(dtype="bfloat16", compile=True, attention=form, micro_batch=windows, loss_chunk=2 * d_model)
    return engine, engine.working_copy(model).train()
