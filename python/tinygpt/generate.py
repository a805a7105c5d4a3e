"""`tinygpt generate`: continue a prompt with a trained model."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tinygpt.command import run
from tinygpt.config import read
from tinygpt.samplingconfig import Sampling


@dataclass(frozen=True, kw_only=True)
class GenerateFlags:
    """Where the model and the prompt come from, and how much to write."""

    checkpoint: Path
    """Run folder, checkpoint folder, or Hugging Face folder of a class we know."""
    which: str = "best"
    """In a run folder: best (by validation loss), last, or the number of a step."""
    prompt: str = ""
    """Text to continue; `-` reads it from standard input, an empty one starts a document."""
    prompt_file: Path | None = None
    """File that holds the prompt, UTF-8."""
    chat: bool = False
    """Ask a model that was trained on chats: the prompt is what a user says, and the answer alone is written."""
    system: str | None = None
    """Message of the system before the prompt, with --chat."""
    max_new_tokens: int = 200
    """Tokens to write at most."""
    stop: tuple[str, ...] = ()
    """Strings before which the text ends."""
    n: int = 1
    """Texts to write, with seeds --seed, --seed + 1, ..."""
    seed: int | None = None
    """The same seed gives the same text; none draws one."""
    cpu: bool = False
    """Stay on the CPU even if there is a GPU."""
    threads: int | None = None
    """CPU threads; none takes what torch finds."""

    def __post_init__(self) -> None:
        for name, least in (("max_new_tokens", 0), ("n", 1), ("threads", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if self.prompt and self.prompt_file is not None:
            raise ValueError("prompt and --prompt-file are both given; keep one of them")
        if self.system is not None and not self.chat:
            raise ValueError("system is the first message of a chat; give --chat, too")
        if self.which not in ("best", "last") and not self.which.isdecimal():
            raise ValueError(f"which must be best, last or the number of a step, got {self.which!r}")


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of `tinygpt generate`; the prompt and its continuation go to standard output as they come."""
    return run(_generate, argv, verb="generate")


def _generate(argv: Sequence[str]) -> int:
    about = "Continues a prompt with a trained model; prompt and text go to standard output."
    groups = {"": GenerateFlags, "sampling": Sampling}
    options = read(argv, groups, prog="tinygpt generate", description=about)
    flags, sampling = options.build(GenerateFlags), options.build(Sampling)
    prompt = _prompt(flags)

    import torch  # only once the flags are right

    from tinygpt.checkpoint import Checkpoint

    if flags.threads is not None:
        torch.set_num_threads(flags.threads)
    device = "cuda" if torch.cuda.is_available() and not flags.cpu else "cpu"
    which = int(flags.which) if flags.which.isdecimal() else flags.which
    checkpoint = Checkpoint.load(flags.checkpoint, which, device=device)
    for i in range(flags.n):
        pieces = checkpoint.stream(
            prompt,
            chat=flags.chat,
            system=flags.system,
            max_new_tokens=flags.max_new_tokens,
            **asdict(sampling),
            stop=flags.stop,
            seed=None if flags.seed is None else flags.seed + i,
        )
        if flags.n > 1:
            _write(f"--- {i + 1} of {flags.n}\n")
        _write("" if flags.chat else prompt)
        for piece in pieces:
            _write(piece)
        _write("\n")
    return 0


def _prompt(flags: GenerateFlags) -> str:
    """The text to continue."""
    if flags.prompt_file is not None:
        name, raw = str(flags.prompt_file), flags.prompt_file.read_bytes()
    elif flags.prompt == "-":
        name, raw = "standard input", sys.stdin.buffer.read()
    else:
        name, raw = "--prompt", flags.prompt.encode("utf-8", "surrogateescape")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        found = f"byte {raw[error.start]:#04x} at {error.start}"
        raise ValueError(f"{name}: not UTF-8 text ({found}); convert it") from None


def _write(text: str) -> None:
    """`text` to standard output at once, as UTF-8 whatever the locale says."""
    stream = getattr(sys.stdout, "buffer", None)
    if stream is None:
        sys.stdout.write(text)
    else:
        stream.write(text.encode("utf-8", "replace"))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
