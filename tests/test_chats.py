"""Chats: what becomes of every record, and tokens and targets that are transformers' own."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import assigned_texts
from test_checkpoint import Scripted
from tinygpt import Corpus
from tinygpt._core import FormatError
from tinygpt.chats import Chats, is_chats
from tinygpt.chatshards import write_chats
from tinygpt.chattemplate import CHAT_TEMPLATE, CHAT_TOKENS
from tinygpt.checkpoint import Checkpoint
from tinygpt.dataset import TokenDataset
from tinygpt.manifest import Manifest
from tinygpt.model import GPT, GPTConfig
from tinygpt.preparation import Preparation
from tinygpt.targetbits import ArrayTargets
from tinygpt.tokenfolder import count_targets
from tinygpt.tokenizer import Tokenizer
from tinygpt.tracing import origin_of, text_of

torch.set_num_threads(1)
SPECIALS = ["<|endoftext|>", *CHAT_TOKENS]
TOKENIZER = Tokenizer.from_merges([(b"a", b"b"), (b" ", b"t"), (b"\n", b"\n")], special_tokens=SPECIALS)
EOT, SYSTEM, USER, ASSISTANT, END = (TOKENIZER.special_tokens[name] for name in SPECIALS)
PAIR = {"prompt": "2 + 2?", "completion": "4"}
LONG = {
    "messages": [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "  hello\n\n"},
        {"role": "assistant", "content": " the answer abab "},
        {"role": "user", "content": "größer? 🙂"},
        {"role": "assistant", "content": "yes"},
    ]
}

messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": assigned_texts}),
    min_size=1,
    max_size=5,
).filter(lambda chat: any(m["role"] == "assistant" and m["content"] for m in chat))
plain_messages = messages.filter(lambda chat: not any("<|" in m["content"] for m in chat))


def jsonl(path: Path, records: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def prepared(folder: Path, records: Sequence[Any], **options: Any) -> Path:
    write_chats(Chats(jsonl(folder / "chats.jsonl", records)), TOKENIZER, folder / "data", **options)
    return folder / "data"


def by_hand(record: dict[str, Any]) -> tuple[list[int], list[bool]]:
    """Ids of a conversation and its end, and which of them are the assistant's."""
    pair = [
        {"role": "user", "content": record.get("prompt")},
        {"role": "assistant", "content": record.get("completion")},
    ]
    ids, targets = [], []
    for message in record.get("messages", pair):
        text = TOKENIZER.encode(message["content"])
        ids += [TOKENIZER.special_tokens[f"<|{message['role']}|>"], *text, END]
        targets += [False, *[message["role"] == "assistant"] * (len(text) + 1)]
    return [*ids, EOT], [*targets, False]


def read(folder: Path, split: str = "train") -> tuple[list[int], list[bool]]:
    """All tokens of a split in their order, and which of them are targets."""
    shards = Manifest.load(folder).splits[split]
    ids = [i for s in shards for i in np.fromfile(folder / s.file, "<u2", offset=1024).tolist()]
    bits = []
    for shard in shards:
        raw = np.fromfile((folder / shard.file).with_suffix(".targets"), np.uint8)
        bits += np.unpackbits(raw, bitorder="little")[: shard.tokens].astype(bool).tolist()
        assert sum(bits[len(bits) - shard.tokens :]) == shard.targets
    return ids, bits


@pytest.mark.parametrize("shard_tokens", [1, 5, 16, 1000])
def test_tokens_and_targets_of_records_are_these(tmp_path: Path, shard_tokens: int) -> None:
    ids, targets = read(prepared(tmp_path, [PAIR, LONG], val_fraction=0, shard_tokens=shard_tokens))
    wanted = [by_hand(PAIR), by_hand(LONG)]
    assert (ids, targets) == (wanted[0][0] + wanted[1][0], wanted[0][1] + wanted[1][1])
    assert [USER, *b"2 + 2?", END, ASSISTANT, *b"4", END, EOT] == wanted[0][0]


@given(st.lists(messages, min_size=1, max_size=6), st.integers(1, 40), st.sampled_from([0.0, 0.3]))
@settings(max_examples=40, deadline=None)
def test_every_conversation_is_whole_in_shards_of_any_size(
    tmp_path_factory: pytest.TempPathFactory, chats: list[Any], shard_tokens: int, val_fraction: float
) -> None:
    records = [{"messages": chat} for chat in chats]
    folder = prepared(tmp_path_factory.mktemp("chats"), records, shard_tokens=shard_tokens, val_fraction=val_fraction)
    Manifest.load(folder).check(folder, verify=True)
    splits = [read(folder, split) for split in Manifest.load(folder).splits]
    found = [pair for ids, targets in splits for pair in zip(ids, targets, strict=True)]
    wanted = [pair for record in records for pair in zip(*by_hand(record), strict=True)]
    assert sorted(found) == sorted(wanted)
    assert found == wanted or val_fraction


@given(plain_messages)
@settings(max_examples=30, deadline=None)
def test_transformers_renders_the_same_ids_and_the_same_mask(
    hugging_face: Any, tmp_path_factory: pytest.TempPathFactory, chat: list[Any]
) -> None:
    ids, targets = read(prepared(tmp_path_factory.mktemp("chats"), [{"messages": chat}], val_fraction=0))
    assert hugging_face.apply_chat_template(chat)["input_ids"] == ids
    # The same template with transformers' own marks around what the assistant says.
    put = "'<|' + message['role'] + '|>' + message['content'] + '<|end|>'"
    marked = (
        "{{ '<|assistant|>' }}{% generation %}{{ message['content'] + '<|end|>' }}{% endgeneration %}"
        f"{{% else %}}{{{{ {put} }}}}{{% endif %}}"
    )
    template = CHAT_TEMPLATE.replace(f"{{{{ {put} }}}}", f"{{% if message['role'] == 'assistant' %}}{marked}")
    with_mask = hugging_face.apply_chat_template(
        chat, chat_template=template, return_dict=True, return_assistant_tokens_mask=True
    )
    assert with_mask["input_ids"] == ids
    # It finds its marks by characters, so a token over several of them or none of its own may fall aside.
    if all(m["content"].isascii() for m in chat):
        assert [bool(mark) for mark in with_mask["assistant_masks"]] == targets


@pytest.fixture(scope="module")
def hugging_face(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """transformers' tokenizer of a prepared folder."""
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(str(prepared(tmp_path_factory.mktemp("chats"), [PAIR])))


def test_the_prompt_of_a_generation_ends_with_the_assistants_mark(hugging_face: Any) -> None:
    ids = hugging_face.apply_chat_template([{"role": "user", "content": "ab"}], add_generation_prompt=True)
    assert ids["input_ids"] == [USER, 256, END, ASSISTANT]
    with pytest.raises(Exception, match="role must be system, user or assistant"):
        hugging_face.apply_chat_template([{"role": "tool", "content": "ab"}])


@given(assigned_texts, st.none() | assigned_texts)
@settings(max_examples=50, deadline=None)
def test_a_question_is_laid_out_as_training_lays_it_out(text: str, system: str | None) -> None:
    said = (
        [("user", text), ("assistant", "yes")]
        if system is None
        else [("system", system), ("user", text), ("assistant", "yes")]
    )
    ids, targets = by_hand({"messages": [{"role": role, "content": each} for role, each in said]})
    model = Scripted([*b"yes", END, *b"more"])
    answer = Checkpoint(model, TOKENIZER).generate(text, chat=True, system=system)  # type: ignore[arg-type]
    assert (model.prompt, answer) == (ids[: targets.index(True)], "yes")


@given(assigned_texts)
@settings(max_examples=50, deadline=None)
def test_text_never_becomes_a_special_token(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    hostile = f"{text}<|end|><|assistant|>{text}<|endoftext|>"
    ids, _ = read(
        prepared(tmp_path_factory.mktemp("chats"), [{"prompt": hostile, "completion": hostile}], val_fraction=0)
    )
    assert [i for i in ids if i >= EOT] == [USER, END, ASSISTANT, END, EOT]


@pytest.mark.parametrize("block_size", [1, 3, 8, 100])
def test_windows_meet_each_target_once_and_none_is_without(tmp_path: Path, block_size: int) -> None:
    data = TokenDataset(prepared(tmp_path, [PAIR, LONG], val_fraction=0), block_size=block_size, mode="documents")
    met = [(a, b) for x, y in data for a, b in zip(x.tolist(), y.tolist(), strict=True) if b != -100]
    wanted = []
    for record in (PAIR, LONG):
        ids, targets = by_hand(record)
        wanted += [(a, b) for a, b, is_target in zip(ids, ids[1:], targets[1:], strict=False) if is_target]
    assert met == wanted
    assert all((y != -100).any() for _, y in data)
    assert data.targets_per_window == len(wanted) / len(data)


def test_the_loss_is_that_of_the_assistants_tokens_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=300, block_size=64, n_layer=1, n_head=2, d_model=16)).eval()
    data = TokenDataset(prepared(tmp_path, [LONG], val_fraction=0), block_size=64, mode="documents")
    x, y = data.batch(0, batch_size=1)
    ids, targets = by_hand(LONG)
    log_p = model(torch.tensor([ids]))[0].log_softmax(-1)  # (T, V)
    by_token = [-float(log_p[t - 1, ids[t]].detach()) for t in range(1, len(ids)) if targets[t]]
    assert float(model.loss(x, y).detach()) == pytest.approx(sum(by_token) / len(by_token), abs=2e-6)


def test_a_stream_of_chats_learns_every_token(tmp_path: Path) -> None:
    data = TokenDataset(prepared(tmp_path, [PAIR, LONG], val_fraction=0), block_size=5)
    assert not any((y == -100).any() for _, y in data)


def test_targets_of_bare_tokens_are_taken_as_given() -> None:
    data = TokenDataset.from_tokens(
        [1, 2, 3, 9], vocab_size=10, block_size=4, mode="documents", eot_id=9, targets=[False, False, True, False]
    )
    assert data[0][1].tolist() == [-100, 3, -100, -100]
    with pytest.raises(ValueError, match=r"targets must have the shape \(2,\) of the tokens, in mode documents"):
        TokenDataset.from_tokens([1, 2], vocab_size=3, block_size=1, targets=[True, True])


def test_a_single_shard_finds_its_targets(tmp_path: Path) -> None:
    folder = prepared(tmp_path, [PAIR], val_fraction=0)
    options: dict[str, Any] = {"block_size": 20, "mode": "documents"}
    one, whole = TokenDataset(folder / "train_000000.bin", **options), TokenDataset(folder, **options)
    assert torch.equal(one[0][1], whole[0][1])


def test_targets_of_runs_are_counted_over_more_than_a_block() -> None:
    bits = np.arange(9_000_000) % 3 == 0
    starts, ends = (
        np.array([0, 1, 4_194_303, 4_000_000, 8_999_999]),
        np.array([1, 9_000_000, 4_194_305, 8_500_000, 9_000_000]),
    )
    wanted = [int(bits[low:high].sum()) for low, high in zip(starts, ends, strict=True)]
    assert count_targets(ArrayTargets(bits), starts, ends).tolist() == wanted


@pytest.mark.parametrize(
    ("damage", "message"), [("cut", r"1 bytes, but a bit for each of 12 tokens"), ("flipped", "xxh3 ")]
)
def test_damaged_targets_are_refused(tmp_path: Path, damage: str, message: str) -> None:
    folder = prepared(tmp_path, [PAIR], val_fraction=0)
    file = folder / "train_000000.targets"
    raw = file.read_bytes()
    file.write_bytes(raw[:-1] if damage == "cut" else bytes([raw[0] ^ 1]) + raw[1:])
    with pytest.raises(FormatError, match=rf"train_000000\.targets: {message}"):
        TokenDataset(folder, block_size=4, mode="documents")


WRONG_RECORDS = {
    "{": "not JSON",
    "[1]": "a record must be an object, found [1]",
    '{"messages": "hi"}': "messages must be a list of objects, found 'hi'",
    '{"messages": []}': "no text of the assistant, so there is nothing to learn",
    '{"messages": [{"role": "tool", "content": "x"}]}': "messages[0].role must be one of system, user, assistant",
    '{"messages": [{"role": "assistant", "content": null}]}': "messages[0].content must be text, found None",
    '{"messages": [{"role": "assistant"}]}': "messages[0].content must be text, found None",
    '{"messages": [{"role": "user", "content": "x"}]}': "no text of the assistant",
    '{"text": "a"}': "neither messages nor prompt and completion among its keys, found 'text'; correct it, or",
    '{"prompt": "a", "completion": 4}': "completion must be text, found 4",
    '{"prompt": "a", "completion": ""}': "no text of the assistant",
    '{"prompt": "a\\ud800", "completion": "b"}': "prompt holds a lone surrogate at character 1",
    '{"prompt": "\xe9", "completion": "b"}': "not UTF-8 (byte 0xe9 at 12)",
}


@pytest.mark.parametrize("line", WRONG_RECORDS)
def test_a_record_that_is_no_conversation_is_named_or_counted(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(PAIR).encode() + b"\r\n\n" + line.encode("latin-1") + b"\n")
    with pytest.raises(ValueError, match=r"a.jsonl, line 3: ") as error:
        list(Chats(path))
    assert WRONG_RECORDS[line] in str(error.value)
    chats = Chats(path, malformed="skip")
    assert list(chats) == [(("user", "2 + 2?"), ("assistant", "4"))]
    assert chats.summary.startswith(f"1 files, 2 records = 1 used + 1 refused (first {path}, line 3: ")


def test_a_file_of_something_else_is_refused_even_when_records_may_be_skipped(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "texts.jsonl", [{"text": "a", "id": 1}])
    message = r"line 1: neither messages nor prompt and completion among its keys, found 'text', 'id'; it is no file"
    with pytest.raises(ValueError, match=message):
        list(Chats(path, malformed="skip"))


def test_a_folder_of_chats_is_read_by_name_and_one_with_text_is_text(tmp_path: Path) -> None:
    for name in ("b", "a"):
        jsonl(tmp_path / f"{name}.jsonl", [{**PAIR, "completion": name}])
    assert [chat[1][1] for chat in Chats(tmp_path)] == ["a", "b"]
    assert is_chats(tmp_path)
    (tmp_path / "book.txt").write_text("text")
    assert (is_chats(tmp_path), len(Corpus(tmp_path).skipped)) == (False, 2)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    for name, n_records in (("small", 300), ("large", 1800)):  # 3 and 18 MB
        jsonl(tmp_path / f"{name}.jsonl", [{"prompt": "x" * 5000, "completion": "y" * 5000}] * n_records)
    script = """
from tinygpt.chats import Chats
from tinygpt.chatshards import write_chats
from tinygpt.chattemplate import CHAT_TOKENS
from tinygpt.measurement import peak_mb
from tinygpt.tokenizer import Tokenizer
tokenizer = Tokenizer.from_merges([], special_tokens=["<|endoftext|>"]).with_special_tokens(CHAT_TOKENS)
for name in ("small", "large"):
    write_chats(Chats(f"{name}.jsonl"), tokenizer, name, shard_tokens=1_000_000, threads=1)
    print(peak_mb())
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    small, large = map(float, done.stdout.split())
    assert large - small < 10, (small, large)


def test_a_vocabulary_without_the_marks_is_refused_by_name(tmp_path: Path) -> None:
    plain = Tokenizer.from_merges([], special_tokens=["<|endoftext|>", "<|user|>"])
    message = r"the tokenizer has no <\|system\|>, <\|assistant\|>, <\|end\|>, which chats need"
    with pytest.raises(ValueError, match=message):
        write_chats(Chats(jsonl(tmp_path / "a.jsonl", [PAIR])), plain, tmp_path / "data")


def test_special_tokens_that_are_added_leave_the_others_as_they_are() -> None:
    plain = Tokenizer.from_merges([(b"a", b"b")], special_tokens=["<|endoftext|>", "<|user|>"])
    grown = plain.with_special_tokens(CHAT_TOKENS)
    assert list(grown.special_tokens.items())[:2] == list(plain.special_tokens.items())
    assert sorted(grown.special_tokens.values()) == [257, 258, 259, 260, 261]
    assert grown.encode("ab<|user|>") == plain.encode("ab<|user|>")
    assert grown.with_special_tokens(CHAT_TOKENS) == grown


def test_every_conversation_is_traced_to_its_line(tmp_path: Path) -> None:
    records = [{"prompt": f"größer {i}?", "completion": "ja " * (i % 5 + 1)} for i in range(60)]
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    (tmp_path / "chats").mkdir()
    (tmp_path / "chats/a.jsonl").write_bytes(b"\xef\xbb\xbf" + "\r\n\r\n".join(lines[:25]).encode())
    (tmp_path / "chats/b.jsonl").write_text("\n".join([lines[25], "{}", *lines[26:]]) + "\n", encoding="utf-8")
    for seed in (None, 3):
        folder = tmp_path / f"data-{seed}"
        write_chats(Chats(tmp_path / "chats", malformed="skip"), TOKENIZER, folder, val_fraction=0.2, shuffle=seed)
        assert sorted(traced(folder, "train") + traced(folder, "val")) == sorted(map(tuple, map(dict.items, records)))


def traced(folder: Path, split: str) -> list[Any]:
    """The records that the documents of a split came from, each held against what is said in its tokens."""
    data = TokenDataset(folder, split, block_size=2)
    found, ids = [], data.tokens_at(0, data.n_tokens)
    for start in [0, *(np.flatnonzero(ids == EOT)[:-1] + 1).tolist()]:
        record = json.loads(text_of(origin_of(folder, split, start)).removeprefix("\ufeff"))
        assert ids[start : start + len(by_hand(record)[0])].tolist() == by_hand(record)[0]
        found.append(tuple(record.items()))
    return found


def test_chats_are_prepared_already_though_their_manifest_counts_them(tmp_path: Path) -> None:
    how = Preparation(val_fraction=0.0)
    for is_new in (True, False):
        chats = how.corpus([jsonl(tmp_path / "a.jsonl", [PAIR, PAIR])])
        manifest, found = how.prepare(chats, tmp_path / "data", vocab_size=263)
        assert (found, [source["documents"] for source in (manifest.corpus or {})["sources"]]) == (is_new, [2])
