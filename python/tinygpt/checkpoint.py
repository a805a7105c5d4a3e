"""Checkpoint: a trained model as a folder, with its tokenizer; text in, text out.

The folder is a Hugging Face model folder. During training it also holds `optimizer.safetensors` and `trainer.json`,
from which a run continues bit for bit. Everything is JSON or safetensors; no pickle is ever written or read.
"""

import dataclasses
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tinygpt import runfolder
from tinygpt._core import FormatError
from tinygpt.anytokenizer import AnyTokenizer
from tinygpt.chattemplate import CHAT_TOKENS, ROLES, end_ids, laid_out
from tinygpt.foreigntokenizer import tokenizer_in
from tinygpt.formats import huggingface
from tinygpt.model import GPT
from tinygpt.staging import staged_folder

OPTIMIZER_FILE = "optimizer.safetensors"
TRAINER_FILE = "trainer.json"
_TRAINER_FORMAT = {"format": "tinygpt-trainer", "version": 1}
# A text model needs nothing of these two, and the first is twice the size of the weights.
_verify_model = partial(runfolder.verify, skip=(OPTIMIZER_FILE, TRAINER_FILE))


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """What a run needs beside the weights to go on: plain facts and tensors."""

    facts: Mapping[str, Any]
    """The content of trainer.json: step, counters, both configurations, engine, data, environment."""
    tensors: Mapping[str, Tensor]
    """The content of optimizer.safetensors: optimiser and random state."""

    def save(self, folder: Path) -> None:
        """Writes both files into `folder`."""
        _write_tensors(folder / OPTIMIZER_FILE, self.tensors)
        _write_json(folder / TRAINER_FILE, {**_TRAINER_FORMAT, **self.facts})

    @staticmethod
    def load(folder: Path) -> "TrainingState":
        """Reads both files.

        Raises:
            FormatError: A file is damaged or of another version.
            FileNotFoundError: The folder holds a model only.
        """
        facts = read_facts(folder)
        try:
            return TrainingState(facts=facts, tensors=load_file(folder / OPTIMIZER_FILE))
        except SafetensorError as error:
            raise FormatError(f"{folder / OPTIMIZER_FILE}: {error}; use another checkpoint") from None


def read_facts(folder: Path) -> dict[str, Any]:
    """The facts of a training state, without its tensors.

    Raises:
        FormatError: The file is damaged or of another version.
        FileNotFoundError: The folder holds a model only.
    """
    if not (folder / TRAINER_FILE).is_file():
        raise FileNotFoundError(
            f"{folder}: no {TRAINER_FILE} in it, so training cannot go on from here; use a run's folder"
        )
    facts = _read_json(folder / TRAINER_FILE)
    if {name: facts.get(name) for name in _TRAINER_FORMAT} != _TRAINER_FORMAT:
        raise FormatError(f"{folder / TRAINER_FILE}: not a {_TRAINER_FORMAT['format']} file of version 1")
    return facts


class Checkpoint:
    """A model and its tokenizer, as saved in a folder or about to be.

    Args:
        model: The model.
        tokenizer: Its tokenizer; None for a model of bare tokens, which can be saved but neither takes nor gives text.
        folder: Where it was loaded from.
        step: The optimiser step it was saved at, where known.

    Example:
        >>> import tempfile
        >>> from tinygpt.model import GPTConfig
        >>> from tinygpt.tokenizer import Tokenizer
        >>> model = GPT(GPTConfig(vocab_size=257, block_size=16, n_layer=1, n_head=2, d_model=16))
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     Checkpoint(model, Tokenizer.train(["a"], pattern="byte")).save(f"{parent}/model")
        ...     checkpoint = Checkpoint.load(f"{parent}/model")
        >>> isinstance(checkpoint.generate("Once upon a time", max_new_tokens=9, temperature=0.8), str)
        True
    """

    def __init__(
        self, model: GPT, tokenizer: AnyTokenizer | None = None, *, folder: Path | None = None, step: int | None = None
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.folder = folder
        self.step = step

    @classmethod
    def load(
        cls, path: str | Path, which: str | int = "best", *, device: str = "cpu", verify: bool = True
    ) -> "Checkpoint":
        """Opens a checkpoint folder, a run's folder, or a Hugging Face folder of a class we know.

        Args:
            path: The folder.
            which: In a run's folder: "best" (by validation loss; the newest where there was no validation), "last"
                (the newest) or a step. A damaged best or last is warned of and the newest whole one taken.
            device: Where the model is to live.
            verify: Hold the files against their checksums.

        Raises:
            FileNotFoundError: There is no checkpoint.
            FormatError: The checkpoint is damaged, or of a class we do not know.
        """
        folder = _find(Path(path), which, verify=verify)
        model = GPT.from_pretrained(folder).to(device)
        model.eval()
        step = _read_json(folder / TRAINER_FILE).get("step") if (folder / TRAINER_FILE).is_file() else None
        return cls(model, tokenizer_in(folder), folder=folder, step=step)

    def save(self, folder: str | Path, *, state: TrainingState | None = None, replace: bool = False) -> None:
        """Writes a Hugging Face model folder, whole or not at all; the weights are float32.

        Args:
            folder: Where it is to stand.
            state: Training state to write along.
            replace: Let it take the place of an existing folder and of all that is in it.

        Raises:
            FileExistsError: `folder` exists and `replace` is false.
            OSError: It cannot be written; what stood there still stands.
            RuntimeError: A weight is not a finite number.
        """
        config = dataclasses.asdict(self.model.config)
        weights = {name: tensor.detach().float().cpu() for name, tensor in self.model.state_dict().items()}
        for name, tensor in {**weights, **(state.tensors if state else {})}.items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise RuntimeError(f"{name} holds numbers that are not finite, so the model is not saved")
        ids = {name: getattr(self.tokenizer, of, None) for name, of in _SPECIAL_IDS.items()}
        with staged_folder(folder, replace=replace) as staged:
            _write_json(staged / "config.json", huggingface.model_config_to_hf(config, **ids))
            _write_tensors(staged / "model.safetensors", huggingface.weights_to_hf(weights, config))
            _write_json(staged / "generation_config.json", huggingface.generation_config(**ids, stop_ids=self._end_ids))
            if self.tokenizer is not None:
                self.tokenizer.save(staged)
            if state is not None:
                state.save(staged)
            runfolder.write_checksums(staged)

    def generate(self, text: str, *, stop: str | Sequence[str] = (), max_new_tokens: int = 200, **sampling: Any) -> str:
        """The continuation of `text`, without `text` itself; arguments as for `stream`."""
        return "".join(self.stream(text, stop=stop, max_new_tokens=max_new_tokens, **sampling))

    def stream(
        self,
        text: str,
        *,
        chat: bool = False,
        system: str | None = None,
        stop: str | Sequence[str] = (),
        max_new_tokens: int = 200,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
    ) -> Iterator[str]:
        """The continuation of `text` as it comes, in pieces of whole characters, up to the document separator.

        Where the tokenizer knows chats, the end of a message ends it, too.

        Args:
            text: The prompt; an empty one stands for the start of a document.
            chat: Take the prompt for what a user says, laid out as chats are trained on; the answer continues it.
            system: In a chat, the message of the system before it.
            stop: Strings before which the continuation ends; they may begin in one token and end in another.
            max_new_tokens: Most tokens to generate.
            temperature: 0 takes the likeliest token always.
            top_k: Draw from this many of the likeliest tokens; 0 from all.
            top_p: Draw from the likeliest tokens that hold this share of the probability.
            min_p: Draw from tokens at least this share as likely as the likeliest.
            repetition_penalty: Above 1 makes tokens rarer that occurred already.
            seed: The same seed gives the same text; None draws one.

        Returns:
            An iterator of strings. Bytes that are not UTF-8 come as U+FFFD.

        Raises:
            ValueError: The model has no tokenizer, or one that knows no chats where `chat` is set; a stop string is
                empty; or a sampling argument is out of range.
        """
        stops = (stop,) if isinstance(stop, str) else tuple(stop)
        if "" in stops:
            raise ValueError("a stop string must hold at least one character, got an empty one")
        where = self.folder or "the model"
        if self.tokenizer is None:
            raise ValueError(
                f"{where}: no tokenizer.json beside the model; put it there, or use model.generate with ids"
            )
        if chat:
            prompt = _chat_prompt(self.tokenizer, text, system, where)
        elif system is not None:
            raise ValueError("system is the first message of a chat; set chat, too")
        else:
            prompt = _text_prompt(self.tokenizer, text)
        ids = self.model.generate(
            prompt,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            seed=seed,
            stop=self._end_ids,
            n_ids=self.tokenizer.vocab_size,
        )
        ends = frozenset(self._end_ids)
        return _until(self.tokenizer.decode_stream(takewhile(lambda i: i not in ends, ids)), stops)

    @property
    def _end_ids(self) -> list[int]:
        """The ids at which generation stops."""
        return [] if self.tokenizer is None else end_ids(self.tokenizer.special_tokens, self.tokenizer.eot_id)


_SPECIAL_IDS = {"eos_id": "eot_id", "bos_id": "bos_id", "pad_id": "pad_id"}


def _find(path: Path, which: str | int, *, verify: bool) -> Path:
    """The checkpoint folder that `path` and `which` name."""
    if path.is_file() and path.name in ("best", "last"):
        path = runfolder.follow(path.parent, path.name) or path
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: {'is a file, name its folder' if path.exists() else 'no such folder'}")
    if (path / "config.json").is_file() or (path / runfolder.CHECKSUMS).is_file():
        if verify and (path / runfolder.CHECKSUMS).is_file():
            _verify_model(path)
        return path
    if isinstance(which, int):
        found = ", ".join(map(str, runfolder.steps(path))) or "none"
        if which not in runfolder.steps(path):
            raise FileNotFoundError(f"{path}: no checkpoint of step {which} in it; there are {found}")
        _verify_model(runfolder.step_folder(path, which))
        return runfolder.step_folder(path, which)
    if which not in ("best", "last"):
        raise ValueError(f"which must be best, last or a step, got {which!r}")
    if which == "best" and (best := runfolder.follow(path, "best")) is not None:
        try:
            _verify_model(best)
            return best
        except (FormatError, OSError) as error:
            warnings.warn(f"{error} (the newest whole one is taken)", RuntimeWarning, stacklevel=3)
    folder = runfolder.newest(path, _verify_model)
    if folder is None:
        looked_for = "config.json (a model's folder) or step-*/ with its checksums (a run's folder)"
        raise FileNotFoundError(f"{path}: no whole checkpoint in it; looked for {looked_for}")
    return folder


def _text_prompt(tokenizer: AnyTokenizer, text: str) -> list[int]:
    """The ids of a text, or the start of a document."""
    prompt = tokenizer.encode(text) or ([] if tokenizer.eot_id is None else [tokenizer.eot_id])
    if not prompt:
        raise ValueError("an empty prompt needs a tokenizer with a document separator; give at least one character")
    return prompt


def _chat_prompt(tokenizer: AnyTokenizer, text: str, system: str | None, where: Path | str) -> list[int]:
    """The ids of a conversation up to where the assistant begins to speak."""
    known = tokenizer.special_tokens
    if missing := [name for name in CHAT_TOKENS if name not in known]:
        found = f"its tokenizer has no {', '.join(missing)}, so the model knows no chats"
        raise ValueError(f"{where}: {found}; leave chat away, or train on chats first")
    said = [("user", text)] if system is None else [("system", system), ("user", text)]
    return [*laid_out([(role, tokenizer.encode(each)) for role, each in said], known), known[ROLES["assistant"]]]


def _until(pieces: Iterator[str], stops: Sequence[str]) -> Iterator[str]:
    """The pieces up to the first stop string; text that may yet become one is held back."""
    held = ""
    for piece in pieces:
        held += piece
        found = [(held.find(stop) + len(stop), held.find(stop)) for stop in stops if stop in held]
        if found:  # the one that is complete first, so that it does not matter how the text was cut into tokens
            held = held[: min(found)[1]]
            break
        n_kept = max((n for stop in stops for n in range(1, len(stop)) if held.endswith(stop[:n])), default=0)
        if len(held) > n_kept:
            yield held[: len(held) - n_kept]
            held = held[len(held) - n_kept :]
    if held:
        yield held


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    path.touch()
    mode = path.stat().st_mode  # what the user's mask allows; safetensors lets only the owner read
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, {"format": "pt"})
        path.chmod(mode)
    except SafetensorError as error:
        number = re.search(
            r"os error (\d+)", str(error)
        )  # the cause comes as text only, and a full disk is no surprise
        raise OSError(int(number[1]) if number else 0, str(error), str(path)) from None


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise FormatError(f"{path}: not JSON; use another checkpoint") from None
    if not isinstance(content, dict):
        raise FormatError(f"{path}: not a JSON object; use another checkpoint")
    return content
