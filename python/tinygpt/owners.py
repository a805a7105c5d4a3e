"""The programs that own the formats, asked what they make of an export: a script that knows nothing of tinygpt.

    python - OWNER FOLDER QUESTIONS.json ANSWERS.npz < owners.py

It runs in a process of its own, where it imports the owner's library and no module of ours, so that nothing that we
write is judged by what we read. Numbers come back as arrays, tensors as SHA-256 of their float32 bytes.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np


def transformers(folder: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """Through `pipeline`, as most people open a folder; weights are computed with in float32."""
    torch, library = import_module("torch"), import_module("transformers")
    pipe = library.pipeline("text-generation", model=str(folder), dtype=torch.float32, device="cpu")
    model, tokenizer = pipe.model.eval(), pipe.tokenizer
    with torch.no_grad():
        logits = [model(torch.tensor([ids])).logits[0].numpy() for ids in asked["windows"]]
    ways = {"max_new_tokens": asked["n_new"], "do_sample": False}
    drawn = [model.generate(torch.tensor([ids]), **ways)[0, len(ids) :].tolist() for ids in asked["prompts"]]
    ends = model.generation_config.eos_token_id
    chat = asked["chat"] and tokenizer.apply_chat_template(asked["chat"], add_generation_prompt=True, tokenize=False)
    plain = {"add_special_tokens": False}
    return {
        "tokens": [tokenizer(line, **plain)["input_ids"] for line in asked["lines"]],
        "logits": logits,
        "drawn": drawn,
        "ends": [] if ends is None else ends if isinstance(ends, list) else [ends],
        "chat": tokenizer(chat, **plain)["input_ids"] if chat else [],
        "tensors": {name: digest(tensor.float().numpy()) for name, tensor in model.state_dict().items()},
    }


def llama_cpp(folder: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """Through llama-cpp-python, with its cache in float32, and the weights through the package gguf."""
    gguf, llama_cpp = import_module("gguf"), import_module("llama_cpp")
    path = next(folder.glob("*.gguf"))
    room = max(map(len, asked["windows"]))
    ways = {"n_ctx": room, "n_batch": room, "n_ubatch": room, "logits_all": True, "verbose": False}
    float32 = llama_cpp.GGML_TYPE_F32
    llama = llama_cpp.Llama(str(path), n_threads=asked["threads"], type_k=float32, type_v=float32, **ways)
    logits = []
    for ids in asked["windows"]:
        llama.reset()
        llama.eval(ids)
        logits.append(np.array(llama.scores[: len(ids)]))
    n_ids, vocabulary = llama.n_vocab(), llama_cpp.llama_model_get_vocab(llama.model)
    ends = [i for i in range(n_ids) if llama_cpp.llama_vocab_is_eog(vocabulary, i)]
    drawn = [greedy(llama, ids, asked["n_new"], ends) for ids in asked["prompts"]]
    chat: list[int] = []
    if asked["chat"]:
        layouts = import_module("llama_cpp.llama_chat_format")
        layout = layouts.Jinja2ChatFormatter(llama.metadata["tokenizer.chat_template"], eos_token="", bos_token="")
        prompt = layout(messages=asked["chat"]).prompt
        chat = llama.tokenize(prompt.encode(), add_bos=False, special=True)
    reader = gguf.GGUFReader(path)
    arrays = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in reader.tensors}
    return {
        "tokens": [llama.tokenize(line.encode(), add_bos=False, special=False) for line in asked["lines"]],
        "logits": logits,
        "drawn": drawn,
        "ends": ends,
        "chat": chat,
        "tensors": {name: digest(array) for name, array in arrays.items()},
    }


def greedy(llama: Any, ids: Sequence[int], n_new: int, ends: Sequence[int]) -> list[int]:
    """The likeliest ids, one at a time through the cache, up to an end."""
    llama.reset()
    llama.eval(ids)
    drawn: list[int] = []
    while len(drawn) < n_new:
        drawn.append(int(np.argmax(llama.scores[llama.n_tokens - 1])))
        if drawn[-1] in ends:
            break
        if len(drawn) < n_new:
            llama.eval(drawn[-1:])
    return drawn


def onnxruntime(folder: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """Through onnxruntime; tokens through tokenizers, as the graph begins with ids."""
    onnx, onnxruntime, tokenizers = map(import_module, ("onnx", "onnxruntime", "tokenizers"))
    path = folder / "model.onnx"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = asked["threads"]
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(rows: Sequence[Sequence[int]]) -> Any:
        return session.run(None, {"input_ids": np.array(rows, dtype=np.int64)})[0]

    drawn = []
    for ids in asked["prompts"]:
        row = list(ids)
        for _ in range(asked["n_new"]):
            row.append(int(run([row])[0, -1].argmax()))
            if row[-1] in asked["ends"]:
                break
        drawn.append(row[len(ids) :])
    arrays = [onnx.numpy_helper.to_array(each) for each in onnx.load(str(path)).graph.initializer]
    held = {digest(turned) for each in arrays if each.ndim <= 2 for turned in (each, each.T)}
    found, lines = folder / "tokenizer.json", []
    if found.is_file():  # a model of bare tokens has none
        tokenizer = tokenizers.Tokenizer.from_file(str(found))
        lines = tokenizer.encode_batch(asked["lines"], add_special_tokens=False)
    return {
        "tokens": [line.ids for line in lines],
        "logits": list(run(asked["windows"])),  # all in one batch
        "drawn": drawn,
        "ends": asked["ends"],
        "chat": [],
        "tensors": {each: each for each in held},
    }


def digest(array: Any) -> str:
    """SHA-256 of an array's float32 bytes, row by row."""
    return hashlib.sha256(np.ascontiguousarray(array, dtype="<f4").tobytes()).hexdigest()


def main(words: Sequence[str]) -> None:
    """Asks and writes down what was answered."""
    owner, folder, questions, answers = words
    found = OWNERS[owner](Path(folder), json.loads(Path(questions).read_text(encoding="utf-8")))
    tokens = found["tokens"]
    np.savez(
        answers,
        tokens=np.array([i for ids in tokens for i in ids], dtype=np.int64),
        lengths=np.array([len(ids) for ids in tokens], dtype=np.int64),
        logits=np.stack(found["logits"]).astype(np.float32),  # (windows, T, V)
        facts=np.array(json.dumps({name: found[name] for name in ("drawn", "ends", "chat", "tensors")})),
    )


OWNERS: dict[str, Callable[[Path, dict[str, Any]], dict[str, Any]]] = {
    "transformers": transformers,
    "llama.cpp": llama_cpp,
    "onnxruntime": onnxruntime,
}

if __name__ == "__main__":
    main(sys.argv[1:])
