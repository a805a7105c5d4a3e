"""The tokenizer in the large: against the reference and the peers, under threads, forks and Ctrl-C."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
import reference_bpe
import tokenizers
from samples import HARD, sample
from tinygpt import Corpus, Tokenizer


@pytest.mark.slow
def test_ten_thousand_small_corpora_give_the_merges_of_the_reference() -> None:
    chance = random.Random(0)
    for _ in range(10_000):
        units = chance.choices(HARD, k=chance.randint(1, 6))
        texts = ["".join(chance.choices(units, k=chance.randint(0, 30))) for _ in range(chance.randint(1, 4))]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tokenizer = Tokenizer.train(Corpus.from_iterable([*texts, "a"]), vocab_size=276, special_tokens=())
        assert tokenizer._bpe.merges() == reference_bpe.train([*texts, "a"], 20), texts


def assert_each_merge_was_a_most_frequent_pair(merges: list[tuple[bytes, bytes]], text: str) -> None:
    """Whatever the rule of ties: plays the merges on the pieces of the text, with counts of pairs kept up to date."""
    words = [([bytes([byte]) for byte in piece], n) for piece, n in Counter(reference_bpe.pieces(text)).items()]
    counts: Counter[tuple[bytes, bytes]] = Counter()
    where: defaultdict[tuple[bytes, bytes], set[int]] = defaultdict(set)

    def count(i: int, sign: int) -> None:
        for pair in pairwise(words[i][0]):
            counts[pair] += sign * words[i][1]
            where[pair].add(i)

    for i in range(len(words)):
        count(i, 1)
    for step, pair in enumerate(merges):
        assert counts[pair] == max(counts.values()), f"merge {step}, {pair}"
        for i in where.pop(pair):
            count(i, -1)
            old, new = words[i][0], []
            while old:
                n = 2 if tuple(old[:2]) == pair else 1
                new.append(b"".join(old[:n]))
                old = old[n:]
            words[i] = (new, words[i][1])
            count(i, 1)


def test_merges_of_real_text_are_most_frequent_pairs_as_those_of_tokenizers_are(tmp_path: Path) -> None:
    text = sample("tinyshakespeare.txt").read_text(encoding="utf-8")
    ours = Tokenizer.train(Corpus.from_iterable([text]), vocab_size=1256, special_tokens=())
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=1256, initial_alphabet=alphabet, show_progress=False)
    theirs.train_from_iterator([text], trainer)
    theirs.decoder = tokenizers.decoders.ByteLevel()
    theirs.save(str(tmp_path / "theirs.json"))
    assert_each_merge_was_a_most_frequent_pair(ours.merges, text)
    assert_each_merge_was_a_most_frequent_pair(Tokenizer.load(tmp_path / "theirs.json").merges, text)


def test_64_threads_encode_at_once() -> None:
    text = "the cat sat on the mat and saw what the other cat had brought home " * 20
    tokenizer = Tokenizer.train(Corpus.from_iterable([text]), vocab_size=280)
    with ThreadPoolExecutor(64) as threads:
        found = list(threads.map(tokenizer.encode, [text[i % 99 :] for i in range(2000)]))
    assert found == [tokenizer.encode(text[i % 99 :]) for i in range(2000)]


@pytest.mark.parametrize("n_forks", [20, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forks_encode_while_threads_do(n_forks: int) -> None:
    text = "the cat sat on the mat and saw what the other cat had brought home " * 20
    tokenizer = Tokenizer.train(Corpus.from_iterable([text]), vocab_size=280)
    expected, wrong, done = tokenizer.encode(text), [], threading.Event()

    def work() -> None:
        while not done.is_set():
            if tokenizer.encode(text) != expected:
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    codes = Counter[int]()
    for _ in range(n_forks):
        child = os.fork()
        if child == 0:
            signal.alarm(30)  # a child that waits for a lock for ever must not hang the test
            os._exit(int(tokenizer.encode(text) != expected or tokenizer.encode_batch([text]) != [expected]))
        codes[os.waitpid(child, 0)[1]] += 1
    done.set()
    for thread in threads:
        thread.join()
    assert (codes, wrong) == ({0: n_forks}, [])


STOPPED = """
import random, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is born deaf to Ctrl-C
from tinygpt import Corpus, Tokenizer
text = "".join(random.choices("abcdefghijklmnopqrstuvwxyz", k=1 << 20))
tokenizer = Tokenizer.train(Corpus.from_iterable([text]), vocab_size=2000)
texts = [text * 100] * 2  # pieces that no cache remembers: several seconds of work
print("ready", flush=True)
CALL
"""


@pytest.mark.parametrize(
    "call",
    [
        "tokenizer.encode(texts[0])",
        "tokenizer.encode_to_numpy(texts[0])",
        "tokenizer.encode_batch_to_numpy(texts, threads=2)",
        "Tokenizer.train(Corpus.from_iterable(texts), vocab_size=2000)",
        "tokenizer.write_shards(Corpus.from_iterable(texts), sys.argv[1])",
    ],
)
def test_ctrl_c_is_answered_within_a_second_and_leaves_nothing(call: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", STOPPED.replace("CALL", call), str(tmp_path / "shards")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.3)
        child.send_signal(signal.SIGINT)
        sent = time.monotonic()
        errors = child.communicate(timeout=30)[1]
        seconds = time.monotonic() - sent
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert seconds < 1.5  # a second, and the interpreter's end
    assert list(tmp_path.iterdir()) == []
