"""Reads rows from the sheets of an Excel workbook (``.xlsx``) with ``openpyxl``; macros in the file are never run."""

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import date, datetime, time, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from workbench.data.rows.row import Row, damaged, shown
from workbench.errors import WorkbenchError


def read_excel(path: Path, sheet: str = "") -> Iterator[Row]:
    """Read the rows below the header of a sheet; of formulas, the values that were last saved.

    Args:
        sheet: the sheet's name; needed if several have rows.

    Raises:
        WorkbenchError: the file is damaged, several sheets have rows, there is no such sheet, or it has no header.
    """
    import openpyxl

    try:
        with closing(openpyxl.load_workbook(path, read_only=True, data_only=True, keep_links=False)) as book:
            chosen = _sheet(path, book, sheet)
            rows = chosen.iter_rows(values_only=True)
            where = f"{shown(path)}, sheet {chosen.title!r}"
            header = _header(where, next(rows, ()))
            total = max((chosen.max_row or 1) - 1, 1)
            for number, cells in enumerate(rows, start=2):
                if any(cell is not None for cell in cells):
                    yield _row(cells, header, f"{where}, row {number}", min((number - 1) / total, 1.0))
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, AttributeError, SyntaxError) as error:
        # The XML parser's error is a SyntaxError; openpyxl has no error of its own for a damaged part.
        raise damaged(path, error, "save it again") from None


def _sheet(path: Path, book: Any, name: str) -> Any:
    """The sheet with this name, or else the only one with rows."""
    sheets = {sheet.title: sheet for sheet in book.worksheets}
    if name:
        if name not in sheets:
            raise WorkbenchError(
                f"{shown(path)} has no sheet {name!r}.", f"Its sheets are {_names(list(sheets))}.", kind="data_file"
            )
        return sheets[name]
    filled = [title for title, sheet in sheets.items() if _has_rows(sheet)]
    if len(filled) > 1:
        raise WorkbenchError(
            f"{shown(path)} has {len(filled)} sheets with rows: {_names(filled)}.",
            f"Name one after a colon, such as {shown(path)}:{filled[0]}.",
            kind="data_file",
        )
    return sheets[filled[0] if filled else next(iter(sheets))]


def _has_rows(sheet: Any) -> bool:
    """Whether one of a sheet's first cells is filled. The size that the file states is not to be relied on."""
    return any(cell is not None for row in islice(sheet.iter_rows(values_only=True), 100) for cell in row)


def _header(where: str, cells: Sequence[object]) -> list[str]:
    names = ["" if cell is None else str(cell).strip() for cell in cells]
    if not any(names):
        raise WorkbenchError(
            f"{where}: row 1 has no column names.", "Put the column names into the first row.", kind="data_file"
        )
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise WorkbenchError(
            f"{where} has two columns named {twice[:40]!r}.", "Rename one of them in row 1.", kind="data_file"
        )
    return names


def _row(cells: Sequence[object], header: list[str], where: str, fraction: float) -> Row:
    extra = next(
        (number for number, cell in enumerate(cells, start=1) if cell is not None and not _name(header, number)), 0
    )
    if extra:
        return Row(None, where, fraction, f"column {extra}: a value without a column name")
    record = {name: _plain(cell) for name, cell in zip(header, cells, strict=False) if name}
    return Row(record, where, fraction)


def _name(header: list[str], number: int) -> str:
    return header[number - 1] if number <= len(header) else ""


def _plain(cell: object) -> object:
    """A cell as JSON has it: dates as ISO text, whole numbers without a decimal point."""
    if isinstance(cell, datetime | date | time):
        return cell.isoformat()
    if isinstance(cell, timedelta):
        return str(cell)
    return int(cell) if isinstance(cell, float) and cell.is_integer() else cell


def _names(titles: Sequence[str]) -> str:
    return ", ".join(title if title.isprintable() else ascii(title)[1:-1] for title in titles)
