"""Rows of a table of an SQLite database."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from workbench.data.rows.row import Row, damaged, shown
from workbench.errors import WorkbenchError


def read_sqlite(path: Path, table: str = "") -> Iterator[Row]:
    """The rows of a table, in the order in which they are stored; nothing is written.

    Args:
        table: the table's name; needed if there are several.

    Raises:
        WorkbenchError: the file is no database, has no such table, or has several and none is named.
    """
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            found = database.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
            tables = [name for (name,) in found]
            table = table or (tables[0] if len(tables) == 1 else "")
            if table not in tables:
                raise _no_table(path, table, tables)
            quoted = '"' + table.replace('"', '""') + '"'
            total = max(database.execute(f"SELECT COUNT(*) FROM {quoted}").fetchone()[0], 1)
            rows = database.execute(f"SELECT * FROM {quoted}")
            columns = [column[0] for column in rows.description]
            for number, values in enumerate(rows, start=1):
                record = dict(zip(columns, values, strict=True))
                yield Row(record, f"{shown(path)}, row {number}", number / total)
    except sqlite3.Error as error:
        raise damaged(path, error, "write it again") from None


def _no_table(path: Path, table: str, tables: list[str]) -> WorkbenchError:
    listed = ", ".join(map(repr, tables[:8])) or "none"
    lacks = f"has no table {table!r}" if table else f"has {len(tables)} tables"
    return WorkbenchError(
        f"{shown(path)} {lacks}: {listed}." if tables else f"{shown(path)} has no table.",
        f"Name one after a colon, such as {shown(path)}:{tables[0]}." if tables else "Choose a file with records.",
        kind="data_file",
    )
