"""Sends requests to the engine over its socket, and raises its errors as WorkbenchError."""

import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Literal

import httpx
from httpx_sse import EventSource

from workbench.engine.client.protocol import REQUEST_ID
from workbench.errors import WorkbenchError

# Work may take any time, so only connecting has a time limit.
_WORK = httpx.Timeout(None, connect=5.0)
# For requests that never wait for work: an engine that does not answer these hangs.
_PROMPT = httpx.Timeout(10.0)
_JSON = {"Content-Type": "application/json"}


class Connection:
    """An HTTP connection to one engine.

    Every method raises :class:`WorkbenchError`: of kind ``engine_gone`` if no engine answers, or the engine's error.

    Args:
        transport: carries the requests; see :func:`over_socket`.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._http = httpx.AsyncClient(transport=transport, base_url="http://engine", timeout=_WORK, headers=_JSON)

    async def call(self, method: Literal["GET", "POST"], path: str, body: bytes, *, is_prompt: bool) -> bytes:
        """Send a request; returns the answer as JSON."""
        with _broken_connections_explained():
            timeout = _PROMPT if is_prompt else _WORK
            response = await self._http.request(method, path, content=body, timeout=timeout)
        _raise_refusal(response.status_code, response.content)
        return response.content

    async def stream(self, path: str, body: bytes, request_id: str) -> AsyncGenerator[tuple[str, str]]:
        """Send a request and yield the name and JSON of each event."""
        headers = {REQUEST_ID: request_id}
        with _broken_connections_explained():
            async with self._http.stream("POST", path, content=body, headers=headers) as response:
                if response.status_code >= 400:
                    _raise_refusal(response.status_code, await response.aread())
                async with aclosing(EventSource(response).aiter_sse()) as events:
                    async for event in events:
                        if event.event == "error":
                            raise WorkbenchError.from_json(json.loads(event.data))
                        yield event.event, event.data

    async def close(self) -> None:
        """Close the socket."""
        await self._http.aclose()


def over_socket(path: Path) -> Connection:
    """A connection to the engine that listens on a Unix socket. Connects with the first request."""
    return Connection(httpx.AsyncHTTPTransport(uds=str(path)))


@contextmanager
def _broken_connections_explained() -> Iterator[None]:
    try:
        yield
    except httpx.TransportError as error:
        raise WorkbenchError(
            "The engine does not answer.", "Start it again with `loraworkbench engine restart`.", kind="engine_gone"
        ) from error


def _raise_refusal(status: int, content: bytes) -> None:
    if status < 400:
        return
    try:
        error = WorkbenchError.from_json(json.loads(content))
    except ValueError:
        error = WorkbenchError(f"The engine answered {status}.", "See its log: `loraworkbench engine status`.")
    raise error
