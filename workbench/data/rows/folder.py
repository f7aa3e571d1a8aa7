"""Reads the rows of a folder: its documents, or its files of records, with a split for evaluation if it has one."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from workbench.data.rows.dataset_info import FILE
from workbench.data.rows.documents import is_document, read_document
from workbench.data.rows.readers import can_read, known_suffixes, read_rows
from workbench.data.rows.row import Row, RowSource, shown
from workbench.data.rows.splits import EVAL_SPLITS, slice_of, split_name, splits_of
from workbench.errors import WorkbenchError
from workbench.storage.folders import files_below

# Documents about a dataset, which lie beside its records, and files in which ``datasets`` describes saved ones.
_DESCRIPTIONS = ("readme", "license", "notice", "changelog", "citation")
_STATES = (FILE, "state.json", "dataset_dict.json")


def folder_source(folder: Path, split: str) -> RowSource:
    """The documents of a folder, or its files of records, one after the other; what describes records is left out.

    Raises:
        WorkbenchError: the folder has neither, or both, or not the split.
    """
    files = sorted(path for path, _ in files_below(folder) if not path.name.startswith("."))
    documents = [path for path in files if is_document(path)]
    records = [path for path in files if can_read(path) and path.name not in _STATES]
    if records:
        documents = [path for path in documents if path.stem.lower() not in _DESCRIPTIONS]
    if records and documents:
        raise WorkbenchError(
            f"The folder {shown(folder)} mixes documents ({documents[0].name} …) with records ({records[0].name} …).",
            "Train on one kind at a time: put them into folders of their own.",
            kind="data_format",
        )
    start, stop = slice_of(split)
    if documents:
        return RowSource(lambda: islice(_documents(documents), start, stop), documents=True, files=tuple(documents))
    if not records:
        raise WorkbenchError(
            f"The folder {shown(folder)} has no supported files ({len(files)} files).",
            f"Supported: .txt or .md documents, or record files: {known_suffixes()}.",
            kind="data_empty",
        )
    return _records_source(folder, records, split)


def _records_source(folder: Path, records: Sequence[Path], split: str) -> RowSource:
    splits, (start, stop) = splits_of(folder, records), slice_of(split)
    name = split_name(split)
    if len(splits) == 1:
        return RowSource(lambda: islice(_records(records), start, stop), files=tuple(records))
    if name not in splits:
        raise WorkbenchError(
            f"The folder {shown(folder)} has no split {name!r}.",
            f"By the names of its files it has {', '.join(splits)}.",
            kind="data_split",
        )
    eval_split = next((other for other in EVAL_SPLITS if other in splits and other != name), "")
    unread = [other for other in splits if other not in (name, eval_split)]
    used, held_out = splits[name], splits.get(eval_split, [])
    notice = f"Splits of {shown(Path(folder.name))}, by the names of its files: trained on {name}"
    notice += f", evaluated on {eval_split}" if eval_split else ""
    notice += f"; {' and '.join(unread)} not read" if unread else ""
    return RowSource(
        lambda: islice(_records(used), start, stop),
        (lambda: _records(held_out)) if held_out else None,
        files=(*used, *held_out),
        notice=f"{notice}.",
    )


def _documents(documents: Sequence[Path]) -> Iterator[Row]:
    for number, path in enumerate(documents, start=1):
        row = read_document(path)
        yield Row(row.record, row.where, number / len(documents), row.problem, row.note)


def _records(files: Sequence[Path]) -> Iterator[Row]:
    for number, path in enumerate(files):
        for row in read_rows(path):
            yield Row(row.record, row.where, (number + row.fraction) / len(files), row.problem, row.note)
