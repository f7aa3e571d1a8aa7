"""Reads the names of classes that a dataset's features give to a column of numbers (``datasets.ClassLabel``)."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from workbench.data.rows.row import ReadRows, Row

ClassNames = Mapping[str, tuple[str, ...]]
"""By column, the name of each number from 0 on."""


def names_of_features(features: Mapping[str, Any]) -> ClassNames:
    """Those of a ``datasets.Features``, or of the same as JSON."""
    found = {}
    for column, feature in features.items():
        is_json = isinstance(feature, Mapping)
        kind = feature.get("_type") if is_json else type(feature).__name__
        names = feature.get("names") if is_json else getattr(feature, "names", None)
        if kind == "ClassLabel" and isinstance(names, list) and names:
            found[str(column)] = tuple(str(name) for name in names)
    return found


def names_of_file(path: Path) -> ClassNames:
    """Those that ``datasets`` wrote into a Parquet or Arrow file; empty for other files, and for damaged ones."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        match path.suffix.lower():
            case ".parquet":
                metadata = pq.read_schema(path).metadata
            case ".arrow":
                with pa.memory_map(str(path)) as source:
                    metadata = _arrow_schema(source).metadata
            case _:
                return {}
        stored = json.loads((metadata or {}).get(b"huggingface", b"{}"))
        return names_of_features(stored["info"]["features"])
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError):
        # Reading the rows says what is wrong with the file.
        return {}


def _arrow_schema(source: Any) -> Any:
    import pyarrow as pa

    try:
        return pa.ipc.open_stream(source).schema
    except pa.ArrowInvalid:
        return pa.ipc.open_file(source).schema


def with_class_names(read: ReadRows, names: ClassNames) -> ReadRows:
    """The same rows, with the names of classes in place of their numbers; a number without a name becomes empty."""

    def rows() -> Iterator[Row]:
        for row in read():
            if row.record is None:
                yield row
                continue
            named = {
                column: _name(row.record[column], of_column)
                for column, of_column in names.items()
                if column in row.record
            }
            yield Row({**row.record, **named}, row.where, row.fraction, row.problem, row.note)

    return rows


def _name(value: object, names: tuple[str, ...]) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        # -1 is a record without a label, as in test splits.
        return names[value] if 0 <= value < len(names) else None
    return value
