"""The row type that all readers yield, and helpers to open and name data files."""

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from workbench.data.rows.encoding import HEAD, as_utf_8, encoding_of
from workbench.errors import WorkbenchError

# In bytes. A longer line or value is not a record; reading it could fill the memory.
LONGEST = 64_000_000
CHUNK = 1_000_000
COMPRESSED = (".gz", ".zst", ".bz2", ".xz", ".zip")


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a file, or the ``problem`` for which it could not be read.

    ``where`` names file and line; ``fraction`` is the position in the file, 0 to 1. ``note``: what was done to read it,
    in words that can be counted over many rows.
    """

    record: dict[str, object] | None
    where: str
    fraction: float = 0.0
    problem: str = ""
    note: str = ""


ReadRows = Callable[[], Iterator[Row]]
"""Yields the rows of a source, from the first one each time it is called."""


@dataclass(frozen=True)
class RowSource:
    """How to read the rows of a source.

    Attributes:
        eval_rows: the source's own eval split; None if it has none.
        documents: the rows are whole documents.
        files: the files that contain all rows; None if they are not in files, as for a stream.
        notice: what is read of the source and what is not, for the user.
        class_names: by column, the names that the source's features give to its numbers, as far as they are known
            without its files.
    """

    rows: ReadRows
    eval_rows: ReadRows | None = None
    documents: bool = False
    files: tuple[Path, ...] | None = None
    notice: str = ""
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def shown(path: Path) -> str:
    """A path as text for a message, with control characters in its name escaped."""
    text = str(path)
    return text if text.isprintable() else ascii(text)[1:-1]


def suffix_of(path: Path) -> str:
    """The suffix that tells the file type, without the compression: ``.jsonl`` for ``a.jsonl.gz``."""
    lower = path.name.lower()
    if lower.endswith(".zip"):
        lower = f"{zipped_file(path).lower()}.zip"
    for end in COMPRESSED:
        if lower.endswith(end):
            inner = Path(lower[: -len(end)]).suffix
            return inner if inner in (".json", ".jsonl", ".ndjson", ".csv", ".tsv") else ""
    return path.suffix.lower()


def zipped_file(path: Path) -> str:
    """The name of the only file in a zip archive; empty if it has none or several, or cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [member.filename for member in archive.infolist() if not member.is_dir()]
    except (OSError, zipfile.BadZipFile):
        return ""
    # macOS adds a folder of its own.
    names = [name for name in names if not name.startswith("__MACOSX/")]
    return names[0] if len(names) == 1 else ""


def damaged(path: Path, error: Exception, cure: str) -> WorkbenchError:
    """The error for a file that is damaged as a whole."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return WorkbenchError(f"{shown(path)} is damaged: {reason}.", f"Download it again or {cure}.", kind="data_file")


@dataclass(frozen=True)
class OpenFile:
    """An open file of text.

    Attributes:
        stream: its bytes, decompressed, as UTF-8.
        fraction: returns the position in the file, 0 to 1.
        note: the encoding, if it is not UTF-8.
    """

    stream: BinaryIO
    fraction: Callable[[], float]
    note: str = ""


@contextmanager
def opened(path: Path) -> Iterator[OpenFile]:
    """Open a file of text for reading, decompress it, and turn it into UTF-8.

    Raises:
        WorkbenchError: it is not valid in the encoding that it begins in.
    """
    size = max(path.stat().st_size, 1)
    with path.open("rb", buffering=HEAD) as raw, _decompressed(path, raw) as stream:
        buffered = raw if stream is raw else io.BufferedReader(stream, HEAD)
        encoding = encoding_of(buffered.peek(HEAD)[:HEAD])
        try:
            yield OpenFile(as_utf_8(buffered, encoding), lambda: min(raw.tell() / size, 1.0), encoding.note)
        except UnicodeDecodeError as error:
            raise damaged(path, error, "save it as UTF-8") from None


@contextmanager
def _decompressed(path: Path, raw: BinaryIO) -> Iterator[Any]:
    """The decompressed bytes of an open file: the file itself if it is not compressed."""
    suffix = path.suffix.lower()
    if suffix == ".zst":
        import pyarrow as pa

        with pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd") as stream:
            yield stream
    elif suffix == ".zip":
        with zipfile.ZipFile(raw) as archive, archive.open(zipped_file(path)) as member:
            yield member
    elif suffix in (".gz", ".bz2", ".xz"):
        openers: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
        with openers[suffix](raw) as stream:
            yield stream
    else:
        yield raw
