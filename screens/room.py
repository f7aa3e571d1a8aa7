"""Before a run starts: whether it fits the memory that is free, and what to do where it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from screens.dialogs import Choice, ChoiceDialog
from screens.widgets.figures import gib

if TYPE_CHECKING:
    from screens.app import WorkbenchApp
    from workbench.preflight import Verdict
    from workbench.recipe import Recipe

_START, _BACK = "start", "back"
_SHOWN = 4


async def asked_for(app: WorkbenchApp, recipe: Recipe) -> Recipe | None:
    """The recipe to start: as it is, or with a change that makes it fit, which the recipe in hand takes too.

    Where the prediction does not fit, the user is asked. To be awaited in a worker.

    Returns:
        None where nothing is to be started.
    """
    from workbench.preflight import foresee, room_for

    session = app.session
    room = room_for(session.gpus, session.host, session.status)
    verdict = room and await foresee(session.engine, recipe, room, session.traces, session.skeleton)
    if not verdict or verdict.may_start:
        return recipe
    answer = await app.push_screen_wait(_question(verdict))
    if answer == _START:
        return recipe
    if answer in (None, _BACK):
        return None
    problems = app.set_recipe(verdict.suggestions[int(answer)].changes)
    return None if problems else session.recipe


def _question(verdict: Verdict) -> ChoiceDialog:
    changes = [
        Choice(str(index + 1), f"{cure.label} ({gib(cure.peak_bytes)}, costs {cure.cost}), and start", str(index))
        for index, cure in enumerate(verdict.suggestions[:_SHOWN])
    ]
    text = verdict.sentence + (
        " Each of these changes makes it fit, the cheapest first." if changes else " No single change makes it fit."
    )
    others = (Choice("b", "Back", _BACK), Choice("s", "Start all the same", _START))
    return ChoiceDialog("It does not fit", text, (*changes, *others), stacked=True)
