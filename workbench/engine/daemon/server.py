"""The engine's API: HTTP with JSON on a Unix socket only its owner may open.

Routes and data: :mod:`workbench.engine.client.protocol`.
"""

import argparse
import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import uvicorn
from pydantic import BaseModel, ValidationError
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from workbench.engine.client.protocol import (
    ALREADY_RUNNING,
    REQUEST_ID,
    CancelRequest,
    ControlRequest,
    EvaluateRequest,
    ExamplesRequest,
    FactsRequest,
    ReplyRequest,
    ResumeRequest,
    TrainRequest,
    new_request_id,
)
from workbench.engine.daemon.engine import Engine
from workbench.engine.daemon.idle import IdleLimits
from workbench.engine.daemon.output import OutputFile
from workbench.engine.daemon.tree_builder import TreeBuilder
from workbench.engine.model.libraries import import_libraries
from workbench.engine.steering.controls import Command
from workbench.errors import WorkbenchError
from workbench.failures.diagnose import diagnose
from workbench.models.skeleton_json import skeleton_to_json
from workbench.planning.queue import QueueRequest
from workbench.progress import Progress
from workbench.recipe.schema import ModelSection
from workbench.recipe.text import parse
from workbench.storage.paths import Home, private_folder

_PROGRESS_SECONDS = 0.25


class Api:
    """Routes over one :class:`Engine`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.last_request = time.monotonic()
        self.shutdown = asyncio.Event()
        self.trees = TreeBuilder()
        # What ends each reply, evaluation, download or count that a client waits for, by its request's id.
        self._cancels: dict[str, Callable[[], None]] = {}

    def app(self) -> Starlette:
        routes = [
            Route("/status", self._status),
            Route("/train", self._train, methods=["POST"]),
            Route("/stop", self._stop, methods=["POST"]),
            Route("/control", self._control, methods=["POST"]),
            Route("/resume", self._resume, methods=["POST"]),
            Route("/queue", self._queue),
            Route("/queue", self._line_up, methods=["POST"]),
            Route("/reply", self._reply, methods=["POST"]),
            Route("/evaluate", self._evaluate, methods=["POST"]),
            Route("/cancel", self._cancel, methods=["POST"]),
            Route("/fetch", self._fetch, methods=["POST"]),
            Route("/tree", self._tree, methods=["POST"]),
            Route("/facts", self._facts, methods=["POST"]),
            Route("/examples", self._examples, methods=["POST"]),
            Route("/unload", self._unload, methods=["POST"]),
            Route("/shutdown", self._shutdown, methods=["POST"]),
        ]
        return Starlette(routes=routes, exception_handlers={**_ANSWERS, Exception: self._unforeseen})

    @property
    def is_busy(self) -> bool:
        """Whether anything goes on that an idle engine may not end in."""
        return self.engine.is_busy or self.engine.queue.has_work or bool(self._cancels)

    async def _status(self, request: Request) -> Response:
        self.last_request = time.monotonic()
        return JSONResponse(self.engine.status().model_dump())

    async def _train(self, request: Request) -> Response:
        body = TrainRequest.model_validate(await request.json())
        run = await asyncio.to_thread(self.engine.train, parse(body.recipe), body.launch)
        return JSONResponse({"run": run.id, "folder": str(run.path)})

    async def _stop(self, request: Request) -> Response:
        body = await request.json()
        self.engine.stop(save=bool(body.get("save", True)))
        return JSONResponse({})

    async def _control(self, request: Request) -> Response:
        body = ControlRequest.model_validate(await request.json())
        self.engine.control(Command(body.action, body.value, body.release))
        return JSONResponse({})

    async def _resume(self, request: Request) -> Response:
        body = ResumeRequest.model_validate(await request.json())
        run, seq = await asyncio.to_thread(self.engine.resume, body.run, body.launch)
        return JSONResponse({"run": run.id, "folder": str(run.path), "seq": seq})

    async def _queue(self, request: Request) -> Response:
        return JSONResponse(self.engine.queue.line.model_dump())

    async def _line_up(self, request: Request) -> Response:
        body = QueueRequest.model_validate(await request.json())
        line = await asyncio.to_thread(self.engine.change_queue, body)
        return JSONResponse(line.model_dump())

    async def _reply(self, request: Request) -> Response:
        body = ReplyRequest.model_validate(await request.json())
        return self._streamed(request, lambda events: self.engine.reply(body, events.put, events.finish))

    async def _evaluate(self, request: Request) -> Response:
        body = EvaluateRequest.model_validate(await request.json())

        def begin(events: _Events) -> Callable[[], None]:
            def kept(file: Path) -> None:
                events.send("evaluation", {"file": str(file)})

            return self.engine.evaluate(body, _paced(events.put), kept, events.finish)

        return self._streamed(request, begin)

    async def _cancel(self, request: Request) -> Response:
        body = CancelRequest.model_validate(await request.json())
        if cancel := self._cancels.get(body.id):
            cancel()
        return JSONResponse({})

    async def _fetch(self, request: Request) -> Response:
        from workbench.models.sources import fetch_model

        section = ModelSection.model_validate(await request.json())

        def work(events: _Events, cancelled: Callable[[], bool]) -> None:
            fetch_model(self.engine.home, section, events.put, cancelled)

        return self._in_thread(request, "fetching the model", work)

    async def _facts(self, request: Request) -> Response:
        from workbench.data.dataset_stats import dataset_stats

        body = FactsRequest.model_validate(await request.json())
        recipe = parse(body.recipe)

        def work(events: _Events, cancelled: Callable[[], bool]) -> None:
            import_libraries()
            report = _paced(events.put)
            for facts in dataset_stats(
                self.engine.home, recipe, fetch=body.fetch, show=body.show, report=report, cancelled=cancelled
            ):
                events.send("facts", facts.as_json())

        return self._in_thread(request, "counting the data", work)

    async def _examples(self, request: Request) -> Response:
        from workbench.data.dataset_stats import examples

        body = ExamplesRequest.model_validate(await request.json())
        recipe = parse(body.recipe)
        try:
            await asyncio.to_thread(import_libraries)
            found = await asyncio.to_thread(examples, self.engine.home, recipe, body.start, body.count, body.search)
        except Exception as error:
            raise diagnose(error, "reading the records", self.engine.home.engine_log) from error
        return JSONResponse([example.as_json() for example in found])

    def _in_thread(
        self, request: Request, doing: str, work: "Callable[[_Events, Callable[[], bool]], object]"
    ) -> Response:
        """The events of work in a thread of its own, which is to end soon once what it is given last says so."""

        def begin(events: _Events) -> Callable[[], None]:
            cancelled = threading.Event()

            def run() -> None:
                error = None
                try:
                    work(events, cancelled.is_set)
                except Exception as problem:
                    error = diagnose(problem, doing, self.engine.home.engine_log)
                events.finish(error)

            threading.Thread(target=run, name=doing, daemon=True).start()
            return cancelled.set

        return self._streamed(request, begin)

    def _streamed(self, request: Request, begin: "Callable[[_Events], Callable[[], None]]") -> Response:
        """Answer with the events of work.

        Args:
            begin: starts the work and returns what ends it; that is called when the client cancels its request's id
                or closes the stream.
        """
        name = request.headers.get(REQUEST_ID) or new_request_id()
        if name in self._cancels:
            raise WorkbenchError(
                "A request with this id is in progress already.",
                "Send each request under a new id.",
                kind="bad_request",
            )
        events = _Events()
        cancel = self._cancels[name] = begin(events)

        def close() -> None:
            del self._cancels[name]
            cancel()
            self.last_request = time.monotonic()

        return _EventStream(events, close)

    async def _unforeseen(self, request: Request, error: Exception) -> Response:
        problem = diagnose(error, f"answering {request.url.path}", self.engine.home.engine_log)
        return JSONResponse(problem.as_json(), status_code=500)

    async def _tree(self, request: Request) -> Response:
        section = ModelSection.model_validate(await request.json())
        try:
            skeleton = await asyncio.to_thread(self.trees.skeleton_of, self.engine.home, section)
        except Exception as error:
            raise diagnose(error, "reading the model's layers", self.engine.home.engine_log) from error
        return JSONResponse(skeleton_to_json(skeleton))

    async def _unload(self, request: Request) -> Response:
        await asyncio.to_thread(self.engine.unload)
        return JSONResponse({})

    async def _shutdown(self, request: Request) -> Response:
        body = await request.json()
        if not body.get("stop", False):
            if self.engine.is_busy:
                raise WorkbenchError("The engine is busy.", "Wait until it finishes, or stop it first.", kind="busy")
            if self.engine.queue.has_work:
                raise WorkbenchError("There are queued runs.", "Hold or clear the queue first.", kind="busy")
        self.shutdown.set()
        return JSONResponse({})


class _Events:
    """Server-sent events that come from another thread; iterating gives them until :meth:`finish`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[ServerSentEvent | None] = asyncio.Queue()

    def put(self, event: BaseModel) -> None:
        # A piece for each token may pass here: what is as it always is is left out, and the other end puts it back.
        self.send("progress" if isinstance(event, Progress) else "piece", event.model_dump(exclude_defaults=True))

    def send(self, name: str, data: Mapping[str, object]) -> None:
        # JSON in ASCII has no character that could end a line of the stream.
        self._put(ServerSentEvent(json.dumps(data), event=name))

    def finish(self, error: WorkbenchError | None) -> None:
        if error is not None:
            self.send("error", error.as_json())
        self._put(None)

    def _put(self, event: ServerSentEvent | None) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, event)

    async def __aiter__(self) -> AsyncIterator[ServerSentEvent]:
        while (event := await self._queue.get()) is not None:
            yield event


class _EventStream(EventSourceResponse):
    """Events on their way to the client. ``on_close`` is called when the stream ends or the client goes away.

    It is called even where the client has gone before the first byte: a generator that was never started would not
    run its ``finally``. No pings are sent: nothing stands between the two processes that would close a quiet
    connection.
    """

    def __init__(self, events: _Events, on_close: Callable[[], None]) -> None:
        super().__init__(events, ping=0)
        self._on_close = on_close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_close()


def _paced(report: Callable[[Progress], None]) -> Callable[[Progress], None]:
    """Hands on each new phase, and some times a second how far it has come."""
    phase, told = "", 0.0

    def paced(progress: Progress) -> None:
        nonlocal phase, told
        now = time.monotonic()
        if progress.phase != phase or now - told >= _PROGRESS_SECONDS:
            phase, told = progress.phase, now
            report(progress)

    return paced


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, WorkbenchError)
    return JSONResponse(error.as_json(), status_code=409 if error.kind == "busy" else 400)


async def _bad_request(request: Request, error: Exception) -> Response:
    problem = WorkbenchError(
        "The engine does not understand this request.",
        "Engine and terminal have different versions. Run `loraworkbench engine restart`.",
        kind="bad_request",
    )
    return JSONResponse(problem.as_json(), status_code=400)


_ANSWERS: Any = {WorkbenchError: _refusal, ValidationError: _bad_request}


class _Server(uvicorn.Server):
    """Leaves signals alone: the engine has its own idea of them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


async def serve(home: Home, output: OutputFile) -> None:
    """Answer requests until asked to end. SIGTERM and SIGINT stop and save a live run first; SIGHUP is ignored."""
    engine = Engine(home, output)
    api = Api(engine)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, api.shutdown.set)
    config = uvicorn.Config(
        api.app(), log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=1
    )
    server = _Server(config)
    with _listen(home.socket) as listener:
        # Runs may begin from here on: the socket is there, and who asks is answered.
        engine.queue.start()
        running = asyncio.create_task(server.serve(sockets=[listener]))
        threading.Thread(target=engine.warm_up, name="warm up", daemon=True).start()
        await _until_asked_or_idle(api, home)
        await _end_run(engine)
        server.should_exit = True
        await running
    home.socket.unlink(missing_ok=True)


async def _until_asked_or_idle(api: Api, home: Home) -> None:
    """A model that nobody uses is unloaded after a while; an engine that nobody speaks to ends later."""
    while not api.shutdown.is_set():
        limits = IdleLimits.of(home)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(api.shutdown.wait(), timeout=min(20.0, limits.unload / 3, limits.stop / 3))
        api.trees.close_if_idle()
        if api.is_busy:
            continue
        now = time.monotonic()
        if now - max(api.last_request, api.engine.last_used) > limits.stop:
            return
        if api.engine.holds_model and now - api.engine.last_used > limits.unload:
            with contextlib.suppress(WorkbenchError):  # work came in between
                await asyncio.to_thread(api.engine.unload)


async def _end_run(engine: Engine) -> None:
    engine.end()
    while engine.is_training:
        await asyncio.sleep(0.05)


def _listen(path: Path) -> socket.socket:
    """A socket of mode 0600 in a folder of mode 0700.

    Nobody can connect before its mode is set, since it does not listen yet. The umask is left alone: it is the whole
    process's, and a file that another thread makes meanwhile would get its rights from it.
    """
    private_folder(path.parent)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    return listener


def main() -> None:
    """``python -m workbench.engine.daemon.server --home DIR``: one engine a home; a second one ends at once."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", type=Path, required=True)
    home = Home(parser.parse_args().home)
    private_folder(home.engine)
    lock = os.open(home.engine / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(ALREADY_RUNNING)
    os.ftruncate(lock, 0)
    os.write(lock, str(os.getpid()).encode())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    output = OutputFile(home.engine_log)
    asyncio.run(serve(home, output))
    # Native threads of the libraries may crash while the interpreter is taken down; there is nothing left to save.
    os._exit(0)


if __name__ == "__main__":
    main()
