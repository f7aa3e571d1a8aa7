"""The errors for requests that the engine refuses in its current state."""

from workbench.engine.client.protocol import EngineState
from workbench.errors import WorkbenchError
from workbench.runs.folder import RunFolder

_DOING: dict[EngineState, str] = {
    "training": "training a run",
    "replying": "generating a reply",
    "evaluating": "evaluating a run",
    "loading": "loading a model",
}
_WAIT = "Wait until it finishes, or stop it first."


def busy(state: EngineState) -> WorkbenchError:
    """Work was requested while the engine is doing something else."""
    return WorkbenchError(f"The engine is busy {_DOING.get(state, 'working')}.", _WAIT, kind="busy")


def still_busy() -> WorkbenchError:
    """The engine was asked to end while it is working."""
    return WorkbenchError("The engine is busy.", _WAIT, kind="busy")


def has_queued_runs() -> WorkbenchError:
    """The engine was asked to end while runs are queued."""
    return WorkbenchError("There are queued runs.", "Hold or clear the queue first.", kind="busy")


def shutting_down() -> WorkbenchError:
    """Work was requested while the engine is ending."""
    return WorkbenchError("The engine is shutting down.", "Try again in a moment.", kind="engine_gone")


def nothing_to_stop() -> WorkbenchError:
    """A stop was requested, but no run is live."""
    return WorkbenchError("No run is live.", "There is nothing to stop.", kind="no_run")


def nothing_to_control() -> WorkbenchError:
    """An action on the live run was requested, but no run is live."""
    return WorkbenchError("No run is live.", "Start one, or resume one that was interrupted.", kind="no_run")


def nothing_to_resume(run: RunFolder, *, is_running: bool) -> WorkbenchError:
    """The run to resume is still training, or has finished."""
    return WorkbenchError(
        f"Run {run.id} is still training." if is_running else f"Run {run.id} has finished.",
        "Start a new run from its recipe to train further.",
        kind="nothing_to_resume",
    )


def paused_without_model(run: RunFolder) -> WorkbenchError:
    """A reply was requested while a paused run has released its model."""
    return WorkbenchError(
        f"Run {run.id} is paused and its model is not in memory.", "Resume the run, or stop it first.", kind="busy"
    )
