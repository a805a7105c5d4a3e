"""`tinygpt generate`: continue a prompt with a trained model, or ask how likely a text is."""

if __name__ == "__main__":  # Ctrl-C may come during the imports below
    from tinygpt.interruption import leave_on_interrupt

    leave_on_interrupt()

import math
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tinygpt.command import run, write_now
from tinygpt.config import read
from tinygpt.modelflags import WritingFlags
from tinygpt.samplingconfig import Sampling

if TYPE_CHECKING:
    from tinygpt.checkpoint import Checkpoint


@dataclass(frozen=True, kw_only=True)
class GenerateFlags(WritingFlags):
    """Where the prompt comes from, and what is written."""

    prompt: str = ""
    """Text to continue; `-` reads it from standard input, an empty one starts a document."""
    prompt_file: Path | None = None
    """File that holds the prompt, UTF-8."""
    chat: bool = False
    """The prompt is what a user says to a model that was trained on chats: write its answer alone."""
    n: int = 1
    """Texts to write, in one batch, with seeds --seed, --seed + 1, ..."""
    logit_bias: tuple[str, ...] = ()
    """ID=NUMBER: added to the logit of that id; -inf never draws it."""
    score: bool = False
    """Write nothing new: say how likely the prompt is, token by token, and its perplexity."""
    logprobs: int | None = None
    """A line for each token, with the logarithm of its probability and those of this many likeliest ones."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("n", 1), ("logprobs", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if self.prompt and self.prompt_file is not None:
            raise ValueError("prompt and --prompt-file are both given; keep one of them")
        if self.system is not None and not self.chat:
            raise ValueError("system is the first message of a chat; give --chat, too")
        if self.score and (self.chat or self.n > 1):
            raise ValueError("score is about the prompt, as plain text; leave --chat and --n out")
        if self.logprobs is not None and (self.n > 1 or self.chat or self.stop):
            raise ValueError("logprobs are of one text, all of it; leave --n, --chat and --stop out")
        if self.chat and not self.prompt and self.prompt_file is None:
            raise ValueError(f"chat needs a --prompt to answer; `tinygpt chat {self.checkpoint}` talks line by line")


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of `tinygpt generate`; the prompt and its continuation go to standard output as they come."""
    return run(_generate, argv, verb="generate")


def _generate(argv: Sequence[str]) -> int:
    about = "Continues a prompt with a trained model; prompt and text go to standard output."
    groups = {"": GenerateFlags, "sampling": Sampling}
    options = read(argv, groups, prog="tinygpt generate", description=about)
    flags = options.build(GenerateFlags)
    if flags.score:
        drawing = ("max_new_tokens", "stop", "seed", "logit_bias")
        given = [*options.given(Sampling), *(name for name in drawing if name in options.given(GenerateFlags))]
        if given:
            raise ValueError(
                f"--{given[0].replace('_', '-')} is about drawing tokens, and --score draws none; leave it out"
            )
    sampling = options.build(Sampling, logit_bias=dict(map(_bias, flags.logit_bias)))
    prompt = _prompt(flags)

    checkpoint = flags.load_to_write()
    if flags.score:
        _score(checkpoint, flags, prompt)
    elif flags.logprobs is not None:
        _list(checkpoint, flags, sampling, prompt)
    else:
        _continue(checkpoint, flags, sampling, prompt)
    return 0


def _continue(checkpoint: "Checkpoint", flags: GenerateFlags, sampling: Sampling, prompt: str) -> None:
    """One text as it comes, or several one after the other."""
    options = {
        **asdict(sampling),
        "chat": flags.chat,
        "system": flags.system,
        "max_new_tokens": flags.max_new_tokens,
        "stop": flags.stop,
        "seed": flags.seed,
        "dtype": flags.kept_as,
    }
    shown = "" if flags.chat else prompt
    if flags.n == 1:
        pieces = checkpoint.stream(prompt, **options)
        write_now(shown)
        for piece in pieces:
            write_now(piece)
        write_now("\n")
        return
    for i, text in enumerate(checkpoint.generate_batch([prompt] * flags.n, **options)):
        write_now(f"--- {i + 1} of {flags.n}\n{shown}{text}\n")


def _list(checkpoint: "Checkpoint", flags: GenerateFlags, sampling: Sampling, prompt: str) -> None:
    """A line for each token that is drawn."""
    from tinygpt.generation import Streams

    streams = Streams(checkpoint.decoder(dtype=flags.kept_as))
    request = checkpoint.request(
        checkpoint.prompt_ids(prompt),
        max_new_tokens=flags.max_new_tokens,
        sampling=sampling,
        seed=flags.seed,
        n_logprobs=flags.logprobs,
    )
    streams.add(request)
    while streams.n_active:
        for drawn in streams.step():
            if drawn.id is not None and drawn.logprob is not None:
                write_now(_line(checkpoint, drawn.id, drawn.logprob, drawn.top))


def _score(checkpoint: "Checkpoint", flags: GenerateFlags, prompt: str) -> None:
    """How likely the prompt is; its tokens, too, with --logprobs."""
    score = checkpoint.score(prompt, n_logprobs=flags.logprobs or 0, dtype=flags.kept_as)
    if flags.logprobs is not None:
        for token in score.tokens:
            write_now(_line(checkpoint, token.id, token.logprob, token.top))
    write_now(
        f"perplexity {score.perplexity:.4g}, {score.loss:.4f} nats a token, {score.bits_per_byte:.4f} bits a byte, "
        f"{len(score.tokens)} tokens, {score.n_bytes} bytes\n"
    )


def _line(checkpoint: "Checkpoint", i: int, logprob: float, top: Sequence[tuple[int, float]]) -> str:
    """Logarithm, id and text of a token, then the likeliest ones, with tabs between."""
    assert checkpoint.tokenizer is not None, "prompts without a tokenizer are refused"
    decode = checkpoint.tokenizer.decode
    others = [f"{decode([other])!r} {value:.4f}" for other, value in top]
    return "\t".join([f"{logprob:.4f}", str(i), repr(decode([i])), *others]) + "\n"


def _bias(text: str) -> tuple[int, float]:
    """Id and number of `ID=NUMBER`."""
    name, equals, number = text.partition("=")
    with suppress(ValueError):
        if equals and name.strip().isdecimal() and float(number) < math.inf:  # which NaN is not, either
            return int(name), float(number)
    raise ValueError(f"--logit-bias takes ID=NUMBER, such as 262=-5, got {text!r}")


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


if __name__ == "__main__":
    sys.exit(main())
