"""The workbench from Python: price a recipe, train it in the engine, read its history, chat with the result.

::

    from workbench import Recipe, estimate, open_engine

    recipe = Recipe.model_validate({"data": {"source": "records.jsonl"}, "training": {"max_steps": 100}})
    print(estimate(recipe).peak.allocated_bytes)
    with open_engine() as engine:
        run = engine.train(recipe)
    run.history().plot(x="step", y="loss")

The engine is the same one that app and command line use: a run continues when this process ends. All functions block,
and work in a notebook too.
"""

import asyncio
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from workbench.engine.client.client import EngineClient
from workbench.engine.client.process import ensure_engine, find_engine, is_training, stop_engine
from workbench.engine.client.protocol import EngineStatus, Message, ReplyPiece, ReplyRequest, Sampling, StopRequest
from workbench.engine.client.requests import here, resume_request, train_request
from workbench.engine.client.run_events import events_of, wait_until_released
from workbench.errors import WorkbenchError
from workbench.estimate import Price, TraceStore, price
from workbench.machine.memory_budget import MemoryBudget
from workbench.recipe.schema import Recipe
from workbench.runs.events import AnyEvent
from workbench.runs.folder import RunFolder, all_runs, find_run, summarise
from workbench.runs.summary import RunSummary
from workbench.storage.paths import Home

if TYPE_CHECKING:
    import pandas

__all__ = ["Engine", "Price", "Recipe", "Run", "WorkbenchError", "estimate", "open_engine", "runs"]

Result = TypeVar("Result")


def estimate(recipe: Recipe, memory: MemoryBudget | None = None, home: Path | None = None) -> Price:
    """Count a recipe's parameters and bytes exactly and predict its training peak, as ``loraworkbench estimate`` does.

    Args:
        memory: of the device to train on; default: a GPU of unknown size.

    Raises:
        WorkbenchError: the model's configuration cannot be found, or PEFT would refuse the adapter.
    """
    from workbench.models.trees import skeleton_of

    where = Home.find(home)
    return price(skeleton_of(where, recipe.model), recipe, memory, traced=TraceStore(where.cache / "traces"))


def runs(home: Path | None = None) -> "list[Run]":
    """All runs of the home, the newest first."""
    where = Home.find(home)
    return [Run(folder, where) for folder in all_runs(where)]


def open_engine(home: Path | None = None) -> "Engine":
    """The home's engine; started if none is running.

    Raises:
        WorkbenchError: it does not start.
    """
    return Engine(Home.find(home))


class Run:
    """A run of a home, live or ended."""

    def __init__(self, folder: RunFolder, home: Home) -> None:
        self.folder = folder
        self._home = home

    @classmethod
    def find(cls, name: str, home: Path | None = None) -> Self:
        """The run with this id, id prefix, name or folder.

        Raises:
            WorkbenchError: there is none.
        """
        where = Home.find(home)
        return cls(find_run(where, name), where)

    def __repr__(self) -> str:
        return f"Run({self.folder.id!r}, {self.summary().state})"

    @property
    def id(self) -> str:
        return self.folder.id

    @property
    def adapter(self) -> Path:
        """The folder with its adapter, in PEFT's form."""
        return self.folder.adapter

    def recipe(self) -> Recipe:
        """The recipe that it was started with."""
        return self.folder.recipe()

    def summary(self) -> RunSummary:
        """State, step, loss, perplexities, memory: what its journal says now."""
        return summarise(self.folder)

    def history(self) -> "pandas.DataFrame":
        """One row per logged step, with the evaluations; steps that a resume discarded are left out.

        Raises:
            WorkbenchError: it has no journal yet.
        """
        import pandas

        from workbench.runs.library.export_metrics import export_journal

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "history.parquet"
            export_journal(self.folder, file)
            return pandas.read_parquet(file, dtype_backend="numpy_nullable")

    def events(self) -> Iterator[AnyEvent]:
        """The events of its journal from the first on; of a live run also those to come, until it ends.

        Raises:
            WorkbenchError: its process ended without recording it.
        """
        with _Loop() as loop:
            client = EngineClient(self._home)
            events = events_of(self.folder, partial(is_training, self._home, client, self.id))

            async def following() -> AnyEvent | None:
                found = await anext(events, None)
                return found[0] if found is not None else None

            try:
                while (event := loop.run(following())) is not None:
                    yield event
            finally:
                loop.run(events.aclose())
                loop.run(client.close())

    def wait(self) -> RunSummary:
        """Wait until it has ended.

        Raises:
            WorkbenchError: it failed, with its reason; or its process ended without recording it.
        """
        for _ in self.events():
            pass
        summary = self.summary()
        if summary.state == "failed":
            raise WorkbenchError(summary.reason, summary.cure, kind="run_failed")
        return summary


class Engine:
    """The engine of a home: trains one run at a time, and answers with the models in its memory.

    A context manager; leaving it closes the connection, while the engine and its run continue.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._loop = _Loop()
        self._client = EngineClient(home)
        self._loop.run(ensure_engine(home))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._loop.run(self._client.close())
        self._loop.close()

    def status(self) -> EngineStatus | None:
        """What it does now; None if it has ended."""
        return self._loop.run(find_engine(self._home))

    def train(self, recipe: Recipe, *, wait: bool = True) -> Run:
        """Start a run, and wait until it has ended.

        Raises:
            WorkbenchError: the engine is busy, or the run fails.
        """
        started = self._loop.run(self._client.train(train_request(recipe)))
        return self._waited(Run(RunFolder(Path(started.folder)), self._home), wait)

    def resume(self, run: str, *, wait: bool = True) -> Run:
        """Resume a run from its newest complete checkpoint.

        Raises:
            WorkbenchError: as :meth:`train`, or there is nothing to resume.
        """
        started = self._loop.run(self._client.resume(resume_request(run)))
        return self._waited(Run(RunFolder(Path(started.folder)), self._home), wait)

    def stop(self, *, save: bool = True) -> None:
        """Stop the live run within one micro-batch. ``save``: keep its adapter and a checkpoint."""
        self._loop.run(self._client.stop(StopRequest(save=save)))

    def shut_down(self) -> None:
        """End the engine's process, after stopping and saving a live run."""
        self._loop.run(stop_engine(self._home))

    def chat(
        self,
        target: str,
        messages: str | Sequence[Message],
        sampling: Sampling | None = None,
        *,
        adapter: bool = True,
        show: Callable[[str], None] = lambda text: None,
    ) -> Message:
        """A reply of a run, a checkpoint (``run@40``), an adapter folder or a base model.

        Args:
            messages: a question, or a conversation.
            sampling: default: as in chat.
            adapter: False asks the target's base.
            show: called with the text as it comes.

        Raises:
            WorkbenchError: the engine is busy, or the target does not exist or cannot be loaded.
        """
        talk = [Message(role="user", content=messages)] if isinstance(messages, str) else list(messages)
        where = here(target) if "/" in target and Path(target).expanduser().exists() else target
        request = ReplyRequest(target=where, messages=talk, sampling=sampling or Sampling(), adapter=adapter)
        return self._loop.run(self._reply(request, show))

    async def _reply(self, request: ReplyRequest, show: Callable[[str], None]) -> Message:
        message = None
        # To its end, as the engine is busy until then.
        async with aclosing(self._client.reply(request)) as pieces:
            async for piece in pieces:
                if isinstance(piece, ReplyPiece):
                    show(piece.text)
                    message = piece.message or message
        if message is None:
            raise WorkbenchError("The reply ended early.", "Ask again.", kind="engine_gone")
        return message

    def _waited(self, run: Run, wait: bool) -> Run:
        if wait:
            run.wait()
            self._loop.run(wait_until_released(self._client, run.id))
        return run


class _Loop:
    """An event loop in a thread of its own, since a notebook's thread already runs one."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="workbench", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, work: Coroutine[object, object, Result]) -> Result:
        """Run a coroutine and wait for its result."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
