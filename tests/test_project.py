"""Projects: every stage is done once, goes on where it was killed, and is done anew when what it depends on changed."""

import json
import os
import random
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import small_project
from small_project import make
from tinygpt import make as verb
from tinygpt.chattemplate import CHAT_TOKENS
from tinygpt.checkpoint import Checkpoint
from tinygpt.projectend import prompt_flags
from tinygpt.reading import Reading
from tinygpt.staging import lock_folder
from tinygpt.tokenizer import Tokenizer


class Commands:
    """Runs commands and remembers their words."""

    def __init__(self, *, failing: str = "", code: int = 1) -> None:
        self.words: list[Sequence[str]] = []
        self._failing, self._code = failing, code

    def __call__(self, words: Sequence[str]) -> int:
        self.words.append(words)
        return self._code if self._failing and self._failing in words else small_project.command(words)

    @property
    def verbs(self) -> list[str]:
        return [words[0] for words in self.words]


ALL = ["prepare", "train", "evaluate", "export", "export", "report", "generate"]


@pytest.fixture(scope="module")
def novel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "novel.txt"
    path.write_text(small_project.text(2500))
    return path


@pytest.fixture(scope="module")
def finished(novel: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Commands, str]:
    """A project that was made, with the commands that made it and what it said."""
    folder, commands = tmp_path_factory.mktemp("project") / "made", Commands()
    said: list[str] = []
    assert make([novel], folder, command=commands, say=said.append) == 0
    return folder, commands, "\n".join(said)


@pytest.fixture
def project(finished: tuple[Path, Commands, str], tmp_path: Path) -> Path:
    """A copy of the finished project."""
    folder = tmp_path / "made"
    subprocess.run(["cp", "-a", str(finished[0]), str(folder)], check=True)
    return folder


def test_every_stage_leaves_what_it_is_for(finished: tuple[Path, Commands, str]) -> None:
    folder, commands, said = finished
    assert commands.verbs == ALL
    for name in ("data/manifest.json", "run/best", "run/evaluation.json", "export/hf/config.json", "run/report.html"):
        assert (folder / name).exists(), name
    assert (folder / "export/gguf/model-f16.gguf").is_file()
    record = json.loads((folder / "project.json").read_text())
    assert list(record["stages"]) == ["plan", "prepare", "train", "evaluate", "export", "report"]
    assert all(row["made"] and row["seconds"] >= 0 for row in record["stages"].values())
    judged = json.loads((folder / "run/evaluation.json").read_text())
    shown = f"{judged['text']['groups'][0]['figures']['bits_per_byte']:.2f} bits per byte of held-out text"
    assert shown in said
    assert f"tinygpt chat {folder}" in said.split("next:")[1]


def test_every_command_is_shown_as_it_was_run(finished: tuple[Path, Commands, str]) -> None:
    _, commands, said = finished
    shown = [shlex.split(line[2:])[1:] for line in said.splitlines() if line.startswith("$ tinygpt ")]
    assert shown == commands.words


def test_what_one_may_do_next_can_be_typed(finished: tuple[Path, Commands, str], novel: Path, tmp_path: Path) -> None:
    said: list[str] = []
    shutil.copytree(finished[0], tmp_path / "my novel", symlinks=True)
    assert make([novel], tmp_path / "my novel", say=said.append) == 0
    assert shlex.split(next(line for line in said if line.startswith("  tinygpt chat "))) == [
        *("tinygpt", "chat", str(tmp_path / "my novel"))
    ]


def test_the_folder_stands_for_its_model(finished: tuple[Path, Commands, str]) -> None:
    folder, _, _ = finished
    assert Checkpoint.load(folder).step == Checkpoint.load(folder / "run").step


def test_a_second_call_does_nothing(finished: tuple[Path, Commands, str], novel: Path) -> None:
    folder, _, _ = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name not in (".lock", "made")}
    commands = Commands()
    assert make([novel], folder, command=commands) == 0
    assert commands.verbs == ["generate"]
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_file_that_was_touched_is_read_and_found_the_same(finished: tuple[Path, Commands, str], novel: Path) -> None:
    os.utime(novel)
    commands = Commands()
    assert make([novel], finished[0], command=commands) == 0
    assert commands.verbs == ["generate"]


@pytest.mark.parametrize(
    ("lost", "again"),
    [
        ("export/gguf/model-f16.gguf", ["export", "export", "generate"]),
        ("run/report.html", ["report", "generate"]),
        ("run/evaluation.json", ["evaluate", "report", "generate"]),  # which names the folder of the copy
    ],
)
def test_what_was_lost_is_made_again(project: Path, novel: Path, lost: str, again: list[str]) -> None:
    (project / lost).unlink()
    commands = Commands()
    assert make([novel], project, command=commands) == 0
    assert commands.verbs == again
    assert (project / lost).is_file()


@pytest.mark.parametrize("lost", ["train_000000.bin", "tokenizer.json"])
def test_prepared_text_of_which_a_part_was_lost_is_prepared_again(project: Path, novel: Path, lost: str) -> None:
    (project / "data" / lost).unlink()
    commands = Commands()
    assert make([novel], project, command=commands) == 0
    assert commands.verbs == ["prepare", "generate"]
    assert (project / "data" / lost).is_file()


def test_more_text_makes_all_anew_and_keeps_the_run_that_was(
    project: Path, finished: tuple[Path, Commands, str], novel: Path, tmp_path: Path
) -> None:
    other = tmp_path / "text"
    other.mkdir()
    (other / "novel.txt").write_bytes(novel.read_bytes())
    (other / "second.txt").write_text(small_project.text(2500, seed=99))
    commands = Commands()
    assert make([other], project, command=commands) == 0
    assert commands.verbs == ALL
    weights = (project / "run-1/best/model.safetensors").read_bytes()
    assert weights == (finished[0] / "run/best/model.safetensors").read_bytes()
    tokens = [json.loads((place / "data/manifest.json").read_text()) for place in (finished[0], project)]
    n_tokens = [sum(shard["tokens"] for shard in each["splits"]["train"]) for each in tokens]
    assert n_tokens[1] > 1.8 * n_tokens[0]


def test_text_may_be_named_by_another_path(project: Path, novel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(novel.parent)
    commands = Commands()
    assert make([novel.name], project, command=commands) == 0
    assert make([Path("..") / novel.parent.name], project, command=commands) == 0  # the folder that it alone lies in
    assert commands.verbs == ["generate", "generate"]


def test_a_folder_that_was_moved_is_as_it_was(project: Path, novel: Path) -> None:
    commands = Commands()
    assert make([novel], project, command=commands) == 0
    assert commands.verbs == ["generate"]


def test_a_folder_named_like_its_text_is_moved_as_others_are(
    novel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "book.txt").write_bytes(novel.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert make(["book.txt"], Path("book")) == 0
    Path("book").rename("other")
    commands = Commands()
    assert make(["book.txt"], Path("other"), command=commands) == 0
    assert commands.verbs == ["generate"]


def test_without_a_time_the_folders_own_is_taken(project: Path, novel: Path) -> None:
    commands = Commands()
    said: list[str] = []
    assert make([novel], project, seconds=None, command=commands, say=said.append) == 0
    assert (commands.verbs, said[0]) == (["generate"], "[1/6] plan: as it was")


def test_more_time_trains_anew(project: Path, novel: Path) -> None:
    commands = Commands()
    assert make([novel], project, seconds=70, command=commands) == 0
    assert commands.verbs == [verb for verb in ALL if verb != "prepare"]
    steps = [json.loads((project / run / "last/trainer.json").read_text())["step"] for run in ("run-1", "run")]
    assert steps[1] > steps[0]


def test_a_stage_that_fails_ends_it_and_the_same_command_goes_on(novel: Path, tmp_path: Path) -> None:
    said: list[str] = []
    assert make([novel], tmp_path / "p", command=Commands(failing="train", code=3), say=said.append) == 3
    assert said[-1] == "not finished; the same command goes on from here"
    commands = Commands(failing="evaluate", code=130)
    assert make([novel], tmp_path / "p", command=commands) == 130
    assert commands.verbs == ["train", "evaluate"]
    commands = Commands(failing="gguf", code=1)
    said.clear()
    assert make([novel], tmp_path / "p", command=commands, say=said.append) == 1
    assert "  see above why it could not be exported; the same command tries again" in said
    assert commands.verbs == ["evaluate", "export", "export", "report", "generate"]  # a model all the same
    commands = Commands()
    assert make([novel], tmp_path / "p", command=commands) == 0
    assert commands.verbs == ["export", "export", "generate"]


def test_ctrl_c_in_an_export_ends_it_there(novel: Path, tmp_path: Path) -> None:
    commands = Commands(failing="hf", code=130)
    assert make([novel], tmp_path / "p", command=commands) == 130
    assert commands.verbs == ["prepare", "train", "evaluate", "export"]


def test_a_run_that_was_stopped_goes_on(novel: Path, tmp_path: Path) -> None:
    class Stopped(Commands):
        def __call__(self, words: Sequence[str]) -> int:
            if words[0] == "train":
                words = [*words[: words.index("--max-steps") + 1], "9", *words[words.index("--max-steps") + 2 :]]
                return super().__call__(words) or 130
            return super().__call__(words)

    assert make([novel], tmp_path / "p", command=Stopped()) == 130
    (tmp_path / "p/run/config.yaml").write_text(
        "\n".join(
            line if not line.startswith("max_steps") else "max_steps: 40"
            for line in (tmp_path / "p/run/config.yaml").read_text().splitlines()
        )
    )
    commands = Commands()
    assert make([novel], tmp_path / "p", command=commands) == 0
    assert commands.verbs == ALL[1:]
    assert not list((tmp_path / "p").glob("run-*"))
    lines = (tmp_path / "p/run/sessions.jsonl").read_text().splitlines()
    assert [json.loads(line)["from_step"] for line in lines if "began" in line] == [0, 9]


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="names are UTF-8 there")
def test_a_file_may_have_a_name_that_is_no_utf_8(novel: Path, tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / os.fsdecode(b"caf\xe9.txt")).write_bytes(novel.read_bytes())
    assert make([tmp_path / "text"], tmp_path / "p") == 0
    commands = Commands()
    assert make([tmp_path / "text"], tmp_path / "p", command=commands) == 0
    assert commands.verbs == ["generate"]


def test_a_prepared_folder_is_taken_as_it_is(finished: tuple[Path, Commands, str], tmp_path: Path) -> None:
    commands = Commands()
    fixed = {"vocab_size": 290}
    assert make([finished[0] / "data"], tmp_path / "p", fixed=fixed, command=commands) == 0
    assert commands.verbs == ALL[1:]
    assert not (tmp_path / "p/data").exists()


def test_a_conversation_begins_with_what_a_user_said(tmp_path: Path) -> None:
    chats = tmp_path / "chats.jsonl"
    with chats.open("w") as file:
        for i in range(2500):
            said = [("user", small_project.words(9, seed=i)), ("assistant", small_project.words(9, seed=i + 1))]
            file.write(json.dumps({"messages": [{"role": role, "content": text} for role, text in said]}) + "\n")
    commands = Commands()
    assert make([chats], tmp_path / "p", command=commands) == 0
    assert commands.verbs == ALL
    words = commands.words[-1]
    asked = words[words.index("--chat") + 1].removeprefix("--prompt=")
    assert asked in chats.read_text()
    assert len(asked.split()) == 9


def test_a_separator_may_begin_like_a_flag(tmp_path: Path) -> None:
    notes, commands = tmp_path / "notes.txt", Commands(failing="prepare")
    notes.write_text("\n---\n".join(small_project.text(5, seed=i) for i in range(500)))
    assert make([notes], tmp_path / "p", reading=Reading(separator="---"), command=commands) == 1
    assert "--separator=---" in commands.words[0]


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("of the end.\nIt was the best of times", "It was the best of times"),
        ("of the end.\n\n--not-a-flag but some words\nand more", "--not-a-flag but some words"),
        ("a " * 29 + "longer words", ("a " * 29).strip()),
        ("one", "one"),
        ("short\nlines\nonly", "short"),
        ("它是最好的时代它是最坏的时代", "它是最好的时代它是最坏的时代"),
        ("\n\n", None),
    ],
)  # fmt: skip
def test_a_prompt_is_words_of_the_text_that_was_held_out(text: str, prompt: str | None, tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(["a"], pattern="byte", special_tokens=["<|endoftext|>", *CHAT_TOKENS])
    tokenizer.write_shards([text], tmp_path / "data", val_fraction=0.0)
    assert prompt_flags(tmp_path / "data") == []
    manifest = json.loads((tmp_path / "data/manifest.json").read_text())
    manifest["splits"] = {"train": [], "val": manifest["splits"]["train"]}  # as if all of it had been held out
    (tmp_path / "data/manifest.json").write_text(json.dumps(manifest))
    assert prompt_flags(tmp_path / "data") == ([] if prompt is None else [f"--prompt={prompt}"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": 59}, "time must be at least 60 seconds"),
        ({"fixed": {"max_steps": 5}}, "max_steps follows from the time here"),
        ({"fixed": {"block_size": 0}}, "block_size must be"),
    ],
)
def test_what_cannot_be_made_is_refused(novel: Path, tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make([novel], tmp_path / "p", **options)  # type: ignore[arg-type]


def test_a_folder_of_something_else_is_left_alone(novel: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/letter.txt").write_text("dear")
    with pytest.raises(FileExistsError, match=r"has no project\.json; name a folder that is new or empty"):
        make([novel], tmp_path / "other")
    with pytest.raises(FileExistsError, match="is a file"):
        make([novel], novel)
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn/project.json").write_text('{"format": "tinygpt-project", "vers')
    with pytest.raises(ValueError, match=r"project\.json: damaged .* name another folder"):
        make([novel], tmp_path / "torn")
    with pytest.raises(ValueError, match="so its files would be read as text; name another --out"):
        make([tmp_path], tmp_path / "new-model")
    (tmp_path / "torn/project.json").write_text("{}")
    with pytest.raises(ValueError, match="torn is what `tinygpt make` made, and no text"):
        make([tmp_path / "torn"], tmp_path / "torn-model")
    with lock_folder(tmp_path / "held"), pytest.raises(BlockingIOError, match="is in use by process"):
        make([novel], tmp_path / "held")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "PATHS is missing"),
        ("nowhere.txt", "nowhere.txt: no such file"),
        ("TEXT --time 5", "--time must be a number with s, m, h or d, such as 10m or 8h, got '5'"),
        ("TEXT --time 1e30d", "--time must be a number"),
        ("TEXT --time 99999999d", "--time must be at most 10 years"),
        ("TEXT --time 5s", "time must be at least 60 seconds"),
        ("TEXT --max-steps 7", "max_steps follows from the time here"),
        ("TEXT --epochs 7", "epochs follows from the time here"),
        ("- --time 5m", "standard input can be read once"),
    ],
)
def test_mistakes_end_in_one_line(
    line: str, message: str, novel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = line.replace("TEXT", str(novel)).split()
    assert verb.main([*words, "--out", str(tmp_path / "p")]) == 2
    said = capsys.readouterr().err
    assert not (tmp_path / "p").exists()
    assert said.startswith(f"tinygpt make: error: {message}" if not message.startswith("nowhere") else "tinygpt make")
    assert message in said
    assert said.count("\n") == 1


def test_the_verb_passes_its_flags_on(novel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tinygpt import project

    monkeypatch.setattr(project, "Machine", lambda **_: small_project.slow_machine)
    shape = [
        word for name, value in small_project.SHAPE.items() for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    words = [str(novel), "--time", "1m", "--out", str(tmp_path / "p"), "--ram", "2G", "--clean", "lowercase", *shape]
    assert verb.main(words) == 0
    config = (tmp_path / "p/run/config.yaml").read_text()
    assert "ram: 2G" in config
    assert "d_model: 32" in config
    manifest = json.loads((tmp_path / "p/data/manifest.json").read_text())
    assert manifest["corpus"]["clean"] == ["lowercase"]


def test_a_folder_is_named_after_its_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("books-model").mkdir()
    Path("books-model/letter.txt").write_text("dear")
    assert verb.main(["books-*.txt"]) == 2
    assert "error: books-model exists and has no project.json" in capsys.readouterr().err


def start(novel: Path, folder: Path) -> "subprocess.Popen[bytes]":
    script = Path(__file__).parent / "small_project.py"
    return subprocess.Popen([sys.executable, str(script), str(novel), str(folder)], stdout=subprocess.DEVNULL)


@pytest.mark.slow
def test_a_project_that_is_killed_at_any_instant_ends_as_if_it_had_not_been(novel: Path, tmp_path: Path) -> None:
    first = start(novel, tmp_path / "killed")
    while not (tmp_path / "killed/project.json").exists():  # the plan goes with the time that measuring takes
        time.sleep(0.02)
    first.kill()
    first.wait()
    subprocess.run(["cp", "-a", str(tmp_path / "killed"), str(tmp_path / "alone")], check=True)
    began = time.monotonic()
    assert start(novel, tmp_path / "alone").wait() == 0
    took = time.monotonic() - began
    rng, kills = random.Random(4), 0
    for _ in range(12):
        child = start(novel, tmp_path / "killed")
        try:
            child.wait(rng.uniform(0.1, 0.9) * took)
        except subprocess.TimeoutExpired:
            child.kill()
            kills += 1
        child.wait()
    assert start(novel, tmp_path / "killed").wait() == 0
    assert kills >= 3
    for name in ("run/last/model.safetensors", "run/evaluation.json", "export/gguf/model-f16.gguf"):
        one, other = (
            (tmp_path / each / name).read_bytes().replace(b"/killed/", b"/alone/") for each in ("alone", "killed")
        )
        assert one == other, name
    assert not list((tmp_path / "killed").glob("run-*"))
    assert not list((tmp_path / "killed").rglob(".tmp-*"))
