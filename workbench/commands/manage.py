"""``loraworkbench runs rename|tag|delete|trash|restore``: manage the names, tags and deletion of runs."""

import sys
from datetime import datetime
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from workbench.commands.common import JsonOption, console, home_of, print_json, printable, run_async
from workbench.errors import WorkbenchError
from workbench.runs.folder import RunFolder, find_run
from workbench.runs.label import parse_tags
from workbench.runs.library.naming import rename_run, tag_run
from workbench.runs.library.trash import TrashedRun, delete_run, empty_trash, restore_run, trashed_runs
from workbench.storage.paths import Home
from workbench.units import file_size

RunArgument = Annotated[str, typer.Argument(help="A run's id, name or folder.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]


def rename(
    context: typer.Context,
    run: RunArgument,
    name: Annotated[str, typer.Argument(help="New name. Leave empty to remove the name.")],
) -> None:
    """Name a run. Its id and folder stay the same; both the name and the id find it."""
    home = home_of(context)
    folder = find_run(home, run)
    label = rename_run(home, folder, name)
    _say(f"Renamed {folder.id} to {label.name}." if label.name else f"Removed the name of {folder.id}.")


def tag(
    context: typer.Context,
    run: RunArgument,
    tags: Annotated[list[str] | None, typer.Argument(help="Tags to add.")] = None,
    remove: Annotated[list[str] | None, typer.Option("--remove", "-r", metavar="TAG", help="Remove this tag.")] = None,
) -> None:
    """Add or remove tags of a run. Without options, show its tags."""
    folder = find_run(home_of(context), run)
    add, remove_tags = parse_tags(" ".join(tags or [])), parse_tags(" ".join(remove or []))
    label = tag_run(folder, add, remove_tags) if add or remove_tags else folder.label
    _say(f"{folder.name}: {' '.join(f'#{tag}' for tag in label.tags) or 'no tags'}")


def delete(
    context: typer.Context,
    runs: Annotated[list[str], typer.Argument(help="Ids, names or folders.", metavar="RUN...")],
    yes: YesOption = False,
) -> None:
    """Move runs to the trash. `runs restore` restores them. A live run cannot be deleted."""
    home = home_of(context)
    folders = list({run.id: run for run in (find_run(home, name) for name in runs)}.values())
    _ask(f"Move {', '.join(run.name for run in folders)} to the trash?", yes)
    run_async(_delete(home, folders))


async def _delete(home: Home, folders: list[RunFolder]) -> None:
    from workbench.engine.client.process import find_engine

    engine = await find_engine(home)
    for run in folders:
        trashed = delete_run(home, run, live_run=engine.run if engine else None)
        _say(f"Moved {run.id} to the trash{_where(trashed)}. Undo:  loraworkbench runs restore {run.id}")


def restore(context: typer.Context, run: Annotated[str, typer.Argument(help="The run's id or name.")]) -> None:
    """Restore a run from the trash."""
    _say(f"Restored {restore_run(home_of(context), run).id}.")


def trash(
    context: typer.Context,
    empty: Annotated[bool, typer.Option("--empty", help="Permanently delete its contents, after asking.")] = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """List the runs in the trash."""
    home = home_of(context)
    trashed = trashed_runs(home)
    if as_json and not empty:
        for run in trashed:
            target = str(run.link_target) if run.link_target else None
            print_json(
                {"id": run.id, "name": run.name, "deleted": run.deleted, "bytes": run.bytes, "elsewhere": target}
            )
        return
    if not trashed:
        console.print("The trash is empty.")
        return
    _show(trashed)
    if empty:
        count = "1 run" if len(trashed) == 1 else f"{len(trashed)} runs"
        size = file_size(sum(run.bytes for run in trashed), 2)
        _ask(f"Permanently delete {count} ({size})? This cannot be undone.", yes)
        empty_trash(home)
        _say(f"Deleted {count}, freed {size}.")


def _show(trashed: list[TrashedRun]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("run", "deleted", "size", ""):
        table.add_column(heading)
    for run in trashed:
        name = run.name if run.name == run.id else f"{run.name} ({run.id})"
        when = datetime.fromtimestamp(run.deleted).strftime("%Y-%m-%d %H:%M")
        cells = (name, when, "" if run.link_target else file_size(run.bytes, 2), _where(run).removeprefix("; "))
        table.add_row(*(Text(printable(cell)) for cell in cells))
    console.print(table)


def _where(trashed: TrashedRun) -> str:
    return f"; only its link moved, its folder stays at {trashed.link_target}" if trashed.link_target else ""


def _ask(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise WorkbenchError(question, "No terminal to confirm on: add --yes.", kind="unanswered")
    typer.confirm(printable(question), abort=True)


def _say(text: str) -> None:
    console.print(Text(printable(text)), soft_wrap=True)
