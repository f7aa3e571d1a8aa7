"""Writes tokens to an Arrow file and opens it as a dataset: in memory if it is small, else memory-mapped."""

import shutil
import tempfile
import weakref
from array import array
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.data.sample import Sample
from workbench.data.sources import Records

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

_ROWS_PER_WRITE = 1000
# In bytes; larger files are memory-mapped.
_MAX_IN_MEMORY = 64_000_000


class TokenFile:
    """An Arrow file of samples in a temporary folder. Memory use does not grow with the dataset."""

    def __init__(self, records: Records) -> None:
        home = records.home
        parent = home.cache / "data" if home else None
        if parent:
            parent.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix="tokens-", dir=parent))
        self._path = self._folder / "tokens.arrow"
        self._ids, self._labels, self._offsets = array("i"), array("i"), array("q", [0])
        self._writer: pa.RecordBatchStreamWriter | None = None
        self._is_closed = False

    def add(self, sample: Sample) -> None:
        """Append a sample."""
        self._ids.extend(sample.input_ids)
        self._labels.extend(sample.labels)
        self._offsets.append(len(self._ids))
        if len(self._offsets) > _ROWS_PER_WRITE:
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
        import numpy as np
        import pyarrow as pa

        def column(values: "array[int]") -> "pa.ListArray":
            # Copied: an array cannot be emptied while another object uses its buffer.
            return pa.ListArray.from_arrays(
                pa.array(np.array(self._offsets, np.int32)), pa.array(np.array(values, np.int32))
            )

        batch = pa.record_batch([column(self._ids), column(self._labels)], names=["input_ids", "labels"])
        if self._writer is None:
            self._writer = pa.ipc.new_stream(str(self._path), batch.schema)
        self._writer.write_batch(batch)
        del self._ids[:], self._labels[:], self._offsets[1:]


def dataset_of(path: Path) -> "Dataset":
    """Open a file of tokens as a ``datasets.Dataset``: read into memory if it is small, else memory-mapped."""
    import datasets
    import pyarrow as pa

    if path.stat().st_size <= _MAX_IN_MEMORY:
        return datasets.Dataset.from_buffer(pa.py_buffer(path.read_bytes()))
    return datasets.Dataset.from_file(str(path))
