"""From declared operations to HTTP routes. Whatever a handler raises becomes an error that the client can show."""

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

# What nginx logs for a client that went away: the response has no reader.
_CLIENT_GONE = 499
_STATUS = {"busy": 409, KIND: 500}
_IMPLEMENTS = "implements_operation"

Function = TypeVar("Function", bound=Callable[..., Any])
_Endpoint = Callable[[HttpRequest], Awaitable[Response]]


def answers(
    operation: Call[Request, Answer], doing: str = ""
) -> Callable[[Callable[[Any, Request], Awaitable[Answer]]], Callable[[Any, Request], Awaitable[Answer]]]:
    """Marks the method that implements an operation; ``doing`` is what it does, for an unforeseen failure."""
    return lambda method: _marked(method, operation, doing)


def streams(
    operation: Stream[Request, Item],
) -> Callable[
    [Callable[[Any, Request, Events[Item]], Cancel]],
    Callable[[Any, Request, Events[Item]], Cancel],
]:
    """Marks the method that begins a streamed operation: it sends to the events and returns what ends the work."""
    return lambda method: _marked(method, operation, "")


def routes_of(api: object, open_streams: OpenStreams, log: Path) -> list[Route]:
    """A route for each marked method.

    Args:
        log: takes the traceback of what nobody foresaw.
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
            # Only the server's own end cancels a request. Raised on, it would be logged as a fault of the program.
            return _refusal(shutting_down())
        except Exception as error:
            return _refusal(diagnose(error, doing or f"answering {path}", log))

    return guarded


def _refusal(error: WorkbenchError) -> Response:
    return Response(write(dict[str, Any], error.as_json()), _STATUS.get(error.kind, 400), media_type="application/json")
