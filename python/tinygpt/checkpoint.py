"""Checkpoint: a trained model as a folder, with its tokenizer; text in, text out.

The folder is a Hugging Face model folder. During training it also holds `optimizer.safetensors` and `trainer.json`,
from which a run continues bit for bit. Everything is JSON or safetensors; no pickle is ever written or read.
"""

import dataclasses
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch

from tinygpt import runfolder, textscore
from tinygpt._core import FormatError
from tinygpt.anytokenizer import AnyTokenizer
from tinygpt.chattemplate import CHAT_TOKENS, ROLES, end_ids, laid_out
from tinygpt.decoder import Decoder, Dtype, decoder_for
from tinygpt.foreigntokenizer import tokenizer_in
from tinygpt.formats import huggingface
from tinygpt.generation import Request, Streams
from tinygpt.model import GPT
from tinygpt.sampling import Sampling
from tinygpt.staging import staged_folder
from tinygpt.textstream import TextStream
from tinygpt.trainingstate import OPTIMIZER_FILE, TRAINER_FILE, TrainingState, read_json, write_json, write_tensors

# A text model needs nothing of these two, and the first is twice the size of the weights.
_verify_model = partial(runfolder.verify, skip=(OPTIMIZER_FILE, TRAINER_FILE))


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
        """Opens a checkpoint folder, a run's folder, a project's, or a Hugging Face folder of a class we know.

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
        step = read_json(folder / TRAINER_FILE).get("step") if (folder / TRAINER_FILE).is_file() else None
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
            write_json(staged / "config.json", huggingface.model_config_to_hf(config, **ids))
            write_tensors(staged / "model.safetensors", huggingface.weights_to_hf(weights, config))
            write_json(staged / "generation_config.json", huggingface.generation_config(**ids, stop_ids=self.end_ids))
            if self.tokenizer is not None:
                self.tokenizer.save(staged)
            if state is not None:
                state.save(staged)
            runfolder.write_checksums(staged)

    def generate(self, text: str, *, stop: str | Sequence[str] = (), max_new_tokens: int = 200, **sampling: Any) -> str:
        """The continuation of `text`, without `text` itself; arguments as for `stream`."""
        return "".join(self.stream(text, stop=stop, max_new_tokens=max_new_tokens, **sampling))

    def generate_batch(
        self,
        texts: Sequence[str],
        *,
        n_slots: int = 16,
        chat: bool = False,
        system: str | None = None,
        stop: str | Sequence[str] = (),
        max_new_tokens: int = 200,
        seed: int | None = None,
        dtype: Dtype = "auto",
        **sampling: Any,
    ) -> list[str]:
        """The continuations of many texts, `n_slots` at once; each is what `generate` gives for that text alone.

        Args:
            texts: The prompts.
            n_slots: How many are on their way at once.
            chat: As for `stream`, and so are the following.
            system: The same.
            stop: The same.
            max_new_tokens: The same.
            seed: Text i has the seed `seed` + i.
            dtype: The same.
            sampling: The same.

        Example:
            >>> from tinygpt.model import GPTConfig
            >>> from tinygpt.tokenizer import Tokenizer
            >>> model = GPT(GPTConfig(vocab_size=257, block_size=16, n_layer=1, n_head=2, d_model=16))
            >>> checkpoint = Checkpoint(model, Tokenizer.train(["a"], pattern="byte"))
            >>> two = checkpoint.generate_batch(["one", "another"], max_new_tokens=9, seed=1, dtype="float32")
            >>> two[1] == checkpoint.generate("another", max_new_tokens=9, seed=2, dtype="float32")
            True
        """
        written = [TextStream(self._known_tokenizer, _strings(stop)) for _ in texts]
        results = [""] * len(texts)
        requests = [
            self.request(
                self.prompt_ids(text, chat=chat, system=system),
                max_new_tokens=max_new_tokens,
                sampling=Sampling(**sampling),
                seed=None if seed is None else (seed + i) % 2**64,
            )
            for i, text in enumerate(texts)
        ]
        streams = Streams(self.decoder(n_slots=max(1, min(n_slots, len(texts))), dtype=dtype))
        for i, drawn in streams.run(requests):
            if drawn.id is not None:
                results[i] += written[i].push(drawn.id)
            if written[i].is_stopped:
                streams.remove(drawn.stream)
        return [result + text.close() for result, text in zip(results, written, strict=True)]

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
        typical_p: float = 1.0,
        repetition_penalty: float = 1.0,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        logit_bias: Mapping[int, float] | None = None,
        seed: int | None = None,
        dtype: Dtype = "auto",
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
            typical_p: Draw from the tokens nearest to the expected surprise that hold this share of the probability.
            repetition_penalty: Above 1 makes tokens rarer that occurred already, in the prompt or since.
            presence_penalty: Taken from the logits of tokens that were drawn already.
            frequency_penalty: The same, as often as they were.
            logit_bias: Added to the logits of single ids.
            seed: The same seed gives the same text; None draws one.
            dtype: How weights are kept meanwhile: "float32", "bfloat16", "int8", or "auto" for bfloat16 on a CPU.

        Returns:
            An iterator of strings. Bytes that are not UTF-8 come as U+FFFD.

        Raises:
            ValueError: The model has no tokenizer, or one that knows no chats where `chat` is set; a stop string is
                empty; or a sampling argument is out of range.
        """
        written = TextStream(self._known_tokenizer, _strings(stop))
        ids = self.model.generate(
            self.prompt_ids(text, chat=chat, system=system),
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            typical_p=typical_p,
            repetition_penalty=repetition_penalty,
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
            logit_bias=logit_bias,
            seed=seed,
            stop=self.end_ids,
            n_ids=self._known_tokenizer.vocab_size,
            dtype=dtype,
        )
        ends = frozenset(self.end_ids)
        return _until(written, takewhile(lambda i: i not in ends, ids))

    def score(self, text: str, *, n_logprobs: int = 0, dtype: Dtype = "auto") -> textscore.Score:
        """How likely the model finds a text, token by token; the first is judged after the document separator.

        Args:
            text: The text; one longer than the context is read in halves that overlap, so that each token has half a
                context before it at least.
            n_logprobs: How many of the likeliest ids to name at each place.
            dtype: As for `stream`.

        Raises:
            ValueError: The text holds no token that could be judged.
        """
        return textscore.score_text(self.decoder(dtype=dtype), self._known_tokenizer, text, n_logprobs=n_logprobs)

    def prompt_ids(self, text: str, *, chat: bool = False, system: str | None = None) -> list[int]:
        """The ids of a prompt; arguments as for `stream`."""
        if chat:
            said = [("user", text)] if system is None else [("system", system), ("user", text)]
            return self.chat_ids(said)
        if system is not None:
            raise ValueError("system is the first message of a chat; set chat, too")
        return _text_prompt(self._known_tokenizer, text)

    def chat_ids(self, messages: Sequence[tuple[str, str]]) -> list[int]:
        """The ids of a conversation, role and text of each message, up to where the assistant begins to speak."""
        tokenizer = self._known_tokenizer
        known = tokenizer.special_tokens
        if missing := [name for name in CHAT_TOKENS if name not in known]:
            found = f"its tokenizer has no {', '.join(missing)}, so the model knows no chats"
            raise ValueError(f"{self._where}: {found}; leave chat out, or train on chats first")
        return [
            *laid_out([(role, tokenizer.encode(each)) for role, each in messages], known),
            known[ROLES["assistant"]],
        ]

    def request(
        self,
        ids: Sequence[int],
        *,
        max_new_tokens: int,
        sampling: Sampling,
        seed: int | None = None,
        n_logprobs: int | None = None,
    ) -> Request:
        """What `Streams` takes, with this model's ends and the size of its tokenizer."""
        return Request(
            ids=ids,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            seed=seed,
            stop=frozenset(self.end_ids),
            n_ids=self._known_tokenizer.vocab_size,
            n_logprobs=n_logprobs,
        )

    def decoder(self, *, n_slots: int = 1, dtype: Dtype = "auto", threads: int | None = None) -> Decoder:
        """What generates with this model; arguments as for `decoder_for`."""
        return decoder_for(self.model, n_slots=n_slots, dtype=dtype, threads=threads)

    @property
    def end_ids(self) -> list[int]:
        """The ids at which generation stops."""
        return [] if self.tokenizer is None else end_ids(self.tokenizer.special_tokens, self.tokenizer.eot_id)

    @property
    def _where(self) -> Path | str:
        return self.folder or "the model"

    @property
    def _known_tokenizer(self) -> AnyTokenizer:
        if self.tokenizer is None:
            found = f"{self._where}: no tokenizer.json beside the model"
            raise ValueError(f"{found}; put it there, or use model.generate with ids")
        return self.tokenizer


_SPECIAL_IDS = {"eos_id": "eot_id", "bos_id": "bos_id", "pad_id": "pad_id"}


def _find(path: Path, which: str | int, *, verify: bool) -> Path:
    """The checkpoint folder that `path` and `which` name."""
    if path.is_file() and path.name in ("best", "last"):
        path = runfolder.follow(path.parent, path.name) or path
    if (path / runfolder.PROJECT).is_file():
        path /= runfolder.RUN
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: {'is a file, name its folder' if path.exists() else 'no such folder'}")
    if (path / "config.json").is_file() or (path / runfolder.CHECKSUMS).is_file():
        if isinstance(which, int) and which != runfolder.run_and_step(path)[1]:
            raise ValueError(f"{path} is one model, not a run with a step {which} to take; name the run's folder")
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


def _strings(stop: str | Sequence[str]) -> tuple[str, ...]:
    return (stop,) if isinstance(stop, str) else tuple(stop)


def _until(text: TextStream, ids: Iterator[int]) -> Iterator[str]:
    """The pieces of text that ids become, up to a stop string."""
    for i in ids:
        if piece := text.push(i):
            yield piece
        if text.is_stopped:
            return
    if piece := text.close():
        yield piece
