"""Streams answers as server-sent events, which any thread may send. Each stream can be cancelled by its request id."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Generic

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from workbench.engine.client.operation import Item, write
from workbench.errors import WorkbenchError
from workbench.progress import Progress, Report

_PROGRESS_SECONDS = 0.25

Cancel = Callable[[], None]


class Events(Generic[Item]):
    """The items of one stream; any thread may send them. Iterating yields their events until :meth:`finish`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[ServerSentEvent | None] = asyncio.Queue()

    def put(self, item: Item) -> None:
        """Send an item."""
        # There may be one event per token, so fields that have their default are omitted.
        kind = type(item)
        self._put(ServerSentEvent(write(kind, item, sparse=True).decode("ascii"), event=kind.__name__))

    def finish(self, error: WorkbenchError | None) -> None:
        """End the stream, after an error if there was one."""
        if error is not None:
            self._put(ServerSentEvent(json.dumps(error.as_json()), event="error"))
        self._put(None)

    def _put(self, event: ServerSentEvent | None) -> None:
        # The loop is closed when the engine ends; then there are no clients left.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._queue.put_nowait, event)

    async def __aiter__(self) -> AsyncIterator[ServerSentEvent]:
        while (event := await self._queue.get()) is not None:
            yield event


class OpenStreams:
    """The open streams.

    Args:
        closed: called when a stream has ended.
    """

    def __init__(self, closed: Callable[[], None]) -> None:
        self._closed = closed
        self._open: dict[str, tuple[Cancel, Events[object]]] = {}

    def __bool__(self) -> bool:
        return bool(self._open)

    def answer(self, request_id: str, begin: Callable[[Events[Item]], Cancel]) -> EventSourceResponse:
        """Start the work of a request; returns the response that streams its items.

        Args:
            begin: starts the work and returns a function that cancels it, which is called when the client cancels the
                request or disconnects.

        Raises:
            WorkbenchError: the id is in use, or ``begin`` refuses the request.
        """
        if request_id in self._open:
            raise WorkbenchError(
                "A request with this id is in progress already.",
                "Send each request under a new id.",
                kind="bad_request",
            )
        events: Events[Item] = Events()
        cancel = begin(events)
        self._open[request_id] = cancel, events  # type: ignore[assignment]  # nothing is put through this name

        def close() -> None:
            del self._open[request_id]
            cancel()
            self._closed()

        return _EventStream(events, close)

    def cancel(self, request_id: str) -> None:
        """Cancel the work of a request; its stream ends when the work does."""
        if request_id in self._open:
            self._open[request_id][0]()

    def finish_all(self, error: WorkbenchError) -> None:
        """Cancel all work, and end its streams with an error."""
        for cancel, events in list(self._open.values()):
            cancel()
            events.finish(error)


class _EventStream(EventSourceResponse):
    """A response that streams events; ``on_close`` is called when the stream ends or the client disconnects.

    It is called even if the client disconnects before the first byte, when a generator's ``finally`` would not run. No
    pings are sent, because no proxy between the two processes closes an idle connection.
    """

    def __init__(self, events: Events[Item], on_close: Callable[[], None]) -> None:
        super().__init__(events, ping=0)
        self._on_close = on_close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            # A client that disconnects is not an error.
            with contextlib.suppress(OSError, ClientDisconnect):
                await super().__call__(scope, receive, send)
        finally:
            self._on_close()


def paced(report: Report) -> Report:
    """Wrap ``report`` so that it is called for each new phase, and otherwise at most four times a second."""
    phase, reported = "", 0.0

    def report_paced(progress: Progress) -> None:
        nonlocal phase, reported
        now = time.monotonic()
        if progress.phase != phase or now - reported >= _PROGRESS_SECONDS:
            phase, reported = progress.phase, now
            report(progress)

    return report_paced
