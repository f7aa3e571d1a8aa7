"""``loraworkbench runs``: the history, from the journals."""

from dataclasses import asdict
from datetime import datetime

import typer
from rich.table import Table
from rich.text import Text

from workbench.commands.common import JsonOption, console, figure, home_of, print_json, printable
from workbench.runs.folder import RunSummary, all_runs, summarise


def runs(context: typer.Context, as_json: JsonOption = False) -> None:
    """List all runs, newest first. `train --resume RUN` lets one that was interrupted, stopped or failed go on."""
    home = home_of(context)
    found = [(run, summarise(run)) for run in all_runs(home)]
    if as_json:
        for run, summary in found:
            facts = {key: value for key, value in asdict(summary).items() if key != "writer"}
            print_json({**facts, "folder": str(run.path)})
        return
    if not found:
        console.print("No runs yet. `loraworkbench demo` makes the first one.")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("run", "state", "model", "steps", "loss", "held-out perplexity", "started"):
        table.add_column(heading, justify="right" if heading in ("steps", "loss") else "left")
    for _, summary in found:
        table.add_row(*(Text(printable(cell)) for cell in _cells(summary)))
    console.print(table)


def _cells(summary: RunSummary) -> list[str]:
    base, tuned = summary.perplexity.get("base"), summary.perplexity.get("tuned")
    return [
        summary.id,
        summary.state,
        summary.model,
        f"{summary.step}/{summary.max_steps}" if summary.max_steps else str(summary.step),
        figure(summary.loss, 3) if summary.loss is not None else "",
        " → ".join(figure(value) for value in (base, tuned) if value),
        datetime.fromtimestamp(summary.started).strftime("%Y-%m-%d %H:%M") if summary.started else "",
    ]
