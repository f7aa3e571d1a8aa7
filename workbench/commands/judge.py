"""``loraworkbench judge`` lets another model compare the replies of a run with those of its base."""

import asyncio
from typing import Annotated

import typer
from rich.text import Text

from workbench.commands.common import JsonOption, console, errors, home_of, print_json, printable
from workbench.errors import WorkbenchError
from workbench.evaluation.comparison_text import preference_text
from workbench.evaluation.judge import Outcome, judge_of, judge_replies
from workbench.evaluation.preferences import add_ratings, preferences, read_ratings
from workbench.evaluation.report import write_report
from workbench.evaluation.result import newest_evaluation
from workbench.progress import Progress
from workbench.runs.folder import find_run
from workbench.storage import settings


def judge(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="A run's id, id prefix or folder.")],
    url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Base URL of an OpenAI-compatible endpoint. Default: the settings' one."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="The model's name there. Default: the settings' judge.model.")
    ] = None,
    token_variable: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Environment variable with the endpoint's token. The token is never stored."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Most prompts to compare. Default: all.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the order in which replies are shown.")] = 0,
    save: Annotated[bool, typer.Option("--save", help="Keep URL, model and variable in the settings.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Let a judge compare the replies of base and adapter in the run's newest evaluation, in both orders.

    The ratings are saved in the run folder in ratings.jsonl. Writes the report.
    """
    home = home_of(context)
    folder = find_run(home, run)
    known = settings.read(home).judge
    # A token belongs to one endpoint: that of the settings is not sent to another URL.
    variable = token_variable if token_variable is not None else known.token_variable if url is None else ""
    chosen = judge_of(url or known.url, model or known.model, variable)
    evaluation = newest_evaluation(folder)
    if evaluation is None:
        raise WorkbenchError(
            f"Run {folder.id} has no evaluation, so there are no replies to compare.",
            f"Evaluate it first: `loraworkbench evaluate {folder.id}`.",
            kind="no_replies",
        )
    if save:
        kept = {"url": chosen.url, "model": chosen.model, "token_variable": variable}
        settings.update(home, {"judge": kept})
    with errors.status("comparing replies") as status:

        def show(progress: Progress) -> None:
            status.update(Text(printable(f"{progress.phase} {progress.detail}")))

        try:
            outcome = asyncio.run(judge_replies(chosen, evaluation, show, limit=limit, seed=seed))
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
    _check(outcome)
    file = add_ratings(folder, outcome.ratings)
    write_report(home, folder)
    sums = [one for one in preferences(read_ratings(folder)) if one.rater == "judge" and one.judge == chosen.model]
    if as_json:
        summed = [one.model_dump(mode="json") for one in sums]
        print_json({"preferences": summed, "unreadable": outcome.unreadable, "file": str(file)})
        return
    for one in sums:
        console.print(Text(printable(preference_text(one)), style="bold"))
    if outcome.unreadable:
        console.print(
            Text.assemble(("! ", "yellow"), f"{outcome.unreadable} pairs have no rating: the judge gave no verdict.")
        )
    console.print(Text(printable(f"Saved in {file}; the report has the sum.")), soft_wrap=True)


def _check(outcome: Outcome) -> None:
    if not outcome.ratings:
        raise WorkbenchError(
            f"The judge gave no verdict on any of {outcome.unreadable} pairs.",
            "Choose a model that follows instructions: its answer must end with [[A]], [[B]] or [[C]].",
            kind="judge",
        )
