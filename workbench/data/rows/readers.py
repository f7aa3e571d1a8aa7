"""Reads the rows of a local file in constant memory, with the reader for its suffix.

A row that cannot be parsed becomes a :class:`~workbench.data.rows.row.Row` with a ``problem`` and no record; reading
continues after it.
"""

import gzip
import lzma
import zipfile
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
}
_READERS_OF_PARTS: dict[str, Callable[[Path, str], Iterator[Row]]] = {
    ".xlsx": read_excel,
    ".sqlite": read_sqlite,
    ".sqlite3": read_sqlite,
    ".db": read_sqlite,
}


def read_rows(path: Path, inner: str = "") -> Iterator[Row]:
    """Read the rows of a file.

    Args:
        inner: the sheet of a workbook or the table of a database; empty for other files.

    Raises:
        WorkbenchError: the file is missing, unreadable, damaged as a whole, of an unsupported type, or a Git LFS
            pointer.
    """
    read_part = _READERS_OF_PARTS.get(suffix_of(path))
    rows = read_part(path, inner) if read_part is not None else _reader_of(path)(path)
    refuse_lfs_pointer(path)
    try:
        yield from rows
    except (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
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
    return suffix_of(path) in (*_READERS, *_READERS_OF_PARTS)


def has_parts(path: Path) -> bool:
    """Whether files with this suffix hold several tables of records, one of which a source may name."""
    return path.suffix.lower() in _READERS_OF_PARTS


def known_suffixes() -> str:
    """The suffixes of the supported file types, for a message."""
    return ", ".join(sorted([*_READERS, *_READERS_OF_PARTS])) + f" (the text ones also {', '.join(COMPRESSED)})"


def _reader_of(path: Path) -> Callable[[Path], Iterator[Row]]:
    reader = _READERS.get(suffix_of(path))
    if reader is None and path.suffix.lower() == ".zip" and path.exists():
        raise WorkbenchError(
            f"{shown(path)} is not an archive of one file of records.",
            "Unpack it, and give the folder as the source.",
            kind="data_file",
        )
    if reader is None:
        raise WorkbenchError(
            f"{shown(path)} has an unsupported file type.", f"Supported: {known_suffixes()}.", kind="data_file"
        )
    return reader
