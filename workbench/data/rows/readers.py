"""Reads the rows of a local file in constant memory, with the reader for its suffix.

A row that cannot be parsed becomes a :class:`~workbench.data.rows.row.Row` with a ``problem`` and no record; reading
continues after it.
"""

import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from workbench.data.rows.columnar import read_arrow, read_parquet
from workbench.data.rows.excel import read_excel
from workbench.data.rows.json import read_json, read_jsonl
from workbench.data.rows.row import COMPRESSED, Row, damaged, shown, suffix_of
from workbench.data.rows.sqlite import read_sqlite
from workbench.data.rows.table import read_table
from workbench.errors import WorkbenchError
from workbench.storage.lfs import refuse_lfs_pointer

_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".json": read_json,
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".csv": read_table,
    ".tsv": read_table,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    ".sqlite": read_sqlite,
    ".sqlite3": read_sqlite,
    ".db": read_sqlite,
}

WORKBOOK = ".xlsx"


def read_rows(path: Path, inner: str = "") -> Iterator[Row]:
    """Read the rows of a file.

    Args:
        inner: the sheet of a workbook; empty for other files.

    Raises:
        WorkbenchError: the file is missing, unreadable, damaged as a whole, of an unsupported type, or a Git LFS
            pointer.
    """
    is_workbook = suffix_of(path) == WORKBOOK
    reader = None if is_workbook else _reader_of(path)
    refuse_lfs_pointer(path)
    try:
        yield from read_excel(path, inner) if reader is None else reader(path)
    except (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError) as error:
        raise damaged(path, error, "compress it again") from None
    except OSError as error:
        if path.suffix in COMPRESSED and error.errno is None:
            raise damaged(path, error, "compress it again") from None
        raise WorkbenchError(
            f"Cannot read {shown(path)}: {error.strerror or error}.",
            "Check that it exists and is readable.",
            kind="data_file",
        ) from None


def can_read(path: Path) -> bool:
    """Whether files with this suffix can be read as records."""
    return suffix_of(path) in (*_READERS, WORKBOOK)


def known_suffixes() -> str:
    """The suffixes of the supported file types, for a message."""
    return ", ".join(sorted([*_READERS, WORKBOOK])) + f" (the text ones also {', '.join(COMPRESSED)})"


def _reader_of(path: Path) -> Callable[[Path], Iterator[Row]]:
    reader = _READERS.get(suffix_of(path))
    if reader is None:
        raise WorkbenchError(
            f"{shown(path)} has an unsupported file type.", f"Supported: {known_suffixes()}.", kind="data_file"
        )
    return reader
