"""The engine's API: what each operation of :class:`~workbench.engine.client.engine_api.EngineApi` does."""

import asyncio
import threading
import time
from collections.abc import Callable

from starlette.applications import Starlette

from workbench.data.columns import FoundColumns
from workbench.data.facts import DataFacts, Example
from workbench.engine.client.engine_api import EngineApi
from workbench.engine.client.protocol import (
    CancelRequest,
    ColumnsRequest,
    ControlRequest,
    EngineStatus,
    Evaluated,
    EvaluateRequest,
    ExamplesRequest,
    FactsRequest,
    ReplyPiece,
    ReplyRequest,
    ResumeRequest,
    ShutdownRequest,
    StartedRun,
    StopRequest,
    TrainRequest,
)
from workbench.engine.daemon import refusals
from workbench.engine.daemon.engine import Engine
from workbench.engine.daemon.event_stream import Cancel, Events, OpenStreams, paced
from workbench.engine.daemon.routes import answers, routes_of, streams
from workbench.engine.daemon.sources import Sources
from workbench.engine.steering.controls import Command
from workbench.errors import WorkbenchError
from workbench.failures.diagnose import diagnose
from workbench.models.skeleton import Skeleton
from workbench.planning.queue import QueueRequest, QueueState
from workbench.progress import Progress
from workbench.recipe.sections.model import ModelSection
from workbench.recipe.text import parse


class Api:
    """The operations on one :class:`Engine`. Blocking work runs in threads, so that ``status`` always answers."""

    def __init__(self, engine: Engine, sources: Sources | None = None) -> None:
        self.engine = engine
        self.sources = sources or Sources(engine.home)
        self.last_request = time.monotonic()
        self.shutdown_asked = asyncio.Event()
        self._streams = OpenStreams(self._used)

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(routes=routes_of(self, self._streams, self.engine.home.engine_log))

    @property
    def is_busy(self) -> bool:
        """Whether the engine has work or clients, so that it must not end by itself."""
        return self.engine.is_busy or self.engine.queue.has_work or bool(self._streams)

    def end_streams(self) -> None:
        """End every open stream with the error that the engine is shutting down."""
        self._streams.finish_all(refusals.shutting_down())

    def _used(self) -> None:
        self.last_request = time.monotonic()

    # -- state and runs -------------------------------------------------------------------------------------------

    @answers(EngineApi.status)
    async def status(self, _: None) -> EngineStatus:
        self._used()
        return self.engine.status()

    @answers(EngineApi.train, "starting the run")
    async def train(self, request: TrainRequest) -> StartedRun:
        run = await asyncio.to_thread(self.engine.train, parse(request.recipe), request.launch)
        return StartedRun(run=run.id, folder=str(run.path))

    @answers(EngineApi.resume, "resuming the run")
    async def resume(self, request: ResumeRequest) -> StartedRun:
        run, seq = await asyncio.to_thread(self.engine.resume, request.run, request.launch)
        return StartedRun(run=run.id, folder=str(run.path), seq=seq)

    @answers(EngineApi.control)
    async def control(self, request: ControlRequest) -> None:
        self.engine.control(Command(request.action, request.value, request.release))

    @answers(EngineApi.stop)
    async def stop(self, request: StopRequest) -> None:
        self.engine.stop(save=request.save)

    @answers(EngineApi.unload)
    async def unload(self, _: None) -> None:
        await asyncio.to_thread(self.engine.unload)

    @answers(EngineApi.shutdown)
    async def shutdown(self, request: ShutdownRequest) -> None:
        if not request.stop and self.engine.is_busy:
            raise refusals.still_busy()
        if not request.stop and self.engine.queue.has_work:
            raise refusals.has_queued_runs()
        self.shutdown_asked.set()

    # -- queue ----------------------------------------------------------------------------------------------------

    @answers(EngineApi.queue)
    async def queue(self, _: None) -> QueueState:
        return self.engine.queue.state

    @answers(EngineApi.edit_queue, "changing the queue")
    async def edit_queue(self, request: QueueRequest) -> QueueState:
        return await asyncio.to_thread(self.engine.change_queue, request)

    # -- streams --------------------------------------------------------------------------------------------------

    @answers(EngineApi.cancel)
    async def cancel(self, request: CancelRequest) -> None:
        self._streams.cancel(request.id)

    @streams(EngineApi.reply)
    def reply(self, request: ReplyRequest, events: Events[Progress | ReplyPiece]) -> Cancel:
        return self.engine.reply(request, events.put, events.finish)

    @streams(EngineApi.evaluate)
    def evaluate(self, request: EvaluateRequest, events: Events[Progress | Evaluated]) -> Cancel:
        return self.engine.evaluate(
            request, paced(events.put), lambda file: events.put(Evaluated(file=file)), events.finish
        )

    @streams(EngineApi.fetch)
    def fetch(self, request: ModelSection, events: Events[Progress]) -> Cancel:
        return self._in_thread(
            "fetching the model",
            lambda cancelled: self.sources.fetch(request, events.put, cancelled),
            events.finish,
        )

    @streams(EngineApi.facts)
    def facts(self, request: FactsRequest, events: Events[Progress | DataFacts]) -> Cancel:
        def count(cancelled: threading.Event) -> None:
            for facts in self.sources.facts(request, paced(events.put), cancelled):
                events.put(facts)

        return self._in_thread("counting the data", count, events.finish)

    def _in_thread(
        self,
        doing: str,
        work: Callable[[threading.Event], None],
        finished: Callable[[WorkbenchError | None], None],
    ) -> Cancel:
        """Run ``work`` in a thread of its own; the returned function sets the event on which it should end."""
        cancelled = threading.Event()

        def run() -> None:
            error = None
            try:
                work(cancelled)
            except Exception as problem:
                error = diagnose(problem, doing, self.engine.home.engine_log)
            finished(error)

        threading.Thread(target=run, name=doing, daemon=True).start()
        return cancelled.set

    # -- models and data ------------------------------------------------------------------------------------------

    @answers(EngineApi.tree, "reading the model's layers")
    async def tree(self, request: ModelSection) -> Skeleton:
        return await asyncio.to_thread(self.sources.tree, request)

    @answers(EngineApi.examples, "reading the records")
    async def examples(self, request: ExamplesRequest) -> list[Example]:
        return await asyncio.to_thread(self.sources.examples, request)

    @answers(EngineApi.columns, "reading the columns")
    async def columns(self, request: ColumnsRequest) -> FoundColumns:
        return await asyncio.to_thread(self.sources.columns, request)
