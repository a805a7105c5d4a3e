"""Dataclasses, files and flags say the same thing, and every mistake ends in one line."""

import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tinygpt import config
from tinygpt.values import convert
from tyro.conf import Positional


@dataclass(frozen=True, kw_only=True)
class Files:
    """Files."""

    paths: Positional[tuple[str, ...]] = ()
    """Files and folders of text."""
    out: Path | None = None
    """Folder to write."""
    quiet: bool = False
    """Print nothing."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """Model."""

    vocab_size: int
    """Number of ids."""
    n_layer: int = 6
    """Blocks."""
    position: Literal["rope", "learned"] = "rope"
    """How a token knows its place."""

    def __post_init__(self) -> None:
        if self.n_layer < 1:
            raise ValueError(f"n_layer must be at least 1, got {self.n_layer}")


@dataclass(frozen=True, kw_only=True)
class Train:
    """Training."""

    learning_rate: float = 1e-3
    """Peak rate."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decays of the moments."""
    save_every: int | Literal["epoch"] = 250
    """Steps, or `epoch`."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Whether to compile."""
    patience: int | None = None
    """Evaluations without progress."""
    clean: tuple[str, ...] = ()
    """Cleaning rules."""


GROUPS = {"": Files, "model": Model, "training": Train}


def read(*argv: str, **defaults: Any) -> config.Options:
    return config.read(argv, GROUPS, prog="tinygpt try", defaults=defaults)


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


texts = st.text(string.printable + "äß語", max_size=20)
floats = st.floats(allow_nan=False, allow_infinity=False)


@given(
    st.builds(Files, out=st.none() | st.just(Path("runs/x")), quiet=st.booleans(), paths=st.lists(texts).map(tuple)),
    st.builds(Model, vocab_size=st.integers(), position=st.sampled_from(["rope", "learned"])),
    st.builds(
        Train,
        learning_rate=floats,
        betas=st.tuples(floats, floats),
        save_every=st.integers() | st.just("epoch"),
        compile=st.sampled_from(["auto", "on", "off"]),
        patience=st.none() | st.integers(),
        clean=st.lists(texts).map(tuple),
    ),
)
def test_written_config_reads_back_as_the_same_values(
    tmp_path_factory: pytest.TempPathFactory, files: Files, model: Model, train: Train
) -> None:
    path = write(tmp_path_factory.getbasetemp() / "config.yaml", config.to_yaml(files, model, train))
    options = read("--config", path)
    assert (options.build(Files), options.build(Model), options.build(Train)) == (files, model, train)


def test_precedence_is_default_then_file_then_flag(tmp_path: Path) -> None:
    path = write(tmp_path / "c.yaml", "n_layer: 3\nlearning-rate: 1e-4\n")
    options = read("--learning-rate", "2", "--config", path, vocab_size=300)
    assert options.build(Model) == Model(vocab_size=300, n_layer=3)
    assert options.build(Train) == Train(learning_rate=2.0)
    assert options.build(Model, vocab_size=7).vocab_size == 7


@pytest.mark.parametrize("words", ["--n-layer 2", "--n_layer 2", "--n-layer=2", "--n-layer 9 --n_layer 2"])
def test_dash_underscore_and_equals_are_the_same_and_the_last_flag_wins(words: str) -> None:
    assert read(*words.split(), vocab_size=1).build(Model).n_layer == 2


def test_json_is_read_like_yaml(tmp_path: Path) -> None:
    yaml = write(tmp_path / "c.yaml", "lr: 1e-4\nbetas: [0.1, 0.2]\ncompile: on\npatience: null\n")
    json = write(tmp_path / "c.json", '{"lr": 1e-4, "betas": [0.1, 0.2], "compile": "on", "patience": null}')
    wanted = Train(learning_rate=1e-4, betas=(0.1, 0.2), compile="on")
    assert [read("--config", path).build(Train) for path in (yaml, json)] == [wanted, wanted]


def test_given_holds_what_the_user_said_and_nothing_else() -> None:
    assert read("--n-layer", "6", "--quiet").given(Model) == {"n_layer": 6}


def test_positional_switch_and_list() -> None:
    options = read("a", "b", "--no-quiet", "--clean", "x,y", "z", "--lr", "-1", "--betas", "1,2")
    assert options.build(Files) == Files(paths=("a", "b"), quiet=False)
    assert options.build(Train) == Train(clean=("x,y", "z"), learning_rate=-1.0, betas=(1.0, 2.0))


MISTAKES = {
    "--n-layer 0": "--n-layer must be at least 1, got 0",
    "--n-layer abc": "--n-layer must be a whole number, got 'abc'",
    "--n-layer 1.5": "--n-layer must be a whole number, got '1.5'",
    "--n-layer": "--n-layer needs a value: a whole number",
    "--n-layer --quiet": "--n-layer needs a value: a whole number",
    "--num_layers 3": "unknown flag --num_layers: here it is --n-layer",
    "--max-lr 3": "unknown flag --max-lr: here it is --learning-rate",
    "--n-layr 3": "unknown flag --n-layr: did you mean --n-layer?",
    "--xyzzy": "unknown flag --xyzzy: nothing here has a name like it; --help lists what there is",
    "-n 3": "unknown flag -n: nothing here has a name like it; --help lists what there is",
    "--position spiral": "--position must be one of rope, learned, got 'spiral'",
    "--save-every never": "--save-every must be a whole number or epoch, got 'never'",
    "--lr nan": "--lr must be a number, got 'nan'",
    "--betas 1": "--betas must be 2 values, each a number, got ['1']",
    "--no-quiet=1": "--no-quiet takes no value, got '1'",
    "--config nowhere.yaml": "nowhere.yaml",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistaken_flag_says_what_would_do(words: str) -> None:
    with pytest.raises((ValueError, OSError)) as caught:
        read(*words.split(), vocab_size=1).build(Model)
    assert MISTAKES[words] in str(caught.value)


MISTAKEN_FILES = {
    "n_layer: 0": ", line 1: n_layer must be at least 1, got 0",
    "\nn_layers: 3": ", line 2: unknown key n_layers: here it is n_layer",
    "n_layr: 3": ", line 1: unknown key n_layr: did you mean n_layer?",
    "n_layer: [1, 2]": ", line 1: n_layer must be a whole number, got ['1', '2']",
    "n_layer: 3\nn-layer: 4": ", line 2: n-layer stands here twice; keep one of them",
    "model: {n_layer: 3}": ", line 1: unknown key model",
    "quiet: maybe": ", line 1: quiet must be true or false, got 'maybe'",
    "- 1": ": cannot be read as options (not a mapping)",
    "a: b: c": ": cannot be read as options (mapping values are not allowed here",
    "n_layer: !!python/object:os.system 1": ": cannot be read as options (could not determine a constructor",
}


@pytest.mark.parametrize("text", MISTAKEN_FILES)
def test_a_mistaken_file_is_named_with_its_line(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "c.yaml", text)
    with pytest.raises(ValueError, match=r"c\.yaml") as caught:
        read("--config", path, vocab_size=1).build(Model)
    assert str(caught.value).startswith(path + MISTAKEN_FILES[text])


def test_a_missing_value_is_named_with_its_meaning() -> None:
    with pytest.raises(ValueError, match="--vocab-size is missing: number of ids"):
        read().build(Model)


@pytest.mark.parametrize("stray", ["stray", "-1"])
def test_a_word_that_belongs_to_no_flag_is_refused(stray: str) -> None:
    with pytest.raises(ValueError, match=f"unexpected '{stray}'"):
        config.read([stray], {"": Model}, prog="tinygpt try")


def test_help_shows_every_flag_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read("--help", vocab_size=8192)
    shown = capsys.readouterr().out
    wanted = [
        "PATHS",
        "--out PATH",
        "--vocab-size INT",
        "(default: 8192)",
        "--lr NUMBER",
        "INT|epoch",
        "Number of ids.",
    ]
    assert [text for text in wanted if text not in shown] == []


@given(
    st.one_of(st.none(), st.booleans(), texts, st.lists(texts)), st.sampled_from([int, float, bool, str, int | None])
)
def test_convert_gives_the_type_asked_for_or_says_so(value: Any, hint: Any) -> None:
    try:
        result = convert(value, hint, "--x")
    except ValueError as error:
        assert str(error).startswith("--x must be ")  # noqa: PT017
    else:
        assert isinstance(result, hint)
