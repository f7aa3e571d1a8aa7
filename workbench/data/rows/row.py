"""The row type that all readers yield, and helpers to open and name data files."""

import bz2
import gzip
import io
import lzma
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from workbench.errors import WorkbenchError

# In bytes. A longer line or value is not a record; reading it could fill the memory.
LONGEST = 64_000_000
CHUNK = 1_000_000
COMPRESSED = (".gz", ".zst", ".bz2", ".xz")


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a file, or the ``problem`` for which it could not be read.

    ``where`` names file and line; ``fraction`` is the position in the file, 0 to 1.
    """

    record: dict[str, object] | None
    where: str
    fraction: float = 0.0
    problem: str = ""


ReadRows = Callable[[], Iterator[Row]]
"""Yields the rows of a source, from the first one each time it is called."""


@dataclass(frozen=True)
class RowSource:
    """How to read the rows of a source.

    Attributes:
        eval_rows: the source's own eval split; None if it has none.
        documents: the rows are whole documents.
        files: the files that contain all rows; None if they are not in files, as for a stream.
    """

    rows: ReadRows
    eval_rows: ReadRows | None = None
    documents: bool = False
    files: tuple[Path, ...] | None = None


def shown(path: Path) -> str:
    """A path as text for a message, with control characters in its name escaped."""
    text = str(path)
    return text if text.isprintable() else ascii(text)[1:-1]


def suffix_of(path: Path) -> str:
    """The suffix that tells the file type, without the compression: ``.jsonl`` for ``a.jsonl.gz``."""
    lower = path.name.lower()
    for end in COMPRESSED:
        if lower.endswith(end):
            inner = Path(lower[: -len(end)]).suffix
            return inner if inner in (".json", ".jsonl", ".ndjson", ".csv", ".tsv") else ""
    return path.suffix.lower()


def damaged(path: Path, error: Exception, cure: str) -> WorkbenchError:
    """The error for a file that is damaged as a whole."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return WorkbenchError(f"{shown(path)} is damaged: {reason}.", f"Download it again or {cure}.", kind="data_file")


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, Callable[[], float]]]:
    """Open a file for reading and decompress it; yields the stream and a function for the position, 0 to 1."""

    size = max(path.stat().st_size, 1)
    with path.open("rb") as raw:

        def fraction() -> float:
            return min(raw.tell() / size, 1.0)

        if path.suffix.lower() == ".gz":
            with gzip.open(raw) as stream:
                yield stream, fraction  # type: ignore[misc]
        elif path.suffix.lower() == ".bz2":
            with bz2.open(raw) as bz2_stream:
                yield bz2_stream, fraction  # type: ignore[misc]
        elif path.suffix.lower() == ".xz":
            with lzma.open(raw) as xz_stream:
                yield xz_stream, fraction  # type: ignore[misc]
        elif path.suffix.lower() == ".zst":
            import pyarrow as pa

            with pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd") as stream:
                yield io.BufferedReader(stream, CHUNK), fraction
        else:
            yield raw, fraction
