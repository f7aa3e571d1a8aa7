"""``loraworkbench train``: hand a recipe to the engine and watch."""

import asyncio
import signal
from contextlib import suppress
from typing import Annotated

import typer
from rich.text import Text

from workbench.commands.common import (
    JsonOption,
    SetOption,
    console,
    errors,
    home_of,
    printable,
    recipe_from,
    run_async,
)
from workbench.commands.follow import follow
from workbench.engine.client import EngineClient
from workbench.engine.process import engine_pid, ensure_engine
from workbench.errors import WorkbenchError
from workbench.paths import Home
from workbench.recipe import Recipe
from workbench.runs.folder import RunFolder, RunSummary, find_run


def train(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help="A recipe file (YAML) or the name of a preset.")],
    assignments: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a recipe. The engine goes on when this command or the line ends; Ctrl-C stops the run and saves it."""
    home = home_of(context)
    chosen = recipe_from(home, recipe, assignments)

    async def work() -> None:
        run, summary = await train_and_follow(home, chosen, as_json=as_json)
        if not as_json:
            console.print(f"{run.id} {summary.state} after {summary.step} steps.", markup=False)
            if run.adapter.is_dir():
                console.print(Text(f"Adapter: {printable(str(run.adapter))}"), soft_wrap=True)
                console.print(f"Try it:  loraworkbench chat {run.id}", markup=False)

    run_async(work())


async def train_and_follow(home: Home, recipe: Recipe, *, as_json: bool) -> tuple[RunFolder, RunSummary]:
    """Start a run and watch it to its end; the first Ctrl-C stops and saves it, the second leaves it alone.

    Raises:
        WorkbenchError: the engine does not start or is busy; the run fails.
    """
    await ensure_engine(home)
    client = EngineClient(home)
    try:
        run = find_run(home, await client.train(recipe))

        async def is_live() -> bool:
            try:
                return (await client.status()).run == run.id
            except WorkbenchError:
                # An engine too busy to answer still has its process.
                return engine_pid(home) is not None

        with _StopOnInterrupt(client, run):
            summary = await follow(run, is_live, as_json=as_json)
        # The journal's last line is there a moment before the engine takes other work.
        with suppress(WorkbenchError):
            while (await client.status()).run == run.id:
                await asyncio.sleep(0.05)
        return run, summary
    finally:
        await client.close()


class _StopOnInterrupt:
    """While active, the first Ctrl-C asks the engine to stop and save; the next one ends the command only."""

    def __init__(self, client: EngineClient, run: RunFolder) -> None:
        self._client = client
        self._run = run
        self._asked: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._interrupted)

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)

    def _interrupted(self) -> None:
        if self._asked is not None:
            errors.print(f"Left {self._run.id} to the engine.", markup=False)
            raise KeyboardInterrupt
        errors.print("Stopping and saving … (Ctrl-C again leaves the run to the engine)", markup=False)
        self._asked = asyncio.ensure_future(self._stop())

    async def _stop(self) -> None:
        try:
            await self._client.stop(save=True)
        except WorkbenchError as error:
            if error.kind != "no_run":  # it has just ended by itself
                errors.print(Text(printable(str(error))))
