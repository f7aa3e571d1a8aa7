"""``loraworkbench attach``: watch a run that the engine has, from any terminal."""

from typing import Annotated

import typer

from workbench.commands.common import JsonOption, console, errors, home_of, run_async
from workbench.commands.output.follow import follow, form_of, in_short
from workbench.commands.output.lines import one_line
from workbench.commands.train import WatchOption
from workbench.engine.client.client import EngineClient
from workbench.engine.client.process import engine_pid, find_engine
from workbench.errors import WorkbenchError
from workbench.runs.folder import RunFolder, RunSummary, find_run
from workbench.runs.journal import each_event
from workbench.storage.paths import Home


def attach(
    context: typer.Context,
    run: Annotated[str | None, typer.Argument(help="A run's id, prefix or folder; the live one without it.")] = None,
    watch: WatchOption = False,
    as_json: JsonOption = False,
) -> None:
    """Watch a run to its end: what was so far in short, then live. Ctrl-C leaves the run alone.

    With --json every event of its journal is printed, from the first on.
    """
    home = home_of(context)
    form = form_of(as_json=as_json, watch=watch)

    async def work() -> None:
        folder = await _wanted(home, run)
        summary, newest = _so_far(folder)
        if not as_json:
            console.print(one_line(in_short(summary)), markup=False, soft_wrap=True)
        summary = await _follow(home, folder, newest if form != "json" else 0)
        if not as_json:
            console.print(one_line(in_short(summary)), markup=False, soft_wrap=True)

    async def _follow(home: Home, folder: RunFolder, told_from: int) -> RunSummary:
        client = EngineClient(home)

        async def is_live() -> bool:
            try:
                return (await client.status()).run == folder.id
            except WorkbenchError:
                return engine_pid(home) is not None

        try:
            return await follow(folder, is_live, form, told_from=told_from)
        finally:
            await client.close()

    try:
        run_async(work())
    except typer.Exit:
        errors.print("Left the run to the engine; `loraworkbench attach` watches it again.", markup=False)
        raise


async def _wanted(home: Home, name: str | None) -> RunFolder:
    if name is not None:
        return find_run(home, name)
    status = await find_engine(home)
    if status is None or status.run is None:
        raise WorkbenchError(
            "No run is live.",
            "`loraworkbench runs` lists those there are, `loraworkbench train --resume RUN` lets one go on.",
            kind="no_run",
        )
    return find_run(home, status.run_folder or status.run)


def _so_far(run: RunFolder) -> tuple[RunSummary, int]:
    """What the journal says until now, and the number of the newest event that tells how far the run is."""
    summary, newest = RunSummary(run.id), 0
    for event in each_event(run.journal):
        summary.add(event)
        if event["event"] in ("phase", "step"):
            newest = event.get("seq", newest)
    summary.settle()
    return summary, newest
