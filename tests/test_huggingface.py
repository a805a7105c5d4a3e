"""Model folders of transformers' classes, in both directions, with transformers as the oracle."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tinygpt import FormatError
from tinygpt.formats import huggingface
from tinygpt.model import GPT, GPTConfig
from torch import Tensor
from torch.testing import assert_close

transformers = pytest.importorskip("transformers")

SHAPE: dict[str, Any] = {"vocab_size": 37, "block_size": 24, "n_layer": 2, "n_head": 4, "d_model": 32, "norm_eps": 1e-4}
GPT2: dict[str, Any] = {"position": "learned", "norm": "layernorm", "mlp": "gelu"}
OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", {"rope_theta": 500.0}),
    "llama untied": ("LlamaForCausalLM", {"tie_embeddings": False, "d_ff": 40}),
    "llama grouped": ("LlamaForCausalLM", {"n_kv_head": 2}),
    "llama grouped untied biases": ("LlamaForCausalLM", {"n_kv_head": 1, "tie_embeddings": False, "bias": True}),
    "llama geglu": ("LlamaForCausalLM", {"mlp": "geglu"}),
    "llama dropout": ("LlamaForCausalLM", {"dropout": 0.2}),
    "qwen3": ("Qwen3ForCausalLM", {"qk_norm": True}),
    "qwen3 grouped untied geglu": (
        "Qwen3ForCausalLM",
        {"qk_norm": True, "n_kv_head": 2, "tie_embeddings": False, "mlp": "geglu"},
    ),
    "gpt2": ("GPT2LMHeadModel", {**GPT2, "bias": True}),
    "gpt2 no biases": ("GPT2LMHeadModel", {**GPT2, "d_ff": 40}),
    "gpt2 untied dropout": ("GPT2LMHeadModel", {**GPT2, "tie_embeddings": False, "dropout": 0.2}),
    "gpt2 sinusoidal": ("GPT2LMHeadModel", {**GPT2, "position": "sinusoidal", "bias": True}),
    "gpt2 sinusoidal no biases": ("GPT2LMHeadModel", {**GPT2, "position": "sinusoidal"}),
}
NATIVE: dict[str, dict[str, Any]] = {
    "sinusoidal rmsnorm geglu": {"position": "sinusoidal", "mlp": "geglu"},
    "rope layernorm": {"norm": "layernorm"},
    "rope gelu": {"mlp": "gelu"},
    "qwen3 biases": {"qk_norm": True, "bias": True},
    "gpt2 grouped": {**GPT2, "n_kv_head": 2},
    "gpt2 qk_norm": {**GPT2, "qk_norm": True},
    "learned llama": {"position": "learned", "tie_embeddings": False},
}
LLAMA: dict[str, Any] = dict(
    vocab_size=37, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4
)
LLAMA |= {"max_position_embeddings": 24, "rms_norm_eps": 1e-4}
THEIRS: dict[str, Any] = {
    "llama": ("Llama", {**LLAMA, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}),
    "llama grouped tied": ("Llama", {**LLAMA, "num_key_value_heads": 2, "tie_word_embeddings": True}),
    "llama biases": ("Llama", {**LLAMA, "attention_bias": True, "mlp_bias": True}),
    "llama geglu": ("Llama", {**LLAMA, "hidden_act": "gelu_pytorch_tanh"}),
    "qwen3": ("Qwen3", {**LLAMA, "head_dim": 8, "num_key_value_heads": 2}),
    "gpt2": ("GPT2", {"vocab_size": 37, "n_positions": 24, "n_embd": 32, "n_layer": 2, "n_head": 4}),
    "gpt2 untied": (
        "GPT2",
        {"vocab_size": 37, "n_positions": 24, "n_embd": 32, "n_layer": 1, "n_head": 4, "tie_word_embeddings": False},
    ),
}


def loud(model: Any) -> Any:
    """The model, its weights so large that a slip in any of them moves the logits far beyond the tolerance."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def saved(model: GPT, folder: Path) -> Path:
    config = asdict(model.config)
    content = huggingface.model_config_to_hf(config, eos_id=3)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(content))
    save_file(huggingface.weights_to_hf(model.state_dict(), config), folder / "model.safetensors", {"format": "pt"})
    (folder / "generation_config.json").write_text(json.dumps(huggingface.generation_config(eos_id=3)))
    return folder


def gpt(**options: Any) -> GPT:
    return loud(GPT(GPTConfig(**{**SHAPE, **options})))  # type: ignore[no-any-return]


def ids() -> Tensor:
    return torch.randint(37, (2, 24), generator=torch.Generator().manual_seed(2))


def change(folder: Path, **entries: Any) -> None:
    """Edits config.json; None takes a key away."""
    content = {**json.loads((folder / "config.json").read_text()), **entries}
    (folder / "config.json").write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


@torch.no_grad()
def assert_same(ours: GPT, theirs: Any) -> None:
    # 2e-5: a wrong eps moves logits by 3e-3, a wrong base of rope by 4e-5.
    assert_close(ours.eval()(ids()), theirs(ids()).logits, rtol=0, atol=2e-5)
    prompt = ids()[:1, :5]
    wanted = theirs.generate(prompt, max_new_tokens=15, do_sample=False, eos_token_id=None, pad_token_id=0)[0, 5:]
    assert list(ours.generate(prompt[0], max_new_tokens=15, temperature=0)) == wanted.tolist()


@pytest.mark.parametrize(("architecture", "options"), OURS.values(), ids=OURS.keys())
def test_transformers_opens_ours(architecture: str, options: dict[str, Any], tmp_path: Path) -> None:
    model = gpt(**options)
    opened, report = transformers.AutoModelForCausalLM.from_pretrained(
        saved(model, tmp_path / "model"), output_loading_info=True
    )
    assert (type(opened).__name__, model.architecture) == (architecture, architecture)
    assert [report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")] == [set(), set(), set()]
    assert (opened.config.eos_token_id, opened.config.bos_token_id) == (3, None)
    assert_same(model, opened.eval())


@pytest.mark.parametrize("options", [*(options for _, options in OURS.values()), *NATIVE.values()])
def test_ours_comes_back_as_it_was(options: dict[str, Any], tmp_path: Path) -> None:
    model, before = gpt(**options), torch.get_rng_state()
    back = GPT.from_pretrained(saved(model, tmp_path / "model"))
    assert back.config == model.config
    assert_close(back.state_dict(), model.state_dict(), rtol=0, atol=0)
    assert [p.requires_grad for p in back.parameters()] == [p.requires_grad for p in model.parameters()]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("kind", "options"), THEIRS.values(), ids=THEIRS.keys())
def test_ours_opens_transformers(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    theirs = loud(
        getattr(transformers, f"{kind}ForCausalLM" if kind != "GPT2" else "GPT2LMHeadModel")(
            getattr(transformers, f"{kind}Config")(**options)
        )
    )
    theirs.save_pretrained(tmp_path)
    assert_same(GPT.from_pretrained(tmp_path), theirs)


def test_sharded_weights_and_bfloat16_are_read(tmp_path: Path) -> None:
    theirs = loud(transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA))).to(torch.bfloat16)
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert not (tmp_path / "model.safetensors").exists()
    model = GPT.from_pretrained(tmp_path)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert_same(model, transformers.LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval())


def test_config_written_by_older_transformers_is_read(tmp_path: Path) -> None:
    model = gpt(rope_theta=500.0)
    change(saved(model, tmp_path / "m"), tinygpt=None, rope_parameters=None, dtype=None, head_dim=None)
    assert_close(GPT.from_pretrained(tmp_path / "m")(ids()), model(ids()))
    change(tmp_path / "m", rope_theta=None, rope_parameters={"rope_type": "default", "rope_theta": 500.0})
    assert_close(GPT.from_pretrained(tmp_path / "m")(ids()), model(ids()))


def test_a_published_gpt2_has_bare_names_and_mask_buffers(tmp_path: Path) -> None:
    model = gpt(**GPT2, bias=True)
    change(saved(model, tmp_path / "m"), tinygpt=None, n_inner=None, n_ctx=24)
    weights = load_file(tmp_path / "m" / "model.safetensors")
    bare = {name.removeprefix("transformer."): tensor for name, tensor in weights.items()}
    save_file({**bare, "h.0.attn.bias": torch.ones(1, 1, 24, 24)}, tmp_path / "m" / "model.safetensors")
    assert_close(GPT.from_pretrained(tmp_path / "m")(ids()), model(ids()))


def test_a_model_changed_by_transformers_is_read_as_it_now_is(tmp_path: Path) -> None:
    theirs = transformers.AutoModelForCausalLM.from_pretrained(saved(gpt(dropout=0.1), tmp_path / "m")).eval()
    theirs.resize_token_embeddings(40)
    theirs.save_pretrained(tmp_path / "changed")
    with pytest.warns(UserWarning, match=r"attention_dropout 0.1: .* set to 0"):
        model = GPT.from_pretrained(tmp_path / "changed")
    assert_same(model, theirs)


def test_a_table_of_positions_trained_by_transformers_stays(tmp_path: Path) -> None:
    model = gpt(**{**GPT2, "position": "sinusoidal"})
    theirs = loud(transformers.AutoModelForCausalLM.from_pretrained(saved(model, tmp_path / "m")))
    theirs.save_pretrained(tmp_path / "trained")
    with pytest.raises(
        FormatError, match=r"bias is not zero, but bias is false; delete the key tinygpt of config.json"
    ):
        GPT.from_pretrained(tmp_path / "trained")
    change(tmp_path / "trained", tinygpt=None)
    assert_same(GPT.from_pretrained(tmp_path / "trained"), theirs)


def test_generation_config_is_read_by_transformers(tmp_path: Path) -> None:
    read = transformers.GenerationConfig.from_pretrained(saved(gpt(), tmp_path / "m"))
    assert (read.eos_token_id, read.bos_token_id) == (3, None)


@pytest.mark.parametrize("options", NATIVE.values(), ids=NATIVE.keys())
def test_options_that_no_class_has_are_native(options: dict[str, Any]) -> None:
    config = asdict(GPTConfig(**{**SHAPE, **options}))
    content = huggingface.model_config_to_hf(config)
    assert (huggingface.architecture(config), content["architectures"]) == ("native", ["TinyGPTForCausalLM"])
    assert all(huggingface.obstacles(config).values())
    assert huggingface.model_config_from_hf(content) == config


FOREIGN = [
    ("llama", {"model_type": "mistral"}, "model_type must be one of llama, qwen3, gpt2, got 'mistral'"),
    ("llama", {"model_type": "tinygpt"}, "needs the key tinygpt, found none"),
    ("llama", {"architectures": ["LlamaForTokenClassification"]}, "must be a LlamaForCausalLM"),
    ("llama", {"hidden_act": "relu"}, "hidden_act must be silu or .* got relu"),
    ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling.rope_type must be default .* linear"),
    ("llama", {"rope_parameters": {"rope_type": "llama3"}}, "rope_parameters.rope_type must be default .* llama3"),
    ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor must be 1.0 .* got 0.5"),
    ("llama", {"head_dim": 16}, "head_dim must be 8 .* got 16"),
    ("llama", {"attention_bias": True}, "attention_bias must be False .* got True"),
    ("llama", {"quantization_config": {"bits": 4}}, "quantization_config is set"),
    ("llama", {"hidden_size": None}, "hidden_size must be a whole number, got None"),
    ("llama", {"num_attention_heads": 5, "head_dim": 6, "num_key_value_heads": 1}, "n_head must divide d_model"),
    ("qwen3", {"use_sliding_window": True}, "use_sliding_window must be False"),
    ("qwen3", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types must be full_attention"),
    ("qwen3", {"attention_bias": True}, "attention_bias must be False"),
    ("qwen3", {"head_dim": None}, "head_dim must be 8 for a model of ours, got 128"),
    ("gpt2", {"activation_function": "gelu"}, "activation_function must be gelu_.* got gelu"),
    ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights must be True"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx must be False"),
    ("gpt2", {"add_cross_attention": True}, "add_cross_attention must be False"),
    ("gpt2", {"tinygpt": {"n_layers": 3}}, "no model has this configuration: .*n_layers"),
]


@pytest.mark.parametrize(("name", "entries", "message"), FOREIGN)
def test_what_no_option_stands_for_is_refused_by_name(
    name: str, entries: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = saved(gpt(**OURS[name][1]), tmp_path / "m")
    change(folder, **{"tinygpt": None, **entries})
    with pytest.raises(FormatError, match=f"^{re.escape(str(folder / 'config.json'))}: .*{message}"):
        GPT.from_pretrained(folder)


def test_unequal_rates_of_dropout_are_said_to_be_left_out() -> None:
    content = huggingface.model_config_to_hf(asdict(GPTConfig(**SHAPE, **GPT2)))
    del content["tinygpt"]
    assert (
        huggingface.model_config_from_hf(
            {**content, **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.3)}
        )["dropout"]
        == 0.3
    )
    with pytest.warns(UserWarning, match=r"resid_pdrop 0.0, embd_pdrop 0.0, attn_pdrop 0.3: .* set to 0"):
        assert huggingface.model_config_from_hf({**content, "attn_pdrop": 0.3})["dropout"] == 0


@pytest.mark.parametrize("name", ["llama untied", "gpt2"])
def test_damaged_weights_are_refused(name: str, tmp_path: Path) -> None:
    folder = saved(gpt(**OURS[name][1]), tmp_path / "m")
    path, weights = folder / "model.safetensors", load_file(folder / "model.safetensors")
    first = min(weights)
    save_file({key: value for key, value in weights.items() if key != first}, path)
    with pytest.raises(FormatError, match=f"there is no tensor {first}"):
        GPT.from_pretrained(folder)
    save_file({**weights, first: weights[first][:-1].clone()}, path)
    with pytest.raises(FormatError, match=f"{first} must have the shape"):
        GPT.from_pretrained(folder)
    save_file({**weights, "score.weight": torch.ones(1)}, path)
    with pytest.raises(FormatError, match=r"no option of ours has a tensor score.weight"):
        GPT.from_pretrained(folder)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(FormatError, match=re.escape(str(path))):
        GPT.from_pretrained(folder)


def test_a_native_folder_with_a_tensor_missing_is_refused(tmp_path: Path) -> None:
    folder = saved(gpt(norm="layernorm"), tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    save_file({key: value for key, value in weights.items() if key != "norm.weight"}, folder / "model.safetensors")
    with pytest.raises(FormatError, match="norm.weight"):
        GPT.from_pretrained(folder)


def test_a_tied_model_with_another_head_is_refused(tmp_path: Path) -> None:
    model = gpt()
    folder = saved(model, tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "lm_head.weight": weights["model.embed_tokens.weight"].clone()}, folder / "model.safetensors")
    assert_close(GPT.from_pretrained(folder)(ids()), model(ids()))
    save_file({**weights, "lm_head.weight": torch.zeros(37, 32)}, folder / "model.safetensors")
    with pytest.raises(FormatError, match="tie_word_embeddings is true, but lm_head.weight is not"):
        GPT.from_pretrained(folder)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        GPT.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"config.json: no such file"):
        GPT.from_pretrained(tmp_path)
    folder = saved(gpt(), tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"pytorch_model.bin is a pickle, which is never opened"):
        GPT.from_pretrained(folder)


@pytest.mark.parametrize("content", ["{", "[]", '"x"'])
def test_a_config_that_is_no_object_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(FormatError, match=r"config.json: not .*JSON"):
        GPT.from_pretrained(tmp_path)


@pytest.mark.parametrize("places", [{"a": "../other/model.safetensors"}, {"a": 1}, {}, [], None])
def test_an_index_may_name_files_of_its_folder_alone(places: Any, tmp_path: Path) -> None:
    folder = saved(gpt(), tmp_path / "m")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    with pytest.raises(FormatError, match="must name files of the same folder"):
        GPT.from_pretrained(folder)
