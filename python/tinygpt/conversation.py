"""Conversation: a talk in a terminal, line by line: what was said, the commands, an answer that can be stopped.

A model of chats answers what is said; a model of plain text goes on with it.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from tinygpt.chattemplate import knows_chats
from tinygpt.checkpoint import Checkpoint
from tinygpt.decoder import Decoder, Dtype
from tinygpt.generation import Streams
from tinygpt.sampling import Sampling
from tinygpt.textstream import TextStream
from tinygpt.values import convert

HELP = """\
/reset             forget what was said
/system TEXT       the message of the system before it; without a text, none
/set NAME VALUE    a setting, such as: /set temperature 0.7
/settings          all settings
/retry             another answer to the last message
/quit              leave; so does Ctrl-D (Ctrl-C stops an answer)
"""
_RANGES = {"max_new_tokens": (1, 2**31 - 1), "seed": (0, 2**64 - 1)}


class Conversation:
    """What was said so far, and the model that answers, or goes on with it where it was trained on plain text.

    Args:
        checkpoint: The model.
        write: Takes text as it comes.
        system: The message of the system before all others, for a model of chats.
        sampling: How to draw.
        max_new_tokens: Most tokens of an answer.
        stop: Strings before which an answer ends.
        seed: Of the first answer; each later one has the next.
        dtype: How weights are kept, as `decoder_for` takes it.

    Raises:
        ValueError: There is no tokenizer, or a message of the system for a model that knows no chats.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        write: Callable[[str], None],
        *,
        system: str | None = None,
        sampling: Sampling = Sampling(),  # noqa: B008
        max_new_tokens: int = 200,
        stop: tuple[str, ...] = (),
        seed: int | None = None,
        dtype: Dtype = "auto",
    ) -> None:
        checkpoint.prompt_ids("")  # refuses a model without a tokenizer
        self.is_chat = checkpoint.tokenizer is not None and knows_chats(checkpoint.tokenizer.special_tokens)
        if system is not None:
            self._need_chats()
        self._checkpoint, self._write = checkpoint, write
        self._system, self._messages = system, list[tuple[str, str]]()
        self._settings: dict[str, Any] = {**vars(sampling), "max_new_tokens": max_new_tokens, "seed": seed}
        self._stop = stop
        self._decoder: Decoder = checkpoint.decoder(dtype=dtype)

    def run(self, lines: Iterable[str]) -> None:
        """Answers line after line until they end or one says /quit."""
        for line in lines:
            said = line.strip()
            if said in ("/quit", "/exit"):
                return
            try:
                if said.startswith("/"):
                    self._obey(*said[1:].split(maxsplit=1))
                elif said or not self.is_chat:  # an empty line lets a text go on
                    self._messages.append(("user", line.rstrip("\r\n")))
                    self._answer()
            except ValueError as error:
                self._write(f"{error}\n")

    def _obey(self, name: str = "", rest: str = "") -> None:
        """Does what a command says."""
        if name == "reset":
            self._messages.clear()
            self._write("(forgotten)\n")
        elif name == "system":
            self._need_chats()
            self._system = rest or None
            self._write("(the system's message is set)\n" if rest else "(no message of the system)\n")
        elif name == "set":
            self._set(*rest.split(maxsplit=1))
        elif name == "settings":
            shown = {key: value for key, value in self._settings.items() if key != "logit_bias"}
            self._write("".join(f"{key} {'none' if value is None else value}\n" for key, value in shown.items()))
        elif name == "retry":
            self._retry()
        elif name == "help":
            self._write(HELP)
        else:
            raise ValueError(f"no command /{name}; /help lists them")

    def _set(self, name: str = "", text: str = "") -> None:
        """Changes one setting, or says why not."""
        name = name.replace("-", "_")
        hints: dict[str, Any] = {field.name: field.type for field in dataclasses.fields(Sampling)}
        hints |= {"max_new_tokens": int, "seed": int | None}
        if name not in hints or name == "logit_bias":
            known = ", ".join(key for key in hints if key != "logit_bias")
            raise ValueError(f"/set takes a name and a value, such as /set temperature 0.7; the names are {known}")
        value = convert(text, hints[name], name)
        if name in _RANGES:
            least, most = _RANGES[name]
            if value is not None and not least <= value <= most:
                raise ValueError(f"{name} must be from {least} to {most}, got {value}")
        else:
            dataclasses.replace(self._sampling, **{name: value})  # refuses what is out of range
        self._settings[name] = value
        self._write(f"({name} is {'none' if value is None else value})\n")

    def _retry(self) -> None:
        if not any(role == "user" for role, _ in self._messages):
            raise ValueError("nothing was said yet")
        while self._messages[-1][0] != "user":
            self._messages.pop()
        self._answer()

    def _answer(self) -> None:
        """Writes the answer to the last message and remembers it; Ctrl-C ends it where it is."""
        written = ""
        try:
            for piece in self._pieces():
                written += piece
                self._write(piece)
        except KeyboardInterrupt:
            self._write(" (stopped)")
        self._write("\n")
        self._messages.append(("assistant", written))
        if self._settings["seed"] is not None:
            self._settings["seed"] = (self._settings["seed"] + 1) % 2**64

    def _pieces(self) -> Iterable[str]:
        tokenizer = self._checkpoint.tokenizer
        assert tokenizer is not None, "a model without one is refused"
        text, streams = TextStream(tokenizer, self._stop), Streams(self._decoder)
        request = self._checkpoint.request(
            self._prompt(),
            max_new_tokens=self._settings["max_new_tokens"],
            sampling=self._sampling,
            seed=self._settings["seed"],
        )
        streams.add(request)
        while streams.n_active and not text.is_stopped:
            for drawn in streams.step():
                if drawn.id is not None:
                    yield text.push(drawn.id)
        yield text.close()

    def _prompt(self) -> list[int]:
        """The conversation's ids; the oldest exchanges are forgotten where an answer would find no room."""
        context = self._checkpoint.model.config.block_size
        room = max(1, context - min(self._settings["max_new_tokens"], context // 2))
        if not self.is_chat:
            return self._checkpoint.prompt_ids(self._text())[-room:]
        while True:
            said = [] if self._system is None else [("system", self._system)]
            ids = self._checkpoint.chat_ids([*said, *self._messages])
            if len(ids) <= room or len(self._messages) < 3:
                return ids
            n_old = next(i for i, (role, _) in enumerate(self._messages[1:], 1) if role == "user")
            del self._messages[:n_old]

    def _text(self) -> str:
        """All that was said and written, as one text: each line of the person on a line of its own."""
        text = ""
        for role, said in self._messages:
            begins_line = role == "user" and said and text and not text.endswith("\n")
            text += "\n" + said if begins_line else said
        return text

    def _need_chats(self) -> None:
        if not self.is_chat:
            raise ValueError("this model was trained on plain text and knows no message of the system")

    @property
    def _sampling(self) -> Sampling:
        names = {field.name for field in dataclasses.fields(Sampling)}
        return Sampling(**{name: value for name, value in self._settings.items() if name in names})
