"""The messages that the app posts to the pane in front. Only the newest of a kind is kept in the queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.message import Message

if TYPE_CHECKING:
    from workbench.engine.client.protocol import EngineStatus
    from workbench.machine.gpu import GpuSample
    from workbench.machine.host import HostSample
    from workbench.models.skeleton import Skeleton
    from workbench.recipe.schema import Recipe
    from workbench.runs.folder import RunFolder


class _Newest(Message, bubble=False):
    """Replaces an earlier message of its kind that is still queued."""

    def can_replace(self, message: Message) -> bool:
        return type(message) is type(self)


class RecipeChanged(_Newest):
    """The current recipe has changed."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe


class SkeletonChanged(_Newest):
    """The module tree of the recipe's model was read; None while another one is being read."""

    def __init__(self, skeleton: Skeleton | None) -> None:
        super().__init__()
        self.skeleton = skeleton


class StatusChanged(_Newest):
    """The engine's state has changed; None without an engine."""

    def __init__(self, status: EngineStatus | None) -> None:
        super().__init__()
        self.status = status


class SampleTaken(_Newest):
    """The hardware was read, which happens each second. ``gpus`` is empty on a machine without one."""

    def __init__(self, gpus: tuple[GpuSample, ...], host: HostSample | None) -> None:
        super().__init__()
        self.gpus = gpus
        self.host = host


class JournalGrew(_Newest):
    """``session.live`` has read new events of the live run's journal. ``run`` is its id."""

    def __init__(self, run: str) -> None:
        super().__init__()
        self.run = run


class RunsRenamed(_Newest):
    """A run whose name is shown was renamed; ``session.names`` has the new name."""


class RunSelected(_Newest):
    """A run was chosen in the history, to chat with; ``run`` is its id."""

    def __init__(self, run: str) -> None:
        super().__init__()
        self.run = run


class ResumeAsked(Message, bubble=False):
    """A run was chosen in the history to be resumed."""

    def __init__(self, run: RunFolder) -> None:
        super().__init__()
        self.run = run
