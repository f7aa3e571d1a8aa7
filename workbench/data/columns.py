"""The columns of a data source, with an example of each: what a mapping by hand starts from."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from workbench.data.records.values import is_blank
from workbench.errors import WorkbenchError
from workbench.objectives.objective import RecordKind
from workbench.plain_text import plain
from workbench.recipe.sections.data import DataSection

_EXAMPLE_CHARACTERS = 200


@dataclass(frozen=True)
class Column:
    """A column, and its first value that is not empty, on one line."""

    name: str
    example: str


@dataclass(frozen=True)
class FoundColumns:
    """The columns of a source.

    Attributes:
        detected: by part, the column that detection takes; empty if it recognizes no format.
    """

    columns: tuple[Column, ...]
    detected: dict[str, str] = field(default_factory=dict)


def find_columns(data: DataSection, kind: RecordKind | None = None) -> FoundColumns:
    """Find the columns of a recipe's data in its first records.

    Args:
        kind: as what detection reads the records; None for what they look like.

    Raises:
        WorkbenchError: the source cannot be read, or has no columns.
    """
    # The engine's client imports this module for its types, and reads no records.
    from workbench.data.open_source import raw_records
    from workbench.recipe.data_sources import source_parts

    records = raw_records(source_parts(data))
    names = dict.fromkeys(str(name) for record in records for name in record)
    if not names:
        raise WorkbenchError("The dataset has no columns.", "Choose another source.", kind="data_empty")
    return FoundColumns(tuple(Column(name, _example(name, records)) for name in names), _detected(data, kind))


def _detected(data: DataSection, kind: RecordKind | None) -> dict[str, str]:
    from workbench.data.sources import load_records

    try:
        form = load_records(data.model_copy(update={"columns": {}}), kind=kind).sources[0].form
    except WorkbenchError:
        return {}
    return dict(form.columns)


def _example(name: str, records: Sequence[Mapping[str, object]]) -> str:
    value = next((record[name] for record in records if not is_blank(record.get(name))), "")
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return plain(" ".join(text[:_EXAMPLE_CHARACTERS].split()))
