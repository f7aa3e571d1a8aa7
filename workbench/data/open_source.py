"""Opens a data source: a bundled dataset, a file, a folder, an entry of a ``dataset_info.json``, or a hub dataset.

Opening a source reads only its first rows, to detect their format. The rest is read when needed, in constant memory.
"""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path

from workbench.data.records.detect import detect
from workbench.data.records.formats import AnyFormat
from workbench.data.records.labeled import detect_labeled
from workbench.data.rows.class_names import ClassNames, names_of_file, with_class_names
from workbench.data.rows.dataset_info import FILE, DatasetEntry, find_entry, with_usual_turns
from workbench.data.rows.documents import is_document, read_document
from workbench.data.rows.folder import folder_source
from workbench.data.rows.hub import hub_rows
from workbench.data.rows.readers import can_read, has_parts, known_suffixes, read_rows
from workbench.data.rows.row import ReadRows, RowSource, shown
from workbench.data.rows.splits import slice_of
from workbench.data.rows.trees import joined_trees
from workbench.errors import WorkbenchError
from workbench.recipe.data_sources import SourcePart, exists, source_names, split_inner
from workbench.recipe.sections.data_source import SourceEntry

_BUNDLED = Path(__file__).resolve().parents[2] / "presets" / "datasets"
_HUB_ID = re.compile(r"(?P<name>[\w.-]+/[\w.-]+|[\w-]+)(?::(?P<config>[\w.+-]+))?(?P<streaming>\?streaming)?")
# Rows that are read to detect the format.
_FORMAT_ROWS = 64


@dataclass(frozen=True)
class Source:
    """One opened source: how to read its rows, their format, and its weight in the mix.

    ``class_names``: by column, the names that stand in place of the numbers of classes.
    """

    name: str
    reading: RowSource
    form: AnyFormat
    weight: float = 1.0
    class_names: ClassNames = field(default_factory=dict)


def open_source(part: SourcePart, stop_at_malformed: bool, *, labeled: bool = False) -> Source:
    """Open one source of a recipe.

    Args:
        labeled: read each record as a text with a label.

    Raises:
        WorkbenchError: there is no such source, its first rows cannot be read, or their format is unknown.
    """
    part, reading = _reading(part)
    names = _class_names(reading) if labeled else {}
    if names:
        eval_rows = with_class_names(reading.eval_rows, names) if reading.eval_rows else None
        reading = replace(reading, rows=with_class_names(reading.rows, names), eval_rows=eval_rows)
    form = _detect_format(part, reading.rows, stop_at_malformed, labeled)
    return Source(part.name, reading, form, part.weight, names)


def raw_records(parts: Iterable[SourcePart]) -> list[dict[str, object]]:
    """The first records of each source as they are stored, whatever their format.

    Raises:
        WorkbenchError: there is no such source, or it cannot be read.
    """
    rows = chain.from_iterable(islice(_reading(part)[1].rows(), _FORMAT_ROWS) for part in parts)
    return [row.record for row in rows if row.record]


def _class_names(reading: RowSource) -> ClassNames:
    """The names of classes by column, from the source's features or from what is stored in its files."""
    stored = (names_of_file(file) for file in reading.files or ())
    return reading.class_names or next(filter(None, stored), {})


def _reading(part: SourcePart) -> tuple[SourcePart, RowSource]:
    """How to read a source, and the source with the settings of its entry, if it has one."""
    entry = None if part.name in bundled_names() else find_entry(part.name)
    if entry is None:
        reading = _row_source(part.name, part.split)
    else:
        part, reading = _of_entry(entry, part)
    return part, joined_trees(reading)


def bundled_names() -> list[str]:
    """Names of the datasets that ship with the workbench."""
    return sorted(path.stem for path in _BUNDLED.glob("*.jsonl") if not path.stem.endswith(".eval"))


def remote_sources(source: str | list[SourceEntry]) -> list[str]:
    """The sources that are neither bundled nor on this machine, such as hub datasets."""
    return [name for name in source_names(source) if not _is_local(name)]


def needs_hub(source: str | list[SourceEntry]) -> bool:
    """Whether opening the source asks the hub. A missing local file does not count."""
    return any(map(_may_be_hub_id, remote_sources(source)))


def _may_be_hub_id(name: str) -> bool:
    if _entry_of(name) is not None:
        return True
    return not _looks_local(name) and "/" in name and _HUB_ID.fullmatch(name) is not None


def _looks_local(name: str) -> bool:
    path = Path(split_inner(name)[0])
    return name.startswith((".", "/", "~", "\\")) or can_read(path) or is_document(path) or name.endswith("/")


def _is_local(name: str) -> bool:
    """Whether a source is a bundled dataset, or on this machine."""
    if name in bundled_names():
        return True
    entry = _entry_of(name)
    return exists(split_inner(name)[0]) if entry is None else entry.place is not None


def source_path(name: str) -> Path | None:
    """The file or folder that holds the records of a source; None if it is not on this machine."""
    if name in bundled_names():
        return _BUNDLED / f"{name}.jsonl"
    entry = _entry_of(name)
    place = str(entry.place or "") if entry is not None else split_inner(name)[0]
    return Path(place).expanduser() if exists(place) else None


def _entry_of(name: str) -> DatasetEntry | None:
    """The entry of a ``dataset_info.json`` that a source names; None also if it names one that cannot be opened."""
    try:
        return find_entry(name)
    except WorkbenchError:
        return None


def _of_entry(entry: DatasetEntry, part: SourcePart) -> tuple[SourcePart, RowSource]:
    """The rows of an entry, and the source with the entry's columns; what the recipe sets comes before them.

    Raises:
        WorkbenchError: the entry names a column that its records do not have, or records for preference training.
    """
    asked, brackets, rest = part.split.partition("[")
    split = (entry.split if asked == "train" else asked) + brackets + rest
    if entry.place is None:
        reading = hub_rows(entry.hub[0], entry.hub[1], split, False)
    else:
        reading = _row_source(str(entry.place), split)
    if entry.rows is not None:
        rows, end = reading.rows, entry.rows
        reading = replace(reading, rows=lambda: islice(rows(), end))
    if entry.tags is not None:
        tagged, turns = reading, entry.turns
        eval_rows = tagged.eval_rows
        reading = replace(
            tagged,
            rows=with_usual_turns(tagged.rows, turns, entry.tags),
            eval_rows=with_usual_turns(eval_rows, turns, entry.tags) if eval_rows else None,
        )
    if reading.files is not None:
        reading = replace(reading, files=(*reading.files, entry.file))
    part = replace(part, name=entry.name)
    if part.columns:
        return part, reading
    found = {str(column) for row in islice(reading.rows(), _FORMAT_ROWS) for column in row.record or {}}
    columns = {**entry.columns, **({"label": entry.labels} if entry.labels else {})}
    lacking = [column for column in columns.values() if column not in found]
    if found and lacking:
        raise WorkbenchError(
            f"{entry.name} names the column {lacking[0]!r}, which its records do not have.",
            f"Correct columns in the entry; the records have {', '.join(sorted(found)[:12])}.",
            kind="data_format",
        )
    return replace(part, columns=columns), reading


def _row_source(name: str, split: str) -> RowSource:
    """Find a source by its name: a bundled dataset, a path, or a hub id."""
    bundled = _BUNDLED / f"{name}.jsonl"
    place, inner = split_inner(name)
    path = bundled if name in bundled_names() else Path(place).expanduser()
    if inner and not has_parts(path):
        raise WorkbenchError(
            f"{shown(path)} is not a {FILE} of LLaMA-Factory, so it has no dataset {inner!r}.",
            "Give the file itself as the source, without the name.",
            kind="data_source",
        )
    if path.is_dir():
        return folder_source(path, split)
    if path.exists():
        return _file_source(path, split, inner)
    match = _HUB_ID.fullmatch(name)
    if _looks_local(name) or match is None:
        raise WorkbenchError(
            f"No such file or folder: {shown(path)}.",
            f"Give an existing path. Supported: {known_suffixes()}.",
            kind="data_missing",
        )
    if "/" not in name:
        near = difflib.get_close_matches(name, bundled_names(), n=1)
        raise WorkbenchError(
            f"No such dataset: {name!r}.",
            (f"Did you mean {near[0]}? " if near else "")
            + f"Give a bundled dataset ({', '.join(bundled_names())}), a local path, or owner/name of a "
            "hub dataset.",
            kind="data_missing",
        )
    return hub_rows(match["name"], match["config"], split, bool(match["streaming"]))


def _file_source(path: Path, split: str, inner: str = "") -> RowSource:
    """A document, or a file of records; ``NAME.eval.SUFFIX`` next to it is its eval split.

    Args:
        inner: the sheet of a workbook, or the table of a database.
    """
    start, stop = slice_of(split)
    if is_document(path):
        return RowSource(lambda: islice([read_document(path)], start, stop), documents=True, files=(path,))
    eval_file = path.with_name(f"{path.stem}.eval{path.suffix}")
    has_eval = eval_file.exists()
    return RowSource(
        lambda: islice(read_rows(path, inner), start, stop),
        (lambda: read_rows(eval_file, inner)) if has_eval else None,
        files=(path, eval_file) if has_eval else (path,),
    )


def _detect_format(part: SourcePart, rows: ReadRows, stop_at_malformed: bool, labeled: bool) -> AnyFormat:
    """Detect the format from the first rows.

    Raises:
        WorkbenchError: there are no rows, none can be read, or their format is unknown.
    """
    columns: dict[str, None] = {}
    samples: list[dict[str, object]] = []
    first_problem = ""
    seen = 0
    for row in islice(rows(), _FORMAT_ROWS):
        seen += 1
        if row.record is None:
            first_problem = first_problem or f"{row.where}, {row.problem}"
            if stop_at_malformed:
                break
        for column in row.record or {}:
            columns.setdefault(str(column))
        samples += [row.record] if row.record else []
    if not columns:
        if first_problem:
            raise WorkbenchError(f"{first_problem}.", "Correct the file, or choose another.", kind="data_malformed")
        problem = "is empty" if not seen else "has records without columns"
        raise WorkbenchError(f"{part.name} {problem}.", "Choose a source with records.", kind="data_empty")
    if labeled:
        return detect_labeled(list(columns), samples, part.columns, part.name)
    return detect(list(columns), samples, part.format, part.columns, part.name)
