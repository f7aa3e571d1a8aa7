"""What the engine's background thread is at, and how that is told."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from workbench.engine.client.protocol import EngineState, LoadedModel
from workbench.engine.distributed.launched import LaunchedTraining
from workbench.engine.model.base import LoadedBase
from workbench.engine.steering.controls import Controls
from workbench.engine.training.thread import TrainingThread
from workbench.errors import WorkbenchError
from workbench.progress import Progress


@dataclass
class Work:
    """What the background thread is at."""

    state: EngineState
    progress: Progress | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)
    training: TrainingThread | LaunchedTraining | None = None


@dataclass(frozen=True)
class EndsWithRun:
    """A reply of a run that stands still: to end when it is cancelled, and when the run is to end."""

    cancelled: threading.Event
    controls: Controls

    def is_set(self) -> bool:
        return self.cancelled.is_set() or self.controls.is_stopped()


def reporter(work: Work, emit: Callable[[Progress], None]) -> Callable[[Progress], None]:
    """Progress for the status and for who asked."""

    def report(progress: Progress) -> None:
        work.progress = progress
        emit(progress)

    return report


def busy(state: EngineState) -> WorkbenchError:
    """The refusal of what has to wait."""
    doing = {
        "training": "training a run",
        "replying": "generating a reply",
        "evaluating": "evaluating a run",
        "loading": "loading a model",
    }
    return WorkbenchError(
        f"The engine is busy {doing.get(state, 'working')}.", "Wait until it finishes, or stop it first.", kind="busy"
    )


def loaded_model(base: LoadedBase | None) -> LoadedModel | None:
    """A base for the status."""
    if base is None:
        return None
    return LoadedModel(
        source=base.section.source,
        method=base.quantization.method,
        adapter=base.active_adapter,
        adapters=sorted(map(str, list(base.adapters))),
        bytes=base.footprint,
    )
