"""Does something once nothing more has happened for a while."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.message_pump import MessagePump


class Delay:
    """Calls ``act`` some seconds after it was last asked for, as a message to ``owner``.

    Textual's timers are tasks, which would be created and cancelled at every key; this is a timer of the event loop.
    """

    def __init__(self, owner: MessagePump, act: Callable[[], None], seconds: float) -> None:
        self._owner = owner
        self._act = act
        self._seconds = seconds
        self._handle: asyncio.TimerHandle | None = None

    def ask(self) -> None:
        """Start the time, or start it again."""
        self.cancel()
        self._handle = asyncio.get_running_loop().call_later(self._seconds, self._due)

    def cancel(self) -> None:
        """Do not act."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _due(self) -> None:
        self._handle = None
        if self._owner.is_running:
            self._owner.call_next(self._act)
