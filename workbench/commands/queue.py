"""``loraworkbench queue``: runs that wait for the engine, lined up by recipe or by sweep."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from workbench.commands.common import (
    JsonOption,
    SetOption,
    console,
    edited,
    gibibytes,
    home_of,
    print_json,
    printable,
    recipe_from,
    run_async,
)
from workbench.commands.launcher import (
    ConfigOption,
    GpusOption,
    LauncherOption,
    ProcessesOption,
    launch_of,
)
from workbench.commands.lost_replies import ask_about_lost_replies
from workbench.engine.client.client import EngineClient
from workbench.engine.client.process import ensure_engine
from workbench.engine.client.queue_client import line_up, wanted
from workbench.errors import WorkbenchError
from workbench.planning.launch import Launch
from workbench.planning.queue import ON_REQUEST, Entry, Line, Queue, QueueRequest, differences
from workbench.planning.start_checks import Verdict
from workbench.recipe.schema import Recipe
from workbench.recipe.sweep import RANKS, parse_over, sweep
from workbench.recipe.text import from_yaml, parse, to_yaml
from workbench.runs.folder import RunFolder, summarise
from workbench.storage.paths import Home

# Entries that became runs are told of in full by --json.
_TAKEN_SHOWN = 5

app = typer.Typer(help="Runs that wait for the engine: each starts when the one before it has ended.")
ForceOption = Annotated[
    bool,
    typer.Option("--force", help="Even what is predicted not to fit the memory, or loses many replies to the cut."),
]
RecipeArgument = Annotated[str, typer.Argument(help="A recipe file (YAML) or the name of a preset.")]
EntryArgument = Annotated[int, typer.Argument(metavar="ENTRY", help="Its number, as `loraworkbench queue` shows it.")]
PlanOption = Annotated[bool, typer.Option("--plan", help="Only show the runs and what they need.")]


@app.callback(invoke_without_command=True)
def show_queue(context: typer.Context, as_json: JsonOption = False) -> None:
    """What goes on, what waits, and what became of the last entries. Starts no engine."""
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
    """Line a run up. An engine with nothing else to do starts it at once."""
    home = home_of(context)
    chosen = recipe_from(home, recipe, assignments)
    launch = launch_of(launcher, num_processes, gpus, config_file, None)
    run_async(_line_up(home, [chosen], launch, force=force, plan=False, as_json=as_json))


@app.command("sweep")
def sweep_recipe(
    context: typer.Context,
    recipe: RecipeArgument,
    over: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=A,B,C",
            help="A knob and its values; given twice, every combination runs. Without it adapter.r=8,16,32,64.",
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
    """Line a run up for each value of a knob, or for each combination of several."""
    home = home_of(context)
    base = recipe_from(home, recipe, assignments)
    variants = sweep(base, dict(map(parse_over, over)) if over else RANKS)
    recipes = [variant.recipe for variant in variants]
    launch = launch_of(launcher, num_processes, gpus, config_file, None)
    run_async(_line_up(home, recipes, launch, force=force, plan=plan, as_json=as_json))


@app.command()
def show(context: typer.Context, entry: EntryArgument) -> None:
    """Print the recipe of an entry as YAML, to be changed and given to `queue replace`."""
    line = Queue(home_of(context)).read()
    for found in (*line.waiting, *line.taken):
        if found.id == entry:
            typer.echo(printable(to_yaml(parse(found.recipe))), nl=False)
            return
    raise WorkbenchError(f"There is no entry {entry}.", "`loraworkbench queue` lists them.", kind="queue_entry")


@app.command()
def replace(
    context: typer.Context,
    entry: EntryArgument,
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe file, a preset, or - for YAML on standard input; without it its own.")
    ] = None,
    assignments: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put another recipe in an entry's place, or change its own with --set."""
    home = home_of(context)
    chosen, launch = _replacement(home, entry, recipe, assignments)
    request = QueueRequest(action="replace", ids=[entry], wanted=wanted([chosen], launch))
    run_async(_ask(home, request, as_json=as_json))


@app.command()
def remove(
    context: typer.Context,
    entries: Annotated[list[int], typer.Argument(metavar="ENTRY...", help="Their numbers.")],
    as_json: JsonOption = False,
) -> None:
    """Take entries out of the queue. A run that goes on is ended with `loraworkbench control stop`."""
    run_async(_ask(home_of(context), QueueRequest(action="remove", ids=entries), as_json=as_json))


@app.command()
def move(
    context: typer.Context,
    entry: EntryArgument,
    place: Annotated[int, typer.Argument(min=1, help="Its new place, counted from 1.")],
    as_json: JsonOption = False,
) -> None:
    """Let an entry run earlier or later."""
    run_async(_ask(home_of(context), QueueRequest(action="move", ids=[entry], place=place), as_json=as_json))


@app.command()
def hold(context: typer.Context, as_json: JsonOption = False) -> None:
    """Start nothing from the queue until `queue go`. A run that goes on is left alone."""
    run_async(_ask(home_of(context), QueueRequest(action="hold"), as_json=as_json))


@app.command()
def go(context: typer.Context, as_json: JsonOption = False) -> None:
    """Let the queue go on, without the run that it was held for if that broke off."""
    run_async(_ask(home_of(context), QueueRequest(action="go"), as_json=as_json))


@app.command()
def clear(context: typer.Context, as_json: JsonOption = False) -> None:
    """Take everything that waits out of the queue. A run that goes on is left alone."""
    run_async(_ask(home_of(context), QueueRequest(action="clear"), as_json=as_json))


# -- what they do -------------------------------------------------------------------------------------------------


async def _ask(home: Home, request: QueueRequest, *, as_json: bool) -> None:
    _show(await line_up(home, request), as_json=as_json)


def _replacement(
    home: Home, number: int, name: str | None, assignments: list[str] | None
) -> tuple[Recipe, Launch | None]:
    entry = next((one for one in Queue(home).read().waiting if one.id == number), None)
    if entry is None:
        raise WorkbenchError(f"No entry {number} waits.", "`loraworkbench queue` lists them.", kind="queue_entry")
    if name is None and not assignments:
        raise WorkbenchError(
            "Nothing says what to put in its place.", "Give a recipe, or --set KEY=VALUE.", kind="bad_request"
        )
    if name == "-":
        return edited(from_yaml(typer.get_text_stream("stdin").read(), "Standard input"), assignments), entry.launch
    recipe = parse(entry.recipe) if name is None else recipe_from(home, name, None)
    return edited(recipe, assignments), entry.launch


async def _line_up(
    home: Home, recipes: Sequence[Recipe], launch: Launch | None, *, force: bool, plan: bool, as_json: bool
) -> None:
    await ensure_engine(home)
    client = EngineClient(home)
    try:
        verdicts = await _foreseen(home, client, recipes, launch) if len(recipes) > 1 or not force else [None]
        if not as_json and len(recipes) > 1:
            _show_plan(recipes, verdicts)
        if plan:
            if as_json:
                print_json([_plan_json(*one) for one in zip(recipes, verdicts, strict=True)])
            return
        if not force:
            _refuse_what_does_not_fit(recipes, verdicts)
            for recipe in {repr((recipe.model, recipe.data)): recipe for recipe in recipes}.values():
                await ask_about_lost_replies(client, recipe)
        line = await client.line_up(QueueRequest(action="add", wanted=wanted(recipes, launch)))
    finally:
        await client.close()
    _show(line, as_json=as_json)


async def _foreseen(
    home: Home, client: EngineClient, recipes: Sequence[Recipe], launch: Launch | None
) -> list[Verdict | None]:
    from workbench.estimate import TraceStore
    from workbench.machine.gpu import HardwareSampler
    from workbench.planning.start_checks import foresee_all, room_for

    gpus, host = await asyncio.to_thread(lambda: HardwareSampler().sample())
    room = room_for(gpus, host, await client.status(), launch)
    if room is None:
        return [None] * len(recipes)
    return await foresee_all(client, recipes, room, TraceStore(home.cache / "traces"))


def _refuse_what_does_not_fit(recipes: Sequence[Recipe], verdicts: Sequence[Verdict | None]) -> None:
    failing = [
        f"  {recipe.output.name}: {verdict.sentence}"
        for recipe, verdict in zip(recipes, verdicts, strict=True)
        if verdict is not None and not verdict.may_start
    ]
    if failing:
        count = "This run does" if len(recipes) == 1 else f"{len(failing)} of {len(recipes)} runs do"
        raise WorkbenchError(
            f"{count} not fit, and nothing was lined up.\n" + "\n".join(failing),
            "`loraworkbench train` names what would make a recipe fit. Or add --force to line up all the same.",
            kind="no_room",
        )


# -- what they say ------------------------------------------------------------------------------------------------


def _plan_json(recipe: Recipe, verdict: Verdict | None) -> dict[str, Any]:
    needed = {"peak_bytes": verdict.needed_bytes, "fit": verdict.fit} if verdict else {"peak_bytes": None, "fit": None}
    return {"name": recipe.output.name, **needed, "recipe": recipe.as_dict()}


def _show_plan(recipes: Sequence[Recipe], verdicts: Sequence[Verdict | None]) -> None:
    console.print(f"{len(recipes)} runs:")
    table = Table(box=None, pad_edge=False, show_header=False)
    for recipe, verdict in zip(recipes, verdicts, strict=True):
        peak = f"{gibibytes(verdict.needed_bytes)}, {verdict.fit}" if verdict else "peak not known"
        table.add_row(f"  {recipe.output.name}", f"r {recipe.adapter.r}", f"alpha {recipe.adapter.lora_alpha}", peak)
    console.print(table)


def _show(line: Line, *, as_json: bool) -> None:
    if as_json:
        taken = [{**entry.model_dump(), "state": state_of(entry)} for entry in line.taken]
        print_json({**line.model_dump(), "taken": taken})
        return
    for entry in line.taken[-_TAKEN_SHOWN:]:
        if entry != line.now:
            name = Path(entry.run).name if entry.run else entry.name
            text = f"{name}  {state_of(entry)}" + (f": {entry.problem}" if entry.problem else "")
            console.print(Text(printable(text), "dim"), soft_wrap=True)
    if line.ahead:
        console.print(Text(printable(f"{Path(line.ahead).name}  {_state(line.ahead)}")), soft_wrap=True)
    if line.waiting:
        _show_waiting(line)
    elif not line.ahead:
        console.print("Nothing waits. `loraworkbench queue add RECIPE` lines a run up.")
    if line.held:
        why = "" if line.held == ON_REQUEST else f" {line.held}"
        console.print(Text(printable(f"The queue is held.{why}")), soft_wrap=True)
        console.print("Go on:  loraworkbench queue go")
        if line.held_for:
            console.print(Text(printable(f"Or:     loraworkbench train --resume {Path(line.held_for).name}")))


def _show_waiting(line: Line) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("entry", "waits", "model", "as", "r", "on", "differs"):
        table.add_column(heading, justify="right" if heading in ("entry", "r") else "left")
    for entry, before in line.steps:
        table.add_row(*(Text(printable(cell)) for cell in (str(entry.id), *_cells(entry, before))))
    console.print(table)


def _cells(entry: Entry, before: Mapping[str, Any] | None) -> list[str]:
    recipe = entry.recipe
    return [
        entry.name,
        str(recipe.get("model", {}).get("source", "")).rpartition("/")[2],
        str(recipe.get("quantization", {}).get("method", "")),
        str(recipe.get("adapter", {}).get("r", "")),
        entry.launch.words if entry.launch else "",
        difference_words(before, recipe),
    ]


def difference_words(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> str:
    """``adapter.r 8 → 16``, for what differs from the entry before."""
    if before is None:
        return ""
    return ", ".join(f"{path} {old} → {new}" for path, (old, new) in differences(before, after).items())


def state_of(entry: Entry) -> str:
    """What became of an entry that was taken."""
    return _state(entry.run) if entry.run else "could not start"


def _state(folder: str) -> str:
    run = RunFolder(Path(folder))
    return summarise(run).state if run.path.is_dir() else "removed"
