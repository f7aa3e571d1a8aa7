"""What the engine refuses in which of its states, and how it says so."""

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
    """Work is asked for while the engine does something else."""
    return WorkbenchError(f"The engine is busy {_DOING.get(state, 'working')}.", _WAIT, kind="busy")


def still_busy() -> WorkbenchError:
    """The engine is to end while it works."""
    return WorkbenchError("The engine is busy.", _WAIT, kind="busy")


def has_queued_runs() -> WorkbenchError:
    """The engine is to end while queued runs wait for their turn."""
    return WorkbenchError("There are queued runs.", "Hold or clear the queue first.", kind="busy")


def shutting_down() -> WorkbenchError:
    """Work is asked for while the engine ends."""
    return WorkbenchError("The engine is shutting down.", "Try again in a moment.", kind="engine_gone")


def nothing_to_stop() -> WorkbenchError:
    """A run is to be stopped where none is live."""
    return WorkbenchError("No run is live.", "There is nothing to stop.", kind="no_run")


def nothing_to_control() -> WorkbenchError:
    """A run is to be controlled where none is live."""
    return WorkbenchError("No run is live.", "Start one, or resume one that was interrupted.", kind="no_run")


def nothing_to_resume(run: RunFolder, *, is_running: bool) -> WorkbenchError:
    """A run is to be resumed that has not ended, or has reached its end."""
    return WorkbenchError(
        f"Run {run.id} is still training." if is_running else f"Run {run.id} has finished.",
        "Start a new run from its recipe to train further.",
        kind="nothing_to_resume",
    )


def paused_without_model(run: RunFolder) -> WorkbenchError:
    """A reply is asked for while a paused run has released its model."""
    return WorkbenchError(
        f"Run {run.id} is paused and its model is not in memory.", "Resume the run, or stop it first.", kind="busy"
    )
