"""Logs metrics to the trackers that transformers knows, with its callbacks, guarded against their errors.

A tracker that fails is dropped with a warning, and the run continues. Imports transformers.
"""

import contextvars
import os
import threading
from collections.abc import Callable
from functools import partialmethod
from typing import TYPE_CHECKING

from transformers import TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from workbench.engine.metrics.tracker_runs import Warn, begin_and_end
from workbench.recipe.trackers import REPORTERS
from workbench.runs.folder import RunFolder

if TYPE_CHECKING:
    from transformers import Trainer

_TRACKERS = {INTEGRATION_TO_CALLBACK[name]: name for name in REPORTERS}
# Limit for uploads that are unfinished when a run ends.
_FINISH_SECONDS = 60.0


class GuardedTracker(TrainerCallback):
    """Wraps one of transformers' tracker callbacks; after its first error it is not called again.

    Args:
        begin: called before the first event.
        end: called when the run ends; finishes uploads.
        warn: called with a warning for the journal when the tracker fails.
    """

    def __init__(
        self, name: str, inner: TrainerCallback, begin: Callable[[], None], end: Callable[[], None], warn: Warn
    ) -> None:
        self._name = name
        self._inner = inner
        self._begin = begin
        self._end = end
        self._warn = warn
        self._begun = False
        self._broken = False

    def forward(self, event: str, *args: object, **kwargs: object) -> None:
        """Call the tracker's method for an event."""
        if self._broken:
            return
        try:
            if not self._begun:
                self._begun = True
                self._begin()
            getattr(self._inner, event)(*args, **kwargs)
        except Exception as error:
            self._break(error)

    on_train_begin = partialmethod(forward, "on_train_begin")
    on_log = partialmethod(forward, "on_log")
    on_save = partialmethod(forward, "on_save")
    on_train_end = partialmethod(forward, "on_train_end")

    def close(self) -> None:
        """Finish uploads, for at most a minute; called when the run ends or releases its memory."""
        if not self._begun:
            return
        self._begun = False
        errors: list[Exception] = []

        def end() -> None:
            try:
                self._end()
            except Exception as error:
                errors.append(error)

        # trackio finds its run in the context of the thread that started it.
        context = contextvars.copy_context()
        ending = threading.Thread(target=context.run, args=(end,), name=f"end of {self._name}", daemon=True)
        ending.start()
        ending.join(_FINISH_SECONDS)
        if ending.is_alive():
            errors.append(TimeoutError(f"it did not finish within {_FINISH_SECONDS:.0f} s"))
        if errors and not self._broken:
            self._break(errors[0])

    def _break(self, error: Exception) -> None:
        self._broken = True
        reason = without_secrets(" ".join(str(error).split())[:200] or type(error).__name__)
        self._warn(f"Logging to {self._name} stopped: {reason}. The run continues.", kind="reporter")


def guard_trackers(trainer: "Trainer", run: RunFolder, warn: Warn) -> list[GuardedTracker]:
    """Wrap each of a trainer's tracker callbacks in :class:`GuardedTracker`; local files go to the run folder."""
    callbacks = trainer.callback_handler.callbacks
    guarded = []
    for index, callback in enumerate(callbacks):
        if (name := _TRACKERS.get(type(callback))) is not None:
            begin, end = begin_and_end(name, callback, run, warn)
            callbacks[index] = GuardedTracker(name, callback, begin, end, warn)
            guarded.append(callbacks[index])
    return guarded


def without_secrets(text: str) -> str:
    """Replace the values of environment variables that contain keys or tokens."""
    for name, value in os.environ.items():
        if name.endswith(("KEY", "TOKEN", "SECRET", "PASSWORD")) and len(value) >= 8:
            text = text.replace(value, f"<{name}>")
    return text
