"""Streamed answers: server-sent events that another thread sends, each stream to be cancelled by its request's id."""

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
from workbench.progress import Progress

_PROGRESS_SECONDS = 0.25

Cancel = Callable[[], None]


class Events(Generic[Item]):
    """The items of one stream; any thread may send them. Iterating gives their events until :meth:`finish`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[ServerSentEvent | None] = asyncio.Queue()

    def put(self, item: Item) -> None:
        """Send an item."""
        # An event a token may pass here, so what has its default is left out.
        kind = type(item)
        self._put(ServerSentEvent(write(kind, item, sparse=True).decode("ascii"), event=kind.__name__))

    def finish(self, error: WorkbenchError | None) -> None:
        """End the stream, with an error or without."""
        if error is not None:
            self._put(ServerSentEvent(json.dumps(error.as_json()), event="error"))
        self._put(None)

    def _put(self, event: ServerSentEvent | None) -> None:
        # The loop is closed when the engine ends; then nobody listens.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._queue.put_nowait, event)

    async def __aiter__(self) -> AsyncIterator[ServerSentEvent]:
        while (event := await self._queue.get()) is not None:
            yield event


class OpenStreams:
    """The streams that clients wait for.

    Args:
        closed: called when one has ended.
    """

    def __init__(self, closed: Callable[[], None]) -> None:
        self._closed = closed
        self._open: dict[str, tuple[Cancel, Events[object]]] = {}

    def __bool__(self) -> bool:
        return bool(self._open)

    def answer(self, request_id: str, begin: Callable[[Events[Item]], Cancel]) -> EventSourceResponse:
        """The response that carries the items of work.

        Args:
            begin: starts the work and returns what ends it; that is called when the client cancels its request's id
                or goes away.

        Raises:
            WorkbenchError: the id is in use, or the work is refused.
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
        """End the work with this id; its stream ends when the work does."""
        if request_id in self._open:
            self._open[request_id][0]()

    def finish_all(self, error: WorkbenchError) -> None:
        """End all streams and their work with an error."""
        for cancel, events in list(self._open.values()):
            cancel()
            events.finish(error)


class _EventStream(EventSourceResponse):
    """Events on their way to the client. ``on_close`` is called when the stream ends or the client goes away.

    It is called even where the client has gone before the first byte: a generator that was never started would not
    run its ``finally``. No pings are sent: nothing stands between the two processes that would close a quiet
    connection.
    """

    def __init__(self, events: Events[Item], on_close: Callable[[], None]) -> None:
        super().__init__(events, ping=0)
        self._on_close = on_close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            # A client that goes away in the middle is no fault: there is nobody to tell.
            with contextlib.suppress(OSError, ClientDisconnect):
                await super().__call__(scope, receive, send)
        finally:
            self._on_close()


def paced(report: Callable[[Progress], None]) -> Callable[[Progress], None]:
    """Passes on each new phase, and its progress a few times a second."""
    phase, reported = "", 0.0

    def report_paced(progress: Progress) -> None:
        nonlocal phase, reported
        now = time.monotonic()
        if progress.phase != phase or now - reported >= _PROGRESS_SECONDS:
            phase, reported = progress.phase, now
            report(progress)

    return report_paced
