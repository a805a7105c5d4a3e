"""Exports as their owners read them: transformers, llama.cpp, onnxruntime; and models that come from others."""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tinygpt import FormatError, export, train
from tinygpt.chattemplate import CHAT_TOKENS
from tinygpt.checkpoint import Checkpoint
from tinygpt.exporting import TARGETS, pre_of
from tinygpt.exporting import export as write
from tinygpt.formats import gguf, llmc
from tinygpt.importing import load_model
from tinygpt.model import GPT, GPTConfig
from tinygpt.tokenizer import Tokenizer
from tinygpt.verifying import hard_lines, lines_of, verify
from torch.testing import assert_close

GPT2: dict[str, Any] = {"position": "learned", "norm": "layernorm", "mlp": "gelu"}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama grouped untied biases": {"n_kv_head": 2, "tie_embeddings": False, "bias": True},
    "qwen3 grouped": {"qk_norm": True, "n_kv_head": 2},
    "qwen3 untied": {"qk_norm": True, "tie_embeddings": False},
    "gpt2": {**GPT2, "bias": True},
    "gpt2 untied no biases": {**GPT2, "tie_embeddings": False},
    "gpt2 sinusoidal": {**GPT2, "position": "sinusoidal"},
}
TEXT = "The cat sat on the mat, and it didn't move. 1234 mice!\n" * 40
NAMES = ("<|endoftext|>", *CHAT_TOKENS)


def checkpoint(pattern: str = "gpt2", **options: Any) -> Checkpoint:
    """A model with weights so large that a slip in any of them shows, its vocabulary padded."""
    torch.manual_seed(1)
    model = GPT(GPTConfig(vocab_size=320, block_size=64, n_layer=2, n_head=4, d_model=64, **options))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    n_ids = 261 if pattern == "byte" else 300
    return Checkpoint(model.eval(), Tokenizer.train([TEXT], vocab_size=n_ids, pattern=pattern, special_tokens=NAMES))


def failed(found: Checkpoint, folder: Path, to: str, dtype: str, n: int = 300) -> list[str]:
    return [row.name for row in verify(found, folder, to=to, dtype=dtype, lines=hard_lines(n)) if not row.is_equal]


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_makes_of_a_folder_what_the_model_does(family: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    found = checkpoint(**FAMILIES[family])
    write(found, tmp_path / "hf", to="hf")
    assert failed(found, tmp_path / "hf", "hf", "f32") == []


@pytest.mark.parametrize("dtype", ["bf16", "f16"])
def test_transformers_opens_half_the_bytes(dtype: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    found = checkpoint()
    write(found, tmp_path / "hf", to="hf", dtype=dtype)
    assert failed(found, tmp_path / "hf", "hf", dtype) == []


@pytest.mark.slow
@pytest.mark.parametrize("dtype", gguf.DTYPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_llama_cpp_makes_of_a_file_what_the_model_does(family: str, dtype: str, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    found = checkpoint(**FAMILIES[family])
    write(found, tmp_path / "gguf", to="gguf", dtype=dtype)
    assert failed(found, tmp_path / "gguf", "gguf", dtype) == []


@pytest.mark.slow
@pytest.mark.parametrize("pattern", gguf.PRE)
def test_llama_cpp_gives_the_ids_of_every_pattern_that_it_has_a_name_for(pattern: str, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    found = checkpoint(pattern)
    write(found, tmp_path / "gguf", to="gguf", dtype="f32")
    assert failed(found, tmp_path / "gguf", "gguf", "f32", 10_000) == []


@pytest.mark.slow
def test_llama_cpp_takes_whole_pieces_that_merges_do_not_make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    found = checkpoint("cl100k")
    plain = found.tokenizer.plain()  # type: ignore[union-attr]
    assert plain.merges is not None
    fewer = replace(
        plain, merges=plain.merges[:12], whole_pieces=True
    )  # of 32: the other tokens are met whole or never
    whole = Checkpoint(found.model, Tokenizer.from_plain(fewer))
    lines = [*TEXT.splitlines(keepends=True)[:2], *(f"{each}{each}" for each in hard_lines(99)), *hard_lines(10_000)]

    def wrong(name: str) -> str:
        write(whole, tmp_path / name, to="gguf", dtype="f32")
        return verify(whole, tmp_path / name, to="gguf", dtype="f32", lines=lines)[0].found

    assert (pre_of(whole.tokenizer, "gguf"), wrong("right")) == (  # type: ignore[arg-type]
        "llama-bpe",
        "10,101 of 10,101 lines equal",
    )
    monkeypatch.setattr("tinygpt.exporting.pre_of", lambda *_: "dbrx")
    assert "not 'The cat sat on the m'" in wrong("by merges alone")


@pytest.mark.parametrize("options", [{}, FAMILIES["qwen3 grouped"], FAMILIES["gpt2"], {"norm": "layernorm"}])
def test_onnxruntime_makes_of_a_graph_what_the_model_does(options: dict[str, Any], tmp_path: Path) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    found = checkpoint(**options)
    write(found, tmp_path / "onnx", to="onnx")
    assert failed(found, tmp_path / "onnx", "onnx", "f32") == []


def test_one_flipped_weight_of_a_folder_is_found(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    found = checkpoint()
    write(found, tmp_path / "hf", to="hf")
    weights = load_file(tmp_path / "hf" / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"][3, 5] *= -1
    save_file(weights, tmp_path / "hf" / "model.safetensors", {"format": "pt"})
    assert failed(found, tmp_path / "hf", "hf", "f32")[:1] == ["weights"]


def test_one_flipped_bit_of_a_gguf_is_found_by_the_command_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    found = checkpoint()
    write(found, tmp_path / "gguf", to="gguf", dtype="q8_0")
    path = tmp_path / "gguf" / "model-q8_0.gguf"
    raw = bytearray(path.read_bytes())
    raw[-40] ^= 0x40
    path.write_bytes(raw)
    assert failed(found, path.parent, "gguf", "q8_0")[:1] == ["weights"]


def test_rows_in_transformers_order_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    found = checkpoint()
    monkeypatch.setattr(gguf, "_interleaved", lambda rows, n_head: rows)
    write(found, tmp_path / "gguf", to="gguf", dtype="q8_0")
    assert "logits" in failed(found, tmp_path / "gguf", "gguf", "q8_0")


def test_an_export_that_fails_leaves_nothing_and_exits_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers")
    checkpoint().save(tmp_path / "model")
    target = TARGETS["hf"]

    def spoilt(found: Checkpoint, folder: Path, dtype: str) -> dict[str, str]:
        files = target.write(found, folder, dtype)
        weights = load_file(folder / "model.safetensors")
        weights["model.norm.weight"][0] += 0.5
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        return files

    monkeypatch.setitem(TARGETS, "hf", type(target)(**{**vars(target), "write": spoilt}))
    words = f"--checkpoint {tmp_path / 'model'} --to hf --out {tmp_path / 'hf'} --verify --threads 1"
    assert export.main(words.split()) == 1
    assert "hf f32 is not the model: weights, logits" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_command_prints_the_table_and_does_not_overwrite(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers")
    checkpoint().save(tmp_path / "model")
    words = f"--checkpoint {tmp_path / 'model'} --to hf --out {tmp_path / 'hf'} --verify".split()
    assert export.main(words) == 0
    assert "10,000 of 10,000 lines equal" in capsys.readouterr().out
    assert export.main(words) == 2
    assert "hf exists; --replace lets the export take its place" in capsys.readouterr().err
    assert export.main([*words[:-1], "--replace"]) == 0


@pytest.mark.parametrize(
    ("to", "options", "pattern", "named"),
    [
        ("hf", {"norm": "layernorm"}, "gpt2", "LlamaForCausalLM would need other values for norm layernorm"),
        ("gguf", {"position": "learned"}, "gpt2", "LlamaForCausalLM would need other values for position learned"),
        ("gguf", {"mlp": "geglu"}, "gpt2", "mlp geglu is not in llama.cpp's LlamaForCausalLM; it needs mlp swiglu"),
        ("ollama", {}, "o200k", "does not split text as pattern o200k does; train with one of gpt2, cl100k, qwen2"),
        ("llmc", {}, "gpt2", "holds GPT2LMHeadModel only, and position rope, norm rmsnorm, mlp swiglu stand"),
        ("llmc", {**GPT2, "tie_embeddings": False}, "gpt2", "tie_embeddings False (True)"),
    ],
)
def test_what_a_target_cannot_hold_is_named(
    to: str, options: dict[str, Any], pattern: str, named: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=named.replace("(", r"\(").replace(")", r"\)")):
        write(checkpoint(pattern, **options), tmp_path / "out", to=to)
    assert not (tmp_path / "out").exists()


def test_a_type_that_the_target_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dtype of hf must be one of f32, bf16, f16, got 'q8_0'"):
        write(checkpoint(), tmp_path / "out", to="hf", dtype="q8_0")


def test_pieces_taken_whole_need_no_other_name_where_merges_make_them() -> None:
    plain = checkpoint("cl100k").tokenizer.plain()  # type: ignore[union-attr]
    whole = Tokenizer.from_plain(type(plain)(**{**vars(plain), "whole_pieces": True}))
    assert (pre_of(Tokenizer.from_plain(plain), "gguf"), pre_of(whole, "gguf")) == ("dbrx", "dbrx")


@pytest.mark.parametrize(("dtype", "width"), [("f32", 4), ("bf16", 2)])
def test_llm_c_gets_its_layout(dtype: str, width: int, tmp_path: Path) -> None:
    found = checkpoint(**GPT2)
    write(found, tmp_path / "c", to="llmc", dtype=dtype)
    raw = (tmp_path / "c" / "model.bin").read_bytes()
    header = np.frombuffer(raw[:1024], "<i4")
    assert header[:8].tolist() == [20240326, {4: 3, 2: 5}[width], 64, 320, 2, 4, 64, 384]
    numbers = np.frombuffer(raw[1024:], "<f4") if width == 4 else _bfloat16(raw[1024:])
    wte = found.model.token_embedding.weight.detach()
    assert_close(torch.from_numpy(numbers[: 320 * 64].copy()).reshape(320, 64), wte, rtol=0.01, atol=0)
    assert not numbers[320 * 64 : 384 * 64].any()  # rows of padding
    place = (384 + 64) * 64 + 4 * 64  # after wte, wpe, and weights and biases of ln_1 of both layers
    qkv = found.model.get_parameter("blocks.0.attention.qkv.weight").detach()
    assert_close(torch.from_numpy(numbers[place : place + 192 * 64].copy()).reshape(192, 64), qkv, rtol=0.01, atol=0)
    assert len(numbers) == (384 + 64) * 64 + 2 * (12 * 64**2 + 13 * 64) + 2 * 64


def test_llm_c_gets_every_token(tmp_path: Path) -> None:
    found = checkpoint(**GPT2)
    write(found, tmp_path / "c", to="llmc")
    raw = (tmp_path / "c" / "tokenizer.bin").read_bytes()
    tokens, place = [], 1024
    while place < len(raw):
        tokens.append(raw[place + 1 : place + 1 + raw[place]])
        place += 1 + raw[place]
    eot = found.tokenizer.eot_id  # type: ignore[union-attr]
    assert np.frombuffer(raw[:16], "<i4").tolist() == [20240328, 2, 320, eot]
    assert (tokens[65], tokens[eot or 0], len(tokens)) == (b"A", b"<|endoftext|>", 320)


def test_a_cut_llm_c_file_is_found(tmp_path: Path) -> None:
    write(checkpoint(**GPT2), tmp_path / "c", to="llmc")
    path = tmp_path / "c" / "model.bin"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(FormatError, match="its header promises"):
        llmc.check(path, tmp_path / "c" / "tokenizer.bin")


def test_ollama_gets_a_modelfile_for_chats(tmp_path: Path) -> None:
    write(checkpoint(), tmp_path / "o", to="ollama", dtype="q8_0")
    assert (tmp_path / "o" / "Modelfile").read_text().splitlines() == [
        "FROM ./model-q8_0.gguf",
        'TEMPLATE """{{ range .Messages }}<|{{ .Role }}|>{{ .Content }}<|end|>{{ end }}<|assistant|>"""',
        "PARAMETER num_ctx 64",
        'PARAMETER stop "<|endoftext|>"',
        'PARAMETER stop "<|end|>"',
    ]


def test_pipeline_stops_at_the_end_of_a_document(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    found = checkpoint(tie_embeddings=False)
    end: Any = found.tokenizer.eot_id  # type: ignore[union-attr]
    assert found.model.head is not None
    with torch.no_grad():  # a model that always ends: its head looks for what the last norm gives on any input
        norm = found.model.get_parameter("norm.weight")
        norm.zero_()
        norm[0] = 1.0
        found.model.head.weight.zero_()
        found.model.head.weight[end, 0], found.model.head.weight[end - 1, 0] = 1.0, -1.0
        found.model.token_embedding.weight[:, 0] = 1000.0
    write(found, tmp_path / "hf", to="hf")
    pipe = transformers.pipeline("text-generation", model=str(tmp_path / "hf"))
    new = pipe("The cat", max_new_tokens=20, do_sample=False, return_tensors=True)[0]["generated_token_ids"]
    assert new[-1] == end
    assert len(new) == len(found.tokenizer.encode("The cat")) + 1  # type: ignore[union-attr]


def test_a_run_is_exported_with_its_data_settings_and_figures(tmp_path: Path) -> None:
    (tmp_path / "cats.txt").write_text(TEXT * 20, encoding="utf-8")
    shape = "--vocab-size 300 --n-layer 1 --n-head 2 --d-model 16 --block-size 16 --batch-size 4 --max-steps 6"
    words = f"--data {tmp_path / 'cats.txt'} --out {tmp_path / 'run'} {shape} --threads 1 --val-fraction 0.1"
    assert train.main(words.split()) == 0
    found = Checkpoint.load(tmp_path / "run")
    assert lines_of(found, n=10)[0].strip() in TEXT
    write(found, tmp_path / "hf", to="hf")
    card = (tmp_path / "hf" / "README.md").read_text(encoding="utf-8")
    assert all(part in card for part in ("## Data", "| `max_steps` | 6 |", "| `steps` | 6 |", "pipeline_tag"))


@pytest.mark.parametrize("name", ["Llama", "Qwen3", "GPT2"])
def test_a_folder_in_several_files_is_imported(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    wide = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    wide |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 32}
    small = {"vocab_size": 97, "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 4}
    config = getattr(transformers, f"{name}Config")(**(small if name == "GPT2" else wide))
    theirs = transformers.AutoModelForCausalLM.from_config(config).eval()
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    assert (tmp_path / "theirs" / "model.safetensors.index.json").is_file()
    ids = torch.randint(0, 97, (2, 20))
    with torch.no_grad():
        assert_close(GPT.from_pretrained(tmp_path / "theirs").eval()(ids), theirs(ids).logits, rtol=0, atol=2e-5)


def nanogpt_file(path: Path, model: GPT, prefix: str = "", **args: Any) -> Path:
    """A model of ours as nanoGPT would have saved it, spelled out by hand."""
    state, c = model.state_dict(), model.config
    names = {"token_embedding": "transformer.wte", "position": "transformer.wpe", "norm": "transformer.ln_f"}
    for i in range(c.n_layer):
        parts = {"attention_norm": "ln_1", "attention.qkv": "attn.c_attn", "attention.output": "attn.c_proj"}
        parts |= {"feed_forward_norm": "ln_2", "feed_forward.up": "mlp.c_fc", "feed_forward.down": "mlp.c_proj"}
        names |= {f"blocks.{i}.{ours}": f"transformer.h.{i}.{theirs}" for ours, theirs in parts.items()}
    found = {f"{prefix}{names[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": t for key, t in state.items()}
    found[f"{prefix}lm_head.weight"] = state["token_embedding.weight"]
    shape: dict[str, Any] = {"n_layer": c.n_layer, "n_head": c.n_head, "n_embd": c.d_model, "block_size": c.block_size}
    shape |= {"vocab_size": c.vocab_size, "bias": c.bias, "dropout": 0.0}
    content = {"model": found, "model_args": {**shape, **args}, "iter_num": 7, "best_val_loss": torch.tensor(1.5)}
    torch.save({**content, "config": {"dataset": "x"}, "optimizer": {"state": {}, "param_groups": []}}, path)
    return path


@pytest.mark.filterwarnings("ignore:.*exact GELU")
@pytest.mark.parametrize(("bias", "prefix"), [(True, ""), (False, "_orig_mod.")])
def test_nanogpts_checkpoint_is_imported(bias: bool, prefix: str, tmp_path: Path) -> None:
    model = checkpoint(**GPT2, bias=bias).model
    found = load_model(nanogpt_file(tmp_path / "ckpt.pt", model, prefix), allow_pickle=True).model
    ids = torch.randint(0, 320, (2, 30))
    assert asdict(found.config) == {**asdict(model.config), "d_ff": found.config.d_ff}
    with torch.no_grad():
        assert torch.equal(found(ids), model(ids))


def test_a_pickle_is_not_read_unasked_and_a_hostile_one_never(tmp_path: Path) -> None:
    path = nanogpt_file(tmp_path / "ckpt.pt", checkpoint(**GPT2).model)
    with pytest.raises(ValueError, match="is a pickle; --allow-pickle reads it"):
        load_model(path)

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "bang",)

    torch.save({"model": Bomb(), "model_args": {}}, path)
    with pytest.raises(FormatError, match="no checkpoint of plain data"):
        load_model(path, allow_pickle=True)
    assert not (tmp_path / "bang").exists()


@pytest.mark.parametrize(
    ("args", "found"),
    [
        ({"n_embd": 32}, "must have the shape"),
        ({"n_head": 5}, "n_head must divide"),
        ({"n_layer": 1}, "no option of ours"),
    ],
)
def test_a_nanogpt_file_that_contradicts_itself_is_refused(args: dict[str, Any], found: str, tmp_path: Path) -> None:
    path = nanogpt_file(tmp_path / "ckpt.pt", checkpoint(**GPT2).model, **args)
    with pytest.raises(FormatError, match=found):
        load_model(path, allow_pickle=True)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([1], "not a checkpoint of nanoGPT's, which holds model and model_args"),
        ({"model": [], "model_args": {}}, "not a checkpoint of nanoGPT's, which holds model and model_args"),
        ({"model": {}, "model_args": {"n_layer": 1, "n_embd": 8}}, "no vocab_size, block_size, n_head in model_args"),
    ],
)
def test_what_a_pt_file_lacks_is_named(content: Any, found: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "ckpt.pt")
    with pytest.raises(FormatError, match=found):
        load_model(tmp_path / "ckpt.pt", allow_pickle=True)


def test_a_pt_file_has_no_steps_to_choose_from(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "ckpt.pt")
    with pytest.raises(ValueError, match=r"ckpt\.pt is one model, not a run with a step 7 to take; leave the step out"):
        load_model(tmp_path / "ckpt.pt", 7, allow_pickle=True)


def test_training_goes_on_from_nanogpts_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = checkpoint(**GPT2)
    path = nanogpt_file(tmp_path / "ckpt.pt", found.model)
    assert found.tokenizer is not None
    found.tokenizer.save(tmp_path / "tokenizer")
    (tmp_path / "cats.txt").write_text(TEXT * 20, encoding="utf-8")
    words = f"--data {tmp_path / 'cats.txt'} --out {tmp_path / 'run'} --init-from {path} --max-steps 2 --threads 1"
    words += f" --tokenizer {tmp_path / 'tokenizer'} --batch-size 2 --block-size 64 --val-fraction 0.1"
    assert train.main(words.split()) == 2
    assert "--allow-pickle" in capsys.readouterr().err
    assert train.main([*words.split(), "--allow-pickle"]) == 0
    assert json.loads((tmp_path / "run" / "last" / "config.json").read_text())["architectures"] == ["GPT2LMHeadModel"]


def _bfloat16(raw: bytes) -> Any:
    return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")


def test_a_missing_owner_is_named_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)  # as Python has it where it is not installed
    words = f"--checkpoint {tmp_path / 'none'} --to gguf --out {tmp_path / 'out'} --verify"
    assert export.main(words.split()) == 1
    wanted = "--verify asks llama.cpp, which is not installed; pip install 'tinygpt[llama]'"
    assert capfd.readouterr().err == f"tinygpt export: error: {wanted}\n"
