"""HTTP to an application in this process, with streamed answers: httpx's own transport waits for their end."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
from starlette.types import ASGIApp, Message


class InProcess(httpx.AsyncBaseTransport):
    """Carries requests to an application.

    Args:
        listening: the application, or None while nobody listens.
    """

    def __init__(self, listening: Callable[[], ASGIApp | None]) -> None:
        self._listening = listening
        self._open: set[_Exchange] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        app = self._listening()
        if app is None:
            raise httpx.ConnectError("nobody listens")
        exchange = _Exchange(self._open.discard)
        self._open.add(exchange)
        return await exchange.answer(app, request, await request.aread())

    def break_off(self) -> None:
        """The other end dies: whoever still waits for an answer gets no more of it."""
        for exchange in list(self._open):
            exchange.messages.put_nowait(None)


class _Exchange(httpx.AsyncByteStream):
    """One request and its answer."""

    def __init__(self, closed: Callable[["_Exchange"], None]) -> None:
        self.messages: asyncio.Queue[Message | None] = asyncio.Queue()
        self._gone = asyncio.Event()
        self._closed = closed
        self._task: asyncio.Task[None] | None = None

    async def answer(self, app: ASGIApp, request: httpx.Request, body: bytes) -> httpx.Response:
        unread = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            if not unread:
                await self._gone.wait()
            return unread.pop() if unread else {"type": "http.disconnect"}

        scope: dict[str, Any] = {
            "type": "http",
            "method": request.method,
            "path": request.url.path,
            "query_string": b"",
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
        }
        self._task = asyncio.ensure_future(app(scope, receive, self.messages.put))  # type: ignore[arg-type]
        # An application that fails without an answer must not be waited for.
        self._task.add_done_callback(lambda _: self.messages.put_nowait(None))
        try:
            start = await self._next()
        except BaseException:
            await self.aclose()
            raise
        return httpx.Response(start["status"], headers=start["headers"], stream=self)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            message = await self._next()
            if message["body"]:
                yield message["body"]
            if not message.get("more_body"):
                return

    async def aclose(self) -> None:
        self._gone.set()
        self._closed(self)

    async def _next(self) -> Message:
        message = await self.messages.get()
        if message is None:
            raise httpx.ReadError("the other end is gone")
        return message
