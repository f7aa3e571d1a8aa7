"""Reads the documents of a folder as Markdown: text files as they are, PDF, HTML and Word files through ``markitdown``.

Files come from anywhere. Only converters for these types are used, on bytes that are read here: none follows a link,
opens another file, or runs what a document holds.
"""

import importlib.util
import io
import logging
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.data.open_source import Source
from workbench.data.records.formats import RecordFormat
from workbench.data.rows.documents import is_document, read_document
from workbench.data.rows.row import Row, RowSource, shown
from workbench.data.sources import Records
from workbench.errors import WorkbenchError
from workbench.recipe.sections.data import DataSection
from workbench.storage.folders import files_below
from workbench.storage.paths import Home

if TYPE_CHECKING:
    from markitdown import MarkItDown

_CONVERTED = (".pdf", ".html", ".htm", ".docx")
_MAX_BYTES = 200_000_000
# A Word file is a zip archive; this much may come out of it.
_MAX_UNPACKED = 500_000_000


@dataclass(frozen=True)
class Documents:
    """The documents of a folder. ``others``: its files of other types by suffix, which are not read."""

    records: Records
    others: Counter[str]


def open_documents(folder: Path, data: DataSection, home: Home) -> Documents:
    """Open the documents of a folder and its subfolders.

    Raises:
        WorkbenchError: there is no such folder, it has no documents, or ``markitdown`` is needed and not installed.
    """
    if not folder.is_dir():
        raise WorkbenchError(
            f"No such folder: {shown(folder)}.", "Give a folder of documents with --documents.", kind="data_missing"
        )
    files = sorted(path for path, _ in files_below(folder) if not path.name.startswith("."))
    documents = [path for path in files if is_document(path) or path.suffix.lower() in _CONVERTED]
    others = Counter(path.suffix.lower() or path.name for path in files if path not in set(documents))
    if not documents:
        raise WorkbenchError(
            f"The folder {shown(folder)} has no documents ({len(files)} files).",
            f"Supported: .txt, .md, {', '.join(_CONVERTED)}.",
            kind="data_empty",
        )
    converted = [path for path in documents if not is_document(path)]
    if converted and importlib.util.find_spec("markitdown") is None:
        raise WorkbenchError(
            f"{shown(converted[0])} cannot be converted to text: markitdown is not installed.",
            "Install it with `pip install 'loraworkbench[documents]'`.",
            kind="not_installed",
        )
    source = Source(
        str(folder),
        RowSource(lambda: _rows(folder, documents), documents=True, files=tuple(documents)),
        RecordFormat("text", {"text": "text"}, f"documents: {len(documents):,} files"),
    )
    # A document that cannot be read is counted; one of hundreds is no reason to stop.
    return Documents(Records((source,), data.eval_fraction, False, home, eval_records=data.eval_records), others)


def _rows(folder: Path, documents: list[Path]) -> Iterator[Row]:
    root = folder.resolve()
    converter: MarkItDown | None = None
    for number, path in enumerate(documents, start=1):
        fraction = number / len(documents)
        if not path.resolve().is_relative_to(root):
            yield Row(None, shown(path), fraction, "a link to a file outside the folder")
        elif is_document(path):
            row = read_document(path)
            if row.record is not None and not str(row.record["text"]).strip():
                row = Row(None, row.where, problem="it is empty")
            yield Row(row.record, row.where, fraction, row.problem, row.note)
        else:
            converter = converter or _converter()
            yield _converted(path, converter, fraction)


def _converter() -> "MarkItDown":
    from markitdown import MarkItDown
    from markitdown.converters import DocxConverter, HtmlConverter, PdfConverter

    # What is wrong with a file is said in its row.
    logging.getLogger("pdfminer").setLevel(logging.CRITICAL)
    converter = MarkItDown(enable_builtins=False, enable_plugins=False)
    for kind in (PdfConverter, DocxConverter, HtmlConverter):
        converter.register_converter(kind())
    return converter


def _converted(path: Path, converter: "MarkItDown", fraction: float) -> Row:
    """A file as Markdown; the reason for which it cannot be converted is its problem."""
    from markitdown import StreamInfo

    try:
        content = _content(path)
        result: Any = converter.convert_stream(
            io.BytesIO(content), stream_info=StreamInfo(extension=path.suffix.lower(), filename=path.name)
        )
        text = str(result.text_content or "")
    except (MemoryError, RecursionError) as error:
        return Row(None, shown(path), fraction, f"it is nested too deeply or too large ({type(error).__name__})")
    except Exception as error:  # whatever a converter raises for a damaged file
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        return Row(None, shown(path), fraction, f"it cannot be converted: {reason}")
    if not text.strip():
        scan = " (a scan needs OCR first)" if path.suffix.lower() == ".pdf" else ""
        return Row(None, shown(path), fraction, f"it has no text{scan}")
    return Row({"text": text.replace("\r\n", "\n").replace("\r", "\n")}, shown(path), fraction)


def _content(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        ValueError: it is too large, packed or unpacked.
    """
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"it is larger than {_MAX_BYTES // 1_000_000} MB")
    content = path.read_bytes()
    if path.suffix.lower() == ".docx":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(member.file_size for member in archive.infolist()) > _MAX_UNPACKED:
                raise ValueError(f"it unpacks to more than {_MAX_UNPACKED // 1_000_000} MB")
    return content
