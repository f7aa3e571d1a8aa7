"""Checks before a run starts: does it fit the free memory, and do its records keep their responses."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from screens.dialogs.questions import YES, Choice, ChoiceDialog
from workbench.errors import WorkbenchError
from workbench.units import gib

if TYPE_CHECKING:
    from screens.workbench import Workbench
    from workbench.data.facts import DataFacts
    from workbench.planning.start_checks import Verdict
    from workbench.recipe.schema import Recipe

_START = "start"
_SHOWN = 4

# A start does not wait longer than this for the data check; an engine that has just started takes some seconds for it.
_SECONDS_FOR_A_SAMPLE = 20.0


async def confirm_fit(app: Workbench, recipe: Recipe, verb: str = "start") -> Recipe | None:
    """Return the recipe to start: unchanged, or with a change that makes it fit.

    Asks the user if the predicted peak does not fit; a chosen change is also made to the current recipe. Await it in a
    worker.

    Args:
        verb: what is about to be done with the recipe.

    Returns:
        None if the user decided not to start.
    """
    from workbench.engine.client.informant import EngineInformant
    from workbench.planning.start_checks import foresee

    session = app.session
    verdict = await foresee(
        EngineInformant(session.engine), recipe, session.run_budget, session.traces, session.skeleton
    )
    if not verdict or verdict.may_start:
        return recipe
    answer = await app.push_screen_wait(_question(verdict, verb))
    if answer == _START:
        return recipe
    if answer is None:
        return None
    problems = app.set_recipe(verdict.suggestions[int(answer)].changes)
    return None if problems else session.recipe


async def confirm_data(app: Workbench, recipe: Recipe, verb: str = "start") -> bool:
    """Return whether to start. Asks the user if many responses are truncated, or fields that look fed are not.

    Uses the known statistics, or else those of a sample.
    """
    facts = app.session.facts_of(recipe) or await _sampled(app, recipe)
    if facts is None or not facts.questions:
        return True
    start = Choice(YES, f"{verb.capitalize()} anyway", _START)
    title = "Many responses are truncated" if facts.lost_replies else "Some fields are not used"
    question = ChoiceDialog(title, "\n\n".join(facts.questions), [start], is_risky=True)
    return await app.push_screen_wait(question) == _START


async def _sampled(app: Workbench, recipe: Recipe) -> DataFacts | None:
    """Return the facts of a sample of the data; None, and a notice, if the engine cannot tell them in time."""
    from workbench.data.facts import DataFacts
    from workbench.engine.client.requests import facts_request

    facts = app.session.engine.facts(facts_request(recipe))
    try:
        async with asyncio.timeout(_SECONDS_FOR_A_SAMPLE), aclosing(facts) as answers:
            async for answer in answers:
                if isinstance(answer, DataFacts):
                    return answer
    except TimeoutError:
        app.notify("The records were not checked before the start: it took too long. The journal lists unused fields.")
    except WorkbenchError:
        pass  # the run meets the same error, and tells it
    return None


def _question(verdict: Verdict, verb: str) -> ChoiceDialog:
    changes = [
        Choice(str(index + 1), f"{cure.label} ({gib(cure.peak_bytes)}, costs {cure.cost}), and {verb}", str(index))
        for index, cure in enumerate(verdict.suggestions[:_SHOWN])
    ]
    text = verdict.sentence + (
        " Each of these changes makes it fit (cheapest first)." if changes else " No single change makes it fit."
    )
    anyway = Choice(YES, f"{verb.capitalize()} anyway", _START)
    return ChoiceDialog("It does not fit", text, (*changes, anyway), is_risky=not changes, stacked=True)
