"""Reads rows from CSV and TSV files with a header line."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from workbench.data.rows.row import CHUNK, LONGEST, OpenFile, Row, opened, shown, suffix_of
from workbench.errors import WorkbenchError


def read_table(path: Path) -> Iterator[Row]:
    """Read the rows below the header line. Cells end at tabs in ``.tsv``, else at the header's likeliest separator."""
    with opened(path) as file:
        text = io.TextIOWrapper(file.stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
        csv.field_size_limit(LONGEST)
        delimiter = "\t" if suffix_of(path) == ".tsv" else _separator(path)
        table = csv.reader(text, delimiter=delimiter, strict=True)
        header = _header(path, table)
        while True:
            start = table.line_num + 1
            try:
                cells = next(table, None)
            except csv.Error as error:
                yield Row(None, f"{shown(path)}, line {start}", file.fraction(), f"column 1: {error}")
                continue
            if cells is None:
                return
            if cells:
                yield _table_row(cells, header, f"{shown(path)}, line {start}", file)


def _separator(path: Path) -> str:
    """What separates the column names in the first line; a comma where nothing does."""
    with opened(path) as file:
        first = file.stream.readline(CHUNK).decode("utf-8-sig", errors="replace")
    names = "".join(first.splitlines()[:1])
    cells = {mark: len(next(csv.reader([names], delimiter=mark), [])) for mark in (",", ";", "\t", "|")}
    return max(cells, key=lambda mark: cells[mark])


def _header(path: Path, table: Iterator[list[str]]) -> list[str]:
    try:
        header = next(table, [])

    except csv.Error as error:
        raise WorkbenchError(
            f"{shown(path)}, line 1: {error}.", "Put the column names there.", kind="data_file"
        ) from None
    if not any(_is_text(name) and name.strip() for name in header):
        if header:
            raise WorkbenchError(
                f"{shown(path)}, line 1 has no column names.",
                "Put the column names there, in UTF-8.",
                kind="data_file",
            )
        return []
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise WorkbenchError(
            f"{shown(path)} has two columns named {twice[:40]!r}.", "Rename one of them in line 1.", kind="data_file"
        )
    return header


def _table_row(cells: list[str], header: list[str], where: str, file: OpenFile) -> Row:
    if len(cells) != len(header):
        column = min(len(cells), len(header)) + 1
        return Row(None, where, file.fraction(), f"column {column}: {len(cells)} cells, expected {len(header)}")
    for number, cell in enumerate(cells, start=1):
        if not _is_text(cell):
            return Row(None, where, file.fraction(), f"column {number}: not UTF-8")
    return Row(dict(zip(header, cells, strict=True)), where, file.fraction(), note=file.note)


def _is_text(cell: str) -> bool:
    return cell.isascii() or not any("\udc80" <= char <= "\udcff" for char in cell)
