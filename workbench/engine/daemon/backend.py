"""What the engine has done on its device: the seam between its state and the work itself."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from workbench.data.templates.template import Template
from workbench.engine.client.protocol import DeviceFacts, EvaluateRequest, LoadedModel, ReplyPiece, ReplyRequest
from workbench.engine.daemon.work import EndsWithRun, LiveTraining, Work
from workbench.engine.model.base import LoadedBase
from workbench.planning.launch import Launch
from workbench.progress import Progress
from workbench.recipe.schema import Recipe
from workbench.runs.folder import RunFolder

EmitReply = Callable[[Progress | ReplyPiece], None]


@dataclass(frozen=True)
class Memory:
    """The device, the model on it, and PyTorch's bytes; ``device`` is None until it was looked at."""

    device: DeviceFacts | None = None
    model: LoadedModel | None = None
    allocated: int = 0
    reserved: int = 0


class Backend(Protocol):
    """Holds at most one base in memory, trains it and replies with it.

    The engine calls one of its methods at a time, except for :meth:`memory` and :attr:`holds_model`, which never wait.
    """

    @property
    def holds_model(self) -> bool:
        """Whether a base is in memory that no run uses."""

    def memory(self, training: LiveTraining | None) -> Memory:
        """What is in memory now, for this live run or for none."""

    def warm_up(self) -> None:
        """Do what would delay the first work; slow."""

    def training(
        self,
        run: RunFolder,
        recipe: Recipe,
        launch: Launch | None,
        finished: Callable[[LiveTraining], None],
        *,
        resume: bool,
    ) -> LiveTraining:
        """A training of this run that is still to be started."""

    def take_back(self, training: LiveTraining) -> None:
        """Keep the base of a training that has ended, and free what else it held."""

    def reply(self, work: Work, request: ReplyRequest, emit: EmitReply) -> None:
        """Load what the request needs, and reply."""

    def reply_in_run(
        self,
        run: RunFolder,
        base: LoadedBase,
        template: Template,
        request: ReplyRequest,
        emit: EmitReply,
        ending: EndsWithRun,
    ) -> None:
        """Reply with the weights of a paused run, in the thread that trains it."""

    def evaluate(self, work: Work, request: EvaluateRequest, emit: Callable[[Progress], None]) -> Path:
        """Evaluate a run; returns the file with what was found."""

    def unload(self) -> None:
        """Release the base's memory."""
