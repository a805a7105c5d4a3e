from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tinygpt import ngramsearch
from tinygpt.ngramsearch import find, longest, queries_of
from tinygpt.tokenstream import ArrayTokens

Row = NDArray[np.uint32]
rows_of_tokens = st.lists(st.integers(0, 2), max_size=40).map(lambda row: np.array(row, np.uint32))


def stream(*rows: NDArray[Any]) -> list[ArrayTokens]:
    return [ArrayTokens(row, "tokens") for row in rows]


def runs(row: Row, n: int) -> list[tuple[int, ...]]:
    return [tuple(row[i : i + n].tolist()) for i in range(len(row) - n + 1)]


@given(st.lists(rows_of_tokens, max_size=3), st.lists(rows_of_tokens, min_size=1, max_size=3), st.integers(1, 9))
def test_what_is_found_is_what_python_finds(texts: list[Row], training: list[Row], n: int) -> None:
    queries = queries_of(texts, n)
    found = find([queries], stream(*training))[0]
    known = [runs(row, n) for row in training]
    wanted = {
        run: next((k for k, each in enumerate(known) if run in each), -1) for row in texts for run in runs(row, n)
    }
    assert {tuple(run): int(k) for run, (k, _) in zip(queries.rows.tolist(), found, strict=True)} == wanted
    assert int(queries.counts.sum()) == sum(len(runs(row, n)) for row in texts)
    assert all(tuple(q) == known[k][i] for q, (k, i) in zip(queries.rows.tolist(), found, strict=True) if k >= 0)


@given(st.lists(rows_of_tokens, max_size=3), st.lists(rows_of_tokens, min_size=1, max_size=2))
def test_the_longest_run_is_the_longest(texts: list[Row], training: list[Row]) -> None:
    found = longest(texts, stream(*training))
    lengths = [
        n for n in range(1, 41) if {r for t in texts for r in runs(t, n)} & {r for t in training for r in runs(t, n)}
    ]
    if found is None:
        assert lengths == []
        return
    n, (i, j), (k, at) = found
    assert n == max(lengths)
    assert texts[i][j : j + n].tolist() == training[k][at : at + n].tolist()


@pytest.mark.parametrize("n", [1, 8, 13, 32, 100])
def test_runs_across_the_edges_of_blocks_are_found(n: int) -> None:
    row = np.random.default_rng(0).integers(0, 50_000, 3 << 18).astype(np.uint16)
    places = [0, (1 << 18) - n // 2 - 1, (1 << 18) - 1, (2 << 18) - n, len(row) - n]
    texts = [row[place : place + n].astype(np.uint32) for place in places]
    queries = queries_of(texts, n)
    found = find([queries], stream(row))[0]
    assert all((row[at : at + n] == run).all() for (_, at), run in zip(found, queries.rows, strict=True))


def test_tokens_with_one_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes that are all the same leave the whole answer to the comparison."""
    monkeypatch.setattr(ngramsearch, "_MIX", np.uint64(0))
    row = np.array([3, 1, 4, 1, 5, 9, 2, 6], np.uint32)
    queries = queries_of([np.array([4, 1, 5, 1, 4], np.uint32)], 2)
    found = find([queries], stream(row))[0]
    assert dict(zip(map(tuple, queries.rows.tolist()), found[:, 1].tolist(), strict=True)) == {
        (4, 1): 2, (1, 5): 3, (5, 1): -1, (1, 4): 1,
    }  # fmt: skip


def test_a_length_that_is_not_found_though_it_was_said_to_be_is_an_error() -> None:
    with pytest.raises(ValueError, match="no run of 2 tokens is shared, but at_least says so"):
        longest([np.array([1, 2], np.uint32)], stream(np.array([2, 1], np.uint32)), at_least=2)
