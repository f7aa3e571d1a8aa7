"""The outputs about the engine, the queue, caches, exports and the server.

A key is never renamed or removed: programs read them. A new one may be added.
"""

from typing import Any, NotRequired

from typing_extensions import TypedDict

from workbench.engine.client.protocol import DeviceFacts, EngineState, LoadedModel
from workbench.planning.queue import Entry
from workbench.progress import Progress


class PlannedRun(TypedDict):
    """A run of a sweep. ``peak_bytes`` and ``fit`` are null if they cannot be predicted."""

    name: str
    peak_bytes: int | None
    fit: str | None
    recipe: dict[str, Any]


class TakenEntry(Entry):
    """A started entry.

    Attributes:
        run: the run's folder; empty if it could not start, see ``problem``.
        state: of its run, or ``could not start``.
    """

    state: str


class QueueData(TypedDict):
    """The queue.

    Attributes:
        waiting: queued entries in order. taken: started ones, newest last.
        ahead: folder of the live run that the first queued one waits for; empty if there is none.
        held: why the queue is on hold; empty while it is not.
        held_for: folder of the interrupted run that put it on hold.
    """

    next_id: int
    waiting: list[Entry]
    taken: list[TakenEntry]
    ahead: str
    held: str
    held_for: str


class EngineLine(TypedDict):
    """The engine. Without a running one, only ``running``.

    Attributes:
        started: Unix time.
        run: id of the live run. paused: why it is paused; empty if it is not.
        model: the model in its memory. device: with its memory in bytes.
        allocated, reserved: GPU memory in bytes, as PyTorch counts it.
        queued: number of queued runs. queue_held: why the queue is on hold.
    """

    running: bool
    pid: NotRequired[int]
    version: NotRequired[str]
    started: NotRequired[float]
    state: NotRequired[EngineState]
    run: NotRequired[str | None]
    run_folder: NotRequired[str | None]
    stopping: NotRequired[bool]
    paused: NotRequired[str]
    progress: NotRequired[Progress | None]
    model: NotRequired[LoadedModel | None]
    device: NotRequired[DeviceFacts | None]
    allocated: NotRequired[int]
    reserved: NotRequired[int]
    queued: NotRequired[int]
    queue_held: NotRequired[str]


class CacheLine(TypedDict):
    """A cached file or folder. ``used``: Unix time of its last use."""

    kind: str
    what: str
    place: str
    bytes: int
    used: float


class ClearedLine(TypedDict):
    """A kind of cached files. ``bytes``: that were removed."""

    kind: str
    bytes: int


class ImportedRecipe(TypedDict):
    """A converted configuration.

    Attributes:
        recipe: without values at their default. without_counterpart: settings that are not supported, in words.
    """

    recipe: dict[str, Any]
    without_counterpart: list[str]


class ExportPlan(TypedDict):
    """What an export needs, in bytes and seconds.

    Attributes:
        size: of the finished export. disk: what making it needs. free: disk space there is.
        memory: of the host. precise: whether it is merged in 32 bits.
        writer: what writes the GGUF file; null if none is written. download: of llama.cpp's converter, if missing.
    """

    size: int
    disk: int
    free: int
    memory: int
    free_memory: int
    seconds: float
    precise: bool
    writer: str | None
    notices: list[str]
    download: int


class ServerLine(TypedDict):
    """The server, once it listens. ``socket`` is empty if it listens on a port; the token is not printed."""

    url: str
    socket: str
    models: list[str]
