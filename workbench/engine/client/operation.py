"""How an operation of the engine is declared: once, with its types. Clients call it, the engine's API implements it.

An operation is an attribute of :class:`~workbench.engine.client.engine_api.EngineApi`. Read from the class it is the
declaration, which the API's routes use; read from a client it is a function that sends a request.
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
"""The request of an operation that takes none, and the answer of one that only does something."""


class Caller(Protocol):
    """A client: sends any operation."""

    async def call(self, operation: Call[Request, Answer], request: Request) -> Answer: ...

    def stream(self, operation: Stream[Request, Item], request: Request, request_id: str) -> AsyncGenerator[Item]: ...


class StreamFunction(Protocol[_Request_contra, _Item_co]):
    """What a streamed operation is on a client."""

    def __call__(self, request: _Request_contra, *, request_id: str = "") -> AsyncGenerator[_Item_co]:
        """Send a request. ``request_id`` is what ``cancel`` names it by; closing the iterator ends it too."""


@dataclass(frozen=True)
class Call(Generic[Request, Answer]):
    """An operation with one answer: ``await client.train(request)``.

    Attributes:
        path: of its route; method: HTTP's.
        request, answer: types that pydantic can write as JSON and read.
        refusals: kinds of :class:`~workbench.errors.WorkbenchError` with which it refuses in some states of the
            engine. Any operation can also fail, with the kinds of :func:`~workbench.failures.diagnose.diagnose`.
        is_prompt: it never waits for work, so an engine that does not answer it within seconds hangs.
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
    """An operation that is answered piece by piece: ``async for item in client.reply(request)``.

    Attributes:
        items: the types of its pieces. On the wire each is a server-sent event with the name of its class.
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
        """One piece from its event.

        Raises:
            ValueError: it is none of :attr:`items`.
        """
        kind = next((kind for kind in self.items if kind.__name__ == name), None)
        if kind is None:
            raise ValueError(f"{self.path} has no item {name}")
        return read(kind, data)


_adapters: dict[Any, TypeAdapter[Any]] = {}


def _adapter(kind: Any) -> TypeAdapter[Any]:
    """What reads and writes a type; made once, which takes pydantic some milliseconds."""
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def use_adapter(kind: type[Answer], adapter: TypeAdapter[Answer]) -> None:
    """Read and write a type with an adapter of its own, in the place of the one that pydantic makes."""
    _adapters[kind] = adapter


def read(kind: type[Answer], data: str | bytes) -> Answer:
    """A value from its JSON.

    Raises:
        pydantic.ValidationError: it is not of this type.
    """
    value: Answer = _adapter(kind).validate_json(data)
    return value


def write(kind: type[Any], value: Any, *, sparse: bool = False) -> bytes:
    """A value as JSON in ASCII.

    Args:
        sparse: leave out what has its default, which :func:`read` fills in.
    """
    # In ASCII there is no character but a line feed that could end a line of a stream.
    return _adapter(kind).dump_json(value, exclude_defaults=sparse, ensure_ascii=True)
