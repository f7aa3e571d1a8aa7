"""Tokens on their way to the trainer, in a memory-mapped Arrow file where they are many."""

import shutil
import tempfile
import weakref
from array import array
from pathlib import Path
from typing import Any

from workbench.data.sample import Sample
from workbench.data.sources import Records

_ROWS_A_WRITE = 1000
_KEPT_IN_MEMORY = 64_000_000


class TokenFile:
    """Tokens on their way to an Arrow file, so that memory does not grow with the data set."""

    def __init__(self, records: Records) -> None:
        home = records.home
        place = home.cache / "data" if home else None
        if place:
            place.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix="tokens-", dir=place))
        self._path = self._folder / "tokens.arrow"
        self._ids, self._labels, self._ends = array("i"), array("i"), array("q", [0])
        self._writer: Any = None
        self._is_closed = False

    def add(self, sample: Sample) -> None:
        self._ids.extend(sample.input_ids)
        self._labels.extend(sample.labels)
        self._ends.append(len(self._ids))
        if len(self._ends) > _ROWS_A_WRITE:
            self._flush()

    def close(self) -> Path:
        """Write the last of them; returns the file."""
        if not self._is_closed:
            self._is_closed = True
            self._flush()
            self._writer.close()
        return self._path

    def dataset(self) -> Any:
        """The ``datasets.Dataset``: in memory where it is small, else mapped from the file while it is in use."""
        dataset = dataset_of(self.close())
        if dataset.cache_files:
            weakref.finalize(dataset, shutil.rmtree, self._folder, ignore_errors=True)
        else:
            self.discard()
        return dataset

    def discard(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _flush(self) -> None:
        import numpy as np
        import pyarrow as pa

        def column(values: "array[int]") -> Any:
            # Copied: an array that lends its memory cannot be emptied below.
            return pa.ListArray.from_arrays(
                pa.array(np.array(self._ends, np.int32)), pa.array(np.array(values, np.int32))
            )

        batch = pa.record_batch([column(self._ids), column(self._labels)], names=["input_ids", "labels"])
        if self._writer is None:
            self._writer = pa.ipc.new_stream(str(self._path), batch.schema)
        self._writer.write_batch(batch)
        del self._ids[:], self._labels[:], self._ends[1:]


def dataset_of(path: Path) -> Any:
    """A file of tokens as a ``datasets.Dataset``: read where it is small, else mapped."""
    import datasets
    import pyarrow as pa

    if path.stat().st_size <= _KEPT_IN_MEMORY:
        return datasets.Dataset.from_buffer(pa.py_buffer(path.read_bytes()))
    return datasets.Dataset.from_file(str(path))
