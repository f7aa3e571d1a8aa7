"""The engine of a home, started when it is first needed. The HTTP client is imported then, off the event loop."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from importlib import import_module
from typing import TYPE_CHECKING, TypeVar

from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from pathlib import Path

    from workbench.data.facts import DataFacts, Example
    from workbench.engine.client.client import EngineClient
    from workbench.engine.client.protocol import ControlAction, EngineStatus, EvaluateRequest, ReplyPiece, ReplyRequest
    from workbench.models.skeleton import Skeleton
    from workbench.planning.launch import Launch
    from workbench.planning.queue import QueueRequest, QueueState
    from workbench.progress import Progress
    from workbench.recipe.schema import ModelSection, Recipe
    from workbench.storage.paths import Home

Piece = TypeVar("Piece")
_SECONDS_TO_DIE = 1.0


class HomeEngine:
    """An :class:`screens.session.Engine` over the Unix socket of ``home``.

    A reply or a download that breaks off because the engine died says what it died of.
    """

    def __init__(self, home: Home) -> None:
        self.home = home
        self._client: EngineClient | None = None
        self._starting = asyncio.Lock()
        self._pid: int | None = None
        self._oom_kills: int | None = None

    async def ensure(self) -> None:
        async with self._starting:
            process = await asyncio.to_thread(import_module, "workbench.engine.client.process")
            await process.ensure_engine(self.home)

    async def status(self) -> EngineStatus:
        if not self.home.socket.exists():
            raise WorkbenchError("No engine is running.", "It starts when needed.", kind="engine_gone")
        status = await (await self._ready()).status()
        if status.pid != self._pid:
            self._pid, self._oom_kills = status.pid, await asyncio.to_thread(_oom_kills)
        return status

    async def train(self, recipe: Recipe, launch: Launch | None = None) -> str:
        return await (await self._ready()).train(recipe, launch)

    async def resume(self, run: str) -> tuple[str, int]:
        return await (await self._ready()).resume(run)

    async def change_queue(self, request: QueueRequest) -> QueueState:
        door = await asyncio.to_thread(import_module, "workbench.engine.client.queue_client")
        line: QueueState = await door.change_queue(self.home, request)
        return line

    async def control(self, action: ControlAction, value: float | None = None, *, release: bool = False) -> None:
        await (await self._ready()).control(action, value, release=release)

    async def stop(self, *, save: bool = True) -> None:
        await (await self._ready()).stop(save=save)

    async def kill(self) -> None:
        killing = await asyncio.to_thread(import_module, "workbench.engine.client.kill_engine")
        await killing.kill_engine(self.home)

    async def reply(self, request: ReplyRequest, *, request_id: str = "") -> AsyncGenerator[Progress | ReplyPiece]:
        client = await self._ready()
        async with aclosing(client.reply(request, request_id=request_id)) as pieces:
            async for piece in self._explained(pieces):
                yield piece

    async def judge(self, request: EvaluateRequest, *, request_id: str = "") -> AsyncGenerator[Progress | Path]:
        client = await self._ready()
        async with aclosing(client.judge(request, request_id=request_id)) as answers:
            async for answer in self._explained(answers):
                yield answer

    async def cancel(self, request_id: str) -> None:
        await (await self._ready()).cancel(request_id)

    async def fetch(self, model: ModelSection, *, request_id: str = "") -> AsyncGenerator[Progress]:
        client = await self._ready()
        async with aclosing(client.fetch(model, request_id=request_id)) as answers:
            async for progress in self._explained(answers):
                yield progress

    async def tree(self, model: ModelSection) -> Skeleton:
        return await (await self._ready()).tree(model)

    async def facts(
        self, recipe: Recipe, *, fetch: bool = False, show: int = 3, request_id: str = ""
    ) -> AsyncGenerator[Progress | DataFacts]:
        client = await self._ready()
        async with aclosing(client.facts(recipe, fetch=fetch, show=show, request_id=request_id)) as answers:
            async for answer in answers:
                yield answer

    async def examples(self, recipe: Recipe, start: int, count: int = 1, search: str = "") -> list[Example]:
        return await (await self._ready()).examples(recipe, start, count, search)

    async def unload(self) -> None:
        await (await self._ready()).unload()

    async def shutdown(self) -> None:
        await (await self._ready()).shutdown()

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def _explained(self, pieces: AsyncIterator[Piece]) -> AsyncIterator[Piece]:
        try:
            async for piece in pieces:
                yield piece
        except WorkbenchError as error:
            if error.kind == "engine_gone" and (died := await asyncio.to_thread(self._death)):
                raise died from error
            raise

    def _death(self) -> WorkbenchError | None:
        """Why the engine that was last heard of is gone; None while it lives."""
        from workbench.engine.client.process import engine_pid, exit_code, last_lines
        from workbench.failures.diagnose import explain_death
        from workbench.machine.oom_killer import kills_since

        if self._pid is None:
            return None
        code = exit_code(self._pid, seconds=_SECONDS_TO_DIE)
        if engine_pid(self.home) is not None:
            return None
        said = last_lines(self.home.engine_log)
        died = explain_death(code, said, oom_kills=kills_since(self._oom_kills))
        return WorkbenchError(f"{died.message}\n{said}".rstrip(), died.cure, kind="engine_died")

    async def _ready(self) -> EngineClient:
        if self._client is None:
            self._client = await asyncio.to_thread(_make_client, self.home)
        return self._client


def _oom_kills() -> int | None:
    from workbench.machine.oom_killer import oom_kills

    return oom_kills()


def _make_client(home: Home) -> EngineClient:
    from workbench.engine.client.client import EngineClient

    return EngineClient(home)
