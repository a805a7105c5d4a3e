"""Whose turn it is: sources taken in given proportions, each turn computed by itself, with no list and no memory."""

from collections.abc import Sequence
from fractions import Fraction

_Node = int | tuple["_Node", "_Node", Fraction]  # a source, or two nodes with the share of the first


class Turns:
    """An endless row of turns in which source i has its share of every beginning.

    A tree of pairs decides: of the first m turns that reach a pair, its first member has m times its share, rounded.
    So the turns of a source among the first n differ from n times its weight by at most 1/2 for two sources, by less
    than 1 for up to four and by less than ceil(log2(sources)) / 2 for more; and by nothing wherever that is whole at
    every pair, such as after a whole period.

    Args:
        weights: Above 0; only their proportions count. Decimals are taken as they are written: 0.7 is 7/10.

    Raises:
        ValueError: No weight, or one that is not above 0.

    Example:
        >>> turns = Turns([0.7, 0.3])
        >>> [turns.at(n) for n in range(5)]
        [(0, 0), (1, 0), (0, 1), (0, 2), (0, 3)]
        >>> turns.at(10**15)
        (0, 700000000000000)
    """

    def __init__(self, weights: Sequence[float | Fraction]) -> None:
        try:
            exact = [Fraction(str(weight)) for weight in weights]
        except ValueError:  # not finite
            exact = []
        if not exact or min(exact) <= 0:
            raise ValueError(f"weights must be numbers above 0, got {', '.join(map(str, weights)) or 'none'}")
        self.shares = tuple(weight / sum(exact) for weight in exact)
        # The heaviest with the lightest, level by level, so that the tree has the fewest levels.
        level: list[tuple[Fraction, int, _Node]] = [(share, -i, i) for i, share in enumerate(self.shares)]
        while len(level) > 1:
            level.sort(key=lambda row: row[:2], reverse=True)
            half, odd = divmod(len(level), 2)
            pairs = [_pair(a, b) for a, b in zip(level[odd : odd + half], reversed(level[odd + half :]), strict=True)]
            level = level[:odd] + pairs
        self._root = level[0][2]

    def at(self, n: int) -> tuple[int, int]:
        """The source of turn `n`, from 0, and how many turns it has had before."""
        node, before = self._root, n
        while not isinstance(node, int):
            first, second, share = node
            taken = _rounded(before, share)
            is_first = _rounded(before + 1, share) > taken
            node, before = (first, taken) if is_first else (second, before - taken)
        return node, before


def _pair(a: tuple[Fraction, int, _Node], b: tuple[Fraction, int, _Node]) -> tuple[Fraction, int, _Node]:
    weight = a[0] + b[0]
    return weight, max(a[1], b[1]), (a[2], b[2], a[0] / weight)


def _rounded(n: int, share: Fraction) -> int:
    """N times the share, rounded, in whole numbers."""
    return (2 * n * share.numerator + share.denominator) // (2 * share.denominator)
