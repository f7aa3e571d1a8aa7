"""``loraworkbench train``: start or resume a run in the background engine, and watch it."""

import asyncio
import signal
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from workbench.commands.common import (
    JsonOption,
    SetOption,
    console,
    errors,
    home_of,
    print_json,
    printable,
    recipe_from,
    run_async,
)
from workbench.commands.data_questions import ask_about_data
from workbench.commands.launcher import (
    ConfigOption,
    GpusOption,
    LauncherOption,
    MachinesOption,
    ProcessesOption,
    WriteOption,
    launch_of,
    write_for_cluster,
)
from workbench.commands.output.follow import Form, follow, form_of
from workbench.commands.slurm import (
    GresOption,
    PartitionOption,
    SbatchOption,
    SlurmFlag,
    SlurmRequest,
    TimeOption,
    given_options,
    train_on_slurm,
)
from workbench.engine.client.client import EngineClient
from workbench.engine.client.informant import EngineInformant
from workbench.engine.client.kill_engine import kill_engine, what_is_kept
from workbench.engine.client.process import ensure_engine, is_training
from workbench.engine.client.protocol import StopRequest
from workbench.engine.client.requests import resume_request, train_request
from workbench.engine.client.run_events import wait_until_released
from workbench.errors import WorkbenchError
from workbench.planning.launch import Launch
from workbench.recipe.schema import Recipe
from workbench.runs.folder import RunFolder, summarise
from workbench.runs.on_end import call_on_end
from workbench.runs.summary import RunSummary
from workbench.storage.paths import Home
from workbench.units import gib

WatchOption = Annotated[
    bool,
    typer.Option(
        "--watch",
        help="Print one plain line per logged step, without control sequences. Default if the output "
        "is not a terminal.",
    ),
]


def train(
    context: typer.Context,
    recipe: Annotated[str | None, typer.Argument(help="A recipe file (YAML) or the name of a preset.")] = None,
    assignments: SetOption = None,
    resume: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Resume this run from its last complete checkpoint, with its own recipe."),
    ] = None,
    watch: WatchOption = False,
    detach: Annotated[bool, typer.Option("--detach", help="Start the run in the background and return.")] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Start even if the run is predicted not to fit, or truncation removes many responses."
        ),
    ] = False,
    launcher: LauncherOption = None,
    num_processes: ProcessesOption = None,
    gpus: GpusOption = None,
    config_file: ConfigOption = None,
    num_machines: MachinesOption = None,
    write: WriteOption = None,
    slurm: SlurmFlag = False,
    partition: PartitionOption = None,
    time_limit: TimeOption = None,
    gres: GresOption = None,
    sbatch: SbatchOption = None,
    on_end: Annotated[
        str | None,
        typer.Option(
            "--on-end",
            metavar="CMD",
            help="Call this command at the end of the run, without a shell; it gets the journal's last event as JSON "
            "on standard input. The setting on_end is a command for every run, also without a terminal.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train a recipe, or resume a run. Training continues in the background if this command or the connection ends.

    Ctrl-C stops the run and saves it; a second one kills the engine, and the last checkpoint is kept.
    """
    home = home_of(context)
    if on_end and detach:
        raise WorkbenchError(
            "--on-end needs this command to stay until the run ends.",
            "Omit --detach, or set on_end in settings.json: the engine calls it.",
            kind="bad_request",
        )
    if (recipe is None) == (resume is None):
        raise WorkbenchError(
            "No recipe given." if recipe is None else "A resumed run uses its own recipe.",
            "Give a recipe, or --resume RUN.",
            kind="bad_request",
        )
    if resume is not None and assignments:
        raise WorkbenchError(
            "A resumed run keeps its recipe.",
            "Omit --set. `loraworkbench control` changes learning rate and max steps of a live run.",
            kind="bad_request",
        )
    chosen = None if recipe is None else recipe_from(home, recipe, assignments)
    form = form_of(as_json=as_json, watch=watch)
    launch = launch_of(launcher, num_processes, gpus, config_file, num_machines)
    request = SlurmRequest(partition, time_limit, gres, tuple(sbatch or ()))
    given_options(request, slurm=slurm, write=write, extra={"--force": force, "--gpus": gpus is not None})
    if slurm:
        _train_on_slurm(home, chosen or str(resume), request, launch, form, num_machines, on_end, detach=detach)
        return
    if write is not None and chosen is not None:
        write_for_cluster(home, chosen, launch, num_machines, write, as_json=as_json)
        return
    if write is not None or num_machines is not None:
        raise WorkbenchError(
            "A run on several machines cannot be started by this command.",
            "Give a recipe and --write DIR: it writes the files for the machines.",
            kind="launch",
        )

    async def work() -> None:
        await ensure_engine(home)
        client = EngineClient(home)
        try:
            if chosen is not None and not force:
                await refuse_what_does_not_fit(home, client, chosen, launch)
                await ask_about_data(client, chosen)
            run, seq = await _begin(client, chosen, resume, launch)
            if detach:
                _print_detached(run, seq, as_json=as_json)
                return
            try:
                summary = await _watch(home, client, run, form, after=seq)
            finally:
                await _call_on_end(on_end, run)
        finally:
            await client.close()
        if not as_json:
            _print_end(run, summary)

    run_async(work())


def _train_on_slurm(
    home: Home,
    start: Recipe | str,
    request: SlurmRequest,
    launch: Launch | None,
    form: Form,
    machines: int | None,
    on_end: str | None,
    *,
    detach: bool,
) -> None:
    async def work() -> None:
        run, summary = await train_on_slurm(home, start, request, launch, form, machines=machines, detach=detach)
        if summary is not None:
            await _call_on_end(on_end, run)
            if form != "json":
                _print_end(run, summary, resume_option=" --slurm")

    run_async(work())


async def train_and_follow(home: Home, recipe: Recipe, *, as_json: bool) -> tuple[RunFolder, RunSummary]:
    """Start a run and watch it to its end; the first Ctrl-C stops and saves it, the second kills the engine.

    Raises:
        WorkbenchError: the engine does not start or is busy; the run fails.
    """
    await ensure_engine(home)
    client = EngineClient(home)
    try:
        run, seq = await _begin(client, recipe, None, None)
        return run, await _watch(home, client, run, form_of(as_json=as_json, watch=False), after=seq)
    finally:
        await client.close()


async def _call_on_end(command: str | None, run: RunFolder) -> None:
    """Call the command if the run is over, and say why if it failed."""
    if command and summarise(run).state not in ("new", "running"):
        failure = await asyncio.to_thread(call_on_end, command, run)
        if failure:
            errors.print(Text(printable(failure)), soft_wrap=True)


async def _begin(
    client: EngineClient, recipe: Recipe | None, resume: str | None, launch: Launch | None
) -> tuple[RunFolder, int]:
    """Start or resume a run; returns it with the number of its journal's last event before that."""
    if recipe is not None:
        started = await client.train(train_request(recipe, launch))
    else:
        started = await client.resume(resume_request(str(resume), launch))
    return RunFolder(Path(started.folder)), started.seq


async def _watch(home: Home, client: EngineClient, run: RunFolder, form: Form, *, after: int) -> RunSummary:
    is_live = partial(is_training, home, client, run.id)
    interrupts = _StopOnInterrupt(home, client, run)
    try:
        with interrupts:
            # An end before this start, or before this resume, is not the end that is waited for.
            summary = await follow(run, is_live, form, after=after, show_from=after + 1)
    except WorkbenchError:
        if interrupts.killing is None:
            raise
        await interrupts.killing
        raise KeyboardInterrupt from None  # ends the command with 130
    await wait_until_released(client, run.id)
    return summary


async def refuse_what_does_not_fit(home: Home, client: EngineClient, recipe: Recipe, launch: Launch | None) -> None:
    """Predict the run's peak and compare it with the memory that is free now.

    Raises:
        WorkbenchError: it does not fit, with changes that make it fit; kind ``no_room``.
    """
    from workbench.estimate import TraceStore
    from workbench.planning.memory import budget_now
    from workbench.planning.start_checks import foresee

    budget = await asyncio.to_thread(budget_now, home, await client.status(), launch)
    verdict = await foresee(EngineInformant(client), recipe, budget, TraceStore(home.cache / "traces"))
    if not verdict or verdict.may_start:
        return
    cures = [
        f"  {_as_options(cure.changes)}  ({gib(cure.peak_bytes, 2)}, costs {cure.cost})"
        for cure in verdict.suggestions[:3]
    ]
    changes = "Any of these changes makes it fit:\n" + "\n".join(cures) if cures else "No single change makes it fit."
    raise WorkbenchError(
        f"This run does not fit. {verdict.sentence}",
        f"{changes}\nOr add --force to start anyway.",
        kind="no_room",
    )


def _as_options(changes: Mapping[str, object]) -> str:
    """Changes to a recipe as ``--set`` options."""
    values = {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in changes.items()}
    return " ".join(f"--set {key}={value}" for key, value in values.items())


def _print_detached(run: RunFolder, seq: int, *, as_json: bool) -> None:
    if as_json:
        print_json({"run": run.id, "folder": str(run.path), "seq": seq})
    else:
        console.print(f"{run.id} is running in the background. Watch it:  loraworkbench attach {run.id}", markup=False)


def _print_end(run: RunFolder, summary: RunSummary, *, resume_option: str = "") -> None:
    console.print(f"{run.id} {summary.state} after {summary.step} steps.", markup=False)
    if run.adapter.is_dir():
        console.print(Text(f"Adapter: {printable(str(run.adapter))}"), soft_wrap=True)
        console.print(f"Try it:  loraworkbench chat {run.id}", markup=False)
    if summary.state == "stopped" and summary.reason != "discarded":
        console.print(f"Resume:  loraworkbench train --resume {run.id}{resume_option}", markup=False)


class _StopOnInterrupt:
    """While active, the first Ctrl-C stops and saves the run; the next one kills the engine."""

    def __init__(self, home: Home, client: EngineClient, run: RunFolder) -> None:
        self._home = home
        self._client = client
        self._run = run
        self._stopping: asyncio.Task[None] | None = None
        self.killing: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._interrupted)

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)

    def _interrupted(self) -> None:
        if self._stopping is None:
            errors.print(
                f"Stopping {self._run.id} after this step and saving it … (Ctrl-C again kills the engine: "
                f"the run {what_is_kept(self._run)}, and `loraworkbench train --resume {self._run.id}` "
                "resumes it)",
                markup=False,
                soft_wrap=True,
            )
            self._stopping = asyncio.ensure_future(self._stop())
        elif self.killing is None:
            self.killing = asyncio.ensure_future(self._kill())

    async def _stop(self) -> None:
        try:
            await self._client.stop(StopRequest(save=True))
        except WorkbenchError as error:
            if error.kind != "no_run":  # it has just ended by itself
                errors.print(Text(printable(str(error))))

    async def _kill(self) -> None:
        await kill_engine(self._home)
        errors.print(
            f"The engine was killed. {self._run.id} {what_is_kept(self._run)}.\nResume:  "
            f"loraworkbench train --resume {self._run.id}",
            markup=False,
            soft_wrap=True,
        )
