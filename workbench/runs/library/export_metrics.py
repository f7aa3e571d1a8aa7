"""Exports the metrics of a run as a table, one row per logged step, in CSV or Parquet.

The journal is read twice: first to find the columns and what resumes discarded, then for the rows, which are written in
batches. Memory use does not depend on the journal's length.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from workbench.errors import WorkbenchError
from workbench.runs.events import AnyEvent, Eval, Step, to_fields
from workbench.runs.folder import RunFolder
from workbench.runs.journal import JournalReader, each_event
from workbench.runs.replay import Cuts
from workbench.storage.atomic import atomic_file

if TYPE_CHECKING:
    import pyarrow

FORMATS = (".csv", ".parquet")

_BATCH_ROWS = 5_000
_MAX_COLUMNS = 200

Kind = Literal["whole", "number", "switch", "text"]

# Always present, in this order, whatever the run wrote; other columns follow.
_STANDARD_COLUMNS: dict[str, Kind] = {
    "run": "text", "step": "whole", "max_steps": "whole", "epoch": "number", "time": "number", "seconds": "number",
    "loss": "number", "learning_rate": "number", "grad_norm": "number", "token_accuracy": "number",
    "tokens": "whole", "tokens_per_second": "number", "eval_loss": "number", "perplexity": "number",
    "eval_token_accuracy": "number", "vram_allocated": "whole", "vram_reserved": "whole", "vram_peak": "whole",
    "host_rss": "whole", "host_peak": "whole",
}  # fmt: skip

_EXCLUDED_FIELDS = {"seq", "event"}
_NON_FINITE = {"nan", "inf", "-inf"}
# A spreadsheet runs a cell that begins with one of these as a formula (OWASP, "CSV Injection").
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")

Row = dict[str, object]


class _Writer(Protocol):
    def write_batch(self, batch: "pyarrow.RecordBatch") -> None: ...

    def close(self) -> None: ...


@dataclass
class _Plan:
    """What the first pass over the journal found.

    Attributes:
        columns: the type of each column by name.
        cuts: what resumes discarded.
        last_seq: number of the last event; events that a live run adds meanwhile are not exported.
        rows: approximate number of rows.
    """

    columns: dict[str, Kind] = field(default_factory=lambda: dict(_STANDARD_COLUMNS))
    cuts: Cuts = field(default_factory=Cuts)
    last_seq: int = -1
    rows: int = 0


def export_journal(
    run: RunFolder, file: Path, *, replace: bool = False, report: Callable[[float], None] = lambda share: None
) -> int:
    """Write the steps of a run with their evaluations into ``file``; its suffix, .csv or .parquet, selects the format.

    A step that was trained again after a resume is written once, with its last values. An evaluation between two
    logged steps has its own row. In CSV, text that a spreadsheet would run as a formula is prefixed with ``'``.

    Args:
        replace: whether an existing file may be replaced.
        report: called with the progress, 0 to 1.

    Returns:
        The number of rows.

    Raises:
        WorkbenchError: the suffix is not supported, there is no journal, or the file exists or cannot be written.
    """
    checked_target(file, replace=replace)
    if not run.journal.is_file():
        raise WorkbenchError(f"Run {run.id} has no journal yet.", "Start it first.", kind="no_journal")
    try:
        with atomic_file(file) as temporary:
            rows = _write(run, temporary, file.suffix.lower(), report)
            checked_target(file, replace=replace)
    except OSError as error:
        raise WorkbenchError(
            f"{file} cannot be written: {error.strerror or error}.",
            "Choose another place, or free some disk space.",
            kind="disk",
        ) from None
    return rows


def checked_target(file: Path, *, replace: bool = False) -> None:
    """Check that metrics can be exported to ``file``.

    Raises:
        WorkbenchError: the suffix is not supported, the folder is missing, or the file exists and may not be replaced.
    """
    if file.suffix.lower() not in FORMATS:
        raise WorkbenchError(
            f"{file.name} has no supported file type.", "Use a name ending in .csv or .parquet.", kind="export"
        )
    if not file.parent.is_dir():
        raise WorkbenchError(f"No such folder: {file.parent}.", "Create it first, or choose another.", kind="export")
    if file.is_dir() or (file.exists() and not replace):
        raise WorkbenchError(f"{file} already exists.", "Choose another name.", kind="export")


def _write(run: RunFolder, target: Path, suffix: str, report: Callable[[float], None]) -> int:
    import pyarrow

    plan = _plan(run, report)
    to_type = {
        "whole": pyarrow.int64(),
        "number": pyarrow.float64(),
        "switch": pyarrow.bool_(),
        "text": pyarrow.string(),
    }
    schema = pyarrow.schema([(_text(name, suffix), to_type[kind]) for name, kind in plan.columns.items()])
    rows = 0
    writer = _open_writer(target, suffix, schema)
    try:
        for batch in _batches(_rows(run, plan)):
            columns = [_column([row.get(name) for row in batch], kind, suffix) for name, kind in plan.columns.items()]
            arrays = [pyarrow.array(cells, type_) for cells, type_ in zip(columns, schema.types, strict=True)]
            writer.write_batch(pyarrow.record_batch(arrays, schema=schema))
            rows += len(batch)
            report(0.5 + 0.5 * min(1.0, rows / max(plan.rows, 1)))
    finally:
        writer.close()
    return rows


def _open_writer(target: Path, suffix: str, schema: "pyarrow.Schema") -> _Writer:
    from pyarrow import csv, parquet

    writer: _Writer = csv.CSVWriter(target, schema) if suffix == ".csv" else parquet.ParquetWriter(target, schema)
    return writer


def _plan(run: RunFolder, report: Callable[[float], None]) -> _Plan:
    plan = _Plan()
    size, seen = max(run.journal.stat().st_size, 1), set[tuple[str, type]]()
    for event, read in _events(run):
        plan.last_seq = event.seq
        plan.cuts.add(event)
        if isinstance(event, Step | Eval):
            plan.rows += isinstance(event, Step)
            for name, value in _cells(event).items():
                # Skip the values of a type that the column already includes.
                known = (name, type(value))
                if known in seen:
                    continue
                if isinstance(value, float | bool):
                    seen.add(known)
                kind = _kind(value)
                if kind and (name in plan.columns or len(plan.columns) < _MAX_COLUMNS):
                    plan.columns[name] = _common(plan.columns.get(name, kind), kind)
        report(min(0.5, 0.5 * read / size))
    return plan


def _events(run: RunFolder) -> Iterator[tuple[AnyEvent, int]]:
    """Each event with the number of journal bytes read so far."""
    reader = JournalReader(run.journal)
    for events in reader.blocks():
        for event in events:
            yield event, reader.offset


def _rows(run: RunFolder, plan: _Plan) -> Iterator[Row]:
    """One row per step; an evaluation is added to the row of the step that it followed."""
    row: Row | None = None
    for event in each_event(run.journal):
        if event.seq > plan.last_seq:
            break
        if not isinstance(event, Step | Eval) or plan.cuts.is_discarded(event):
            continue
        cells = _cells(event)
        if isinstance(event, Eval) and row is not None and row.get("step") == cells.get("step"):
            row |= {name: value for name, value in cells.items() if name not in ("step", "time")}
            continue
        if row is not None:
            yield row
        row = {"run": run.id, **cells}
    if row is not None:
        yield row


def _cells(event: Step | Eval) -> Row:
    """An event's fields by column: ``vram.peak`` as ``vram_peak``, and an evaluation's ``loss`` as ``eval_loss``."""
    flat: Row = {}
    for name, value in to_fields(event).items():
        if name in _EXCLUDED_FIELDS:
            continue
        if isinstance(value, dict):
            flat |= {f"{name}_{inner}": item for inner, item in value.items()}
        else:
            flat[name] = value
    if isinstance(event, Eval):
        unprefixed = ("step", "time", "perplexity")
        flat = {name if name in unprefixed else f"eval_{name}": value for name, value in flat.items()}
    return flat


def _kind(value: object) -> Kind | None:
    """The column type for a value, None for no value; the journal writes NaN and infinities as text."""
    match value:
        case None:
            return None
        case bool():
            return "switch"
        case int():
            return "whole" if -(2**63) <= value < 2**63 else "number"
        case float():
            return "number"
        case str() if value in _NON_FINITE:
            return "number"
    return "text"


def _common(one: Kind, other: Kind) -> Kind:
    """The column type that can store both."""
    if one == other:
        return one
    return "number" if {one, other} == {"whole", "number"} else "text"


def _column(cells: list[object], kind: Kind, suffix: str) -> list[object]:
    match kind:
        case "number":
            return [float(cell) if isinstance(cell, int | float | str) else None for cell in cells]
        case "text":
            return [None if cell is None else _text(cell, suffix) for cell in cells]
    return cells


def _text(cell: object, suffix: str) -> str:
    """A cell as UTF-8 text; in CSV, formulas are quoted so that a spreadsheet treats them as text."""
    text = cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False)
    text = text.encode("utf-8", "backslashreplace").decode()
    return f"'{text}" if suffix == ".csv" and text.startswith(_FORMULA_STARTS) else text


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch
