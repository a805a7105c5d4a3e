"""Answers in the words of OpenAI's API: pieces of text and tokens -> choices."""

import codecs
from collections.abc import Sequence
from typing import Any

from tinygpt.anytokenizer import AnyTokenizer
from tinygpt.enginethread import Piece, Token

Record = tuple[bytes, int, Token]  # a token's bytes, where in the answer it begins, and the token


class AnswerText:
    """One answer as it comes: text, and the tokens whose text has been given out.

    Args:
        tokenizer: Whose ids they are.
        echoed: The prompt, where the answer begins with it.
    """

    def __init__(self, tokenizer: AnyTokenizer, *, echoed: str = "") -> None:
        self._tokenizer, self._echoed = tokenizer, echoed
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._n_known = self._n_given = 0
        self._held: list[Record] = []
        self.n_tokens = 0
        """Tokens drawn so far."""

    def take(self, piece: Piece) -> tuple[str, list[Record]]:
        """Text and tokens that a piece makes certain; tokens wait for their text, and those of a stop string go."""
        text, self._echoed = self._echoed + piece.text, ""
        self.n_tokens += len(piece.tokens)
        self._hold(piece.prompt)
        if piece.prompt:  # a character that it leaves half is over: the answer's bytes begin anew
            self._n_known += len(self._decoder.decode(b"", final=True))
        self._hold(piece.tokens)
        self._n_given += len(text)
        is_over = piece.finish is not None
        cut = self._n_given if not is_over or self._n_known > self._n_given else self._n_known + 1
        given = [record for record in self._held if record[1] < cut]
        self._held = self._held[len(given) :]
        return text, given

    def _hold(self, tokens: Sequence[Token]) -> None:
        for token in tokens:
            raw = token_bytes(self._tokenizer, token.id)
            self._held.append((raw, self._n_known, token))
            self._n_known += len(self._decoder.decode(raw))


def token_bytes(tokenizer: AnyTokenizer, i: int) -> bytes:
    """The bytes of a token; of a library's tokenizer, those of its text."""
    exact = getattr(tokenizer, "token_bytes", None)
    found: bytes = tokenizer.decode([i]).encode("utf-8", "replace") if exact is None else exact(i)
    return found


def chat_logprobs(tokenizer: AnyTokenizer, records: Sequence[Record]) -> dict[str, Any]:
    """`logprobs` of a choice of a chat."""

    def entry(raw: bytes, logprob: float | None) -> dict[str, Any]:
        return {"token": raw.decode("utf-8", "replace"), "logprob": _finite(logprob), "bytes": list(raw)}

    content = [
        {
            **entry(raw, token.logprob),
            "top_logprobs": [entry(token_bytes(tokenizer, i), logprob) for i, logprob in token.top],
        }
        for raw, _, token in records
    ]
    return {"content": content, "refusal": None}


def completion_logprobs(tokenizer: AnyTokenizer, records: Sequence[Record]) -> dict[str, Any]:
    """`logprobs` of a choice of a completion."""

    def tops(token: Token) -> dict[str, float | None] | None:
        if token.logprob is None:
            return None
        best = {_name(token_bytes(tokenizer, i)): _finite(logprob) for i, logprob in token.top}
        return {**best, _name(token_bytes(tokenizer, token.id)): _finite(token.logprob)} if best else {}

    return {
        "tokens": [_name(raw) for raw, _, _ in records],
        "token_logprobs": [_finite(token.logprob) for _, _, token in records],
        "top_logprobs": [tops(token) for _, _, token in records],
        "text_offset": [offset for _, offset, _ in records],
    }


def usage(n_prompt: int, n_drawn: int) -> dict[str, int]:
    """The counts of a request.

    Example:
        >>> usage(3, 4)
        {'prompt_tokens': 3, 'completion_tokens': 4, 'total_tokens': 7}
    """
    return {"prompt_tokens": n_prompt, "completion_tokens": n_drawn, "total_tokens": n_prompt + n_drawn}


def _name(raw: bytes) -> str:
    """A token as a text; one that is no whole characters as its bytes, in OpenAI's way."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def _finite(logprob: float | None) -> float | None:
    return None if logprob is None else max(logprob, -9999.0)  # JSON has no infinity; OpenAI writes this for it
