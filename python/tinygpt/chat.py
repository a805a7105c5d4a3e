"""`tinygpt chat`: talk with a trained model in a terminal."""

if __name__ == "__main__":  # Ctrl-C may come during the imports below
    from tinygpt.interruption import leave_on_interrupt

    leave_on_interrupt()

import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import tyro

from tinygpt.command import run, write_now
from tinygpt.config import read
from tinygpt.modelflags import WritingFlags
from tinygpt.samplingconfig import Sampling


@dataclass(frozen=True, kw_only=True)
class ChatFlags(WritingFlags):
    """Which model."""

    checkpoint: tyro.conf.Positional[Path]
    """Folder of a run, of a checkpoint, of what `tinygpt make` made, or Hugging Face folder of a class we know."""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of `tinygpt chat`; answers go to standard output as they come."""
    return run(_chat, argv, verb="chat")


def _chat(argv: Sequence[str]) -> int:
    about = (
        "Talks with a model, line by line: one that was trained on chats answers, one that was trained on plain text "
        "goes on with what is typed."
    )
    options = read(argv, {"": ChatFlags, "sampling": Sampling}, prog="tinygpt chat", description=about, defaults=_CALM)
    flags, sampling = options.build(ChatFlags), options.build(Sampling)
    checkpoint = flags.load_to_write()

    from tinygpt.conversation import Conversation  # only once the flags are right: it needs torch

    talk = Conversation(
        checkpoint,
        write_now,
        system=flags.system,
        sampling=sampling,
        max_new_tokens=flags.max_new_tokens,
        stop=flags.stop,
        seed=flags.seed,
        dtype=flags.kept_as,
    )
    if sys.stdin.isatty():
        write_now(_INVITATION[talk.is_chat])
    talk.run(_lines())
    return 0


_CALM = {"temperature": 0.8, "top_p": 0.95}
_INVITATION = {
    True: "Say something; /help lists the commands.\n",
    False: "This model was trained on plain text: begin a text, and it goes on. Enter alone lets it go on further; "
    "/help lists the commands.\n",
}


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
                write_now("\n")
            return
        except KeyboardInterrupt:
            if not is_terminal:
                raise
            write_now("\n(/quit or Ctrl-D leaves)\n")


if __name__ == "__main__":
    sys.exit(main())
