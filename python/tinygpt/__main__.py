"""`tinygpt VERB ...`: the table of commands, each imported when it is named."""

if __name__ == "__main__":  # Ctrl-C may come during the imports below
    from tinygpt.interruption import leave_on_interrupt as leave

    leave()

import difflib
import sys
from collections.abc import Sequence
from importlib import import_module

from tinygpt import __version__
from tinygpt.interruption import leave_on_interrupt

VERBS = {
    "make": "do all of it: from text to a model, exported, with a page about it",
    "chat": "talk with a trained model",
    "plan": "say what to train on a text in the time there is, with the command",
    "prepare": "turn text into a tokenizer and shards of tokens",
    "train": "train a model on text or on prepared shards; continue a run",
    "generate": "continue a prompt with a trained model",
    "evaluate": "judge a model on held-out text, on questions, and on what it has by heart",
    "doctor": "say what is wrong with a run, how it is known, and what to change",
    "export": "write a trained model for another program, and verify it",
    "serve": "answer OpenAI's API with a trained model, and chat in a browser",
    "encode": "turn text into ids of tokens, and ids into text",
    "bench": "measure the tokenizer on a text of yours",
    "report": "write a run as a page, or several beside one another",
    "show": "say what a file or folder is, and verify it",
}


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of the command that the first word names; without one, the list of commands."""
    if argv is None:
        leave_on_interrupt()
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print("tinygpt: from a folder of text to a GPT of one's own\n\nusage: tinygpt VERB ...\n")
        print("\n".join(f"  {verb:<10}{summary}" for verb, summary in VERBS.items()))
        print("\n`tinygpt VERB --help` lists a verb's flags.")
        return 0
    if words[0] in ("-V", "--version"):
        print(f"tinygpt {__version__}")
        return 0
    if words[0] not in VERBS:
        close = difflib.get_close_matches(words[0], VERBS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(VERBS)}"
        print(f"tinygpt: error: unknown verb {words[0]}: {hint}", file=sys.stderr)
        return 2
    return int(import_module(f"tinygpt.{words[0]}").main(words[1:]))


if __name__ == "__main__":
    sys.exit(main())
