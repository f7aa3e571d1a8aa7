"""An event loop that does not wait: when nothing can happen before the next timer, the clock moves on to that timer.

Intervals, delays and pauses keep their order and their lengths, and take no time. Work in threads takes the time that
it takes: while there is some, the clock runs as usual, unless the work itself waits for what the test does next (see
:func:`awaiting_the_test`). Nothing here knows of other processes or of sockets.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from textual._wait import wait_for_idle

real_monotonic = time.monotonic

_skipped = [0.0]
_awaiting: dict[threading.Thread, Callable[[], bool]] = {}


def monotonic() -> float:
    """Seconds since some point in the past, the skipped ones included."""
    return real_monotonic() + _skipped[0]


@contextmanager
def awaiting_the_test(is_waiting: Callable[[], bool]) -> Iterator[None]:
    """Within this block, the thread is not at work whenever ``is_waiting()``, which any thread may call."""
    thread = threading.current_thread()
    _awaiting[thread] = is_waiting
    try:
        yield
    finally:
        del _awaiting[thread]


def _awaits_the_test(thread: threading.Thread) -> bool:
    is_waiting = _awaiting.get(thread)
    return is_waiting is not None and is_waiting()


class _SkippingSelector(selectors.DefaultSelector):  # type: ignore[misc,valid-type]
    """Skips the time that it would have waited."""

    at_work: Any = staticmethod(lambda: False)

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None or timeout <= 0 or self.at_work():
            return super().select(timeout)
        ready = super().select(0)
        if not ready:
            _skipped[0] += timeout
        return ready


class SkippingLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        selector = _SkippingSelector()
        super().__init__(selector)
        selector.at_work = self._is_at_work
        self._jobs = 0
        self._threads_before = set(threading.enumerate())

    def time(self) -> float:
        return monotonic()

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        job = super().run_in_executor(executor, func, *args)
        self._jobs += 1
        job.add_done_callback(self._job_done)
        return job

    def _job_done(self, _: object) -> None:
        self._jobs -= 1

    def _is_at_work(self) -> bool:
        """Whether a job of the executor, or a thread that was started since, may still have something to say."""
        return self._jobs > 0 or any(
            thread not in self._threads_before
            and not thread.name.startswith("asyncio_")
            and not _awaits_the_test(thread)
            for thread in threading.enumerate()
        )


class _SkippingPolicy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return SkippingLoop()


async def _until_idle(min_sleep: float = 0.0, max_sleep: float = 1.0) -> None:
    """In the place of Textual's, which measures whether the process computes: until there is time to be skipped.

    Nothing is left to do then, in the event loop and in threads. After a second it waits no longer.
    """
    end, before = real_monotonic() + max_sleep, _skipped[0]
    await asyncio.sleep(0.02)
    while _skipped[0] == before and real_monotonic() < end:
        await asyncio.sleep(0.02)


@contextmanager
def skipped_time() -> Iterator[None]:
    """Let Textual, the screens and all new event loops go by this clock."""
    ours = {id(real_monotonic): monotonic, id(wait_for_idle): _until_idle}
    patched: list[tuple[Any, str, Any]] = [(time, "monotonic", real_monotonic)]
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").partition(".")[0] in ("textual", "screens"):
            patched += [(module, name, value) for name, value in vars(module).items() if id(value) in ours]
    policy = asyncio.get_event_loop_policy()
    for module, name, value in patched:
        setattr(module, name, ours[id(value)])
    asyncio.set_event_loop_policy(_SkippingPolicy())
    try:
        yield
    finally:
        asyncio.set_event_loop_policy(policy)
        for module, name, value in patched:
            setattr(module, name, value)
