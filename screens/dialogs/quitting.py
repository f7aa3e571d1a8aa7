"""Quits the app: what becomes of a live run and of the engine."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from screens.dialogs.questions import LEAVE, STOP, quit_dialog
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from screens.session import Session
    from screens.workbench import Workbench
    from workbench.engine.client.protocol import EngineStatus

ASK_SECONDS = 1.0
SHUTDOWN_SECONDS = 3.0


class Quitting:
    """Asks whether a live run should stop, ends an idle engine, and leaves.

    Args:
        workbench: the app.
        leave: saves what is unsaved and ends the app.
    """

    def __init__(self, workbench: Workbench, leave: Callable[[], Awaitable[None]]) -> None:
        self._workbench = workbench
        self._leave = leave

    async def begin(self) -> None:
        """Leave at once, or ask first if a run is live."""
        session = self._workbench.session
        status = await current_status(session)
        if status is not None and status.run is not None:
            self._workbench.push_screen(quit_dialog(session.names.of(status.run), status.queued), self._answered)
            return
        if status is not None and status.state == "idle":
            await _end_idle_engine(session)
        await self._leave()

    async def _answered(self, answer: str | None) -> None:
        if answer == STOP:
            await self._stop_run()
        if answer in (LEAVE, STOP):
            await self._leave()

    async def _stop_run(self) -> None:
        from workbench.engine.client.protocol import StopRequest

        try:
            await self._workbench.session.engine.stop(StopRequest(save=True))
        except WorkbenchError as error:
            self._workbench.show_error(error)


async def current_status(session: Session) -> EngineStatus | None:
    """Return the engine's state now: the session's may be a second old, and a run may have begun since."""
    try:
        return await asyncio.wait_for(session.engine.status(), ASK_SECONDS)
    except WorkbenchError:
        return None
    except TimeoutError:
        return session.status


async def _end_idle_engine(session: Session) -> None:
    """End the engine's process, which holds GPU memory; the next terminal starts another one."""
    from workbench.engine.client.protocol import ShutdownRequest

    with suppress(WorkbenchError, TimeoutError):
        await asyncio.wait_for(session.engine.shutdown(ShutdownRequest()), SHUTDOWN_SECONDS)
