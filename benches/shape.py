"""The model and the step that the training suite measures: plain numbers, which every side's interpreter can import."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

N_TOKENS = 2_000_000
HEADER_BYTES = 1024


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A GPT and its optimiser step of `batch_size * grad_accum` windows."""

    mlp: str = "gelu"
    """gelu, as nanoGPT and GPT-2 have it, or swiglu, as Llama."""
    vocab_size: int = 32_000
    n_layer: int = 8
    n_head: int = 8
    d_model: int = 512
    d_ff: int = 2048
    block_size: int = 256
    batch_size: int = 12
    grad_accum: int = 21
    threads: int = 2

    @property
    def tokens(self) -> int:
        """Of a micro-batch."""
        return self.batch_size * self.block_size

    def matrices(self) -> Iterator[tuple[int, int, int]]:
        """The matrices that tokens are multiplied with: rows, columns, and how many of them there are."""
        yield 3 * self.d_model, self.d_model, self.n_layer
        yield self.d_model, self.d_model, self.n_layer
        yield self.d_ff * (2 if self.mlp == "swiglu" else 1), self.d_model, self.n_layer
        yield self.d_model, self.d_ff, self.n_layer
        yield self.vocab_size, self.d_model, 1

    def n_parameters(self, *, has_biases: bool = False) -> int:
        """Of the model with tied embeddings: learned positions beside gelu, rope beside swiglu."""
        norms = (2 * self.n_layer + 1) * self.d_model
        positions = self.block_size * self.d_model if self.mlp == "gelu" else 0
        biases = norms + sum(rows * count for rows, _, count in self.matrices()) - self.vocab_size
        matrices = sum(rows * columns * count for rows, columns, count in self.matrices())
        return matrices + norms + positions + (biases if has_biases else 0)


STANDARD = {"gelu": Shape(), "swiglu": Shape(mlp="swiglu", d_ff=1408)}
TINY = {
    "gelu": Shape(vocab_size=512, n_layer=2, n_head=2, d_model=64, d_ff=256, block_size=32, batch_size=4, grad_accum=3),
    "swiglu": Shape(
        mlp="swiglu",
        vocab_size=512,
        n_layer=2,
        n_head=2,
        d_model=64,
        d_ff=192,
        block_size=32,
        batch_size=4,
        grad_accum=3,
    ),
}
"""To see that the suite works, within a minute."""


def write_tokens(folder: Path, vocab_size: int) -> Path:
    """A shard of tokens drawn at random, written by our own shard writer."""
    import numpy as np
    from tinygpt._core import ShardSet

    folder.mkdir()
    lengths, n = [1] * vocab_size, N_TOKENS
    ids = np.random.default_rng(0).integers(0, vocab_size, n).astype("<u4")
    shards = ShardSet.of_ids(
        str(folder), lengths=lengths, fingerprint=bytes(32), eot_id=None, shard_tokens=10 * n, val_fraction=0.0
    )
    shards.add_ids(["a" * n], [ids.tobytes()])
    shards.finish()
    (path,) = folder.glob("*.bin")
    return path
