"""``loraworkbench calibration``: compare predicted and measured peak memory of the runs."""

from dataclasses import asdict

import typer
from rich.table import Table
from rich.text import Text

from workbench.commands.common import JsonOption, console, home_of, print_json, printable
from workbench.runs.folder import all_runs, summarise
from workbench.runs.library.calibration import TOLERANCE, Calibration, Comparison, calibrate
from workbench.units import gib


def calibration(context: typer.Context, as_json: JsonOption = False) -> None:
    """Compare the predicted peaks of this home's runs with the measured ones."""
    runs = all_runs(home_of(context))
    result = calibrate(summarise(run) for run in runs)
    if as_json:
        print_json(
            {
                "count": len(result.runs),
                "mean": result.mean,
                "bias": result.bias,
                "worst": result.worst,
                "runs": [asdict(run) for run in result.runs],
            }
        )
    elif not result.runs:
        subject = f"None of the {len(runs)} runs has" if runs else "There are no runs with"
        console.print(f"{subject} both a predicted and a measured peak. Peaks are measured on a CUDA GPU only.")
    else:
        _show(result)


def _show(result: Calibration) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("run", "model", "predicted", "measured", "error", "reserved", "by", "suspect"):
        table.add_column(heading, justify="right" if heading in ("predicted", "measured", "error") else "left")
    for run in result.runs:
        table.add_row(*(Text(printable(cell)) for cell in _cells(run)))
    console.print(table)
    count = len(result.runs)
    console.print(
        f"\n{count} {'run' if count == 1 else 'runs'}, allocated memory: mean error {result.mean:.2%}, "
        f"bias {result.bias:+.2%}, worst {result.worst:.2%}. The suspect column is filled in for "
        f"errors above {TOLERANCE:.0%}."
    )


def _cells(run: Comparison) -> list[str]:
    reserved = f"{gib(run.predicted_reserved, 2)} / {gib(run.measured_reserved, 2)}"
    return [
        run.run,
        run.model,
        gib(run.predicted, 2),
        gib(run.measured, 2),
        f"{run.error:+.2%}",
        reserved,
        run.method,
        run.suspect.replace("_", " "),
    ]
