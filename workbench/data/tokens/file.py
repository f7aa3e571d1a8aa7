"""Writes tokens to an Arrow file and opens it as a dataset: in memory if it is small, else memory-mapped."""

import shutil
import tempfile
import weakref
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.data.sample import Sample, Tokens
from workbench.data.sources import Records

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

_ROWS_PER_WRITE = 1000
# In bytes; larger files are memory-mapped.
_MAX_IN_MEMORY = 64_000_000


class _Column:
    """Token ids and labels of rows that are not written yet, under two column names."""

    def __init__(self, ids: str, labels: str) -> None:
        self._names = (ids, labels)
        self._ids, self._labels, self._offsets = array("i"), array("i"), array("q", [0])

    @property
    def rows(self) -> int:
        return len(self._offsets) - 1

    def add(self, tokens: Tokens) -> None:
        self._ids.extend(tokens.input_ids)
        self._labels.extend(tokens.labels)
        self._offsets.append(len(self._ids))

    def take(self) -> "dict[str, pa.ListArray]":
        """The rows as Arrow lists, by column name; they are removed here."""
        import numpy as np
        import pyarrow as pa

        def lists(values: "array[int]") -> "pa.ListArray":
            # Copied: an array cannot be emptied while another object uses its buffer.
            return pa.ListArray.from_arrays(
                pa.array(np.array(self._offsets, np.int32)), pa.array(np.array(values, np.int32))
            )

        taken = dict(zip(self._names, map(lists, (self._ids, self._labels)), strict=True))
        del self._ids[:], self._labels[:], self._offsets[1:]
        return taken


class _Numbers:
    """One number of each row that is not written yet, under a column name."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._values = array("h")

    def add(self, value: int) -> None:
        self._values.append(value)

    def take(self) -> "dict[str, pa.Array]":
        """The rows as Arrow numbers, by column name; they are removed here."""
        import numpy as np
        import pyarrow as pa

        taken = pa.array(np.array(self._values, np.int16))
        del self._values[:]
        return {self._name: taken}


class TokenFile:
    """An Arrow file of samples in a temporary folder. Memory use does not grow with the dataset.

    Args:
        labels: of the records, in the order of their ids.
    """

    def __init__(self, records: Records, labels: Sequence[str] = ()) -> None:
        home = records.home
        parent = home.cache / "data" if home else None
        if parent:
            parent.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix="tokens-", dir=parent))
        self._path = self._folder / "tokens.arrow"
        self._columns = [_Column("input_ids", "labels")]
        if records.pairs:
            self._columns.append(_Column("rejected_ids", "rejected_labels"))
        self._ids = {label: place for place, label in enumerate(labels)}
        # Whether a response is good, or the label of a text.
        column = {"unpaired": "good", "labeled": "label"}.get(records.kind)
        self._numbers = _Numbers(column) if column else None
        self._writer: pa.RecordBatchStreamWriter | None = None
        self._is_closed = False

    def add(self, sample: Sample) -> None:
        """Append a sample."""
        for column, side in zip(self._columns, sample.sides, strict=True):
            column.add(side)
        if self._numbers is not None:
            self._numbers.add(bool(sample.good) if sample.label is None else self._ids[sample.label])
        if self._columns[0].rows >= _ROWS_PER_WRITE:
            self._flush()

    def close(self) -> Path:
        """Write the remaining samples and close the file, and return its path."""
        if not self._is_closed:
            self._is_closed = True
            self._flush()
            assert self._writer is not None  # made by the first flush
            self._writer.close()
        return self._path

    def dataset(self) -> "Dataset":
        """Open the file as a dataset. Its folder is deleted with the dataset, or at once if that is in memory."""
        dataset = dataset_of(self.close())
        if dataset.cache_files:
            weakref.finalize(dataset, shutil.rmtree, self._folder, ignore_errors=True)
        else:
            self.discard()
        return dataset

    def discard(self) -> None:
        """Delete the file and its temporary folder."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _flush(self) -> None:
        import pyarrow as pa

        taken = {name: lists for column in self._columns for name, lists in column.take().items()}
        batch = pa.record_batch({**taken, **(self._numbers.take() if self._numbers is not None else {})})
        if self._writer is None:
            self._writer = pa.ipc.new_stream(str(self._path), batch.schema)
        self._writer.write_batch(batch)


def dataset_of(path: Path) -> "Dataset":
    """Open a file of tokens as a ``datasets.Dataset``: read into memory if it is small, else memory-mapped."""
    import datasets
    import pyarrow as pa

    if path.stat().st_size <= _MAX_IN_MEMORY:
        return datasets.Dataset.from_buffer(pa.py_buffer(path.read_bytes()))
    return datasets.Dataset.from_file(str(path))
