"""The download of a model, and its progress."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from textual.content import Content

from screens.shell.header import short_name
from screens.widgets.glyphs import bar
from screens.widgets.plain import plain
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from screens.workbench import Workbench
    from workbench.progress import Progress

_BAR_WIDTH = 24


class Download:
    """Downloads one model at a time through the engine.

    Args:
        workbench: the app.
        progressed: called when there is progress to show.
        ended: called after a download was finished, cancelled or failed.
    """

    def __init__(
        self, workbench: Workbench, progressed: Callable[[], None], ended: Callable[[], Awaitable[None]]
    ) -> None:
        self._workbench = workbench
        self._progressed = progressed
        self._ended = ended
        self._source: str | None = None
        self._request_id = ""
        self._progress: Progress | None = None

    @property
    def is_running(self) -> bool:
        """Whether a model is being downloaded."""
        return self._source is not None

    def start(self, source: str) -> None:
        """Download a model."""
        self._source = source
        self._progressed()
        self._workbench.attempt(self._fetch(source))

    def cancel(self) -> None:
        """Cancel the download."""
        from workbench.engine.client.protocol import CancelRequest

        self._workbench.attempt(self._workbench.session.engine.cancel(CancelRequest(id=self._request_id)))

    async def _fetch(self, source: str) -> None:
        from workbench.engine.client.protocol import new_request_id
        from workbench.recipe.sections.model import ModelSection

        self._request_id = new_request_id()
        try:
            await self._workbench.start_engine()
            engine = self._workbench.session.engine
            async with aclosing(engine.fetch(ModelSection(source=source), request_id=self._request_id)) as answers:
                async for progress in answers:
                    self._progress = progress
                    self._progressed()
        except WorkbenchError as error:
            if error.kind != "cancelled":
                raise
        finally:
            self._source = self._progress = None
            await self._ended()

    @property
    def text(self) -> Content:
        """The progress, for the facts of a model."""
        progress = self._progress
        words = f"{progress.phase} {progress.detail}" if progress else "starting the engine"
        head = Content.styled(f"\n{plain(short_name(self._source or ''))}: {plain(words)}", "$accent")
        if progress is None or progress.fraction is None:
            return head
        return Content.assemble(
            head, "\n", (bar(progress.fraction, _BAR_WIDTH), "$accent on $panel"), f" {100 * progress.fraction:.0f} %"
        )
