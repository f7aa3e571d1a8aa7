"""``loraworkbench evaluate`` compares a run with its base model; ``report`` writes a report of the run."""

import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from workbench.commands.common import (
    BaseOption,
    JsonOption,
    SetOption,
    console,
    errors,
    home_of,
    print_json,
    printable,
    run_async,
)
from workbench.engine.client.client import EngineClient
from workbench.engine.client.evaluation_request import evaluation_request
from workbench.engine.client.process import ensure_engine
from workbench.engine.client.protocol import EvaluateRequest, TaskSettings
from workbench.engine.client.requests import here
from workbench.errors import WorkbenchError
from workbench.evaluation.comparison_text import task_head, task_table, task_texts
from workbench.evaluation.formatting import better_text, caution, figure_tables
from workbench.evaluation.result import AnsweredPrompt, Evaluation, read_evaluation
from workbench.evaluation.task_result import (
    GENERAL_LIMIT,
    GENERAL_TASKS,
    TASK_RESULTS,
    TaskEvaluation,
)
from workbench.progress import Progress
from workbench.recipe.text import parse_assignment
from workbench.runs.folder import find_run
from workbench.storage.paths import Home

_REPLIES_SHOWN = 3


def evaluate(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="A run's id, id prefix or folder.")],
    data: Annotated[
        str | None, typer.Option(help="Records to evaluate on. Default: the run's held-out records.")
    ] = None,
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="Also evaluate every checkpoint of the run.")
    ] = False,
    adapters: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Also evaluate these: runs, checkpoints (run@40) or adapter folders."),
    ] = None,
    base: BaseOption = None,
    prompts: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt", metavar="TEXT", help="Use this prompt instead of the four default prompts. Can be repeated."
        ),
    ] = None,
    records: Annotated[int, typer.Option(min=0, help="Maximum number of records. 0: all.")] = 256,
    replies: Annotated[int, typer.Option(min=0, max=100_000, help="Number of records to generate replies for.")] = 20,
    max_tokens: Annotated[int, typer.Option(min=1, max=32768, help="Maximum reply length in tokens.")] = 128,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap draws for the intervals.")] = 0,
    tasks: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Evaluate on these tasks of lm-eval instead of records, such as ifeval,gsm8k. general: what did it "
            f"forget? ({', '.join(GENERAL_TASKS)})",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help=f"Most items of each task. Default: all; for general {GENERAL_LIMIT}.")
    ] = None,
    task_folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A folder with further tasks as YAML files, for offline use.")
    ] = None,
    num_fewshot: Annotated[int | None, typer.Option(min=0, help="Examples before each item of a task.")] = None,
    apply_chat_template: Annotated[
        bool, typer.Option("--apply-chat-template", help="Put the tasks' prompts into the run's chat template.")
    ] = False,
    assignments: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate base vs. adapter on held-out records or on lm-eval's tasks. Writes the report.

    Results are saved in the run folder under evaluations/ and tasks/.
    """
    home = home_of(context)
    request = evaluation_request(
        find_run(home, run),
        data,
        dict(parse_assignment(text) for text in assignments or []),
        checkpoints=checkpoints,
        adapters=[name for names in adapters or [] for name in names.split(",") if name],
        prompts=prompts,
        base=here(base or ""),
        records=records,
        replies=replies,
        max_new_tokens=max_tokens,
        seed=seed,
    )
    if tasks is not None:
        names = [name.strip() for name in tasks.split(",") if name.strip()]
        if not names:
            raise WorkbenchError("--tasks names no task.", "Name some, such as --tasks general.", kind="no_task")
        settings = TaskSettings(
            names=names,
            limit=limit,
            folder=here(str(task_folder)) if task_folder is not None else "",
            num_fewshot=num_fewshot,
            chat_template=apply_chat_template,
        )
        request = request.model_copy(update={"tasks": settings})
    elif limit is not None or task_folder is not None or num_fewshot is not None or apply_chat_template:
        raise WorkbenchError(
            "--limit, --task-folder, --num-fewshot and --apply-chat-template belong to --tasks.",
            "Add --tasks, such as --tasks general.",
            kind="bad_request",
        )
    run_async(_evaluate(home, request, as_json))


def report(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="A run's id, id prefix or folder.")],
    as_json: JsonOption = False,
) -> None:
    """Write report.md, report.json and the loss curve as SVG to the run folder."""
    from workbench.evaluation.report import write_report

    home = home_of(context)
    folder = find_run(home, run)
    with errors.status("reading") as status:
        files = write_report(
            home, folder, lambda name, share: status.update(Text(printable(f"reading {name} {share:.0%}")))
        )
    if as_json:
        print_json(json.loads(files.json.read_text(encoding="utf-8")))
    else:
        for file in (files.markdown, files.json, files.picture):
            console.print(Text(printable(str(file))), soft_wrap=True)


async def _evaluate(home: Home, request: EvaluateRequest, as_json: bool) -> None:
    with errors.status("starting") as status:

        async def show(progress: Progress) -> None:
            status.update(Text(printable(progress_text(progress))))

        file = await evaluated(home, request, show)
    if as_json:
        print_json(evaluation_facts(request, file))
    elif request.tasks is not None:
        _show_tasks(TASK_RESULTS.read(file), file)
    else:
        _show(read_evaluation(file), file)


async def evaluated(home: Home, request: EvaluateRequest, report: Callable[[Progress], Awaitable[None]]) -> Path:
    """Evaluate in the engine, which is started if none is running; returns the file with the result.

    Raises:
        WorkbenchError: the engine does not start or is busy; the evaluation fails.
    """
    await ensure_engine(home)
    client = EngineClient(home)
    file: Path | None = None
    try:
        async with aclosing(client.evaluate(request)) as answers:
            async for answer in answers:
                if isinstance(answer, Progress):
                    await report(answer)
                else:
                    file = answer.file
    finally:
        await client.close()
    assert file is not None
    return file


def evaluation_facts(request: EvaluateRequest, file: Path) -> dict[str, object]:
    """What ``loraworkbench evaluate --json`` prints of a finished evaluation."""
    if request.tasks is not None:
        return {**TASK_RESULTS.read(file).model_dump(mode="json"), "file": str(file)}
    return {**read_evaluation(file).model_dump(mode="json", exclude={"per_record"}), "file": str(file)}


def progress_text(progress: Progress) -> str:
    """A progress report in one line."""
    share = f" {progress.fraction:.0%}" if progress.fraction is not None else ""
    return f"{progress.phase}{share}  {progress.detail}"


def _show(evaluation: Evaluation, file: Path) -> None:
    more = ", first part only" if evaluation.more else ""
    console.print(
        Text(
            printable(
                f"{evaluation.records:,} {'held-out ' if evaluation.own else ''}records of {evaluation.source}{more}; "
            )
            + f"{evaluation.tokens:,} tokens, {evaluation.referenced:,} replies with a reference"
        )
    )
    for table in figure_tables(evaluation):
        console.print(_table(*table))
    for judged in evaluation.judged:
        if judged.minus:
            console.print(Text(printable(f"\n{better_text(evaluation, judged)}"), style="bold"))
    if words := caution(evaluation):
        console.print(Text.assemble(("! ", "yellow"), printable(words)))
    for answered in sorted(evaluation.answered, key=lambda one: one.fixed)[:_REPLIES_SHOWN]:
        console.print(_reply(answered))
    console.print(
        Text(printable(f"\nAll {len(evaluation.answered)} replies: {file.parent.parent / 'report.md'}")), soft_wrap=True
    )
    console.print(Text(printable(f"Per-record metrics: {file}")), soft_wrap=True)


def _show_tasks(result: TaskEvaluation, file: Path) -> None:
    console.print(Text(printable(task_head(result))))
    console.print(_table(*task_table(result)))
    for sentence in task_texts(result):
        console.print(Text(printable(sentence), style="bold"))
    console.print(Text(printable(f"\nSaved in {file}; the report has it too.")), soft_wrap=True)


def _table(heads: Sequence[str], *rows: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    for head in heads:
        table.add_column(Text(printable(head)))
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table


def _reply(answered: AnsweredPrompt) -> Group:
    """A prompt with all replies below it."""
    replies = [
        *answered.replies.items(),
        *([("reference", answered.reference)] if answered.reference is not None else []),
    ]
    parts = [Text(printable(f"\n› {answered.prompt}"), style="bold")]
    lines = [
        Text.assemble((f"{printable(name)}: ", "cyan"), printable(reply.strip() or "(nothing)"))
        for name, reply in replies
    ]
    return Group(*parts, *(Padding(line, (0, 0, 0, 2)) for line in lines))
