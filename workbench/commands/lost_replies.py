"""Ask before a run starts that would lose many of its replies to the cut."""

import sys
from contextlib import aclosing, suppress

import typer
from rich.text import Text

from workbench.commands.common import errors, printable
from workbench.data.facts import DataFacts
from workbench.engine.client.client import EngineClient
from workbench.errors import WorkbenchError
from workbench.recipe.schema import Recipe


async def ask_about_lost_replies(client: EngineClient, recipe: Recipe) -> None:
    """Look at a sample of the data; where over a tenth of it loses its reply to the cut, ask whether to start.

    What the run needs and is elsewhere is fetched for it. Data that cannot be read is left to the run to refuse.

    Raises:
        WorkbenchError: the answer is no, or there is nobody to ask; kind ``lost_replies``.
    """
    facts = None
    with suppress(WorkbenchError):
        facts = await _sampled(client, recipe)
    if facts is None or not facts.loses_many_replies:
        return
    refusal = WorkbenchError(
        facts.lost_replies, "Raise data.max_length, or add --force to start anyway.", kind="lost_replies"
    )
    if not sys.stdin.isatty():
        raise refusal
    errors.print(Text(printable(facts.lost_replies)))
    if not typer.confirm("Start anyway?", err=True):
        raise refusal


async def _sampled(client: EngineClient, recipe: Recipe) -> DataFacts | None:
    """The first answer of the engine, which is that of a sample."""
    with errors.status("checking the data") as status:
        async with aclosing(client.facts(recipe, fetch=True, show=0)) as answers:
            async for answer in answers:
                if isinstance(answer, DataFacts):
                    return answer
                status.update(Text(printable(f"{answer.phase}  {answer.detail}")))
    return None
