"""Shuffled orders of any length that are computed place by place, with no list of indices in memory."""

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 6
_MULTIPLIER = np.uint64(0xD6E8FEB86659FD93)  # odd; from Degski's 64-bit mixer, as is the shift by 32
_HALF = np.uint64(32)


def permute(places: NDArray[np.int64], n: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """What stands at these places when 0 .. n - 1 are shuffled in the manner of `(seed, epoch)`.

    Args:
        places: Integers from 0 to n - 1, of any shape.
        n: Length of the order.
        seed: Any integer.
        epoch: Any integer; each gives another order.

    Returns:
        Integers from 0 to n - 1, in the shape of `places`; different places give different ones.

    Example:
        >>> order = permute(np.arange(5), 5, seed=0, epoch=0)
        >>> sorted(order.tolist())
        [0, 1, 2, 3, 4]

    Source: Black and Rogaway 2002, "Ciphers with Arbitrary Finite Domains", section 5: a generalised Feistel network
    on pairs below (a, b), with a * b just above n, and cycle walking past the few pairs that are too many.
    """
    a = math.isqrt(n - 1) + 1
    b = -(-n // a)
    keys = np.frombuffer(hashlib.blake2b(f"{seed} {epoch}".encode()).digest(), "<u8")[:_ROUNDS]
    found = _encrypt(places.astype(np.uint64), np.uint64(a), np.uint64(b), keys)
    while (outside := found >= n).any():  # fewer than one place in a of them, for a * b < n + a
        found[outside] = _encrypt(found[outside], np.uint64(a), np.uint64(b), keys)
    return found.astype(np.int64)


def _encrypt(values: NDArray[np.uint64], a: np.uint64, b: np.uint64, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    left, right = values // b, values % b
    for key in keys.reshape(-1, 2):
        left = (left + _scramble(right, key[0])) % a
        right = (right + _scramble(left, key[1])) % b
    return left * b + right


def _scramble(values: NDArray[np.uint64], key: np.uint64) -> NDArray[np.uint64]:
    """32 bits that depend on every bit of the values and the key; uint64 wraps, as it is meant to."""
    mixed: NDArray[np.uint64] = (values ^ key) * _MULTIPLIER
    mixed = (mixed ^ (mixed >> _HALF)) * _MULTIPLIER
    mixed >>= _HALF
    return mixed
