"""How each tracker begins and ends its own run, where transformers' callback would write elsewhere, ask, or wait."""

import hashlib
import netrc
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from workbench.recipe.trackers import PROJECT
from workbench.runs.folder import RunFolder

if TYPE_CHECKING:
    from transformers import TrainerCallback

_INIT_SECONDS = 30
_PROBE_SECONDS = 3.0


class Warn(Protocol):
    """Writes a warning to the journal."""

    def __call__(self, message: str, *, kind: str) -> None: ...


def begin_and_end(
    name: str, callback: "TrainerCallback", run: RunFolder, warn: Warn
) -> tuple[Callable[[], None], Callable[[], None]]:
    """The functions that begin a tracker's run and finish its uploads; local files go to the run folder."""
    match name:
        case "tensorboard":
            callback.logging_dir = str(run.path / "tensorboard")
            return _nothing, lambda: callback.on_train_end(None, None, None)
        case "wandb":
            return lambda: _begin_wandb(run, warn), _end_wandb
        case "trackio":
            return _nothing, lambda: callback._trackio.finish() if callback._initialized else None
        case "mlflow":
            started: list[tuple[str, str]] = []
            return lambda: started.append(_begin_mlflow(run)), lambda: _end_mlflow(started)
        case "swanlab":
            return lambda: _begin_swanlab(run, warn), _end_swanlab
    return _nothing, _nothing


def _nothing() -> None:
    pass


def _begin_mlflow(run: RunFolder) -> tuple[str, str]:
    """Start an MLflow run of this name, in a file of the run folder unless a server is named.

    The callback logs to the active run. Otherwise it would start one in the folder that the engine was started in.

    Returns:
        Where it is tracked, and its id.
    """
    import mlflow

    server = os.environ.get("MLFLOW_TRACKING_URI")
    place = server or f"sqlite:///{run.path / 'mlflow.db'}"
    mlflow.set_tracking_uri(place)
    if server is None:
        # MLflow sets the variable, with which the next run would be logged to the database of this one.
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    if mlflow.active_run() is not None:
        # The run released its memory, which ended its log, and resumed.
        mlflow.end_run()
    mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT)
    return place, str(mlflow.start_run(run_name=run.id).info.run_id)


def _end_mlflow(started: list[tuple[str, str]]) -> None:
    """Mark the run as finished. MLflow's own ``end_run`` knows only runs that this thread began."""
    from mlflow import MlflowClient, flush_async_logging

    flush_async_logging()
    for place, run_id in started:
        MlflowClient(place).set_terminated(run_id)


def _begin_swanlab(run: RunFolder, warn: Warn) -> None:
    """Start the SwanLab run of this name; offline, in the run folder, if there is no key.

    Otherwise the callback would ask for a key at a terminal that the engine does not have.
    """
    import swanlab

    mode = os.environ.get("SWANLAB_MODE") or ""
    folder = Path(os.environ.get("SWANLAB_LOG_DIR") or run.path / "swanlog")
    if not mode and not os.environ.get("SWANLAB_API_KEY") and not _swanlab_login().is_file():
        mode = "offline"
        warn(
            f"The SwanLab log is saved in {folder}, because there is no API key (`swanlab login`, or SWANLAB_API_KEY "
            "before the engine starts). Upload it with `swanlab sync`.",
            kind="reporter",
        )
    project = os.environ.get("SWANLAB_PROJECT") or PROJECT
    swanlab.init(project=project, experiment_name=run.id, logdir=str(folder), **({"mode": mode} if mode else {}))


def _end_swanlab() -> None:
    import swanlab

    if swanlab.get_run() is not None:
        swanlab.finish()


def _swanlab_login() -> Path:
    return Path(os.environ.get("SWANLAB_SAVE_DIR") or "~/.swanlab").expanduser() / ".netrc"


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
