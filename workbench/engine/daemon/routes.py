"""Makes HTTP routes for the declared operations; any exception becomes an error that the client can show."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from workbench.engine.client.operation import Answer, Call, Item, Nothing, Request, Stream, read, write
from workbench.engine.client.protocol import REQUEST_ID, new_request_id
from workbench.engine.daemon.event_stream import Cancel, Events, OpenStreams
from workbench.engine.daemon.refusals import shutting_down
from workbench.errors import WorkbenchError
from workbench.failures.diagnose import diagnose
from workbench.failures.unforeseen import KIND

# The status that nginx uses for a client that disconnected; nobody reads this response.
_CLIENT_GONE = 499
_STATUS = {"busy": 409, KIND: 500}
_IMPLEMENTS = "implements_operation"

Function = TypeVar("Function", bound=Callable[..., Any])
_Endpoint = Callable[[HttpRequest], Awaitable[Response]]


def answers(
    operation: Call[Request, Answer], doing: str = ""
) -> Callable[[Callable[[Any, Request], Awaitable[Answer]]], Callable[[Any, Request], Awaitable[Answer]]]:
    """Mark the method that implements an operation; ``doing`` says what it does, for unforeseen errors."""
    return lambda method: _marked(method, operation, doing)


def streams(
    operation: Stream[Request, Item],
) -> Callable[
    [Callable[[Any, Request, Events[Item]], Cancel]],
    Callable[[Any, Request, Events[Item]], Cancel],
]:
    """Mark the method that starts a streamed operation: it sends items to the events, and returns a cancel function."""
    return lambda method: _marked(method, operation, "")


def routes_of(api: object, open_streams: OpenStreams, log: Path) -> list[Route]:
    """Make a route for each marked method.

    Args:
        log: the file to which tracebacks of unforeseen errors are written.
    """
    return list(_routes(api, open_streams, log))


def _routes(api: object, open_streams: OpenStreams, log: Path) -> Iterator[Route]:
    for name in dir(type(api)):
        operation, doing = getattr(getattr(type(api), name), _IMPLEMENTS, (None, ""))
        handler = getattr(api, name) if operation is not None else None
        if isinstance(operation, Call):
            endpoint = _guarded(_call_endpoint(operation, handler), operation.path, doing, log)
            yield Route(operation.path, endpoint, methods=[operation.method])
        elif isinstance(operation, Stream):
            endpoint = _guarded(_stream_endpoint(operation, handler, open_streams), operation.path, doing, log)
            yield Route(operation.path, endpoint, methods=["POST"])


def _marked(method: Function, operation: object, doing: str) -> Function:
    setattr(method, _IMPLEMENTS, (operation, doing))
    return method


def _call_endpoint(operation: Call[Any, Any], handler: Any) -> _Endpoint:
    async def endpoint(http: HttpRequest) -> Response:
        answer = await handler(await _request(operation, http))
        return Response(write(operation.answer, answer), media_type="application/json")

    return endpoint


def _stream_endpoint(operation: Stream[Any, Any], handler: Any, open_streams: OpenStreams) -> _Endpoint:
    async def endpoint(http: HttpRequest) -> Response:
        request = await _request(operation, http)
        return open_streams.answer(
            http.headers.get(REQUEST_ID) or new_request_id(), lambda events: handler(request, events)
        )

    return endpoint


async def _request(operation: Call[Any, Any] | Stream[Any, Any], http: HttpRequest) -> Any:
    if operation.request is Nothing:
        return None
    try:
        return read(operation.request, await http.body())
    except ValidationError as error:
        raise WorkbenchError(
            "The engine does not understand this request.",
            "Engine and terminal have different versions. Run `loraworkbench engine restart`.",
            kind="bad_request",
        ) from error


def _guarded(endpoint: _Endpoint, path: str, doing: str, log: Path) -> _Endpoint:
    async def guarded(http: HttpRequest) -> Response:
        try:
            return await endpoint(http)
        except ClientDisconnect:
            return Response(status_code=_CLIENT_GONE)
        except asyncio.CancelledError:
            # Requests are cancelled only when the server ends. Raised again, this would be logged as an error.
            return _refusal(shutting_down())
        except Exception as error:
            return _refusal(diagnose(error, doing or f"answering {path}", log))

    return guarded


def _refusal(error: WorkbenchError) -> Response:
    return Response(write(dict[str, Any], error.as_json()), _STATUS.get(error.kind, 400), media_type="application/json")
