"""What the app tells the screens. A flood of them keeps only the newest, except of journal events, which all count."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.message import Message

if TYPE_CHECKING:
    from workbench.engine.client.protocol import EngineStatus
    from workbench.machine.gpu import GpuSample, HostSample
    from workbench.models.skeleton import Skeleton
    from workbench.recipe.schema import Recipe
    from workbench.runs.folder import RunFolder


class _Newest(Message, bubble=False):
    """Replaces one of its kind that still waits."""

    def can_replace(self, message: Message) -> bool:
        return type(message) is type(self)


class RecipeChanged(_Newest):
    """The current recipe is another one."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe


class SkeletonChanged(_Newest):
    """The module tree of the recipe's model arrived (or went: None while another one is on its way)."""

    def __init__(self, skeleton: Skeleton | None) -> None:
        super().__init__()
        self.skeleton = skeleton


class StatusChanged(_Newest):
    """The engine is in another state than a second ago; None where none answers."""

    def __init__(self, status: EngineStatus | None) -> None:
        super().__init__()
        self.status = status


class SampleTaken(_Newest):
    """The hardware was read, as it is each second. ``gpus`` is empty on a machine without one."""

    def __init__(self, gpus: tuple[GpuSample, ...], host: HostSample | None) -> None:
        super().__init__()
        self.gpus = gpus
        self.host = host


class JournalGrew(_Newest):
    """The live run's journal has new events, which ``session.live`` has folded. ``run`` is its id."""

    def __init__(self, run: str) -> None:
        super().__init__()
        self.run = run


class RunsRenamed(_Newest):
    """A run that is named in a title is called otherwise; the session's names have it."""


class RunSelected(_Newest):
    """A run was picked in the history; ``run`` is its id."""

    def __init__(self, run: str) -> None:
        super().__init__()
        self.run = run


class ResumeAsked(Message, bubble=False):
    """A run was chosen in the history to be resumed."""

    def __init__(self, run: RunFolder) -> None:
        super().__init__()
        self.run = run
