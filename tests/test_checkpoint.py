"""Checkpoint: a Hugging Face folder, written whole; text in, text out."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tinygpt import FormatError, runfolder
from tinygpt.checkpoint import Checkpoint
from tinygpt.model import GPT, GPTConfig
from tinygpt.tokenizer import Tokenizer
from tinygpt.trainingstate import TrainingState


def tiny(vocab_size: int = 257) -> GPT:
    torch.manual_seed(0)
    return GPT(GPTConfig(vocab_size=vocab_size, block_size=16, n_layer=1, n_head=2, d_model=16))


def bytes_tokenizer() -> Tokenizer:
    return Tokenizer.train(["a"], pattern="byte")


class Scripted:
    """In place of a model: writes what it is told to."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = ids
        self.prompt: list[int] = []

    def generate(self, ids: Sequence[int], **_: Any) -> Iterator[int]:
        self.prompt = list(ids)
        return iter(self.ids)


def scripted(ids: Sequence[int]) -> Checkpoint:
    return Checkpoint(Scripted(ids), bytes_tokenizer())  # type: ignore[arg-type]


def test_loaded_model_is_the_saved_one_bit_for_bit(tmp_path: Path) -> None:
    model = tiny()
    Checkpoint(model, bytes_tokenizer()).save(tmp_path / "model")
    loaded = Checkpoint.load(tmp_path / "model")
    assert loaded.model.config == model.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor), name


def test_folder_holds_what_hugging_face_expects(tmp_path: Path) -> None:
    Checkpoint(tiny(), bytes_tokenizer()).save(tmp_path / "model")
    names = {path.name for path in (tmp_path / "model").iterdir()}
    wanted = "config.json model.safetensors generation_config.json tokenizer.json tokenizer_config.json checksums.json"
    assert names == set(wanted.split())
    assert json.loads((tmp_path / "model" / "generation_config.json").read_text())["eos_token_id"] == 256


def test_whoever_may_read_one_file_may_read_all(tmp_path: Path) -> None:
    Checkpoint(tiny(), bytes_tokenizer()).save(tmp_path / "model")
    assert len({path.stat().st_mode for path in (tmp_path / "model").iterdir()}) == 1


def test_existing_folder_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError):
        Checkpoint(tiny()).save(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    model = tiny()
    next(iter(model.parameters())).data[0] = float("nan")
    with pytest.raises(RuntimeError, match="not finite"):
        Checkpoint(model).save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_generation_is_the_same_after_loading(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tiny(), bytes_tokenizer())
    checkpoint.save(tmp_path / "model")
    wanted = checkpoint.generate("abc", max_new_tokens=20, seed=1)
    assert Checkpoint.load(tmp_path / "model").generate("abc", max_new_tokens=20, seed=1) == wanted


@settings(max_examples=100, deadline=None)
@given(script=st.binary(max_size=40) | st.text(max_size=20).map(str.encode))
def test_stream_is_the_decoded_bytes_in_whole_characters(script: bytes) -> None:
    pieces = list(scripted(script).stream("x"))
    assert "".join(pieces) == script.decode("utf-8", "replace")


@settings(max_examples=200, deadline=None)
@given(text=st.text("abc", max_size=20), stop=st.lists(st.text("abc", min_size=1, max_size=4), max_size=3))
def test_stream_ends_before_the_stop_string_that_is_complete_first(text: str, stop: list[str]) -> None:
    found = [(text.find(s) + len(s), text.find(s)) for s in stop if s in text]
    assert scripted(text.encode()).generate("x", stop=stop) == text[: min(found)[1] if found else None]


def test_half_a_character_is_never_streamed() -> None:
    assert list(scripted("é€😀".encode()).stream("x")) == ["é", "€", "😀"]


def test_text_that_may_become_a_stop_string_is_held_back() -> None:
    assert list(scripted(b"ab<en<end>cd").stream("x", stop="<end>")) == ["a", "b", "<en"]


def test_generation_ends_at_the_document_separator() -> None:
    assert scripted([97, 256, 98]).generate("x") == "a"


def test_empty_prompt_starts_at_the_document_separator() -> None:
    checkpoint = scripted(b"a")
    checkpoint.generate("")
    assert checkpoint.model.prompt == [256]


def test_text_without_a_tokenizer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the model: no tokenizer\.json beside the model"):
        Checkpoint(tiny()).generate("x")


def test_a_model_that_knows_no_chats_is_not_asked_as_one() -> None:
    missing = (
        r"the model: its tokenizer has no <\|system\|>, <\|user\|>, <\|assistant\|>, <\|end\|>, so the model knows no"
    )
    with pytest.raises(ValueError, match=missing):
        scripted(b"a").generate("x", chat=True)
    with pytest.raises(ValueError, match="system is the first message of a chat; set chat, too"):
        scripted(b"a").generate("x", system="be brief")


def test_missing_checkpoint_is_named_with_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        Checkpoint.load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no whole checkpoint in it; looked for config\.json"):
        Checkpoint.load(tmp_path)


def run_of_two(folder: Path) -> None:
    for step, seed in ((1, 1), (2, 2)):
        model = tiny()
        torch.nn.init.constant_(next(model.parameters()), seed)
        Checkpoint(model).save(runfolder.step_folder(folder, step))
    runfolder.point(folder, "best", runfolder.step_folder(folder, 1))


def first_weight(checkpoint: Checkpoint) -> float:
    return float(next(iter(checkpoint.model.parameters())).detach().flatten()[0])


def test_run_folder_gives_best_last_and_any_step(tmp_path: Path) -> None:
    run_of_two(tmp_path)
    places: list[tuple[Path, Any]] = [
        (tmp_path, "best"),
        (tmp_path, "last"),
        (tmp_path, 1),
        (tmp_path / "best", "best"),
        (tmp_path / "best", 1),
        (tmp_path / "step-0000002", 2),
    ]
    assert [first_weight(Checkpoint.load(path, which)) for path, which in places] == [1, 2, 1, 1, 1, 2]
    with pytest.raises(FileNotFoundError, match="no checkpoint of step 7 in it; there are 1, 2"):
        Checkpoint.load(tmp_path, 7)
    with pytest.raises(ValueError, match=r"step-0000001 is one model, not a run with a step 2 to take; name the run"):
        Checkpoint.load(tmp_path / "step-0000001", 2)


def test_damaged_best_gives_a_warning_and_the_newest_whole_one(tmp_path: Path) -> None:
    run_of_two(tmp_path)
    weights = tmp_path / "best" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    with pytest.warns(RuntimeWarning, match="damaged"):
        assert first_weight(Checkpoint.load(tmp_path)) == 2
    with pytest.raises(FormatError, match="SHA-256"):
        Checkpoint.load(tmp_path / "step-0000001")


def test_training_state_of_another_version_or_torn_is_refused(tmp_path: Path) -> None:
    TrainingState(facts={"step": 3}, tensors={"a": torch.ones(2)}).save(tmp_path)
    assert TrainingState.load(tmp_path).facts["step"] == 3
    whole = (tmp_path / "optimizer.safetensors").read_bytes()
    (tmp_path / "optimizer.safetensors").write_bytes(whole[:-3])
    with pytest.raises(FormatError, match=r"optimizer\.safetensors"):
        TrainingState.load(tmp_path)
    (tmp_path / "trainer.json").write_text('{"format": "tinygpt-trainer", "version": 2}')
    with pytest.raises(FormatError, match="not a tinygpt-trainer file of version 1"):
        TrainingState.load(tmp_path)
