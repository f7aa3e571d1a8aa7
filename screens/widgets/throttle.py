"""Limits how often something is done, such as a repaint, however often it is asked for."""

from collections.abc import Callable
from time import monotonic

from textual.timer import Timer
from textual.widget import Widget


class Throttle:
    """Calls ``action`` at most so many times a second; requests in between are combined into one call.

    Args:
        owner: the widget whose timers are used. While it is not mounted, requests are ignored.
    """

    def __init__(self, owner: Widget, action: Callable[[], None], times_a_second: float) -> None:
        self._owner = owner
        self._action = action
        self._interval = 1 / times_a_second
        self._last = 0.0
        self._timer: Timer | None = None

    def call_soon(self) -> None:
        """Call the action as soon as the limit allows."""
        if self._timer is None and self._owner.is_attached:
            wait = max(0.001, self._last + self._interval - monotonic())
            self._timer = self._owner.set_timer(wait, self._run)

    def call_now(self) -> None:
        """Call the action in a millisecond, whatever the limit: for what the user has just asked to see."""
        self._last = 0.0
        if self._timer is not None:
            self._timer.stop()
            self._timer = None
        self.call_soon()

    def _run(self) -> None:
        self._timer = None
        self._last = monotonic()
        self._action()
