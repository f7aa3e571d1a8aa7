"""``loraworkbench engine status|stop|restart``: manage the background process that uses the GPU."""

from typing import Annotated

import typer

from workbench.commands.common import JsonOption, console, home_of, print_json, printable, run_async
from workbench.engine.client.kill_engine import kill_engine, what_is_kept
from workbench.engine.client.process import engine_pid, ensure_engine, find_engine, last_lines, stop_engine
from workbench.engine.client.protocol import EngineStatus
from workbench.errors import WorkbenchError
from workbench.runs.folder import find_run
from workbench.storage.paths import Home
from workbench.units import gib

app = typer.Typer(help="The engine: the background process that uses the GPU.", no_args_is_help=True)
ForceOption = Annotated[bool, typer.Option("--force", help="Also while a run is live: stop and save it first.")]


@app.command()
def status(context: typer.Context, as_json: JsonOption = False) -> None:
    """Show what the engine is doing and the memory it uses."""
    home = home_of(context)

    async def work() -> None:
        found = await find_engine(home)
        if found is None and (pid := engine_pid(home)):
            raise WorkbenchError(
                f"The engine (process {pid}) does not answer.\n{last_lines(home.engine_log)}",
                "`loraworkbench engine restart` ends it and starts a new one.",
            )
        if as_json:
            print_json({"running": found is not None, **(found.model_dump() if found else {})})
        elif found:
            _show(found)
        else:
            console.print("No engine is running. It starts when needed.")

    run_async(work())


@app.command()
def stop(
    context: typer.Context,
    force: ForceOption = False,
    now: Annotated[
        bool, typer.Option("--now", help="Force-kill it; a live run keeps its last checkpoint and can be resumed.")
    ] = False,
) -> None:
    """Stop the engine and release all its memory."""
    home = home_of(context)

    async def work() -> None:
        if now:
            await _kill(home)
            return
        await _refuse_while_live(home, force)
        console.print("Engine stopped." if await stop_engine(home) else "No engine was running.")

    run_async(work())


@app.command()
def restart(context: typer.Context, force: ForceOption = False) -> None:
    """Restart the engine. This releases all VRAM."""
    home = home_of(context)

    async def work() -> None:
        await _refuse_while_live(home, force)
        await stop_engine(home)
        console.print(f"Started a new engine (process {(await ensure_engine(home)).pid}).")

    run_async(work())


async def _kill(home: Home) -> None:
    found = await find_engine(home)
    if not await kill_engine(home):
        console.print("No engine was running.")
        return
    console.print("Engine killed.")
    if found and found.run:
        run = find_run(home, found.run_folder or found.run)
        console.print(
            f"{run.id} {what_is_kept(run)}. Resume:  loraworkbench train --resume {run.id}",
            markup=False,
            soft_wrap=True,
        )


async def _refuse_while_live(home: Home, force: bool) -> None:
    found = await find_engine(home)
    if found and found.run and not force:
        raise WorkbenchError(
            f"Run {found.run} is live.",
            "Add --force to stop and save it first, --now to kill it at once, or wait until it ends.",
            kind="busy",
        )


def _show(found: EngineStatus) -> None:
    console.print(
        f"engine   process {found.pid}, {found.state}{', run ' + found.run if found.run else ''}", markup=False
    )
    if found.progress:
        console.print(f"progress {printable(found.progress.phase)} {printable(found.progress.detail)}", markup=False)
    if found.model:
        console.print(
            f"model    {printable(found.model.source)} as {found.model.method}, {gib(found.model.bytes, 2)}",
            markup=False,
        )
    if found.device:
        device = found.device
        console.print(f"device   {printable(device.name)}, {gib(device.total_bytes, 2)}", markup=False)
        if device.kind == "cuda":
            console.print(f"VRAM     {gib(found.allocated, 2)} allocated, {gib(found.reserved, 2)} reserved")
