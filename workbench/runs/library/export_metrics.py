"""A run's journal as a table for a spreadsheet or a notebook: one row a step, in CSV or Parquet.

The journal is read twice: once for the columns and for what a resume made void, once for the rows, which are written a
batch at a time. However long it is, the memory stays the same.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from workbench.errors import WorkbenchError
from workbench.runs.events import AnyEvent, Eval, Step, to_fields
from workbench.runs.folder import RunFolder
from workbench.runs.journal import JournalReader, each_event
from workbench.runs.replay import Cuts
from workbench.storage.atomic import atomic_file

FORMATS = (".csv", ".parquet")

_BATCH = 5_000
_MOST_COLUMNS = 200

Kind = Literal["whole", "number", "switch", "text"]

# These are always there, in this order, whatever a run wrote; others follow.
_USUAL: dict[str, Kind] = {
    "run": "text", "step": "whole", "max_steps": "whole", "epoch": "number", "time": "number", "seconds": "number",
    "loss": "number", "learning_rate": "number", "grad_norm": "number", "token_accuracy": "number",
    "tokens": "whole", "tokens_per_second": "number", "eval_loss": "number", "perplexity": "number",
    "eval_token_accuracy": "number", "vram_allocated": "whole", "vram_reserved": "whole", "vram_peak": "whole",
    "host_rss": "whole", "host_peak": "whole",
}  # fmt: skip

_LEFT_OUT = {"seq", "event"}
_NO_NUMBERS = {"nan", "inf", "-inf"}
# A cell that begins with one of these is a formula to a spreadsheet (OWASP, "CSV Injection").
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

Row = dict[str, Any]


class _Writer(Protocol):
    def write_batch(self, batch: Any) -> None: ...

    def close(self) -> None: ...


@dataclass
class _Plan:
    """What the first reading found out.

    Attributes:
        columns: name and kind of each.
        cuts: what resumes cut away.
        last: number of the last event; what a live run adds meanwhile is left for another time.
        rows: about how many there will be.
    """

    columns: dict[str, Kind] = field(default_factory=lambda: dict(_USUAL))
    cuts: Cuts = field(default_factory=Cuts)
    last: int = -1
    rows: int = 0


def export_journal(
    run: RunFolder, file: Path, *, replace: bool = False, report: Callable[[float], None] = lambda share: None
) -> int:
    """Write the steps of a run, and its evaluations beside them, into ``file``; its ending says in which form.

    A step that was trained again after a resume is there once, as it was the last time. An evaluation between two
    steps of the curve has a row of its own. In CSV a text that a spreadsheet takes for a formula gets a ' before it.

    Args:
        replace: whether a file of that name may be replaced.
        report: told how much is done, 0 to 1.

    Returns:
        The number of rows.

    Raises:
        WorkbenchError: the ending is another one, there is no journal, the file exists, or the disk refuses.
    """
    checked_target(file, replace=replace)
    if not run.journal.is_file():
        raise WorkbenchError(f"Run {run.id} has no journal yet.", "Start it first.", kind="no_journal")
    try:
        with atomic_file(file) as aside:
            rows = _write(run, aside, file.suffix.lower(), report)
            checked_target(file, replace=replace)
    except OSError as error:
        raise WorkbenchError(
            f"{file} cannot be written: {error.strerror or error}.",
            "Choose another place, or free some disk space.",
            kind="disk",
        ) from None
    return rows


def checked_target(file: Path, *, replace: bool = False) -> None:
    """See whether an export can go there.

    Raises:
        WorkbenchError: the ending is no known one, the folder is missing, or the file exists and must not be replaced.
    """
    if file.suffix.lower() not in FORMATS:
        raise WorkbenchError(
            f"{file.name} has no supported file type.", "Use a name ending in .csv or .parquet.", kind="export"
        )
    if not file.parent.is_dir():
        raise WorkbenchError(f"No such folder: {file.parent}.", "Create it first, or choose another.", kind="export")
    if file.is_dir() or (file.exists() and not replace):
        raise WorkbenchError(f"{file} already exists.", "Choose another name.", kind="export")


def _write(run: RunFolder, aside: Path, form: str, report: Callable[[float], None]) -> int:
    import pyarrow

    plan = _plan(run, report)
    to_type = {
        "whole": pyarrow.int64(),
        "number": pyarrow.float64(),
        "switch": pyarrow.bool_(),
        "text": pyarrow.string(),
    }
    schema = pyarrow.schema([(_text(name, form), to_type[kind]) for name, kind in plan.columns.items()])
    rows = 0
    writer = _writer(aside, form, schema)
    try:
        for batch in _batches(_rows(run, plan)):
            columns = [_column([row.get(name) for row in batch], kind, form) for name, kind in plan.columns.items()]
            arrays = [pyarrow.array(cells, type_) for cells, type_ in zip(columns, schema.types, strict=True)]
            writer.write_batch(pyarrow.record_batch(arrays, schema=schema))
            rows += len(batch)
            report(0.5 + 0.5 * min(1.0, rows / max(plan.rows, 1)))
    finally:
        writer.close()
    return rows


def _writer(aside: Path, form: str, schema: Any) -> _Writer:
    from pyarrow import csv, parquet

    writer: _Writer = csv.CSVWriter(aside, schema) if form == ".csv" else parquet.ParquetWriter(aside, schema)
    return writer


def _plan(run: RunFolder, report: Callable[[float], None]) -> _Plan:
    plan = _Plan()
    size, seen = max(run.journal.stat().st_size, 1), set[tuple[str, type]]()
    for event, read in _events(run):
        plan.last = event.seq
        plan.cuts.add(event)
        if isinstance(event, Step | Eval):
            plan.rows += isinstance(event, Step)
            for name, value in _cells(event).items():
                # All numbers of a column but the first are what it holds already.
                known = (name, type(value))
                if known in seen:
                    continue
                if isinstance(value, float | bool):
                    seen.add(known)
                kind = _kind(value)
                if kind and (name in plan.columns or len(plan.columns) < _MOST_COLUMNS):
                    plan.columns[name] = _common(plan.columns.get(name, kind), kind)
        report(min(0.5, 0.5 * read / size))
    return plan


def _events(run: RunFolder) -> Iterator[tuple[AnyEvent, int]]:
    """Each event, and how many bytes were read by then."""
    reader = JournalReader(run.journal)
    for events in reader.blocks():
        for event in events:
            yield event, reader.offset


def _rows(run: RunFolder, plan: _Plan) -> Iterator[Row]:
    """A row a step; what an evaluation found stands beside the step that it came after."""
    row: Row | None = None
    for event in each_event(run.journal):
        if event.seq > plan.last:
            break
        if not isinstance(event, Step | Eval) or plan.cuts.leave_out(event):
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
    """An event's fields by column: ``vram.peak`` as ``vram_peak``; those of an evaluation apart from the step's."""
    flat: Row = {}
    for name, value in to_fields(event).items():
        if name in _LEFT_OUT:
            continue
        if isinstance(value, dict):
            flat |= {f"{name}_{inner}": found for inner, found in value.items()}
        else:
            flat[name] = value
    if isinstance(event, Eval):
        own = ("step", "time", "perplexity")
        flat = {name if name in own else f"eval_{name}": value for name, value in flat.items()}
    return flat


def _kind(value: object) -> Kind | None:
    """What a cell holds; None where it holds nothing. A journal has words for numbers that JSON lacks."""
    match value:
        case None:
            return None
        case bool():
            return "switch"
        case int():
            return "whole" if -(2**63) <= value < 2**63 else "number"
        case float():
            return "number"
        case str() if value in _NO_NUMBERS:
            return "number"
    return "text"


def _common(one: Kind, other: Kind) -> Kind:
    """A kind that holds both."""
    if one == other:
        return one
    return "number" if {one, other} == {"whole", "number"} else "text"


def _column(cells: list[Any], kind: Kind, form: str) -> list[Any]:
    match kind:
        case "number":
            return [None if cell is None else float(cell) for cell in cells]
        case "text":
            return [None if cell is None else _text(cell, form) for cell in cells]
    return cells


def _text(cell: object, form: str) -> str:
    """A text that can be written, and that a spreadsheet takes for text."""
    text = cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False)
    text = text.encode("utf-8", "backslashreplace").decode()
    return f"'{text}" if form == ".csv" and text.startswith(_FORMULA) else text


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
