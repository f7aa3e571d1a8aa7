"""``loraworkbench runs``: list all runs; the subcommands compare, name, tag, delete and export them."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from workbench.commands import compare, manage
from workbench.commands.common import JsonOption, console, figure, home_of, print_json, printable
from workbench.errors import WorkbenchError
from workbench.runs.folder import all_runs, summarise
from workbench.runs.library.listing import ORDERS, ListedRun, matches, sort_runs
from workbench.runs.summary import RunSummary
from workbench.storage.paths import Home

app = typer.Typer(invoke_without_command=True, help="List and manage runs.")
app.command()(compare.compare)
app.command()(manage.rename)
app.command()(manage.tag)
app.command()(manage.delete)
app.command()(manage.trash)
app.command()(manage.restore)
app.command()(compare.export)


@app.callback()
def runs(
    context: typer.Context,
    words: Annotated[
        str, typer.Option("--filter", metavar="WORDS", help="Filter by words in name, model, state or #tag.")
    ] = "",
    sort: Annotated[str, typer.Option(help=f"{', '.join(ORDERS)}. A leading minus reverses the order.")] = "",
    as_json: JsonOption = False,
) -> None:
    """List all runs, newest first. `train --resume RUN` resumes an interrupted, stopped or failed run."""
    if context.invoked_subcommand is not None:
        return
    all_listed = listed_runs(home_of(context))
    found = _sorted([one for one in all_listed if matches(one, words)], sort)
    if as_json:
        for one in found:
            print_json(run_facts(one))
    elif found:
        _show(found)
    elif all_listed:
        console.print(Text(printable(f"None of the {len(all_listed)} runs matches {words}.")), soft_wrap=True)
    else:
        console.print("No runs yet. `loraworkbench demo` starts one.")


def listed_runs(home: Home) -> list[ListedRun]:
    """All runs with their summaries and labels, newest first."""
    return [ListedRun(run, summarise(run), run.label) for run in all_runs(home)]


def run_facts(one: ListedRun) -> dict[str, object]:
    """What ``loraworkbench runs --json`` prints of a run."""
    facts = {key: value for key, value in asdict(one.summary).items() if key != "writer"}
    return {**facts, "name": one.name, "tags": one.label.tags, "folder": str(one.run.path)}


def _sorted(found: list[ListedRun], sort: str) -> list[ListedRun]:
    column = sort.removeprefix("-")
    if column and column not in ORDERS:
        raise WorkbenchError(f"Runs cannot be sorted by {column}.", f"Sort by {', '.join(ORDERS)}.", kind="sort")
    return sort_runs(found, column, reverse=sort.startswith("-")) if column else found


def _show(found: list[ListedRun]) -> None:
    has_tags = any(one.label.tags for one in found)
    table = Table(box=None, pad_edge=False)
    for heading in ("run", "state", "model", "steps", "loss", "held-out perplexity", "started"):
        table.add_column(heading, justify="right" if heading in ("steps", "loss") else "left", overflow="fold")
    if has_tags:
        table.add_column("tags", overflow="fold")
    for one in found:
        cells = [one.run.title, *_cells(one.summary), *([one.tags] if has_tags else [])]
        table.add_row(*(Text(printable(cell)) for cell in cells))
    console.print(table)


def _cells(summary: RunSummary) -> list[str]:
    base, tuned = summary.perplexity.get("base"), summary.perplexity.get("tuned")
    return [
        summary.state,
        summary.model,
        f"{summary.step}/{summary.max_steps}" if summary.max_steps else str(summary.step),
        figure(summary.loss, 3) if summary.loss is not None else "",
        " → ".join(figure(value) for value in (base, tuned) if value),
        datetime.fromtimestamp(summary.started).strftime("%Y-%m-%d %H:%M") if summary.started else "",
    ]
