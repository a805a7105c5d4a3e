"""Tokenizers of other kinds: the ids are those of the library, the doors are ours."""

import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import tokenizers
from hypothesis import given, settings
from samples import assigned_texts
from tinygpt import GPT, Checkpoint, Corpus, FormatError, GPTConfig, Manifest, Tokenizer, encode, show
from tinygpt.chattemplate import CHAT_TOKENS
from tinygpt.dataset import TokenDataset
from tinygpt.foreigntokenizer import LoadedTokenizer, continues, load_tokenizer
from tinygpt.librarytokenizers import HuggingFaceTokenizer, SentencePieceTokenizer
from tinygpt.lineage import tokenizer_beside
from tinygpt.preparation import Preparation
from tinygpt.tracing import origin_of, text_of
from tinygpt.trainingdata import parse_sources, prepare_sources

TEXTS = [f"It's the tale of a tailor, number {i}; — 終わり。\n" for i in range(60)]


@pytest.fixture(scope="module", params=["unigram", "bpe", "wordpiece", "normalized"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer that is not ours."""
    place = tmp_path_factory.mktemp(request.param)
    if request.param in ("unigram", "bpe"):
        options: dict[str, Any] = {
            "vocab_size": 400,
            "hard_vocab_limit": False,
            "byte_fallback": True,
            "minloglevel": 9,
        }
        with (place / "tokenizer.model").open("wb") as file:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(TEXTS), model_writer=file, model_type=request.param, **options
            )
        return place
    if request.param == "wordpiece":
        special = ["[UNK]", "[SEP]"]
        theirs = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
        theirs.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        theirs.decoder = tokenizers.decoders.WordPiece()
        trainer = tokenizers.trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
        theirs.train_from_iterator(TEXTS, trainer)
    else:
        theirs = Tokenizer.train(TEXTS, vocab_size=300).to_tokenizers()
        theirs.normalizer = tokenizers.normalizers.NFC()
    theirs.save(str(place / "tokenizer.json"))
    return place


def library_ids(folder: Path, text: str) -> list[int]:
    if (folder / "tokenizer.model").is_file():
        ids: list[int] = sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model")).encode(text)
        return ids
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text, add_special_tokens=False).ids


def test_ids_are_those_of_the_library(folder: Path) -> None:
    ours = load_tokenizer(folder)
    assert isinstance(ours, SentencePieceTokenizer | HuggingFaceTokenizer)

    @given(assigned_texts.filter(lambda text: "<|endoftext|>" not in text))
    @settings(max_examples=60, deadline=None)
    def check(text: str) -> None:
        assert ours.encode(text) == library_ids(folder, text)

    check()


def test_a_stream_is_the_text(folder: Path) -> None:
    ours = load_tokenizer(folder)
    ids = ours.encode(" ".join(TEXTS))
    assert "".join(ours.decode_stream(iter(ids))) == ours.decode(ids)


def test_shards_hold_the_ids_and_find_their_tokenizer(folder: Path, tmp_path: Path) -> None:
    ours = load_tokenizer(folder)
    (tmp_path / "text").mkdir()
    for i, text in enumerate(TEXTS):
        (tmp_path / f"text/{i:02}.txt").write_text(text, encoding="utf-8")
    manifest = ours.write_shards(tmp_path / "text", tmp_path / "data", val_fraction=0.0)
    tokens = np.fromfile(tmp_path / "data/train_000000.bin", "<u2", offset=1024)
    expected = [i for text in TEXTS for i in [*ours.encode(text), ours.eot_id]]
    assert (tokens.tolist(), manifest.vocab_size) == (expected, ours.vocab_size)
    beside = tokenizer_beside(TokenDataset(tmp_path / "data", "train", block_size=8))
    assert beside is not None
    assert beside.fingerprint == ours.fingerprint == Manifest.load(tmp_path / "data").fingerprint
    assert Corpus(tmp_path / "text").unchanged_since(manifest.corpus)


def test_every_document_of_it_is_traced_to_its_file(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    for i in range(3):
        (tmp_path / f"text/{i}.txt").write_text("".join([*TEXTS[i * 20 : (i + 1) * 20], f"{i}\n"]), encoding="utf-8")
    corpus = Corpus(tmp_path / "text", documents="line", min_chars=10)
    manifest = load_tokenizer(folder).write_shards(corpus, tmp_path / "data", val_fraction=0.0)
    data = TokenDataset(tmp_path / "data", "train", block_size=2)
    ids = data.tokens_at(0, data.n_tokens)
    starts = [0, *(np.flatnonzero(ids == manifest.eot_id)[:-1] + 1).tolist()]
    found = [origin_of(tmp_path / "data", "train", start) for start in starts]
    assert [text_of(origin) + "\n" for origin in found] == TEXTS
    assert [Path(origin.path or "").name for origin in found] == [f"{i // 20}.txt" for i in range(60)]
    assert [source["documents"] for source in (manifest.corpus or {})["sources"]] == [20, 20, 20]


def test_the_commands_show_encode_and_decode_with_it(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ours, text = load_tokenizer(folder), TEXTS[0].strip()
    ours.write_shards(Corpus.from_iterable(TEXTS), tmp_path / "data")
    assert show.main([str(tmp_path / "data"), "--verify", "--on", text]) == 0
    shown = capfd.readouterr().out
    assert f"{ours.vocab_size} ids, read by " in shown
    assert f"tokens          {len(ours.encode(text))}, each " in shown
    assert encode.main(["--tokenizer", str(tmp_path / "data"), text]) == 0
    ids = capfd.readouterr().out
    assert list(map(int, ids.split())) == ours.encode(text)
    assert encode.main(["--tokenizer", str(tmp_path / "data"), "--decode", ids]) == 0
    assert capfd.readouterr().out == ours.decode(ours.encode(text))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", "--format", "tokens"], "its ids do not say which bytes they stand for; take another --format"),
        (["--decode", "1 999999"], "TEXT: id 999999 at place 1 is not in the vocabulary"),
    ],
)
def test_what_a_command_cannot_do_with_it_is_said(
    folder: Path, words: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert encode.main(["--tokenizer", str(folder), *words]) == 2
    assert message in capfd.readouterr().err


def test_text_takes_the_tokenizer_of_a_prepared_source(folder: Path, tmp_path: Path) -> None:
    ours, data = load_tokenizer(folder), tmp_path / "data"
    ours.write_shards(Corpus.from_iterable(TEXTS), data)
    (tmp_path / "more.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    sources = parse_sources([str(data), str(tmp_path / "more.txt")], "--data")
    options: dict[str, Any] = {"vocab_size": 300, "bar": lambda stage: nullcontext(), "say": lambda line: None}
    _, more = prepare_sources(sources, tmp_path / "run", Preparation(), **options)
    assert Manifest.load(more).fingerprint == ours.fingerprint
    assert TokenDataset(data / "train_000000.bin", block_size=8).folder == data


def test_a_checkpoint_writes_text_with_it(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ours: LoadedTokenizer = load_tokenizer(folder)
    model = GPT(GPTConfig(vocab_size=ours.vocab_size, block_size=16, n_layer=1, n_head=2, d_model=16))
    Checkpoint(model, ours).save(tmp_path / "model")
    loaded = Checkpoint.load(tmp_path / "model")
    assert loaded.tokenizer is not None
    assert loaded.tokenizer.fingerprint == ours.fingerprint
    assert isinstance(loaded.generate("the tale", max_new_tokens=9, seed=1), str)
    assert show.main([str(tmp_path / "model")]) == 0
    assert f"tokenizer       {ours.vocab_size} ids, fingerprint {ours.fingerprint[:16]}: " in capfd.readouterr().out


def test_a_stream_of_ids_takes_no_longer_where_the_vocabulary_is_large(tmp_path: Path) -> None:
    vocab = {f"word{i}": i for i in range(50_000)}
    tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, "word0")).save(str(tmp_path / "tokenizer.json"))
    ours, begin = load_tokenizer(tmp_path), time.process_time()
    assert "".join(ours.decode_stream(range(500))).split() == list(vocab)[:500]
    assert time.process_time() - begin < 1.5


def test_special_tokens_are_text_unless_allowed(tmp_path: Path) -> None:
    theirs = Tokenizer.train(TEXTS, vocab_size=300).to_tokenizers()
    theirs.normalizer = tokenizers.normalizers.NFC()
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = load_tokenizer(tmp_path)
    assert ours.encode("<|endoftext|>", allowed_special="all") == [ours.eot_id]
    assert ours.eot_id not in ours.encode("<|endoftext|>")
    assert ours.decode(ours.encode("<|endoftext|>")) == "<|endoftext|>"


def test_roles_come_from_the_config_beside(tmp_path: Path) -> None:
    theirs = Tokenizer.train(TEXTS, vocab_size=300, special_tokens=["<|im_end|>", "<x>"]).to_tokenizers()
    theirs.normalizer = tokenizers.normalizers.NFC()
    theirs.save(str(tmp_path / "tokenizer.json"))
    config = {"eos_token": {"content": "<|im_end|>"}, "pad_token": "<x>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    ours = load_tokenizer(tmp_path)
    assert (ours.eot_id, ours.pad_id, ours.bos_id) == (298, 299, None)


@pytest.mark.parametrize("special", [["<|endoftext|>", *CHAT_TOKENS], ["<|endoftext|>", "<|user|>"]], ids=len)
def test_a_librarys_tokenizer_must_know_chats_by_itself(tmp_path: Path, special: list[str]) -> None:
    theirs = Tokenizer.train(TEXTS, vocab_size=300, special_tokens=special).to_tokenizers()
    theirs.normalizer = tokenizers.normalizers.NFC()
    theirs.save(str(tmp_path / "tokenizer.json"))
    how = Preparation(tokenizer=tmp_path, add_chat_tokens=True)
    if len(special) == 5:
        named = how.named_tokenizer()
        assert named is not None
        assert named.fingerprint == load_tokenizer(tmp_path).fingerprint
        return
    with pytest.raises(ValueError, match="special tokens can be added to byte-level BPE only"):
        how.named_tokenizer()


def test_a_tokenizer_continues_what_it_grew_from_and_nothing_else() -> None:
    plain = Tokenizer.from_merges([(b"a", b"b")], special_tokens=["<|endoftext|>", "<|user|>"])
    grown, other = plain.with_special_tokens(CHAT_TOKENS), Tokenizer.from_merges([(b"a", b"c")])
    found = [continues(*pair) for pair in ((grown, plain), (plain, grown), (plain, plain), (grown, other))]
    assert found == [True, False, False, False]
    assert not continues(other.with_special_tokens(["<|endoftext|>", *CHAT_TOKENS]), plain)


def test_what_is_byte_level_is_ours(tmp_path: Path) -> None:
    ours = Tokenizer.train(TEXTS, vocab_size=300)
    ours.save(tmp_path / "folder")
    ours.save(tmp_path / "tokenizer.model", format="tiktoken")
    assert load_tokenizer(tmp_path / "folder") == ours
    assert load_tokenizer(tmp_path / "tokenizer.model").vocab_size == 299


@pytest.mark.parametrize(("library", "extra"), [("sentencepiece", "sentencepiece"), ("tokenizers", "tokenizers")])
def test_a_missing_library_is_named(library: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    file = tmp_path / ("tokenizer.json" if library == "tokenizers" else "a.model")
    file.write_text('{"model": {"type": "WordPiece"}}')
    with pytest.raises(ImportError, match=rf"pip install 'tinygpt\[{extra}\]'"):
        load_tokenizer(file)


@pytest.mark.parametrize("name", ["a.model", "a.json"])
def test_a_damaged_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("no tokenizer at all")
    with pytest.raises(FormatError, match=name):
        load_tokenizer(tmp_path / name)


def test_mistakes_are_named(folder: Path) -> None:
    ours = load_tokenizer(folder)
    with pytest.raises(ValueError, match=f"id {ours.vocab_size} at place 1 is not in the vocabulary"):
        ours.decode([0, ours.vocab_size])
    with pytest.raises(TypeError, match="text must be a str, got bytes"):
        ours.encode(b"a")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"texts\[0\] holds a lone surrogate at character 1"):
        ours.encode("a\ud800")
    with pytest.raises(ValueError, match="allowed_special"):
        ours.encode("a", allowed_special=["<nothing>"])
