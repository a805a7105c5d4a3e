"""The matrix products of a micro-batch and nothing else, in bfloat16: what no training step can be faster than."""

import time
from collections.abc import Callable

from benches.race import Took, peak_mb
from benches.shape import Shape

REPEATS = 3


def products(shape: Shape) -> tuple[Took, int]:
    """Seconds of all products, each in the faster of two forms, and the floating-point operations in them.

    Per matrix: forward, the gradient of its input, and its own. The forms are the matrix as it is and a transposed
    copy, for its own gradient the two orders; results go into memory that is there already.
    """
    import torch

    torch.set_num_threads(shape.threads)
    seconds, operations = 0.0, 0
    for rows, columns, count in shape.matrices():
        x = torch.randn(shape.tokens, columns).bfloat16()
        d_y = torch.randn(shape.tokens, rows).bfloat16()
        w = torch.randn(rows, columns).bfloat16()
        copy, y, d_x, d_w, d_w_t = w.t().contiguous(), d_y.clone(), x.clone(), w.clone(), w.t().contiguous()
        forms = [
            (lambda w=w, x=x, y=y: torch.mm(x, w.t(), out=y), lambda c=copy, x=x, y=y: torch.mm(x, c, out=y)),
            (lambda w=w, d=d_y, o=d_x: torch.mm(d, w, out=o), lambda c=copy, d=d_y, o=d_x: torch.mm(d, c.t(), out=o)),
            (
                lambda x=x, d=d_y, o=d_w: torch.mm(d.t(), x, out=o),
                lambda x=x, d=d_y, o=d_w_t: torch.mm(x.t(), d, out=o),
            ),
        ]
        results = [[form().float() for form in pair] for pair in forms]
        results[2][1] = results[2][1].t()
        assert all(torch.allclose(a, b, rtol=0.02, atol=0.02 * a.std().item()) for a, b in results), (rows, columns)
        seconds += count * sum(min(map(_best_seconds, pair)) for pair in forms)
        operations += count * 6 * shape.tokens * rows * columns
    return Took(seconds, peak_mb()), operations


def _best_seconds(product: Callable[[], object]) -> float:
    marks = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        product()
        marks.append(time.perf_counter() - begin)
    return min(marks)
