"""Rows of an SQLite database that holds one table."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from workbench.data.rows.row import Row, damaged, shown
from workbench.errors import WorkbenchError


def read_sqlite(path: Path) -> Iterator[Row]:
    """The rows of the table, in the order in which they are stored; nothing is written.

    Raises:
        WorkbenchError: the file is no database, or has not exactly one table.
    """
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            found = database.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
            tables = [name for (name,) in found]
            if len(tables) != 1:
                listed = ", ".join(map(repr, tables[:8])) or "none"
                raise WorkbenchError(
                    f"{shown(path)} has {len(tables)} tables ({listed}), expected one.",
                    "Write the table of records to a file of its own.",
                    kind="data_file",
                )
            quoted = '"' + tables[0].replace('"', '""') + '"'
            total = max(database.execute(f"SELECT COUNT(*) FROM {quoted}").fetchone()[0], 1)
            rows = database.execute(f"SELECT * FROM {quoted}")
            columns = [column[0] for column in rows.description]
            for number, values in enumerate(rows, start=1):
                record = dict(zip(columns, values, strict=True))
                yield Row(record, f"{shown(path)}, row {number}", number / total)
    except sqlite3.Error as error:
        raise damaged(path, error, "write it again") from None
