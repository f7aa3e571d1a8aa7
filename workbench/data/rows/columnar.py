"""Rows of Parquet and Arrow files, through ``pyarrow``, some at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workbench.data.rows.row import Row, damaged, shown
from workbench.errors import WorkbenchError


def read_parquet(path: Path) -> Iterator[Row]:
    """The rows of a Parquet file, a thousand in memory at a time."""
    import pyarrow as pa
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _check_names(path, file.schema_arrow.names)
            total, number = max(file.metadata.num_rows, 1), 0
            for batch in file.iter_batches(batch_size=1000):
                for record in batch.to_pylist():
                    number += 1
                    yield Row(record, f"{shown(path)}, row {number}", number / total)
    except (pa.ArrowException, ValueError) as error:
        raise damaged(path, error, "write it again") from None


def read_arrow(path: Path) -> Iterator[Row]:
    """The rows of an Arrow file or stream, mapped into memory."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as source:
            try:
                stream: Any = pa.ipc.open_stream(source)
            except pa.ArrowInvalid:
                file = pa.ipc.open_file(source)
                stream = (file.get_batch(number) for number in range(file.num_record_batches))
            number = 0
            for batch in stream:
                # Nothing in the file vouches for its offsets: followed unchecked, wrong ones read foreign memory.
                batch.validate(full=True)
                _check_names(path, batch.schema.names)
                for start in range(0, batch.num_rows, 1000):
                    for record in batch.slice(start, 1000).to_pylist():
                        number += 1
                        yield Row(record, f"{shown(path)}, row {number}")
    except (pa.ArrowException, ValueError) as error:
        raise damaged(path, error, "write it again") from None


def _check_names(path: Path, names: list[str]) -> None:
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise WorkbenchError(
            f"{shown(path)} has two columns named {twice[:40]!r}.", "Rename one of them.", kind="data_file"
        )
