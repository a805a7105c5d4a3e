"""What the rows of the tokenizer suite share: texts, vocabulary, interpreters, rounds."""

import sys
from dataclasses import dataclass
from pathlib import Path

from tinygpt import Tokenizer

from benches.answers import load_ranks
from benches.corpora import Text
from benches.race import Side

PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
VOCAB_SIZE = 32768
THREADS = 2


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One run of the suite."""

    folder: Path
    texts: tuple[Text, ...]
    ranks: Path
    """The vocabulary of the encoding rows, as tiktoken writes it."""
    rounds: int
    peers: str
    """The interpreter that has the peers."""

    @property
    def tokenizer(self) -> Path:
        """The same vocabulary as a folder of ours, made when first asked for."""
        place = self.folder / "tokenizer"
        if not place.exists():
            special = {"<|endoftext|>": len(load_ranks(str(self.ranks)))}
            Tokenizer.load(self.ranks, pattern="gpt2", special_tokens=special).save(place)
        return place

    def ours(self, code: str) -> Side:
        """Our side: `tokenizer` is ours."""
        load = f"from tinygpt import Tokenizer\ntokenizer = Tokenizer.load({str(self.tokenizer)!r})\n"
        return Side(name="tinygpt", code=load + code, python=sys.executable)

    def peer(self, name: str, code: str, *, threads: int = THREADS) -> Side:
        """A peer's side, on that many threads."""
        environment = {"RAYON_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "true"}
        return Side(name=name, code=code, python=self.peers, environment=environment)

    def gigatoken(self, code: str, *, door: str, threads: int = THREADS) -> Side:
        """`tokenizer` is gigatoken's."""
        load = f"""
import gigatoken
tokenizer = gigatoken.Tokenizer.from_tiktoken({str(self.ranks)!r}, "gpt2", {{}})
"""
        return self.peer(f"gigatoken {door}", load + code, threads=threads)

    def tiktoken(self, code: str, *, door: str, threads: int = THREADS) -> Side:
        """`tokenizer` is tiktoken's."""
        load = f"""
import tiktoken
from benches.answers import load_ranks
ranks = load_ranks({str(self.ranks)!r})
special = {{"<|endoftext|>": len(ranks)}}
tokenizer = tiktoken.Encoding("gpt2", pat_str={PATTERN!r}, mergeable_ranks=ranks, special_tokens=special)
"""
        return self.peer(f"tiktoken {door}", load + code, threads=threads)

    def tokenizers(self, code: str, *, door: str) -> Side:
        """`tokenizer` is that of Hugging Face."""
        load = f"""
import tokenizers
tokenizer = tokenizers.Tokenizer.from_file({str(self.tokenizer / "tokenizer.json")!r})
tokenizer.encode_special_tokens = True
"""
        return self.peer(f"tokenizers {door}", load + code)


def reading(path: Path, name: str = "text") -> str:
    """Code that reads a whole file into `name`."""
    return f"{name} = open({str(path)!r}, encoding='utf-8', newline='').read()\n"
