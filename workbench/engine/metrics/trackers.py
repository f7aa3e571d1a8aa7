"""Figures to TensorBoard, Weights & Biases and trackio, by transformers' own callbacks, which may fail and not take the
run with them.

Imports transformers: only for the process that trains.
"""

import contextvars
import hashlib
import netrc
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partialmethod
from typing import Any
from urllib.parse import urlsplit

from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback, TrackioCallback, WandbCallback

from workbench.recipe.trackers import PROJECT
from workbench.runs.folder import RunFolder

_REPORTERS = {TensorBoardCallback: "tensorboard", WandbCallback: "wandb", TrackioCallback: "trackio"}
_INIT_SECONDS = 30
_PROBE_SECONDS = 3.0
# What is still under way to a server when a run ends is waited for no longer than this.
_FINISH_SECONDS = 60.0


class GuardedTracker(TrainerCallback):
    """One of transformers' reporters. Where it fails once it is told no more, and a warning says so.

    Args:
        begin: called before it is told anything. end: gives back what it holds.
    """

    def __init__(
        self, name: str, inner: Any, begin: Callable[[], None], end: Callable[[], None], warn: Callable[..., None]
    ) -> None:
        self._name = name
        self._inner = inner
        self._begin = begin
        self._end = end
        self._warn = warn
        self._begun = False
        self._broken = False

    def tell(self, event: str, *arguments: Any, **more: Any) -> None:
        """Hand an event on."""
        if self._broken:
            return
        try:
            if not self._begun:
                self._begun = True
                self._begin()
            getattr(self._inner, event)(*arguments, **more)
        except Exception as error:
            self._break(error)

    on_train_begin = partialmethod(tell, "on_train_begin")
    on_log = partialmethod(tell, "on_log")
    on_save = partialmethod(tell, "on_save")
    on_train_end = partialmethod(tell, "on_train_end")

    def close(self) -> None:
        """The run has ended, or gives its memory back: send the rest, but not for long."""
        if not self._begun:
            return
        self._begun = False
        failed: list[Exception] = []

        def end() -> None:
            try:
                self._end()
            except Exception as error:
                failed.append(error)

        # trackio knows its run by the context of the thread that began it.
        here = contextvars.copy_context()
        ending = threading.Thread(target=here.run, args=(end,), name=f"end of {self._name}", daemon=True)
        ending.start()
        ending.join(_FINISH_SECONDS)
        if ending.is_alive():
            failed.append(TimeoutError(f"it did not finish within {_FINISH_SECONDS:.0f} s"))
        if failed and not self._broken:
            self._break(failed[0])

    def _break(self, error: Exception) -> None:
        self._broken = True
        reason = without_secrets(" ".join(str(error).split())[:200] or type(error).__name__)
        self._warn(f"Logging to {self._name} stopped: {reason}. The run continues.", kind="reporter")


def guard(trainer: Any, run: RunFolder, warn: Callable[..., None]) -> list[GuardedTracker]:
    """Put a guard around each of a trainer's reporters, which then keep what they write in the run's folder."""
    callbacks = trainer.callback_handler.callbacks
    guarded = []
    for index, callback in enumerate(callbacks):
        if (name := _REPORTERS.get(type(callback))) is not None:
            begin, end = _ways(name, callback, run, warn)
            callbacks[index] = GuardedTracker(name, callback, begin, end, warn)
            guarded.append(callbacks[index])
    return guarded


def _ways(
    name: str, callback: Any, run: RunFolder, warn: Callable[..., None]
) -> tuple[Callable[[], None], Callable[[], None]]:
    """How a reporter begins, and how it ends."""
    if name == "tensorboard":
        callback.logging_dir = str(run.path / "tensorboard")
        return _nothing, lambda: callback.on_train_end(None, None, None)
    if name == "wandb":
        return lambda: _begin_wandb(run, warn), _end_wandb
    return _nothing, lambda: callback._trackio.finish() if callback._initialized else None


def _nothing() -> None:
    pass


def _begin_wandb(run: RunFolder, warn: Callable[..., None]) -> None:
    """Begin a W&B run of this name, or go on with it; in the run's folder alone where the server is not to be had.

    The callback would begin one itself, and wait for minutes, or end the run, where there is no key or no network.
    """
    import wandb

    mode = os.environ.get("WANDB_MODE") or ""
    why = "" if mode else _no_wandb()
    if why:
        warn(
            f"The Weights & Biases log is saved in {run.path / 'wandb'}, because {why}. Upload it with `wandb sync`.",
            kind="reporter",
        )
    wandb.init(
        project=os.environ.get("WANDB_PROJECT") or PROJECT,
        name=run.id,
        id=hashlib.sha256(f"{run.path}{run.recipe_file.stat().st_mtime_ns}".encode()).hexdigest()[:16],
        resume="allow",
        dir=str(run.path),
        mode="offline" if why else mode or "online",
        # Its own capture of what is printed would take that from the run's log.
        settings=wandb.Settings(init_timeout=_INIT_SECONDS, console="off"),
    )


def _end_wandb() -> None:
    import wandb

    if wandb.run is not None:
        wandb.finish()


def _no_wandb() -> str:
    """Why its server cannot be told; empty where it can."""
    import httpx

    place = os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"
    host = urlsplit(place).hostname or place
    if not (os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE") or _is_logged_in(host)):
        return f"there is no API key for {host} (`wandb login`, or WANDB_API_KEY before the engine starts)"
    try:
        httpx.head(place, timeout=_PROBE_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError):
        return f"{host} cannot be reached"
    return ""


def _is_logged_in(host: str) -> bool:
    with suppress(OSError, netrc.NetrcParseError):
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    return False


def without_secrets(text: str) -> str:
    """The text with the values of variables that hold keys or tokens taken out."""
    for name, value in os.environ.items():
        if name.endswith(("KEY", "TOKEN", "SECRET", "PASSWORD")) and len(value) >= 8:
            text = text.replace(value, f"<{name}>")
    return text
