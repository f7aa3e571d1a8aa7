"""Declares operations of the engine with their types, once for the clients that call them and the engine's routes.

An operation is an attribute of :class:`~workbench.engine.client.engine_api.EngineApi`. On the class it is the
declaration, from which routes are made; on a client it is a function that sends a request.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, Self, TypeVar, overload

from pydantic import TypeAdapter

Request = TypeVar("Request")
Answer = TypeVar("Answer")
Item = TypeVar("Item")
_Request_contra = TypeVar("_Request_contra", contravariant=True)
_Item_co = TypeVar("_Item_co", covariant=True)

Nothing = type(None)
"""The type of an operation's request or answer if it has none."""


class Caller(Protocol):
    """A client, which sends the request of any operation."""

    async def call(self, operation: Call[Request, Answer], request: Request) -> Answer: ...

    def stream(self, operation: Stream[Request, Item], request: Request, request_id: str) -> AsyncGenerator[Item]: ...


class StreamFunction(Protocol[_Request_contra, _Item_co]):
    """The type of a streamed operation on a client."""

    def __call__(self, request: _Request_contra, *, request_id: str = "") -> AsyncGenerator[_Item_co]:
        """Send a request. ``cancel`` with its ``request_id`` ends it, and so does closing the iterator."""


@dataclass(frozen=True)
class Call(Generic[Request, Answer]):
    """An operation with one answer: ``await client.train(request)``.

    Attributes:
        path: path of its route. method: HTTP method.
        request, answer: types that pydantic can convert to JSON and back.
        refusals: kinds of :class:`~workbench.errors.WorkbenchError` that it raises in some states of the engine. Any
            operation can also fail with the kinds of :func:`~workbench.failures.diagnose.diagnose`.
        is_prompt: it never waits for work, so an engine that does not answer within seconds hangs.
    """

    path: str
    request: type[Request]
    answer: type[Answer]
    method: Literal["GET", "POST"] = "POST"
    refusals: tuple[str, ...] = ()
    is_prompt: bool = False

    @overload
    def __get__(self, client: None, owner: object) -> Self: ...

    @overload
    def __get__(
        self: Call[None, Answer], client: Caller, owner: object
    ) -> Callable[[], Coroutine[Any, Any, Answer]]: ...

    @overload
    def __get__(self, client: Caller, owner: object) -> Callable[[Request], Coroutine[Any, Any, Answer]]: ...

    def __get__(self, client: Caller | None, owner: object) -> object:
        if client is None:
            return self

        def call(request: Any = None) -> Coroutine[Any, Any, Answer]:
            return client.call(self, request)

        return call


@dataclass(frozen=True)
class Stream(Generic[Request, Item]):
    """An operation with a stream of answers: ``async for item in client.reply(request)``.

    Attributes:
        items: the types of its items. Each is sent as a server-sent event with the name of its class.
    """

    path: str
    request: type[Request]
    items: tuple[type[Item], ...]
    refusals: tuple[str, ...] = ()

    @overload
    def __get__(self, client: None, owner: object) -> Self: ...

    @overload
    def __get__(self, client: Caller, owner: object) -> StreamFunction[Request, Item]: ...

    def __get__(self, client: Caller | None, owner: object) -> object:
        if client is None:
            return self

        def stream(request: Request, *, request_id: str = "") -> AsyncGenerator[Item]:
            return client.stream(self, request, request_id)

        return stream

    def read(self, name: str, data: str) -> Item:
        """Read an item from its event.

        Raises:
            ValueError: it is of none of the types :attr:`items`.
        """
        kind = next((kind for kind in self.items if kind.__name__ == name), None)
        if kind is None:
            raise ValueError(f"{self.path} has no item {name}")
        return read(kind, data)


_adapters: dict[Any, TypeAdapter[Any]] = {}


def _adapter(kind: Any) -> TypeAdapter[Any]:
    """The adapter that reads and writes a type; cached, because pydantic takes milliseconds to make one."""
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def use_adapter(kind: type[Answer], adapter: TypeAdapter[Answer]) -> None:
    """Use this adapter to read and write a type, instead of pydantic's default."""
    _adapters[kind] = adapter


def read(kind: type[Answer], data: str | bytes) -> Answer:
    """Read a value from JSON.

    Raises:
        pydantic.ValidationError: the JSON does not have this type.
    """
    value: Answer = _adapter(kind).validate_json(data)
    return value


def write(kind: type[Any], value: Any, *, sparse: bool = False) -> bytes:
    """Write a value as ASCII JSON.

    Args:
        sparse: omit fields that have their default, which :func:`read` restores.
    """
    # In ASCII only a line feed can end a line of the event stream; Unicode has other line separators.
    return _adapter(kind).dump_json(value, exclude_defaults=sparse, ensure_ascii=True)
