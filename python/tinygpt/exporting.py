"""A trained model as files of other programs: which targets there are, what each can hold, what each writes."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tinygpt import runfolder
from tinygpt.chattemplate import CHAT_TEMPLATE, END, knows_chats
from tinygpt.checkpoint import Checkpoint
from tinygpt.formats import gguf, huggingface, llmc, ollama, onnx
from tinygpt.model import GPT
from tinygpt.modelcard import model_card
from tinygpt.staging import staged_folder
from tinygpt.tokenizer import Tokenizer
from tinygpt.trainingstate import TRAINER_FILE, read_facts

TORCH_DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Target:
    """A kind of export."""

    dtypes: tuple[str, ...]
    """What weights can be, the usual one first."""
    refuse: Callable[[Checkpoint, str], None]
    """Raises a ValueError for a model that cannot be written so."""
    write: Callable[[Checkpoint, Path, str], dict[str, str]]
    """Writes into a folder; returns what each file is for."""
    owner: str | None
    """The program that `verify` asks, by its name in `owners`; None where none can be installed here."""


def export(
    checkpoint: Checkpoint,
    out: str | Path,
    *,
    to: str,
    dtype: str | None = None,
    replace: bool = False,
    check: Callable[[Path], None] | None = None,
) -> None:
    """Writes a model for another program into a folder, whole or not at all.

    Args:
        checkpoint: The model.
        out: The folder.
        to: One of `TARGETS`.
        dtype: One of the target's types of weights; None takes the first.
        replace: Let it take the place of an existing folder.
        check: Called with the finished folder before it takes its place; what it raises leaves nothing behind.

    Raises:
        FileExistsError: `out` exists and `replace` is false.
        ValueError: The target does not hold such a model; the message names the option and the class it would need.
        ImportError: The library that writes the format is not installed.
    """
    target, dtype = TARGETS[to], dtype_of(to, dtype)
    target.refuse(checkpoint, to)
    with staged_folder(out, replace=replace) as staged:
        files = target.write(checkpoint, staged, dtype)
        (staged / "README.md").write_text(_card(checkpoint, Path(out).resolve().name, files), encoding="utf-8")
        if (staged / runfolder.CHECKSUMS).exists():
            runfolder.write_checksums(staged)
        if check is not None:
            check(staged)


def dtype_of(to: str, dtype: str | None) -> str:
    """The type of weights, the target's usual one for None.

    Raises:
        ValueError: The target has no such type.
    """
    known = TARGETS[to].dtypes
    if dtype not in (None, *known):
        raise ValueError(f"dtype of {to} must be one of {', '.join(known)}, got {dtype!r}")
    return dtype or known[0]


def rounded(model: GPT, to: str, dtype: str) -> GPT:
    """The model with the numbers that an export of it holds."""
    state = {}
    for name, tensor in model.state_dict().items():
        is_gguf = TARGETS[to].owner == "llama.cpp"
        state[name] = gguf.rounded(name, tensor, dtype) if is_gguf else tensor.to(TORCH_DTYPES[dtype]).float()
    with torch.device("meta"):
        copy = GPT(model.config)
    copy.load_state_dict(state, assign=True)
    return copy.eval()


def tensors_of(model: GPT, to: str) -> dict[str, Tensor]:
    """The tensors of an export, by the names that its owner has for them."""
    config, state = model.config, model.state_dict()
    if TARGETS[to].owner == "llama.cpp":
        return gguf.tensors(gguf.ARCHITECTURES[model.architecture], config, state)
    return state if to == "onnx" else huggingface.weights_to_hf(state, asdict(config))


def _refuse_native(checkpoint: Checkpoint, to: str) -> None:
    if checkpoint.model.architecture == huggingface.NATIVE:
        found = huggingface.obstacles(asdict(checkpoint.model.config))
        ways = "; ".join(f"{name} would need other values for {', '.join(why)}" for name, why in found.items())
        raise ValueError(f"{to} holds models of standard classes only, and this one is none: {ways}")


def _refuse_for_llama_cpp(checkpoint: Checkpoint, to: str) -> None:
    _refuse_native(checkpoint, to)
    config = checkpoint.model.config
    if config.mlp == "geglu":
        raise ValueError(f"{to}: mlp geglu is not in llama.cpp's {checkpoint.model.architecture}; it needs mlp swiglu")
    pre_of(_own_tokenizer(checkpoint, to), to)


def _own_tokenizer(checkpoint: Checkpoint, to: str) -> Tokenizer:
    """The byte-level tokenizer that GGUF and llm.c can hold."""
    tokenizer = checkpoint.tokenizer
    if not isinstance(tokenizer, Tokenizer):
        found = "none" if tokenizer is None else type(tokenizer).__name__
        raise ValueError(f"{to} needs a byte-level tokenizer beside the model, found {found}")
    if tokenizer.eot_id is None:
        raise ValueError(f"{to} needs a token that ends a document, and the tokenizer has none")
    return tokenizer


def pre_of(tokenizer: Tokenizer, to: str) -> str:
    """llama.cpp's name for how a tokenizer splits text.

    Raises:
        ValueError: llama.cpp would give other tokens; the message names what would do.
    """
    plain = tokenizer.plain()
    pre = gguf.PRE.get(plain.pattern)
    if pre is None:
        known = ", ".join(gguf.PRE)
        raise ValueError(
            f"{to}: llama.cpp does not split text as pattern {plain.pattern} does; train with one of {known}"
        )
    if not plain.whole_pieces:
        return pre
    if plain.pattern == "cl100k":
        return "llama-bpe"
    merging = Tokenizer.from_plain(replace(plain, whole_pieces=False))
    for token, i in plain.tokens:
        text = token.decode("utf-8", "ignore")
        if text.encode() == token and merging.encode(text) != [i] and tokenizer.encode(text) == [i]:
            raise ValueError(f"{to}: token {text!r} is taken whole though merges do not make it; {pre} cannot say that")
    return pre


def _refuse_for_llmc(checkpoint: Checkpoint, to: str) -> None:
    name, config = checkpoint.model.architecture, checkpoint.model.config
    if name != huggingface.GPT2:
        found = huggingface.obstacles(asdict(config))[huggingface.GPT2]
        raise ValueError(f"{to} holds GPT2LMHeadModel only, and {', '.join(found)} stand in the way")
    if found := llmc.obstacles(config):
        raise ValueError(f"{to} has fixed values of its own, and here is {', '.join(found)}")
    _own_tokenizer(checkpoint, to)


def _nothing(checkpoint: Checkpoint, to: str) -> None:
    """Every model can be written so."""


def _write_hf(checkpoint: Checkpoint, folder: Path, dtype: str) -> dict[str, str]:
    checkpoint.save(folder, replace=True)
    if dtype != "f32":
        weights = {
            name: tensor.to(TORCH_DTYPES[dtype]) for name, tensor in load_file(folder / "model.safetensors").items()
        }
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        name = str(TORCH_DTYPES[dtype]).removeprefix("torch.")
        _change(folder / "config.json", {"torch_dtype": name, "dtype": name})
    if (folder / "tokenizer_config.json").is_file():
        _change(folder / "tokenizer_config.json", {"model_max_length": checkpoint.model.config.block_size})
    return {"model.safetensors": f"weights, {dtype}", "config.json": "shape", "tokenizer.json": "tokenizer"}


def _write_gguf(checkpoint: Checkpoint, folder: Path, dtype: str) -> dict[str, str]:
    name = f"model-{dtype}.gguf"
    tokenizer = _own_tokenizer(checkpoint, "gguf")
    assert tokenizer.eot_id is not None  # or it was refused
    is_chat = knows_chats(tokenizer.special_tokens)
    ends = gguf.Ends(
        eot_id=tokenizer.eot_id,
        bos_id=tokenizer.bos_id,
        pad_id=tokenizer.pad_id,
        end_of_turn_id=tokenizer.special_tokens[END] if is_chat else None,
        chat_template=CHAT_TEMPLATE if is_chat else None,
    )
    gguf.write(
        folder / name,
        architecture=gguf.ARCHITECTURES[checkpoint.model.architecture],
        config=checkpoint.model.config,
        state=checkpoint.model.state_dict(),
        tokenizer=tokenizer.plain(),
        pre=pre_of(tokenizer, "gguf"),
        ends=ends,
        dtype=dtype,
    )
    return {name: f"model and tokenizer for llama.cpp, {dtype}"}


def _write_ollama(checkpoint: Checkpoint, folder: Path, dtype: str) -> dict[str, str]:
    files = _write_gguf(checkpoint, folder, dtype)
    tokenizer = _own_tokenizer(checkpoint, "ollama")
    known = {i: name for name, i in tokenizer.special_tokens.items()}
    text = ollama.modelfile(
        next(iter(files)),
        n_context=checkpoint.model.config.block_size,
        stops=[known[i] for i in checkpoint.end_ids],
        is_chat=knows_chats(tokenizer.special_tokens),
    )
    (folder / "Modelfile").write_text(text, encoding="utf-8")
    return {**files, "Modelfile": "for `ollama create NAME -f Modelfile`"}


def _write_llmc(checkpoint: Checkpoint, folder: Path, dtype: str) -> dict[str, str]:
    tokenizer, config = _own_tokenizer(checkpoint, "llmc"), checkpoint.model.config
    assert tokenizer.eot_id is not None  # or it was refused
    tokens = [f"[unused{i}]".encode() for i in range(config.vocab_size)]
    plain = tokenizer.plain()
    for token, i in [*plain.tokens, *((content.encode(), i) for content, i, _ in plain.added)]:
        tokens[i] = token
    llmc.write_model(folder / "model.bin", config, checkpoint.model.state_dict(), dtype=dtype)
    llmc.write_tokens(folder / "tokenizer.bin", tokens, tokenizer.eot_id)
    llmc.check(folder / "model.bin", folder / "tokenizer.bin")
    return {"model.bin": f"llm.c's checkpoint, {dtype}", "tokenizer.bin": "llm.c's table of tokens"}


def _write_onnx(checkpoint: Checkpoint, folder: Path, dtype: str) -> dict[str, str]:
    onnx.write(folder / "model.onnx", checkpoint.model.eval())
    files = {"model.onnx": "graph and weights, input_ids (batch, tokens) to logits (batch, tokens, V)"}
    if checkpoint.tokenizer is not None:
        checkpoint.tokenizer.save(folder)
        files["tokenizer.json"] = "tokenizer"
    return files


def _change(path: Path, changes: Mapping[str, Any]) -> None:
    """Other values for keys of a JSON file."""
    content = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _card(checkpoint: Checkpoint, name: str, files: Mapping[str, str]) -> str:
    folder = checkpoint.folder
    facts = read_facts(folder) if folder is not None and (folder / TRAINER_FILE).is_file() else {}
    model = checkpoint.model
    return model_card(
        name=name,
        architecture=model.architecture,
        config=model.config,
        n_parameters=model.n_parameters,
        files=files,
        facts=facts,
    )


TARGETS = {
    "hf": Target(dtypes=("f32", "bf16", "f16"), refuse=_refuse_native, write=_write_hf, owner="transformers"),
    "gguf": Target(
        dtypes=tuple(sorted(gguf.DTYPES, key="f16".__ne__)),
        refuse=_refuse_for_llama_cpp,
        write=_write_gguf,
        owner="llama.cpp",
    ),
    "ollama": Target(
        dtypes=tuple(sorted(gguf.DTYPES, key="f16".__ne__)),
        refuse=_refuse_for_llama_cpp,
        write=_write_ollama,
        owner="llama.cpp",
    ),
    "llmc": Target(dtypes=tuple(llmc.VERSIONS), refuse=_refuse_for_llmc, write=_write_llmc, owner=None),
    "onnx": Target(dtypes=("f32",), refuse=_nothing, write=_write_onnx, owner="onnxruntime"),
}
