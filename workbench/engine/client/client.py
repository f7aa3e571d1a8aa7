"""The terminal's side of the wire: one method a request, errors as :class:`~workbench.errors.WorkbenchError`."""

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from httpx_sse import EventSource

from workbench.data.facts import DataFacts, Example
from workbench.engine.client.protocol import (
    REQUEST_ID,
    CancelRequest,
    ControlAction,
    ControlRequest,
    EngineStatus,
    EvaluateRequest,
    ReplyPiece,
    ReplyRequest,
    new_request_id,
)
from workbench.errors import WorkbenchError
from workbench.models.skeleton import Skeleton
from workbench.models.skeleton_json import skeleton_from_json
from workbench.planning.launch import Launch
from workbench.planning.queue import QueueRequest, QueueState
from workbench.progress import Progress
from workbench.recipe.schema import ModelSection, Recipe
from workbench.recipe.text import edit
from workbench.storage.paths import Home

_GONE = WorkbenchError(
    "The engine does not answer.", "Start it again with `loraworkbench engine restart`.", kind="engine_gone"
)

# What never waits for work; an engine that does not answer even that hangs.
_PROMPT = httpx.Timeout(10.0)


class EngineClient:
    """Talks to the engine of one home. Does not start it: see :mod:`workbench.engine.client.process`.

    A method that answers with a stream takes a ``request_id``, by which :meth:`cancel` ends it and no other; closing
    its iterator ends it too. See :func:`~workbench.engine.client.protocol.new_request_id`.

    Every method raises :class:`WorkbenchError` with kind ``engine_gone`` when no engine listens, and the engine's own
    error when it refuses.
    """

    def __init__(self, home: Home) -> None:
        transport = httpx.AsyncHTTPTransport(uds=str(home.socket))
        # Work takes as long as it takes; only the connection itself may time out.
        timeout = httpx.Timeout(None, connect=5.0)
        self._http = httpx.AsyncClient(transport=transport, base_url="http://engine", timeout=timeout)

    async def status(self) -> EngineStatus:
        return EngineStatus.model_validate(await self._call("GET", "/status", timeout=_PROMPT))

    async def train(self, recipe: Recipe, launch: Launch | None = None) -> str:
        """Start a run; returns its id. Paths in the recipe are this process's, and are sent as absolute ones."""
        body = {"recipe": anchored(recipe).as_dict(), "launch": _launch(launch)}
        return str((await self._call("POST", "/train", body))["run"])

    async def resume(self, run: str, launch: Launch | None = None) -> tuple[str, int]:
        """Let an interrupted or stopped run go on; returns its id and the number of its journal's last event so far."""
        body = {"run": _here(run) if "/" in run else run, "launch": _launch(launch)}
        answer = await self._call("POST", "/resume", body)
        return str(answer["run"]), int(answer["seq"])

    async def queue(self) -> QueueState:
        """The runs that are lined up."""
        return QueueState.model_validate(await self._call("GET", "/queue", timeout=_PROMPT))

    async def change_queue(self, request: QueueRequest) -> QueueState:
        """Change the queue; see :mod:`workbench.engine.client.queue_client`, which needs no engine for most of it."""
        return QueueState.model_validate(await self._call("POST", "/queue", request.model_dump()))

    async def control(self, action: ControlAction, value: float | None = None, *, release: bool = False) -> None:
        """Do something with the live run between two of its steps; its journal tells when it was done."""
        request = ControlRequest(action=action, value=value, release=release)
        await self._call("POST", "/control", request.model_dump())

    async def stop(self, *, save: bool = True) -> None:
        """End the live run within one micro-step, with or without its adapter saved."""
        await self._call("POST", "/stop", {"save": save})

    async def reply(self, request: ReplyRequest, *, request_id: str = "") -> AsyncGenerator[Progress | ReplyPiece]:
        """Progress while a model loads, then the reply in pieces; the last piece has ``done``."""
        async with aclosing(self._stream("/reply", request.model_dump(), request_id)) as events:
            async for event, data in events:
                yield Progress.model_validate(data) if event == "progress" else ReplyPiece.model_validate(data)

    async def judge(self, request: EvaluateRequest, *, request_id: str = "") -> AsyncGenerator[Progress | Path]:
        """Judge a run: progress, and last the file of what was found."""
        body = _anchored_names(request).model_dump()
        async with aclosing(self._stream("/evaluate", body, request_id)) as events:
            async for event, data in events:
                yield Progress.model_validate(data) if event == "progress" else Path(data["file"])

    async def cancel(self, request_id: str) -> None:
        """End one reply, evaluation, download or count; one that has ended already is no mistake."""
        await self._call("POST", "/cancel", CancelRequest(id=request_id).model_dump())

    async def fetch(self, model: ModelSection, *, request_id: str = "") -> AsyncGenerator[Progress]:
        """Bring a model onto this machine: download, unpack, convert."""
        async with aclosing(self._stream("/fetch", model.model_dump(), request_id)) as events:
            async for _, data in events:
                yield Progress.model_validate(data)

    async def tree(self, model: ModelSection) -> Skeleton:
        """The module tree of a model, from its configuration."""
        return skeleton_from_json(await self._call("POST", "/tree", model.model_dump()))

    async def facts(
        self, recipe: Recipe, *, fetch: bool = False, show: int = 3, request_id: str = ""
    ) -> AsyncGenerator[Progress | DataFacts]:
        """What the recipe's data holds: progress, the facts of a sample, and the exact ones.

        With ``fetch`` off, a tokenizer or data set that is elsewhere is refused
        with kind ``tokenizer_elsewhere`` or ``data_elsewhere``.
        """
        body = {"recipe": anchored(recipe).as_dict(), "fetch": fetch, "show": show}
        async with aclosing(self._stream("/facts", body, request_id)) as events:
            async for event, data in events:
                yield Progress.model_validate(data) if event == "progress" else DataFacts.from_json(data)

    async def examples(self, recipe: Recipe, start: int, count: int = 1, search: str = "") -> list[Example]:
        """Records as they are fed, from the ``start``-th on; those only whose text holds ``search``."""
        body = {"recipe": anchored(recipe).as_dict(), "start": start, "count": count, "search": search}
        return [Example.from_json(example) for example in await self._call("POST", "/examples", body)]

    async def unload(self) -> None:
        await self._call("POST", "/unload")

    async def shutdown(self, *, stop: bool = False) -> None:
        """End the engine; unless told to stop and save what it is at, it refuses while it is busy."""
        await self._call("POST", "/shutdown", {"stop": stop}, timeout=_PROMPT)

    async def close(self) -> None:
        await self._http.aclose()

    async def _call(self, method: str, path: str, body: Any = None, timeout: Any = httpx.USE_CLIENT_DEFAULT) -> Any:
        with _as_workbench_errors():
            response = await self._http.request(method, path, json=body, timeout=timeout)
        _refuse(response.status_code, response.content)
        return response.json()

    async def _stream(self, path: str, body: Any, request_id: str) -> AsyncGenerator[tuple[str, Any]]:
        async with self._open(path, body, request_id or new_request_id()) as response:
            if response.status_code >= 400:
                _refuse(response.status_code, await response.aread())
            with _as_workbench_errors():
                async with aclosing(EventSource(response).aiter_sse()) as events:
                    async for event in events:
                        data = json.loads(event.data)
                        if event.event == "error":
                            raise WorkbenchError.from_json(data)
                        yield event.event, data

    @asynccontextmanager
    async def _open(self, path: str, body: Any, request_id: str) -> AsyncIterator[httpx.Response]:
        with _as_workbench_errors():
            async with self._http.stream("POST", path, json=body, headers={REQUEST_ID: request_id}) as response:
                yield response


def anchored(recipe: Recipe) -> Recipe:
    """The recipe with local paths made absolute: the engine lives in another folder than the terminal."""
    changes = {"model.source": _here(recipe.model.source), "data.source": _parts_here(recipe.data.source)}
    if recipe.output.dir:
        changes["output.dir"] = str(Path(recipe.output.dir).expanduser().absolute())
    return edit(recipe, changes)


def _launch(launch: Launch | None) -> dict[str, Any] | None:
    if launch is None:
        return None
    return {**launch.model_dump(), "config_file": _here(launch.config_file)}


def _anchored_names(request: EvaluateRequest) -> EvaluateRequest:
    """The request with local paths made absolute."""
    changes: dict[str, Any] = {
        "run": _here(request.run) if "/" in request.run else request.run,
        "adapters": [
            _here(name) if "/" in name or (Path(name) / "adapter_config.json").is_file() else name
            for name in request.adapters
        ],
    }
    if request.data is not None:
        changes["data"] = {**request.data, "source": _parts_here(request.data["source"])}
    return request.model_copy(update=changes)


def _here(name: str) -> str:
    """The absolute path of what exists on this machine; any other name as it is."""
    path = Path(name).expanduser()
    return str(path.absolute()) if name and path.exists() else name


def _parts_here(source: str) -> str:
    """As :func:`_here`, for each part of a mix such as ``notes.jsonl*0.5 + more/``."""
    if Path(source).expanduser().exists():
        return _here(source)
    parts = []
    for part in map(str.strip, re.split(r"\s\+\s", source)):
        name, star, weight = part.rpartition("*")
        is_weighted = star and not Path(part).expanduser().exists()
        parts.append(_here(name.strip()) + star + weight if is_weighted else _here(part))
    return " + ".join(parts)


class _as_workbench_errors:  # noqa: N801  (reads as a statement)
    """Turns a broken connection into the sentence a user can act on."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, httpx.TransportError):
            raise WorkbenchError(_GONE.message, _GONE.cure, kind=_GONE.kind) from error


def _refuse(status: int, content: bytes) -> None:
    if status < 400:
        return
    try:
        raise WorkbenchError.from_json(json.loads(content))
    except ValueError:
        raise WorkbenchError(f"The engine answered {status}.", "See its log: `loraworkbench engine status`.") from None
