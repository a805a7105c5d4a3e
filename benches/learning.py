"""Rows T1 to T5: training a vocabulary of 32,768."""

from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

from tinygpt import Tokenizer

from benches.corpora import Text
from benches.race import Run, Side, race
from benches.setting import PATTERN, THREADS, VOCAB_SIZE, Setting
from benches.table import Row

WORSE_BY, BETTER_BY = 0.005, 0.02
"""Shares by which ours may need more or fewer tokens for a text than a peer's vocabulary: ties decide between equals,
and tokenizers reads line by line, so that it never learns several line ends in a row, which costs it 1 %."""


def t1(setting: Setting) -> Iterator[Row]:
    """Against gigatoken."""
    for text in setting.texts:
        ours, peer = _learnt(setting, text, "gigatoken")
        yield Row(id="T1", task=f"train {text.name}", ours=ours, peer=peer, amount=text.mb, target=5)


def t2(setting: Setting) -> Iterator[Row]:
    """Against rustbpe."""
    for text in setting.texts:
        ours, peer = _learnt(setting, text, "rustbpe")
        target = 7 if text.name == "mixed" else 10
        yield Row(id="T2", task=f"train {text.name}", ours=ours, peer=peer, amount=text.mb, target=target)


def t3(setting: Setting) -> Iterator[Row]:
    """Against tokenizers."""
    for text in setting.texts:
        ours, peer = _learnt(setting, text, "tokenizers")
        target = 15 if text.name == "mixed" else 25
        yield Row(id="T3", task=f"train {text.name}", ours=ours, peer=peer, amount=text.mb, target=target)


def t4(setting: Setting) -> Iterator[Row]:
    """Memory of T1."""
    for text in setting.texts:
        ours, peer = _learnt(setting, text, "gigatoken")
        yield Row(
            id="T4",
            task=f"train {text.name}, peak",
            ours=ours,
            peer=peer,
            amount=text.mb,
            target=0.5,
            kind="times the memory",
        )


@cache
def _learnt(setting: Setting, text: Text, peer: str) -> tuple[Run, Run]:
    """Ours and a peer's, alternately; the vocabularies serve the text equally well."""
    files = {name: setting.folder / f"learnt-{text.name}-{name}.tiktoken" for name in ("tinygpt", peer)}
    sides = [_ours(text, files["tinygpt"]), PEERS[peer](setting, text, files[peer])]
    ours, theirs = race(f"train {text.name}", sides, rounds=setting.rounds, check=False)
    probe = text.probe.read_text(encoding="utf-8")
    needed = {name: len(Tokenizer.load(file, pattern="gpt2").encode_to_numpy(probe)) for name, file in files.items()}
    ratio = needed["tinygpt"] / needed[peer]
    assert 1 - BETTER_BY <= ratio <= 1 + WORSE_BY, f"train {text.name}: tokens that the vocabularies need: {needed}"
    return ours, theirs


def _ours(text: Text, out: Path) -> Side:
    return Side(
        name="tinygpt",
        code=f"""
from tinygpt import Tokenizer
from benches.answers import save_ranks
with clock() as took:
    tokenizer = Tokenizer.train({str(text.path)!r}, vocab_size={VOCAB_SIZE}, threads={THREADS})
answer = tokenizer.vocab_size
save_ranks({str(out)!r}, [tokenizer.token_bytes(i) for i in range({VOCAB_SIZE - 1})])
""",
    )


def _gigatoken(setting: Setting, text: Text, out: Path) -> Side:
    code = f"""
import gigatoken; from pathlib import Path
from benches.answers import save_ranks
path = Path({str(text.path)!r})
with clock() as took:
    tokens, merges = gigatoken.train_bpe(path, {VOCAB_SIZE}, ["<|endoftext|>"], separator=b"<|endoftext|>")
answer = len(tokens)
save_ranks({str(out)!r}, [bytes([i]) for i in range(256)] + [left + right for left, right in merges])
"""
    return setting.peer("gigatoken train_bpe", code)


def _rustbpe(setting: Setting, text: Text, out: Path) -> Side:
    code = f"""
import rustbpe
from benches.answers import save_ranks
tokenizer = rustbpe.Tokenizer()
with clock() as took, open({str(text.path)!r}, encoding="utf-8", newline="") as file:
    slices = iter(lambda: file.read(100_000), "")  # a fifth faster than line by line
    tokenizer.train_from_iterator(slices, vocab_size={VOCAB_SIZE - 1}, pattern={PATTERN!r})
answer = tokenizer.vocab_size + 1
save_ranks({str(out)!r}, [bytes(token) for token, _ in tokenizer.get_mergeable_ranks()])
"""
    return setting.peer("rustbpe train_from_iterator", code)


def _tokenizers(setting: Setting, text: Text, out: Path) -> Side:
    code = f"""
import json, tokenizers
from benches.answers import save_ranks
tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
trainer = tokenizers.trainers.BpeTrainer(
    vocab_size={VOCAB_SIZE}, special_tokens=["<|endoftext|>"], show_progress=False, initial_alphabet=alphabet
)
with clock() as took:
    tokenizer.train([{str(text.path)!r}], trainer)
answer = tokenizer.get_vocab_size()
plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
others = [i for i in range(256) if i not in plain]
letters = {{chr(i): i for i in plain}} | {{chr(256 + n): i for n, i in enumerate(others)}}
merges = json.loads(tokenizer.to_str())["model"]["merges"]
made = [bytes(letters[character] for character in "".join(pair)) for pair in merges]
save_ranks({str(out)!r}, [bytes([i]) for i in range(256)] + made)
"""
    return setting.peer("tokenizers train", code)


PEERS = {"gigatoken": _gigatoken, "rustbpe": _rustbpe, "tokenizers": _tokenizers}

HARD = {
    "one letter": "'a' * n",
    "spaces": "' ' * n",
    "random letters": "''.join(rng.choices('abcdefghijklmnopqrstuvwxyz', k=n))",
    "base64": "base64.b64encode(rng.randbytes(n * 3 // 4)).decode()",
    "one CJK run": "''.join(map(chr, rng.choices(range(0x4E00, 0x9000), k=n // 2)))",
}
"""Texts of n bytes, that of Chinese of 1.5 n."""
SIZES_MB = (1, 2, 4, 8, 16)
LEAST_SECONDS = 0.02
"""Shorter times count as this one: what they consist of is the start of threads."""


def t5(setting: Setting) -> Iterator[Row]:
    """Texts that make others quadratic: at most a second for a megabyte, and 2.6 times the time for twice the text."""
    for name, expression in HARD.items():
        runs = {}
        for size in SIZES_MB:
            code = f"""
import base64, random; from tinygpt import Corpus, Tokenizer
import warnings; warnings.simplefilter("ignore")
rng, n = random.Random(0), {size} * 1_000_000
corpus = Corpus.from_iterable([{expression}], threads={THREADS})
with clock() as took:
    tokenizer = Tokenizer.train(corpus, vocab_size=8192)
answer = tokenizer.fingerprint
"""
            runs[size] = race(f"train {name}", [Side(name="tinygpt", code=code)], rounds=setting.rounds)[0]
        first = runs[SIZES_MB[0]]
        yield Row(id="T5", task=f"train 1 MB, {name}", ours=first, amount=1, target=1, kind="seconds")
        times = [max(LEAST_SECONDS, min(runs[size].all_seconds)) for size in SIZES_MB]
        worst = max(after / before for before, after in pairwise(times))
        task, last = f"  to 16 MB, {name}: worst 2n/n", runs[SIZES_MB[-1]]
        yield Row(id="T5", task=task, ours=last, amount=SIZES_MB[-1], target=2.6, kind="times as long", value=worst)


ROWS = {"T1": t1, "T2": t2, "T3": t3, "T4": t4, "T5": t5}
