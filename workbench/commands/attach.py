"""``loraworkbench attach``: watch a run that is training in the background, from any terminal."""

from functools import partial
from typing import Annotated

import typer

from workbench.commands.common import JsonOption, console, errors, home_of, run_async
from workbench.commands.output.follow import follow, form_of, summary_line
from workbench.commands.output.lines import one_line
from workbench.commands.slurm import follow_job
from workbench.commands.train import WatchOption
from workbench.engine.client.client import EngineClient
from workbench.engine.client.process import find_engine, is_training
from workbench.errors import WorkbenchError
from workbench.planning.slurm import SlurmJob
from workbench.runs.folder import RunFolder, find_run, summarise
from workbench.runs.replay import Replay
from workbench.runs.summary import RunSummary
from workbench.storage.paths import Home


def attach(
    context: typer.Context,
    run: Annotated[str | None, typer.Argument(help="A run's id, id prefix or folder. Default: the live run.")] = None,
    watch: WatchOption = False,
    as_json: JsonOption = False,
) -> None:
    """Watch a run to its end: a summary so far, then live. Ctrl-C does not stop the run.

    With --json every event of its journal is printed, from the first on.
    """
    home = home_of(context)
    form = form_of(as_json=as_json, watch=watch)

    async def work() -> None:
        folder = await _find(home, run)
        summary, newest = _summarise(folder)
        if not as_json:
            console.print(one_line(summary_line(summary)), markup=False, soft_wrap=True)
        summary = await _follow(home, folder, newest if form != "json" else 0)
        if not as_json:
            console.print(one_line(summary_line(summary)), markup=False, soft_wrap=True)

    async def _follow(home: Home, folder: RunFolder, show_from: int) -> RunSummary:
        if (job := SlurmJob.of(folder)) is not None and summarise(folder).state in ("new", "running"):
            return await follow_job(folder, job, form, show_from=show_from)
        client = EngineClient(home)
        try:
            return await follow(folder, partial(is_training, home, client, folder.id), form, show_from=show_from)
        finally:
            await client.close()

    try:
        run_async(work())
    except typer.Exit:
        errors.print("The run keeps running in the background. `loraworkbench attach` shows it again.", markup=False)
        raise


async def _find(home: Home, name: str | None) -> RunFolder:
    """The named run, or the live one."""
    if name is not None:
        return find_run(home, name)
    status = await find_engine(home)
    if status is None or status.run is None:
        raise WorkbenchError(
            "No run is live.",
            "`loraworkbench runs` lists all runs, `loraworkbench train --resume RUN` resumes one.",
            kind="no_run",
        )
    return find_run(home, status.run_folder or status.run)


def _summarise(run: RunFolder) -> tuple[RunSummary, int]:
    """The run's summary, and the number of its newest progress event."""
    replay = Replay.of(run.journal)
    replay.summary.settle()
    newest = max(replay.phase.seq, replay.step.seq if replay.step is not None else 0, 0)
    return replay.summary, newest
