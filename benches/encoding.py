"""Rows E1 to E7: text to ids and back, with the vocabulary of GPT-2."""

from collections.abc import Iterator
from pathlib import Path

from benches.corpora import Text
from benches.race import race
from benches.setting import THREADS, Setting, reading
from benches.table import Row

DIGEST = "from benches.answers import digest, slices\n"


def e1(setting: Setting) -> Iterator[Row]:
    """One thread, a fresh tokenizer, against gigatoken."""
    yield from _against_gigatoken(setting, "E1", "", {"mixed": 1.2}, 1.4)


def e2(setting: Setting) -> Iterator[Row]:
    """The same text again."""
    yield from _against_gigatoken(setting, "E2", " again", {}, 0.9)


def _against_gigatoken(
    setting: Setting, id: str, again: str, targets: dict[str, float], target: float
) -> Iterator[Row]:
    for text in setting.texts:
        ours = f"{DIGEST}{reading(text.beginning)}" + ("tokenizer.encode_to_numpy(text)\n" if again else "")
        ours += "with clock() as took:\n    ids = tokenizer.encode_to_numpy(text)\nanswer = digest(ids)"
        theirs = f"{DIGEST}raw = open({str(text.beginning)!r}, 'rb').read()\n"
        theirs += "tokenizer.encode(raw)\n" if again else ""
        theirs += "with clock() as took:\n    ids = tokenizer.encode(raw)\nanswer = digest(ids)"
        # Of its doors (str, bytes, BytesSource, files) the fastest when cold; warm they are alike.
        sides = [setting.ours(ours), setting.gigatoken(theirs, door="encode(bytes)", threads=1)]
        runs = race(f"encode {text.name}{again}", sides, rounds=setting.rounds)
        task, goal = f"encode {text.name}{again}, 1 thread", targets.get(text.name, target)
        yield Row(id=id, task=task, ours=runs[0], peer=runs[1], amount=_mb(text.beginning), target=goal)


def e3(setting: Setting) -> Iterator[Row]:
    """One thread, a fresh tokenizer, against tiktoken."""
    for text in setting.texts:
        load = DIGEST + reading(text.beginning)
        ours = f"{load}with clock() as took:\n    ids = tokenizer.encode_to_numpy(text)\nanswer = digest(ids)"
        theirs = f"""{load}
with clock() as took:
    ids = tokenizer.encode_to_numpy(text, disallowed_special=())
answer = digest(ids)
"""
        sides = [setting.ours(ours), setting.tiktoken(theirs, door="encode_to_numpy", threads=1)]
        runs = race(f"encode {text.name}", sides, rounds=setting.rounds)
        task, goal = f"encode {text.name}, 1 thread", 6 if text.name == "mixed" else 10
        yield Row(id="E3", task=task, ours=runs[0], peer=runs[1], amount=_mb(text.beginning), target=goal)


def e4(setting: Setting) -> Iterator[Row]:
    """Documents of 2 KB, two threads, against tokenizers."""
    for text in setting.texts:
        load = f"{DIGEST}{reading(text.beginning)}texts = slices(text, 2048)\n"
        ours = f"""{load}
with clock() as took:
    ids, ends = tokenizer.encode_batch_to_numpy(texts, threads={THREADS})
answer = digest(ids)
"""
        theirs = f"""{load}
with clock() as took:
    rows = tokenizer.encode_batch_fast(texts)
answer = digest([id for row in rows for id in row.ids])
"""
        sides = [setting.ours(ours), setting.tokenizers(theirs, door="encode_batch_fast")]
        runs = race(f"encode {text.name} by 2 KB", sides, rounds=setting.rounds)
        task, goal = f"encode {text.name} by 2 KB, 2 threads", 20 if text.name == "mixed" else 40
        yield Row(id="E4", task=task, ours=runs[0], peer=runs[1], amount=_mb(text.beginning), target=goal)


def e5(setting: Setting) -> Iterator[Row]:
    """Ids back to bytes, against gigatoken and tiktoken."""
    for text in setting.texts:
        load = f"import zlib; import numpy as np\nids = np.load({str(_ids(setting, text))!r})\n"
        end = "answer = [len(raw), zlib.crc32(raw)]"
        for again, goal in (("", 2), (" again", 4)):
            first = "tokenizer.decode_bytes(ids)\n" if again else ""
            ours = f"{load}{first}with clock() as took:\n    raw = tokenizer.decode_bytes(ids)\n{end}"
            first = "tokenizer.decode(ids)\n" if again else ""
            theirs = f"{load}{first}with clock() as took:\n    raw = tokenizer.decode(ids)\n{end}"
            sides = [setting.ours(ours), setting.gigatoken(theirs, door="decode")]
            runs = race(f"decode {text.name}{again}", sides, rounds=setting.rounds)
            task = f"decode {text.name}{again}"
            yield Row(id="E5", task=task, ours=runs[0], peer=runs[1], amount=_mb(text.beginning), target=goal)
        ours = f"{load}with clock() as took:\n    raw = tokenizer.decode_bytes(ids)\n{end}"
        theirs = f"{load}ids = ids.tolist()\nwith clock() as took:\n    raw = tokenizer.decode_bytes(ids)\n{end}"
        sides = [setting.ours(ours), setting.tiktoken(theirs, door="decode_bytes")]
        runs = race(f"decode {text.name}", sides, rounds=setting.rounds)
        yield Row(id="E5", task=f"decode {text.name}", ours=runs[0], peer=runs[1], amount=_mb(text.beginning), target=6)


HARD = {
    "10 MB of letters": ("''.join(rng.choices('abcdefghijklmnopqrstuvwxyz', k=10_000_000))", 10, 1.0),
    "1 MB of one letter": ("'a' * 1_000_000", 1, 0.25),
    "1 MB of spaces": ("' ' * 1_000_000", 1, 0.25),
    "1 MB of line ends": ("'\\n' * 1_000_000", 1, 0.25),
    "1 MB of random letters": ("''.join(rng.choices('abcdefghijklmnopqrstuvwxyz', k=1_000_000))", 1, 0.25),
    "1 MB of digits": ("''.join(rng.choices('0123456789', k=1_000_000))", 1, 0.25),
    "1 MB of one sign": ("'=' * 1_000_000", 1, 0.25),
    "1 MB of base64": ("base64.b64encode(rng.randbytes(750_000)).decode()", 1, 0.25),
    "1.5 MB of one CJK run": ("''.join(map(chr, rng.choices(range(0x4E00, 0x9000), k=500_000)))", 1.5, 0.25),
}
"""Text, its MB, the seconds it may take."""


def e6(setting: Setting) -> Iterator[Row]:
    """Texts that make others quadratic."""
    for name, (expression, mb, limit) in HARD.items():
        code = f"""
import base64, random
rng = random.Random(0)
text = {expression}
with clock() as took:
    ids = tokenizer.encode_to_numpy(text)
assert tokenizer.decode(ids) == text
answer = len(ids)
"""
        run = race(f"encode {name}", [setting.ours(code)], rounds=setting.rounds)[0]
        yield Row(id="E6", task=f"encode {name}", ours=run, amount=mb, target=limit, kind="seconds")


SENTENCE = "The old man sat by the window, watched the rain and thought of the years that had gone by so quickly."
CALLS = 100_000


def e7(setting: Setting) -> Iterator[Row]:
    """A sentence of 20 words, again and again, as a list, against tiktoken."""
    loop = f"""
text = {SENTENCE!r}
encode = tokenizer.NAME
answer = encode(text)
with clock() as took:
    for _ in range({CALLS}):
        encode(text)
"""
    sides = [
        setting.ours(loop.replace("NAME", "encode")),
        setting.tiktoken(loop.replace("NAME", "encode_ordinary"), door="encode_ordinary"),
    ]
    ours, peer = race("encode a sentence", sides, rounds=setting.rounds)
    task = "encode a sentence, 10^5 calls"
    yield Row(id="E7", task=task, ours=ours, peer=peer, amount=CALLS, unit="calls", target=1.5)


def _mb(path: Path) -> float:
    return path.stat().st_size / 1e6


def _ids(setting: Setting, text: Text) -> Path:
    """The ids of the text's beginning as uint32 in a .npy file, made when first asked for."""
    import numpy as np
    from tinygpt import Tokenizer

    place = setting.folder / f"{text.name}-ids.npy"
    if not place.exists():
        beginning = text.beginning.read_bytes().decode("utf-8")
        np.save(place, Tokenizer.load(setting.tokenizer).encode_to_numpy(beginning))
    return place


ROWS = {"E1": e1, "E2": e2, "E3": e3, "E4": e4, "E5": e5, "E6": e6, "E7": e7}
