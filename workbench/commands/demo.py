"""``loraworkbench demo``: fine-tune a small chat model in a few minutes, and compare replies before and after.

With ``--objective dpo`` the adapter of that run learns preferences, and both are compared on held-out pairs.
"""

from dataclasses import dataclass
from itertools import islice
from typing import Annotated

import typer
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from workbench.commands.common import JsonOption, console, figure, home_of, print_json, printable, run_async
from workbench.commands.train import train_and_follow
from workbench.engine.client.client import EngineClient
from workbench.engine.client.process import ensure_engine
from workbench.engine.client.protocol import (
    Evaluated,
    EvaluateRequest,
    Message,
    ReplyPiece,
    ReplyRequest,
    Sampling,
)
from workbench.errors import WorkbenchError
from workbench.evaluation.result import Interval, read_evaluation
from workbench.progress import Progress
from workbench.recipe.presets import load_preset
from workbench.recipe.schema import Recipe
from workbench.recipe.sections.model import ModelSection
from workbench.recipe.text import edit
from workbench.runs.events import Number
from workbench.runs.folder import RunFolder, all_runs
from workbench.storage.paths import Home

PRESETS = {"sft": "demo", "dpo": "demo-preferences"}
"""The preset of each objective that has a demonstration."""
_QUESTIONS = 4
_PREFERENCES = ("preference_accuracy", "preference_margin")


@dataclass(frozen=True)
class Answers:
    """The greedy replies of base and fine-tuned model to a held-out question."""

    prompt: str
    base: str
    tuned: str


def demo(
    context: typer.Context,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps.")] = None,
    objective: Annotated[
        str, typer.Option(help="sft: learn responses. dpo: learn preferences, starting from the adapter of the first.")
    ] = "sft",
    as_json: JsonOption = False,
) -> None:
    """Fine-tune SmolLM2-135M-Instruct with QLoRA on the bundled dataset and compare replies before and after."""
    if objective not in PRESETS:
        raise WorkbenchError(
            f"There is no demonstration of {objective}.", f"Give --objective {' or '.join(PRESETS)}.", kind="usage"
        )
    run_async(_demo(home_of(context), steps, objective, as_json=as_json))


async def _demo(home: Home, steps: int | None, objective: str, *, as_json: bool) -> None:
    recipe = load_preset(PRESETS[objective], home)
    if steps is not None:
        recipe = edit(recipe, {"training.max_steps": steps})
    await ensure_engine(home)
    client = EngineClient(home)
    try:
        await _fetch(client, recipe.model, as_json=as_json)
        if objective == "dpo":
            await _demo_of_preferences(home, client, recipe, as_json=as_json)
            return
        run, summary = await train_and_follow(home, recipe, as_json=as_json)
        answers = [await _ask_both(client, run.id, question) for question in _held_out_questions(home, recipe)]
    finally:
        await client.close()
    result = {
        "run": run.id,
        "adapter": str(run.adapter),
        "perplexity": summary.perplexity,
        "replies": [vars(answer) for answer in answers],
    }
    if as_json:
        print_json(result)
    else:
        _show(run, summary.perplexity, answers)


async def _demo_of_preferences(home: Home, client: EngineClient, recipe: Recipe, *, as_json: bool) -> None:
    """Train on the pairs from the newest adapter of the first demonstration, which is trained now if there is none."""
    start = _newest_demo(home, recipe)
    if start is None:
        start, _ = await train_and_follow(home, load_preset(PRESETS["sft"], home), as_json=as_json)
    recipe = edit(recipe, {"adapter.continue_from": start.id})
    run, _ = await train_and_follow(home, recipe, as_json=as_json)
    request = EvaluateRequest(run=run.id, adapters=[start.id], replies=0, prompts=[])
    file = None
    async for answer in client.evaluate(request):
        file = answer.file if isinstance(answer, Evaluated) else file
    assert file is not None
    models = {model.name: model.figures for model in read_evaluation(file).judged}
    if as_json:
        figures = {name: model.model_dump(include=set(_PREFERENCES)) for name, model in models.items()}
        print_json({"run": run.id, "adapter": str(run.adapter), "start": start.id, "preferences": figures})
        return
    table = Table(title="Held-out pairs: is the chosen response likelier per token?", title_justify="left")
    for heading in ("", "preference accuracy", "margin (nats per token)"):
        table.add_column(heading)
    for name, metrics in models.items():
        table.add_row(printable(name), *(_with_interval(getattr(metrics, metric)) for metric in _PREFERENCES))
    console.print(table)
    console.print(Text(f"Adapter  {printable(str(run.adapter))}"), soft_wrap=True)
    console.print(f"Chat     loraworkbench chat {run.id}\nApp      loraworkbench", markup=False)


def _newest_demo(home: Home, recipe: Recipe) -> RunFolder | None:
    """The newest run of the first demonstration with an adapter of the same base; None without one."""
    runs = sorted(all_runs(home), key=lambda run: run.made, reverse=True)
    name = load_preset(PRESETS["sft"]).output.name
    return next(
        (
            run
            for run in runs
            if (run.adapter / "adapter_config.json").is_file()
            and run.recipe().output.name == name
            and run.recipe().model == recipe.model
        ),
        None,
    )


def _with_interval(metric: Interval | None) -> str:
    """``0.92 (0.79 to 1.00)``."""
    if metric is None:
        return ""
    bounds = "" if metric.low is None or metric.high is None else f" ({metric.low:.2f} to {metric.high:.2f})"
    return f"{metric.value:.2f}{bounds}"


async def _fetch(client: EngineClient, model: ModelSection, *, as_json: bool) -> None:
    if as_json:
        async for progress in client.fetch(model):
            print_json({"event": "phase", **progress.model_dump()})
        return
    with Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console,
        refresh_per_second=4,
    ) as bars:
        task = bars.add_task(f"downloading {model.source}", total=None)
        async for progress in client.fetch(model):
            label = printable(f"{progress.phase} {progress.detail}")[:60]
            bars.update(
                task,
                description=label,
                total=None if progress.fraction is None else 1.0,
                # A full bar would stop the clock, and the next phase may follow.
                completed=min(progress.fraction or 0.0, 0.999),
            )
        bars.update(task, description=f"{model.source} is on disk", total=1.0, completed=1.0)


def _held_out_questions(home: Home, recipe: Recipe) -> list[str]:
    from workbench.data.records.conversation import Conversation
    from workbench.data.sources import load_records

    held_out = (item.content for item in load_records(recipe.data, home).items() if item.held_out)
    turns = (turn for content in held_out if isinstance(content, Conversation) for turn in content.messages)
    return list(islice((turn["content"] for turn in turns if turn["role"] == "user"), _QUESTIONS))


async def _ask_both(client: EngineClient, run: str, question: str) -> Answers:
    return Answers(
        question, await ask(client, run, question, adapter=False), await ask(client, run, question, adapter=True)
    )


async def ask(client: EngineClient, target: str, question: str, *, adapter: bool) -> str:
    """Get one greedy reply of at most 80 tokens."""
    request = ReplyRequest(
        target=target,
        messages=[Message(role="user", content=question)],
        adapter=adapter,
        sampling=Sampling(temperature=0.0, max_new_tokens=80),
    )
    pieces = [piece async for piece in client.reply(request) if not isinstance(piece, Progress)]
    return "".join(piece.text for piece in pieces if isinstance(piece, ReplyPiece)).strip()


def _show(run: RunFolder, perplexity: dict[str, Number], answers: list[Answers]) -> None:
    table = Table(title="Held-out questions, answered before and after", show_lines=True, title_justify="left")
    for heading in ("question", "base model", "fine-tuned"):
        table.add_column(heading)
    for answer in answers:
        table.add_row(*(Text(printable(text)) for text in (answer.prompt, answer.base, answer.tuned)))
    console.print(table)
    before, after = perplexity.get("base"), perplexity.get("tuned")
    if before and after:
        console.print(f"Held-out perplexity {figure(before)} → {figure(after)} (lower is better)")
    console.print(Text(f"Adapter  {printable(str(run.adapter))}"), soft_wrap=True)
    console.print(f"Chat     loraworkbench chat {run.id}\nApp      loraworkbench", markup=False)
