"""Asks before a run starts that would lose responses to truncation, or fields that look like part of a conversation."""

import sys
from contextlib import aclosing, suppress

import typer
from rich.text import Text

from workbench.commands.common import errors, printable
from workbench.data.facts import DataFacts
from workbench.engine.client.client import EngineClient
from workbench.engine.client.requests import facts_request
from workbench.errors import WorkbenchError
from workbench.recipe.schema import Recipe


async def ask_about_data(client: EngineClient, recipe: Recipe) -> None:
    """Check a sample of the data and ask each of :attr:`~workbench.data.facts.DataFacts.questions`.

    Tokenizer and data are downloaded if needed. Data that cannot be read is left to the run to refuse.

    Raises:
        WorkbenchError: the answer is no, or standard input is no terminal; kind ``data_question``.
    """
    facts = None
    with suppress(WorkbenchError):
        facts = await _sampled(client, recipe)
    if facts is None or not facts.questions:
        return
    text = " ".join(facts.questions)
    refusal = WorkbenchError(text, "Change the recipe, or add --force to start anyway.", kind="data_question")
    if not sys.stdin.isatty():
        raise refusal
    errors.print(Text(printable(text)))
    if not typer.confirm("Start anyway?", err=True):
        raise refusal


async def _sampled(client: EngineClient, recipe: Recipe) -> DataFacts | None:
    """The engine's first answer, which it counts on a sample."""
    with errors.status("checking the data") as status:
        async with aclosing(client.facts(facts_request(recipe, fetch=True, show=0))) as answers:
            async for answer in answers:
                if isinstance(answer, DataFacts):
                    return answer
                status.update(Text(printable(f"{answer.phase}  {answer.detail}")))
    return None
