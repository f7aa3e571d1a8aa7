"""Logs metrics to TensorBoard, Weights & Biases and trackio with transformers' callbacks, guarded against their errors.

A tracker that fails is dropped with a warning, and the run continues. Imports transformers.
"""

import contextvars
import hashlib
import netrc
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partialmethod
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback, TrackioCallback, WandbCallback

from workbench.recipe.trackers import PROJECT
from workbench.runs.folder import RunFolder

if TYPE_CHECKING:
    from transformers import Trainer

_TRACKERS = {TensorBoardCallback: "tensorboard", WandbCallback: "wandb", TrackioCallback: "trackio"}
_INIT_SECONDS = 30
_PROBE_SECONDS = 3.0
# Limit for uploads that are unfinished when a run ends.
_FINISH_SECONDS = 60.0


class Warn(Protocol):
    """Writes a warning to the journal."""

    def __call__(self, message: str, *, kind: str) -> None: ...


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
            begin, end = _begin_and_end(name, callback, run, warn)
            callbacks[index] = GuardedTracker(name, callback, begin, end, warn)
            guarded.append(callbacks[index])
    return guarded


def _begin_and_end(
    name: str, callback: TrainerCallback, run: RunFolder, warn: Warn
) -> tuple[Callable[[], None], Callable[[], None]]:
    """The functions that start and finish a tracker."""
    if name == "tensorboard":
        callback.logging_dir = str(run.path / "tensorboard")
        return _nothing, lambda: callback.on_train_end(None, None, None)
    if name == "wandb":
        return lambda: _begin_wandb(run, warn), _end_wandb
    return _nothing, lambda: callback._trackio.finish() if callback._initialized else None


def _nothing() -> None:
    pass


def _begin_wandb(run: RunFolder, warn: Warn) -> None:
    """Start or resume the W&B run of this name; offline, in the run folder, if the server is not available.

    Otherwise the callback would start one, and wait for minutes or end the run if there is no key or no network.
    """
    import wandb

    mode = os.environ.get("WANDB_MODE") or ""
    reason = "" if mode else _why_offline()
    if reason:
        warn(
            f"The Weights & Biases log is saved in {run.path / 'wandb'}, because {reason}. Upload it with "
            "`wandb sync`.",
            kind="reporter",
        )
    wandb.init(
        project=os.environ.get("WANDB_PROJECT") or PROJECT,
        name=run.id,
        id=hashlib.sha256(f"{run.path}{run.recipe_file.stat().st_mtime_ns}".encode()).hexdigest()[:16],
        resume="allow",
        dir=str(run.path),
        mode="offline" if reason else mode or "online",
        # Otherwise W&B captures the output, which then is missing from the run's log.
        settings=wandb.Settings(init_timeout=_INIT_SECONDS, console="off"),
    )


def _end_wandb() -> None:
    import wandb

    if wandb.run is not None:
        wandb.finish()


def _why_offline() -> str:
    """Why the W&B server cannot be used; empty if it can."""
    import httpx

    url = os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"
    host = urlsplit(url).hostname or url
    if not (os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE") or _is_logged_in(host)):
        return f"there is no API key for {host} (`wandb login`, or WANDB_API_KEY before the engine starts)"
    try:
        httpx.head(url, timeout=_PROBE_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError):
        return f"{host} cannot be reached"
    return ""


def _is_logged_in(host: str) -> bool:
    with suppress(OSError, netrc.NetrcParseError):
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    return False


def without_secrets(text: str) -> str:
    """Replace the values of environment variables that contain keys or tokens."""
    for name, value in os.environ.items():
        if name.endswith(("KEY", "TOKEN", "SECRET", "PASSWORD")) and len(value) >= 8:
            text = text.replace(value, f"<{name}>")
    return text
