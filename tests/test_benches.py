"""The harness of the benchmarks: what it compares is comparable, and what it says follows from what was measured."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import hard_texts
from tinygpt.model import GPT, GPTConfig
from tinygpt.tokenizer import Tokenizer

from benches import answers, race, recipe
from benches.race import Run, Side
from benches.recipe import Outcome
from benches.shape import TINY
from benches.table import Row, cells, table
from benches.training import Bout, Choice, s2

TOKENIZER = Tokenizer.from_merges([(b"\n", b"\n"), (b"\n", b" "), (b" ", b"a"), (b"a", b"\n")])


def run(seconds: float, rss_mb: float, name: str = "tinygpt") -> Run:
    return Run(name=name, all_seconds=(seconds, seconds, 9.0), rss_mb=rss_mb, answer=None)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.lists(st.sampled_from(["a", " ", "\n", "\r\n", "\n\n", "字", "a\n"]), max_size=40).map("".join))
def test_parts_of_a_document_have_the_ids_of_the_whole(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "PART_CHARACTERS", 3)
    (tmp_path / "text.txt").write_bytes(text.encode())
    parts = list(answers.documents(str(tmp_path / "text.txt")))
    assert "".join(parts) == text
    assert [id for part in parts for id in TOKENIZER.encode(part)] == TOKENIZER.encode(text)


def test_lines_of_end_of_text_part_documents(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("one\n<|endoftext|>\ntwo <|endoftext|>\n")
    assert list(answers.documents(str(tmp_path / "text.txt"))) == ["one\n", "two <|endoftext|>\n"]


@given(text=hard_texts, size=st.integers(1, 20))
def test_slices_are_the_text_and_no_longer_than_asked(text: str, size: int) -> None:
    parts = answers.slices(text, size)
    assert "".join(parts) == text
    assert all(len(part.encode()) <= size + 3 for part in parts)


def test_a_vocabulary_that_was_saved_is_one_of_ours(tmp_path: Path) -> None:
    tokens = [bytes([i]) for i in range(256)] + [b"ab", b"ab", b"abc"]
    answers.save_ranks(str(tmp_path / "v.tiktoken"), tokens)
    assert answers.load_ranks(str(tmp_path / "v.tiktoken"))[b"abc"] == 257
    assert Tokenizer.load(tmp_path / "v.tiktoken", pattern="gpt2").encode("abcab") == [257, 256]


ROWS = [
    (Row(id="T1", task="", ours=run(1, 50), peer=run(5, 90), target=5), 5, True),
    (Row(id="T1", task="", ours=run(1, 50), peer=run(4.9, 90), target=5), 4.9, False),
    (Row(id="T4", task="", ours=run(9, 50), peer=run(5, 100), target=0.5, kind="times the memory"), 0.5, True),
    (Row(id="T5", task="", ours=run(1.1, 50), target=1, kind="seconds"), 1.1, False),
    (Row(id="T5", task="", ours=run(9, 50), target=2.6, kind="times as long", value=2.5), 2.5, True),
    (Row(id="F3", task="", ours=run(9, 126), target=125, kind="MB"), 126, False),
    (Row(id="F4", task="", ours=run(1, 1), peer=run(9, 1), target=1.7, value=1.8), 1.8, True),
    (Row(id="F4", task="", ours=run(1, 1)), None, None),
    (Row(id="S6", task="", ours=run(1, 1), target=0.7, kind="share at least", value=0.69), 0.69, False),
]


@pytest.mark.parametrize(("row", "found", "is_reached"), ROWS)
def test_a_target_is_reached_or_not(row: Row, found: float | None, is_reached: bool | None) -> None:
    assert (row.found, row.is_reached) == (found, is_reached)
    assert cells(row)[-1] == {True: "yes", False: "NO", None: ""}[is_reached]


def test_columns_stand_below_one_another() -> None:
    lines = table([row for row, _, _ in ROWS]).splitlines()
    place = lines[0].index("ours s") + len("ours s")
    assert [line[:place].split()[-1] for line in lines[1:]] == [f"{row.ours.seconds:.3f}" for row, _, _ in ROWS]


def side(name: str, answer: str) -> Side:
    return Side(name=name, code=f"with clock() as took:\n    total = sum(range(1000))\nanswer = {answer}")


def test_sides_must_agree() -> None:
    with pytest.raises(AssertionError, match=r"the sides disagree: \{'ours': 1, 'theirs': 2\}"):
        race.race("task", [side("ours", "1"), side("theirs", "2")], rounds=1)


def test_a_slow_side_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "SLOW_SECONDS", 0)
    (found,) = race.race("task", [side("ours", "1")], rounds=3)
    assert len(found.all_seconds) == 1
    assert 1 < found.rss_mb < 200


def test_a_side_that_fails_is_named_with_its_error() -> None:
    with pytest.raises(RuntimeError, match="task, ours: ZeroDivisionError: division by zero"):
        race.race("task", [side("ours", "1 / 0")], rounds=1)


@pytest.mark.parametrize("mlp", TINY)
def test_a_shape_counts_the_parameters_of_the_model(mlp: str) -> None:
    shape, other = TINY[mlp], {"swiglu": {}, "gelu": {"position": "learned", "norm": "layernorm"}}
    names = ("vocab_size", "block_size", "n_layer", "n_head", "d_model", "d_ff", "mlp")
    for has_biases in (False, True):
        fields = {**{name: getattr(shape, name) for name in names}, **other[mlp], "bias": has_biases}
        if mlp == "swiglu" and has_biases:  # RMSNorm has none
            continue
        assert shape.n_parameters(has_biases=has_biases) == GPT(GPTConfig(**fields)).n_parameters


def test_the_best_peer_is_the_fastest_of_its_kind() -> None:
    names = {"tinygpt": 1.0, "GPT-2 bfloat16 compiled": 3.0, "nanoGPT bfloat16 compiled": 2.0, "nanoGPT float32": 0.1}
    runs = {name: run(seconds, 1, name) for name, seconds in names.items()}
    (row,) = s2(Bout(choice=Choice(), runs=runs, announced_mb=None, has_amx=False))
    assert (row.peer, row.found, row.target) == (runs["nanoGPT bfloat16 compiled"], 2.0, 1.4)


def test_ours_is_held_against_the_best_of_theirs() -> None:
    def outcome(side: str, label: str, seed: int, *end: float) -> Outcome:
        part = {"part": "english", "side": side, "label": label, "how": ""}
        return Outcome(**part, seed=seed, steps=9, tokens=900, parameters=10**6, curve=[(0.0, 5.0, 2.0), end])

    theirs = [outcome("theirs", "good", 1, 30.0, 2.5, 1.2), outcome("theirs", "good", 2, 30.0, 2.4, 1.1)]
    worse = outcome("theirs", "worse", 1, 30.0, 4.0, 1.8)
    ours = [outcome("ours", "new", 1, 10.0, 2.0, 1.0), outcome("ours", "new", 2, 10.0, 2.1, 1.0)]
    said = recipe.table([*theirs, worse, *ours])
    assert "better by 0.400 nats (worst seed 0.300), 0.150 bits per byte, with 0.33 of their seconds" in said
