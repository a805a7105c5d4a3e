"""The slow, obvious Kneser-Ney: the oracle. Counts in dictionaries, the formulas as they are written.

Chen and Goodman 1999, section 4.1: interpolated, three discounts for each length, lower lengths by the number of
different tokens that stand before an n-gram, down to 1 / V.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence

Gram = tuple[int, ...]


class ReferenceKneserNey:
    def __init__(self, tokens: Sequence[int], vocab_size: int, order: int) -> None:
        self.vocab_size, self.order = vocab_size, order
        raw = [Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)) for n in range(order + 2)]
        self.counts: list[Counter[Gram]] = [Counter()]
        for n in range(1, order + 1):
            if n == order:
                self.counts.append(raw[n])
            else:
                self.counts.append(Counter(gram[1:] for gram in raw[n + 1]))
        self.discounts = [self.discounts_of(counts) for counts in self.counts]
        self.followers: list[dict[Gram, Counter[int]]] = []
        for counts in self.counts:
            table: dict[Gram, Counter[int]] = defaultdict(Counter)
            for gram, count in counts.items():
                table[gram[:-1]][gram[-1]] = count
            self.followers.append(table)

    def discounts_of(self, counts: Counter[Gram]) -> tuple[float, float, float]:
        n = [sum(count == i for count in counts.values()) for i in range(5)]
        if 0 in n[1:]:
            return 0.5, 1.0, 1.5
        y = n[1] / (n[1] + 2 * n[2])
        found = 1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3]
        return found if min(found) >= 0 else (0.5, 1.0, 1.5)

    def probability(self, context: Gram, token: int) -> float:
        """Of a token after a context of any length, of which the last `order - 1` tokens are used."""
        context = context[len(context) - min(len(context), self.order - 1) :]
        shorter = self.probability(context[1:], token) if context else 1 / self.vocab_size
        followers = self.followers[len(context) + 1].get(context)
        if not followers:
            return shorter
        discounts = self.discounts[len(context) + 1]
        total = sum(followers.values())
        taken = {i: discounts[min(i, 3) - 1] for i in set(followers.values())}
        found = followers[token] - taken[followers[token]] if token in followers else 0.0
        return (found + sum(taken[count] for count in followers.values()) * shorter) / total
