"""Expected bits per byte of a model that is still to be trained: a law of its size, its text and its steps.

    bits / surprise = least + size / parameters ** size_power + data / bytes ** data_power + vocabulary * ids / tokens

`surprise` is what the text costs who knows the shares of its tokens alone (`textsurvey`), so that one law serves texts
that are easy and texts that are hard. Bytes that are read again count less and less, as do parameters beyond those that
a text can fill, and tokens of a batch beyond the critical size are wasted. docs/planning.md has the runs behind each
number.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Law:
    """The numbers of the law.

    Source: Hoffmann et al. 2022, eq. 2 (arXiv:2203.15556) for the sum, with numbers of our own runs; Muennighoff et al.
    2023, eq. 5 (arXiv:2305.16264) for text that is repeated, and that parameters in excess give less and less;
    McCandlish et al. 2018, eq. 2.11 (arXiv:1812.06162) for tokens wasted by a batch, with the critical size of Zhang et
    al. 2024 (arXiv:2410.21676).
    """

    least: float = 0.373
    size: float = 2.42
    size_power: float = 0.281
    data: float = 6.70
    data_power: float = 0.246
    vocabulary: float = 0.52
    """What it costs to learn the ids, for each id a token trained on."""
    capacity: float = 1.5
    """Parameters for each token of the text, read once, after which more have given 1 - 1/e of what they can give."""
    repeats: float = 1.55
    """Passes beyond the first after which repeating has given 1 - 1/e of what it can give."""
    batch: float = 23.7
    batch_power: float = 0.426
    """The critical batch in tokens is `batch` times the tokens of the run to this power."""
    context: float = 4.0
    """Bytes: what a short context adds to `least` is its share of the bytes of the context."""

    def bits_per_byte(
        self,
        *,
        surprise: float,
        n_parameters: float,
        vocab_size: int,
        n_tokens: float,
        bytes_per_token: float,
        text_bytes: float,
        tokens_per_step: float,
        block_size: float,
    ) -> float:
        """Bits per byte on text of the same kind that was held out.

        Args:
            surprise: Bits per byte of the text for who knows the shares of its tokens alone.
            n_parameters: Parameters of the blocks.
            vocab_size: Ids.
            n_tokens: Tokens of the whole run that are learnt.
            bytes_per_token: Mean bytes of a token.
            text_bytes: Bytes of the text that are learnt, read once.
            tokens_per_step: Tokens of a batch that are learnt.
            block_size: Tokens of the context, without padding.
        """
        critical = self.batch * n_tokens**self.batch_power
        seen = self.worth(n_tokens * bytes_per_token, text_bytes) / (1 + tokens_per_step / critical)
        share = self.least * (1 + self.context / (block_size * bytes_per_token))
        most = self.capacity * text_bytes / bytes_per_token
        filled = most * (1 - math.exp(-n_parameters / most))
        share += self.size / filled**self.size_power + self.data / seen**self.data_power
        return float(surprise * (share + self.vocabulary * vocab_size / n_tokens))

    def worth(self, n_bytes: float, text_bytes: float) -> float:
        """Bytes of fresh text that teach as much as `n_bytes` of a text of `text_bytes`, read again and again.

        Example:
            >>> law = Law()
            >>> law.worth(1e6, 1e6), round(law.worth(4e6, 1e6) / 1e6, 1), round(law.worth(1e9, 1e6) / 1e6, 1)
            (1000000.0, 2.3, 2.5)
        """
        if n_bytes <= text_bytes:
            return n_bytes
        again = n_bytes / text_bytes - 1
        return text_bytes * (1 + self.repeats * (1 - math.exp(-again / self.repeats)))


LAW = Law()
