"""Excel workbooks as sources."""

import zipfile
from datetime import datetime
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from workbench.data.rows.readers import read_rows
from workbench.data.sources import load_records
from workbench.engine.client.requests import anchored
from workbench.errors import WorkbenchError
from workbench.recipe.schema import Recipe
from workbench.recipe.sections.data import DataSection
from workbench.recipe.text import edit


def write(path: Path, **sheets: list[list[Any]]) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


TALK = [["question", "answer", "since"], ["q0", "a0", datetime(2026, 5, 1)], [None, None, None], ["q1", 42.0, None]]


def test_rows_with_their_sheet_and_number(tmp_path: Path) -> None:
    path = write(tmp_path / "book.xlsx", Talk=TALK, Empty=[])
    rows = list(read_rows(path))
    assert [row.record for row in rows] == [
        {"question": "q0", "answer": "a0", "since": "2026-05-01T00:00:00"},
        {"question": "q1", "answer": 42, "since": None},
    ]
    assert [row.where for row in rows] == [f"{path}, sheet 'Talk', row 2", f"{path}, sheet 'Talk', row 4"]
    assert rows[-1].fraction == 1.0
    items = list(load_records(DataSection(source=str(path), eval_fraction=0.0)).items())
    assert [item.content.texts for item in items if item.content] == [["q0", "a0"], ["q1", "42"]]


def test_one_of_several_sheets_is_named_after_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "book.xlsx", Notes=[["text"], ["aye"]], **{"The talk": TALK})
    with pytest.raises(WorkbenchError, match="has 2 sheets with rows: Notes, The talk") as refused:
        load_records(DataSection(source=str(path)))
    assert refused.value.cure == f"Name one after a colon, such as {path}:Notes."
    monkeypatch.chdir(tmp_path)
    recipe = edit(Recipe(), {"data.source": "book.xlsx:The talk*2 + book.xlsx:The talk", "data.eval_fraction": 0.0})
    assert anchored(recipe).data.source == f"{path}:The talk*2 + {path}:The talk"
    assert len(list(load_records(recipe.data).items())) == 6
    with pytest.raises(WorkbenchError, match="has no sheet 'Talk'") as refused:
        load_records(DataSection(source=f"{path}:Talk"))
    assert "Notes, The talk" in refused.value.cure
    with pytest.raises(WorkbenchError, match="No such file or folder"):
        load_records(DataSection(source="data/nothing.xlsx:Talk"))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([[None, None], ["q", "a"]], "row 1 has no column names"),
        ([["question", "question"], ["q", "a"]], "two columns named 'question'"),
        ([], "row 1 has no column names"),
    ],
)
def test_a_sheet_without_a_header_is_refused(rows: list[list[Any]], words: str, tmp_path: Path) -> None:
    with pytest.raises(WorkbenchError, match=words):
        list(read_rows(write(tmp_path / "book.xlsx", Sheet=rows)))


def test_a_value_without_a_column_name_is_named(tmp_path: Path) -> None:
    (row,) = read_rows(write(tmp_path / "book.xlsx", Sheet=[["question", None], ["q", "a"]]))
    assert (row.record, row.problem) == (None, "column 2: a value without a column name")


def test_damaged_workbooks_end_in_a_sentence(tmp_path: Path) -> None:
    no_zip = tmp_path / "a.xlsx"
    no_zip.write_bytes(b"question;answer\n")
    whole = write(tmp_path / "b.xlsx", Sheet=TALK)
    no_book, cut, no_xml = (tmp_path / name for name in ("c.xlsx", "d.xlsx", "e.xlsx"))
    with zipfile.ZipFile(no_book, "w") as archive:
        archive.writestr("hello.txt", "x")
    cut.write_bytes(whole.read_bytes()[:-200])
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(no_xml, "w") as new:
        for name in old.namelist():
            new.writestr(name, b"<worksheet><sheetData><row>" if "sheet1" in name else old.read(name))
    for path in (no_zip, no_book, cut, no_xml):
        with pytest.raises(WorkbenchError) as refused:
            list(read_rows(path))
        assert refused.value.kind == "data_file"
        assert str(path) in refused.value.message
