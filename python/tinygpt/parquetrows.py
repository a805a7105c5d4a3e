"""Parquet: texts of a column, a batch of rows at a time, through pyarrow."""

import os
from collections.abc import Iterator

_BATCH_BYTES = 4 << 20
"""Bytes of a batch, about."""
_NAMES = ("text", "content", "body")


def open_rows(path: str | os.PathLike[str], column: str | None) -> Iterator[list[str | None]]:
    """The texts of a Parquet file, in order; None where a row has none.

    Args:
        path: The file.
        column: Name of the column, with dots for one in another, or its number from 0; None takes text, content or
            body.

    Raises:
        ImportError: pyarrow is not installed.
        ValueError: There is no such column, or it holds no text, or the file is damaged.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ImportError(f'{path}: Parquet is read by pyarrow; pip install "tinygpt[parquet]"') from None
    try:
        with parquet.ParquetFile(path) as file:
            name = _column(file.schema_arrow, column, path)
            for group in range(file.num_row_groups):
                facts = file.metadata.row_group(group)
                rows = max(1, min(4096, _BATCH_BYTES * facts.num_rows // max(1, facts.total_byte_size)))
                for batch in file.iter_batches(rows, row_groups=[group], columns=[name]):
                    values = batch.column(0)
                    for key in name.split(".")[1:] if isinstance(values, pyarrow.StructArray) else ():
                        values = values.field(key)
                    yield values.to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path}: no Parquet, or damaged ({str(error).splitlines()[0]})") from None


def _column(schema: "object", column: str | None, path: str | os.PathLike[str]) -> str:
    import pyarrow

    texts = {}
    for field in schema:  # type: ignore[attr-defined]
        texts.update(_texts(field.name, field.type))
    names = list(texts)
    kinds = (pyarrow.types.is_string, pyarrow.types.is_large_string, getattr(pyarrow.types, "is_string_view", bool))
    words = [name for name, kind in texts.items() if any(is_kind(kind) for is_kind in kinds)]
    if column is not None and column.isdigit() and column not in texts:
        column = names[int(column)] if int(column) < len(names) else column
    found = column if column is not None else next((name for name in _NAMES if name in words), None)
    if found in words:
        return str(found)
    wanted = f"no column {column!r} with text" if column is not None else f"no column named {', '.join(_NAMES)}"
    raise ValueError(f"{path}: {wanted}; those with text are {', '.join(words) or 'none'}: name one with --text-field")


def _texts(name: str, kind: "object") -> dict[str, object]:
    """Each column by its name with dots, and its type."""
    import pyarrow

    if not pyarrow.types.is_struct(kind):
        return {name: kind}
    found: dict[str, object] = {}
    for field in kind:  # type: ignore[attr-defined]
        found.update(_texts(f"{name}.{field.name}", field.type))
    return found
