"""Reads documents: text files that are trained on as plain text."""

from pathlib import Path

from workbench.data.rows.encoding import decoded
from workbench.data.rows.row import Row, shown
from workbench.errors import WorkbenchError

_SUFFIXES = (".txt", ".md")


def is_document(path: Path) -> bool:
    """Whether the file is a document, that is, plain text and not records. Judged by its suffix."""
    return path.suffix.lower() in _SUFFIXES


def read_document(path: Path) -> Row:
    """Read a whole text file as one row ``{"text": …}``, with line ends as ``\\n``.


    Raises:
        WorkbenchError: it cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WorkbenchError(
            f"Cannot read {shown(path)}: {error.strerror or error}.",
            "Check that it exists and is readable.",
            kind="data_file",
        ) from None
    try:
        text, note = decoded(data)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return Row(None, shown(path), problem=f"line {line} is not UTF-8")
    return Row({"text": text.replace("\r\n", "\n").replace("\r", "\n")}, shown(path), note=note)
