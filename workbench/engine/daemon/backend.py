"""The interface between the engine's state and the work on the device; tests implement it without PyTorch."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from workbench.data.templates.template import Template
from workbench.engine.client.protocol import DeviceFacts, EvaluateRequest, LoadedModel, ReplyPiece, ReplyRequest
from workbench.engine.daemon.work import EndsWithRun, LiveTraining, Work
from workbench.engine.model.base import LoadedBase
from workbench.planning.launch import Launch
from workbench.progress import Progress, Report
from workbench.recipe.schema import Recipe
from workbench.runs.folder import RunFolder

EmitReply = Callable[[Progress | ReplyPiece], None]


@dataclass(frozen=True)
class Memory:
    """The device, the model on it, and the memory that PyTorch uses; ``device`` is None until it has been examined."""

    device: DeviceFacts | None = None
    model: LoadedModel | None = None
    allocated: int = 0
    reserved: int = 0


class Backend(Protocol):
    """Holds at most one base in memory, trains it and replies with it.

    The engine calls one method at a time, except for :meth:`memory` and :attr:`holds_model`, which return at once.
    """

    @property
    def holds_model(self) -> bool:
        """Whether a base is in memory and not used by a run."""

    def memory(self, training: LiveTraining | None) -> Memory:
        """The current memory; ``training`` is the live run, if any."""

    def warm_up(self) -> None:
        """Import libraries and initialize the device, so that the first work does not wait for it. Slow."""

    def training(
        self,
        run: RunFolder,
        recipe: Recipe,
        launch: Launch | None,
        finished: Callable[[LiveTraining], None],
        *,
        resume: bool,
    ) -> LiveTraining:
        """Prepare the training of a run; the caller starts it."""

    def take_back(self, training: LiveTraining) -> None:
        """Keep the base of a training that has ended, and free its other memory."""

    def reply(self, work: Work, request: ReplyRequest, emit: EmitReply) -> None:
        """Load the model that a request needs, and reply."""

    def reply_in_run(
        self,
        run: RunFolder,
        base: LoadedBase,
        template: Template,
        request: ReplyRequest,
        emit: EmitReply,
        ending: EndsWithRun,
    ) -> None:
        """Reply with the weights of a paused run, in its training thread."""

    def evaluate(self, work: Work, request: EvaluateRequest, emit: Report) -> Path:
        """Evaluate a run; returns the file with the results."""

    def unload(self) -> None:
        """Release the base's memory."""
