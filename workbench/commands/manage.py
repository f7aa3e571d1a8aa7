"""``loraworkbench runs rename|tag|delete|trash|restore``: what runs are called, and which are kept."""

import sys
from datetime import datetime
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from workbench.commands.common import JsonOption, amount, console, home_of, print_json, printable, run_async
from workbench.errors import WorkbenchError
from workbench.runs.folder import RunFolder, find_run
from workbench.runs.label import parse_tags
from workbench.runs.library.naming import rename_run, tag_run
from workbench.runs.library.trash import Trashed, delete_run, empty_trash, restore_run, trashed_runs
from workbench.storage.paths import Home

RunArgument = Annotated[str, typer.Argument(help="A run's id, name or folder.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def rename(
    context: typer.Context, run: RunArgument, name: Annotated[str, typer.Argument(help="Empty takes it back.")]
) -> None:
    """Give a run a name. Its id and its folder stay, so that nothing that refers to it breaks; both find it."""
    home = home_of(context)
    folder = find_run(home, run)
    label = rename_run(home, folder, name)
    _say(f"{folder.id} is called {label.name} now." if label.name else f"{folder.id} has no other name now.")


def tag(
    context: typer.Context,
    run: RunArgument,
    tags: Annotated[list[str] | None, typer.Argument(help="Tags to add.")] = None,
    remove: Annotated[
        list[str] | None, typer.Option("--remove", "-r", metavar="TAG", help="Take this one off.")
    ] = None,
) -> None:
    """Give a run tags; without one, show those it has."""
    folder = find_run(home_of(context), run)
    add, less = parse_tags(" ".join(tags or [])), parse_tags(" ".join(remove or []))
    label = tag_run(folder, add, less) if add or less else folder.label
    _say(f"{folder.name}: {' '.join(f'#{tag}' for tag in label.tags) or 'no tags'}")


def delete(
    context: typer.Context,
    runs: Annotated[list[str], typer.Argument(help="Ids, names or folders.", metavar="RUN...")],
    yes: YesOption = False,
) -> None:
    """Move runs into the trash, from where `runs restore` brings them back. A live run is refused."""
    home = home_of(context)
    folders = list({run.id: run for run in (find_run(home, name) for name in runs)}.values())
    _ask(f"Move {', '.join(run.name for run in folders)} into the trash?", yes)
    run_async(_delete(home, folders))


async def _delete(home: Home, folders: list[RunFolder]) -> None:
    from workbench.engine.client.process import find_engine

    engine = await find_engine(home)
    for run in folders:
        gone = delete_run(home, run, at_work=engine.run if engine else None)
        _say(f"{run.id} is in the trash{_where(gone)}. Back:  loraworkbench runs restore {run.id}")


def restore(context: typer.Context, run: Annotated[str, typer.Argument(help="Its id or name.")]) -> None:
    """Bring a run back from the trash."""
    _say(f"{restore_run(home_of(context), run).id} is back.")


def trash(
    context: typer.Context,
    empty: Annotated[
        bool, typer.Option("--empty", help="Remove for good what is in it, after saying how much.")
    ] = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """List what is in the trash."""
    home = home_of(context)
    there = trashed_runs(home)
    if as_json and not empty:
        for one in there:
            elsewhere = str(one.elsewhere) if one.elsewhere else None
            print_json(
                {"id": one.id, "name": one.name, "deleted": one.deleted, "bytes": one.bytes, "elsewhere": elsewhere}
            )
        return
    if not there:
        console.print("The trash is empty.")
        return
    _show(there)
    if empty:
        count = "1 run" if len(there) == 1 else f"{len(there)} runs"
        size = amount(sum(one.bytes for one in there))
        _ask(f"Remove {count} for good, {size}? Nothing brings them back.", yes)
        empty_trash(home)
        _say(f"{count} removed, {size} freed.")


def _show(there: list[Trashed]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("run", "deleted", "size", ""):
        table.add_column(heading)
    for one in there:
        name = one.name if one.name == one.id else f"{one.name} ({one.id})"
        when = datetime.fromtimestamp(one.deleted).strftime("%Y-%m-%d %H:%M")
        cells = (name, when, "" if one.elsewhere else amount(one.bytes), _where(one).removeprefix("; "))
        table.add_row(*(Text(printable(cell)) for cell in cells))
    console.print(table)


def _where(gone: Trashed) -> str:
    return f"; only its link moved, its folder stays {gone.elsewhere}" if gone.elsewhere else ""


def _ask(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise WorkbenchError(question, "Nobody can answer here: add --yes.", kind="unanswered")
    typer.confirm(printable(question), abort=True)


def _say(text: str) -> None:
    console.print(Text(printable(text)), soft_wrap=True)
