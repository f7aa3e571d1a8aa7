"""Adds recipes to the queue, after the same fit check as before a run starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from screens.dialogs.questions import YES, Choice, ChoiceDialog
from screens.queue import start_checks
from workbench.adapters.registry import size_words
from workbench.units import gib

if TYPE_CHECKING:
    from collections.abc import Sequence

    from screens.workbench import Workbench
    from workbench.planning.queue import Entry
    from workbench.planning.start_checks import Verdict
    from workbench.recipe.schema import Recipe

_ADD, _SWEEP, _SHOW = (
    Choice(YES, "Add to queue", "add"),
    Choice("w", "Queue several values of a setting", "sweep"),
    Choice("q", "Show the queue", "show"),
)
_ALL, _FITTING = "all", "fitting"
_VERB = "queue"


async def offer(app: Workbench) -> None:
    """Offer to queue the current recipe while a run is live."""
    recipe = app.session.recipe
    text = (
        f"A run is in progress. {recipe.output.name}, the current recipe ({size_words(recipe.adapter)}), "
        "can be queued. It then starts by itself, even after this terminal is closed."
    )
    question = ChoiceDialog("Add to queue?", text, (_ADD, _SWEEP, _SHOW), stacked=True)
    match await app.push_screen_wait(question):
        case _ADD.value:
            await add(app, recipe)
        case _SWEEP.value:
            await sweep_current(app)
        case _SHOW.value:
            app.action_queue()


async def add(app: Workbench, recipe: Recipe) -> None:
    """Queue one recipe, to run on the chosen GPUs.

    Raises:
        WorkbenchError: the engine does not start, or refuses the request.
    """
    await app.start_engine()
    chosen = await start_checks.confirm_fit(app, recipe, _VERB)
    if chosen is not None and await start_checks.confirm_data(app, chosen, _VERB):
        await _enqueue(app, [chosen])


async def replace(app: Workbench, entry: Entry) -> None:
    """Replace the recipe of a queued entry with the current one.

    Raises:
        WorkbenchError: the entry is already running, or the queue cannot be written.
    """
    from workbench.engine.client.requests import run_requests
    from workbench.planning.queue import QueueRequest

    request = QueueRequest(action="replace", ids=[entry.id], runs=run_requests([app.session.recipe], entry.launch))
    await app.session.engine.change_queue(request)
    app.notify(f"Replaced with {app.session.recipe.output.name}.", markup=False, timeout=3)


async def sweep_current(app: Workbench) -> None:
    """Ask for the settings and values of a sweep, and queue its runs.

    Raises:
        WorkbenchError: the engine does not start, or refuses the request.
    """
    from screens.queue.sweep_dialog import SweepDialog

    recipes = await app.push_screen_wait(SweepDialog(app.session))
    if not recipes:
        return
    await app.start_engine()
    if not await start_checks.confirm_data(app, recipes[0], _VERB):
        return
    if chosen := await _those_that_fit(app, recipes):
        await _enqueue(app, chosen)


async def _those_that_fit(app: Workbench, recipes: Sequence[Recipe]) -> list[Recipe]:
    """Return the recipes to queue: all, or those that fit if the user chooses so; none if the user goes back."""
    from workbench.engine.client.informant import EngineInformant
    from workbench.planning.start_checks import foresee_all

    session = app.session
    verdicts = await foresee_all(EngineInformant(session.engine), recipes, session.run_budget, session.traces)
    judged = list(zip(recipes, verdicts, strict=True))
    fitting = [recipe for recipe, verdict in judged if verdict is None or verdict.may_start]
    if len(fitting) == len(recipes):
        return fitting
    some = (Choice("f", f"Queue the {len(fitting)} that fit", _FITTING),) if fitting else ()
    every = Choice(YES, "Queue all of them anyway", _ALL)
    title = f"{len(recipes) - len(fitting)} of {len(recipes)} runs do not fit"
    answer = await app.push_screen_wait(
        ChoiceDialog(title, _misfits(judged), (*some, every), is_risky=not some, stacked=True)
    )
    return {_ALL: list(recipes), _FITTING: fitting}.get(str(answer), [])


def _misfits(judged: Sequence[tuple[Recipe, Verdict | None]]) -> str:
    failing = [(recipe, verdict) for recipe, verdict in judged if verdict is not None and not verdict.may_start]
    lines = [f"{recipe.output.name}  needs {gib(verdict.needed_bytes)}" for recipe, verdict in failing]
    free = failing[0][1].budget.free_text
    return "\n".join([*lines, f"{free[:1].upper()}{free[1:]}."])


async def _enqueue(app: Workbench, recipes: Sequence[Recipe]) -> None:
    from workbench.engine.client.requests import enqueue_request

    queue = await app.session.engine.change_queue(enqueue_request(recipes, app.session.launch))
    name = recipes[0].output.name if len(recipes) == 1 else f"{len(recipes)} runs"
    held = " The queue is on hold." if queue.held else ""
    app.notify(f"Queued {name}; {len(queue.waiting)} in the queue.{held}", markup=False, timeout=4)
