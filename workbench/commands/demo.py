"""``loraworkbench demo``: fine-tune a small chat model in a few minutes, and compare replies before and after."""

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
from workbench.engine.client.protocol import Message, ReplyPiece, ReplyRequest, Sampling
from workbench.progress import Progress
from workbench.recipe.presets import load_preset
from workbench.recipe.schema import Recipe
from workbench.recipe.sections.model import ModelSection
from workbench.recipe.text import edit
from workbench.runs.events import Number
from workbench.runs.folder import RunFolder
from workbench.storage.paths import Home

PRESET = "demo"
_QUESTIONS = 4


@dataclass(frozen=True)
class Answers:
    """The greedy replies of base and fine-tuned model to a held-out question."""

    prompt: str
    base: str
    tuned: str


def demo(
    context: typer.Context,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Fine-tune SmolLM2-135M-Instruct with QLoRA on the bundled dataset and compare replies before and after."""
    run_async(_demo(home_of(context), steps, as_json=as_json))


async def _demo(home: Home, steps: int | None, *, as_json: bool) -> None:
    recipe = load_preset(PRESET, home)
    if steps is not None:
        recipe = edit(recipe, {"training.max_steps": steps})
    await ensure_engine(home)
    client = EngineClient(home)
    try:
        await _fetch(client, recipe.model, as_json=as_json)
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
