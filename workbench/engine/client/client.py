"""Calls the engine's operations."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from workbench.engine.client.engine_api import EngineApi
from workbench.engine.client.operation import Answer, Call, Item, Nothing, Request, Stream, read, write
from workbench.engine.client.protocol import new_request_id
from workbench.errors import WorkbenchError
from workbench.storage.paths import Home

if TYPE_CHECKING:
    from workbench.engine.client.connection import Connection


class EngineClient(EngineApi):
    """A client of one home's engine: each operation of :class:`EngineApi` is a method. Does not start the engine.

    Every operation raises :class:`~workbench.errors.WorkbenchError`: of kind ``engine_gone`` if no engine answers, or
    the engine's error.
    """

    def __init__(self, home: Home) -> None:
        self.home = home
        self._connection: Connection | None = None

    async def call(self, operation: Call[Request, Answer], request: Request) -> Answer:
        """Send the request of an operation and wait for the answer."""
        connection = await self._connected()
        body = b"" if operation.request is Nothing else write(operation.request, request)
        data = await connection.call(operation.method, operation.path, body, is_prompt=operation.is_prompt)
        return _readable(lambda: read(operation.answer, data))

    async def stream(
        self, operation: Stream[Request, Item], request: Request, request_id: str = ""
    ) -> AsyncGenerator[Item]:
        """Send the request of a streamed operation and yield its items as they arrive."""
        connection = await self._connected()
        body = write(operation.request, request)
        async with aclosing(connection.stream(operation.path, body, request_id or new_request_id())) as events:
            async for name, data in events:
                yield _readable(partial(operation.read, name, data))

    async def close(self) -> None:
        """Close the connection; a later operation opens another one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _connected(self) -> "Connection":
        if self._connection is None:
            # Off the event loop, as the HTTP library takes a tenth of a second to import.
            await asyncio.to_thread(import_module, "workbench.engine.client.connection")
            self._connection = self._connection or self._connect()
        return self._connection

    def _connect(self) -> "Connection":
        from workbench.engine.client.connection import over_socket

        return over_socket(self.home.socket)


def _readable(read_answer: Callable[[], Answer]) -> Answer:
    """Read an answer; if that fails, raise an error that says what the user can do."""
    try:
        return read_answer()
    except ValueError as error:
        raise WorkbenchError(
            "The engine's answer cannot be read.",
            "Engine and terminal have different versions. Run `loraworkbench engine restart`.",
            kind="bad_answer",
        ) from error
