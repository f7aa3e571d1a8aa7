"""``loraworkbench runs compare`` compares runs side by side; ``runs export`` exports metrics as CSV or Parquet."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from workbench.commands.common import JsonOption, console, errors, home_of, print_json, printable
from workbench.errors import WorkbenchError
from workbench.runs.curves.compared import Axis, RunCurves, as_json
from workbench.runs.folder import find_run
from workbench.runs.library.comparison import Rows, difference_rows, metric_rows, recipe_of

# Rows of the table of losses.
_LOSS_ROWS = 10


def compare(
    context: typer.Context,
    runs: Annotated[list[str], typer.Argument(help="Two runs or more: ids, names or folders.", metavar="RUN...")],
    by: Annotated[Axis, typer.Option(help="X axis: step, tokens, or time (training time).")] = "step",
    in_json: JsonOption = False,
) -> None:
    """Compare runs: recipe differences, results and loss."""
    home = home_of(context)
    folders = {run.path.resolve(): run for run in (find_run(home, name) for name in runs)}
    if len(folders) < 2:
        raise WorkbenchError("Comparing needs at least two runs.", "Give two or more runs.", kind="compare")
    curves = []
    with errors.status("reading") as status:
        for run in folders.values():
            status.update(Text(printable(f"reading {run.name}")))
            curves.append(RunCurves(run))
    differences = difference_rows([recipe_of(one.run) for one in curves])
    if in_json:
        print_json({"runs": [as_json(one, by) for one in curves], "differences": dict(differences)})
        return
    names = [one.run.name for one in curves]
    _print("recipe", names, differences or [("no difference", [""] * len(curves))])
    _print("figures", names, metric_rows([one.metrics() for one in curves]))
    if rows := _loss_rows(curves, by):
        _print(f"loss by {by}", names, rows)


def export(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="A run's id, name or folder.")],
    file: Annotated[Path, typer.Argument(help="FILE.csv or FILE.parquet.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Export a run's metrics as CSV or Parquet: one row per step, with held-out metrics."""
    from workbench.runs.library.export_metrics import export_journal

    folder = find_run(home_of(context), run)
    with errors.status("reading") as status:
        rows = export_journal(
            folder, file, replace=force, report=lambda share: status.update(Text(f"writing {share:.0%}"))
        )
    console.print(Text(printable(f"Exported {rows:,} rows to {file}")), soft_wrap=True)


def _print(title: str, names: list[str], rows: Rows) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in (title, *names):
        table.add_column(Text(printable(heading), style="bold"), overflow="fold")
    for label, cells in rows:
        table.add_row(Text(printable(label)), *(Text(printable(cell)) for cell in cells))
    console.print(table)
    console.print()


def _loss_rows(runs: list[RunCurves], by: Axis) -> Rows:
    """The mean loss in equal sections of the axis; blank where a run has no points."""
    curves = [run.curve(by) for run in runs]
    end = max((curve[-1][0] for curve in curves if curve), default=0.0)
    rows: Rows = []
    for number in range(1, _LOSS_ROWS + 1):
        low, high = end * (number - 1) / _LOSS_ROWS, end * number / _LOSS_ROWS
        within = [[y for x, y in curve if low < x <= high] for curve in curves]
        if any(within):
            cells = [f"{sum(losses) / len(losses):.4g}" if losses else "" for losses in within]
            rows.append((_section_label(high, by), cells))
    return rows


def _section_label(x: float, by: Axis) -> str:
    return f"to {x:,.1f} s" if by == "time" else f"to {x:,.0f}"
