"""Traces a training step whose peak is only estimated: one at a time, while the app is idle."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from workbench.estimate import TraceStore
    from workbench.machine.device import Device
    from workbench.models.skeleton import Skeleton
    from workbench.recipe.resolved import ResolvedRecipe


class StepTracer:
    """Runs the helper process of :class:`~workbench.estimate.TraceStore` beside the event loop.

    Args:
        traces: keeps the traced steps.
        done: called from the helper's thread when a step was traced, or cannot be.
    """

    def __init__(self, traces: TraceStore, done: Callable[[], object]) -> None:
        self._traces = traces
        self._done = done
        self._tried: set[str] = set()
        self.is_busy = False

    def want(self, skeleton: Skeleton, recipe: ResolvedRecipe, device: Device) -> bool:
        """Trace the step of a recipe, if it can be traced and was not tried before; returns whether tracing began."""
        from workbench.estimate.setup import Setup
        from workbench.estimate.step import plan_step
        from workbench.estimate.trace.store import can_trace, key_of

        setup = Setup.of(recipe)
        step = plan_step(setup, device)
        key = key_of(skeleton, setup.adapter, step)
        if self.is_busy or key in self._tried or not can_trace(skeleton, step, setup.adapter):
            return False
        self._tried.add(key)
        self.is_busy = True
        # A daemon thread: closing the terminal does not wait for it, as it would for a thread of asyncio's pool.
        threading.Thread(target=self._trace, args=(skeleton, recipe, device), daemon=True, name="trace step").start()
        return True

    def _trace(self, skeleton: Skeleton, recipe: ResolvedRecipe, device: Device) -> None:
        # Without a trace the estimate stays, marked by ≈.
        with suppress(WorkbenchError):
            self._traces.trace(skeleton, recipe, device)
        self.is_busy = False
        self._done()
