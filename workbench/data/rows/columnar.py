"""Reads rows from Parquet and Arrow files with ``pyarrow``, a batch at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.data.rows.row import Row, damaged, shown
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    import pyarrow


def read_parquet(path: Path) -> Iterator[Row]:
    """Read the rows of a Parquet file, a thousand in memory at a time."""
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
    """Read the rows of an Arrow file or stream, memory-mapped."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as source:
            try:
                batches: Iterator[pyarrow.RecordBatch] = iter(pa.ipc.open_stream(source))
            except pa.ArrowInvalid:
                file = pa.ipc.open_file(source)
                batches = (file.get_batch(index) for index in range(file.num_record_batches))
            number = 0
            for batch in batches:
                # Offsets in a damaged file may point anywhere; unchecked, they would read other memory.
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
