"""``loraworkbench queue``: show and change the queue of runs; add a recipe or a sweep."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from workbench.adapters.registry import alpha_words, size_words
from workbench.commands.common import (
    JsonOption,
    SetOption,
    console,
    edited,
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
    ProcessesOption,
    launch_of,
)
from workbench.engine.client.client import EngineClient
from workbench.engine.client.home_engine import HomeEngine
from workbench.engine.client.informant import EngineInformant
from workbench.engine.client.process import ensure_engine
from workbench.engine.client.requests import enqueue_request, run_requests
from workbench.errors import WorkbenchError
from workbench.planning.launch import Launch
from workbench.planning.queue import ON_REQUEST, Entry, Queue, QueueRequest, QueueState
from workbench.planning.start_checks import Verdict
from workbench.recipe.differences import recipe_differences
from workbench.recipe.schema import Recipe
from workbench.recipe.sweep import RANKS, parse_over, sweep
from workbench.recipe.text import from_yaml, parse, to_yaml
from workbench.runs.folder import RunFolder, summarise
from workbench.storage.paths import Home
from workbench.units import gib

# At most this many started entries are listed; --json lists all.
_TAKEN_SHOWN = 5

app = typer.Typer(help="Queued runs. Each starts when the previous one has ended.")
ForceOption = Annotated[
    bool,
    typer.Option(
        "--force", help="Queue even if the run is predicted not to fit, or truncation removes many responses."
    ),
]
RecipeArgument = Annotated[str, typer.Argument(help="A recipe file (YAML) or the name of a preset.")]
EntryArgument = Annotated[int, typer.Argument(metavar="ENTRY", help="Entry number, as shown by `loraworkbench queue`.")]
PlanOption = Annotated[bool, typer.Option("--plan", help="Only show the runs and what they need.")]


@app.callback(invoke_without_command=True)
def show_queue(context: typer.Context, as_json: JsonOption = False) -> None:
    """Show the running run, the queued runs and the results of the last entries. Starts no engine."""
    if context.invoked_subcommand is None:
        _show(Queue(home_of(context)).read(), as_json=as_json)


@app.command()
def add(
    context: typer.Context,
    recipe: RecipeArgument,
    assignments: SetOption = None,
    force: ForceOption = False,
    launcher: LauncherOption = None,
    num_processes: ProcessesOption = None,
    gpus: GpusOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a run to the queue. An idle engine starts it at once."""
    home = home_of(context)
    chosen = recipe_from(home, recipe, assignments)
    launch = launch_of(launcher, num_processes, gpus, config_file, None)
    run_async(_enqueue(home, [chosen], launch, force=force, plan=False, as_json=as_json))


@app.command("sweep")
def sweep_recipe(
    context: typer.Context,
    recipe: RecipeArgument,
    over: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=A,B,C",
            help="A setting and its values. Repeat it for every combination. Default: adapter.r=8,16,32,64.",
        ),
    ] = None,
    assignments: SetOption = None,
    plan: PlanOption = False,
    force: ForceOption = False,
    launcher: LauncherOption = None,
    num_processes: ProcessesOption = None,
    gpus: GpusOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Queue one run per value of a setting, or per combination of several."""
    home = home_of(context)
    base = recipe_from(home, recipe, assignments)
    variants = sweep(base, dict(map(parse_over, over)) if over else RANKS)
    recipes = [variant.recipe for variant in variants]
    launch = launch_of(launcher, num_processes, gpus, config_file, None)
    run_async(_enqueue(home, recipes, launch, force=force, plan=plan, as_json=as_json))


@app.command()
def show(context: typer.Context, entry: EntryArgument) -> None:
    """Print the recipe of an entry as YAML, to edit and pass to `queue replace`."""
    state = Queue(home_of(context)).read()
    for found in (*state.waiting, *state.taken):
        if found.id == entry:
            typer.echo(printable(to_yaml(parse(found.recipe))), nl=False)
            return
    raise WorkbenchError(f"There is no entry {entry}.", "`loraworkbench queue` lists them.", kind="queue_entry")


@app.command()
def replace(
    context: typer.Context,
    entry: EntryArgument,
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="A recipe file, a preset, or - for YAML on standard input. Default: the entry's own recipe."
        ),
    ] = None,
    assignments: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replace the recipe of an entry, or change it with --set."""
    home = home_of(context)
    chosen, launch = _replacement(home, entry, recipe, assignments)
    request = QueueRequest(action="replace", ids=[entry], runs=run_requests([chosen], launch))
    run_async(_change(home, request, as_json=as_json))


@app.command()
def remove(
    context: typer.Context,
    entries: Annotated[list[int], typer.Argument(metavar="ENTRY...", help="Entry numbers.")],
    as_json: JsonOption = False,
) -> None:
    """Remove entries from the queue. `loraworkbench control stop` stops a running run."""
    run_async(_change(home_of(context), QueueRequest(action="remove", ids=entries), as_json=as_json))


@app.command()
def move(
    context: typer.Context,
    entry: EntryArgument,
    place: Annotated[int, typer.Argument(min=1, help="New position, counted from 1.")],
    as_json: JsonOption = False,
) -> None:
    """Move an entry to another position."""
    run_async(_change(home_of(context), QueueRequest(action="move", ids=[entry], place=place), as_json=as_json))


@app.command()
def hold(context: typer.Context, as_json: JsonOption = False) -> None:
    """Put the queue on hold until `queue go`. A running run is not affected."""
    run_async(_change(home_of(context), QueueRequest(action="hold"), as_json=as_json))


@app.command()
def go(context: typer.Context, as_json: JsonOption = False) -> None:
    """Resume the queue. If it was held because a run was interrupted, that run is not resumed."""
    run_async(_change(home_of(context), QueueRequest(action="go"), as_json=as_json))


@app.command()
def clear(context: typer.Context, as_json: JsonOption = False) -> None:
    """Remove all entries from the queue. A running run is not affected."""
    run_async(_change(home_of(context), QueueRequest(action="clear"), as_json=as_json))


# -- changing the queue -------------------------------------------------------------------------------------------


async def _change(home: Home, request: QueueRequest, *, as_json: bool) -> None:
    """Change the queue, through the engine if it is running, and print the result."""
    engine = HomeEngine(home)
    try:
        state = await engine.change_queue(request)
    finally:
        await engine.close()
    _show(state, as_json=as_json)


def _replacement(
    home: Home, number: int, source: str | None, assignments: list[str] | None
) -> tuple[Recipe, Launch | None]:
    """The new recipe of a queued entry, and the entry's launch settings, which stay.

    Args:
        number: the entry's number.
        source: a recipe file, a preset, or ``-`` for standard input; None for the entry's own recipe.
    """
    entry = next((entry for entry in Queue(home).read().waiting if entry.id == number), None)
    if entry is None:
        raise WorkbenchError(
            f"There is no queued entry {number}.", "`loraworkbench queue` lists them.", kind="queue_entry"
        )
    if source is None and not assignments:
        raise WorkbenchError("No replacement given.", "Give a recipe, or --set KEY=VALUE.", kind="bad_request")
    if source == "-":
        return edited(from_yaml(typer.get_text_stream("stdin").read(), "Standard input"), assignments), entry.launch
    recipe = parse(entry.recipe) if source is None else recipe_from(home, source, None)
    return edited(recipe, assignments), entry.launch


async def _enqueue(
    home: Home, recipes: Sequence[Recipe], launch: Launch | None, *, force: bool, plan: bool, as_json: bool
) -> None:
    """Queue runs after the checks that ``force`` omits; with ``plan``, only print the runs and what they need."""
    await ensure_engine(home)
    client = EngineClient(home)
    try:
        shows_plan = plan or len(recipes) > 1
        # A single run that is queued by force has no use for a verdict.
        verdicts = await _verdicts(home, client, recipes, launch) if shows_plan or not force else [None]
        if not as_json and shows_plan:
            _show_plan(recipes, verdicts)
        if plan:
            if as_json:
                print_json([_plan_json(*planned) for planned in zip(recipes, verdicts, strict=True)])
            return
        if not force:
            _refuse_if_any_does_not_fit(recipes, verdicts)
            # Runs with the same model and data raise the same questions.
            for recipe in {repr((recipe.model, recipe.data)): recipe for recipe in recipes}.values():
                await ask_about_data(client, recipe)
        state = await client.edit_queue(enqueue_request(recipes, launch))
    finally:
        await client.close()
    _show(state, as_json=as_json)


async def _verdicts(
    home: Home, client: EngineClient, recipes: Sequence[Recipe], launch: Launch | None
) -> list[Verdict | None]:
    """Whether each run fits the free memory; None for a run of which that cannot be predicted."""
    from workbench.estimate import TraceStore
    from workbench.planning.memory import budget_now
    from workbench.planning.start_checks import foresee_all

    budget = await asyncio.to_thread(budget_now, home, await client.status(), launch)
    return await foresee_all(EngineInformant(client), recipes, budget, TraceStore(home.cache / "traces"))


def _refuse_if_any_does_not_fit(recipes: Sequence[Recipe], verdicts: Sequence[Verdict | None]) -> None:
    failing = [
        f"  {recipe.output.name}: {verdict.sentence}"
        for recipe, verdict in zip(recipes, verdicts, strict=True)
        if verdict is not None and not verdict.may_start
    ]
    if failing:
        count = "This run does" if len(recipes) == 1 else f"{len(failing)} of {len(recipes)} runs do"
        raise WorkbenchError(
            f"{count} not fit. Nothing was queued.\n" + "\n".join(failing),
            "`loraworkbench train` shows what makes a recipe fit. Or add --force to queue anyway.",
            kind="no_room",
        )


# -- printing the queue -------------------------------------------------------------------------------------------


def _plan_json(recipe: Recipe, verdict: Verdict | None) -> dict[str, object]:
    needed = {"peak_bytes": verdict.needed_bytes, "fit": verdict.fit} if verdict else {"peak_bytes": None, "fit": None}
    return {"name": recipe.output.name, **needed, "recipe": recipe.as_dict()}


def _show_plan(recipes: Sequence[Recipe], verdicts: Sequence[Verdict | None]) -> None:
    console.print(f"{len(recipes)} {'run' if len(recipes) == 1 else 'runs'}:")
    table = Table(box=None, pad_edge=False, show_header=False)
    for recipe, verdict in zip(recipes, verdicts, strict=True):
        peak = f"{gib(verdict.needed_bytes, 2)}, {verdict.fit}" if verdict else "peak unknown"
        table.add_row(f"  {recipe.output.name}", size_words(recipe.adapter), alpha_words(recipe.adapter), peak)
    console.print(table)


def _show(state: QueueState, *, as_json: bool) -> None:
    if as_json:
        taken = [{**entry.model_dump(), "state": _entry_state(entry)} for entry in state.taken]
        print_json({**state.model_dump(), "taken": taken})
        return
    for entry in state.taken[-_TAKEN_SHOWN:]:
        if entry != state.current:
            name = Path(entry.run).name if entry.run else entry.name
            text = f"{name}  {_entry_state(entry)}" + (f": {entry.problem}" if entry.problem else "")
            console.print(Text(printable(text), "dim"), soft_wrap=True)
    if state.ahead:
        console.print(Text(printable(f"{Path(state.ahead).name}  {_run_state(state.ahead)}")), soft_wrap=True)
    if state.waiting:
        _show_waiting(state)
    elif not state.ahead:
        console.print("The queue is empty. `loraworkbench queue add RECIPE` adds a run.")
    if state.held:
        reason = "" if state.held == ON_REQUEST else f" {state.held}"
        console.print(Text(printable(f"The queue is on hold.{reason}")), soft_wrap=True)
        console.print("Resume:  loraworkbench queue go")
        if state.held_for:
            console.print(Text(printable(f"Or:      loraworkbench train --resume {Path(state.held_for).name}")))


def _show_waiting(state: QueueState) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("entry", "name", "model", "method", "r", "GPUs", "differs"):
        table.add_column(heading, justify="right" if heading in ("entry", "r") else "left")
    for entry, previous_recipe in state.with_previous:
        table.add_row(*(Text(printable(cell)) for cell in (str(entry.id), *_cells(entry, previous_recipe))))
    console.print(table)


def _cells(entry: Entry, previous_recipe: Mapping[str, object] | None) -> list[str]:
    return [
        entry.name,
        entry.setting("model", "source").rpartition("/")[2],
        entry.setting("quantization", "method"),
        entry.setting("adapter", "r"),
        entry.launch.text if entry.launch else "",
        _differences_text(previous_recipe, entry.recipe),
    ]


def _differences_text(previous: Mapping[str, object] | None, recipe: Mapping[str, object]) -> str:
    """The settings in which a recipe differs from the previous one, as ``adapter.r 8 → 16``."""
    if previous is None:
        return ""
    return ", ".join(f"{path} {old} → {new}" for path, (old, new) in recipe_differences(previous, recipe).items())


def _entry_state(entry: Entry) -> str:
    """The state of a started entry's run."""
    return _run_state(entry.run) if entry.run else "could not start"


def _run_state(folder: str) -> str:
    run = RunFolder(Path(folder))
    return summarise(run).state if run.path.is_dir() else "removed"
