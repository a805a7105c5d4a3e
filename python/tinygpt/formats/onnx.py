"""ONNX: the forward pass as a graph, ids int64 (B, T) to logits float32 (B, T, V), traced by torch."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

INPUT, OUTPUT = "input_ids", "logits"


def write(path: Path, forward: torch.nn.Module) -> None:
    """Writes one file with graph and weights; batch and tokens may be of any size from 1 on.

    Args:
        path: The file.
        forward: A module in evaluation mode, ids `x` (B, T) to logits (B, T, V).

    Raises:
        ImportError: onnx or onnxscript is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise ImportError("onnx and onnxscript are needed for this; pip install 'tinygpt[onnx]'") from None
    any_size = torch.export.Dim.DYNAMIC
    example = torch.zeros(2, 7, dtype=torch.int64)  # sizes of 1 would be taken for fixed
    with warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            forward,
            (example,),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={"x": {0: any_size, 1: any_size}},
            verbose=False,
        )
    assert program is not None  # as dynamo is set
    program.save(path, external_data=False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No word of the exporter's own."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
