"""The tools, each on the same functions as the command of its name; their results are those of ``--json``."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from mcp.server.mcpserver import Context
from pydantic import Field

from workbench.api import estimate as estimated
from workbench.commands.common import recipe_from
from workbench.commands.data_questions import ask_about_data
from workbench.commands.estimate import estimate_budget
from workbench.commands.evaluate import evaluated, evaluation_facts, progress_text
from workbench.commands.export import exported_source
from workbench.commands.mcp_server.client_folder import ClientFolder
from workbench.commands.models import model_lines
from workbench.commands.output.follow import summary_line
from workbench.commands.runs import listed_runs, run_facts
from workbench.commands.train import refuse_what_does_not_fit
from workbench.data.facts import DataFacts
from workbench.engine.client.client import EngineClient
from workbench.engine.client.evaluation_request import evaluation_request
from workbench.engine.client.process import ensure_engine
from workbench.engine.client.protocol import StopRequest, TaskSettings
from workbench.engine.client.requests import facts_request, train_request
from workbench.errors import WorkbenchError
from workbench.export.plan import plan_export
from workbench.export.request import LOCAL, WITHOUT_WEIGHTS, Exported, GgufType, Request, Weights, target_named
from workbench.export.run import export_run
from workbench.models.own_list import own_models
from workbench.progress import Progress
from workbench.recipe.data_sources import typed_source
from workbench.recipe.presets import describe_presets
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit
from workbench.runs.events import to_fields
from workbench.runs.folder import RunFolder, find_run, summarise
from workbench.runs.journal import JournalReader
from workbench.runs.library.listing import ListedRun, matches
from workbench.storage.paths import Home

if TYPE_CHECKING:
    LocalTarget = str
else:
    LocalTarget = Literal[LOCAL]

RecipeName = Annotated[
    str, Field(description="Name of a preset or path of a recipe file (YAML). Empty: the default settings.")
]
Settings = Annotated[
    dict[str, Any] | None,
    Field(description='Changes to the recipe by dotted key, such as {"adapter.r": 32, "training.max_steps": 100}.'),
]
RunName = Annotated[str, Field(description="Id, id prefix or name of a run.")]

_WATCH_POLL = 0.5


class Tools:
    """Each public coroutine is a tool. All raise :class:`WorkbenchError` for what the client can correct."""

    def __init__(self, home: Home, folder: ClientFolder) -> None:
        self._home = home
        self._folder = folder

    async def models(
        self,
        search: Annotated[str, Field(description="Words that the id, architecture or license contains.")] = "",
        limit: Annotated[int, Field(ge=1, le=500)] = 50,
    ) -> dict[str, Any]:
        """List base models: those on this machine, of the user's list and of the catalog."""
        lines = await asyncio.to_thread(lambda: list(model_lines(self._home, own_models(self._home))))
        words = search.casefold().split()
        found = [line for line in lines if all(word in " ".join(line.cells).casefold() for word in words)]
        return {"models": [dict(line.facts) for line in found[:limit]], "total": len(found)}

    async def presets(self) -> dict[str, Any]:
        """List the presets, which are complete recipes, with origin and advice."""
        return {"presets": [asdict(about) for about in describe_presets(self._home)]}

    async def estimate(
        self,
        model: Annotated[str, Field(description="Hub id, or the source of a model that `models` lists.")] = "",
        recipe: RecipeName = "",
        settings: Settings = None,
        memory: Annotated[
            str, Field(description="Memory limit, such as 24GB. Default: the free memory of this GPU.")
        ] = "",
    ) -> dict[str, Any]:
        """Count parameters and bytes exactly and predict the training peak, without weights."""
        chosen = self._recipe(recipe, settings, {"model.source": model} if model else {})
        budget = await asyncio.to_thread(estimate_budget, memory or None)
        found = await asyncio.to_thread(estimated, chosen, budget, self._home.root)
        return found.as_json()

    async def data_facts(
        self,
        context: Context[Any, Any],
        source: Annotated[str, Field(description="Bundled dataset, file, folder, or hub dataset.")] = "",
        model: Annotated[str, Field(description="Model whose tokenizer and template are used.")] = "",
        recipe: RecipeName = "",
        settings: Settings = None,
        show: Annotated[int, Field(ge=0, le=20, description="Records to show as formatted training text.")] = 2,
    ) -> dict[str, Any]:
        """Count records and tokens of a dataset, and show records as they would be trained on."""
        changes: dict[str, object] = {"data.source": typed_source(source)} if source else {}
        changes |= {"model.source": model} if model else {}
        request = facts_request(self._recipe(recipe, settings, changes), fetch=True, show=show)
        client = await self._engine()
        found: DataFacts | None = None
        try:
            async with aclosing(client.facts(request)) as answers:
                async for answer in answers:
                    if isinstance(answer, DataFacts):
                        found = answer
                    else:
                        await _report(context, answer)
        finally:
            await client.close()
        assert found is not None
        return found.as_json()

    async def train(
        self,
        recipe: RecipeName = "",
        settings: Settings = None,
        force: Annotated[
            bool, Field(description="Start even if it is predicted not to fit, or loses many responses.")
        ] = False,
    ) -> dict[str, Any]:
        """Start a run in the background engine and return its id; `watch` follows it."""
        chosen = self._recipe(recipe, settings)
        client = await self._engine()
        try:
            if not force:
                await refuse_what_does_not_fit(self._home, client, chosen, None)
                await ask_about_data(client, chosen)
            started = await client.train(train_request(chosen))
        except WorkbenchError as error:
            cure = error.cure.replace("add --force", "set force to true")
            raise WorkbenchError(error.message, cure, kind=error.kind, problems=error.problems) from None
        finally:
            await client.close()
        return {"run": started.run, "folder": started.folder}

    async def runs(
        self, search: Annotated[str, Field(description="Words in name, model, state or #tag.")] = ""
    ) -> dict[str, Any]:
        """List runs, newest first, with state, loss and held-out perplexity."""
        listed = await asyncio.to_thread(listed_runs, self._home)
        return {"runs": [run_facts(one) for one in listed if matches(one, search)]}

    async def watch(
        self,
        context: Context[Any, Any],
        run: RunName,
        seconds: Annotated[float, Field(ge=0, le=600, description="Wait at most this long for its end.")] = 60,
        after: Annotated[int, Field(ge=-1, description="Return events with a higher seq than this.")] = -1,
        limit: Annotated[int, Field(ge=0, le=1000, description="At most this many events, the newest.")] = 50,
    ) -> dict[str, Any]:
        """Follow a run: wait until it ends or the time is over, then return its summary and its newest events."""
        folder = self._run(run)
        deadline = time.monotonic() + seconds
        while True:
            summary = await asyncio.to_thread(summarise, folder)
            left = deadline - time.monotonic()
            if summary.state not in ("new", "running") or left <= 0:
                break
            await context.report_progress(summary.step, summary.max_steps or None, summary_line(summary))
            await asyncio.sleep(min(_WATCH_POLL, left))
        events = await asyncio.to_thread(_newest_events, folder, after, limit)
        listed = ListedRun(folder, summary, folder.label)
        return {**run_facts(listed), "is_over": summary.state not in ("new", "running"), "events": events}

    async def stop(
        self, run: RunName, save: Annotated[bool, Field(description="Keep adapter and checkpoint.")] = True
    ) -> dict[str, Any]:
        """Stop the live run within one micro-batch; saved, it can be resumed."""
        folder = self._run(run)
        client = await self._engine()
        try:
            live = (await client.status()).run
            if live != folder.id:
                raise WorkbenchError(
                    f"{folder.id} is not live.", f"{live} is." if live else "No run is.", kind="no_run"
                )
            await client.stop(StopRequest(save=save))
        finally:
            await client.close()
        return {"run": folder.id, "stopping": True, "saved": save}

    async def evaluate(
        self,
        context: Context[Any, Any],
        run: RunName,
        data: Annotated[str, Field(description="Records to evaluate on. Default: the run's held-out ones.")] = "",
        tasks: Annotated[
            list[str] | None,
            Field(description="Names of lm-eval's tasks instead of records; general: what did it forget?"),
        ] = None,
        limit: Annotated[int | None, Field(ge=1, description="Most items of each task.")] = None,
        records: Annotated[int, Field(ge=0, description="Maximum number of records. 0: all.")] = 256,
        replies: Annotated[int, Field(ge=0, le=1000)] = 20,
        max_new_tokens: Annotated[int, Field(ge=1, le=32768)] = 128,
        prompts: Annotated[list[str] | None, Field(description="Prompts in the place of the default ones.")] = None,
    ) -> dict[str, Any]:
        """Compare a run's base and adapter on the same records or tasks, with intervals."""
        folder = self._run(run)
        if data:
            self._folder.check_data(edit(Recipe(), {"data.source": data}).data)
        request = evaluation_request(
            folder, data or None, records=records, replies=replies, max_new_tokens=max_new_tokens, prompts=prompts
        )
        if tasks:
            self._folder.check_tasks(tasks)
            request = request.model_copy(update={"tasks": TaskSettings(names=tasks, limit=limit)})

        async def report(progress: Progress) -> None:
            await _report(context, progress)

        return evaluation_facts(request, await evaluated(self._home, request, report))

    async def export(
        self,
        context: Context[Any, Any],
        run: Annotated[str, Field(description=f"A run; for {', '.join(WITHOUT_WEIGHTS)} also a preset.")],
        target: Annotated[LocalTarget, Field(description="What to make.")],
        name: Annotated[str, Field(description="Name of the new folder, in the folder of this server.")],
        weights: Annotated[Weights, Field(description="For vllm and tgi.")] = "adapter",
        number_type: Annotated[GgufType, Field(description="For gguf and ollama.")] = "f16",
        plan: Annotated[bool, Field(description="Only size, disk space and time.")] = False,
    ) -> dict[str, Any]:
        """Export a run for other programs; merged weights are checked against the trained ones.

        Nothing is published and no converter is downloaded: `loraworkbench export` does both.
        """
        self._folder.check_run(run)
        folder = self._folder.export_folder(name)
        request = Request(target_named(target), folder, weights=weights, type=number_type)
        loop, canceled = asyncio.get_running_loop(), threading.Event()

        def report(progress: Progress) -> None:
            asyncio.run_coroutine_threadsafe(_report(context, progress), loop)

        def work() -> dict[str, Any]:
            with exported_source(self._home, run, request) as found:
                made: Any = (
                    plan_export(self._home, found, request)
                    if plan
                    else export_run(self._home, found, request, report, canceled.is_set)
                )
            return {**made.as_json(), "exported": isinstance(made, Exported)}

        try:
            return await asyncio.to_thread(work)
        finally:
            canceled.set()

    def _run(self, name: str) -> RunFolder:
        self._folder.check_run(name)
        return find_run(self._home, name)

    def _recipe(
        self, name: str, settings: Mapping[str, Any] | None, changes: Mapping[str, object] | None = None
    ) -> Recipe:
        """The recipe that a client describes, once all that it names is allowed."""
        if Path(name).suffix in (".yaml", ".yml"):
            name = str(self._folder.path(name))
        elif "/" in name:
            raise WorkbenchError(f"{name} is neither a preset nor a YAML file.", "`presets` lists them.", kind="recipe")
        recipe = edit(
            recipe_from(self._home, name, None) if name else Recipe(), {**(changes or {}), **(settings or {})}
        )
        self._folder.check(self._home, recipe)
        return recipe

    async def _engine(self) -> EngineClient:
        await ensure_engine(self._home)
        return EngineClient(self._home)


async def _report(context: Context[Any, Any], progress: Progress) -> None:
    await context.report_progress(time.monotonic(), None, progress_text(progress))


def _newest_events(run: RunFolder, after: int, limit: int) -> list[dict[str, object]]:
    newest: deque[dict[str, object]] = deque(maxlen=limit)
    for events in JournalReader(run.journal).blocks():
        newest.extend(to_fields(event) for event in events if event.seq > after)
    return list(newest)
