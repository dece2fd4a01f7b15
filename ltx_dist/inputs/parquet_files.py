"""Prompts as parquet: columns as in CSV; only those needed are read. `line` is the row's number, from 1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from io import BytesIO
from typing import Any

from ltx_dist.inputs.columns import Columns
from ltx_dist.inputs.prompt_sources import cannot_read, open_binary
from ltx_dist.inputs.rows import MAX_ROWS, Item, Problem
from ltx_dist.strict_files import mistaken_for

MAX_COLUMN_BYTES = 1 << 30
"""Maximum bytes of the columns that are read, uncompressed: eight times as much as the longest prompts take."""


_TEXTS = ("string", "large_string")


def read_parquet(source: str, columns: Columns, content: bytes | None = None) -> Iterator[Item | Problem]:
    """The rows of a file or URL, or of its content if that is given.

    Raises ValueError if it cannot be read, or if pyarrow is missing.
    """
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise ValueError(
            f"{source}: parquet files are read with pyarrow: pip install pyarrow, or write .csv or .jsonl"
        ) from None
    try:
        with open_binary(source) if content is None else BytesIO(content) as file:
            if mistake := mistaken_for(file.read(64)):
                raise ValueError(mistake)
            file.seek(0)
            schema: Any = parquet.read_schema(file)
            texts = [column.name for column in schema if str(column.type) in _TEXTS]
            file.seek(0)
            # A repeated text is stored once; read as a dictionary, it also takes memory only once.
            table: Any = parquet.ParquetFile(file, read_dictionary=texts)
            header = list[str](table.schema_arrow.names)
            problems = columns.header_problems(header)
            wanted = [name for name in header if columns.is_known(name)]
            _check_size(table.metadata, wanted)
            found: Any = table.read(columns=[] if problems else wanted)
            _check_repeated(found)
            rows: list[dict[str, Any]] = [] if problems else found.to_pylist()
    except Exception as error:
        raise cannot_read(source, error) from None
    yield from (Problem(1, problem) for problem in problems)
    for number, row in enumerate(rows, 1):
        yield Item(number, {name: _plain(value) for name, value in row.items()})


def _check_size(metadata: Any, wanted: Sequence[str]) -> None:
    if metadata.num_rows > MAX_ROWS:
        raise ValueError(f"{metadata.num_rows} rows; at most {MAX_ROWS} are allowed")
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    columns = [group.column(index) for group in groups for index in range(group.num_columns)]
    size = sum(
        column.total_uncompressed_size
        for column in columns
        if any(f"{column.path_in_schema}.".startswith(f"{name}.") for name in wanted)
    )
    if size > MAX_COLUMN_BYTES:
        raise ValueError(f"its columns take {size >> 20} MiB; at most {MAX_COLUMN_BYTES >> 20} are allowed")


def _check_repeated(table: Any) -> None:
    """Raise ValueError if the rows would take too much memory: a text of 1 MB that 100,000 rows share is stored once,
    but takes 100 GB as rows."""
    import pyarrow.compute as compute

    size = 0
    for chunk in (chunk for column in table.columns for chunk in column.chunks):
        if hasattr(chunk, "dictionary") and str(chunk.dictionary.type) in _TEXTS:
            lengths = compute.call_function("binary_length", [chunk.dictionary])
            size += compute.call_function("sum", [lengths.take(chunk.indices)]).as_py() or 0
    if size > MAX_COLUMN_BYTES:
        raise ValueError(f"its rows take {size >> 20} MiB; at most {MAX_COLUMN_BYTES >> 20} are allowed")


def _plain(value: Any) -> Any:
    """The value; as text if it is a date or an exact decimal, which JSON lacks."""
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else value
