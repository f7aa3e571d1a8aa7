"""What becomes of the engine when the app quits."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from screens.session import Session
    from workbench.engine.client.protocol import EngineStatus

ASK_SECONDS = 1.0
SHUTDOWN_SECONDS = 3.0


async def current_status(session: Session) -> EngineStatus | None:
    """Return the engine's state now: the session's may be a second old, and a run may have begun since."""
    try:
        return await asyncio.wait_for(session.engine.status(), ASK_SECONDS)
    except WorkbenchError:
        return None
    except TimeoutError:
        return session.status


async def end_idle_engine(session: Session) -> None:
    """End the engine's process, which holds GPU memory; the next terminal starts another one."""
    from workbench.engine.client.protocol import ShutdownRequest

    with suppress(WorkbenchError, TimeoutError):
        await asyncio.wait_for(session.engine.shutdown(ShutdownRequest()), SHUTDOWN_SECONDS)
