"""`tinygpt export`: write a trained model for another program, and hold it against the model."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tinygpt.command import run
from tinygpt.config import read


@dataclass(frozen=True, kw_only=True)
class ExportFlags:
    """What to write, from which model, and where."""

    checkpoint: Path
    """Run folder, checkpoint folder, Hugging Face folder of a class we know, or nanoGPT's ckpt.pt."""
    to: Literal["hf", "gguf", "ollama", "llmc", "onnx"]
    """hf for transformers, gguf for llama.cpp, ollama (GGUF and a Modelfile), llmc for llm.c, onnx for onnxruntime."""
    out: Path
    """Folder to write."""
    which: str = "best"
    """In a run folder: best (by validation loss), last, or the number of a step."""
    dtype: str | None = None
    """Type of the weights: f32, f16, bf16, q8_0, as the target has them; none takes f16 for gguf and ollama."""
    verify: bool = False
    """Let the program that owns the format open what was written, and compare tokens, weights, logits and text."""
    lines: Path | None = None
    """Text file whose lines --verify compares tokens on; none takes the training data and hard lines made up."""
    replace: bool = False
    """Let it take the place of a folder that stands at --out."""
    allow_pickle: bool = False
    """Read a .pt file, by torch's reader of plain data."""
    threads: int | None = None
    """CPU threads; none takes what torch finds."""

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}")
        if self.lines is not None and not self.verify:
            raise ValueError("lines are what --verify compares; give --verify, too")
        if self.which not in ("best", "last") and not self.which.isdecimal():
            raise ValueError(f"which must be best, last or the number of a step, got {self.which!r}")


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of `tinygpt export`: 0 done, 2 what cannot be written, 1 what --verify does not find equal."""
    return run(_export, argv, verb="export")


def _export(argv: Sequence[str]) -> int:
    about = "Writes a trained model for another program, and holds it against the model."
    flags = read(argv, {"": ExportFlags}, prog="tinygpt export", description=about).build(ExportFlags)

    import torch  # only once the flags are right

    from tinygpt.exporting import dtype_of, export
    from tinygpt.importing import load_model
    from tinygpt.verifying import lines_of, need_owner, verify

    if flags.verify:
        need_owner(flags.to)
    if flags.out.exists() and not flags.replace:
        raise FileExistsError(f"{flags.out} exists; --replace lets the export take its place")
    if flags.threads is not None:
        torch.set_num_threads(flags.threads)
    dtype = dtype_of(flags.to, flags.dtype)
    which = int(flags.which) if flags.which.isdecimal() else flags.which
    checkpoint = load_model(flags.checkpoint, which, allow_pickle=flags.allow_pickle)

    def check(folder: Path) -> None:
        lines = lines_of(checkpoint, flags.lines)
        rows = verify(checkpoint, folder, to=flags.to, dtype=dtype, lines=lines, threads=torch.get_num_threads())
        print("\n".join(map(str, rows)), flush=True)
        if wrong := [row.name for row in rows if not row.is_equal]:
            raise RuntimeError(
                f"{flags.to} {dtype} is not the model: {', '.join(wrong)} differ, so nothing was written"
            )

    is_asked = flags.verify and flags.to != "llmc"
    export(checkpoint, flags.out, to=flags.to, dtype=dtype, replace=flags.replace, check=check if is_asked else None)
    if flags.verify and not is_asked:
        print("layout     sizes and headers as llm.c reads them; no program of its own can be asked here")
    print(f"written: {', '.join(str(path) for path in sorted(flags.out.iterdir()))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
