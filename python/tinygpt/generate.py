"""`tinygpt generate`: continue a prompt with a trained model, talk with one, or ask how likely a text is."""

if __name__ == "__main__":  # Ctrl-C may come during the imports below
    from tinygpt.interruption import leave_on_interrupt

    leave_on_interrupt()

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tinygpt.command import run
from tinygpt.config import read
from tinygpt.modelflags import ModelFlags
from tinygpt.samplingconfig import Sampling

if TYPE_CHECKING:
    from tinygpt.checkpoint import Checkpoint


@dataclass(frozen=True, kw_only=True)
class GenerateFlags(ModelFlags):
    """Where the model and the prompt come from, and how much to write."""

    prompt: str = ""
    """Text to continue; `-` reads it from standard input, an empty one starts a document."""
    prompt_file: Path | None = None
    """File that holds the prompt, UTF-8."""
    chat: bool = False
    """Ask a model that was trained on chats: the answer to the prompt alone, or without one a talk, line by line."""
    system: str | None = None
    """Message of the system before the prompt, with --chat."""
    max_new_tokens: int = 200
    """Tokens to write at most."""
    stop: tuple[str, ...] = ()
    """Strings before which the text ends."""
    n: int = 1
    """Texts to write, in one batch, with seeds --seed, --seed + 1, ..."""
    seed: int | None = None
    """The same seed gives the same text; none draws one."""
    logit_bias: tuple[str, ...] = ()
    """ID=NUMBER: added to the logit of that id; -inf never draws it."""
    score: bool = False
    """Write nothing new: say how likely the prompt is, token by token, and its perplexity."""
    logprobs: int | None = None
    """A line for each token, with the logarithm of its probability and those of this many likeliest ones."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """How weights are kept: auto takes bfloat16 on a CPU, and what the model has on a GPU."""
    int8: bool = False
    """Keep weights as bytes with scales: half of bfloat16 to read for each token; on a CPU."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("max_new_tokens", 0), ("n", 1), ("logprobs", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if self.prompt and self.prompt_file is not None:
            raise ValueError("prompt and --prompt-file are both given; keep one of them")
        if self.system is not None and not self.chat:
            raise ValueError("system is the first message of a chat; give --chat, too")
        if self.int8 and self.dtype != "auto":
            raise ValueError(f"int8 and --dtype {self.dtype} are both given; keep one of them")
        if self.score and (self.chat or self.n > 1):
            raise ValueError("score is about the prompt, as plain text; leave --chat and --n out")
        if self.logprobs is not None and (self.n > 1 or self.chat or self.stop):
            raise ValueError("logprobs are of one text, all of it; leave --n, --chat and --stop out")
        if self.is_talk and self.n > 1:
            raise ValueError("n texts need a prompt; a talk has one answer to each line")

    @property
    def is_talk(self) -> bool:
        """Whether lines are read and answered one after the other."""
        return self.chat and not self.prompt and self.prompt_file is None


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
    if flags.is_talk:
        _talk(checkpoint, flags, sampling)
    elif flags.score:
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
        "dtype": _dtype(flags),
    }
    shown = "" if flags.chat else prompt
    if flags.n == 1:
        pieces = checkpoint.stream(prompt, **options)
        _write(shown)
        for piece in pieces:
            _write(piece)
        _write("\n")
        return
    for i, text in enumerate(checkpoint.generate_batch([prompt] * flags.n, **options)):
        _write(f"--- {i + 1} of {flags.n}\n{shown}{text}\n")


def _talk(checkpoint: "Checkpoint", flags: GenerateFlags, sampling: Sampling) -> None:
    from tinygpt.conversation import Conversation

    talk = Conversation(
        checkpoint,
        _write,
        system=flags.system,
        sampling=sampling,
        max_new_tokens=flags.max_new_tokens,
        stop=flags.stop,
        seed=flags.seed,
        dtype=_dtype(flags),
    )
    if sys.stdin.isatty():
        _write("Say something; /help lists the commands.\n")
    talk.run(_lines())


def _lines() -> Iterator[str]:
    """What is typed, with the terminal's history; Ctrl-C drops a line, Ctrl-D ends them."""
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        with suppress(ImportError):
            import readline  # noqa: F401  # gives input() the arrow keys
    while True:
        try:
            yield input("> " if is_terminal else "")
        except EOFError:
            if is_terminal:
                _write("\n")
            return
        except KeyboardInterrupt:
            if not is_terminal:
                raise
            _write("\n(/quit or Ctrl-D leaves)\n")


def _list(checkpoint: "Checkpoint", flags: GenerateFlags, sampling: Sampling, prompt: str) -> None:
    """A line for each token that is drawn."""
    from tinygpt.generation import Streams

    streams = Streams(checkpoint.decoder(dtype=_dtype(flags)))
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
                _write(_line(checkpoint, drawn.id, drawn.logprob, drawn.top))


def _score(checkpoint: "Checkpoint", flags: GenerateFlags, prompt: str) -> None:
    """How likely the prompt is; its tokens, too, with --logprobs."""
    score = checkpoint.score(prompt, n_logprobs=flags.logprobs or 0, dtype=_dtype(flags))
    if flags.logprobs is not None:
        for token in score.tokens:
            _write(_line(checkpoint, token.id, token.logprob, token.top))
    _write(
        f"perplexity {score.perplexity:.4g}, {score.loss:.4f} nats a token, {score.bits_per_byte:.4f} bits a byte, "
        f"{len(score.tokens)} tokens, {score.n_bytes} bytes\n"
    )


def _line(checkpoint: "Checkpoint", i: int, logprob: float, top: Sequence[tuple[int, float]]) -> str:
    """Logarithm, id and text of a token, then the likeliest ones, with tabs between."""
    assert checkpoint.tokenizer is not None, "prompts without a tokenizer are refused"
    decode = checkpoint.tokenizer.decode
    others = [f"{decode([other])!r} {value:.4f}" for other, value in top]
    return "\t".join([f"{logprob:.4f}", str(i), repr(decode([i])), *others]) + "\n"


def _dtype(flags: GenerateFlags) -> Literal["auto", "float32", "bfloat16", "int8"]:
    return "int8" if flags.int8 else flags.dtype


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
