"""The engine of a home as a screen has it: a client that also starts, kills and explains the engine's process."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from workbench.engine.client.client import EngineClient
from workbench.engine.client.kill_engine import kill_engine
from workbench.engine.client.operation import Answer, Call, Item, Request, Stream
from workbench.engine.client.process import engine_pid, ensure_engine, exit_code, last_lines
from workbench.engine.client.protocol import EngineStatus
from workbench.errors import WorkbenchError
from workbench.failures.diagnose import explain_death
from workbench.machine.oom_killer import kills_since, oom_kills
from workbench.planning.queue import Queue, QueueRequest, QueueState
from workbench.storage.paths import Home

_SECONDS_TO_DIE = 1.0
# What makes runs start; an engine is started for it, and for nothing else that changes the queue.
_STARTS_RUNS = ("add", "go")


class HomeEngine(EngineClient):
    """All operations, and the life of the process that answers them.

    A stream that breaks off because the engine died raises an error of kind ``engine_died`` that says why.
    """

    def __init__(self, home: Home) -> None:
        super().__init__(home)
        self._starting = asyncio.Lock()
        # The engine that answered last, and how many processes the kernel had killed for memory by then.
        self._pid: int | None = None
        self._oom_kills: int | None = None

    async def ensure(self) -> None:
        """Start the engine's process if none runs, and wait until it answers.

        Raises:
            WorkbenchError: it does not start.
        """
        async with self._starting:
            await ensure_engine(self.home)

    async def kill(self) -> None:
        """End the engine's process at once; what it had not written is lost."""
        await kill_engine(self.home)

    async def change_queue(self, request: QueueRequest) -> QueueState:
        """Change the queue. The engine is started if that starts runs; else the queue's file is changed without one.

        Raises:
            WorkbenchError: it cannot be done, or the engine does not start.
        """
        if request.action in _STARTS_RUNS:
            await self.ensure()
        elif not await asyncio.to_thread(self._has_process):
            return await asyncio.to_thread(Queue(self.home).apply, request)
        return await self.edit_queue(request)

    async def call(self, operation: Call[Request, Answer], request: Request) -> Answer:
        """As :meth:`EngineClient.call`; remembers which engine answered."""
        answer = await super().call(operation, request)
        if isinstance(answer, EngineStatus) and answer.pid != self._pid:
            self._pid, self._oom_kills = answer.pid, await asyncio.to_thread(oom_kills)
        return answer

    async def stream(
        self, operation: Stream[Request, Item], request: Request, request_id: str = ""
    ) -> AsyncGenerator[Item]:
        """As :meth:`EngineClient.stream`; an engine that dies meanwhile is explained."""
        try:
            async with aclosing(super().stream(operation, request, request_id)) as items:
                async for item in items:
                    yield item
        except WorkbenchError as error:
            if error.kind == "engine_gone" and (death := await asyncio.to_thread(self._death)):
                raise death from error
            raise

    def _has_process(self) -> bool:
        return engine_pid(self.home) is not None

    def _death(self) -> WorkbenchError | None:
        """Why the engine that answered last is gone; None while it lives."""
        if self._pid is None:
            return None
        code = exit_code(self._pid, seconds=_SECONDS_TO_DIE)
        if self._has_process():
            return None
        log = last_lines(self.home.engine_log)
        why = explain_death(code, log, oom_kills=kills_since(self._oom_kills))
        return WorkbenchError(f"{why.message}\n{log}".rstrip(), why.cure, kind="engine_died")
