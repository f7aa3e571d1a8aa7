"""Keys one at a time: each goes to the screen and the field that the keys before it opened.

Textual sends a key to what has the focus when it arrives. Keys that arrive together, as over a slow line or from a
paste, would all go to the screen that the first of them is about to cover.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from textual.command import CommandPalette
from textual.events import Key

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from textual.app import App
    from textual.events import Event
    from textual.message_pump import MessagePump
    from textual.screen import Screen
    from textual.widget import Widget

WAIT_SECONDS = 2.0
"""Keys wait no longer than this for a dialog that may open, or for the palette's results."""

_POLL_SECONDS = 0.05

# Something that does not come back must not take the keyboard with it.
_STUCK_SECONDS = 10.0

# Messages that cause messages: after so many rounds a key is handed on though the app is not at rest.
_MOST_ROUNDS = 30


class KeyOrder:
    """Holds keys and pasted text back until what came before them is done.

    Args:
        app: the message queues of itself, its screens and their widgets are followed.
        hand_on: Textual's own handling, which sends a key to what has the focus.
    """

    def __init__(self, app: App[Any], hand_on: Callable[[Event], Awaitable[None]]) -> None:
        self._app = app
        self._hand_on = hand_on
        self._held: deque[Event] = deque()
        self._following: asyncio.Task[None] | None = None
        # The screens in front when work began that may open a dialog, by the work.
        self._work: dict[object, Screen[Any]] = {}

    @property
    def is_busy(self) -> bool:
        """Whether a key is being handled, or held back."""
        return self._following is not None or bool(self._held)

    async def take(self, event: Event) -> None:
        """Hand a key or a pasted text on, at once if nothing is before it."""
        self._held.append(event)
        if self._following is None:
            if self._is_waiting:
                self._following = asyncio.create_task(self._follow())
            else:
                await self._next()

    def may_open_dialog(self) -> Callable[[], None]:
        """Hold keys until a dialog opens, for work that may open one; returns what to call when it has ended."""
        work = object()
        self._work[work] = self._app.screen

        def ended() -> None:
            self._work.pop(work, None)

        return ended

    async def _next(self) -> None:
        await self._hand_on(self._held.popleft())
        # Not a worker: those post a message for each of their states.
        self._following = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        """Wait until the last key is done, then hand on the next."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_STUCK_SECONDS):
                await self._until_done()
        if self._held and self._app.is_running:
            self._app.call_later(self._next)
        else:
            self._following = None

    async def _until_done(self) -> None:
        for _ in range(_MOST_ROUNDS):
            before = self._front
            if before is None:
                return
            screen, focused = before
            for node in (focused or screen).ancestors_with_self:
                await _passed(node)
            if not self._held:
                return
            await self._wait()
            if self._front == before and not self._has_messages(screen):
                return

    async def _wait(self) -> None:
        """Wait for a dialog that may open and for the palette's results, for a bounded time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(WAIT_SECONDS):
                while self._is_waiting and self._app.is_running:
                    await asyncio.sleep(_POLL_SECONDS)
        self._work.clear()

    @property
    def _is_waiting(self) -> bool:
        front = self._front
        if front is None:
            return False
        screen, _ = front
        self._work = {work: before for work, before in self._work.items() if before is screen}
        is_text = self._held and isinstance(self._held[0], Key) and self._held[0].is_printable
        return bool(self._work) or (not is_text and self._is_searching(screen))

    def _is_searching(self, screen: Screen[Any]) -> bool:
        """Whether the palette is in front and does not have the results yet that Enter and the arrows are about."""
        return isinstance(screen, CommandPalette) and any(
            worker.node is screen and not worker.is_finished for worker in self._app.workers
        )

    @property
    def _front(self) -> tuple[Screen[Any], Widget | None] | None:
        """The screen in front and the widget that has the focus; None once the app closes."""
        return (self._app.screen, self._app.focused) if self._app.is_running and self._app.screen_stack else None

    def _has_messages(self, screen: Screen[Any]) -> bool:
        nodes = (self._app, *screen.walk_children(with_self=True))
        return any(node.message_queue_size for node in nodes)


async def _passed(node: MessagePump) -> None:
    """Return once a node has handled the messages that it has now, or is closed."""
    passed = asyncio.Event()
    if node.call_later(passed.set):
        # A screen that was just opened is attached, and not running yet; the app is never attached.
        while not passed.is_set() and (node.is_running or node.is_attached):
            with suppress(TimeoutError):
                await asyncio.wait_for(passed.wait(), _POLL_SECONDS)
